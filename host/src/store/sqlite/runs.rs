//! Runs: claimed, ended with their deliveries, parked and unparked.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use super::backlog::size;
use super::claims::Release;
use super::dead_letters::Death;
use super::group::Group;
use super::order::BEHIND;
use super::plugin_state;
use super::state::{RunState, bytes_at, pairs_at, pairs_to_json, readable};
use super::writer::Outcome;
use crate::clock::Timestamp;
use crate::event::{Event, EventKey, OrderKey};
use crate::store::{
    Claim, ClaimRoom, Claimed, ClaimedRun, Completed, DeadLetterKind, DeliverySeq, DeliveryState, EventSeq,
    KnownPlugin, NewDelivery, Place, RunCompletion, RunOutcome, Spends, Written,
};

/// The most work one claim takes, whatever limit the caller names.
pub(super) const CLAIM_MAX: usize = 1024;

/// A claim ends early when what it took holds this much, in bytes; it always takes one.
pub(super) const CLAIM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many rows a claim looks at.
pub(super) fn claim_count(room: ClaimRoom) -> i64 {
    i64::try_from(room.count.min(CLAIM_MAX)).unwrap_or(i64::MAX)
}

/// A claim that fills its room, row by row.
pub(super) struct Filling {
    bytes_max: usize,
    bytes: usize,
    /// What the first piece has, where it alone has no place; else 0.
    pub(super) needs: usize,
}

impl Filling {
    pub(super) fn of(room: ClaimRoom) -> Self {
        Self { bytes_max: room.bytes, bytes: 0, needs: 0 }
    }

    /// Whether another row is worth looking at.
    pub(super) fn may_go_on(&self) -> bool {
        self.bytes < CLAIM_BYTES_MAX
    }

    /// Whether a piece of `bytes` has place, which it takes then. Asked before its content is read.
    pub(super) fn takes(&mut self, bytes: i64) -> bool {
        let bytes = usize::try_from(bytes).unwrap_or(0);
        if self.bytes + bytes > self.bytes_max {
            self.needs = if self.bytes == 0 { bytes } else { 0 };
            return false;
        }
        // One without content counts, so that nothing needed means that something was taken.
        self.bytes += bytes.max(1);
        true
    }
}

/// Parked and unparked runs in one commit.
pub(super) const PARK_CHUNK: usize = 5_000;

/// What became of each completion, and which of their deliveries this host holds now.
pub(super) struct Completions {
    pub(super) each: Vec<Completed>,
    held: Vec<DeliverySeq>,
}

impl Outcome for Completions {
    fn unwanted(self) -> Release {
        Release { runs: Vec::new(), deliveries: self.held }
    }
}

impl Outcome for Claimed<ClaimedRun> {
    fn unwanted(self) -> Release {
        Release { runs: self.work.into_iter().map(|run| (run.seq, run.plugin)).collect(), deliveries: Vec::new() }
    }
}

/// Roughly what completions hold in memory, in bytes.
pub(super) fn bytes(completions: &[RunCompletion]) -> usize {
    const FIXED: usize = 512;
    let of = |completion: &RunCompletion| match &completion.outcome {
        RunOutcome::Produced(deliveries) => {
            deliveries.iter().map(|delivery| FIXED + delivery.body.len()).sum::<usize>()
        }
        RunOutcome::Retry { detail, .. } | RunOutcome::Dead { detail, .. } => detail.len(),
        RunOutcome::Parked => 0,
    };
    let state = |completion: &RunCompletion| completion.state.as_ref().map_or(0, |change| plugin_state::bytes(change));
    completions.iter().map(|completion| FIXED + of(completion) + state(completion)).sum()
}

/// A run as it is found when a try of it ends.
struct OpenRun {
    state: RunState,
    attempts: u32,
    order: Option<OrderKey>,
    bytes: i64,
}

/// What the end of a try writes into its run.
struct RunEnd<'a> {
    state: RunState,
    attempts: u32,
    due_at: Option<Timestamp>,
    delivery_from: Option<DeliverySeq>,
    delivery_count: usize,
    /// Deadlines that this try broke.
    deadlines: u32,
    detail: Option<&'a str>,
}

