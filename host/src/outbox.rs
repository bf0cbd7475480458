//! Completes runs: their deliveries are written in the transaction that ends the run, then handed to the lanes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::sync::mpsc;

use crate::clock::{Clock, Timestamp};
use crate::dead_letter::Reason;
use crate::dispatcher::Dispatcher;
use crate::endpoint::Endpoints;
use crate::metrics::{Metrics, PluginMetrics};
use crate::plugin::pool::{Pool, Ran};
use crate::plugin::state::StateSource;
use crate::plugin::{CallFailure, Plugin};
use crate::store::{
    Claim, ClaimedDelivery, Completed, DeliverySeq, NewDelivery, Place, RunCompletion, RunOutcome, Spends, Store,
    StoreError,
};

pub mod webhook;

/// Runs completed in one call to the store at most.
const BATCH_RUNS_MAX: usize = 256;

/// On their way into the store at most, one behind the other: a batch need not wait for the commit of the one before it.
/// One that fails holds up what is behind it until it is durable.
const BATCHES_IN_FLIGHT_MAX: usize = 16;
const RUNS_IN_FLIGHT_MAX: usize = 1024;

/// Runs between the workers and the outbox at most; then the workers wait.
pub const RAN_QUEUE_MAX: usize = 1024;

/// After a commit that failed, how long until it is tried again.
const COMMIT_RETRY_DELAY: Duration = Duration::from_millis(250);

/// Tries of a run whose deadline broke, and the waits between them.
const DEADLINE_RETRY_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// When a run is tried again that the host could not serve.
const HOST_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Completes what the pool ran.
pub struct Outbox {
    /// Where completions become durable.
    pub store: Arc<dyn Store>,
    /// Told when a run left the memory or falls due again.
    pub pool: Arc<Pool>,
    /// Told what became of state that calls wrote.
    pub state: Arc<dyn StateSource>,
    /// Given the deliveries.
    pub dispatcher: Arc<Dispatcher>,
    /// Says which headers are an endpoint's own.
    pub endpoints: Arc<Endpoints>,
    /// Counts outcomes.
    pub metrics: Arc<Metrics>,
    /// The handles of plugins met so far.
    pub plugin_metrics: HashMap<Arc<str>, PluginMetrics>,
    /// When a try ended.
    pub clock: Arc<dyn Clock>,
}

impl Outbox {
    /// Runs until every sender of `ran` is gone and what they sent is durable.
    pub async fn run(mut self, mut ran: mpsc::Receiver<Ran>) {
        let mut commits = FuturesOrdered::new();
        let mut batch = Vec::new();
        let (mut in_flight, mut has_state) = (0, false);
        loop {
            let room = room(commits.len(), in_flight, has_state);
            tokio::select! {
                biased;
                Some((runs, committed)) = commits.next() => {
                    in_flight -= runs;
                    self.settle(committed);
                }
                taken = ran.recv_many(&mut batch, room), if room > 0 => {
                    if taken == 0 {
                        break;
                    }
                    in_flight += taken;
                    // A commit that failed is tried again after those behind it: what plugins keep is written in turn.
                    has_state = batch.iter().any(|ran| ran.report.state.is_some());
                    while has_state && let Some((runs, committed)) = commits.next().await {
                        in_flight -= runs;
                        self.settle(committed);
                    }
                    let committed = self.begin(std::mem::take(&mut batch));
                    commits.push_back(committed.map(move |committed| (taken, committed)));
                }
            }
        }
        while let Some((_, committed)) = commits.next().await {
            self.settle(committed);
        }
    }

    /// Judges `batch`. The first poll of what is returned hands it to the store.
    fn begin(&self, mut batch: Vec<Ran>) -> impl Future<Output = Option<Committed>> + use<> {
        // Calls of one entity that were under way together end in any order; what comes in their order need not wait.
        batch.sort_by_key(|ran| ran.run.seq);
        let now = self.clock.now();
        let completions: Vec<_> = batch.iter().map(|ran| self.completion(ran, now)).collect();
        commit(Arc::clone(&self.store), batch, completions)
    }

    fn settle(&mut self, committed: Option<Committed>) {
        let Some(Committed { batch, completions, completed }) = committed else { return };
        for ((ran, completion), completed) in batch.into_iter().zip(completions).zip(completed) {
            self.settle_state(&completion, &completed);
            self.hand_over(ran, completion, completed);
        }
    }

    /// Judges one call, and decides who will hold its deliveries.
    fn completion(&self, ran: &Ran, now: Timestamp) -> RunCompletion {
        let mut outcome = judge(ran, &self.endpoints, now);
        if let RunOutcome::Produced(deliveries) = &mut outcome {
            for delivery in deliveries {
                delivery.terms = self.dispatcher.terms(&delivery.endpoint);
                delivery.claim = self.dispatcher.offer(&delivery.endpoint, delivery.content_bytes());
            }
        }
        RunCompletion {
            seq: ran.run.seq,
            plugin: Arc::clone(&ran.run.plugin),
            plugin_digest: Arc::clone(&ran.plugin.digest),
            ended_at: now,
            outcome,
            state: ran.report.state.clone(),
            conflicts: ran.conflicts,
        }
    }

