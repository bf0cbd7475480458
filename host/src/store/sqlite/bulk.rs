//! Deliveries changed in bulk: chosen beside the writer, changed by it a bounded part at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::claims::Release;
use super::group::Group;
use super::select;
use super::state::parse_delivery_state;
use crate::clock::Timestamp;
use crate::store::{Changed, DeadLetterKind, DeliveryChange, DeliverySeq, DeliveryState, DeliveryVerb, EventSeq};

/// Deliveries changed in one commit.
pub(super) const CHANGE_CHUNK: usize = 2_000;

/// What one step is about.
pub(super) struct Chosen {
    positions: Vec<i64>,
    /// Where the next step goes on.
    last: Option<i64>,
}

/// A delivery as far as changing it needs.
struct Open {
    seq: i64,
    event: i64,
    plugin: Arc<str>,
    endpoint: Arc<str>,
    state: DeliveryState,
    held: bool,
}

impl Open {
    fn waits(&self) -> bool {
        matches!(self.state, DeliveryState::Pending | DeliveryState::Retrying)
    }
}

/// Chooses what a step is about, looking at a bounded part of the history.
pub(super) fn choose(connection: &Connection, change: &DeliveryChange) -> rusqlite::Result<Chosen> {
    let filter = &change.filter;
    let mut selection = select::deliveries(connection, filter)?;
    selection.narrow(change.after.map_or(0, |after| after.0.saturating_add(1)), i64::MAX);
    if selection.range.is_empty() {
        return Ok(Chosen { positions: Vec::new(), last: None });
    }
    let (end, is_last) = selection.part(connection, false)?;
    // Of what is named one by one, all is looked at: what can't be changed is told.
    let states =
        if filter.ids.is_empty() && filter.state.is_none() { "x.state IN ('pending', 'retrying')" } else { "1" };
    let limit = filter.limit.map_or(CHANGE_CHUNK, |limit| CHANGE_CHUNK.min(limit as usize));
    let mut values = selection.values;
    let bounds = [*selection.range.start(), end, i64::try_from(limit).unwrap_or(i64::MAX)];
    values.extend(bounds.map(Value::from));
    let sql = format!(
        "SELECT x.seq FROM delivery x WHERE {} AND {states} AND x.seq BETWEEN ? AND ? ORDER BY x.seq LIMIT ?",
        selection.conditions
    );
    let positions: Vec<i64> = connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let last = if positions.len() == limit { positions.last().copied() } else { Some(end).filter(|_| !is_last) };
    Ok(Chosen { positions, last })
}

impl Chosen {
    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// What a step did that changed nothing.
    pub(super) fn unchanged(&self) -> Changed {
        Changed { last: self.last.map(DeliverySeq), ..Changed::default() }
    }
}

