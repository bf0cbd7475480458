//! Time as a plugin has it: the event's, so that the same event gives the same webhooks at every attempt and replay.
//!
//! The wall clock stands at the event's timestamp. The monotonic one begins at 0 and goes on a little each time it is read,
//! so that a loop until a moment comes to its end. A sleep moves both to its end, and takes no time of the worker's.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use wasmtime_wasi::p2::Pollable;

use crate::event::Event;

/// By how much the monotonic clock goes on each time it is looked at, in nanoseconds.
const LOOK_NANOSECONDS: u64 = 1_000;
/// No timer is wanted.
const NONE: u64 = u64::MAX;

/// The clocks of one event, shared with its timers. Atomic only because timers must be `Send`; one thread uses them.
#[derive(Debug)]
pub(in crate::plugin) struct EventTime {
    /// The event's timestamp, in nanoseconds since the Unix epoch.
    event: AtomicU64,
    /// What the monotonic clock showed when the last sleep ended: how far the wall clock went on.
    slept: AtomicU64,
    /// Nanoseconds since the call began.
    monotonic: AtomicU64,
    /// The earliest moment that a timer which is waited for is due.
    wanted: AtomicU64,
}

/// Due at a moment of the monotonic clock, in nanoseconds.
pub(super) struct Timer {
    time: Arc<EventTime>,
    due: u64,
}

impl EventTime {
    /// The clocks at the beginning of a call for `event`.
    pub(in crate::plugin) fn of(event: &Event) -> Arc<Self> {
        let event = event.timestamp.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let event = event.and_then(|at| u64::try_from(at.as_nanosecond()).ok()).unwrap_or(0);
        Arc::new(Self { event: event.into(), slept: 0.into(), monotonic: 0.into(), wanted: NONE.into() })
    }

    /// Has these clocks, with the timers that are theirs, begin again as `other` stands.
    pub(in crate::plugin) fn begin_as(&self, other: &Self) {
        for (mine, its) in [
            (&self.event, &other.event),
            (&self.slept, &other.slept),
            (&self.monotonic, &other.monotonic),
            (&self.wanted, &other.wanted),
        ] {
            mine.store(its.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The wall clock: time since the Unix epoch.
    pub(super) fn wall(&self) -> Duration {
        Duration::from_nanos(self.event.load(Ordering::Relaxed).saturating_add(self.slept.load(Ordering::Relaxed)))
    }

    /// The monotonic clock, in nanoseconds, which a look moves on.
    pub(super) fn look(&self) -> u64 {
        self.monotonic.fetch_add(LOOK_NANOSECONDS, Ordering::Relaxed)
    }

    /// Moves both clocks on to the earliest timer waited for, if it is within `max` of the call's beginning.
    fn sleep(&self, max: Duration) -> Slept {
        let due = self.wanted.swap(NONE, Ordering::Relaxed);
        if due == NONE {
            return Slept::Not;
        }
        if Duration::from_nanos(due) > max {
            return Slept::TooLong;
        }
        let before = self.monotonic.fetch_max(due, Ordering::Relaxed);
        self.slept.store(due.max(before), Ordering::Relaxed);
        Slept::Until
    }
}

enum Slept {
    /// A timer is due now.
    Until,
    /// There was no timer.
    Not,
    /// The timer is due after the call must end.
    TooLong,
}

/// The sleep would last longer than the call may.
pub(super) struct TooLong;

impl Timer {
    pub(super) fn at(time: &Arc<EventTime>, due: u64) -> Self {
        // As far off as to be never, but a moment all the same.
        Self { time: Arc::clone(time), due: due.min(NONE - 1) }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        poll_fn(|_| {
            if self.time.look() >= self.due {
                return Poll::Ready(());
            }
            self.time.wanted.fetch_min(self.due, Ordering::Relaxed);
            Poll::Pending
        })
        .await;
    }
}

/// Waits for `wait`, and sleeps until the earliest of its timers where nothing else ends it. Sleeps last no longer than
/// `max` from the call's beginning, and take no time.
pub(super) async fn asleep<R>(time: &EventTime, max: Duration, wait: impl Future<Output = R>) -> Result<R, TooLong> {
    let mut wait = std::pin::pin!(wait);
    poll_fn(|context| {
        time.wanted.store(NONE, Ordering::Relaxed);
        loop {
            if let Poll::Ready(done) = wait.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            match time.sleep(max) {
                Slept::Until => {}
                Slept::Not => return Poll::Pending,
                Slept::TooLong => return Poll::Ready(Err(TooLong)),
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::plugin::fixture::event;

    const SECOND: u64 = 1_000_000_000;

    fn at(timestamp: Option<&str>) -> Arc<EventTime> {
        EventTime::of(&Event { timestamp: timestamp.map(str::to_owned), ..event("{}") })
    }

    #[test]
    fn the_wall_clock_stands_at_the_event() {
        let check = |timestamp, expected| assert_eq!(at(timestamp).wall().as_nanos(), expected, "{timestamp:?}");
        check(Some("2026-03-02T14:00:00Z"), 1_772_460_000_000_000_000);
        check(Some("2026-03-02T15:00:00.5+01:00"), 1_772_460_000_500_000_000);
        check(Some("yesterday"), 0);
        check(Some("1900-01-01T00:00:00Z"), 0);
        check(None, 0);
    }

    #[test]
    fn looking_moves_the_monotonic_clock_alone() {
        let time = at(None);
        assert_eq!([time.look(), time.look()], [0, LOOK_NANOSECONDS]);
        assert_eq!(time.wall(), Duration::ZERO);
    }

    fn sleep(time: &Arc<EventTime>, due: &[u64], max: u64) -> Option<bool> {
        let mut timers: Vec<_> = due.iter().map(|due| Timer::at(time, *due)).collect();
        let any = futures::future::select_all(timers.iter_mut().map(|timer| timer.ready()));
        asleep(time, Duration::from_nanos(max), any).now_or_never().map(|slept| slept.is_ok())
    }

    #[test]
    fn a_sleep_ends_at_the_earliest_timer_and_takes_no_time() {
        let time = at(Some("1970-01-01T00:00:10Z"));
        assert_eq!(sleep(&time, &[5 * SECOND, 2 * SECOND], 9 * SECOND), Some(true));
        assert!((2 * SECOND..3 * SECOND).contains(&time.look()));
        assert_eq!(time.wall().as_secs(), 12, "a sleep is never shorter on the wall clock");
    }

    #[test]
    fn a_sleep_over_the_bound_is_refused() {
        let time = at(None);
        assert_eq!(sleep(&time, &[5 * SECOND], 4 * SECOND), Some(false));
        assert!(time.look() < SECOND);
        assert_eq!(sleep(&time, &[u64::MAX], 4 * SECOND), Some(false));
    }
}
