//! Every trace of an entity, gone: its events and all that came of them, overwritten where they were.

use rusqlite::{Connection, OptionalExtension};

use super::group::Group;
use super::lookup::Names;
use super::select;
use super::state::{RunState, parse_delivery_state, unsigned};
use crate::clock::Timestamp;
use crate::store::{DeliverySeq, DeliveryState, EventSeq, Purge, Purged};

/// Events deleted in one commit.
pub(super) const EVENTS_CHUNK: usize = 50;

/// One delivery of an event that is to go.
struct Delivery {
    seq: i64,
    endpoint: String,
    state: DeliveryState,
    held: bool,
}

/// One run of an event that is to go.
struct Run {
    plugin: String,
    state: RunState,
    held: bool,
}

/// An event that is to go, with all that came of it.
struct Doomed {
    seq: i64,
    key: String,
    routed: bool,
    runs: Vec<Run>,
    deliveries: Vec<Delivery>,
}

impl Doomed {
    fn waiting(&self) -> u64 {
        let runs = self
            .runs
            .iter()
            .filter(|run| !run.held && matches!(run.state, RunState::Pending | RunState::Retrying | RunState::Parked));
        let deliveries = self.deliveries.iter().filter(|delivery| waits(delivery.state) && !delivery.held);
        (runs.count() + deliveries.count()) as u64
    }

    fn in_flight(&self) -> u64 {
        let runs = self.runs.iter().filter(|run| run.held).count();
        (runs + self.deliveries.iter().filter(|delivery| waits(delivery.state) && delivery.held).count()) as u64
    }
}

fn waits(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Pending | DeliveryState::Retrying)
}

/// The events that are to go, newest first, some of them at most.
pub(super) fn events(connection: &Connection, purge: &Purge) -> rusqlite::Result<Vec<i64>> {
    select::events_of_entity(connection, &purge.entity_id, purge.entity_type.as_deref())
}

/// What deleting them would come to. Deliveries in `given_back` count as waiting: nobody has begun to send them.
pub(super) fn count(connection: &Connection, events: &[i64], purge: &Purge) -> rusqlite::Result<Purged> {
    let mut purged = Purged::default();
    for seq in events {
        let Some(mut doomed) = doomed(connection, *seq)? else { continue };
        for delivery in &mut doomed.deliveries {
            delivery.held &= !purge.given_back.contains(&DeliverySeq(delivery.seq));
        }
        purged.events += 1;
        purged.waiting += doomed.waiting();
        purged.in_flight += doomed.in_flight();
        purged.deliveries += doomed.deliveries.len() as u64;
        purged.attempts += attempts(connection, &doomed)?;
        purged.dead_letters += letters(connection, &doomed)?;
    }
    // A message has no entity of its own: whether its body is about this one is for a person to say.
    let mentioned = "SELECT count(*) FROM dead_letter WHERE kind = 'message' AND instr(payload, ?1) > 0
                       AND event_key NOT IN (SELECT key FROM event WHERE seq IN (SELECT value FROM json_each(?2)))";
    let as_json = serde_json::to_string(events).unwrap_or_else(|_| "[]".to_owned());
    let mentioned: i64 = connection.query_row(mentioned, (&purge.entity_id, as_json), |row| row.get(0))?;
    purged.mentioned_in = unsigned(mentioned);
    Ok(purged)
}

fn attempts(connection: &Connection, doomed: &Doomed) -> rusqlite::Result<u64> {
    let mut select = connection.prepare_cached("SELECT count(*) FROM attempt WHERE delivery_seq = ?1")?;
    doomed
        .deliveries
        .iter()
        .try_fold(0, |sum, delivery| Ok(sum + unsigned(select.query_row([delivery.seq], |row| row.get(0))?)))
}

fn letters(connection: &Connection, doomed: &Doomed) -> rusqlite::Result<u64> {
    let sql = "SELECT (SELECT count(*) FROM dead_letter WHERE event_seq = ?1)
      + (SELECT count(*) FROM dead_letter WHERE event_key = ?2 AND reason = 'id_conflict')";
    connection.prepare_cached(sql)?.query_row((doomed.seq, &doomed.key), |row| row.get(0)).map(unsigned)
}

