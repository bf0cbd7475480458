//! Deliveries: claimed, and what their attempts came to.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use super::claims::Release;
use super::dead_letters::Death;
use super::group::Group;
use super::order::BEHIND;
use super::runs::{CLAIM_BYTES_MAX, CLAIM_MAX};
use super::state::{bytes_at, micros, pairs_at, parse_delivery_state, readable};
use super::writer::Outcome;
use crate::clock::Timestamp;
use crate::delivery::{DeliveryId, Transition};
use crate::event::{EventKey, OrderKey};
use crate::store::{AttemptRecord, Claimed, ClaimedDelivery, DeadLetterKind, DeliverySeq, DeliveryState, EventSeq};

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

/// Roughly what records hold in memory, in bytes.
pub(super) fn bytes(records: &[AttemptRecord]) -> usize {
    const FIXED: usize = 256;
    records.iter().map(|record| FIXED + record.response.len()).sum()
}

impl Group<'_> {
    pub(super) fn claim_deliveries(
        &mut self,
        endpoint: &Arc<str>,
        limit: usize,
        now: Timestamp,
    ) -> rusqlite::Result<Claimed<ClaimedDelivery>> {
        self.open_claims_of_the_gone(now)?;
        let work = self.due_deliveries(endpoint, limit.min(CLAIM_MAX), now)?;
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
        Ok(Claimed { work, next_due })
    }

    /// What is due, and comes first in its order where it has one: whoever changed when a delivery is due need not have
    /// minded that.
    fn due_deliveries(
        &self,
        endpoint: &Arc<str>,
        limit: usize,
        now: Timestamp,
    ) -> rusqlite::Result<Vec<ClaimedDelivery>> {
        let mut select = self.cached(
            "SELECT d.seq, d.id, e.key, d.plugin, w.content_type, w.headers, w.body, d.attempts, d.attempts_before_budget,
               d.due_at, d.order_key, d.event_seq
             FROM delivery d INDEXED BY delivery_claimable
               CROSS JOIN event e ON e.seq = d.event_seq CROSS JOIN webhook w ON w.delivery_seq = d.seq
             WHERE d.endpoint = ?1 AND d.claimed_by IS NULL AND d.state IN ('pending', 'retrying') AND d.due_at <= ?2
             ORDER BY d.due_at, d.seq LIMIT ?3",
        )?;
        let mut rows = select.query((endpoint, now.0, i64::try_from(limit).unwrap_or(i64::MAX)))?;
        let mut work = Vec::new();
        let mut bytes = 0;
        let mut early = Vec::new();
        while bytes < CLAIM_BYTES_MAX
            && let Some(row) = rows.next()?
        {
            if let Some(key) = row.get::<_, Option<i64>>(10)?.map(OrderKey) {
                let (event, seq) = (EventSeq(row.get(11)?), DeliverySeq(row.get(0)?));
                if self.is_preceded(key, endpoint, event, seq)? {
                    early.push(seq);
                    continue;
                }
            }
            let delivery = delivery_at(row, endpoint)?;
            bytes += delivery.body.len();
            work.push(delivery);
        }
        drop(rows);
        early.into_iter().try_for_each(|seq| self.put_behind(seq))?;
        Ok(work)
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

    pub(super) fn record_attempts(&mut self, records: &[AttemptRecord]) -> rusqlite::Result<Vec<ClaimedDelivery>> {
        let mut next = Vec::new();
        for record in records {
            next.extend(self.record_attempt(record)?);
        }
        Ok(next)
    }

    /// Nothing happens to a delivery that is not this host's, nor for an attempt that is recorded already. Returns the
    /// delivery whose turn it is now, claimed.
    fn record_attempt(&mut self, record: &AttemptRecord) -> rusqlite::Result<Option<ClaimedDelivery>> {
        if let Transition::Deferred { due_at } = record.transition {
            self.defer_delivery(record, due_at)?;
            return Ok(None);
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
                    return Ok(Some(order.map(|key| (key, Arc::<str>::from(endpoint)))));
                }
                Ok(None)
            })
            .optional()?;
        let Some(Some(order)) = open else { return Ok(None) };
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
        match order {
            Some((key, endpoint)) if next != DeliveryState::Retrying => self.claim_next(key, &endpoint, ended_at),
            _ => Ok(None),
        }
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