    /// What the call wrote of its plugin's state is durable now, or never was there.
    fn settle_state(&self, completion: &RunCompletion, completed: &Completed) {
        let Some(change) = &completion.state else { return };
        let durable = matches!((&completion.outcome, completed), (RunOutcome::Produced(_), Completed::Ended(_)));
        self.state.settle(&completion.plugin, completion.state_version(), change, durable);
    }

    fn hand_over(&mut self, mut ran: Ran, completion: RunCompletion, completed: Completed) {
        if completed == Completed::Conflict {
            return self.run_again(ran, &completion);
        }
        match completed {
            // Whoever has it counts it: another host, or this one, once an event that could not be accepted comes again.
            Completed::NotHeld => {
                tracing::debug!(event_key = %ran.run.event.key, plugin = %ran.run.plugin, "the run is not this host's any more");
            }
            _ => self.report(&ran, &completion.outcome),
        }
        if let Completed::Ended(written) = &completed {
            written.freed.iter().for_each(|endpoint| self.dispatcher.spilled(endpoint));
        }
        let now = completion.ended_at;
        match (completion.outcome, completed) {
            (RunOutcome::Produced(deliveries), Completed::Ended(written))
                if written.deliveries.len() == deliveries.len() =>
            {
                let written = written.deliveries.into_iter().zip(written.places);
                for (delivery, (seq, place)) in deliveries.into_iter().zip(written) {
                    self.dispatch(&ran, delivery, seq, place, now);
                }
            }
            // The run was not this host's to complete any more: whoever has it hands its deliveries over.
            (RunOutcome::Produced(deliveries), _) => self.give_back(&deliveries),
            (RunOutcome::Retry { due_at, .. }, _) => self.pool.due(&ran.run.plugin, due_at),
            (RunOutcome::Dead { .. } | RunOutcome::Parked, _) => {}
        }
        // Before the pool is told, which may call another plugin in that room.
        ran.room = None;
        self.pool.done(&ran.run.plugin, &ran.run.event);
    }

    /// Another run changed the state that this one had read: its result is worth nothing.
    fn run_again(&mut self, mut ran: Ran, completion: &RunCompletion) {
        ran.room = None;
        if let RunOutcome::Produced(deliveries) = &completion.outcome {
            self.give_back(deliveries);
        }
        let (plugin, event_key, conflicts) = (&ran.run.plugin, &ran.run.event.key, ran.conflicts.saturating_add(1));
        tracing::debug!(%event_key, %plugin, "the state it had read has changed; the run is called again");
        self.plugin_counts(plugin).state_conflicts.inc();
        self.pool.run_again(ran.run, conflicts);
    }

    /// Gives up the places of deliveries that will not come.
    fn give_back(&self, deliveries: &[NewDelivery]) {
        let reserved = deliveries.iter().filter(|delivery| delivery.claim == Claim::Here);
        reserved.for_each(|delivery| self.dispatcher.left(&delivery.endpoint, delivery.content_bytes()));
    }

    fn plugin_counts(&mut self, plugin: &Arc<str>) -> &PluginMetrics {
        let metrics = &self.metrics;
        self.plugin_metrics.entry(Arc::clone(plugin)).or_insert_with(|| metrics.plugin(plugin))
    }

    fn dispatch(&self, ran: &Ran, delivery: NewDelivery, seq: DeliverySeq, place: Place, due_at: Timestamp) {
        if place != Place::Here {
            return self.leave(ran, &delivery, place);
        }
        self.dispatcher.enqueue(ClaimedDelivery {
            seq,
            id: delivery.id,
            event_key: ran.run.event.key.clone(),
            plugin: Arc::clone(&ran.run.plugin),
            endpoint: delivery.endpoint,
            content_type: delivery.content_type,
            headers: delivery.headers,
            body: delivery.body,
            due_at,
            attempts_made: 0,
            attempts_before_budget: 0,
        });
    }

    /// The delivery is not this host's: somebody claims it later, or nobody does.
    fn leave(&self, ran: &Ran, delivery: &NewDelivery, place: Place) {
        if delivery.claim == Claim::Here {
            self.dispatcher.left(&delivery.endpoint, delivery.content_bytes());
        }
        match place {
            Place::Open => self.dispatcher.spilled(&delivery.endpoint),
            Place::Dead => {
                let (reason, endpoint, delivery_id) = (Reason::BacklogFull, &delivery.endpoint, delivery.id.as_str());
                let (plugin, event_key) = (&ran.run.plugin, &ran.run.event.key);
                tracing::error!(%event_key, delivery_id, %plugin, %endpoint, outcome = "dead", %reason, "the delivery is a dead letter");
                self.metrics.dead_letter(reason);
            }
            Place::Here | Place::Behind => {}
        }
    }

