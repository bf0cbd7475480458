//! One endpoint's queue with its concurrency.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::mpsc;

use crate::clock::{Clock, Timestamp};
use crate::delivery::{AttemptResult, Outcome, RetryPolicy, decide};
use crate::endpoint::Endpoint;
use crate::handover::Handover;
use crate::metrics::EndpointMetrics;
use crate::settings::EndpointSettings;
use crate::store::{AttemptRecord, ClaimedDelivery, DeliverySeq};
use crate::sync::lock;

/// The weight of one lane's deliveries in memory at most, see [`crate::handover::weight`]; the rest wait in the store.
pub const DELIVERIES_IN_MEMORY_MAX: usize = 2048;

/// An attempt that ended, on its way to the store.
#[derive(Debug)]
pub struct Attempted {
    /// What was delivered, or not.
    pub delivery: ClaimedDelivery,
    /// What to record.
    pub record: AttemptRecord,
}

/// One endpoint's queue. Workers come with the work, up to the endpoint's concurrency, and go when there is none.
pub struct Lane {
    /// Counts its attempts.
    pub metrics: EndpointMetrics,
    endpoint: Arc<Endpoint>,
    retry: RetryPolicy,
    concurrency: usize,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    waiting: VecDeque<ClaimedDelivery>,
    workers: usize,
    handover: Handover,
    rng: fastrand::Rng,
    // None once the lane is stopping; workers that are under way hold the last ones.
    attempted: Option<mpsc::Sender<Attempted>>,
}

impl Lane {
    /// A lane without work. `rng` gives the jitter.
    pub fn new(
        endpoint: Arc<Endpoint>,
        settings: &EndpointSettings,
        metrics: EndpointMetrics,
        clock: Arc<dyn Clock>,
        rng: fastrand::Rng,
        attempted: mpsc::Sender<Attempted>,
    ) -> Arc<Self> {
        let state = State {
            waiting: VecDeque::new(),
            workers: 0,
            handover: Handover::new(DELIVERIES_IN_MEMORY_MAX),
            rng,
            attempted: Some(attempted),
        };
        Arc::new(Self {
            metrics,
            endpoint,
            retry: settings.retry.clone(),
            concurrency: settings.concurrency.max(1),
            state: Mutex::new(state),
            clock,
        })
    }

    /// Takes deliveries that this host holds; starts workers for them.
    pub fn enqueue(self: &Arc<Self>, deliveries: impl IntoIterator<Item = ClaimedDelivery>) {
        let mut state = lock(&self.state);
        let Some(attempted) = state.attempted.clone() else { return };
        for delivery in deliveries {
            state.waiting.push_back(delivery);
            if state.workers < self.concurrency {
                state.workers += 1;
                tokio::spawn(Arc::clone(self).work(attempted.clone()));
            }
        }
    }

    /// Applies `change` to the lane's handover.
    pub fn handover<T>(&self, change: impl FnOnce(&mut Handover) -> T) -> T {
        change(&mut lock(&self.state).handover)
    }

    /// No attempt begins from now on; the channel closes once those under way are over. Returns the deliveries that are
    /// left; what is enqueued later keeps its claim until the next start.
    pub fn stop(&self) -> Vec<DeliverySeq> {
        let mut state = lock(&self.state);
        state.attempted = None;
        state.waiting.drain(..).map(|delivery| delivery.seq).collect()
    }

    /// Takes out of memory the deliveries that are `wanted` and that nobody has begun to send. They are still claimed.
    pub fn give_back(&self, wanted: impl Fn(&ClaimedDelivery) -> bool) -> Vec<ClaimedDelivery> {
        let mut state = lock(&self.state);
        let waiting = std::mem::take(&mut state.waiting);
        let (given, kept): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(wanted);
        state.waiting = kept;
        given.into()
    }

    async fn work(self: Arc<Self>, attempted: mpsc::Sender<Attempted>) {
        while let Some(delivery) = self.next() {
            let attempt = self.attempt(delivery).await;
            // Fails only when the store has closed: the claim is released at the next start.
            if attempted.send(attempt).await.is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<ClaimedDelivery> {
        let mut state = lock(&self.state);
        let next = state.waiting.pop_front();
        state.workers -= usize::from(next.is_none());
        next
    }

    async fn attempt(&self, delivery: ClaimedDelivery) -> Attempted {
        let started_at = self.clock.now();
        // A panic of the host's own code on one delivery must not cost the lane a worker.
        let attempt = AssertUnwindSafe(self.endpoint.attempt(&delivery, started_at, &*self.clock)).catch_unwind().await;
        let outcome = attempt.unwrap_or_else(|_| Outcome {
            result: AttemptResult::Transport("the host panicked during the attempt; please report this".to_owned()),
            retry_after: None,
            response: Bytes::new(),
            duration: Duration::ZERO,
        });
        let record = self.record(&delivery, started_at, outcome);
        Attempted { delivery, record }
    }

    fn record(&self, delivery: &ClaimedDelivery, started_at: Timestamp, outcome: Outcome) -> AttemptRecord {
        let number = delivery.attempts_made.saturating_add(1);
        let within_budget = number.saturating_sub(delivery.attempts_before_budget);
        let transition = decide(&self.retry, within_budget, &outcome, self.clock.now(), &mut lock(&self.state).rng);
        let (status, error) = match outcome.result {
            AttemptResult::Status(status) => (Some(status), None),
            AttemptResult::Transport(error) | AttemptResult::EgressDenied(error) => (None, Some(error)),
        };
        AttemptRecord {
            delivery: delivery.seq,
            number,
            started_at,
            duration: outcome.duration,
            status,
            error,
            response: outcome.response,
            transition,
        }
    }
}
