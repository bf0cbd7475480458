//! What a connection is doing, so that the one which waits longest can give way: one word that its task writes and the
//! listener reads, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a connection is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// For the next request: nothing of it has come.
    Idle,
    /// For the rest of a request's head.
    Head,
    /// For the client, in the middle of a request: for its body.
    Body,
    /// For the host.
    Host,
    /// For nothing: it has given way.
    Gone,
}

const PHASES: [Phase; 5] = [Phase::Idle, Phase::Head, Phase::Body, Phase::Host, Phase::Gone];
/// The bits that the phase takes; the others are milliseconds of the monotonic clock.
const PHASE_BITS: u32 = 3;

/// One connection's phase, and since when.
#[derive(Debug)]
pub(super) struct Life(AtomicU64);

/// What was seen of a [`Life`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen(u64);

impl Life {
    /// A connection whose first request has yet to come.
    pub(super) fn new(now: Duration) -> Self {
        Self(AtomicU64::new(Seen::of(Phase::Head, now).0))
    }

    /// Goes on to another phase; `false` where it has given way before.
    pub(super) fn enter(&self, phase: Phase, now: Duration) -> bool {
        let entered = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            (Seen(word).phase() != Phase::Gone).then_some(Seen::of(phase, now).0)
        });
        entered.is_ok()
    }

    /// How it is now.
    pub(super) fn look(&self) -> Seen {
        Seen(self.0.load(Ordering::Acquire))
    }

    /// Makes it give way; `false` where it is no longer as it was `seen`.
    pub(super) fn give_way(&self, seen: Seen) -> bool {
        let gone = Seen::of(Phase::Gone, Duration::ZERO).0;
        self.0.compare_exchange(seen.0, gone, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Seen {
    fn of(phase: Phase, now: Duration) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> PHASE_BITS);
        Self((millis << PHASE_BITS) | phase as u64)
    }

    /// What it is waiting for.
    pub(super) fn phase(self) -> Phase {
        let index = usize::try_from(self.0 & ((1 << PHASE_BITS) - 1)).unwrap_or_default();
        PHASES.get(index).copied().unwrap_or(Phase::Gone)
    }

    fn age(self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_millis(self.0 >> PHASE_BITS))
    }
}

/// How long a connection is left alone: what has just been opened is about to send its request.
pub(super) const GRACE: Duration = Duration::from_millis(20);
/// The same, in the middle of a request.
pub(super) const BODY_GRACE: Duration = Duration::from_secs(1);

/// Which of these gives way, if any may: the one that waits longest for a request, else for a body.
pub(super) fn victim<K: Copy>(lives: impl Iterator<Item = (K, Seen)>, now: Duration) -> Option<(K, Seen)> {
    let may = lives.filter_map(|(key, seen)| {
        let (rank, grace) = match seen.phase() {
            Phase::Idle | Phase::Head => (1, GRACE),
            Phase::Body => (0, BODY_GRACE),
            Phase::Host | Phase::Gone => return None,
        };
        let age = seen.age(now);
        (age >= grace).then_some(((rank, age), (key, seen)))
    });
    may.max_by_key(|(order, _)| *order).map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_longest_wait_for_a_request_gives_way_first() {
        let check = |lives: &[(Phase, u64)], expected: Option<usize>| {
            let seen = lives.iter().enumerate().map(|(index, (phase, since))| (index, Seen::of(*phase, ms(*since))));
            assert_eq!(victim(seen, ms(10_000)).map(|(index, _)| index), expected, "{lives:?}");
        };
        check(&[], None);
        check(&[(Phase::Idle, 9000), (Phase::Head, 8000), (Phase::Idle, 8500)], Some(1));
        check(&[(Phase::Body, 0), (Phase::Idle, 9900)], Some(1));
        check(&[(Phase::Body, 5000), (Phase::Body, 6000), (Phase::Host, 0)], Some(0));
        check(&[(Phase::Host, 0), (Phase::Gone, 0)], None);
        check(&[(Phase::Head, 9990), (Phase::Body, 9100)], None);
    }

    #[test]
    fn what_has_gone_on_or_given_way_is_left_alone() {
        let life = Life::new(ms(5));
        let seen = life.look();
        assert!(life.enter(Phase::Host, ms(6)));
        assert!(!life.give_way(seen));
        let seen = life.look();
        assert!(life.give_way(seen));
        assert!(!life.enter(Phase::Host, ms(7)));
        assert_eq!(life.look().phase(), Phase::Gone);
    }
}
