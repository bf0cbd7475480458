//! Who holds which work: hosts, their heartbeats, and claims given up or taken from hosts that are gone.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::age::Age;
use super::due;
use super::evict::LetterBounds;
use super::group::Group;
use crate::clock::{CLOCK_STEP_MIN, Timestamp};
use crate::store::begun::BegunRun;
use crate::store::{DeliverySeq, EventSeq};

/// A host that was not seen for this long is gone, and its claims are open.
const HOST_GONE_AFTER: Duration = Duration::from_secs(60);

/// Claims that nobody will work off.
#[derive(Default)]
pub(super) struct Release {
    pub(super) runs: Vec<(EventSeq, Arc<str>)>,
    pub(super) deliveries: Vec<DeliverySeq>,
}

impl Release {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.deliveries.is_empty()
    }
}

/// This host's row, and what came of entering it.
pub(super) struct Entered {
    pub(super) host: i64,
    /// Runs that are dead letters now, of [`Reason::HostCrash`](crate::dead_letter::Reason::HostCrash).
    pub(super) dead: u64,
}

/// Who enters.
pub(super) struct Entering<'a> {
    /// What was under way in hosts that are gone.
    pub(super) begun: &'a [BegunRun],
    /// Whether this is a host and no command.
    pub(super) takes_over: bool,
}

/// Enters this host, alone: whoever holds the store's lock is, so that earlier hosts' claims are nobody's. What was under
/// way in them is counted against it in the same commit, once; a command leaves it claimed, so that the next host can.
pub(super) fn enter_host(
    connection: &Connection,
    entering: &Entering<'_>,
    age: Arc<Age>,
    letter_bounds: Arc<LetterBounds>,
    now: Timestamp,
) -> rusqlite::Result<Entered> {
    let mut group = Group::new(connection, NO_HOST, age, letter_bounds)?;
    group.begin(false)?;
    match enter(&mut group, entering, now).and_then(|entered| group.commit().map(|()| entered)) {
        Ok(entered) => Ok(entered),
        Err(error) => {
            group.roll_back();
            Err(error)
        }
    }
}

/// Claims nothing.
const NO_HOST: i64 = 0;

fn enter(group: &mut Group<'_>, entering: &Entering<'_>, now: Timestamp) -> rusqlite::Result<Entered> {
    let dead = if entering.takes_over { group.suspect_all(entering.begun, now)? } else { 0 };
    let left = if entering.takes_over { Vec::new() } else { group.under_way(entering.begun)? };
    // Written at once: what is open is counted by it.
    group.tally.write(group.connection())?;
    let seen = group.last_seen()?;
    let host = take_over(group.connection(), &left, now)?;
    group.keep_age()?;
    move_due(group, seen, now)?;
    Ok(Entered { host, dead })
}

/// Where the clock shows less than an earlier host has seen, it was set back while none ran, by as much at least.
fn move_due(group: &mut Group<'_>, seen: Option<Timestamp>, now: Timestamp) -> rusqlite::Result<()> {
    let back = seen.map_or(Duration::ZERO, |seen| seen.since(now));
    if back < CLOCK_STEP_MIN {
        return Ok(());
    }
    tracing::warn!(
        back_s = back.as_secs_f64(),
        "the clock was set back since the last start; what waits is due earlier by as much"
    );
    for queue in group.open_queues()? {
        let mut place = due::beginning(now);
        while let Some(next) = group.move_due_some(&queue, place, back, now)? {
            place = next;
        }
    }
    Ok(())
}

