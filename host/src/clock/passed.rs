//! Time that has passed: a clock that nobody sets and that a store keeps over restarts. What is deleted by its age is deleted
//! by this one, since a wall clock that jumps ahead by a month would delete a month's worth at once.
//!
//! While the machine runs it is `CLOCK_BOOTTIME`, which goes on while the machine sleeps and while no host runs. The time for
//! which the machine was off can only be had from the wall clock. It counts where the kernel says that the wall clock is
//! synchronised to a reference (`adjtimex`), at both ends; else it counts for nothing: data is kept for too long by that
//! time rather than deleted too early.

use std::sync::Arc;
use std::time::Duration;

use super::{CLOCK_STEP_MIN, Timestamp};

/// A moment of a store's own clock, in milliseconds. It began with the wall clock's time when the store was made; since then
/// only time that passes has moved it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Passed(pub i64);

impl Passed {
    /// This moment moved earlier by `age`; saturates at the beginning of time.
    pub fn minus(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(millis(age)))
    }

    fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

/// What a machine's clocks show at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Tells this start of the machine from every other; empty where nothing does.
    pub boot: Arc<str>,
    /// Since then, the machine's sleep included.
    pub since_boot: Duration,
    /// The wall clock.
    pub wall: Timestamp,
    /// Whether the kernel says that the wall clock follows a reference. A clock that somebody sets does not.
    pub is_synchronised: bool,
}

/// What a store keeps of its clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// What it showed…
    pub at: Passed,
    /// …when the machine's clocks showed this.
    pub reading: Reading,
}

/// For how long a wall clock was ahead of a store's clock by the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// From when on.
    pub from: Passed,
    /// Wall clock less store's clock, in milliseconds.
    pub ahead_ms: i64,
}

impl Stretch {
    fn wall(self, at: Passed) -> Timestamp {
        Timestamp(at.0.saturating_add(self.ahead_ms))
    }
}

/// The stretches that are remembered; older ones are taken together.
pub const STRETCHES_MAX: usize = 256;

/// The time that has passed, and how the wall clock was set meanwhile.
#[derive(Clone, Debug)]
pub struct PassedClock {
    /// What it showed at `origin`.
    base: Passed,
    /// On `CLOCK_BOOTTIME`.
    origin: Duration,
    /// When the machine was on last, by a wall clock that was right, where it is not known yet for how long it was off.
    off_since: Option<Timestamp>,
    /// Oldest first; never empty.
    stretches: Vec<Stretch>,
}

impl PassedClock {
    /// The clock of a store that is new.
    pub fn new(reading: &Reading) -> Self {
        let base = Passed(reading.wall.0);
        let stretches = vec![Stretch { from: base, ahead_ms: 0 }];
        Self { base, origin: reading.since_boot, off_since: None, stretches }
    }

    /// The clock of a store that kept this.
    pub fn resume(kept: &Kept, stretches: Vec<Stretch>, reading: &Reading) -> Self {
        let known = !reading.boot.is_empty();
        let same_boot = known && kept.reading.boot == reading.boot && kept.reading.since_boot <= reading.since_boot;
        let off_since = Some(kept.reading.wall).filter(|_| !same_boot && kept.reading.is_synchronised);
        let origin = if same_boot { kept.reading.since_boot } else { reading.since_boot };
        let mut resumed = Self { base: kept.at, origin, off_since, stretches };
        if resumed.stretches.is_empty() {
            resumed.stretches.push(Stretch { from: kept.at, ahead_ms: ahead(kept.reading.wall, kept.at) });
        }
        resumed.look(reading);
        resumed
    }

    /// The time that has passed, at a reading of `CLOCK_BOOTTIME`.
    pub fn at(&self, since_boot: Duration) -> Passed {
        self.base.plus(since_boot.saturating_sub(self.origin))
    }

    /// Notes what the machine's clocks show; what a store is to keep of it.
    pub fn look(&mut self, reading: &Reading) -> Kept {
        if reading.is_synchronised
            && let Some(since) = self.off_since.take()
        {
            let on = reading.since_boot.saturating_sub(self.origin);
            self.base = self.base.plus(reading.wall.since(since).saturating_sub(on));
        }
        let at = self.at(reading.since_boot);
        let ahead_ms = ahead(reading.wall, at);
        let is_step = |last: &Stretch| last.ahead_ms.abs_diff(ahead_ms) >= CLOCK_STEP_MIN.as_millis() as u64;
        if self.stretches.last().is_none_or(is_step) {
            self.stretches.push(Stretch { from: at, ahead_ms });
            self.forget_old();
        }
        Kept { at, reading: reading.clone() }
    }

    /// How the wall clock was set, oldest first: [`STRETCHES_MAX`] at most.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// What the wall clock showed at no moment of the last `age`, nor shows: whatever it stamped then or since is not before
    /// it. So what was stamped earlier is older than `age`, however the wall clock was set meanwhile.
    pub fn wall_before(&self, age: Duration, reading: &Reading) -> Timestamp {
        let since = self.at(reading.since_boot).minus(age);
        let later = self.stretches.partition_point(|stretch| stretch.from <= since);
        // Before the first one is known, the wall clock is taken to have been right.
        let then = self.stretches[later.saturating_sub(1)].wall(since);
        self.stretches[later.max(1)..]
            .iter()
            .map(|stretch| stretch.wall(stretch.from))
            .fold(then.min(reading.wall), Ord::min)
    }

    /// Two that are taken together show the earlier of both times, so that what was stamped is taken for younger.
    fn forget_old(&mut self) {
        while self.stretches.len() > STRETCHES_MAX {
            let second = self.stretches.remove(1);
            let first = &mut self.stretches[0];
            first.ahead_ms = first.ahead_ms.min(second.ahead_ms);
        }
    }
}

fn ahead(wall: Timestamp, at: Passed) -> i64 {
    wall.0.saturating_sub(at.0)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
