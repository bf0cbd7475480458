//! Moving the write-ahead log into the database file, off the writer wherever possible.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::open::{self, SqliteOptions};

/// The size of the log's pages, in bytes; SQLite's default, which stores are created with.
const PAGE_BYTES: u64 = 4096;

/// After how many times [`SqliteOptions::checkpoint_bytes`] the writer itself checkpoints the little that is left, so
/// that the log can start from its beginning even where commits never pause.
const SOFT_FACTOR: i32 = 8;

/// After how many times that the writer waits for readers, within [`READERS_WAIT_MAX`], so that they can't keep the
/// log growing.
const HARD_FACTOR: i32 = 32;

const READERS_WAIT_MAX: Duration = Duration::from_millis(100);

/// The writer's side: decides when.
pub(super) struct Checkpoints {
    sender: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The log's length from which each step is taken.
    pages_between: i32,
    pages_told: i32,
    pages_tried: i32,
}

impl Checkpoints {
    /// Starts the checkpoint thread.
    pub(super) fn start(options: SqliteOptions) -> std::io::Result<Self> {
        let pages_between = i32::try_from(options.checkpoint_bytes / PAGE_BYTES).unwrap_or(i32::MAX / HARD_FACTOR);
        let pages_between = pages_between.clamp(1, i32::MAX / HARD_FACTOR);
        let (sender, receiver) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || checkpoint_when_told(&options, &receiver))?;
        Ok(Self { sender: Some(sender), thread: Some(thread), pages_between, pages_told: 0, pages_tried: 0 })
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
            self.pages_tried = pages;
            checkpoint_here(connection, pages >= self.pages_between * HARD_FACTOR);
        }
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

fn checkpoint_here(connection: &Connection, wait_for_readers: bool) {
    let done = if wait_for_readers {
        let truncated = connection.busy_timeout(READERS_WAIT_MAX).and_then(|()| checkpoint(connection, "TRUNCATE"));
        connection.busy_timeout(open::BUSY_TIMEOUT).and(truncated)
    } else {
        checkpoint(connection, "PASSIVE")
    };
    if let Err(error) = done {
        tracing::warn!(%error, "a checkpoint by the writer failed; the write-ahead log grows until one succeeds");
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?.query_row((), |_| Ok(()))
}

fn checkpoint_when_told(options: &SqliteOptions, receiver: &Receiver<()>) {
    let path: &PathBuf = &options.path;
    let mut connection = None;
    while receiver.recv().is_ok() {
        // A connection that met an error is not used again.
        let result = match connection.take() {
            Some(connection) => Ok(connection),
            None => open::open_checkpointer(options),
        }
        .and_then(|open| checkpoint(&open, "PASSIVE").map(|()| open));
        match result {
            Ok(open) => connection = Some(open),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a checkpoint failed; the write-ahead log grows until one succeeds");
            }
        }
    }
}
