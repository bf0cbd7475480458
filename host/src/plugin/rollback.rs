//! Pure: whether a new build of a plugin fails so much more than the one before it that the one before is better.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::dead_letter::Reason;

/// A new build is not judged by fewer calls than this.
pub const CALLS_MIN: u32 = 20;

/// A new build must fail more often than the one before by this share of its calls.
pub const MARGIN: f64 = 0.2;

/// How many standard deviations the two rates must be apart, so that chance alone does not tell two equal builds apart.
/// The rates are compared at every call, which is why it is more than the usual two or three.
const DEVIATIONS_MIN: f64 = 4.0;

/// What a build that was never called is taken to have done: this many calls without a fault.
const UNCALLED: Counts = Counts { calls: 20, faults: 0 };

/// At so many calls the counts are halved, so that they speak of lately; a new build that got here is kept.
pub const CALLS_MAX: u32 = 10_000;

/// A new build that was not rolled back by then is kept.
pub const PROBATION: Duration = Duration::from_secs(24 * 60 * 60);

/// Calls of one build, and how many of them ended in a fault of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    calls: u32,
    faults: u32,
}

/// What is known of the build that serves. It is kept in the store: a restart changes no verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    counts: Counts,
    probation: Option<Probation>,
}

/// A new build is being compared with the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Probation {
    since: Timestamp,
    before: Counts,
}

/// What one call says of the build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It returned, whatever it returned: `retry` and `reject` are answers.
    Answered,
    /// It trapped or broke a limit.
    Fault,
}

/// What to do after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Go on with this build.
    Serve,
    /// Put the build before it back, and redrive what this one killed ([`killed_by_build`]).
    RollBack,
}

impl Counts {
    fn after(self, outcome: Outcome) -> Self {
        let kept = if self.calls >= CALLS_MAX { Self { calls: self.calls / 2, faults: self.faults / 2 } } else { self };
        Self { calls: kept.calls + 1, faults: kept.faults + u32::from(outcome == Outcome::Fault) }
    }

    fn rate(self) -> f64 {
        f64::from(self.faults) / f64::from(self.calls.max(1))
    }
}

impl Standing {
    /// The standing after another build took this one's place at `now`.
    ///
    /// A build replaced while on probation leaves the earlier one's counts to compare with: what was never found good
    /// is no measure.
    #[must_use]
    pub fn replaced(self, now: Timestamp) -> Self {
        let before = self.probation.map_or(self.counts, |probation| probation.before);
        Self { counts: Counts::default(), probation: Some(Probation { since: now, before }) }
    }

    /// The standing after a call that ended at `now`, and what to do. After [`Verdict::RollBack`] it is the standing of
    /// the build that is put back.
    #[must_use]
    pub fn after(self, outcome: Outcome, now: Timestamp) -> (Self, Verdict) {
        let counts = self.counts.after(outcome);
        let Some(Probation { since, before }) = self.probation else {
            return (Self { counts, probation: None }, Verdict::Serve);
        };
        if worse(counts, before) {
            return (Self { counts: before, probation: None }, Verdict::RollBack);
        }
        let over = counts.calls >= CALLS_MAX || now.since(since) >= PROBATION;
        (Self { counts, probation: self.probation.filter(|_| !over) }, Verdict::Serve)
    }
}

/// Whether a dead letter of this reason is a fault of the build, to be put back to work once the build is rolled back.
pub fn killed_by_build(reason: Reason) -> bool {
    matches!(reason, Reason::PluginTrap | Reason::PluginDeadline | Reason::PluginMemory | Reason::PluginOutput)
}

fn worse(new: Counts, before: Counts) -> bool {
    let before = if before.calls == 0 { UNCALLED } else { before };
    let difference = new.rate() - before.rate();
    if new.calls < CALLS_MIN || difference < MARGIN {
        return false;
    }
    let pooled = f64::from(new.faults + before.faults) / f64::from(new.calls + before.calls);
    let variance = pooled * (1.0 - pooled) * (1.0 / f64::from(new.calls) + 1.0 / f64::from(before.calls));
    difference >= DEVIATIONS_MIN * variance.sqrt()
}

#[cfg(test)]
mod tests;
