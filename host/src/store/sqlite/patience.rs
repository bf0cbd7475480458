//! How long a transaction is kept open for completions of the runs that it has announced.
//!
//! A completion that misses it waits for a whole commit, so that waiting as long as a commit takes costs twice what
//! knowing the future would, at worst (the ski rental problem). A plugin whose completions come too late is not waited
//! for, in ever more transactions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// No transaction waits longer: whatever else is in it waits too.
const WAIT_MAX: Duration = Duration::from_millis(2);

/// Transactions that do not wait for a plugin after one that waited in vain: twice as many each time, and so many at most.
const SKIPPED_MAX: u32 = 64;

/// Of what commits took lately, so much is forgotten with each: one that had nothing to write says little.
const FORGOTTEN: u32 = 8;

/// What transactions have come to, and what the present one waits for.
#[derive(Default, Debug)]
pub(super) struct Patience {
    commit: Duration,
    /// By name; as many as were ever announced.
    plugins: HashMap<Arc<str>, Plugin>,
    awaited: usize,
}

#[derive(Default, Debug)]
struct Plugin {
    /// Transactions to be skipped after the next that waits in vain.
    skips: u32,
    skipping: u32,
    announced: usize,
    completed: usize,
    is_awaited: bool,
}

impl Patience {
    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.awaited = 0;
        for plugin in self.plugins.values_mut() {
            (plugin.announced, plugin.completed) = (0, 0);
        }
    }

    /// A run of this transaction's was announced.
    pub(super) fn announced(&mut self, name: &Arc<str>) {
        let plugin = self.plugins.entry(Arc::clone(name)).or_default();
        if plugin.announced == 0 {
            plugin.is_awaited = plugin.skipping == 0;
            plugin.skipping = plugin.skipping.saturating_sub(1);
        }
        plugin.announced += 1;
        self.awaited += usize::from(plugin.is_awaited);
    }

    /// A run of this transaction's has ended its try.
    pub(super) fn completed(&mut self, name: &str) {
        if let Some(plugin) = self.plugins.get_mut(name).filter(|plugin| plugin.completed < plugin.announced) {
            plugin.completed += 1;
            self.awaited -= usize::from(plugin.is_awaited);
        }
    }

    /// Whether this transaction waits for something.
    pub(super) fn is_waiting(&self) -> bool {
        self.awaited > 0
    }

    /// How long it waits at most.
    pub(super) fn wait(&self) -> Duration {
        self.commit.min(WAIT_MAX)
    }

    /// It waits no more; `is_late` says that it has waited to the end. Plugins of which half came are waited for again; of
    /// one that was cut short, nothing is known of those of which less came.
    pub(super) fn waited(&mut self, is_late: bool) {
        for plugin in self.plugins.values_mut().filter(|plugin| plugin.announced > 0 && plugin.is_awaited) {
            if plugin.completed * 2 >= plugin.announced {
                (plugin.skipping, plugin.skips) = (0, 0);
            } else if is_late {
                plugin.skipping = plugin.skips;
                plugin.skips = (plugin.skips * 2).clamp(1, SKIPPED_MAX);
            }
        }
    }

    /// A commit took so long.
    pub(super) fn committed(&mut self, took: Duration) {
        self.commit = took.max(self.commit - self.commit / FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_millis(1);

    #[test]
    fn a_wait_is_as_long_as_commits_take_and_bounded() {
        let mut patience = Patience::default();
        assert_eq!(patience.wait(), Duration::ZERO, "nothing is known yet");
        patience.committed(COMMIT);
        assert_eq!(patience.wait(), COMMIT);
        patience.committed(Duration::ZERO);
        assert_eq!(patience.wait(), COMMIT * 7 / 8, "an empty commit is no quick disk");
        patience.committed(Duration::from_secs(1));
        assert_eq!(patience.wait(), WAIT_MAX);
    }

    /// A transaction of a run of each plugin; those that are `quick` are completed in it. Whether it waited in vain for any.
    fn transaction(patience: &mut Patience, plugins: &[Arc<str>], quick: &[&str]) -> bool {
        patience.begin();
        plugins.iter().for_each(|plugin| patience.announced(plugin));
        quick.iter().for_each(|plugin| patience.completed(plugin));
        let in_vain = patience.is_waiting();
        // As the writer says it: where everything came, the end was not waited for.
        patience.waited(in_vain);
        in_vain
    }

    #[test]
    fn a_slow_plugin_is_waited_for_ever_less_often_and_again_once_it_is_quick() {
        let (mut patience, plugins) = (Patience::default(), ["slow".into(), "quick".into()]);
        let in_vain = (0..10_000).filter(|_| transaction(&mut patience, &plugins, &["quick"])).count();
        assert!((150..170).contains(&in_vain), "one in 65: {in_vain}");
        for _ in 0..=SKIPPED_MAX {
            transaction(&mut patience, &plugins, &["quick", "slow"]);
        }
        assert!((0..2).all(|_| transaction(&mut patience, &plugins, &["quick"])), "it had been trusted again");
    }

    #[test]
    fn it_ends_with_the_last_that_is_awaited() {
        let (mut patience, plugin) = (Patience::default(), Arc::from("orders"));
        patience.begin();
        (0..3).for_each(|_| patience.announced(&plugin));
        let waiting: Vec<_> = (0..4).map(|_| (patience.is_waiting(), patience.completed("orders")).0).collect();
        assert_eq!(waiting, [true, true, true, false]);
        patience.completed("another");
        patience.begin();
        assert!(!patience.is_waiting());
    }
}
