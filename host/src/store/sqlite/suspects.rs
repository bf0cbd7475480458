//! Runs that were under way when a host ended without stopping: called alone, and dead letters in the end.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::dead_letters::Death;
use super::group::Group;
use super::state::RunState;
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::store::begun::BegunRun;
use crate::store::{DeadLetterKind, EventSeq};

/// A run dies with this many hosts that ended while it was under way…
const CRASHES_MAX: u32 = 3;

/// …of which so many ended within its call, with nothing else under way. The first may have ended for any reason, with
/// hundreds of runs that had nothing to do with it; even the second, alone, may have been killed by chance.
const CRASHES_ALONE_MIN: u32 = 2;

/// A run dies with this many hosts whenever they ended before its outcome was durable: what it returns may be to blame,
/// once the call is over. So often is no chance, where a run that is alone is done within milliseconds.
const CRASHES_ANYWHERE_MAX: u32 = 10;

/// What a host's end makes of a run that was under way in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// It is called again, with nothing beside it.
    Alone,
    /// It is a dead letter.
    Dead,
}

/// Pure: what so many hosts that ended make of a run.
fn judge(crashes: u32, crashes_alone: u32) -> Verdict {
    let is_dead = (crashes >= CRASHES_MAX && crashes_alone >= CRASHES_ALONE_MIN) || crashes >= CRASHES_ANYWHERE_MAX;
    if is_dead { Verdict::Dead } else { Verdict::Alone }
}

/// The runs to be called alone, in the writer's memory: there are none as a rule, and then a completion costs nothing more.
pub(super) type Suspects = HashSet<(i64, Arc<str>)>;

/// Every run that is to be called alone.
pub(super) fn suspects(connection: &Connection) -> rusqlite::Result<Suspects> {
    let mut select = connection.prepare("SELECT event_seq, plugin FROM suspect")?;
    let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

impl Group<'_> {
    /// Counts the end of hosts that are gone against what was under way in them. Before their claims are given up. Returns
    /// how many runs are dead letters for it.
    pub(super) fn suspect_all(&mut self, begun: &[BegunRun], now: Timestamp) -> rusqlite::Result<u64> {
        self.cached(
            "DELETE FROM suspect WHERE NOT EXISTS
               (SELECT 1 FROM run WHERE run.event_seq = suspect.event_seq AND run.plugin = suspect.plugin)",
        )?
        .execute(())?;
        let mut dead = 0;
        for run in begun {
            if let Some(state) = self.was_under_way(run)? {
                dead += u64::from(self.suspect(run, state, now)? == Verdict::Dead);
            }
        }
        Ok(dead)
    }

    /// Those that have come to no outcome since.
    pub(super) fn under_way<'b>(&self, begun: &'b [BegunRun]) -> rusqlite::Result<Vec<&'b BegunRun>> {
        let mut left = Vec::new();
        for run in begun {
            left.extend(self.was_under_way(run)?.map(|_| run));
        }
        Ok(left)
    }

    /// The state of a run that has come to no outcome since its call began, in a host that is gone.
    fn was_under_way(&self, run: &BegunRun) -> rusqlite::Result<Option<RunState>> {
        let mut select = self.cached(
            "SELECT state FROM run WHERE event_seq = ?1 AND plugin = ?2 AND claimed_by = ?3
               AND claimed_by IN (SELECT id FROM host) AND state IN ('pending', 'retrying')
               AND attempts - attempts_before_budget = ?4",
        )?;
        let params = (run.seq.0, &run.plugin, run.host, run.attempts_made);
        select.query_row(params, |row| RunState::parse(row.get_ref(0)?.as_str()?)).optional()
    }

    fn suspect(&mut self, run: &BegunRun, state: RunState, now: Timestamp) -> rusqlite::Result<Verdict> {
        let (crashes, crashes_alone): (u32, u32) = self
            .cached(
                "INSERT INTO suspect (event_seq, plugin, crashes, crashes_alone) VALUES (?1, ?2, 1, ?3)
                 ON CONFLICT DO UPDATE SET crashes = crashes + 1, crashes_alone = crashes_alone + excluded.crashes_alone
                 RETURNING crashes, crashes_alone",
            )?
            .query_row((run.seq.0, &run.plugin, run.alone), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (plugin, digest, seq) = (&run.plugin, &run.plugin_digest, run.seq.0);
        let verdict = judge(crashes, crashes_alone);
        match verdict {
            Verdict::Alone => {
                tracing::warn!(%plugin, plugin_digest = %digest, event = seq, crashes, "the host ended without stopping while the run was under way; it is called again alone");
            }
            Verdict::Dead => {
                let detail = format!(
                    "the host ended without stopping {crashes} times while this run was under way, {crashes_alone} of them in its call with nothing beside it"
                );
                tracing::error!(%plugin, plugin_digest = %digest, event = seq, reason = %Reason::HostCrash, detail, "the run is a dead letter");
                self.bury_suspect(run, state, &detail, now)?;
            }
        }
        Ok(verdict)
    }

    /// Its count stays: redriven, the run is called alone at once.
    fn bury_suspect(&mut self, run: &BegunRun, before: RunState, detail: &str, now: Timestamp) -> rusqlite::Result<()> {
        self.bury(&Death {
            kind: DeadLetterKind::Run,
            reason: Reason::HostCrash,
            detail,
            died_at: now,
            event: run.seq,
            plugin: &run.plugin,
            delivery: None,
        })?;
        let order = self.run_leaves(run.seq, &run.plugin)?;
        self.cached(
            "UPDATE run SET state = ?3, claimed_by = NULL, ended_at = ?4, plugin_digest = ?5, detail = ?6, aged_from = ?7
             WHERE event_seq = ?1 AND plugin = ?2",
        )?
        .execute((
            run.seq.0,
            &run.plugin,
            RunState::Dead.as_str(),
            now.0,
            &run.plugin_digest,
            detail,
            self.passed.0,
        ))?;
        self.tally.run(&run.plugin, before, -1);
        self.tally.run(&run.plugin, RunState::Dead, 1);
        if let Some(key) = order {
            self.free_behind_run(key, now)?;
        }
        Ok(())
    }

    /// A run came to an outcome and the host still stands: it is no suspect any more.
    pub(super) fn acquit(&mut self, seq: EventSeq, plugin: &Arc<str>) -> rusqlite::Result<()> {
        if self.suspects.is_empty() || !self.suspects.remove(&(seq.0, Arc::clone(plugin))) {
            return Ok(());
        }
        self.cached("DELETE FROM suspect WHERE event_seq = ?1 AND plugin = ?2")?.execute((seq.0, plugin))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_dies_that_was_met_alone_twice_or_far_too_often() {
        let check = |crashes, crashes_alone, expected| assert_eq!(judge(crashes, crashes_alone), expected);
        check(1, 0, Verdict::Alone);
        check(1, 1, Verdict::Alone);
        check(9, 0, Verdict::Alone);
        check(9, 1, Verdict::Alone);
        check(10, 0, Verdict::Dead);
        check(2, 2, Verdict::Alone);
        check(3, 2, Verdict::Dead);
        check(4, 3, Verdict::Dead);
    }
}
