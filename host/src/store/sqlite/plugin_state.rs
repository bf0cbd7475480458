//! What plugins keep: read beside the writer, checked and changed in the transaction that completes a run.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::group::Group;
use crate::store::{EventSeq, STATE_BYTES_MAX, STATE_KEYS_MAX, StateChange, StateUsage, StateValue, StateVersion};

/// The value kept under `key`.
pub(super) fn value(connection: &Connection, plugin: &str, key: &str) -> rusqlite::Result<Option<StateValue>> {
    let mut select =
        connection.prepare_cached("SELECT value, written_by, call FROM plugin_state WHERE plugin = ?1 AND key = ?2")?;
    select
        .query_row((plugin, key), |row| {
            Ok(StateValue {
                value: Bytes::from(row.get::<_, Vec<u8>>(0)?),
                version: StateVersion { event: EventSeq(row.get(1)?), call: row.get(2)? },
            })
        })
        .optional()
}

fn value_version(connection: &Connection, plugin: &str, key: &str) -> rusqlite::Result<Option<StateVersion>> {
    let mut select =
        connection.prepare_cached("SELECT written_by, call FROM plugin_state WHERE plugin = ?1 AND key = ?2")?;
    let version = |row: &rusqlite::Row<'_>| Ok(StateVersion { event: EventSeq(row.get(0)?), call: row.get(1)? });
    select.query_row((plugin, key), version).optional()
}

/// How much `plugin` keeps.
pub(super) fn usage(connection: &Connection, plugin: &str) -> rusqlite::Result<StateUsage> {
    let mut select = connection.prepare_cached("SELECT keys, bytes FROM plugin_state_usage WHERE plugin = ?1")?;
    let usage = select
        .query_row([plugin], |row| {
            let count = |index| row.get::<_, i64>(index).map(|count| u64::try_from(count).unwrap_or(0));
            Ok(StateUsage { keys: count(0)?, bytes: count(1)? })
        })
        .optional()?;
    Ok(usage.unwrap_or_default())
}

/// Roughly what a change holds in memory, in bytes.
pub(super) fn bytes(change: &StateChange) -> usize {
    let written: usize =
        change.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
    written + change.reads.iter().map(|(key, _)| key.len()).sum::<usize>()
}

impl Group<'_> {
    /// Applies `change` if all it read is as it was and the state stays within its bounds; otherwise changes nothing
    /// and returns `false`.
    pub(super) fn change_state(
        &mut self,
        plugin: &Arc<str>,
        version: StateVersion,
        change: &StateChange,
    ) -> rusqlite::Result<bool> {
        for (key, seen) in &change.reads {
            if value_version(self.connection(), plugin, key)? != *seen {
                return Ok(false);
            }
        }
        if change.writes.is_empty() {
            return Ok(true);
        }
        let (mut keys, mut bytes) = (0_i64, 0_i64);
        for (key, value) in &change.writes {
            let sql = "SELECT length(value) FROM plugin_state WHERE plugin = ?1 AND key = ?2";
            if let Some(before) = self.optional::<i64>(sql, (plugin, key))? {
                keys -= 1;
                bytes -= size(key, before);
            }
            if let Some(value) = value {
                keys += 1;
                bytes += size(key, i64::try_from(value.len()).unwrap_or(i64::MAX));
            }
        }
        let before = usage(self.connection(), plugin)?;
        let after = StateUsage {
            keys: before.keys.saturating_add_signed(keys),
            bytes: before.bytes.saturating_add_signed(bytes),
        };
        // What frees room may always be written, also where a later version of this host has lower bounds.
        if (keys > 0 && after.keys > STATE_KEYS_MAX) || (bytes > 0 && after.bytes > STATE_BYTES_MAX) {
            return Ok(false);
        }
        for (key, value) in &change.writes {
            match value {
                Some(value) => self
                    .cached(
                        "INSERT INTO plugin_state (plugin, key, written_by, call, value) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE
                         SET written_by = excluded.written_by, call = excluded.call, value = excluded.value",
                    )?
                    .execute((plugin, key, version.event.0, version.call, &value[..]))?,
                None => {
                    self.cached("DELETE FROM plugin_state WHERE plugin = ?1 AND key = ?2")?.execute((plugin, key))?
                }
            };
        }
        self.cached(
            "INSERT INTO plugin_state_usage (plugin, keys, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET keys = excluded.keys, bytes = excluded.bytes",
        )?
        .execute((plugin, signed(after.keys), signed(after.bytes)))?;
        Ok(true)
    }
}

fn size(key: &str, value_bytes: i64) -> i64 {
    value_bytes.saturating_add(i64::try_from(key.len()).unwrap_or(i64::MAX))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
