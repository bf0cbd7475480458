//! Runs that were under way when a host ended without stopping have the host for themselves: no other call is under way
//! beside one, so that what takes the host down again is known.
//!
//! That holds up the others, but for no more than half of the time: after a run was alone, the others have as long.

use std::sync::Arc;
use std::time::Duration;

use super::{Crew, NextCall, State, Waiting};
use crate::budget::Permit;

/// Whether a run has the host for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Alone {
    /// Nobody asks for that.
    #[default]
    No,
    /// The calls under way are the last before it, since this moment.
    Waited(Duration),
    /// One is under way or its outcome is not durable; others have waited since this moment.
    UnderWay(Duration),
    /// None before this moment, unless there is nothing else to do.
    NotBefore(Duration),
}

/// Who may begin a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Every run but those that must be alone.
    Everyone,
    /// The first of those of this plugin, and nobody else.
    Suspect(Arc<str>),
    /// Nobody, until the calls under way have their outcomes.
    Nobody,
}

impl Alone {
    /// Pure: who may begin a call at `now`, where a suspect of `plugin` waits; `others` tells whether any other run does,
    /// `unfinished` how many calls have no durable outcome.
    fn turn(self, plugin: Arc<str>, others: bool, unfinished: usize, now: Duration) -> (Self, Turn) {
        let since = match self {
            Self::UnderWay(_) => return (self, Turn::Nobody),
            Self::NotBefore(moment) if now < moment && others => return (self, Turn::Everyone),
            Self::Waited(since) => since,
            Self::No | Self::NotBefore(_) => now,
        };
        if unfinished > 0 {
            (Self::Waited(since), Turn::Nobody)
        } else {
            (Self::UnderWay(since), Turn::Suspect(plugin))
        }
    }

    /// Whether calls under way are waited for.
    pub(super) fn is_waiting(self) -> bool {
        matches!(self, Self::Waited(_))
    }

    /// A call's outcome is durable. Whether it was alone.
    pub(super) fn end(&mut self, now: impl FnOnce() -> Duration) -> bool {
        let Self::UnderWay(since) = *self else { return false };
        let now = now();
        *self = Self::NotBefore(now + now.saturating_sub(since));
        true
    }
}

impl State {
    /// Who may begin a call. Costs a look at each queue while nothing has to be alone.
    pub(super) fn turn(&mut self, now: impl FnOnce() -> Duration) -> Turn {
        if matches!(self.alone, Alone::UnderWay(_)) {
            return Turn::Nobody;
        }
        let queues = self.queues.values().filter(|queue| queue.plugin.is_some());
        let first = queues.filter_map(|queue| queue.suspects.iter().map(Waiting::order).min()).min();
        let Some((_, _, plugin)) = first else {
            self.alone = Alone::No;
            return Turn::Everyone;
        };
        let others = self.queues.values().any(|queue| queue.plugin.is_some() && !queue.waiting.is_empty());
        let unfinished = self.queues.values().map(|queue| queue.unfinished).sum();
        let (alone, turn) = self.alone.turn(plugin, others, unfinished, now());
        // It is under way once a worker of its crew has taken it.
        if !matches!(alone, Alone::UnderWay(_)) {
            self.alone = alone;
        }
        turn
    }

    /// Takes the run that is to be alone, where `crew` is the one that calls it.
    pub(super) fn take_suspect(&mut self, crew: Crew, name: &str, now: Duration) -> Option<NextCall> {
        let queue = self.queues.get_mut(name).filter(|queue| queue.crew == crew)?;
        let plugin = queue.plugin.clone()?;
        let (position, _) = queue.suspects.iter().enumerate().min_by_key(|(_, waiting)| waiting.order())?;
        let waiting = queue.suspects.swap_remove(position);
        let charge = self.begin_call(crew, name)?;
        self.alone = Alone::UnderWay(match self.alone {
            Alone::Waited(since) => since,
            _ => now,
        });
        // There is one of these at a time, which waits for nobody.
        let (results, bytes) = (Arc::clone(&self.queues.get(name)?.results), plugin.manifest.limits.result_bytes_max());
        results.take_anyway(bytes);
        let room = Permit::of_taken(results, bytes);
        Some(NextCall { waiting, plugin, charge, room })
    }
}

impl Waiting {
    /// Those whom fewer hosts have ended under come first: the innocent are cleared before the guilty takes it down again.
    fn order(&self) -> (u32, i64, Arc<str>) {
        (self.run.crashes, self.run.seq.0, Arc::clone(&self.run.plugin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_suspect_waits_for_calls_under_way_and_then_has_the_host_for_itself() {
        let plugin: Arc<str> = "orders".into();
        let check = |alone: Alone, others, unfinished, now, expected: (Alone, Turn)| {
            assert_eq!(alone.turn(Arc::clone(&plugin), others, unfinished, at(now)), expected);
        };
        let suspect = Turn::Suspect("orders".into());
        check(Alone::No, true, 0, 5, (Alone::UnderWay(at(5)), suspect.clone()));
        check(Alone::No, true, 2, 5, (Alone::Waited(at(5)), Turn::Nobody));
        check(Alone::Waited(at(5)), true, 1, 7, (Alone::Waited(at(5)), Turn::Nobody));
        check(Alone::Waited(at(5)), true, 0, 8, (Alone::UnderWay(at(5)), suspect.clone()));
        check(Alone::UnderWay(at(5)), true, 0, 9, (Alone::UnderWay(at(5)), Turn::Nobody));
        check(Alone::NotBefore(at(11)), true, 3, 10, (Alone::NotBefore(at(11)), Turn::Everyone));
        check(Alone::NotBefore(at(11)), false, 3, 10, (Alone::Waited(at(10)), Turn::Nobody));
        check(Alone::NotBefore(at(11)), true, 0, 11, (Alone::UnderWay(at(11)), suspect));
    }

    #[test]
    fn the_others_have_as_long_as_they_have_waited() {
        let mut alone = Alone::UnderWay(at(5));
        assert!(alone.end(|| at(8)));
        assert_eq!(alone, Alone::NotBefore(at(11)));
        assert!(!alone.end(|| at(9)), "the end of any other call changes nothing");
        assert_eq!(alone, Alone::NotBefore(at(11)));
    }
}
