//! The way to the writer: bounded in commands and in bytes. Senders wait for room; they are never refused.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::claims::Release;
use super::group::Group;
use crate::store::StoreError;

/// Commands that wait for the writer or are with it.
const COMMANDS_MAX: usize = 1024;

/// What those commands may hold in memory together; one command that is larger alone waits for an empty queue.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The unit in which bytes are counted.
const BYTES_UNIT: usize = 1024;

/// One command, type erased.
pub(super) trait Job: Send {
    /// Does the writing, within the group's transaction.
    fn perform(&mut self, group: &mut Group<'_>) -> rusqlite::Result<()>;
    /// Tells the waiter what was performed, which is committed now, or the failure of the group. Returns claims that
    /// nobody waits for any more, for the writer to give up.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>) -> Option<Release>;
}

/// What travels to the writer.
pub(super) enum Item {
    Command(Queued),
    /// Finish what was sent before, then write the file anew, without what was deleted.
    Rewrite(oneshot::Sender<Result<(), StoreError>>),
    /// Finish what was sent before, then say so and end.
    Close(oneshot::Sender<()>),
}

/// A job on its way, holding its share of the queue until it is answered.
pub(super) struct Queued {
    pub(super) job: Box<dyn Job>,
    pub(super) bytes: usize,
    _room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Queued {
    /// A job of the writer's own, which takes no room.
    pub(super) fn internal(job: Box<dyn Job>) -> Self {
        Self { job, bytes: 0, _room: None }
    }
}

/// The senders' end.
pub(super) struct Queue {
    commands: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    sender: Sender<Item>,
}

impl Queue {
    /// A queue and the writer's end of it.
    pub(super) fn new() -> (Self, Receiver<Item>) {
        let (sender, receiver) = mpsc::channel();
        let commands = Arc::new(Semaphore::new(COMMANDS_MAX));
        let bytes = Arc::new(Semaphore::new(BYTES_MAX / BYTES_UNIT));
        (Self { commands, bytes, sender }, receiver)
    }

    /// Waits for room and sends. A command that was given room and has yet to run is passed by others.
    pub(super) async fn send(&self, job: Box<dyn Job>, bytes: usize) -> Result<(), StoreError> {
        let units = (bytes / BYTES_UNIT + 1).min(BYTES_MAX / BYTES_UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let closed = |_| StoreError::Closed;
        let command_room = Arc::clone(&self.commands).acquire_owned().await.map_err(closed)?;
        let bytes_room = Arc::clone(&self.bytes).acquire_many_owned(units).await.map_err(closed)?;
        let queued = Queued { job, bytes, _room: Some((command_room, bytes_room)) };
        self.sender.send(Item::Command(queued)).map_err(|_| StoreError::Closed)
    }

    /// Has the file written anew, after what was sent before.
    pub(super) fn rewrite(&self, done: oneshot::Sender<Result<(), StoreError>>) -> Result<(), StoreError> {
        if self.commands.is_closed() {
            return Err(StoreError::Closed);
        }
        self.sender.send(Item::Rewrite(done)).map_err(|_| StoreError::Closed)
    }

    /// Refuses whatever is sent from now on and has the writer end. What was sent before is still done.
    pub(super) fn close(&self, done: oneshot::Sender<()>) {
        self.commands.close();
        self.bytes.close();
        // A writer that has ended drops `done`, which says the same.
        let _ended = self.sender.send(Item::Close(done));
    }
}
