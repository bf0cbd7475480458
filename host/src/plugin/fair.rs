//! Pure: whose turn it is among plugins that have work, by the time they consumed.

use std::time::Duration;

/// One plugin's share of the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Time consumed, with an estimate for calls under way. Only differences between plugins mean anything.
    consumed: Duration,
    /// What a call takes: the mean of recent calls, the newest weighing an eighth.
    typical: Duration,
    /// Calls under way.
    running: usize,
}

/// A call longer than this makes its plugin leave one worker to the others.
const QUICK_CALL_MAX: Duration = Duration::from_millis(5);

impl Share {
    /// Whether the plugin may start another call on one of `workers`.
    ///
    /// A plugin with long calls never holds all of the workers, where there is more than one, so that the others wait
    /// for one of their own calls at most and never for its deadline.
    pub(super) fn may_start(&self, workers: usize) -> bool {
        let limit = if self.typical > QUICK_CALL_MAX { workers.saturating_sub(1).max(1) } else { workers };
        self.running < limit
    }

    /// A plugin that was idle gets no credit for it: it joins at `floor`, the least consumed of those with work.
    pub(super) fn join(&mut self, floor: Duration) {
        self.consumed = self.consumed.max(floor);
    }

    /// A call begins: its plugin is charged what calls typically take, so that two workers don't both choose it.
    /// Returns the charge, for [`Self::finish`].
    pub(super) fn start(&mut self) -> Duration {
        self.running += 1;
        self.consumed += self.typical;
        self.typical
    }

    /// A call that was charged `charge` took `took`.
    pub(super) fn finish(&mut self, charge: Duration, took: Duration) {
        self.running = self.running.saturating_sub(1);
        self.consumed = self.consumed.saturating_sub(charge) + took;
        self.typical = self.typical - self.typical / 8 + took / 8;
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
            shares[next].finish(charge, costs[next]);
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
    fn long_calls_leave_a_worker_free() {
        let mut share = Share::default();
        assert!(share.may_start(2));
        for _ in 0..8 {
            let charge = share.start();
            share.finish(charge, 100 * MS);
        }
        share.start();
        assert!(!share.may_start(2));
        assert!(share.may_start(3));
        assert!(Share::default().may_start(1));
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut share = Share::default();
        share.join(Duration::from_secs(5));
        assert_eq!(share.consumed(), Duration::from_secs(5));
    }

    #[test]
    fn two_workers_do_not_both_choose_the_plugin_that_was_last_cheap() {
        let mut slow = Share::default();
        let charge = slow.start();
        slow.finish(charge, 80 * MS);
        let before = slow.consumed();
        slow.start();
        assert!(slow.consumed() > before);
    }
}