impl Group<'_> {
    pub(super) fn change_deliveries(
        &mut self,
        change: &DeliveryChange,
        chosen: &Chosen,
        now: Timestamp,
    ) -> rusqlite::Result<Changed> {
        self.release(&Release { runs: Vec::new(), deliveries: change.given_back.clone() })?;
        let mut changed = chosen.unchanged();
        let mut endpoints = BTreeSet::new();
        for position in &chosen.positions {
            let Some(open) = self.open_delivery(*position)? else { continue };
            let may_be_dead = change.filter.state == Some(DeliveryState::Dead);
            match &change.verb {
                _ if open.waits() && open.held => {
                    changed.in_flight += 1;
                    continue;
                }
                DeliveryVerb::Retry if open.waits() => {
                    self.cached("UPDATE delivery SET due_at = min(due_at, ?2) WHERE seq = ?1")?
                        .execute((open.seq, now.0))?;
                    *changed.at.entry(Arc::clone(&open.endpoint)).or_default() += 1;
                    endpoints.insert(open.endpoint);
                }
                DeliveryVerb::Discard if open.waits() => {
                    if self.discard_waiting(&open, now)? {
                        endpoints.insert(open.endpoint);
                    }
                }
                DeliveryVerb::Move { to } if *to != open.endpoint && open.waits() => {
                    if self.move_waiting(&open, to, now)? {
                        endpoints.insert(open.endpoint);
                    }
                    *changed.at.entry(Arc::clone(to)).or_default() += 1;
                    endpoints.insert(Arc::clone(to));
                }
                DeliveryVerb::Move { to }
                    if *to != open.endpoint && open.state == DeliveryState::Dead && may_be_dead =>
                {
                    self.move_dead(&open, to)?;
                }
                _ => {
                    changed.refused += 1;
                    continue;
                }
            }
            changed.changed += 1;
        }
        changed.endpoints = endpoints.into_iter().collect();
        Ok(changed)
    }

    fn open_delivery(&self, seq: i64) -> rusqlite::Result<Option<Open>> {
        self.cached("SELECT event_seq, plugin, endpoint, state, claimed_by IS NOT NULL FROM delivery WHERE seq = ?1")?
            .query_row([seq], |row| {
                Ok(Open {
                    seq,
                    event: row.get(0)?,
                    plugin: row.get(1)?,
                    endpoint: row.get(2)?,
                    state: parse_delivery_state(row.get_ref(3)?.as_str()?)?,
                    held: row.get(4)?,
                })
            })
            .optional()
    }

    /// Returns whether another delivery is due at its endpoint now, as the next in its order.
    fn discard_waiting(&mut self, open: &Open, now: Timestamp) -> rusqlite::Result<bool> {
        let order = self.delivery_leaves(DeliverySeq(open.seq))?;
        self.cached("UPDATE delivery SET state = 'discarded', ended_at = ?2, aged_from = ?3 WHERE seq = ?1")?
            .execute((open.seq, now.0, self.passed.0))?;
        self.tally.delivery(&open.endpoint, open.state, -1);
        self.tally.delivery(&open.endpoint, DeliveryState::Discarded, 1);
        order.map_or(Ok(false), |key| self.free_next(key, &open.endpoint, now))
    }

    /// The other endpoint has its own policy, and so the delivery a new budget. Where it has an order it has its place in that
    /// there too. Returns whether another delivery is due at the endpoint that it leaves, as the next in its order.
    fn move_waiting(&mut self, open: &Open, to: &Arc<str>, now: Timestamp) -> rusqlite::Result<bool> {
        let order = self.delivery_leaves(DeliverySeq(open.seq))?;
        let bytes = self
            .cached(
                "UPDATE delivery SET endpoint = ?2, due_at = ?3, attempts_before_budget = attempts
                 WHERE seq = ?1 RETURNING bytes",
            )?
            .query_row((open.seq, to, now.0), |row| row.get(0))?;
        self.tally.delivery(&open.endpoint, open.state, -1);
        self.tally.delivery(to, open.state, 1);
        self.tally.delivery_bytes(to, bytes);
        let seq = DeliverySeq(open.seq);
        if let Some(key) = order
            && self.is_preceded(key, to, EventSeq(open.event), seq)?
        {
            self.put_behind(seq)?;
        }
        order.map_or(Ok(false), |key| self.free_next(key, &open.endpoint, now))
    }

    fn move_dead(&mut self, open: &Open, to: &Arc<str>) -> rusqlite::Result<()> {
        self.cached("UPDATE delivery SET endpoint = ?2 WHERE seq = ?1")?.execute((open.seq, to))?;
        let bytes: Option<i64> = self
            .cached(
                "UPDATE dead_letter SET endpoint = ?4 WHERE event_seq = ?1 AND plugin = ?2 AND delivery_seq = ?3
                 RETURNING bytes",
            )?
            .query_row((open.event, &open.plugin, open.seq, to), |row| row.get(0))
            .optional()?;
        self.letter_bytes(DeadLetterKind::Delivery, Arc::clone(&open.endpoint), -bytes.unwrap_or(0));
        self.letter_bytes(DeadLetterKind::Delivery, Arc::clone(to), bytes.unwrap_or(0));
        self.tally.delivery(&open.endpoint, open.state, -1);
        self.tally.delivery(to, open.state, 1);
        Ok(())
    }
}
