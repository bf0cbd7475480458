//! What a plugin keeps between events: a call's own view of it, and what calls share until their runs are durable.
//!
//! Nothing here decides whether a run may complete: the store does, in the transaction that completes it, by the versions
//! that the call read. What is shared here only spares the next call from reading what is about to change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::store::{StateChange, StateUsage, StateVersion, StoreError};
use crate::sync::lock;

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
    /// Who wrote it; none where the key is absent.
    pub version: Option<StateVersion>,
}

/// Where calls read state. Called on threads that may block.
pub trait StateSource: Send + Sync {
    /// What `plugin` keeps under `key`.
    fn read(&self, plugin: &str, key: &str) -> Result<Read, StoreError>;

    /// How much `plugin` keeps.
    fn usage(&self, plugin: &str) -> Result<StateUsage, StoreError>;

    /// A call of `plugin` goes to the store with `change`, written as `version`: calls that begin now see it.
    fn publish(&self, plugin: &Arc<str>, version: StateVersion, change: &StateChange);

    /// The call that was published is over: its change is durable where it `completed`, else nobody may see it again.
    /// After a conflict what it had read is forgotten too, as some of it is not what the store has.
    fn settle(&self, plugin: &Arc<str>, version: StateVersion, change: &StateChange, completed: bool);
}

/// State that lives as long as this value, of whichever plugin: what a call outside a host gets. It starts empty, and
/// takes what is published as done.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<BTreeMap<Arc<str>, Read>>);

impl StateSource for InMemory {
    fn read(&self, _: &str, key: &str) -> Result<Read, StoreError> {
        Ok(lock(&self.0).get(key).cloned().unwrap_or_default())
    }

    fn usage(&self, _: &str) -> Result<StateUsage, StoreError> {
        let kept = lock(&self.0);
        let bytes = kept.iter().map(|(key, read)| (key.len() + read.value.as_ref().map_or(0, Bytes::len)) as u64);
        Ok(StateUsage { keys: kept.len() as u64, bytes: bytes.sum() })
    }

    fn publish(&self, _: &Arc<str>, version: StateVersion, change: &StateChange) {
        let mut kept = lock(&self.0);
        for (key, value) in &change.writes {
            match value {
                Some(value) => {
                    kept.insert(Arc::clone(key), Read { value: Some(value.clone()), version: Some(version) })
                }
                None => kept.remove(key),
            };
        }
    }

    fn settle(&self, _: &Arc<str>, _: StateVersion, _: &StateChange, _: bool) {}
}