fn doomed(connection: &Connection, seq: i64) -> rusqlite::Result<Option<Doomed>> {
    let event: Option<(String, bool)> = connection
        .prepare_cached("SELECT key, run_count > 0 FROM event WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((key, routed)) = event else { return Ok(None) };
    let runs = connection
        .prepare_cached("SELECT plugin, state, claimed_by IS (SELECT max(id) FROM host) FROM run WHERE event_seq = ?1")?
        .query_map([seq], |row| {
            Ok(Run { plugin: row.get(0)?, state: RunState::parse(row.get_ref(1)?.as_str()?)?, held: row.get(2)? })
        })?
        .collect::<Result<_, _>>()?;
    let mut deliveries = Vec::new();
    let mut select =
        connection.prepare_cached("SELECT endpoint, state, claimed_by IS NOT NULL FROM delivery WHERE seq = ?1")?;
    for seq in select::deliveries_of(connection, &[seq])? {
        let delivery = select.query_row([seq], |row| {
            let state = parse_delivery_state(row.get_ref(1)?.as_str()?)?;
            Ok(Delivery { seq, endpoint: row.get(0)?, state, held: row.get(2)? })
        });
        deliveries.extend(delivery.optional()?);
    }
    Ok(Some(Doomed { seq, key, routed, runs, deliveries }))
}

impl Group<'_> {
    /// Deletes these events, but for those that somebody works on or, unless it goes too, waits. What was there is
    /// overwritten with zeros.
    pub(super) fn purge_some(&mut self, events: &[i64], purge: &Purge, now: Timestamp) -> rusqlite::Result<Purged> {
        self.keep_sequences()?;
        self.connection().pragma_update(None, "secure_delete", true)?;
        let purged = self.purge_each(events, purge, now);
        self.connection().pragma_update(None, "secure_delete", false)?;
        purged
    }

    fn purge_each(&mut self, events: &[i64], purge: &Purge, now: Timestamp) -> rusqlite::Result<Purged> {
        let mut purged = Purged::default();
        let (mut gone, mut gone_deliveries) = (Vec::new(), Vec::new());
        for seq in events {
            let Some(doomed) = doomed(self.connection(), *seq)? else { continue };
            let (waiting, in_flight) = (doomed.waiting(), doomed.in_flight());
            if in_flight > 0 || (waiting > 0 && !purge.discard_waiting) {
                purged.in_flight += in_flight;
                purged.waiting += waiting;
                continue;
            }
            purged.events += 1;
            purged.deliveries += doomed.deliveries.len() as u64;
            purged.waiting += waiting;
            purged.dead_letters += self.delete_letters_of(doomed.seq, &doomed.key)?;
            purged.attempts += self.delete_doomed(&doomed, now)?;
            gone.push(doomed.seq);
            gone_deliveries.extend(doomed.deliveries.iter().map(|delivery| delivery.seq));
        }
        self.rewrite_segments(Names::Entities, gone)?;
        self.rewrite_segments(Names::Deliveries, gone_deliveries)?;
        Ok(purged)
    }

    /// Returns how many attempts that were.
    fn delete_doomed(&mut self, doomed: &Doomed, now: Timestamp) -> rusqlite::Result<u64> {
        let mut attempts = 0;
        let (mut orders_at, mut orders) = (Vec::new(), Vec::new());
        for delivery in &doomed.deliveries {
            let order = self.delivery_leaves(DeliverySeq(delivery.seq))?;
            orders_at.extend(order.map(|key| (key, &delivery.endpoint)));
            attempts += self.cached("DELETE FROM attempt WHERE delivery_seq = ?1")?.execute([delivery.seq])? as u64;
            self.cached("DELETE FROM webhook WHERE delivery_seq = ?1")?.execute([delivery.seq])?;
            self.cached("DELETE FROM delivery WHERE seq = ?1")?.execute([delivery.seq])?;
            self.tally.delivery(&delivery.endpoint, delivery.state, -1);
        }
        for run in &doomed.runs {
            orders.extend(self.run_leaves(EventSeq(doomed.seq), &run.plugin)?);
            self.tally.run(&run.plugin, run.state, -1);
        }
        self.cached("DELETE FROM suspect WHERE event_seq = ?1")?.execute([doomed.seq])?;
        self.cached("DELETE FROM run WHERE event_seq = ?1")?.execute([doomed.seq])?;
        self.cached("DELETE FROM event WHERE seq = ?1")?.execute([doomed.seq])?;
        self.tally.event(doomed.routed, -1);
        // What waited for them in their order is due now.
        for (key, endpoint) in orders_at {
            self.free_next(key, endpoint, now)?;
        }
        for key in orders {
            self.free_behind_run(key, now)?;
        }
        Ok(attempts)
    }
}
