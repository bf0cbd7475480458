//! The store's own clock: time that has passed, kept in the file. See [`passed`](crate::clock::passed).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::group::Group;
use crate::clock::passed::{Kept, Passed, PassedClock, Reading, Stretch};
use crate::clock::{Clock, Timestamp};
use crate::sync::lock;

/// Tells how old things are. Outlives the writer's connections.
pub(super) struct Age {
    clock: Arc<dyn Clock>,
    passed: Mutex<PassedClock>,
}

impl Age {
    /// Goes on from what the store kept.
    pub(super) fn load(connection: &Connection, clock: Arc<dyn Clock>) -> rusqlite::Result<Arc<Self>> {
        let reading = clock.reading();
        let passed = match kept(connection)? {
            Some(kept) => PassedClock::resume(&kept, stretches(connection)?, &reading),
            None => PassedClock::new(&reading),
        };
        Ok(Arc::new(Self { clock, passed: Mutex::new(passed) }))
    }

    /// The time that has passed.
    pub(super) fn now(&self) -> Passed {
        lock(&self.passed).at(self.clock.since_boot())
    }

    /// When rows begin to say by themselves when their age began: what is older says it by the wall clock of its time.
    pub(super) fn began(&self) -> Passed {
        lock(&self.passed).stretches()[0].from
    }

    /// See [`PassedClock::wall_before`].
    pub(super) fn wall_before(&self, age: Duration) -> Timestamp {
        let reading = self.clock.reading();
        let mut passed = lock(&self.passed);
        passed.look(&reading);
        passed.wall_before(age, &reading)
    }
}

fn kept(connection: &Connection) -> rusqlite::Result<Option<Kept>> {
    let sql = "SELECT at, boot, since_boot, wall, is_synchronised FROM passed_clock";
    let kept = connection.query_row(sql, (), |row| {
        let reading = Reading {
            boot: row.get(1)?,
            since_boot: Duration::from_millis(u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0)),
            wall: Timestamp(row.get(3)?),
            is_synchronised: row.get(4)?,
        };
        Ok(Kept { at: Passed(row.get(0)?), reading })
    });
    kept.optional()
}

fn stretches(connection: &Connection) -> rusqlite::Result<Vec<Stretch>> {
    connection
        .prepare("SELECT from_passed, ahead_ms FROM wall_stretch ORDER BY from_passed")?
        .query_map((), |row| Ok(Stretch { from: Passed(row.get(0)?), ahead_ms: row.get(1)? }))?
        .collect()
}

impl Group<'_> {
    /// Keeps what the store's clock shows.
    pub(super) fn keep_age(&mut self) -> rusqlite::Result<()> {
        let reading = self.age.clock.reading();
        let (kept, stretches) = {
            let mut passed = lock(&self.age.passed);
            (passed.look(&reading), passed.stretches().to_vec())
        };
        self.cached(
            "INSERT OR REPLACE INTO passed_clock (id, at, boot, since_boot, wall, is_synchronised)
             VALUES (1, ?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((
            kept.at.0,
            &*reading.boot,
            i64::try_from(reading.since_boot.as_millis()).unwrap_or(i64::MAX),
            reading.wall.0,
            reading.is_synchronised,
        ))?;
        self.keep_stretches(&stretches)
    }

    /// They are few, and as a rule the store has them all.
    fn keep_stretches(&self, stretches: &[Stretch]) -> rusqlite::Result<()> {
        let known: i64 = self.cached("SELECT count(*) FROM wall_stretch")?.query_row((), |row| row.get(0))?;
        let last: Option<i64> = self.optional("SELECT max(from_passed) FROM wall_stretch", ())?.flatten();
        let is_kept =
            usize::try_from(known) == Ok(stretches.len()) && last == stretches.last().map(|stretch| stretch.from.0);
        if is_kept {
            return Ok(());
        }
        self.cached("DELETE FROM wall_stretch")?.execute(())?;
        let mut insert = self.cached("INSERT OR REPLACE INTO wall_stretch (from_passed, ahead_ms) VALUES (?1, ?2)")?;
        stretches.iter().try_for_each(|stretch| insert.execute((stretch.from.0, stretch.ahead_ms)).map(drop))
    }
}
