//! A plugin that will not come back: its parked runs end, and what it kept goes.

use std::sync::Arc;

use rusqlite::Connection;

use super::dead_letters::Death;
use super::group::Group;
use super::runs::PARK_CHUNK;
use super::state::{RunState, unsigned};
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::store::{DeadLetterKind, EventSeq, Forgotten, ParkedFate, PauseKind};

/// Runs that end in one commit.
const RUNS_CHUNK: usize = PARK_CHUNK / 5;

/// What an operator reads beside `plugin_forgotten`.
const DETAIL: &str = "the plugin was forgotten while this run was parked";

/// What forgetting a plugin would come to.
pub(super) fn would_forget(connection: &Connection, plugin: &str) -> rusqlite::Result<Forgotten> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM plugin WHERE name = ?1),
                coalesce((SELECT sum(count) FROM tally
                          WHERE kind = 'run' AND name = ?1 AND state IN ('pending', 'retrying', 'parked')), 0),
                (SELECT count(*) FROM plugin_state WHERE plugin = ?1)",
        [plugin],
        |row| {
            Ok(Forgotten { known: row.get(0)?, runs: unsigned(row.get(1)?), in_flight: 0, keys: unsigned(row.get(2)?) })
        },
    )
}

impl Group<'_> {
    /// Ends some parked runs. Returns how many; none means that no more are left.
    pub(super) fn end_parked(&mut self, plugin: &Arc<str>, fate: ParkedFate, now: Timestamp) -> rusqlite::Result<u64> {
        let parked: Vec<i64> = self
            .cached(&format!(
                "SELECT event_seq FROM run INDEXED BY run_parked WHERE plugin = ?1 AND state = 'parked' LIMIT {RUNS_CHUNK}"
            ))?
            .query_map([plugin], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let end = match fate {
            ParkedFate::Die => RunState::Dead,
            ParkedFate::Discard => RunState::Discarded,
        };
        for event in &parked {
            if end == RunState::Dead {
                self.bury(&Death {
                    kind: DeadLetterKind::Run,
                    reason: Reason::PluginForgotten,
                    detail: DETAIL,
                    died_at: now,
                    event: EventSeq(*event),
                    plugin,
                    delivery: None,
                })?;
            }
            let order = self.run_leaves(EventSeq(*event), plugin)?;
            self.cached("UPDATE run SET state = ?3, ended_at = ?4, detail = ?5, aged_from = ?6 WHERE event_seq = ?1 AND plugin = ?2")?
                .execute((event, plugin, end.as_str(), now.0, DETAIL, self.passed.0))?;
            self.tally.run(plugin, RunState::Parked, -1);
            self.tally.run(plugin, end, 1);
            if let Some(key) = order {
                self.free_behind_run(key, now)?;
            }
        }
        Ok(parked.len() as u64)
    }

    /// Removes what is known of a plugin, what it kept, and that it was paused.
    pub(super) fn forget_plugin(&mut self, plugin: &Arc<str>, runs: u64) -> rusqlite::Result<Forgotten> {
        let known = self.cached("DELETE FROM plugin WHERE name = ?1")?.execute([plugin])? > 0;
        let keys = self.cached("DELETE FROM plugin_state WHERE plugin = ?1")?.execute([plugin])? as u64;
        self.cached("DELETE FROM plugin_state_usage WHERE plugin = ?1")?.execute([plugin])?;
        self.resume(PauseKind::Plugin, plugin)?;
        let open: Option<i64> = self.optional(
            "SELECT sum(count) FROM tally WHERE kind = 'run' AND name = ?1 AND state IN ('pending', 'retrying')
             HAVING sum(count) > 0",
            [plugin],
        )?;
        Ok(Forgotten { known, runs, in_flight: unsigned(open.unwrap_or(0)), keys })
    }
}
