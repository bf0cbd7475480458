//! Pure: an endpoint's circuit breaker. It keeps a broken endpoint's deliveries from spending their attempts.
//!
//! *Closed*: attempts begin as they come. It *opens* when too many of a window's attempts failed: nothing begins for a
//! while. Then it *probes*: one attempt at a time, until enough in a row succeed and it closes, or one fails and it opens
//! for longer. Moments are those of a clock that never goes back.

use std::time::Duration;

/// Probes that must succeed in a row for the breaker to close.
pub const PROBES_TO_CLOSE: u32 = 3;

/// What the open time is multiplied by when a probe fails.
const OPEN_GROWTH: u32 = 2;

/// Parts of the window; the oldest is forgotten as a whole.
const SLOTS: usize = 10;

/// When an endpoint's breaker opens, and for how long.
#[derive(Clone, PartialEq, Debug)]
pub struct BreakerPolicy {
    /// It opens when this share of the window's attempts failed; above 0, 1 at most.
    pub failure_ratio: f64,
    /// And there were at least so many attempts; at least 1.
    pub min_attempts: u32,
    /// How far back attempts count.
    pub window: Duration,
    /// How long it is open at first.
    pub open: Duration,
    /// How long it is open at most.
    pub max_open: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failure_ratio: 0.5,
            min_attempts: 20,
            window: Duration::from_mins(1),
            open: Duration::from_secs(5),
            max_open: Duration::from_mins(5),
        }
    }
}

/// Whether an attempt may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// It may.
    Now,
    /// Not before this moment.
    At(Duration),
    /// Not before something changes, which whoever changes it tells.
    WhenTold,
}

/// Says which attempt ended: one that began before the breaker changed says nothing about it any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "an attempt that began must end, or the breaker waits for its probe for ever"]
pub struct Ticket {
    epoch: u64,
}

/// What an attempt says about its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sign {
    /// It works.
    Well,
    /// It does not.
    Ill {
        /// How long it asked to be left alone.
        asked: Option<Duration>,
    },
    /// Nothing: the attempt failed for a reason of the host's own.
    None,
}

/// What an attempt's end changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing begins for so long.
    Opened(Duration),
    /// Attempts begin as they come.
    Closed,
}

/// Where a breaker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Attempts begin as they come.
    Closed,
    /// Nothing begins until then.
    Open {
        /// When probing begins.
        until: Duration,
    },
    /// One attempt at a time.
    Probing {
        /// Whether one is under way.
        under_way: bool,
        /// How many succeeded so far.
        succeeded: u32,
    },
}

/// A breaker, closed at first.
#[derive(Clone, PartialEq, Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    phase: Phase,
    window: Window,
    closed_at: Duration,
    open_next: Duration,
    epoch: u64,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    pub fn new(policy: BreakerPolicy) -> Self {
        let (window, open_next) = (Window::default(), policy.open);
        Self { policy, phase: Phase::Closed, window, closed_at: Duration::ZERO, open_next, epoch: 0 }
    }

    /// Where it is. An open one probes as soon as something begins after its time.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether an attempt may begin.
    pub fn pass(&self, now: Duration) -> Pass {
        match self.phase {
            Phase::Open { until } if now < until => Pass::At(until),
            Phase::Probing { under_way: true, .. } => Pass::WhenTold,
            Phase::Closed | Phase::Open { .. } | Phase::Probing { .. } => Pass::Now,
        }
    }

    /// An attempt begins that may.
    pub fn begin(&mut self) -> Ticket {
        match &mut self.phase {
            Phase::Closed => {}
            Phase::Open { .. } => self.turn(Phase::Probing { under_way: true, succeeded: 0 }),
            Phase::Probing { under_way, .. } => *under_way = true,
        }
        Ticket { epoch: self.epoch }
    }

    /// An attempt ended.
    pub fn ended(&mut self, ticket: Ticket, sign: Sign, now: Duration) -> Option<Change> {
        if ticket.epoch != self.epoch {
            return None;
        }
        match (self.phase, sign) {
            (Phase::Closed, Sign::None) | (Phase::Open { .. }, _) => None,
            (Phase::Closed, Sign::Well) => {
                self.window.count(now, self.policy.window, false);
                None
            }
            (Phase::Closed, Sign::Ill { asked }) => {
                self.window.count(now, self.policy.window, true);
                self.is_too_ill().then(|| self.open(asked, now))
            }
            (Phase::Probing { succeeded, .. }, Sign::None) => {
                self.phase = Phase::Probing { under_way: false, succeeded };
                None
            }
            (Phase::Probing { succeeded, .. }, Sign::Well) if succeeded + 1 < PROBES_TO_CLOSE => {
                self.phase = Phase::Probing { under_way: false, succeeded: succeeded + 1 };
                None
            }
            (Phase::Probing { .. }, Sign::Well) => {
                self.window = Window::default();
                self.closed_at = now;
                self.turn(Phase::Closed);
                Some(Change::Closed)
            }
            (Phase::Probing { .. }, Sign::Ill { asked }) => Some(self.open(asked, now)),
        }
    }

    /// Closed again, as if nothing had been.
    pub fn reset(&mut self, now: Duration) {
        self.window = Window::default();
        self.closed_at = now;
        self.open_next = self.policy.open;
        self.turn(Phase::Closed);
    }

    fn is_too_ill(&self) -> bool {
        let (attempts, failures) = self.window.sums();
        attempts >= self.policy.min_attempts && f64::from(failures) >= self.policy.failure_ratio * f64::from(attempts)
    }

    fn open(&mut self, asked: Option<Duration>, now: Duration) -> Change {
        // Closed for a whole window: what was before is forgotten.
        if self.phase == Phase::Closed && now.saturating_sub(self.closed_at) >= self.policy.window {
            self.open_next = self.policy.open;
        }
        let open_for = self.open_next.max(asked.unwrap_or_default()).min(self.policy.max_open);
        self.open_next = self.open_next.saturating_mul(OPEN_GROWTH).min(self.policy.max_open);
        self.turn(Phase::Open { until: now.saturating_add(open_for) });
        Change::Opened(open_for)
    }

    /// Attempts that began before say nothing from here on.
    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}

/// The attempts of the last while, in [`SLOTS`] parts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Window {
    slots: [Slot; SLOTS],
    /// The number of the newest part since the clock's origin.
    newest: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Slot {
    attempts: u32,
    failures: u32,
}

impl Window {
    fn count(&mut self, now: Duration, window: Duration, failed: bool) {
        let part_ns = (window.as_nanos() / SLOTS as u128).max(1);
        let number = u64::try_from(now.as_nanos() / part_ns).unwrap_or(u64::MAX);
        let passed = number.saturating_sub(self.newest).min(SLOTS as u64);
        for step in 1..=passed {
            self.slots[index(self.newest.saturating_add(step))] = Slot::default();
        }
        // All of them are empty where more parts passed than there are.
        self.newest = self.newest.max(number);
        let slot = &mut self.slots[index(self.newest)];
        slot.attempts = slot.attempts.saturating_add(1);
        slot.failures = slot.failures.saturating_add(u32::from(failed));
    }

    fn sums(&self) -> (u32, u32) {
        self.slots.iter().fold((0, 0), |(attempts, failures), slot| {
            (u32::saturating_add(attempts, slot.attempts), u32::saturating_add(failures, slot.failures))
        })
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests;