impl<'a> RunEnd<'a> {
    fn new(state: RunState, attempts: u32, detail: Option<&'a str>) -> Self {
        Self { state, attempts, due_at: None, delivery_from: None, delivery_count: 0, deadlines: 0, detail }
    }
}

impl Group<'_> {
    pub(super) fn claim_runs(
        &mut self,
        plugin: &Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> rusqlite::Result<Claimed<ClaimedRun>> {
        self.open_claims_of_the_gone(now)?;
        let (work, needs) = self.due_runs(plugin, room, now)?;
        let mut claim = self.cached("UPDATE run SET claimed_by = ?3 WHERE event_seq = ?1 AND plugin = ?2")?;
        for run in &work {
            claim.execute((run.seq.0, plugin, self.host))?;
        }
        let next_due = self
            .optional::<i64>(
                "SELECT due_at FROM run INDEXED BY run_claimable
                 WHERE plugin = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying') ORDER BY due_at LIMIT 1",
                [plugin],
            )?
            .map(Timestamp);
        Ok(Claimed { work, next_due, needs })
    }

    /// What is due and has place in `room`, and what the first has where it has none.
    fn due_runs(
        &self,
        plugin: &Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> rusqlite::Result<(Vec<ClaimedRun>, usize)> {
        let mut select = self.cached(
            "SELECT r.event_seq, r.attempts - r.attempts_before_budget, e.key, e.source, e.subject, e.entity_type,
               e.operation, e.entity_id, e.tenant_id, e.timestamp, e.body_digest, e.attributes, e.entity, e.previous,
               (SELECT crashes FROM suspect s WHERE s.event_seq = r.event_seq AND s.plugin = r.plugin),
                coalesce(nullif(r.bytes, 0), coalesce(octet_length(e.entity), 0) + coalesce(octet_length(e.previous), 0)),
                r.deadlines
             FROM run r INDEXED BY run_claimable CROSS JOIN event e ON e.seq = r.event_seq
             WHERE r.plugin = ?1 AND r.claimed_by IS NULL AND r.state IN ('pending', 'retrying') AND r.due_at <= ?2
             ORDER BY r.due_at, r.event_seq LIMIT ?3",
        )?;
        let mut rows = select.query((plugin, now.0, claim_count(room)))?;
        let (mut work, mut filling) = (Vec::new(), Filling::of(room));
        while filling.may_go_on()
            && let Some(row) = rows.next()?
        {
            if !filling.takes(row.get(15)?) {
                break;
            }
            let event = Arc::new(event_at(row)?);
            work.push(ClaimedRun {
                seq: EventSeq(row.get(0)?),
                event,
                plugin: Arc::clone(plugin),
                attempts_made: row.get(1)?,
                deadlines: row.get(16)?,
                crashes: row.get::<_, Option<u32>>(14)?.unwrap_or(0),
            });
        }
        Ok((work, filling.needs))
    }

    pub(super) fn complete_runs(&mut self, completions: &[RunCompletion]) -> rusqlite::Result<Completions> {
        let mut completed = Completions { each: Vec::with_capacity(completions.len()), held: Vec::new() };
        for completion in completions {
            self.meet_announced(completion.seq, &completion.plugin);
            let one = self.complete_run(completion, &mut completed.held)?;
            completed.each.push(one);
        }
        Ok(completed)
    }

    /// Nothing happens to a run that is not this host's: a completed run never runs again.
    fn complete_run(&mut self, completion: &RunCompletion, held: &mut Vec<DeliverySeq>) -> rusqlite::Result<Completed> {
        let open = self
            .hot
            .run_open
            .query_row((completion.seq.0, &completion.plugin, self.host), |row| {
                Ok(OpenRun {
                    state: RunState::parse(row.get_ref(0)?.as_str()?)?,
                    attempts: row.get(1)?,
                    order: row.get::<_, Option<i64>>(2)?.map(OrderKey),
                    bytes: row.get(3)?,
                })
            })
            .optional()?;
        let Some(open @ OpenRun { state: RunState::Pending | RunState::Retrying, .. }) = open else {
            return Ok(Completed::NotHeld);
        };
        if let (RunOutcome::Produced(_), Some(change)) = (&completion.outcome, &completion.state)
            && !self.change_state(&completion.plugin, completion.state_version(), change)?
        {
            return Ok(Completed::Conflict);
        }
        let attempts = open.attempts.saturating_add(1);
        let mut written = Written::default();
        let end = match &completion.outcome {
            RunOutcome::Produced(deliveries) if deliveries.is_empty() => {
                RunEnd::new(RunState::Filtered, attempts, None)
            }
            RunOutcome::Produced(deliveries) => {
                written = self.insert_deliveries(completion, open.order, deliveries, held)?;
                RunEnd {
                    delivery_from: written.deliveries.first().copied(),
                    delivery_count: written.deliveries.len(),
                    ..RunEnd::new(RunState::Produced, attempts, None)
                }
            }
            RunOutcome::Retry { spends, due_at, detail } => {
                let attempts = if *spends == Spends::Nothing { open.attempts } else { attempts };
                let deadlines = u32::from(*spends == Spends::Deadline);
                let due_at = Some(*due_at);
                RunEnd { due_at, deadlines, ..RunEnd::new(RunState::Retrying, attempts, Some(detail)) }
            }
            RunOutcome::Dead { reason, detail } => {
                self.bury(&Death {
                    kind: DeadLetterKind::Run,
                    reason: *reason,
                    detail,
                    died_at: completion.ended_at,
                    event: completion.seq,
                    plugin: &completion.plugin,
                    delivery: None,
                })?;
                RunEnd::new(RunState::Dead, attempts, Some(detail))
            }
            RunOutcome::Parked => RunEnd::new(RunState::Parked, open.attempts, None),
        };
        if !matches!(completion.outcome, RunOutcome::Parked) {
            self.acquit(completion.seq, &completion.plugin)?;
        }
        self.end_run(completion, &open, &end)?;
        if let (Some(key), false) = (open.order, end.state.is_open()) {
            written.freed = self.free_behind_run(key, completion.ended_at)?;
        }
        Ok(Completed::Ended(written))
    }

    fn end_run(&mut self, completion: &RunCompletion, open: &OpenRun, end: &RunEnd<'_>) -> rusqlite::Result<()> {
        self.hot.run_end.execute(params![
            completion.seq.0,
            completion.plugin,
            end.state.as_str(),
            end.attempts,
            end.due_at.map(|at| at.0),
            completion.ended_at.0,
            end.delivery_from.map(|seq| seq.0),
            i64::try_from(end.delivery_count).unwrap_or(i64::MAX),
            completion.plugin_digest,
            end.detail,
            self.passed.0,
            end.deadlines,
        ])?;
        self.tally.run(&completion.plugin, open.state, -1);
        self.tally.run(&completion.plugin, end.state, 1);
        if !end.state.is_open() {
            self.tally.run_bytes(&completion.plugin, -open.bytes);
        }
        Ok(())
    }

    /// Writes deliveries one after the other, so that the run needs to name the first only. An id that the same run
    /// names twice is one delivery.
    fn insert_deliveries(
        &mut self,
        completion: &RunCompletion,
        order: Option<OrderKey>,
        deliveries: &[NewDelivery],
        held: &mut Vec<DeliverySeq>,
    ) -> rusqlite::Result<Written> {
        let mut ids = HashSet::new();
        let mut written = Written::default();
        for delivery in deliveries {
            if deliveries.len() > 1 && !ids.insert(delivery.id.as_str()) {
                continue;
            }
            let seq = self.next_delivery();
            let place = self.insert_delivery(seq, completion, order.filter(|_| delivery.terms.ordered), delivery)?;
            if place == Place::Here {
                held.push(seq);
            }
            written.deliveries.push(seq);
            written.places.push(place);
        }
        Ok(written)
    }

    fn insert_delivery(
        &mut self,
        seq: DeliverySeq,
        completion: &RunCompletion,
        order: Option<OrderKey>,
        delivery: &NewDelivery,
    ) -> rusqlite::Result<Place> {
        let headers = pairs_to_json(&delivery.headers);
        let bytes = delivery.body.len() + headers.len();
        let beyond = self.delivery_beyond(&delivery.endpoint, bytes, delivery.terms.backlog)?;
        let place = match (&beyond, order) {
            (Some(_), _) => Place::Dead,
            (None, Some(key)) if self.is_preceded(key, &delivery.endpoint, completion.seq, seq)? => Place::Behind,
            (None, _) if delivery.claim == Claim::Here => Place::Here,
            (None, _) => Place::Open,
        };
        let state = if beyond.is_some() { DeliveryState::Dead } else { DeliveryState::Pending };
        self.hot.delivery_insert.execute(params![
            seq.0,
            delivery.id.as_str(),
            completion.seq.0,
            completion.plugin,
            delivery.endpoint,
            state.as_str(),
            if place == Place::Behind { BEHIND } else { completion.ended_at.0 },
            (place == Place::Here).then_some(self.host),
            completion.ended_at.0,
            order.map(|key| key.0),
            size(bytes),
            beyond.as_ref().map(|_| completion.ended_at.0),
            beyond.as_ref().map(|_| self.passed.0),
        ])?;
        self.hot.webhook_insert.execute((seq.0, &delivery.content_type, headers, readable(&delivery.body)))?;
        self.tally.delivery(&delivery.endpoint, state, 1);
        match beyond {
            Some(full) => self.bury_delivery(seq, completion.seq, &completion.plugin, &full, completion.ended_at)?,
            None => self.tally.delivery_bytes(&delivery.endpoint, size(bytes)),
        }
        Ok(place)
    }

    /// Parks some runs that nobody holds. Returns how many; none means that no more are left.
    pub(super) fn park_some(&mut self, plugin: &str) -> rusqlite::Result<u64> {
        let pending = self.move_runs(plugin, RunState::Pending, RunState::Parked, None)?;
        let retrying = self.move_runs(plugin, RunState::Retrying, RunState::Parked, None)?;
        Ok(pending + retrying)
    }

    /// Puts some parked runs back to pending, due since `now`: how long they were parked is no time in which they could
    /// have been called.
    pub(super) fn unpark_some(&mut self, plugin: &str, now: Timestamp) -> rusqlite::Result<u64> {
        self.move_runs(plugin, RunState::Parked, RunState::Pending, Some(now))
    }

    fn move_runs(
        &mut self,
        plugin: &str,
        from: RunState,
        to: RunState,
        due_at: Option<Timestamp>,
    ) -> rusqlite::Result<u64> {
        let chosen = match from {
            RunState::Parked => "INDEXED BY run_parked WHERE plugin = ?1 AND state = 'parked'",
            RunState::Pending => {
                "INDEXED BY run_claimable WHERE plugin = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying')
                 AND state = 'pending'"
            }
            _ => {
                "INDEXED BY run_claimable WHERE plugin = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying')
                 AND state = 'retrying'"
            }
        };
        let moved = self
            .cached(&format!(
                "UPDATE run SET state = ?2, due_at = coalesce(?3, due_at) WHERE plugin = ?1 AND event_seq IN
                   (SELECT event_seq FROM run {chosen} LIMIT {PARK_CHUNK})"
            ))?
            .execute((plugin, to.as_str(), due_at.map(|at| at.0)))?;
        let moved = i64::try_from(moved).unwrap_or(i64::MAX);
        self.tally.run(plugin, from, -moved);
        self.tally.run(plugin, to, moved);
        Ok(moved.unsigned_abs())
    }

    pub(super) fn remember_plugin(&mut self, plugin: &KnownPlugin) -> rusqlite::Result<()> {
        let subjects = serde_json::to_string(&plugin.subjects).unwrap_or_else(|_| "[]".to_owned());
        self.cached(
            "INSERT INTO plugin (name, subjects, digest) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET subjects = excluded.subjects, digest = excluded.digest",
        )?
        .execute((&plugin.name, subjects, &plugin.digest))?;
        Ok(())
    }
}

/// The event of a row that has it from its third column on.
pub(super) fn event_at(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        key: EventKey::from_stored(row.get::<_, Arc<str>>(2)?),
        source: row.get(3)?,
        subject: row.get(4)?,
        entity_type: row.get(5)?,
        operation: row.get(6)?,
        entity_id: row.get(7)?,
        tenant_id: row.get(8)?,
        timestamp: row.get(9)?,
        body_digest: row.get(10)?,
        attributes: pairs_at(row, 11)?,
        entity: bytes_at(row, 12)?,
        previous: bytes_at(row, 13)?,
    })
}
