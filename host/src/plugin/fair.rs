//! Pure: whose turn it is among plugins that have work, by the time they consumed.

use std::time::Duration;

/// One plugin's share of the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Time consumed, with an estimate for calls under way. Only differences between plugins mean anything.
    consumed: Duration,
    /// What a call may take in CPU time: rises at once to the longest, falls by an eighth with each call that is shorter.
    typical: Duration,
    /// Calls under way.
    running: usize,
}

/// A call longer than this counts as long.
const QUICK_CALL_MAX: Duration = Duration::from_millis(5);

/// How many times its CPU time a quick call may take on a machine that is busy, and still be a quick one: where others have
/// the cores, a call of a tenth of a millisecond now and then takes tens. A plugin that waits counts as one of long calls
/// from so many times [`QUICK_CALL_MAX`] on.
const DELAY_FACTOR_MAX: u32 = 8;

impl Default for Share {
    /// A plugin that was never called counts as one of long calls until it has shown that it is quick.
    fn default() -> Self {
        Self { consumed: Duration::ZERO, typical: 2 * QUICK_CALL_MAX, running: 0 }
    }
}

/// Whether a call of typically `typical` may start on one of `workers`, of which `long_running` have long calls.
///
/// Long calls, of whichever plugins, never hold all of the workers, where there is more than one: so a plugin of quick
/// calls waits for quick calls at most, and never for another's deadline.
pub(super) fn may_start(typical: Duration, long_running: usize, workers: usize) -> bool {
    !is_long(typical) || long_running < workers.saturating_sub(1).max(1)
}

/// Whether another call of a plugin may start beside the `running` ones, of which it may have `at_once_max`.
pub(super) fn may_join(running: usize, at_once_max: usize) -> bool {
    running < at_once_max.max(1)
}

/// Whether a call of typically `typical` counts as long.
pub(super) fn is_long(typical: Duration) -> bool {
    typical > QUICK_CALL_MAX
}

impl Share {
    /// What a call may take.
    pub(super) fn typical(&self) -> Duration {
        self.typical
    }

    /// A plugin that was idle gets no credit for it: it joins at `turn_at`, the most that anyone had consumed at their turn.
    pub(super) fn join(&mut self, turn_at: Duration) {
        self.consumed = self.consumed.max(turn_at);
    }

    /// A call begins: its plugin is charged what calls typically take, so that two workers don't both choose it.
    /// Returns the charge, for [`Self::finish`].
    pub(super) fn start(&mut self) -> Duration {
        self.running += 1;
        self.consumed += self.typical;
        self.typical
    }

    /// A call that was charged `charge` took `took`, and `cpu` of CPU time.
    pub(super) fn finish(&mut self, charge: Duration, took: Duration, cpu: Duration) {
        self.running = self.running.saturating_sub(1);
        self.consumed = self.consumed.saturating_sub(charge) + took;
        let length = cpu.max(took / DELAY_FACTOR_MAX);
        self.typical = length.max(self.typical - self.typical / 8);
    }

    /// The order in which plugins come: the least consumed first.
    pub(super) fn consumed(&self) -> Duration {
        self.consumed
    }

    /// Calls under way.
    pub(super) fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Lets one worker always serve the least consumed; returns how often each plugin ran in `total` time.
    fn serve(costs: &[Duration], total: Duration) -> Vec<Duration> {
        let mut shares = vec![Share::default(); costs.len()];
        let mut used = vec![Duration::ZERO; costs.len()];
        let mut time = Duration::ZERO;
        while time < total {
            let next = (0..shares.len()).min_by_key(|&i| shares[i].consumed()).expect("there are plugins");
            let charge = shares[next].start();
            shares[next].finish(charge, costs[next], costs[next]);
            used[next] += costs[next];
            time += costs[next];
        }
        used
    }

    #[test]
    fn a_plugin_of_long_calls_gets_no_more_time_than_one_of_short_calls() {
        let used = serve(&[100 * MS, MS / 50], Duration::from_secs(10));
        let difference = used[0].abs_diff(used[1]);
        assert!(difference <= 100 * MS, "{used:?}");
    }

    #[test]
    fn calls_at_once_are_bounded_and_never_none() {
        let check = |running, at_once_max, expected| {
            assert_eq!(may_join(running, at_once_max), expected, "{running} of {at_once_max}");
        };
        check(0, 1, true);
        check(1, 1, false);
        check(1, 2, true);
        check(3, 2, false);
        check(0, 0, true);
    }

    #[test]
    fn long_calls_leave_a_worker_free() {
        let check = |typical, long_running, workers, expected| {
            assert_eq!(may_start(typical, long_running, workers), expected, "{typical:?} {long_running}/{workers}");
        };
        check(100 * MS, 0, 2, true);
        check(100 * MS, 1, 2, false);
        check(100 * MS, 1, 3, true);
        check(MS, 1, 2, true);
        check(100 * MS, 0, 1, true);
    }

    #[test]
    fn one_long_call_is_remembered_and_quick_ones_are_proven() {
        let mut share = Share::default();
        assert!(is_long(share.typical()), "nothing is proven yet");
        let call = |share: &mut Share, took| {
            let charge = share.start();
            share.finish(charge, took, took);
        };
        (0..8).for_each(|_| call(&mut share, MS / 50));
        assert!(!is_long(share.typical()));
        call(&mut share, 100 * MS);
        (0..8).for_each(|_| call(&mut share, MS / 50));
        assert!(is_long(share.typical()));
    }

    #[test]
    fn a_quick_call_that_had_to_wait_for_a_core_is_no_long_one_and_one_that_sleeps_is() {
        let mut share = Share::default();
        let mut call = |took, cpu| {
            let charge = share.start();
            share.finish(charge, took, cpu);
            is_long(share.typical())
        };
        for _ in 0..8 {
            call(MS / 50, MS / 50);
        }
        assert!(!call(30 * MS, MS / 50), "the machine was busy");
        assert!(call(1_000 * MS, MS / 50), "it held a worker for a second");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut share = Share::default();
        for (turn_at, expected) in [(5, 5), (3, 5), (9, 9)] {
            share.join(Duration::from_secs(turn_at));
            assert_eq!(share.consumed(), Duration::from_secs(expected));
        }
    }

    #[test]
    fn two_workers_do_not_both_choose_the_plugin_that_was_last_cheap() {
        let mut slow = Share::default();
        let charge = slow.start();
        slow.finish(charge, 80 * MS, 80 * MS);
        let before = slow.consumed();
        slow.start();
        assert!(slow.consumed() > before);
    }
}
