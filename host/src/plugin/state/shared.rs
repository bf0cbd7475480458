//! What calls of this host share: values on their way into the store, so that runs close together don't undo each other,
//! and values lately read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Read, StateSource};
use crate::store::{StateChange, StateUsage, StateVersion, Store, StoreError};
use crate::sync::lock;

/// The bytes of values kept in memory, over those that are on their way into the store.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// The state of every plugin, over a store.
pub struct SharedState {
    store: Arc<dyn Store>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<(Arc<str>, Arc<str>), Entry>,
    /// Of entries that are not on their way.
    bytes: usize,
}

struct Entry {
    read: Read,
    /// The call that wrote it, where its run is not durable yet.
    pending: Option<StateVersion>,
}

impl SharedState {
    /// What `store` keeps.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, kept: Mutex::default() })
    }
}

impl StateSource for SharedState {
    fn read(&self, plugin: &str, key: &str) -> Result<Read, StoreError> {
        let (plugin, key): (Arc<str>, Arc<str>) = (plugin.into(), key.into());
        let id = (Arc::clone(&plugin), Arc::clone(&key));
        if let Some(entry) = lock(&self.kept).entries.get(&id) {
            return Ok(entry.read.clone());
        }
        let stored = self.store.state_value(&plugin, &key)?;
        let read = stored
            .map_or_else(Read::default, |stored| Read { value: Some(stored.value), version: Some(stored.version) });
        let mut kept = lock(&self.kept);
        // Somebody may have written it meanwhile. What is read too late here only costs a conflict, which forgets it.
        if !kept.entries.contains_key(&id) {
            kept.put(&plugin, &key, Entry { read: read.clone(), pending: None });
        }
        Ok(read)
    }

    fn usage(&self, plugin: &str) -> Result<StateUsage, StoreError> {
        self.store.state_usage(plugin)
    }

    fn publish(&self, plugin: &Arc<str>, version: StateVersion, change: &StateChange) {
        let mut kept = lock(&self.kept);
        for (key, value) in &change.writes {
            let read = Read { version: value.as_ref().map(|_| version), value: value.clone() };
            kept.put(plugin, key, Entry { read, pending: Some(version) });
        }
    }

    fn settle(&self, plugin: &Arc<str>, version: StateVersion, change: &StateChange, completed: bool) {
        let mut kept = lock(&self.kept);
        for (key, _) in &change.writes {
            kept.settle(plugin, key, version, completed);
        }
        if !completed {
            for (key, _) in &change.reads {
                kept.forget(plugin, key);
            }
        }
    }
}

impl Kept {
    fn put(&mut self, plugin: &Arc<str>, key: &Arc<str>, entry: Entry) {
        let bytes = entry.idle_bytes(key);
        let before = self.entries.insert((Arc::clone(plugin), Arc::clone(key)), entry);
        self.bytes -= before.map_or(0, |before| before.idle_bytes(key));
        self.add(bytes);
    }

    fn settle(&mut self, plugin: &Arc<str>, key: &Arc<str>, version: StateVersion, completed: bool) {
        let id = (Arc::clone(plugin), Arc::clone(key));
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.pending == Some(version)) else { return };
        if completed {
            entry.pending = None;
            let bytes = entry.idle_bytes(key);
            self.add(bytes);
        } else {
            self.entries.remove(&id);
        }
    }

    fn forget(&mut self, plugin: &Arc<str>, key: &Arc<str>) {
        let id = (Arc::clone(plugin), Arc::clone(key));
        if self.entries.get(&id).is_some_and(|entry| entry.pending.is_none())
            && let Some(entry) = self.entries.remove(&id)
        {
            self.bytes -= entry.idle_bytes(key);
        }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes > CACHE_BYTES_MAX {
            self.entries.retain(|_, entry| entry.pending.is_some());
            self.bytes = 0;
        }
    }
}

impl Entry {
    /// What counts against the cache. A pending entry's bytes are bounded with its run's, in the queue to the outbox and in its batches.
    fn idle_bytes(&self, key: &str) -> usize {
        /// What an entry takes besides its texts.
        const FIXED: usize = 128;
        if self.pending.is_some() { 0 } else { FIXED + key.len() + self.read.value.as_ref().map_or(0, Bytes::len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fake::FakeStore;
    use crate::store::{EventSeq, StateValue};

    const A: StateVersion = StateVersion { event: EventSeq(1), call: 0 };
    const B: StateVersion = StateVersion { event: EventSeq(2), call: 0 };

    fn scene() -> (Arc<FakeStore>, Arc<SharedState>, Arc<str>) {
        let store = FakeStore::new();
        let shared: Arc<dyn Store> = Arc::<FakeStore>::clone(&store);
        (store, SharedState::new(shared), "orders".into())
    }

    fn stores(store: &FakeStore, value: &'static str, version: StateVersion) {
        let value = StateValue { value: Bytes::from_static(value.as_bytes()), version };
        store.look(|seen| seen.state.insert(("orders".to_owned(), "count".to_owned()), value));
    }

    fn writes(value: &'static str) -> StateChange {
        StateChange {
            reads: vec![("count".into(), None)],
            writes: vec![("count".into(), Some(Bytes::from_static(value.as_bytes())))],
        }
    }

    #[test]
    fn a_value_on_its_way_is_seen_and_stays_once_it_is_durable() {
        let (store, state, plugin) = scene();
        assert_eq!(state.read("orders", "count").unwrap(), Read::default());
        state.publish(&plugin, A, &writes("1"));
        let expected = Read { value: Some("1".into()), version: Some(A) };
        assert_eq!(state.read("orders", "count").unwrap(), expected);
        state.settle(&plugin, A, &writes("1"), true);
        assert_eq!(state.read("orders", "count").unwrap(), expected);
        assert_eq!(store.calls("state_value"), 1, "the rest came from memory");
    }

    #[test]
    fn a_value_that_never_became_durable_is_not_seen_again() {
        let (store, state, plugin) = scene();
        stores(&store, "0", A);
        state.publish(&plugin, B, &writes("1"));
        state.settle(&plugin, B, &writes("1"), false);
        assert_eq!(state.read("orders", "count").unwrap().value.unwrap(), "0");
    }

    #[test]
    fn a_run_that_ends_leaves_what_a_later_one_published() {
        let (_, state, plugin) = scene();
        state.publish(&plugin, A, &writes("1"));
        state.publish(&plugin, B, &writes("2"));
        state.settle(&plugin, A, &writes("1"), false);
        assert_eq!(state.read("orders", "count").unwrap().version, Some(B));
    }

    #[test]
    fn after_a_conflict_the_store_is_asked_again() {
        let (store, state, plugin) = scene();
        assert_eq!(state.read("orders", "count").unwrap(), Read::default());
        stores(&store, "9", A);
        state.settle(&plugin, B, &StateChange { reads: vec![("count".into(), None)], writes: Vec::new() }, false);
        assert_eq!(state.read("orders", "count").unwrap().version, Some(A));
    }

    #[test]
    fn memory_is_bounded() {
        let (_, state, plugin) = scene();
        let value = Bytes::from(vec![0; 64 << 10]);
        for key in 0..1_000 {
            let key: Arc<str> = key.to_string().into();
            let change = StateChange { reads: Vec::new(), writes: vec![(key, Some(value.clone()))] };
            state.publish(&plugin, A, &change);
            state.settle(&plugin, A, &change, true);
            assert!(lock(&state.kept).bytes <= CACHE_BYTES_MAX);
        }
        let kept = lock(&state.kept);
        assert!(kept.entries.len() * value.len() <= CACHE_BYTES_MAX);
    }
}
