//! Tells when something in the plugins folder changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

/// How long the folder must be quiet before a change counts: a file that is still being written keeps changing.
const QUIET: Duration = Duration::from_millis(300);

/// A folder that is never quiet is looked into all the same after this; a file that is not whole does not load yet.
const UNQUIET_MAX: Duration = Duration::from_secs(10);

/// Watches one folder.
pub struct FolderWatch {
    dir: PathBuf,
    removed: Arc<AtomicBool>,
    changes: watch::Receiver<u64>,
    // Stops watching when it is dropped.
    _watcher: RecommendedWatcher,
}

impl FolderWatch {
    /// Begins to watch `dir`.
    ///
    /// # Errors
    /// The folder does not exist, or the system's limit on watches is reached.
    pub fn new(dir: &Path) -> notify::Result<Self> {
        let (sender, changes) = watch::channel(0_u64);
        let removed = Arc::new(AtomicBool::new(false));
        let (gone, watched) = (Arc::clone(&removed), dir.to_owned());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the folder is an event too; it changes nothing.
            let Ok(event) = event else { return };
            if event.kind.is_remove() && event.paths.contains(&watched) {
                gone.store(true, Ordering::Release);
            }
            if !event.kind.is_access() {
                sender.send_modify(|changes| *changes += 1);
            }
        })?;
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(Self { dir: dir.to_owned(), removed, changes, _watcher: watcher })
    }

    /// Returns once something has changed and the folder has been quiet since; `false` when the folder is no longer watched.
    pub async fn changed(&mut self) -> bool {
        if self.changes.changed().await.is_err() {
            return false;
        }
        let quiet = async { while let Ok(Ok(())) = tokio::time::timeout(QUIET, self.changes.changed()).await {} };
        let _unquiet = tokio::time::timeout(UNQUIET_MAX, quiet).await;
        // A folder that was removed or replaced under its name is not the one that is watched.
        self.dir.exists() && !self.removed.load(Ordering::Acquire)
    }
}
