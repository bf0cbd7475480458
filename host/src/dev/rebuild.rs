//! Builds a project again when its sources change, and puts the result into the folder that the host watches.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::project::{self, OUTPUT_FOLDER, Project};
use crate::watch::settle;

/// Folders of a project that are watched; those beyond are not.
const FOLDERS_MAX: usize = 1_000;
/// Files of a project that are looked at; those beyond are not.
const FILES_MAX: usize = 20_000;
/// Bytes of one file that are looked at.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A build that a change of the sources led to.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// The plugin's name.
    pub plugin: String,
    /// How long it took.
    pub duration: Duration,
    /// Why there is nothing new; the toolchain's own words are on standard error.
    pub error: Option<String>,
}

/// What the sources are, and a watch on their folders.
struct Sources {
    changes: watch::Receiver<u64>,
    // Stops watching when it is dropped.
    _watcher: RecommendedWatcher,
}

/// Tells when what a project's sources say has changed.
pub(crate) struct ProjectWatch {
    project: Project,
    /// What they said at the last look.
    seen: [u8; 32],
}

impl ProjectWatch {
    /// From what they say now.
    pub(crate) fn new(project: Project) -> Self {
        Self { seen: digest(&project), project }
    }

    /// Returns once they say something else than at the last look.
    ///
    /// # Errors
    /// The folders can't be watched.
    pub(crate) async fn changed(&mut self) -> notify::Result<()> {
        let mut sources = Sources::watch(&self.project)?;
        // What came between the last look and the watch.
        let mut now = digest(&self.project);
        while now == self.seen {
            if sources.changes.changed().await.is_err() {
                return Err(notify::Error::generic("the watch has ended"));
            }
            settle(&mut sources.changes).await;
            now = digest(&self.project);
        }
        self.seen = now;
        Ok(())
    }
}

/// Builds again at every change of what the sources say, and tells of it, until nobody listens.
///
/// # Errors
/// The folders can't be watched.
pub(super) async fn rebuild(
    project: Project,
    plugins: PathBuf,
    clock: Arc<dyn Clock>,
    told: mpsc::Sender<Rebuilt>,
) -> notify::Result<()> {
    let mut sources = ProjectWatch::new(project.clone());
    loop {
        sources.changed().await?;
        let begun = clock.monotonic();
        let (building, to) = (project.clone(), plugins.clone());
        let outcome = tokio::task::spawn_blocking(move || build(&building, &to)).await;
        let error = match outcome {
            Ok(built) => built.err(),
            Err(error) => Some(format!("the build did not end: {error}")),
        };
        let duration = clock.monotonic().saturating_sub(begun);
        if told.send(Rebuilt { plugin: project.name.clone(), duration, error }).await.is_err() {
            return Ok(());
        }
    }
}

/// Into the project's own folder, as `plugin build` does, and from there to the host's.
fn build(project: &Project, plugins: &Path) -> Result<(), String> {
    let built = project::build(project, &project.output(), &mut |step| eprintln!("$ {step}"));
    let built = built.map_err(|error| error.to_string())?;
    let to = plugins.join(format!("{}.wasm", project.name));
    // The sidecar first: the host takes the pair when the plugin comes.
    if let Some(sidecar) = &built.sidecar {
        put(sidecar, &to.with_extension("toml"))?;
    }
    put(&built.file, &to)
}

/// In one step: the host may look at any moment.
fn put(from: &Path, to: &Path) -> Result<(), String> {
    let draft = to.with_extension("draft");
    let copied = fs::copy(from, &draft).and_then(|_| fs::rename(&draft, to));
    copied.map_err(|error| format!("{} can't be copied to {}: {error}", from.display(), to.display()))
}

impl Sources {
    fn watch(project: &Project) -> notify::Result<Self> {
        let (sender, changes) = watch::channel(0_u64);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is an event too; it changes nothing.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                sender.send_modify(|changes| *changes += 1);
            }
        })?;
        let mut folders = BTreeSet::from([project.folder.clone()]);
        walk(project, &mut |path, is_folder| {
            if is_folder && folders.len() < FOLDERS_MAX {
                folders.insert(path.to_owned());
            }
        });
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { changes, _watcher: watcher })
    }
}

/// What the sources say. Not when they were written: a toolchain that writes a file as it was has changed nothing.
fn digest(project: &Project) -> [u8; 32] {
    let mut files = BTreeSet::new();
    walk(project, &mut |path, is_folder| {
        if !is_folder && files.len() < FILES_MAX {
            files.insert(path.to_owned());
        }
    });
    let mut digest = Sha256::new();
    for file in &files {
        digest.update(file.as_os_str().as_encoded_bytes());
        // A file that went meanwhile is a change that is seen the next time.
        if let Ok(content) = content_digest(file) {
            digest.update(content);
        }
    }
    digest.finalize().into()
}

fn content_digest(file: &Path) -> io::Result<[u8; 32]> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Sha256::digest(&bytes).into())
}

/// Every file and folder of the project that is no output of its toolchain, nor hidden.
fn walk(project: &Project, each: &mut dyn FnMut(&Path, bool)) {
    let mut folders = vec![project.folder.clone()];
    let mut looked_into = 0;
    while let Some(folder) = folders.pop() {
        looked_into += 1;
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| is_source(project, &entry.file_name().to_string_lossy())) {
            // A link is not followed: it could lead round in a circle.
            let Ok(kind) = entry.file_type() else { continue };
            each(&entry.path(), kind.is_dir());
            if kind.is_dir() && looked_into + folders.len() < FOLDERS_MAX {
                folders.push(entry.path());
            }
        }
    }
}

fn is_source(project: &Project, name: &str) -> bool {
    !name.starts_with('.') && name != OUTPUT_FOLDER && !project.language.output_folders.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::{Language, Names, create};

    fn project() -> (tempfile::TempDir, Project) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("orders");
        create(Language::find("rust").unwrap(), &Names::new("orders").unwrap(), &folder).unwrap();
        (root, Project::open(&folder).unwrap())
    }

    #[test]
    fn only_what_the_sources_say_counts() {
        let (_root, project) = project();
        let before = digest(&project);
        for output in ["target/a", "dist/orders.wasm", ".git/index"] {
            let path = project.path(output);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "new").unwrap();
        }
        let lib = project.path("src/lib.rs");
        let text = fs::read_to_string(&lib).unwrap();
        fs::write(&lib, &text).unwrap();
        assert_eq!(digest(&project), before);
        fs::write(&lib, text + "\n").unwrap();
        assert_ne!(digest(&project), before);
        let changed = digest(&project);
        fs::create_dir(project.path("src/more")).unwrap();
        fs::write(project.path("src/more/new.rs"), "").unwrap();
        assert_ne!(digest(&project), changed);
    }

    #[tokio::test]
    async fn a_change_deep_inside_is_seen() {
        let (_root, project) = project();
        let mut sources = Sources::watch(&project).unwrap();
        fs::write(project.path("wirehook-sdk/src/log.rs"), "").unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(60), sources.changes.changed());
        changed.await.expect("the change is seen").unwrap();
    }
}