    fn report(&mut self, ran: &Ran, outcome: &RunOutcome) {
        let (plugin, event_key) = (&ran.run.plugin, &ran.run.event.key);
        let metrics = Arc::clone(&self.metrics);
        let counts = self.plugin_counts(plugin);
        let (source, plugin_digest) = (&ran.run.event.source, &ran.plugin.digest);
        let (attempt, duration_s) = (ran.run.attempts_made.saturating_add(1), ran.report.duration.as_secs_f64());
        counts.duration.observe(duration_s);
        let counter = match outcome {
            RunOutcome::Produced(deliveries) if deliveries.is_empty() => {
                tracing::debug!(%event_key, %source, %plugin, %plugin_digest, attempt, outcome = "filtered", duration_s, "the run is done, without a webhook");
                &counts.filtered
            }
            RunOutcome::Produced(_) => {
                tracing::debug!(%event_key, %source, %plugin, %plugin_digest, attempt, outcome = "produced", duration_s, "the run is done");
                &counts.produced
            }
            RunOutcome::Retry { due_at, detail, .. } => {
                tracing::warn!(%event_key, %source, %plugin, %plugin_digest, attempt, outcome = "retrying", error = detail, duration_s, %due_at, "the run is tried again");
                &counts.retrying
            }
            RunOutcome::Dead { reason, detail } => {
                tracing::error!(%event_key, %source, %plugin, %plugin_digest, attempt, outcome = "dead", %reason, error = detail, duration_s, "the run is a dead letter");
                metrics.dead_letter(*reason);
                &counts.dead
            }
            RunOutcome::Parked => &counts.parked,
        };
        counter.inc();
    }
}

/// A batch that is durable, and what became of each of its runs.
struct Committed {
    batch: Vec<Ran>,
    completions: Vec<RunCompletion>,
    completed: Vec<Completed>,
}

/// Pure: how many runs the next batch may have while so many `batches` of `runs` are in flight; `has_state` says that the
/// last of them writes plugins' state.
fn room(batches: usize, runs: usize, has_state: bool) -> usize {
    if batches == BATCHES_IN_FLIGHT_MAX || (has_state && batches > 0) {
        return 0;
    }
    (RUNS_IN_FLIGHT_MAX - runs).min(BATCH_RUNS_MAX)
}

/// The plugins' work is not done again because a disk failed: what they returned waits here until it is durable. Memory stays
/// bounded, for the workers wait behind this. `None` where the store was closed.
async fn commit(store: Arc<dyn Store>, batch: Vec<Ran>, completions: Vec<RunCompletion>) -> Option<Committed> {
    let mut has_failed = false;
    loop {
        let runs = completions.len();
        match store.complete_runs(completions.clone()).await {
            Ok(completed) => return Some(Committed { batch, completions, completed }),
            Err(StoreError::Closed) => return None,
            Err(error) if has_failed => {
                tracing::debug!(%error, runs, "runs could not be completed again; trying again");
            }
            Err(error) => tracing::error!(%error, runs, "runs could not be completed; trying again"),
        }
        has_failed = true;
        tokio::time::sleep(COMMIT_RETRY_DELAY).await;
    }
}

/// Pure: what a call means for its run.
fn judge(ran: &Ran, endpoints: &Endpoints, now: Timestamp) -> RunOutcome {
    let dead = |reason, detail: &str| RunOutcome::Dead { reason, detail: detail.to_owned() };
    // Each budget has its own count: a plugin's tries are not spent by deadlines, and neither by what the host can't do.
    let retries = ran.run.attempts_made.saturating_sub(ran.run.deadlines).saturating_add(1);
    match &ran.report.result {
        Ok(webhooks) => webhook::deliveries(webhooks, &ran.plugin, &ran.run.event.key, endpoints)
            .map_or_else(|refused| dead(refused.reason(), &refused.to_string()), RunOutcome::Produced),
        Err(CallFailure::Retry(detail)) => retry(&ran.plugin, retries, detail, now),
        Err(CallFailure::Deadline(detail)) => match DEADLINE_RETRY_DELAYS.get(ran.run.deadlines as usize) {
            Some(delay) => {
                RunOutcome::Retry { spends: Spends::Deadline, due_at: now.plus(*delay), detail: detail.clone() }
            }
            None => dead(Reason::PluginDeadline, detail),
        },
        Err(CallFailure::Trap(detail)) => dead(Reason::PluginTrap, detail),
        Err(CallFailure::Memory(detail)) => dead(Reason::PluginMemory, detail),
        Err(CallFailure::Output(detail)) => dead(Reason::PluginOutput, detail),
        Err(CallFailure::Host(detail)) => {
            let due_at = now.plus(HOST_RETRY_DELAY);
            RunOutcome::Retry { spends: Spends::Nothing, due_at, detail: detail.clone() }
        }
        Err(CallFailure::Reject(detail)) => dead(Reason::PluginRejected, detail),
    }
}

fn retry(plugin: &Plugin, attempt: u32, detail: &str, now: Timestamp) -> RunOutcome {
    let policy = &plugin.manifest.retry;
    if attempt >= policy.max_attempts {
        return RunOutcome::Dead { reason: Reason::PluginRetriesExhausted, detail: detail.to_owned() };
    }
    RunOutcome::Retry {
        spends: Spends::Retry,
        due_at: now.plus(policy.delay_after(attempt)),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests;
