//! Keeps gauges at what the store says. Beside the scrape and not within it: a scrape answers from memory, though the disk
//! hangs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::background::wait;
use crate::budget::Budget;
use crate::dispatcher::Dispatcher;
use crate::drain::Drain;
use crate::metrics::{Metrics, WAITING_STATES};
use crate::plugin::registry::Registry;
use crate::store::{EndpointBacklog, RunCount, Store, StoreError};

/// How old what a scrape shows may be: less than the time between two scrapes, as a rule.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Looks every [`SAMPLE_INTERVAL`].
pub(super) struct Sampler {
    pub(super) store: Arc<dyn Store>,
    pub(super) registry: Arc<Registry>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) endpoints: Vec<Arc<str>>,
    pub(super) metrics: Arc<Metrics>,
    /// The plugins of the last sample.
    pub(super) sampled: BTreeSet<Arc<str>>,
    pub(super) budget: Arc<Budget>,
}

impl Sampler {
    pub(super) async fn run(mut self, drain: Drain) {
        loop {
            self.metrics.memory(&self.budget);
            if let Err(error) = self.sample().await {
                tracing::error!(%error, "the store can't say what waits; metrics of it are old until it can");
            }
            if !wait(SAMPLE_INTERVAL, &drain).await {
                return;
            }
        }
    }

    async fn sample(&mut self) -> Result<(), StoreError> {
        let mut waiting = self.store.waiting(self.endpoints.clone()).await?;
        add_waiting(&self.dispatcher, &mut waiting.endpoints);
        waiting.endpoints.iter().for_each(|backlog| self.metrics.endpoint_backlog(backlog));
        self.metrics.store_size(waiting.size);
        // Runs may wait for a plugin that the host does not know any more, and a plugin may have none.
        let known = self.registry.statuses().into_iter().map(|(plugin, _)| plugin);
        let plugins: BTreeSet<Arc<str>> =
            known.chain(waiting.runs.iter().map(|run| Arc::from(run.plugin.as_str()))).collect();
        // Those that are gone have nothing waiting any more.
        let all: BTreeSet<_> = plugins.union(&self.sampled).cloned().collect();
        self.sampled = plugins;
        for plugin in all {
            let of = |run: &&RunCount, state: &str| run.plugin == *plugin && run.state == state;
            for state in WAITING_STATES {
                let count = waiting.runs.iter().find(|run| of(run, state)).map_or(0, |run| run.count);
                self.metrics.runs_waiting(&plugin, state, count);
            }
        }
        Ok(())
    }
}

/// What waits in memory is older than what waits in the store, as a rule.
pub(super) fn add_waiting(dispatcher: &Dispatcher, backlogs: &mut [EndpointBacklog]) {
    for backlog in backlogs {
        let in_memory = dispatcher.oldest_due(&backlog.endpoint);
        backlog.oldest_due = backlog.oldest_due.into_iter().chain(in_memory).min();
    }
}
