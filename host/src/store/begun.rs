//! Which runs are under way, written where the next start finds it when this process ends without a word: killed, aborted,
//! out of memory.
//!
//! A file beside the store, one slot for each call, written into the page cache as the call begins: a microsecond, no
//! commit, no fsync. What a process wrote there outlives the process. It need not outlive the machine, since no event can
//! take that down: a file of an earlier boot says nothing. A slot is not cleared when its call ends, for the store knows
//! which runs have come to an outcome since.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{ClaimedRun, EventSeq};
use crate::sync::lock;

/// Calls whose outcome is not durable yet at most: more than there are workers, places in the outbox's queue and runs in its
/// batches. A call beyond that is made without a mark.
const SLOTS_MAX: u32 = 4096;

/// Bytes of a slot, and of the header before the first one.
const SLOT_BYTES: usize = 128;

/// The longest plugin name a slot has room for; names are shorter (64 bytes).
const NAME_BYTES_MAX: usize = SLOT_BYTES - NAME_AT;

const MAGIC: &[u8; 8] = b"whbegun1";
const SEQ_AT: usize = 8;
const ATTEMPTS_AT: usize = 16;
const ALONE_AT: usize = 20;
const NAME_LENGTH_AT: usize = 21;
const DIGEST_AT: usize = 22;
const NAME_AT: usize = 54;

const BOOT_ID_BYTES_MAX: usize = SLOT_BYTES - MAGIC.len();

/// A run that was under way in a host that is gone, unless the store has its outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BegunRun {
    /// The host's id in the store.
    pub(super) host: i64,
    pub(super) seq: EventSeq,
    pub(super) plugin: String,
    /// The hex SHA-256 of the plugin's file.
    pub(super) plugin_digest: String,
    pub(super) attempts_made: u32,
    /// Whether nothing else was under way and the call had not returned.
    pub(super) alone: bool,
}

/// The marks of one host.
pub(super) struct BegunFile {
    path: PathBuf,
    host: i64,
    file: Option<File>,
    free: Mutex<Slots>,
    failed: AtomicBool,
}

/// Slots given back come first, so that few are ever written.
struct Slots {
    given_back: Vec<u32>,
    next: u32,
}

/// That a call is under way: to be kept until its outcome is durable.
#[derive(Default)]
pub struct Begun(Option<Mark>);

struct Mark {
    file: Arc<BegunFile>,
    slot: u32,
    alone: bool,
}

impl Begun {
    /// The call has returned: should the host end from here on, the call was not what ended it. Only a call that was alone
    /// is spoken of as long as its outcome is not durable, so that no other pays for a second write.
    pub fn returned(&self) {
        if let Some(Mark { file, slot, alone: true }) = &self.0 {
            file.write(&[0], slot_offset(*slot) + ALONE_AT as u64);
        }
    }
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Begun").field(&self.0.as_ref().map(|mark| mark.slot)).finish()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(mark) = self.0.take() {
            lock(&mark.file.free).given_back.push(mark.slot);
        }
    }
}

/// What an earlier host left; nothing where it stopped in order, or where the machine was started since.
#[derive(PartialEq, Eq, Default, Debug)]
pub(super) struct LeftBehind {
    /// Whether it ended without stopping, whatever was under way.
    pub(super) is_after_crash: bool,
    pub(super) runs: Vec<BegunRun>,
}

/// Looks for what an earlier host left.
pub(super) fn left_behind(store: &Path) -> LeftBehind {
    let path = path_for(store);
    match std::fs::read(&path) {
        Ok(bytes) => parse(&bytes, &boot_id()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => LeftBehind::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "which runs were under way when the host ended can't be read");
            LeftBehind { is_after_crash: true, runs: Vec::new() }
        }
    }
}

impl BegunFile {
    /// The file for the marks of `host`. Where it can't be made the host runs all the same: then a run that takes it down
    /// is not known at the next start.
    pub(super) fn create(store: &Path, host: i64) -> Arc<Self> {
        let path = path_for(store);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.and_then(|file| file.write_all_at(&header(&boot_id()), 0).map(|()| file));
        if let Err(error) = &file {
            tracing::warn!(path = %path.display(), %error, "{UNMARKED}");
        }
        let free = Mutex::new(Slots { given_back: Vec::new(), next: 0 });
        let failed = AtomicBool::new(file.is_err());
        Arc::new(Self { path, host, file: file.ok(), free, failed })
    }

