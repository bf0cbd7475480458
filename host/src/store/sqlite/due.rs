//! A wall clock that was set back: what waits must not wait longer for it.

use std::time::Duration;

use super::group::Group;
use crate::clock::Timestamp;

/// Runs or deliveries moved in one commit.
const CHUNK: usize = 2_000;

/// A queue whose work is due by the wall clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Queue {
    /// A plugin's runs.
    Runs(String),
    /// An endpoint's deliveries.
    Deliveries(String),
}

/// How far a pass over a queue has come: when its last piece was due, and which that was.
pub(super) type Place = (i64, i64);

/// Where a pass begins: behind everything that is due at `now`.
pub(super) fn beginning(now: Timestamp) -> Place {
    (now.0, i64::MAX)
}

impl Queue {
    fn name(&self) -> &str {
        match self {
            Self::Runs(name) | Self::Deliveries(name) => name,
        }
    }

    /// What is due at no time, since something precedes it in its order, stays so.
    fn select(&self) -> &'static str {
        match self {
            Self::Runs(_) => {
                "SELECT due_at, event_seq FROM run INDEXED BY run_claimable
                 WHERE plugin = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying')
                   AND (due_at, event_seq) > (?2, ?3) ORDER BY due_at, event_seq LIMIT ?4"
            }
            Self::Deliveries(_) => {
                "SELECT due_at, seq FROM delivery INDEXED BY delivery_claimable
                 WHERE endpoint = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying')
                   AND (due_at, seq) > (?2, ?3) AND due_at < 9223372036854775807 ORDER BY due_at, seq LIMIT ?4"
            }
        }
    }

    fn update(&self) -> &'static str {
        match self {
            Self::Runs(_) => "UPDATE run SET due_at = ?3 WHERE event_seq = ?2 AND plugin = ?1",
            Self::Deliveries(_) => "UPDATE delivery SET due_at = ?3 WHERE seq = ?2 AND endpoint = ?1",
        }
    }
}

impl Group<'_> {
    /// The queues that hold open work.
    pub(super) fn open_queues(&self) -> rusqlite::Result<Vec<Queue>> {
        let mut select = self.cached(
            "SELECT DISTINCT kind = 'run', name FROM tally
             WHERE kind IN ('run', 'delivery') AND state IN ('pending', 'retrying') AND count > 0",
        )?;
        let rows = select.query_map((), |row| {
            let name = row.get(1)?;
            Ok(if row.get(0)? { Queue::Runs(name) } else { Queue::Deliveries(name) })
        })?;
        rows.collect()
    }

    /// Makes some of what is due after `place` due earlier by `by`, but not before `now`. Returns how far that came; none
    /// when nothing is left. What was moved lies before the place it is told to go on from, so nothing is moved twice.
    pub(super) fn move_due_some(
        &mut self,
        queue: &Queue,
        place: Place,
        by: Duration,
        now: Timestamp,
    ) -> rusqlite::Result<Option<Place>> {
        let mut select = self.cached(queue.select())?;
        let params = (queue.name(), place.0, place.1, i64::try_from(CHUNK).unwrap_or(i64::MAX));
        let places = select.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let places: Vec<Place> = places.collect::<Result<_, _>>()?;
        let mut update = self.cached(queue.update())?;
        for (due_at, seq) in &places {
            let due_at = Timestamp(*due_at).minus(by).max(now);
            update.execute((queue.name(), seq, due_at.0))?;
        }
        Ok(places.last().copied())
    }

    /// When an earlier host last said that it is alive, by its clock.
    pub(super) fn last_seen(&self) -> rusqlite::Result<Option<Timestamp>> {
        Ok(self.optional::<Option<i64>>("SELECT max(seen_at) FROM host", ())?.flatten().map(Timestamp))
    }
}
