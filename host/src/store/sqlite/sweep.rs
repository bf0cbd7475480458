//! Retention: what is past its age goes, a bounded part at a time, and never with open work.

use rusqlite::Connection;

use super::group::Group;
use super::lookup::Names;
use super::state::{RunState, parse_delivery_state, unsigned};
use crate::clock::passed::Passed;
use crate::store::{DeliveryState, Retention};

/// Events deleted in one commit.
const EVENTS_DELETED_MAX: usize = 500;

/// Events looked at in one commit: those that may not go yet cost a look.
const EVENTS_SEEN_MAX: usize = 2_000;

/// Event keys deleted in one commit.
const KEYS_DELETED_MAX: usize = 2_000;

/// An event's run, as far as its end is concerned.
pub(super) struct EndedRun {
    plugin: String,
    state: RunState,
    aged_from: i64,
    delivery_from: i64,
    delivery_count: i64,
    deliveries: Vec<EndedDelivery>,
}

/// A delivery's last words.
struct EndedDelivery {
    endpoint: String,
    state: DeliveryState,
    aged_from: i64,
}

/// The bytes of what is kept: the file without what was deleted from it.
pub(super) fn kept_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(unsigned(pages.saturating_mul(pragma("page_size")?)))
}

/// Events in their order. Where they stop being old is for the reader to see: asked of SQLite, which has no index of
/// ages, the last look of each sweep would step over the whole history.
const EVENTS_IN_ORDER: &str = "SELECT seq, run_count, coalesce(aged_from, min(accepted_at, ?3)) FROM event
  WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// What a look at some events found.
#[derive(PartialEq, Eq, Debug)]
struct Look {
    /// Old events with their counts of runs.
    old: Vec<(i64, i64)>,
    seen_to: i64,
    /// Whether there are no more old ones behind it.
    is_last: bool,
}

/// Looks at [`EVENTS_SEEN_MAX`] events behind `done_to` at most, up to the first that was not accepted before `before`.
/// Those of before `began` go by the wall clock of their time.
fn look(connection: &Connection, done_to: i64, before: Passed, began: Passed) -> rusqlite::Result<Look> {
    let mut select = connection.prepare_cached(EVENTS_IN_ORDER)?;
    let mut rows = select.query((done_to, EVENTS_SEEN_MAX as i64, began.0))?;
    let (mut look, mut seen) = (Look { old: Vec::new(), seen_to: done_to, is_last: true }, 0);
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(2)? >= before.0 {
            return Ok(look);
        }
        look.old.push((row.get(0)?, row.get(1)?));
        look.seen_to = row.get(0)?;
        seen += 1;
    }
    look.is_last = seen < EVENTS_SEEN_MAX;
    Ok(look)
}