    /// For a process that makes no calls: what is there stays.
    pub(super) fn none(store: &Path, host: i64) -> Arc<Self> {
        let free = Mutex::new(Slots { given_back: Vec::new(), next: 0 });
        Arc::new(Self { path: path_for(store), host, file: None, free, failed: AtomicBool::new(true) })
    }

    /// Marks that a call begins of `run`, by the plugin's build of this hex digest.
    pub(super) fn begin(self: &Arc<Self>, run: &ClaimedRun, plugin_digest: &str, alone: bool) -> Begun {
        let Some(bytes) = self.encode(run, plugin_digest, alone) else { return Begun::default() };
        let Some(slot) = lock(&self.free).take() else { return Begun::default() };
        self.write(&bytes, slot_offset(slot));
        Begun(Some(Mark { file: Arc::clone(self), slot, alone }))
    }

    /// Whether no call was ever marked.
    pub(super) fn is_unused(&self) -> bool {
        lock(&self.free).next == 0
    }

    /// Whether calls can be marked, as far as is known.
    pub(super) fn marks(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    fn write(&self, bytes: &[u8], offset: u64) {
        let Some(file) = &self.file else { return };
        match file.write_all_at(bytes, offset) {
            Ok(()) => self.failed.store(false, Ordering::Relaxed),
            Err(error) if !self.failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!(path = %self.path.display(), %error, "{UNMARKED}");
            }
            Err(_) => {}
        }
    }

    /// The host stops in order: whatever is still under way did not end it.
    pub(super) fn remove(&self) {
        if self.file.is_none() {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the file could not be removed; what it names is called alone after the next start");
        }
    }

    fn encode(&self, run: &ClaimedRun, plugin_digest: &str, alone: bool) -> Option<[u8; SLOT_BYTES]> {
        let name = run.plugin.as_bytes();
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut slot = [0; SLOT_BYTES];
        slot[..SEQ_AT].copy_from_slice(&self.host.to_le_bytes());
        slot[SEQ_AT..ATTEMPTS_AT].copy_from_slice(&run.seq.0.to_le_bytes());
        slot[ATTEMPTS_AT..ALONE_AT].copy_from_slice(&run.attempts_made.to_le_bytes());
        slot[ALONE_AT] = u8::from(alone);
        slot[NAME_LENGTH_AT] = u8::try_from(name.len()).ok()?;
        // A digest that is none, as in tests, is told by zeros.
        let _none = hex::decode_to_slice(plugin_digest, &mut slot[DIGEST_AT..NAME_AT]);
        slot[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        Some(slot)
    }
}

impl Slots {
    fn take(&mut self) -> Option<u32> {
        self.given_back.pop().or_else(|| {
            let next = self.next;
            (next < SLOTS_MAX).then(|| self.next += 1)?;
            Some(next)
        })
    }
}

const UNMARKED: &str = "which runs are under way can't be written down: should one take the host down, the next start does not know \
                        which; look at the disk and the file's permissions";

/// Where in the file a slot is.
fn slot_offset(slot: u32) -> u64 {
    (u64::from(slot) + 1) * SLOT_BYTES as u64
}

fn path_for(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".begun");
    name.into()
}

/// Empty where the system has none: then every boot is the same one.
fn boot_id() -> Vec<u8> {
    let mut id = crate::clock::boot_id().into_bytes();
    id.truncate(BOOT_ID_BYTES_MAX);
    id
}

fn header(boot_id: &[u8]) -> [u8; SLOT_BYTES] {
    let mut header = [0; SLOT_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..MAGIC.len() + boot_id.len()].copy_from_slice(boot_id);
    header
}

/// Pure: the marks in a file's bytes. Bytes that are no marks are passed over: the store is asked about each anyway.
fn parse(bytes: &[u8], boot_id: &[u8]) -> LeftBehind {
    let Some((found, slots)) = bytes.split_at_checked(SLOT_BYTES) else { return LeftBehind::default() };
    if found != header(boot_id) {
        return LeftBehind::default();
    }
    let runs = slots.chunks_exact(SLOT_BYTES).take(SLOTS_MAX as usize).filter_map(decode).collect();
    LeftBehind { is_after_crash: true, runs }
}

