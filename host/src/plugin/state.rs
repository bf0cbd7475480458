//! What a plugin keeps between events: a call's own view of it, and what calls share until their runs are durable.
//!
//! Nothing here decides whether a run may complete: the store does, in the transaction that completes it, by the versions
//! that the call read. What is shared here only spares the next call from reading what is about to change.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::{EventSeq, StateChange, StateUsage, StoreError};

mod session;
mod shared;

pub(super) use session::{Broken, Refused, Session};
pub use session::{CALL_KEYS_MAX, CALL_READ_BYTES_MAX, CALL_WRITE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use shared::SharedState;

/// A value as a call reads it: none where the key is absent, with the version that its run's completion is checked by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// The bytes; none where the key is absent.
    pub value: Option<Bytes>,
    /// The event whose run wrote it; none where the key is absent.
    pub version: Option<EventSeq>,
}

/// Where calls read state. Called on threads that may block.
pub trait StateSource: Send + Sync {
    /// What `plugin` keeps under `key`.
    fn read(&self, plugin: &str, key: &str) -> Result<Read, StoreError>;

    /// How much `plugin` keeps.
    fn usage(&self, plugin: &str) -> Result<StateUsage, StoreError>;

    /// The run of `plugin` for `event` goes to the store with `change`: calls that begin now see it.
    fn publish(&self, plugin: &Arc<str>, event: EventSeq, change: &StateChange);

    /// The run that was published is over: its change is durable where it `completed`, else nobody may see it again.
    /// After a conflict what it had read is forgotten too, as some of it is not what the store has.
    fn settle(&self, plugin: &Arc<str>, event: EventSeq, change: &StateChange, completed: bool);
}

/// No state: every key is absent. What a call outside a host reads.
#[derive(Clone, Copy, Debug)]
pub struct Empty;

impl StateSource for Empty {
    fn read(&self, _: &str, _: &str) -> Result<Read, StoreError> {
        Ok(Read::default())
    }

    fn usage(&self, _: &str) -> Result<StateUsage, StoreError> {
        Ok(StateUsage::default())
    }

    fn publish(&self, _: &Arc<str>, _: EventSeq, _: &StateChange) {}

    fn settle(&self, _: &Arc<str>, _: EventSeq, _: &StateChange, _: bool) {}
}
