//! What is in the store, counted, and whether guarantee 2 holds for it.

use std::sync::Arc;

use rusqlite::Connection;

use super::dead_letters::reason_at;
use super::endpoints;
use super::order::BEHIND;
use super::pause::pauses;
use super::state::{parse_delivery_state, unsigned};
use super::waiting::backlogs;
use crate::clock::Timestamp;
use crate::store::{DeliveryCount, LATELY, ReasonCount, RunCount, StoreStatus};

/// The newest events that are looked at one by one for `events_unaccounted`. Older ones are covered by the comparison
/// of dead runs and deliveries with their dead letters, which costs nothing.
const EVENTS_AUDITED_MAX: u32 = 20_000;

/// Events among the newest for which a run is missing, is in no known state, is claimed by no known host, produced
/// deliveries that are missing, or died, itself or a delivery of it, without a dead letter.
const AUDIT: &str = "
SELECT count(*) FROM (SELECT seq, run_count FROM event ORDER BY seq DESC LIMIT ?1) e WHERE e.run_count <> (
  SELECT count(*) FROM run r WHERE r.event_seq = e.seq AND CASE
    WHEN r.state IN ('pending', 'retrying') THEN r.claimed_by IS NULL OR r.claimed_by IN (SELECT id FROM host)
    WHEN r.state IN ('parked', 'filtered', 'discarded') THEN 1
    WHEN r.state = 'dead' THEN EXISTS (
      SELECT 1 FROM dead_letter l WHERE l.event_seq = r.event_seq AND l.plugin = r.plugin AND l.delivery_seq IS NULL)
    WHEN r.state = 'produced' THEN r.delivery_count > 0 AND r.delivery_count = (
      SELECT count(*) FROM delivery d
      WHERE d.seq >= r.delivery_from AND d.seq < r.delivery_from + r.delivery_count AND d.event_seq = r.event_seq AND CASE
        WHEN d.state IN ('pending', 'retrying') THEN d.claimed_by IS NULL OR d.claimed_by IN (SELECT id FROM host)
        WHEN d.state IN ('delivered', 'discarded') THEN 1
        WHEN d.state = 'dead' THEN EXISTS (
          SELECT 1 FROM dead_letter l
          WHERE l.event_seq = d.event_seq AND l.plugin = d.plugin AND l.delivery_seq = d.seq)
        ELSE 0 END)
    ELSE 0 END)";

/// Dead runs and deliveries without a dead letter, or dead letters without their run or delivery.
const DEATHS_UNMATCHED: &str = "
SELECT abs(coalesce(sum(CASE WHEN kind = 'run' AND state = 'dead' THEN count
                             WHEN kind = 'dead_letter' AND state = 'run' THEN -count END), 0))
     + abs(coalesce(sum(CASE WHEN kind = 'delivery' AND state = 'dead' THEN count
                             WHEN kind = 'dead_letter' AND state = 'delivery' THEN -count END), 0))
FROM tally";

pub(super) fn status(connection: &Connection, now: Timestamp) -> rusqlite::Result<StoreStatus> {
    let mut status = StoreStatus::default();
    let mut select = connection.prepare_cached(
        "SELECT kind, name, state, sum(count) FROM tally WHERE kind IN ('event', 'run', 'delivery') GROUP BY kind, name, state
         HAVING sum(count) <> 0 UNION ALL
         SELECT kind, name, '', sum(count) FROM tally WHERE kind = 'dead_letter' GROUP BY name HAVING sum(count) <> 0",
    )?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        let state = row.get_ref(2)?.as_str()?;
        let count = unsigned(row.get(3)?);
        match row.get_ref(0)?.as_str()? {
            "event" => {
                status.events += count;
                status.unrouted += if state == "unrouted" { count } else { 0 };
            }
            "run" => status.runs.push(RunCount { plugin: row.get(1)?, state: state.to_owned(), count }),
            "delivery" => {
                let state = parse_delivery_state(state)?;
                status.deliveries.push(DeliveryCount { endpoint: row.get(1)?, state, count });
            }
            _ => status.dead_letters.push(ReasonCount { reason: reason_at(row, 1)?, count }),
        }
    }
    let audited: i64 = connection.prepare_cached(AUDIT)?.query_row([EVENTS_AUDITED_MAX], |row| row.get(0))?;
    let unmatched: i64 = connection.prepare_cached(DEATHS_UNMATCHED)?.query_row((), |row| row.get(0))?;
    // Both may see the same event; the greater of them is right then, and neither hides the other.
    status.events_unaccounted = unsigned(audited.max(unmatched));
    status.endpoints = endpoints::records(connection)?;
    status.dead_letters_lately = died_since(connection, now.minus(LATELY))?;
    status.backlog = backlogs(connection)?;
    status.pauses = pauses(connection)?;
    Ok(status)
}

/// Read from an index alone.
fn died_since(connection: &Connection, since: Timestamp) -> rusqlite::Result<Vec<ReasonCount>> {
    connection
        .prepare_cached(
            "SELECT reason, count(*) FROM dead_letter INDEXED BY dead_letter_by_time WHERE died_at >= ?1 GROUP BY reason",
        )?
        .query_map([since.0], |row| Ok(ReasonCount { reason: reason_at(row, 0)?, count: unsigned(row.get(1)?) }))?
        .collect()
}

pub(super) fn is_idle(connection: &Connection, endpoints: &[Arc<str>]) -> rusqlite::Result<bool> {
    let open = |kind: &str, name: Option<&str>| -> rusqlite::Result<i64> {
        connection
            .prepare_cached(
                "SELECT coalesce(sum(count), 0) FROM tally
                 WHERE kind = ?1 AND name = coalesce(?2, name) AND state IN ('pending', 'retrying')",
            )?
            .query_row((kind, name), |row| row.get(0))
    };
    if open("run", None)? > 0 {
        return Ok(false);
    }
    // What precedes a delivery that waits for its turn counts by itself, or is parked.
    let mut behind = connection.prepare_cached(
        "SELECT count(*) FROM delivery INDEXED BY delivery_claimable
         WHERE endpoint = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying') AND due_at = ?2",
    )?;
    for endpoint in endpoints {
        let waiting = open("delivery", Some(endpoint))?;
        if waiting > 0 && waiting > behind.query_row((endpoint, BEHIND), |row| row.get(0))? {
            return Ok(false);
        }
    }
    Ok(true)
}