/// Opens the claims of earlier hosts but for those of the runs `left`, and takes their place.
fn take_over(connection: &Connection, left: &[&BegunRun], now: Timestamp) -> rusqlite::Result<i64> {
    let claimed = |kind: &str, free: &str| -> rusqlite::Result<i64> {
        let open: i64 = connection.query_row(
            "SELECT coalesce(sum(count), 0) FROM tally WHERE kind = ?1 AND state IN ('pending', 'retrying')",
            [kind],
            |row| row.get(0),
        )?;
        Ok(open - connection.query_row(free, (), |row| row.get::<_, i64>(0))?)
    };
    let runs = claimed(
        "run",
        "SELECT count(*) FROM run INDEXED BY run_claimable WHERE claimed_by IS NULL AND state IN ('pending', 'retrying')",
    )?;
    let deliveries = claimed(
        "delivery",
        "SELECT count(*) FROM delivery INDEXED BY delivery_claimable
         WHERE claimed_by IS NULL AND state IN ('pending', 'retrying')",
    )?;
    // How many there are is known, and they are among the newest as a rule: looking back ends early in a long history.
    connection.execute(
        "UPDATE run SET claimed_by = NULL WHERE (event_seq, plugin) IN
           (SELECT event_seq, plugin FROM run WHERE claimed_by IS NOT NULL ORDER BY event_seq DESC LIMIT ?1)",
        [runs],
    )?;
    connection.execute(
        "UPDATE delivery SET claimed_by = NULL WHERE seq IN
           (SELECT seq FROM delivery WHERE claimed_by IS NOT NULL ORDER BY seq DESC LIMIT ?1)",
        [deliveries],
    )?;
    let mut claim = connection.prepare("UPDATE run SET claimed_by = ?3 WHERE event_seq = ?1 AND plugin = ?2")?;
    for run in left {
        claim.execute((run.seq.0, &run.plugin, run.host))?;
    }
    let hosts: Vec<i64> = left.iter().map(|run| run.host).collect();
    let hosts = serde_json::to_string(&hosts).unwrap_or_else(|_| "[]".to_owned());
    connection.execute("DELETE FROM host WHERE id NOT IN (SELECT value FROM json_each(?1))", [hosts])?;
    connection
        .execute("INSERT INTO host (pid, started_at, seen_at) VALUES (?1, ?2, ?2)", (std::process::id(), now.0))?;
    Ok(connection.last_insert_rowid())
}

impl Group<'_> {
    pub(super) fn heartbeat(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        self.keep_age()?;
        let seen = self.cached("UPDATE host SET seen_at = ?2 WHERE id = ?1")?.execute((self.host, now.0))?;
        if seen == 0 {
            // Another host took this one for gone, and has its claims; new ones need the row again.
            self.cached("INSERT INTO host (id, pid, started_at, seen_at) VALUES (?1, ?2, ?3, ?3)")?.execute((
                self.host,
                std::process::id(),
                now.0,
            ))?;
        }
        Ok(())
    }

    /// Opens the claims of hosts that are gone. Costs a look at a table of one row while there are none.
    pub(super) fn open_claims_of_the_gone(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let oldest = now.minus(HOST_GONE_AFTER);
        while let Some(gone) =
            self.optional::<i64>("SELECT id FROM host WHERE id <> ?1 AND seen_at < ?2 LIMIT 1", (self.host, oldest.0))?
        {
            self.cached("UPDATE run SET claimed_by = NULL WHERE claimed_by = ?1")?.execute([gone])?;
            self.cached("UPDATE delivery SET claimed_by = NULL WHERE claimed_by = ?1")?.execute([gone])?;
            self.cached("DELETE FROM host WHERE id = ?1")?.execute([gone])?;
        }
        Ok(())
    }

    pub(super) fn release(&mut self, release: &Release) -> rusqlite::Result<()> {
        let mut run =
            self.cached("UPDATE run SET claimed_by = NULL WHERE event_seq = ?1 AND plugin = ?2 AND claimed_by = ?3")?;
        for (seq, plugin) in &release.runs {
            run.execute((seq.0, plugin, self.host))?;
        }
        let mut delivery = self.cached("UPDATE delivery SET claimed_by = NULL WHERE seq = ?1 AND claimed_by = ?2")?;
        for seq in &release.deliveries {
            delivery.execute((seq.0, self.host))?;
        }
        Ok(())
    }
}
