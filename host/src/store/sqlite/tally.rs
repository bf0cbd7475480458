//! Counts of rows, changed with the rows in one transaction: counting never reads history.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::evict::Holder;
use super::state::RunState;
use crate::dead_letter::Reason;
use crate::store::{DeadLetterKind, DeliveryState};

/// The `state` of the counts of bytes.
pub(super) const OPEN: &str = "open";

/// What has not ended in a queue.
#[derive(Clone, Copy, Default)]
pub(super) struct Open {
    pub(super) count: i64,
    pub(super) bytes: i64,
}

/// Changes of the group under way. Names are kept between groups: there are as many as plugins and endpoints.
#[derive(Default)]
pub(super) struct Tally {
    routed: i64,
    unrouted: i64,
    runs: HashMap<Arc<str>, [i64; RunState::ALL.len()]>,
    deliveries: HashMap<Arc<str>, [i64; DeliveryState::ALL.len()]>,
    run_bytes: HashMap<Arc<str>, i64>,
    delivery_bytes: HashMap<Arc<str>, i64>,
    /// What has not ended, the changes of the group included; of plugins and endpoints that were asked for. A group that
    /// fails takes this with it.
    pub(super) open_runs: HashMap<Arc<str>, Open>,
    pub(super) open_deliveries: HashMap<Arc<str>, Open>,
    dead_letters: HashMap<(Reason, DeadLetterKind), i64>,
    letter_bytes: HashMap<Holder, i64>,
}

impl Tally {
    pub(super) fn event(&mut self, routed: bool, change: i64) {
        *(if routed { &mut self.routed } else { &mut self.unrouted }) += change;
    }

    pub(super) fn run(&mut self, plugin: &str, state: RunState, change: i64) {
        slot(&mut self.runs, plugin)[state as usize] += change;
        if let (true, Some(open)) = (state.is_open(), self.open_runs.get_mut(plugin)) {
            open.count += change;
        }
    }

    pub(super) fn delivery(&mut self, endpoint: &str, state: DeliveryState, change: i64) {
        slot(&mut self.deliveries, endpoint)[state as usize] += change;
        if let (true, Some(open)) = (is_open(state), self.open_deliveries.get_mut(endpoint)) {
            open.count += change;
        }
    }

    /// The bytes of runs that have not ended.
    pub(super) fn run_bytes(&mut self, plugin: &str, change: i64) {
        add_bytes(&mut self.run_bytes, &mut self.open_runs, plugin, change);
    }

    /// The bytes of deliveries that have not ended.
    pub(super) fn delivery_bytes(&mut self, endpoint: &str, change: i64) {
        add_bytes(&mut self.delivery_bytes, &mut self.open_deliveries, endpoint, change);
    }

    /// What the group under way adds to the runs of `plugin` that have not ended.
    pub(super) fn open_runs_change(&self, plugin: &str) -> Open {
        let counts = self.runs.get(plugin).copied().unwrap_or_default();
        let count = RunState::ALL.into_iter().filter(|state| state.is_open()).map(|state| counts[state as usize]).sum();
        Open { count, bytes: self.run_bytes.get(plugin).copied().unwrap_or_default() }
    }

    /// The same of the deliveries to `endpoint`.
    pub(super) fn open_deliveries_change(&self, endpoint: &str) -> Open {
        let counts = self.deliveries.get(endpoint).copied().unwrap_or_default();
        let count =
            DeliveryState::ALL.iter().filter(|state| is_open(**state)).map(|state| counts[*state as usize]).sum();
        Open { count, bytes: self.delivery_bytes.get(endpoint).copied().unwrap_or_default() }
    }

    pub(super) fn dead_letter(&mut self, reason: Reason, kind: DeadLetterKind, change: i64) {
        *self.dead_letters.entry((reason, kind)).or_default() += change;
    }

    /// The bytes that dead letters keep.
    pub(super) fn letter_bytes(&mut self, holder: Holder, change: i64) {
        *self.letter_bytes.entry(holder).or_default() += change;
    }

    /// Drops changes of a group that was not committed.
    pub(super) fn forget(&mut self) {
        self.routed = 0;
        self.unrouted = 0;
        self.runs.values_mut().for_each(|counts| counts.fill(0));
        self.deliveries.values_mut().for_each(|counts| counts.fill(0));
        self.run_bytes.values_mut().chain(self.delivery_bytes.values_mut()).for_each(|bytes| *bytes = 0);
        self.dead_letters.clear();
        self.letter_bytes.clear();
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
        for (kind, bytes) in [("run_bytes", &self.run_bytes), ("delivery_bytes", &self.delivery_bytes)] {
            for (name, change) in bytes {
                add(kind, name, OPEN, *change)?;
            }
        }
        for ((reason, kind), change) in &self.dead_letters {
            add("dead_letter", reason.as_str(), kind.as_str(), *change)?;
        }
        for ((kind, name), change) in &self.letter_bytes {
            add("dead_letter_bytes", name, kind.as_str(), *change)?;
        }
        self.forget();
        Ok(())
    }
}

fn is_open(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Pending | DeliveryState::Retrying)
}

fn add_bytes(changes: &mut HashMap<Arc<str>, i64>, open: &mut HashMap<Arc<str>, Open>, name: &str, change: i64) {
    match changes.get_mut(name) {
        Some(bytes) => *bytes += change,
        None => drop(changes.insert(name.into(), change)),
    }
    if let Some(open) = open.get_mut(name) {
        open.bytes += change;
    }
}

fn slot<'m, const N: usize>(counts: &'m mut HashMap<Arc<str>, [i64; N]>, name: &str) -> &'m mut [i64; N] {
    if !counts.contains_key(name) {
        counts.insert(name.into(), [0; N]);
    }
    counts.entry(name.into()).or_insert([0; N])
}
