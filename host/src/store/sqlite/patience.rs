//! How long a transaction is kept open for completions of the runs that it has announced.
//!
//! A completion that misses it waits for a whole commit, so that waiting as long as a commit takes costs twice what
//! knowing the future would, at worst (the ski rental problem). Where plugins take longer than that, waiting is given up
//! for ever more transactions.

use std::time::Duration;

/// No transaction waits longer: whatever else is in it waits too.
const WAIT_MAX: Duration = Duration::from_millis(2);

/// Transactions that do not wait after one that waited in vain: twice as many each time, and so many at most.
const SKIPPED_MAX: u32 = 64;

/// What the last transactions have come to.
#[derive(Default, Debug)]
pub(super) struct Patience {
    commit: Duration,
    /// Transactions to be skipped after the next that waits in vain.
    skips: u32,
    skipping: u32,
}

impl Patience {
    /// How long the next transaction that announced something waits at most; `None` where it does not.
    pub(super) fn wait(&mut self) -> Option<Duration> {
        if self.skipping > 0 {
            self.skipping -= 1;
            return None;
        }
        Some(self.commit.min(WAIT_MAX))
    }

    /// A transaction has waited, and completions `came` or did not.
    pub(super) fn waited(&mut self, came: bool) {
        self.skipping = if came { 0 } else { self.skips };
        self.skips = if came { 0 } else { (self.skips * 2).clamp(1, SKIPPED_MAX) };
    }

    /// A commit took so long.
    pub(super) fn committed(&mut self, commit: Duration) {
        self.commit = commit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_millis(1);

    #[test]
    fn a_wait_is_as_long_as_a_commit_and_bounded() {
        let mut patience = Patience::default();
        assert_eq!(patience.wait(), Some(Duration::ZERO), "nothing is known yet");
        patience.committed(COMMIT);
        assert_eq!(patience.wait(), Some(COMMIT));
        patience.committed(Duration::from_secs(1));
        assert_eq!(patience.wait(), Some(WAIT_MAX));
    }

    #[test]
    fn slow_plugins_are_waited_for_ever_less_often_and_quick_ones_again_at_once() {
        let mut patience = Patience::default();
        patience.committed(COMMIT);
        let mut in_vain = 0;
        for _ in 0..10_000 {
            if patience.wait().is_some() {
                patience.waited(false);
                in_vain += 1;
            }
        }
        assert!((150..170).contains(&in_vain), "one in 65: {in_vain}");
        while patience.wait().is_none() {}
        patience.waited(true);
        assert!((0..100).all(|_| patience.wait() == Some(COMMIT)));
    }
}
