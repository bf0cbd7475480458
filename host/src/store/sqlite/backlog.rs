//! The bounds of what waits: in number and bytes as it is written, in age now and then. What goes beyond is a dead letter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::OptionalExtension;

use super::dead_letters::Death;
use super::group::Group;
use super::state::{RunState, parse_delivery_state};
use super::tally::{OPEN, Open};
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::event::OrderKey;
use crate::store::{Backlog, BacklogBounds, DeadLetterKind, DeliverySeq, DeliveryState, EventSeq};

/// What is expired in one commit.
const EXPIRED_CHUNK: i64 = 1_000;

/// Why a backlog has no room, for the operator.
pub(super) enum Full {
    /// It has as many already.
    Count(u64),
    /// It would have more bytes.
    Bytes(u64),
    /// It has been due since then.
    Age(Timestamp),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count} were waiting already ([backlog] count)"),
            Self::Bytes(bytes) => write!(f, "more than {bytes} bytes would have been waiting ([backlog] bytes)"),
            Self::Age(due_at) => write!(f, "it was due at {due_at} and is older than may wait ([backlog] age)"),
        }
    }
}

/// A size as the store keeps it.
pub(super) fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Whether one more of `bytes` has no room beside what waits already.
fn beyond(open: Open, bytes: usize, bounds: BacklogBounds) -> Option<Full> {
    let count = u64::try_from(open.count).unwrap_or(0);
    let all = u64::try_from(open.bytes.saturating_add(size(bytes))).unwrap_or(0);
    if count >= bounds.count {
        return Some(Full::Count(bounds.count));
    }
    (all > bounds.bytes).then_some(Full::Bytes(bounds.bytes))
}

