//! Cutting the power: a SQLite VFS that journals every write, so that what a disk would hold after a cut at any moment
//! can be built again and opened.
//!
//! The model: what was written to a file before the file's last sync is there; what was written since may be there, in
//! whole, in part (sectors of 512 bytes) or not at all, in any order. Names made or removed in a folder follow the same
//! rule, in their order, with the folder's sync. A sync that fails keeps nothing of what it was for, even where a later
//! one succeeds: that is how Linux treats pages whose write-back failed.
//!
//! ```no_run
//! # use wirehook_tests::power_cut::{PowerCut, Unsynced};
//! let power = PowerCut::register();
//! // … open a store with `vfs: Some(power.vfs().to_owned())`; after each acknowledgement: …
//! power.mark("accepted 7");
//! let recording = power.recording();
//! recording.for_each_cut(&recording.sample(100, 42), |cut| {
//!     let folder = tempfile::tempdir().unwrap();
//!     cut.image(Unsynced::Lost).write_to(folder.path()).unwrap();
//!     // … open the store in `folder`, and look for everything in `cut.marks`.
//! });
//! ```

mod disk;
mod shim;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use self::disk::{Cut, Image, Recording, Unsynced};

/// A file as the journal knows it: a name that is removed and made again is another file.
type FileId = u32;

/// Something that happened to the disk, or that somebody was told.
#[derive(Clone, Debug)]
enum Step {
    /// A file that was there, and durable, before the journal began.
    Found {
        file: FileId,
        path: PathBuf,
        content: Vec<u8>,
    },
    Created {
        file: FileId,
        path: PathBuf,
    },
    /// A file that has another name now. Names are changed outside the VFS, and taken for durable.
    Renamed {
        file: FileId,
        path: PathBuf,
    },
    Removed {
        path: PathBuf,
        folder_synced: bool,
    },
    Written {
        file: FileId,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncated {
        file: FileId,
        size: usize,
    },
    Synced {
        file: FileId,
        folder_too: bool,
    },
    SyncFailed {
        file: FileId,
    },
    Marked {
        label: String,
    },
}

/// A VFS of its own, registered with SQLite for the rest of the process.
pub struct PowerCut {
    name: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    journal: Mutex<Journal>,
    faults: Mutex<Faults>,
    faults_changed: Condvar,
}

#[derive(Default)]
struct Journal {
    steps: Vec<Step>,
    names: HashMap<PathBuf, FileId>,
    /// By inode, to know a file again under another name.
    inodes: HashMap<u64, FileId>,
    files: FileId,
}

#[derive(Default)]
struct Faults {
    syncs: Vec<SyncFault>,
    opens: u32,
    held: bool,
    waiting: u32,
}

struct SyncFault {
    suffix: String,
    skipped: u32,
    count: u32,
}

impl PowerCut {
    /// Registers a VFS with a name that nobody else has.
    pub fn register() -> Self {
        let shared = Arc::new(Shared::default());
        let name = shim::register(&shared);
        Self { name, shared }
    }

    /// The VFS's name, for `SqliteOptions::vfs`.
    pub fn vfs(&self) -> &str {
        &self.name
    }

    /// Notes that somebody was just told something that must survive from here on.
    pub fn mark(&self, label: impl Into<String>) {
        self.shared.journal().steps.push(Step::Marked { label: label.into() });
    }

    /// Has syncs of files whose name ends with `suffix` fail with an I/O error: `count` of them, after `skipped` more
    /// that succeed.
    pub fn fail_syncs(&self, suffix: &str, skipped: u32, count: u32) {
        self.shared.faults().syncs.push(SyncFault { suffix: suffix.to_owned(), skipped, count });
    }

    /// Has the next `count` openings of a database fail.
    pub fn fail_opens(&self, count: u32) {
        self.shared.faults().opens = count;
    }

    /// Takes back every failure that is still to come.
    pub fn heal(&self) {
        let mut faults = self.shared.faults();
        faults.syncs.clear();
        faults.opens = 0;
    }

    /// Has every sync wait until [`Self::release_syncs`].
    pub fn hold_syncs(&self) {
        self.shared.faults().held = true;
    }

    /// Lets the waiting syncs go on.
    pub fn release_syncs(&self) {
        self.shared.faults().held = false;
        self.shared.faults_changed.notify_all();
    }

    /// Blocks until a sync waits at the hold.
    pub fn wait_for_held_sync(&self) {
        let faults = self.shared.faults();
        let waited = self.shared.faults_changed.wait_while(faults, |faults| faults.waiting == 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything that happened so far.
    pub fn recording(&self) -> Recording {
        Recording::new(self.shared.journal().steps.clone())
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this sync succeeds; waits at the hold first.
    fn sync_may_succeed(&self, path: &str) -> bool {
        let mut faults = self.faults();
        if faults.held {
            faults.waiting += 1;
            self.faults_changed.notify_all();
            let waited = self.faults_changed.wait_while(faults, |faults| faults.held);
            faults = waited.unwrap_or_else(PoisonError::into_inner);
            faults.waiting -= 1;
        }
        for fault in &mut faults.syncs {
            if !path.ends_with(&fault.suffix) || fault.count == 0 {
                continue;
            }
            if fault.skipped > 0 {
                fault.skipped -= 1;
                continue;
            }
            fault.count -= 1;
            return false;
        }
        true
    }

    /// Whether this opening of a database succeeds.
    fn open_may_succeed(&self) -> bool {
        let mut faults = self.faults();
        let fails = faults.opens > 0;
        faults.opens = faults.opens.saturating_sub(1);
        !fails
    }
}
