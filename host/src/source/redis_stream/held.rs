//! Entries that this host has had and not settled: which they are, and how they are settled.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::entry::{Entry, EntryId};
use super::group::Commands;
use crate::event::Message;
use crate::source::batches::Ended;
use crate::source::redis::failure::Failure;
use crate::source::{Accept, AcceptError};
use crate::sync::lock;

/// An entry: which of the source's streams, and where in it.
pub(super) type Place = (usize, EntryId);

/// What the reading side shares with its batches.
#[derive(Default)]
pub(super) struct Held {
    /// Read and not settled. Bounded by the batches in flight and one reply.
    places: Mutex<BTreeSet<Place>>,
    /// Where acks go: the newest connection, whichever the entries came over.
    commands: Mutex<Option<Commands>>,
    /// Why the server refused an ack.
    refusal: Mutex<Option<Failure>>,
    /// Whether something is pending that nobody works on any more: an ack that did not arrive, or a refused batch.
    abandoned: AtomicBool,
}

impl Held {
    pub(super) fn connect(&self, commands: Commands) {
        *lock(&self.commands) = Some(commands);
    }

    pub(super) fn commands(&self) -> Option<Commands> {
        lock(&self.commands).clone()
    }

    /// Notes an entry; `false` where it is held already.
    pub(super) fn take(&self, entry: &Entry) -> bool {
        lock(&self.places).insert((entry.stream, entry.id))
    }

    /// Forgets an entry that is in no batch.
    pub(super) fn forget(&self, entry: &Entry) {
        lock(&self.places).remove(&(entry.stream, entry.id));
    }

    pub(super) fn places(&self) -> BTreeSet<Place> {
        lock(&self.places).clone()
    }

    pub(super) fn take_refusal(&self) -> Option<Failure> {
        lock(&self.refusal).take()
    }

    pub(super) fn take_abandoned(&self) -> bool {
        self.abandoned.swap(false, Ordering::Relaxed)
    }

    /// Whether it was acknowledged.
    async fn ack(&self, places: &[Place]) -> bool {
        let acked = match self.commands() {
            Some(commands) => commands.ack(places).await,
            None => Err(Failure::Connection("there is no connection".to_owned())),
        };
        let Err(failure) = acked else { return true };
        self.abandoned.store(true, Ordering::Relaxed);
        if failure.code().is_some() {
            *lock(&self.refusal) = Some(failure);
        }
        false
    }
}

/// Entries of one batch. They are not held any more when it is dropped.
pub(super) struct HeldBatch {
    held: Arc<Held>,
    places: Vec<Place>,
}

impl HeldBatch {
    pub(super) fn new(held: &Arc<Held>, places: Vec<Place>) -> Self {
        Self { held: Arc::clone(held), places }
    }

    /// Acknowledges without accepting: what is gone from its stream. Whether it succeeded.
    pub(super) async fn settle(self) -> bool {
        self.held.ack(&self.places).await
    }

    /// The way into the inbox: acknowledges after the commit.
    pub(super) async fn keep(self, source: Arc<str>, inbox: Arc<dyn Accept>, messages: Vec<Message>) -> Ended {
        match inbox.accept(&source, messages).await {
            Ok(_) => {
                self.settle().await;
                Ok(())
            }
            Err(error) => {
                if !matches!(error, AcceptError::Closed) {
                    self.held.abandoned.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }
}

impl Drop for HeldBatch {
    fn drop(&mut self) {
        let mut held = lock(&self.held.places);
        for place in &self.places {
            held.remove(place);
        }
    }
}
