//! Moving the write-ahead log into the database file, off the writer wherever possible.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::open::{self, SqliteOptions};

/// The size of the log's pages, in bytes; SQLite's default, which stores are created with.
const PAGE_BYTES: u64 = 4096;

/// After how many times [`SqliteOptions::checkpoint_bytes`] the writer itself checkpoints the little that is left, so
/// that the log can start from its beginning even where commits never pause.
const SOFT_FACTOR: i32 = 8;

/// After how many times that the writer waits for the thread, and for readers within [`READERS_WAIT_MAX`], so that neither
/// can keep the log growing.
const HARD_FACTOR: i32 = 32;

const READERS_WAIT_MAX: Duration = Duration::from_millis(100);

/// The writer's side: decides when.
pub(super) struct Checkpoints {
    sender: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    trust: Arc<Mutex<Trust>>,
    /// The log's length from which each step is taken.
    pages_between: i32,
    pages_told: i32,
    pages_tried: i32,
}

/// Why the file is not free of what was deleted.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error(
        "a reader, such as a `sqlite3` that somebody left open, keeps the log from being emptied; end it and try again"
    )]
    Read,
    #[error("the disk failed a checkpoint before, so that the log must be kept; restart Wirehook, then try again")]
    Untrusted,
}

/// Whether the database file has what checkpoints moved into it. Locked for as long as a checkpoint takes.
///
/// SQLite moves a part of the log without a sync, counts it as moved, and leaves the sync to the checkpoint that
/// completes it. When that sync fails, the disk may have dropped the earlier parts too, and a later success says nothing
/// of them. The log still has everything, so it must not start anew until the next opening moves all of it again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Whole,
    Lost,
}

impl Checkpoints {
    /// Starts the checkpoint thread.
    pub(super) fn start(options: SqliteOptions) -> std::io::Result<Self> {
        let pages_between = i32::try_from(options.checkpoint_bytes / PAGE_BYTES).unwrap_or(i32::MAX / HARD_FACTOR);
        let pages_between = pages_between.clamp(1, i32::MAX / HARD_FACTOR);
        let (sender, receiver) = sync_channel(1);
        let trust = Arc::new(Mutex::new(Trust::Whole));
        let threads_trust = Arc::clone(&trust);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || checkpoint_when_told(&options, &receiver, &threads_trust))?;
        Ok(Self { sender: Some(sender), thread: Some(thread), trust, pages_between, pages_told: 0, pages_tried: 0 })
    }

    /// Called after each commit with the length of the log.
    pub(super) fn after_commit(&mut self, connection: &Connection, pages: i32) {
        if pages < self.pages_told {
            // The log started from its beginning.
            self.pages_told = 0;
            self.pages_tried = 0;
        }
        if pages - self.pages_told >= self.pages_between {
            self.pages_told = pages;
            // A full channel means that the thread has yet to take the last one.
            let _told_already = self.sender.as_ref().map(|sender| sender.try_send(()));
        }
        if pages >= self.pages_between * SOFT_FACTOR && pages - self.pages_tried >= self.pages_between {
            let is_hard = pages >= self.pages_between * HARD_FACTOR;
            // While the thread has it, the writer goes on and asks again after its next commit. On a disk where the thread
            // always has it, that would be for ever: in the end the writer waits, for two checkpoints at most.
            let trust = if is_hard { Some(lock(&self.trust)) } else { self.trust.try_lock().ok() };
            if let Some(mut trust) = trust {
                self.pages_tried = pages;
                checkpoint_here(connection, is_hard, &mut trust);
            }
        }
    }

    /// Ends the thread, after the checkpoint that it may be in, and moves the whole log where that can be trusted: what
    /// is in the log is durable there, and moving it only makes the next start quicker.
    pub(super) fn finish(&mut self, connection: &Connection) {
        self.stop();
        let mut trust = lock(&self.trust);
        checkpoint_here(connection, true, &mut trust);
        if *trust == Trust::Lost {
            let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if let Err(error) = kept {
                tracing::error!(%error, "the write-ahead log could not be kept for the next opening");
            }
        }
    }

    /// Writes the file anew without what was deleted from it, and empties the log. Waits for checkpoints under way and for
    /// readers; fails where the readers don't end.
    pub(super) fn rewrite(&mut self, connection: &Connection) -> Result<(), RewriteError> {
        let mut trust = lock(&self.trust);
        // The copy may be as large as the store: not in memory, where everything else that is temporary is.
        connection.pragma_update(None, "temp_store", "file")?;
        let copied = connection.execute_batch("VACUUM");
        connection.pragma_update(None, "temp_store", "memory")?;
        copied?;
        if *trust == Trust::Lost {
            return Err(RewriteError::Untrusted);
        }
        let truncate = connection.prepare_cached("PRAGMA wal_checkpoint(TRUNCATE)")?.query_row((), |row| row.get(0));
        if let Err(error) = &truncate
            && error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
        {
            *trust = Trust::Lost;
        }
        if truncate? { Err(RewriteError::Read) } else { Ok(()) }
    }

    /// Ends the thread, after the checkpoint that it may be in.
    pub(super) fn stop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

/// A checkpoint that panicked is one that can't be trusted, and says so itself.
fn lock(trust: &Mutex<Trust>) -> MutexGuard<'_, Trust> {
    trust.lock().unwrap_or_else(|poisoned| {
        let mut trust = poisoned.into_inner();
        *trust = Trust::Lost;
        trust
    })
}

fn checkpoint_here(connection: &Connection, wait_for_readers: bool, trust: &mut Trust) {
    let done = if wait_for_readers {
        let truncated =
            connection.busy_timeout(READERS_WAIT_MAX).and_then(|()| checkpoint(connection, "TRUNCATE", trust));
        connection.busy_timeout(open::BUSY_TIMEOUT).and(truncated)
    } else {
        checkpoint(connection, "PASSIVE", trust)
    };
    if let Err(error) = done {
        tracing::warn!(%error, "a checkpoint by the writer failed; the write-ahead log grows until one succeeds");
    }
}

/// Moves what it can; nothing once the disk failed one.
fn checkpoint(connection: &Connection, mode: &str, trust: &mut Trust) -> rusqlite::Result<()> {
    if *trust == Trust::Lost {
        return Ok(());
    }
    let done = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?.query_row((), |_| Ok(()));
    if let Err(error) = &done
        && error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
    {
        *trust = Trust::Lost;
        tracing::error!(
            %error,
            "the disk failed while the store's write-ahead log was moved into its file; nothing is lost, but the log grows \
             from now on: look at the disk, then restart Wirehook"
        );
    }
    done
}

fn checkpoint_when_told(options: &SqliteOptions, receiver: &Receiver<()>, trust: &Mutex<Trust>) {
    let mut connection = None;
    while receiver.recv().is_ok() {
        // A connection that met an error is not used again.
        let result = match connection.take() {
            Some(connection) => Ok(connection),
            None => open::open_checkpointer(options),
        }
        .and_then(|open| checkpoint(&open, "PASSIVE", &mut lock(trust)).map(|()| open));
        match result {
            Ok(open) => connection = Some(open),
            Err(error) => {
                let path = options.path.display();
                tracing::warn!(%path, %error, "a checkpoint failed; the write-ahead log grows until one succeeds");
            }
        }
    }
}
