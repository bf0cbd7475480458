//! Deliveries: claimed, and what their attempts came to.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use super::claims::Release;
use super::dead_letters::Death;
use super::group::Group;
use super::order::{BEHIND, InTurn};
use super::runs::{Filling, claim_count};
use super::state::{bytes_at, micros, pairs_at, parse_delivery_state, readable};
use super::writer::Outcome;
use crate::clock::Timestamp;
use crate::delivery::{DeliveryId, Transition};
use crate::event::{EventKey, OrderKey};
use crate::store::{
    AttemptRecord, AttemptsRecorded, ClaimRoom, Claimed, ClaimedDelivery, DeadLetterKind, DeliverySeq, DeliveryState,
    EventSeq,
};

impl Outcome for Claimed<ClaimedDelivery> {
    fn unwanted(self) -> Release {
        self.work.unwanted()
    }
}

impl Outcome for Vec<ClaimedDelivery> {
    fn unwanted(self) -> Release {
        Release { runs: Vec::new(), deliveries: self.into_iter().map(|delivery| delivery.seq).collect() }
    }
}

impl Outcome for AttemptsRecorded {
    fn unwanted(self) -> Release {
        self.next.unwanted()
    }
}

/// A delivery that follows another in its order takes its place in memory: where it is larger than that one, and than this
/// many bytes, it is claimed like any other.
const FOLLOWS_BYTES_MAX: i64 = 16 * 1024;

/// Roughly what records hold in memory, in bytes.
pub(super) fn bytes(records: &[AttemptRecord]) -> usize {
    const FIXED: usize = 256;
    records.iter().map(|record| FIXED + record.response.len()).sum()
}

