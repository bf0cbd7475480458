//! Pure: how long a lane waits while the way to its endpoint is down for no fault of the endpoint's.
//!
//! A proxy that is down, or what gives tokens, fails for every delivery alike. So the lane waits, and not each delivery by
//! itself: no attempt is spent, nothing goes back and forth between memory and disk, and what failed is not overrun.

use std::time::Duration;

/// The first wait; each further one is twice as long.
pub const DELAY_INITIAL: Duration = Duration::from_secs(1);
/// The longest wait, before jitter.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// Up to this share of a wait is added at random, so that lanes behind one proxy don't come back together.
const JITTER: f64 = 0.1;

/// What a lane knows of the way to its endpoint. Moments are of the clock that never goes back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deferral {
    failures: u32,
    until: Option<Duration>,
}

impl Deferral {
    /// An attempt ended at `now` without having reached the endpoint. Returns how long its delivery waits, and whether
    /// this began a wait: attempts that were under way together fail together, and count as one failure.
    pub fn failed(&mut self, now: Duration, rng: &mut fastrand::Rng) -> (Duration, bool) {
        if let Some(until) = self.until(now) {
            return (until.saturating_sub(now), false);
        }
        let delay = DELAY_INITIAL.saturating_mul(1 << self.failures.min(16)).min(DELAY_MAX);
        let delay = delay + delay.mul_f64(JITTER * rng.f64());
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now.saturating_add(delay));
        (delay, true)
    }

    /// An attempt reached the endpoint, whatever it answered. Returns whether there had been failures.
    pub fn passed(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }

    /// Whether the last attempt did not reach the endpoint.
    pub fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Until when no attempt is made; `None` where there is no reason to wait.
    pub fn until(&self, now: Duration) -> Option<Duration> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_hours(1);

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let (mut deferral, mut rng, mut now) = (Deferral::default(), fastrand::Rng::with_seed(1), NOW);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let (wait, began) = deferral.failed(now, &mut rng);
            assert!(began);
            waits.push(wait);
            now += wait;
        }
        for (wait, seconds) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60]) {
            let least = Duration::from_secs(seconds);
            assert!((least..=least.mul_f64(1.0 + JITTER)).contains(wait), "{waits:?}");
        }
        assert!(deferral.passed() && !deferral.passed());
        assert_eq!(deferral.until(now), None);
        assert!(deferral.failed(now, &mut rng).0 < Duration::from_secs(2));
    }

    #[test]
    fn attempts_that_fail_together_are_one_failure() {
        let (mut deferral, mut rng) = (Deferral::default(), fastrand::Rng::with_seed(1));
        let (wait, _) = deferral.failed(NOW, &mut rng);
        for _ in 0..31 {
            assert_eq!(deferral.failed(NOW, &mut rng), (wait, false));
        }
        assert_eq!(deferral.failures, 1);
    }

    proptest! {
        /// Whatever happens in whatever order: nobody waits longer than the bound, nor past a success.
        #[test]
        fn waits_are_bounded(
            steps in proptest::collection::vec((any::<bool>(), 0..200_000u64), 0..200),
            seed in any::<u64>(),
        ) {
            let (mut deferral, mut rng, mut now) = (Deferral::default(), fastrand::Rng::with_seed(seed), NOW);
            for (fails, later_ms) in steps {
                now += Duration::from_millis(later_ms);
                if fails {
                    let (wait, _) = deferral.failed(now, &mut rng);
                    prop_assert!(!wait.is_zero() && wait <= DELAY_MAX.mul_f64(1.0 + JITTER));
                    prop_assert_eq!(deferral.until(now), Some(now + wait));
                } else {
                    deferral.passed();
                    prop_assert_eq!(deferral.until(now), None);
                }
            }
        }
    }
}
