//! Counts of rows, changed with the rows in one transaction: counting never reads history.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::state::RunState;
use crate::dead_letter::Reason;
use crate::store::{DeadLetterKind, DeliveryState};

/// Changes of the group under way. Names are kept between groups: there are as many as plugins and endpoints.
#[derive(Default)]
pub(super) struct Tally {
    routed: i64,
    unrouted: i64,
    runs: HashMap<Arc<str>, [i64; RunState::ALL.len()]>,
    deliveries: HashMap<Arc<str>, [i64; DeliveryState::ALL.len()]>,
    dead_letters: HashMap<(Reason, DeadLetterKind), i64>,
}

impl Tally {
    pub(super) fn event(&mut self, routed: bool, change: i64) {
        *(if routed { &mut self.routed } else { &mut self.unrouted }) += change;
    }

    pub(super) fn run(&mut self, plugin: &str, state: RunState, change: i64) {
        slot(&mut self.runs, plugin)[state as usize] += change;
    }

    pub(super) fn delivery(&mut self, endpoint: &str, state: DeliveryState, change: i64) {
        slot(&mut self.deliveries, endpoint)[state as usize] += change;
    }

    pub(super) fn dead_letter(&mut self, reason: Reason, kind: DeadLetterKind, change: i64) {
        *self.dead_letters.entry((reason, kind)).or_default() += change;
    }

    /// Drops changes of a group that was not committed.
    pub(super) fn forget(&mut self) {
        self.routed = 0;
        self.unrouted = 0;
        self.runs.values_mut().for_each(|counts| counts.fill(0));
        self.deliveries.values_mut().for_each(|counts| counts.fill(0));
        self.dead_letters.clear();
    }

    /// Writes the changes, once for each count that changed.
    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(
            "INSERT INTO tally (kind, name, state, count) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET count = count + excluded.count",
        )?;
        let mut add = |kind: &str, name: &str, state: &str, change: i64| match change {
            0 => Ok(()),
            _ => upsert.execute((kind, name, state, change)).map(drop),
        };
        add("event", "", "routed", self.routed)?;
        add("event", "", "unrouted", self.unrouted)?;
        for (plugin, counts) in &self.runs {
            for state in RunState::ALL {
                add("run", plugin, state.as_str(), counts[state as usize])?;
            }
        }
        for (endpoint, counts) in &self.deliveries {
            for state in DeliveryState::ALL {
                add("delivery", endpoint, state.as_str(), counts[*state as usize])?;
            }
        }
        for ((reason, kind), change) in &self.dead_letters {
            add("dead_letter", reason.as_str(), kind.as_str(), *change)?;
        }
        self.forget();
        Ok(())
    }
}

fn slot<'m, const N: usize>(counts: &'m mut HashMap<Arc<str>, [i64; N]>, name: &str) -> &'m mut [i64; N] {
    if !counts.contains_key(name) {
        counts.insert(name.into(), [0; N]);
    }
    counts.entry(name.into()).or_insert([0; N])
}
