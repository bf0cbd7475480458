//! Tells when something in the plugins folder changed.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::sync::may_block;

/// How long the folder must be quiet before a change counts: a file that is still being written keeps changing.
const QUIET: Duration = Duration::from_millis(300);

/// A folder that is never quiet is looked into all the same after this; a file that is not whole does not load yet.
const UNQUIET_MAX: Duration = Duration::from_secs(10);

/// Device and inode: what a watch is on, whatever its name becomes.
type Identity = (u64, u64);

/// Watches one folder.
pub struct FolderWatch {
    dir: PathBuf,
    identity: Identity,
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
        // Before the watch begins: a folder swapped in between is noticed at the next change.
        let identity = identity(dir).map_err(notify::Error::io)?;
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
        Ok(Self { dir: dir.to_owned(), identity, removed, changes, _watcher: watcher })
    }

    /// Returns once something has changed and the folder has been quiet since, or never quiet for [`UNQUIET_MAX`];
    /// `false` when the folder is no longer watched.
    pub async fn changed(&mut self) -> bool {
        if self.changes.changed().await.is_err() {
            return false;
        }
        settle(&mut self.changes).await;
        // A folder that was removed or replaced under its name is not the one that is watched. Both are looked at: one
        // made anew may be given the inode of the one that was removed.
        let same = may_block(|| identity(&self.dir)).is_ok_and(|identity| identity == self.identity);
        same && !self.removed.load(Ordering::Acquire)
    }
}

/// Returns once there is quiet, or [`UNQUIET_MAX`] has passed.
pub(crate) async fn settle(changes: &mut watch::Receiver<u64>) {
    let quiet = async { while let Ok(Ok(())) = tokio::time::timeout(QUIET, changes.changed()).await {} };
    let _unquiet = tokio::time::timeout(UNQUIET_MAX, quiet).await;
}

fn identity(dir: &Path) -> io::Result<Identity> {
    let metadata = std::fs::metadata(dir)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::clock::SystemClock;

    /// Longer than a busy machine needs to tell.
    const DEADLINE: Duration = Duration::from_secs(60);

    async fn changed(folder: &mut FolderWatch) -> bool {
        tokio::time::timeout(DEADLINE, folder.changed()).await.expect("the change is seen")
    }

    #[test]
    fn a_folder_that_is_not_there_can_not_be_watched() {
        let root = tempfile::tempdir().unwrap();
        assert!(FolderWatch::new(&root.path().join("plugins")).is_err());
    }

    /// Writes a file in pieces; returns its length at the moment the change was seen, and the longest wait between two.
    async fn written_in_pieces(pieces: u32) -> (u64, Duration) {
        let clock = SystemClock::shared();
        let root = tempfile::tempdir().unwrap();
        let mut folder = FolderWatch::new(root.path()).unwrap();
        let path = root.path().join("orders.wasm");
        let mut longest = Duration::ZERO;
        let write = async {
            let mut file = std::fs::File::create(&path).unwrap();
            for _ in 0..pieces {
                file.write_all(b"-").unwrap();
                let written_at = clock.monotonic();
                // The time between two pieces is what is tested.
                tokio::time::sleep(QUIET / 6).await;
                longest = longest.max(clock.monotonic().saturating_sub(written_at));
            }
        };
        let look = async {
            assert!(changed(&mut folder).await);
            std::fs::metadata(&path).unwrap().len()
        };
        let ((), length) = tokio::join!(write, look);
        (length, longest)
    }

    /// While it is being written it is not to be read: the look comes after the last piece, never between two.
    #[tokio::test]
    async fn a_file_written_in_pieces_is_seen_once_it_is_whole() {
        for _ in 0..20 {
            let (length, longest) = written_in_pieces(8).await;
            // A machine that slept between two pieces made the folder quiet: that says nothing.
            if longest < QUIET / 2 {
                return assert_eq!(length, 8);
            }
        }
        panic!("the machine is too busy to write a file");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_never_quiet_is_looked_at_all_the_same() {
        let (sender, mut changes) = watch::channel(0_u64);
        let disturb = async {
            loop {
                tokio::time::sleep(QUIET / 2).await;
                sender.send_modify(|changes| *changes += 1);
            }
        };
        tokio::select! {
            () = settle(&mut changes) => {}
            () = disturb => {}
            () = tokio::time::sleep(UNQUIET_MAX * 2) => panic!("it waits for ever"),
        }
    }

    #[tokio::test]
    async fn a_removed_and_a_renamed_file_are_changes() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("orders.wasm"), "a").unwrap();
        let mut folder = FolderWatch::new(root.path()).unwrap();
        std::fs::rename(root.path().join("orders.wasm"), root.path().join("other.wasm")).unwrap();
        assert!(changed(&mut folder).await);
        std::fs::remove_file(root.path().join("other.wasm")).unwrap();
        assert!(changed(&mut folder).await);
    }

    #[tokio::test]
    async fn a_folder_that_was_removed_is_no_longer_watched() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("plugins");
        std::fs::create_dir(&dir).unwrap();
        let mut folder = FolderWatch::new(&dir).unwrap();
        std::fs::remove_dir(&dir).unwrap();
        assert!(!changed(&mut folder).await);
    }

    #[tokio::test]
    async fn a_folder_that_was_made_again_is_another_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("plugins");
        std::fs::create_dir(&dir).unwrap();
        let mut folder = FolderWatch::new(&dir).unwrap();
        std::fs::remove_dir(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
        assert!(!changed(&mut folder).await);

        let mut folder = FolderWatch::new(&dir).unwrap();
        std::fs::write(dir.join("orders.wasm"), "a").unwrap();
        assert!(changed(&mut folder).await);
    }

    /// As a deployment does that swaps folders.
    #[tokio::test]
    async fn a_folder_that_another_took_the_place_of_is_no_longer_watched() {
        let root = tempfile::tempdir().unwrap();
        let (dir, next) = (root.path().join("plugins"), root.path().join("next"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir(&next).unwrap();
        let mut folder = FolderWatch::new(&dir).unwrap();
        std::fs::rename(&dir, root.path().join("previous")).unwrap();
        std::fs::rename(&next, &dir).unwrap();
        assert!(!changed(&mut folder).await);
    }
}
