//! Time as an argument. Only this file reads the machine's clocks; everything else is given a [`Clock`].

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub mod passed;

use passed::Reading;

/// A moment of the wall clock: milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whole seconds since the Unix epoch, rounded down: what signatures carry.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment moved later by `duration`; saturates at the end of time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This moment moved earlier by `duration`; saturates at the beginning of time.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => write!(f, "{} ms since the Unix epoch", self.0),
        }
    }
}

/// A wall clock that is found off by less than this runs slow or fast, and was not set.
pub const CLOCK_STEP_MIN: Duration = Duration::from_secs(1);

/// The clocks can't be read at once; what was read with more than this between is not compared.
const READING_MAX: Duration = Duration::from_millis(250);

/// How a wall clock was set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockStep {
    /// Back, by so much.
    Back(Duration),
    /// Forward, by so much.
    Forward(Duration),
}

/// Tells a wall clock that is set from one that goes on, by a clock that only goes on.
#[derive(Clone, Copy, Debug)]
pub struct StepWatch {
    last: Option<(Timestamp, Duration)>,
}

impl StepWatch {
    /// Begins with what both clocks show.
    pub fn new(clock: &dyn Clock) -> Self {
        let mut watch = Self { last: None };
        watch.look(clock);
        watch
    }

    /// How the wall clock was set since the last look, if it was.
    pub fn look(&mut self, clock: &dyn Clock) -> Option<ClockStep> {
        let (before, now, after) = (clock.monotonic(), clock.now(), clock.monotonic());
        if after.saturating_sub(before) > READING_MAX { None } else { self.compare(now, after) }
    }

    /// Pure. Small differences are slewing, and count together once they are no longer small.
    fn compare(&mut self, now: Timestamp, monotonic: Duration) -> Option<ClockStep> {
        let Some((wall, origin)) = self.last else {
            self.last = Some((now, monotonic));
            return None;
        };
        let expected = wall.plus(monotonic.saturating_sub(origin));
        let (back, forward) = (expected.since(now), now.since(expected));
        if back.max(forward) < CLOCK_STEP_MIN {
            return None;
        }
        self.last = Some((now, monotonic));
        Some(if back > forward { ClockStep::Back(back) } else { ClockStep::Forward(forward) })
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. May jump, forwards and backwards.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary origin; never goes back.
    fn monotonic(&self) -> Duration;

    /// Time since the machine was started, its sleep included; never goes back.
    fn since_boot(&self) -> Duration {
        self.monotonic()
    }

    /// What all of them show, with what is known of the wall clock.
    fn reading(&self) -> Reading {
        Reading { boot: "one".into(), since_boot: self.since_boot(), wall: self.now(), is_synchronised: false }
    }
}

impl fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A shared clock whose monotonic origin is this call.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self { origin: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn since_boot(&self) -> Duration {
        since_boot()
    }

    fn reading(&self) -> Reading {
        static BOOT: LazyLock<Arc<str>> = LazyLock::new(|| boot_id().into());
        let is_synchronised = is_synchronised();
        Reading { boot: Arc::clone(&BOOT), since_boot: since_boot(), wall: self.now(), is_synchronised }
    }
}

/// Where Linux tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What tells this start of the machine from every other. Empty where the system does not say.
pub fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

/// Asked of the kernel itself: a library that shifts the clocks of a process, as for a test, has no say in what is deleted.
fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the whole call, and the call keeps no pointer to it.
    let status = unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_BOOTTIME, &raw mut time) };
    debug_assert_eq!(status, 0, "Linux has this clock since 2.6.39");
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether the kernel says that the wall clock follows a reference, as under an NTP daemon. Where it may not be asked, it
/// does not say so.
fn is_synchronised() -> bool {
    // SAFETY: all zeros are a valid `timex`, and with `modes` of 0 nothing is set.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is valid and writable for the whole call, and the call keeps no pointer to it.
    let status = unsafe { libc::adjtimex(&raw mut state) };
    (0..libc::TIME_ERROR).contains(&status) && state.status & libc::STA_UNSYNC == 0
}

/// A clock that moves only when told, for tests of anything that takes a [`Clock`].
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: std::sync::atomic::AtomicI64,
    /// How far the wall clock was set from there.
    set_ms: std::sync::atomic::AtomicI64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn starting_at(start: Timestamp) -> Arc<Self> {
        let clock = Self::default();
        clock.now_ms.store(start.0, std::sync::atomic::Ordering::SeqCst);
        Arc::new(clock)
    }

    /// Moves the clock forward by `duration`.
    pub fn advance(&self, duration: Duration) {
        let step_ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.now_ms.fetch_add(step_ms, std::sync::atomic::Ordering::SeqCst);
    }

    /// Sets the wall clock forward by so many milliseconds, or back; no time passes.
    pub fn step(&self, by_ms: i64) {
        self.set_ms.fetch_add(by_ms, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let set_ms = self.set_ms.load(std::sync::atomic::Ordering::SeqCst);
        Timestamp(self.now_ms.load(std::sync::atomic::Ordering::SeqCst).saturating_add(set_ms))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now_ms.load(std::sync::atomic::Ordering::SeqCst)).unwrap_or(0))
    }
}

/// CPU time the calling thread has used since it began: what a plugin's deadline is measured in, so that a busy machine
/// costs no plugin its time. Reads as zero where the kernel has no such clock, which leaves the wall cap.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the whole call, and the call keeps no pointer to it.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(status, 0, "the calling thread has a CPU clock");
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_from_one_that_goes_on_and_one_that_runs_slow() {
        let mut watch = StepWatch { last: None };
        let mut check = |wall_ms: i64, passed_ms: u64, expected: Option<ClockStep>| {
            let found = watch.compare(Timestamp(1_000_000 + wall_ms), Duration::from_millis(passed_ms));
            assert_eq!(found, expected, "{wall_ms} after {passed_ms}");
        };
        let hour = Duration::from_secs(3_600);
        check(0, 0, None);
        check(1_000, 1_000, None);
        check(3_602_000, 2_000, Some(ClockStep::Forward(hour)));
        check(3_603_000, 3_000, None);
        check(4_000, 4_000, Some(ClockStep::Back(hour)));
        check(5_000, 5_000, None);
        // Slow by a tenth: told once it comes to a second.
        check(13_100, 14_000, None);
        check(14_000, 15_000, Some(ClockStep::Back(Duration::from_secs(1))));
        check(15_000, 16_000, None);
    }
}
