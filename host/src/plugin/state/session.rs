//! One call's view of its plugin's state: what it read stays as it was read, what it wrote is its own until the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Read, StateSource};
use crate::store::{STATE_BYTES_MAX, STATE_KEYS_MAX, StateChange, StateUsage, StoreError};

/// The bytes of a key, at least one.
pub const KEY_BYTES_MAX: usize = 256;
/// The bytes of a value.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The keys that one call may read and write.
pub const CALL_KEYS_MAX: usize = 64;
/// The bytes of values that one call may read.
pub const CALL_READ_BYTES_MAX: usize = 1 << 20;
/// The bytes of keys and values that one call may write.
pub const CALL_WRITE_BYTES_MAX: usize = 256 << 10;

/// Why a value was not written, for the plugin to deal with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::plugin) enum Refused {
    /// The key is empty or over [`KEY_BYTES_MAX`].
    Key,
    /// The value is over [`VALUE_BYTES_MAX`].
    Value,
    /// The state is full.
    Full,
}

/// What ends the call.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::plugin) enum Broken {
    /// A bound of one call.
    #[error("{what} of state in one call; the limit is {max}")]
    Bound {
        /// What there was too much of.
        what: String,
        /// The bound.
        max: usize,
    },
    /// The store could not be read.
    #[error("its state could not be read: {0}")]
    Store(String),
}

/// One call's view.
pub(in crate::plugin) struct Session {
    source: Arc<dyn StateSource>,
    plugin: Arc<str>,
    keys: BTreeMap<Arc<str>, Key>,
    read_bytes: usize,
    write_bytes: usize,
    /// Before this call; looked up when first needed.
    usage: Option<StateUsage>,
}

/// What the call did with one key.
#[derive(Default)]
struct Key {
    /// What the store had, where it was asked.
    before: Option<Read>,
    /// Whether the plugin saw it, so that the run depends on it.
    seen: bool,
    /// What the call wrote last.
    written: Option<Option<Bytes>>,
}

impl Session {
    /// A view in which nothing was read or written yet.
    pub(in crate::plugin) fn new(source: Arc<dyn StateSource>, plugin: Arc<str>) -> Self {
        Self { source, plugin, keys: BTreeMap::new(), read_bytes: 0, write_bytes: 0, usage: None }
    }

    /// The value under `key`, with what this call wrote. A key that can't exist has none.
    ///
    /// # Errors
    /// When a bound of the call is broken, or the store can't be read.
    pub(in crate::plugin) fn get(&mut self, key: &str) -> Result<Option<Bytes>, Broken> {
        if !is_key(key) {
            return Ok(None);
        }
        if let Some(Key { written: Some(written), .. }) = self.keys.get(key) {
            return Ok(written.clone());
        }
        let value = self.before(key)?.value.clone();
        let entry = self.entry(key)?;
        if !std::mem::replace(&mut entry.seen, true) {
            self.read_bytes += value.as_ref().map_or(0, Bytes::len);
        }
        if self.read_bytes > CALL_READ_BYTES_MAX {
            return Err(Broken::Bound { what: format!("{} bytes read", self.read_bytes), max: CALL_READ_BYTES_MAX });
        }
        Ok(value)
    }

    /// Keeps `value` under `key`.
    ///
    /// # Errors
    /// As [`Self::get`]; a refusal is for the plugin.
    pub(in crate::plugin) fn set(&mut self, key: &str, value: Bytes) -> Result<Result<(), Refused>, Broken> {
        if !is_key(key) {
            return Ok(Err(Refused::Key));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Ok(Err(Refused::Value));
        }
        self.before(key)?;
        let usage = self.usage_with(key, Some(&value))?;
        if usage.keys > STATE_KEYS_MAX || usage.bytes > STATE_BYTES_MAX {
            return Ok(Err(Refused::Full));
        }
        self.write(key, Some(value)).map(Ok)
    }

    /// Removes what is under `key`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(in crate::plugin) fn delete(&mut self, key: &str) -> Result<(), Broken> {
        if !is_key(key) {
            return Ok(());
        }
        self.before(key)?;
        self.write(key, None)
    }

    /// What the call read and wrote; none where it did neither.
    pub(in crate::plugin) fn into_change(self) -> Option<Arc<StateChange>> {
        let mut change = StateChange::default();
        for (key, Key { before, seen, written }) in self.keys {
            if seen {
                change.reads.push((Arc::clone(&key), before.and_then(|before| before.version)));
            }
            if let Some(written) = written {
                change.writes.push((key, written));
            }
        }
        (change != StateChange::default()).then(|| Arc::new(change))
    }

    fn write(&mut self, key: &str, value: Option<Bytes>) -> Result<(), Broken> {
        self.write_bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        if self.write_bytes > CALL_WRITE_BYTES_MAX {
            let what = format!("{} bytes written", self.write_bytes);
            return Err(Broken::Bound { what, max: CALL_WRITE_BYTES_MAX });
        }
        self.entry(key)?.written = Some(value);
        Ok(())
    }

    /// What the store has under `key`; asked once a call, so that what a call sees does not change under it.
    fn before(&mut self, key: &str) -> Result<&Read, Broken> {
        if self.entry(key)?.before.is_none() {
            let read = self.source.read(&self.plugin, key).map_err(|error| unreadable(&error))?;
            self.entry(key)?.before = Some(read);
        }
        self.entry(key).map(|entry| &*entry.before.get_or_insert_default())
    }

    fn entry(&mut self, key: &str) -> Result<&mut Key, Broken> {
        if !self.keys.contains_key(key) && self.keys.len() == CALL_KEYS_MAX {
            return Err(Broken::Bound { what: format!("more than {CALL_KEYS_MAX} keys"), max: CALL_KEYS_MAX });
        }
        Ok(self.keys.entry(key.into()).or_default())
    }

    /// What the state would take with `value` under `key` and all that this call wrote elsewhere.
    fn usage_with(&mut self, key: &str, value: Option<&Bytes>) -> Result<StateUsage, Broken> {
        let before = match self.usage {
            Some(usage) => usage,
            None => *self.usage.insert(self.source.usage(&self.plugin).map_err(|error| unreadable(&error))?),
        };
        let others = self.keys.iter().filter(|(other, _)| ***other != *key);
        let others = others.filter_map(|(other, entry)| Some((&**other, entry, entry.written.as_ref()?.as_ref())));
        let this = self.keys.get(key).map(|entry| (key, entry, value));
        let (mut keys, mut bytes) = (0_i64, 0_i64);
        for (key, entry, after) in others.chain(this) {
            let before = entry.before.as_ref().and_then(|before| before.value.as_ref());
            keys += i64::from(after.is_some()) - i64::from(before.is_some());
            bytes += size(key, after) - size(key, before);
        }
        Ok(StateUsage {
            keys: before.keys.saturating_add_signed(keys),
            bytes: before.bytes.saturating_add_signed(bytes),
        })
    }
}

fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len())
}

fn size(key: &str, value: Option<&Bytes>) -> i64 {
    value.map_or(0, |value| i64::try_from(key.len() + value.len()).unwrap_or(i64::MAX))
}

fn unreadable(error: &StoreError) -> Broken {
    Broken::Store(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{EventSeq, StateVersion};

    const SEVEN: StateVersion = StateVersion { event: EventSeq(7), call: 0 };

    /// A state of one plugin that answers what it is told.
    struct Fixed(BTreeMap<&'static str, &'static str>, StateUsage);

    impl StateSource for Fixed {
        fn read(&self, _: &str, key: &str) -> Result<Read, StoreError> {
            let value = self.0.get(key).map(|value| Bytes::from_static(value.as_bytes()));
            Ok(Read { version: value.as_ref().map(|_| SEVEN), value })
        }

        fn usage(&self, _: &str) -> Result<StateUsage, StoreError> {
            Ok(self.1)
        }

        fn publish(&self, _: &Arc<str>, _: StateVersion, _: &StateChange) {}

        fn settle(&self, _: &Arc<str>, _: StateVersion, _: &StateChange, _: bool) {}
    }

    fn session(keys: u64, bytes: u64) -> Session {
        let source = Fixed(BTreeMap::from([("count", "41"), ("old", "x")]), StateUsage { keys, bytes });
        Session::new(Arc::new(source), "orders".into())
    }

    #[test]
    fn a_call_sees_what_it_wrote_and_depends_only_on_what_it_saw() {
        let mut session = session(2, 10);
        assert_eq!(session.get("count").unwrap().unwrap(), "41");
        session.set("count", "42".into()).unwrap().unwrap();
        assert_eq!(session.get("count").unwrap().unwrap(), "42");
        session.set("blind", "1".into()).unwrap().unwrap();
        session.delete("old").unwrap();
        assert_eq!(session.get("old").unwrap(), None);
        assert_eq!(session.get("never").unwrap(), None);
        let change = session.into_change().unwrap();
        assert_eq!(change.reads, [("count".into(), Some(SEVEN)), ("never".into(), None)]);
        let writes: [(Arc<str>, Option<Bytes>); 3] =
            [("blind".into(), Some("1".into())), ("count".into(), Some("42".into())), ("old".into(), None)];
        assert_eq!(change.writes, writes);
    }

    #[test]
    fn a_call_that_does_nothing_changes_nothing() {
        let mut session = session(2, 10);
        assert_eq!(session.get("").unwrap(), None);
        assert_eq!(session.into_change(), None);
    }

    #[test]
    fn what_breaks_a_bound_of_the_store_is_refused() {
        let mut full = session(STATE_KEYS_MAX, STATE_BYTES_MAX - 1);
        assert_eq!(full.set("new", "1".into()).unwrap(), Err(Refused::Full), "one key too many");
        assert_eq!(full.set("count", "42".into()).unwrap(), Ok(()), "no larger than before");
        assert_eq!(full.set("count", "4200".into()).unwrap(), Err(Refused::Full), "one byte too many");
        full.delete("old").unwrap();
        assert_eq!(full.set("new", "1".into()).unwrap(), Ok(()), "in the room of what was removed");
        assert_eq!(full.set("", "1".into()).unwrap(), Err(Refused::Key));
        assert_eq!(full.set(&"k".repeat(KEY_BYTES_MAX + 1), "1".into()).unwrap(), Err(Refused::Key));
        assert_eq!(full.set("v", vec![0; VALUE_BYTES_MAX + 1].into()).unwrap(), Err(Refused::Value));
    }

    #[test]
    fn what_breaks_a_bound_of_the_call_ends_it() {
        let mut keys = session(0, 0);
        for key in 0..CALL_KEYS_MAX {
            keys.get(&key.to_string()).unwrap();
        }
        assert_eq!(
            keys.get("one more").unwrap_err().to_string(),
            "more than 64 keys of state in one call; the limit is 64"
        );
        let mut bytes = session(0, 0);
        let broken = (0..5).find_map(|key| bytes.set(&key.to_string(), vec![0; VALUE_BYTES_MAX].into()).err());
        assert!(matches!(broken, Some(Broken::Bound { max: CALL_WRITE_BYTES_MAX, .. })), "{broken:?}");
    }
}
