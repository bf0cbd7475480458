//! Runs that were kept for a plugin while nobody could tell what it is subscribed to, and that it is not subscribed to.

use std::sync::Arc;

use rusqlite::Connection;

use super::group::Group;
use super::runs::PARK_CHUNK;
use super::state::RunState;
use crate::clock::Timestamp;
use crate::event::subject::SubjectPattern;

/// What an operator reads beside such a run.
const DETAIL: &str = "kept while the plugin had never been loaded; it is not subscribed to the event's subject";

/// Some parked runs, looked through.
pub(super) struct Strangers {
    /// The events of those that the plugin is not subscribed to.
    pub(super) events: Vec<i64>,
    /// The last one looked at; none where there were none.
    pub(super) last: Option<i64>,
}

/// Looks through parked runs of `plugin` behind `after`.
pub(super) fn strangers(
    connection: &Connection,
    plugin: &str,
    subjects: &[SubjectPattern],
    after: i64,
) -> rusqlite::Result<Strangers> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT r.event_seq, e.subject FROM run r INDEXED BY run_parked JOIN event e ON e.seq = r.event_seq
         WHERE r.plugin = ?1 AND r.state = 'parked' AND r.event_seq > ?2 ORDER BY r.event_seq LIMIT {PARK_CHUNK}"
    ))?;
    let mut rows = select.query((plugin, after))?;
    let mut strangers = Strangers { events: Vec::new(), last: None };
    while let Some(row) = rows.next()? {
        let (event, subject) = (row.get(0)?, row.get_ref(1)?.as_str()?);
        if !subjects.iter().any(|pattern| pattern.matches(subject)) {
            strangers.events.push(event);
        }
        strangers.last = Some(event);
    }
    Ok(strangers)
}

impl Group<'_> {
    /// Ends the parked runs of `plugin` on these events as filtered. Returns how many.
    pub(super) fn filter_parked(&mut self, plugin: &Arc<str>, events: &[i64], now: Timestamp) -> rusqlite::Result<u64> {
        let mut filtered = 0;
        for event in events {
            let order = self.run_leaves(crate::store::EventSeq(*event), plugin)?;
            let ended = self
                .cached(
                    "UPDATE run SET state = 'filtered', ended_at = ?3, detail = ?4, aged_from = ?5
                     WHERE event_seq = ?1 AND plugin = ?2 AND state = 'parked'",
                )?
                .execute((event, plugin, now.0, DETAIL, self.passed.0))?;
            if ended == 0 {
                continue;
            }
            self.tally.run(plugin, RunState::Parked, -1);
            self.tally.run(plugin, RunState::Filtered, 1);
            filtered += 1;
            if let Some(key) = order {
                self.free_behind_run(key, now)?;
            }
        }
        Ok(filtered)
    }
}
