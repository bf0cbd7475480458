//! Order: of the deliveries of one key to one endpoint, one at a time can be claimed, and the rest are due at no time.
//!
//! What precedes a delivery: the deliveries of its key to its endpoint that have not ended and belong to an earlier event,
//! or to the same one before it; and the runs of its key, of earlier events, that have not ended, for they may still make
//! such deliveries. Whatever ends one of them gives the next its turn, in the same commit: so nobody has to look for it, a
//! crash can't part the two, and what waits for its turn is never in memory.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::group::Group;
use crate::clock::Timestamp;
use crate::event::OrderKey;
use crate::store::{ClaimedDelivery, DeliverySeq, EventSeq};

/// When a delivery is due that something precedes.
pub(super) const BEHIND: i64 = i64::MAX;

/// What became of a delivery whose turn it is.
pub(super) enum InTurn {
    /// It is this host's.
    Claimed(ClaimedDelivery),
    /// It is due, and nobody's.
    Freed,
}

/// The first delivery of a key to an endpoint that has not ended.
struct First {
    seq: DeliverySeq,
    event: EventSeq,
    /// It was put behind something when it was written, and has not had its turn.
    waits: bool,
}

impl Group<'_> {
    /// Whether something precedes the delivery at this position, which need not be written yet.
    pub(super) fn is_preceded(
        &self,
        key: OrderKey,
        endpoint: &str,
        event: EventSeq,
        delivery: DeliverySeq,
    ) -> rusqlite::Result<bool> {
        let mut earlier = self.cached(
            "SELECT 1 FROM delivery INDEXED BY delivery_order
             WHERE order_key = ?1 AND endpoint = ?2 AND state IN ('pending', 'retrying') AND (event_seq, seq) < (?3, ?4)
             LIMIT 1",
        )?;
        Ok(earlier.exists((key.0, endpoint, event.0, delivery.0))? || self.has_earlier_run(key, event)?)
    }

    fn has_earlier_run(&self, key: OrderKey, event: EventSeq) -> rusqlite::Result<bool> {
        self.cached(
            "SELECT 1 FROM run INDEXED BY run_order
             WHERE order_key = ?1 AND event_seq < ?2 AND state IN ('pending', 'retrying', 'parked') LIMIT 1",
        )?
        .exists((key.0, event.0))
    }

    /// Makes a delivery wait until what precedes it has ended.
    pub(super) fn put_behind(&self, delivery: DeliverySeq) -> rusqlite::Result<()> {
        self.cached("UPDATE delivery SET due_at = ?2 WHERE seq = ?1")?.execute((delivery.0, BEHIND)).map(drop)
    }

    /// A delivery of this key to this endpoint has ended: claims the one whose turn it is, where one waits for that, and it
    /// has at most `bytes_max`. It is due since `now`.
    pub(super) fn claim_next(
        &self,
        key: OrderKey,
        endpoint: &Arc<str>,
        bytes_max: i64,
        now: Timestamp,
    ) -> rusqlite::Result<Option<InTurn>> {
        let Some(next) = self.next_in_turn(key, endpoint)? else { return Ok(None) };
        let bytes: i64 =
            self.cached("SELECT bytes FROM delivery WHERE seq = ?1")?.query_row([next.0], |row| row.get(0))?;
        let claimed_by = (bytes <= bytes_max).then_some(self.host);
        self.cached("UPDATE delivery SET due_at = ?3, claimed_by = ?2 WHERE seq = ?1")?
            .execute((next.0, claimed_by, now.0))?;
        if claimed_by.is_none() {
            return Ok(Some(InTurn::Freed));
        }
        self.delivery(next, endpoint).map(|delivery| Some(InTurn::Claimed(delivery)))
    }

    /// As [`Self::claim_next`], but leaves it to whoever claims it. Returns whether there was one.
    pub(super) fn free_next(&self, key: OrderKey, endpoint: &str, now: Timestamp) -> rusqlite::Result<bool> {
        let Some(next) = self.next_in_turn(key, endpoint)? else { return Ok(false) };
        self.cached("UPDATE delivery SET due_at = ?2 WHERE seq = ?1")?.execute((next.0, now.0))?;
        Ok(true)
    }

    /// A run of this key has ended: frees what it alone preceded. Returns the endpoints that have work now.
    pub(super) fn free_behind_run(&self, key: OrderKey, now: Timestamp) -> rusqlite::Result<Vec<Arc<str>>> {
        let mut freed = Vec::new();
        let mut last: Option<Arc<str>> = None;
        while let Some(endpoint) = self.endpoint_after(key, last.as_deref().unwrap_or_default())? {
            if self.free_next(key, &endpoint, now)? {
                freed.push(Arc::clone(&endpoint));
            }
            last = Some(endpoint);
        }
        Ok(freed)
    }

    /// The endpoint after this one, in the order of their names, that has deliveries of the key which have not ended.
    fn endpoint_after(&self, key: OrderKey, endpoint: &str) -> rusqlite::Result<Option<Arc<str>>> {
        self.optional(
            "SELECT endpoint FROM delivery INDEXED BY delivery_order
             WHERE order_key = ?1 AND endpoint > ?2 AND state IN ('pending', 'retrying') ORDER BY endpoint LIMIT 1",
            (key.0, endpoint),
        )
    }

    fn next_in_turn(&self, key: OrderKey, endpoint: &str) -> rusqlite::Result<Option<DeliverySeq>> {
        let first = self
            .cached(
                "SELECT seq, event_seq, due_at = ?3 AND claimed_by IS NULL FROM delivery INDEXED BY delivery_order
                 WHERE order_key = ?1 AND endpoint = ?2 AND state IN ('pending', 'retrying')
                 ORDER BY event_seq, seq LIMIT 1",
            )?
            .query_row((key.0, endpoint, BEHIND), |row| {
                Ok(First { seq: DeliverySeq(row.get(0)?), event: EventSeq(row.get(1)?), waits: row.get(2)? })
            })
            .optional()?;
        Ok(match first {
            Some(first) if first.waits && !self.has_earlier_run(key, first.event)? => Some(first.seq),
            _ => None,
        })
    }
}
