//! The disk after a cut, built from the journal.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use super::{FileId, Step};

/// What a disk writes in one piece.
const SECTOR: usize = 512;

/// Everything that happened to the disk and everything that was acknowledged, in order.
pub struct Recording {
    steps: Vec<Step>,
}

/// What becomes of writes that no sync covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsynced {
    /// None is there.
    Lost,
    /// Some are there, in whole or torn, chosen by this seed.
    Torn(u64),
}

/// One moment at which the power goes.
pub struct Cut<'r> {
    /// How many steps happened before it.
    pub step: usize,
    /// What was acknowledged before it, in order.
    pub marks: &'r [String],
    disk: &'r Disk,
}

/// Files as they are found after a cut, by name.
pub struct Image {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Recording {
    pub(super) fn new(steps: Vec<Step>) -> Self {
        Self { steps }
    }

    /// How many moments there are to cut at.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// `count` moments, chosen by `seed`, in order; every moment where there are fewer. The last is always there.
    pub fn sample(&self, count: usize, seed: u64) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.len()).collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut all);
        all.truncate(count);
        all.push(self.len());
        all.sort_unstable();
        all
    }

    /// Calls `check` for each of `cuts`, which must rise.
    pub fn for_each_cut(&self, cuts: &[usize], mut check: impl FnMut(&Cut<'_>)) {
        let mut disk = Disk::default();
        let mut marks = Vec::new();
        let mut done = 0;
        for &step in cuts {
            for happened in &self.steps[done..step] {
                match happened {
                    Step::Marked { label } => marks.push(label.clone()),
                    other => disk.apply(other),
                }
            }
            done = step;
            check(&Cut { step, marks: &marks, disk: &disk });
        }
    }
}

impl Cut<'_> {
    /// What the disk holds.
    pub fn image(&self, unsynced: Unsynced) -> Image {
        self.disk.image(unsynced)
    }
}

impl Image {
    /// Writes the files into `folder`, by their last names.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        for (path, content) in &self.files {
            std::fs::write(folder.join(path.file_name().unwrap_or_default()), content)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Disk {
    files: HashMap<FileId, File>,
    /// Names that survive.
    names: BTreeMap<PathBuf, FileId>,
    /// Changes of names that no sync of the folder covered.
    names_pending: Vec<NameChange>,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { size: usize },
}

enum NameChange {
    Add(PathBuf, FileId),
    Remove(PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Add(path, file) => names.insert(path.clone(), *file),
            Self::Remove(path) => names.remove(path),
        };
    }
}

impl Disk {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Found { file, path, content } => {
                self.names.insert(path.clone(), *file);
                self.file(*file).durable.clone_from(content);
            }
            Step::Renamed { file, path } => {
                self.sync_folder();
                self.names.retain(|_, named| named != file);
                self.names.insert(path.clone(), *file);
            }
            Step::Created { file, path } => self.names_pending.push(NameChange::Add(path.clone(), *file)),
            Step::Removed { path, folder_synced } => {
                self.names_pending.push(NameChange::Remove(path.clone()));
                if *folder_synced {
                    self.sync_folder();
                }
            }
            Step::Written { file, offset, bytes } => {
                self.file(*file).pending.push(Change::Write { offset: *offset, bytes: bytes.clone() });
            }
            Step::Truncated { file, size } => self.file(*file).pending.push(Change::Truncate { size: *size }),
            Step::Synced { file, folder_too } => {
                let file = self.file(*file);
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
                if *folder_too {
                    self.sync_folder();
                }
            }
            Step::SyncFailed { file } => self.file(*file).pending.clear(),
            Step::Marked { .. } => {}
        }
    }

    fn file(&mut self, file: FileId) -> &mut File {
        self.files.entry(file).or_default()
    }

    fn sync_folder(&mut self) {
        for change in std::mem::take(&mut self.names_pending) {
            change.apply(&mut self.names);
        }
    }

    fn image(&self, unsynced: Unsynced) -> Image {
        let mut rng = match unsynced {
            Unsynced::Lost => None,
            Unsynced::Torn(seed) => Some(fastrand::Rng::with_seed(seed)),
        };
        let mut names = self.names.clone();
        let names_kept = rng.as_mut().map_or(0, |rng| rng.usize(..=self.names_pending.len()));
        self.names_pending[..names_kept].iter().for_each(|change| change.apply(&mut names));
        let content = |file: FileId| {
            let Some(file) = self.files.get(&file) else { return Vec::new() };
            let mut content = file.durable.clone();
            if let Some(rng) = &mut rng {
                file.pending.iter().for_each(|change| change.apply_torn(&mut content, rng));
            }
            content
        };
        let mut content = content;
        Image { files: names.into_iter().map(|(path, file)| (path, content(file))).collect() }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write_at(content, *offset, bytes),
            Self::Truncate { size } => content.resize(*size, 0),
        }
    }

    /// The change in whole, in sectors, or not at all.
    fn apply_torn(&self, content: &mut Vec<u8>, rng: &mut fastrand::Rng) {
        match (rng.u8(..3), self) {
            (0, _) => {}
            (1, _) | (_, Self::Truncate { .. }) => self.apply(content),
            (_, Self::Write { offset, bytes }) => {
                let mut start = 0;
                while start < bytes.len() {
                    let end = (start + SECTOR - (offset + start) % SECTOR).min(bytes.len());
                    if rng.bool() {
                        write_at(content, offset + start, &bytes[start..end]);
                    }
                    start = end;
                }
            }
        }
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_at(steps: &[Step], unsynced: Unsynced) -> Option<Vec<u8>> {
        let mut disk = Disk::default();
        steps.iter().for_each(|step| disk.apply(step));
        disk.image(unsynced).files.get(Path::new("f")).cloned()
    }

    fn written(bytes: &[u8]) -> Step {
        Step::Written { file: 0, offset: 0, bytes: bytes.to_vec() }
    }

    #[test]
    fn only_synced_names_and_bytes_survive() {
        let created = Step::Created { file: 0, path: "f".into() };
        let synced = |folder_too| Step::Synced { file: 0, folder_too };
        let check = |steps: &[Step], expected: Option<&[u8]>| {
            assert_eq!(image_at(steps, Unsynced::Lost).as_deref(), expected, "{steps:?}");
        };
        check(&[created.clone(), written(b"a")], None);
        check(&[created.clone(), written(b"a"), synced(false)], None);
        check(&[created.clone(), written(b"a"), synced(true)], Some(b"a"));
        check(&[created.clone(), synced(true), written(b"a")], Some(b""));
        check(&[created.clone(), written(b"a"), Step::SyncFailed { file: 0 }, synced(true)], Some(b""));
        let removed = |folder_synced| Step::Removed { path: "f".into(), folder_synced };
        check(&[created.clone(), written(b"a"), synced(true), removed(false)], Some(b"a"));
        check(&[created, written(b"a"), synced(true), removed(true)], None);
    }

    #[test]
    fn unsynced_writes_tear_at_sectors() {
        let found = Step::Found { file: 0, path: "f".into(), content: vec![0; 4 * SECTOR] };
        let steps = [found, written(&[1; 4 * SECTOR])];
        let images: Vec<_> = (0..64).filter_map(|seed| image_at(&steps, Unsynced::Torn(seed))).collect();
        for image in &images {
            assert!(image.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        }
        let whole = |byte| images.iter().any(|image| image.iter().all(|found| *found == byte));
        let torn = images.iter().any(|image| image.contains(&0) && image.contains(&1));
        assert!(whole(0) && whole(1) && torn);
    }
}