impl Group<'_> {
    pub(super) fn sweep(&mut self, ages: Retention) -> rusqlite::Result<bool> {
        self.keep_sequences()?;
        let letters = self.discard_expired(self.passed.minus(ages.dead))?;
        let keys = self.delete_keys(self.passed.minus(ages.dedup))?;
        let (swept_to, events) = self.delete_events(self.passed.minus(ages.delivered), self.swept_to)?;
        self.swept_to = swept_to;
        let evicted = self.evict_some();
        let more = letters || keys || events || evicted;
        if !more {
            Names::ALL.iter().try_for_each(|names| self.forget_segments(*names))?;
        }
        Ok(more)
    }

    /// Deletes some of the oldest finished events, whatever their age, where more than `bytes_max` are kept. Returns
    /// whether there may be more to delete.
    pub(super) fn shrink(&mut self, bytes_max: u64) -> rusqlite::Result<bool> {
        if kept_bytes(self.connection())? <= bytes_max {
            self.shrunk_to = 0;
            return Ok(false);
        }
        self.keep_sequences()?;
        let (shrunk_to, more) = self.delete_events(Passed(i64::MAX), self.shrunk_to)?;
        self.shrunk_to = shrunk_to;
        Ok(more)
    }

    /// Keys stand in the order in which they were first seen, so that the oldest are found without an index.
    fn delete_keys(&mut self, before: Passed) -> rusqlite::Result<bool> {
        let deleted = self
            .cached(&format!(
                "DELETE FROM dedup WHERE seen_at < ?1 AND seq IN (SELECT seq FROM dedup ORDER BY seq LIMIT {KEYS_DELETED_MAX})"
            ))?
            .execute([before.0])?;
        Ok(deleted == KEYS_DELETED_MAX)
    }

    /// Goes on behind `done_to`, up to the first event that is too young. Returns how far it came, nowhere where it came to
    /// the end, and whether there is more.
    fn delete_events(&mut self, before: Passed, mut done_to: i64) -> rusqlite::Result<(i64, bool)> {
        let Look { old, seen_to, is_last } = look(self.connection(), done_to, before, self.age.began())?;
        let mut deleted = 0;
        for (seq, run_count) in old {
            if deleted == EVENTS_DELETED_MAX {
                return Ok((done_to, true));
            }
            done_to = seq;
            if let Some(runs) = self.finished_runs(seq, before)? {
                self.delete_event(seq, run_count, &runs)?;
                deleted += 1;
            }
        }
        Ok(if is_last { (0, false) } else { (seen_to, true) })
    }

    /// The event's runs with their deliveries, where all of them ended before `before`.
    pub(super) fn finished_runs(&self, seq: i64, before: Passed) -> rusqlite::Result<Option<Vec<EndedRun>>> {
        let mut select = self.cached(
            "SELECT plugin, state, coalesce(aged_from, min(ended_at, ?2), 0), coalesce(delivery_from, 0), delivery_count
             FROM run WHERE event_seq = ?1",
        )?;
        let mut rows = select.query((seq, self.age.began().0))?;
        let mut finished = Vec::new();
        while let Some(row) = rows.next()? {
            let mut run = EndedRun {
                plugin: row.get(0)?,
                state: RunState::parse(row.get_ref(1)?.as_str()?)?,
                aged_from: row.get(2)?,
                delivery_from: row.get(3)?,
                delivery_count: row.get(4)?,
                deliveries: Vec::new(),
            };
            let ended = matches!(run.state, RunState::Produced | RunState::Filtered | RunState::Discarded);
            if !ended || run.aged_from >= before.0 {
                return Ok(None);
            }
            let Some(deliveries) = self.finished_deliveries(&run, before)? else { return Ok(None) };
            run.deliveries = deliveries;
            finished.push(run);
        }
        Ok(Some(finished))
    }

    fn finished_deliveries(&self, run: &EndedRun, before: Passed) -> rusqlite::Result<Option<Vec<EndedDelivery>>> {
        let mut select = self.cached(
            "SELECT endpoint, state, coalesce(aged_from, min(ended_at, ?3), 0) FROM delivery
             WHERE seq >= ?1 AND seq < ?1 + ?2",
        )?;
        let mut rows = select.query((run.delivery_from, run.delivery_count, self.age.began().0))?;
        let mut finished = Vec::new();
        while let Some(row) = rows.next()? {
            let delivery = EndedDelivery {
                endpoint: row.get(0)?,
                state: parse_delivery_state(row.get_ref(1)?.as_str()?)?,
                aged_from: row.get(2)?,
            };
            let ended = matches!(delivery.state, DeliveryState::Delivered | DeliveryState::Discarded);
            if !ended || delivery.aged_from >= before.0 {
                return Ok(None);
            }
            finished.push(delivery);
        }
        Ok(Some(finished))
    }

    pub(super) fn delete_event(&mut self, seq: i64, run_count: i64, runs: &[EndedRun]) -> rusqlite::Result<()> {
        for run in runs {
            let range = (run.delivery_from, run.delivery_count);
            for (table, column) in [("attempt", "delivery_seq"), ("webhook", "delivery_seq"), ("delivery", "seq")] {
                self.cached(&format!("DELETE FROM {table} WHERE {column} >= ?1 AND {column} < ?1 + ?2"))?
                    .execute(range)?;
            }
            for delivery in &run.deliveries {
                self.tally.delivery(&delivery.endpoint, delivery.state, -1);
            }
            self.tally.run(&run.plugin, run.state, -1);
        }
        self.cached("DELETE FROM run WHERE event_seq = ?1")?.execute([seq])?;
        self.cached("DELETE FROM event WHERE seq = ?1")?.execute([seq])?;
        self.tally.event(run_count > 0, -1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_look_at_old_events_ends_with_the_first_that_is_young() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE event (seq INTEGER PRIMARY KEY, run_count INTEGER, accepted_at INTEGER, aged_from INTEGER);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
                 INSERT INTO event SELECT i, 1, i, i FROM n;",
            )
            .unwrap();
        let seen = |done_to, before| look(&connection, done_to, Passed(before), Passed(5)).unwrap();
        assert_eq!(seen(0, 3), Look { old: vec![(1, 1), (2, 1)], seen_to: 2, is_last: true });
        assert_eq!(seen(1, 3).old, [(2, 1)]);
        let all = seen(0, i64::MAX);
        assert_eq!((all.old.len(), all.seen_to, all.is_last), (EVENTS_SEEN_MAX, EVENTS_SEEN_MAX as i64, false));
        connection.prepare_cached(EVENTS_IN_ORDER).unwrap().reset_status(StatementStatus::VmStep);
        assert_eq!(seen(2, 3).old, []);
        let steps = connection.prepare_cached(EVENTS_IN_ORDER).unwrap().get_status(StatementStatus::VmStep);
        assert!(steps < 100, "{steps} steps");

        // Of before events aged by the store's clock, when the wall clock was years ahead for a while.
        let ahead = "UPDATE event SET aged_from = NULL, accepted_at = 1000000000 WHERE seq < 3";
        connection.execute(ahead, ()).unwrap();
        assert_eq!(seen(0, 5), Look { old: vec![], seen_to: 0, is_last: true });
        assert_eq!(seen(0, 6).old, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    }
}