impl Group<'_> {
    /// Whether one more run of `plugin` has no room.
    pub(super) fn run_beyond(
        &mut self,
        plugin: &Arc<str>,
        bytes: usize,
        bounds: BacklogBounds,
    ) -> rusqlite::Result<Option<Full>> {
        let open = match self.tally.open_runs.get(plugin) {
            Some(open) => *open,
            None => {
                let kept = self.kept("run", plugin)?;
                let change = self.tally.open_runs_change(plugin);
                let open = Open { count: kept.count + change.count, bytes: kept.bytes + change.bytes };
                self.tally.open_runs.insert(Arc::clone(plugin), open);
                open
            }
        };
        Ok(beyond(open, bytes, bounds))
    }

    /// Whether one more delivery to `endpoint` has no room.
    pub(super) fn delivery_beyond(
        &mut self,
        endpoint: &Arc<str>,
        bytes: usize,
        bounds: BacklogBounds,
    ) -> rusqlite::Result<Option<Full>> {
        let open = match self.tally.open_deliveries.get(endpoint) {
            Some(open) => *open,
            None => {
                let kept = self.kept("delivery", endpoint)?;
                let change = self.tally.open_deliveries_change(endpoint);
                let open = Open { count: kept.count + change.count, bytes: kept.bytes + change.bytes };
                self.tally.open_deliveries.insert(Arc::clone(endpoint), open);
                open
            }
        };
        Ok(beyond(open, bytes, bounds))
    }

    /// What had not ended when the last group was committed.
    fn kept(&self, kind: &str, name: &str) -> rusqlite::Result<Open> {
        let mut select = self.cached(
            "SELECT coalesce(sum(count) FILTER (WHERE kind = ?1 AND state IN ('pending', 'retrying', 'parked')), 0),
               coalesce(sum(count) FILTER (WHERE kind = ?1 || '_bytes' AND state = ?3), 0)
             FROM tally WHERE kind IN (?1, ?1 || '_bytes') AND name = ?2",
        )?;
        select.query_row((kind, name, OPEN), |row| Ok(Open { count: row.get(0)?, bytes: row.get(1)? }))
    }

    pub(super) fn bury_run(
        &mut self,
        event: EventSeq,
        plugin: &str,
        full: &Full,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        self.bury(&Death {
            kind: DeadLetterKind::Run,
            reason: Reason::BacklogFull,
            detail: &full.to_string(),
            died_at: now,
            event,
            plugin,
            delivery: None,
        })
    }

    pub(super) fn bury_delivery(
        &mut self,
        delivery: DeliverySeq,
        event: EventSeq,
        plugin: &str,
        full: &Full,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        self.bury(&Death {
            kind: DeadLetterKind::Delivery,
            reason: Reason::BacklogFull,
            detail: &full.to_string(),
            died_at: now,
            event,
            plugin,
            delivery: Some(delivery),
        })
    }

    /// Makes dead letters of some of what nobody holds and has been due for longer than `age`. Returns how many.
    pub(super) fn expire_some(&mut self, backlog: &Backlog, age: Duration, now: Timestamp) -> rusqlite::Result<u64> {
        let before = self.age.wall_before(age);
        match backlog {
            Backlog::Runs(plugin) => self.expire_runs(plugin, before, now),
            Backlog::Deliveries(endpoint) => self.expire_deliveries(endpoint, before, now),
        }
    }

    fn expire_runs(&mut self, plugin: &str, before: Timestamp, now: Timestamp) -> rusqlite::Result<u64> {
        let old: Vec<(EventSeq, Timestamp, String)> = self
            .cached(
                "SELECT event_seq, due_at, state FROM run INDEXED BY run_claimable
                 WHERE plugin = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying') AND due_at < ?2
                 ORDER BY due_at, event_seq LIMIT ?3",
            )?
            .query_map((plugin, before.0, EXPIRED_CHUNK), |row| {
                Ok((EventSeq(row.get(0)?), Timestamp(row.get(1)?), row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        for (event, due_at, state) in &old {
            let full = Full::Age(*due_at);
            let order = self.run_leaves(*event, plugin)?;
            self.cached(
                "UPDATE run SET state = 'dead', ended_at = ?3, detail = ?4, aged_from = ?5 WHERE event_seq = ?1 AND plugin = ?2",
            )?
            .execute((event.0, plugin, now.0, full.to_string(), self.passed.0))?;
            self.tally.run(plugin, RunState::parse(state)?, -1);
            self.tally.run(plugin, RunState::Dead, 1);
            self.bury_run(*event, plugin, &full, now)?;
            if let Some(key) = order {
                self.free_behind_run(key, now)?;
            }
        }
        Ok(old.len() as u64)
    }

    fn expire_deliveries(&mut self, endpoint: &str, before: Timestamp, now: Timestamp) -> rusqlite::Result<u64> {
        let old: Vec<Old> = self
            .cached(
                "SELECT seq, event_seq, plugin, due_at, state FROM delivery INDEXED BY delivery_claimable
                 WHERE endpoint = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying') AND due_at < ?2
                 ORDER BY due_at, seq LIMIT ?3",
            )?
            .query_map((endpoint, before.0, EXPIRED_CHUNK), |row| {
                Ok(Old {
                    seq: DeliverySeq(row.get(0)?),
                    event: EventSeq(row.get(1)?),
                    plugin: row.get(2)?,
                    due_at: Timestamp(row.get(3)?),
                    state: parse_delivery_state(row.get_ref(4)?.as_str()?)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        for old in &old {
            let order = self.delivery_leaves(old.seq)?;
            self.cached("UPDATE delivery SET state = 'dead', ended_at = ?2, aged_from = ?3 WHERE seq = ?1")?
                .execute((old.seq.0, now.0, self.passed.0))?;
            self.tally.delivery(endpoint, old.state, -1);
            self.tally.delivery(endpoint, DeliveryState::Dead, 1);
            self.bury_delivery(old.seq, old.event, &old.plugin, &Full::Age(old.due_at), now)?;
            if let Some(key) = order {
                self.free_next(key, endpoint, now)?;
            }
        }
        Ok(old.len() as u64)
    }

    /// Gives back the bytes of a delivery that is about to end, or to be removed, without an attempt. Returns the order in
    /// which it stands, whose next is to be freed once it has ended.
    pub(super) fn delivery_leaves(&mut self, delivery: DeliverySeq) -> rusqlite::Result<Option<OrderKey>> {
        let open: Option<(String, i64, Option<i64>)> = self
            .cached(
                "SELECT endpoint, bytes, order_key FROM delivery WHERE seq = ?1 AND state IN ('pending', 'retrying')",
            )?
            .query_row([delivery.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((endpoint, bytes, order)) = open else { return Ok(None) };
        self.tally.delivery_bytes(&endpoint, -bytes);
        Ok(order.map(OrderKey))
    }

    /// The same of a run.
    pub(super) fn run_leaves(&mut self, event: EventSeq, plugin: &str) -> rusqlite::Result<Option<OrderKey>> {
        let open: Option<(i64, Option<i64>)> = self
            .cached(
                "SELECT bytes, order_key FROM run
                 WHERE event_seq = ?1 AND plugin = ?2 AND state IN ('pending', 'retrying', 'parked')",
            )?
            .query_row((event.0, plugin), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((bytes, order)) = open else { return Ok(None) };
        self.tally.run_bytes(plugin, -bytes);
        Ok(order.map(OrderKey))
    }
}

/// A delivery that has waited for too long.
struct Old {
    seq: DeliverySeq,
    event: EventSeq,
    plugin: Arc<str>,
    due_at: Timestamp,
    state: DeliveryState,
}