fn decode(slot: &[u8]) -> Option<BegunRun> {
    let number = |at: usize| Some(i64::from_le_bytes(slot[at..at + 8].try_into().ok()?));
    let name = slot[NAME_AT..].get(..usize::from(slot[NAME_LENGTH_AT]))?;
    let run = BegunRun {
        host: number(0)?,
        seq: EventSeq(number(SEQ_AT)?),
        plugin: std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?.to_owned(),
        plugin_digest: hex::encode(&slot[DIGEST_AT..NAME_AT]),
        attempts_made: u32::from_le_bytes(slot[ATTEMPTS_AT..ALONE_AT].try_into().ok()?),
        alone: slot[ALONE_AT] == 1,
    };
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture;

    const DIGEST: &str = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff";

    fn run(seq: i64, plugin: &str) -> ClaimedRun {
        let event = Arc::new(fixture::event("{}"));
        ClaimedRun { seq: EventSeq(seq), event, plugin: plugin.into(), attempts_made: 2, deadlines: 0, crashes: 0 }
    }

    fn begun(seq: i64, plugin: &str, alone: bool) -> BegunRun {
        let (plugin, plugin_digest) = (plugin.to_owned(), DIGEST.to_owned());
        BegunRun { host: 7, seq: EventSeq(seq), plugin, plugin_digest, attempts_made: 2, alone }
    }

    #[test]
    fn marks_are_found_by_the_next_start_and_slots_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        assert_eq!(left_behind(&store), LeftBehind::default());
        let file = BegunFile::create(&store, 7);
        let (first, _second) = (file.begin(&run(1, "orders"), DIGEST, false), file.begin(&run(2, "a"), DIGEST, true));
        assert_eq!(left_behind(&store).runs, [begun(1, "orders", false), begun(2, "a", true)]);
        drop(first);
        assert_eq!(left_behind(&store).runs.len(), 2, "a call's end writes nothing");
        let _third = file.begin(&run(3, "b"), DIGEST, false);
        assert_eq!(left_behind(&store).runs, [begun(3, "b", false), begun(2, "a", true)]);
        file.remove();
        assert_eq!(left_behind(&store), LeftBehind::default(), "a host that stopped in order leaves nothing");
    }

    #[test]
    fn a_call_that_has_returned_did_not_end_the_host_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        let file = BegunFile::create(&store, 7);
        let marks = [file.begin(&run(1, "orders"), DIGEST, true), file.begin(&run(2, "a"), DIGEST, true)];
        marks[0].returned();
        assert_eq!(left_behind(&store).runs, [begun(1, "orders", false), begun(2, "a", true)]);
    }

    #[test]
    fn calls_beyond_the_slots_are_made_without_a_mark() {
        let folder = tempfile::tempdir().unwrap();
        let file = BegunFile::create(&folder.path().join("store.db"), 7);
        let marks: Vec<_> =
            (0..SLOTS_MAX + 9).map(|seq| file.begin(&run(seq.into(), "orders"), DIGEST, false)).collect();
        assert_eq!(marks.iter().filter(|mark| mark.0.is_some()).count(), SLOTS_MAX as usize);
        assert_eq!(left_behind(&folder.path().join("store.db")).runs.len(), SLOTS_MAX as usize);
    }

    #[test]
    fn another_boot_and_other_bytes_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        let file = BegunFile::create(&store, 7);
        let _mark = file.begin(&run(1, "orders"), DIGEST, false);
        let bytes = std::fs::read(path_for(&store)).unwrap();
        assert_eq!(parse(&bytes, &boot_id()).runs, [begun(1, "orders", false)]);
        assert_eq!(parse(&bytes, b"another boot"), LeftBehind::default());
        assert_eq!(
            parse(&bytes[..SLOT_BYTES + 30], &boot_id()),
            LeftBehind { is_after_crash: true, runs: Vec::new() },
            "a slot cut short"
        );
        assert_eq!(parse(b"short", &boot_id()), LeftBehind::default());
        let mut torn = bytes;
        torn[SLOT_BYTES + NAME_LENGTH_AT] = 255;
        assert_eq!(parse(&torn, &boot_id()).runs, []);
    }
}