impl Group<'_> {
    pub(super) fn claim_deliveries(
        &mut self,
        endpoint: &Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> rusqlite::Result<Claimed<ClaimedDelivery>> {
        self.open_claims_of_the_gone(now)?;
        let (work, needs) = self.due_deliveries(endpoint, room, now)?;
        let mut claim = self.cached("UPDATE delivery SET claimed_by = ?2 WHERE seq = ?1")?;
        for delivery in &work {
            claim.execute((delivery.seq.0, self.host))?;
        }
        let next_due = self
            .optional::<i64>(
                "SELECT due_at FROM delivery INDEXED BY delivery_claimable
                 WHERE endpoint = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying') AND due_at < ?2
                 ORDER BY due_at LIMIT 1",
                (endpoint, BEHIND),
            )?
            .map(Timestamp);
        Ok(Claimed { work, next_due, needs })
    }

    /// What is due and has place in `room`, and what the first has where it has none. Each comes first in its order where
    /// it has one: whoever changed when a delivery is due need not have minded that.
    fn due_deliveries(
        &self,
        endpoint: &Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> rusqlite::Result<(Vec<ClaimedDelivery>, usize)> {
        let mut select = self.cached(
            "SELECT d.seq, d.id, e.key, d.plugin, w.content_type, w.headers, w.body, d.attempts, d.attempts_before_budget,
               d.due_at, d.order_key, d.event_seq, coalesce(nullif(d.bytes, 0), octet_length(w.body))
             FROM delivery d INDEXED BY delivery_claimable
               CROSS JOIN event e ON e.seq = d.event_seq CROSS JOIN webhook w ON w.delivery_seq = d.seq
             WHERE d.endpoint = ?1 AND d.claimed_by IS NULL AND d.state IN ('pending', 'retrying') AND d.due_at <= ?2
             ORDER BY d.due_at, d.seq LIMIT ?3",
        )?;
        let mut rows = select.query((endpoint, now.0, claim_count(room)))?;
        let (mut work, mut filling) = (Vec::new(), Filling::of(room));
        let mut early = Vec::new();
        while filling.may_go_on()
            && let Some(row) = rows.next()?
        {
            if let Some(key) = row.get::<_, Option<i64>>(10)?.map(OrderKey) {
                let (event, seq) = (EventSeq(row.get(11)?), DeliverySeq(row.get(0)?));
                if self.is_preceded(key, endpoint, event, seq)? {
                    early.push(seq);
                    continue;
                }
            }
            if !filling.takes(row.get(12)?) {
                break;
            }
            work.push(delivery_at(row, endpoint)?);
        }
        drop(rows);
        early.into_iter().try_for_each(|seq| self.put_behind(seq))?;
        Ok((work, filling.needs))
    }

    /// One delivery, whoever has it, as whoever claims it needs it.
    pub(super) fn delivery(&self, seq: DeliverySeq, endpoint: &Arc<str>) -> rusqlite::Result<ClaimedDelivery> {
        self.cached(
            "SELECT d.seq, d.id, e.key, d.plugin, w.content_type, w.headers, w.body, d.attempts, d.attempts_before_budget,
               d.due_at
             FROM delivery d CROSS JOIN event e ON e.seq = d.event_seq CROSS JOIN webhook w ON w.delivery_seq = d.seq
             WHERE d.seq = ?1",
        )?
        .query_row([seq.0], |row| delivery_at(row, endpoint))
    }

    pub(super) fn record_attempts(&mut self, records: &[AttemptRecord]) -> rusqlite::Result<AttemptsRecorded> {
        let mut recorded = AttemptsRecorded::default();
        for record in records {
            self.record_attempt(record, &mut recorded)?;
        }
        Ok(recorded)
    }

    /// Nothing happens to a delivery that is not this host's, nor for an attempt that is recorded already. The delivery
    /// whose turn it is now is claimed, or freed where it is larger than the one that it follows.
    fn record_attempt(&mut self, record: &AttemptRecord, recorded: &mut AttemptsRecorded) -> rusqlite::Result<()> {
        if let Transition::Deferred { due_at } = record.transition {
            return self.defer_delivery(record, due_at);
        }
        let Self { hot, tally, host, .. } = self;
        let next = match record.transition {
            Transition::Delivered => DeliveryState::Delivered,
            Transition::Retry { .. } | Transition::Deferred { .. } => DeliveryState::Retrying,
            Transition::Dead { .. } => DeliveryState::Dead,
        };
        let open = hot
            .delivery_open
            .query_row((record.delivery.0, *host), |row| {
                let before = parse_delivery_state(row.get_ref(1)?.as_str()?)?;
                let fresh = row.get::<_, u32>(2)? < record.number;
                if fresh && matches!(before, DeliveryState::Pending | DeliveryState::Retrying) {
                    let endpoint = row.get_ref(0)?.as_str()?;
                    tally.delivery(endpoint, before, -1);
                    tally.delivery(endpoint, next, 1);
                    if next != DeliveryState::Retrying {
                        tally.delivery_bytes(endpoint, -row.get::<_, i64>(4)?);
                    }
                    let order = row.get::<_, Option<i64>>(3)?.map(OrderKey);
                    let bytes = row.get::<_, i64>(4)?;
                    return Ok(Some(order.map(|key| (key, Arc::<str>::from(endpoint), bytes))));
                }
                Ok(None)
            })
            .optional()?;
        let Some(Some(order)) = open else { return Ok(()) };
        self.hot.attempt_insert.execute(params![
            record.delivery.0,
            record.number,
            record.started_at.0,
            micros(record.duration),
            record.status,
            record.error,
            Some(&record.response).filter(|response| !response.is_empty()).map(|response| readable(response)),
        ])?;
        let ended_at = record.started_at.plus(record.duration);
        let due_at = match record.transition {
            Transition::Retry { due_at } | Transition::Deferred { due_at } => Some(due_at.0),
            Transition::Delivered | Transition::Dead { .. } => None,
        };
        self.hot.delivery_end.execute(params![
            record.delivery.0,
            next.as_str(),
            record.number,
            due_at,
            ended_at.0,
            record.status,
            record.error,
            self.passed.0,
        ])?;
        if let Transition::Dead { reason } = record.transition {
            let (event, plugin): (i64, Arc<str>) = self
                .cached("SELECT event_seq, plugin FROM delivery WHERE seq = ?1")?
                .query_row([record.delivery.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            self.bury(&Death {
                kind: DeadLetterKind::Delivery,
                reason,
                detail: &last_words(record),
                died_at: ended_at,
                event: EventSeq(event),
                plugin: &plugin,
                delivery: Some(record.delivery),
            })?;
        }
        if let (Some((key, endpoint, bytes)), true) = (order, next != DeliveryState::Retrying) {
            let bytes_max = bytes.max(FOLLOWS_BYTES_MAX);
            match self.claim_next(key, &endpoint, bytes_max, ended_at)? {
                Some(InTurn::Claimed(delivery)) => recorded.next.push(delivery),
                Some(InTurn::Freed) => recorded.freed.push(endpoint),
                None => {}
            }
        }
        Ok(())
    }
}

/// The delivery of a row that begins as both queries above do.
fn delivery_at(row: &Row<'_>, endpoint: &Arc<str>) -> rusqlite::Result<ClaimedDelivery> {
    Ok(ClaimedDelivery {
        seq: DeliverySeq(row.get(0)?),
        id: DeliveryId::from_stored(row.get::<_, Arc<str>>(1)?),
        event_key: EventKey::from_stored(row.get::<_, Arc<str>>(2)?),
        plugin: row.get(3)?,
        endpoint: Arc::clone(endpoint),
        content_type: row.get(4)?,
        headers: pairs_at(row, 5)?,
        body: bytes_at(row, 6)?.unwrap_or_default(),
        attempts_made: row.get(7)?,
        attempts_before_budget: row.get(8)?,
        due_at: Timestamp(row.get(9)?),
    })
}

impl Group<'_> {
    /// Changes when it is due, and what is said of why it waits: no attempt was made that counts.
    fn defer_delivery(&mut self, record: &AttemptRecord, due_at: Timestamp) -> rusqlite::Result<()> {
        let mut defer = self.cached(
            "UPDATE delivery SET due_at = ?3, claimed_by = NULL, last_status = NULL, last_error = ?4
             WHERE seq = ?1 AND claimed_by = ?2 AND attempts < ?5 AND state IN ('pending', 'retrying')",
        )?;
        defer.execute(params![record.delivery.0, self.host, due_at.0, record.error, record.number])?;
        Ok(())
    }
}

/// What the last attempt came to, for the operator.
fn last_words(record: &AttemptRecord) -> String {
    let came_to = match (&record.error, record.status) {
        (Some(error), _) => error.clone(),
        (None, Some(status)) => format!("the endpoint answered {status}"),
        (None, None) => "no answer".to_owned(),
    };
    format!("attempt {}: {came_to}", record.number)
}
