//! One endpoint's queue with its concurrency.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::breaker::{Pass, Phase, Sign, Ticket};
use super::gate::{Ended, Gate, GateNews};
use crate::clock::{Clock, Timestamp};
use crate::delivery::deferral::Deferral;
use crate::delivery::{AttemptResult, Outcome, RetryPolicy, Transition, decide};
use crate::endpoint::Endpoint;
use crate::handover::Handover;
use crate::metrics::EndpointMetrics;
use crate::settings::{EndpointSettings, Order};
use crate::store::{AttemptRecord, ClaimedDelivery, DeliverySeq, DeliveryTerms, EndpointState};
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
    /// What it changed for all that wait.
    pub news: Option<GateNews>,
}

/// Makes attempts: an [`Endpoint`], or what a simulation has in its place.
pub trait Attempts: Send + Sync + 'static {
    /// As [`Endpoint::attempt`].
    fn attempt<'a>(
        &'a self,
        delivery: &'a ClaimedDelivery,
        now: Timestamp,
        clock: &'a dyn Clock,
    ) -> BoxFuture<'a, Outcome>;
}

impl Attempts for Endpoint {
    fn attempt<'a>(
        &'a self,
        delivery: &'a ClaimedDelivery,
        now: Timestamp,
        clock: &'a dyn Clock,
    ) -> BoxFuture<'a, Outcome> {
        self.attempt(delivery, now, clock).boxed()
    }
}

/// One endpoint's queue. Workers come with the work, up to the endpoint's concurrency, and go when there is none.
pub struct Lane {
    /// Counts its attempts.
    pub metrics: EndpointMetrics,
    /// On what terms it takes new deliveries.
    pub terms: DeliveryTerms,
    name: Arc<str>,
    endpoint: Arc<dyn Attempts>,
    retry: RetryPolicy,
    concurrency: usize,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    waiting: VecDeque<ClaimedDelivery>,
    workers: usize,
    handover: Handover,
    gate: Gate,
    // The gate let nothing pass when it was asked last; who opens it calls `wake`.
    held: bool,
    // When the timer runs out that does so by itself.
    wakes_at: Option<Duration>,
    // Whether the way to the endpoint is down, and why.
    deferral: Deferral,
    deferred_for: Option<String>,
    rng: fastrand::Rng,
    // None once the lane is stopping; workers that are under way hold the last ones.
    attempted: Option<mpsc::Sender<Attempted>>,
}

impl Lane {
    /// A lane without work. `rng` gives the jitter.
    pub fn new(
        endpoint: Arc<impl Attempts>,
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
            gate: Gate::new(settings.gate.clone()),
            held: false,
            wakes_at: None,
            deferral: Deferral::default(),
            deferred_for: None,
            rng,
            attempted: Some(attempted),
        };
        Arc::new(Self {
            metrics,
            terms: DeliveryTerms { ordered: settings.order == Order::Entity, backlog: settings.backlog.bounds },
            name: Arc::clone(&settings.name),
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
        if state.attempted.is_none() {
            return;
        }
        for delivery in deliveries {
            state.waiting.push_back(delivery);
            self.start_worker(&mut state);
        }
    }

    /// One worker more, where there is room for one; it ends at once where there is nothing to do.
    fn start_worker(self: &Arc<Self>, state: &mut State) {
        if let Some(attempted) = state.attempted.clone()
            && state.workers < self.concurrency
            && !state.held
        {
            state.workers += 1;
            tokio::spawn(Arc::clone(self).work(attempted));
        }
    }

    /// Applies `change` to the lane's handover.
    pub fn handover<T>(&self, change: impl FnOnce(&mut Handover) -> T) -> T {
        change(&mut lock(&self.state).handover)
    }

    /// Applies `change` to the lane's gate, at this moment of the clock that never goes back. What it lets pass begins.
    pub fn gate<T>(self: &Arc<Self>, change: impl FnOnce(&mut Gate, Duration) -> T) -> T {
        let mut state = lock(&self.state);
        let changed = change(&mut state.gate, self.clock.monotonic());
        self.wake(&mut state);
        changed
    }

    /// Looks at the gate, with both clocks; nothing begins by it.
    pub(super) fn gate_look<T>(&self, look: impl FnOnce(&mut Gate, Duration, Timestamp) -> T) -> T {
        look(&mut lock(&self.state).gate, self.clock.monotonic(), self.clock.now())
    }

    /// As [`Gate::shut`], also while the way to the endpoint is down, with the moment on the wall clock until when; `None` where it is not shut.
    pub fn shut(&self, now: Timestamp) -> Option<Option<Timestamp>> {
        let monotonic = self.clock.monotonic();
        let state = lock(&self.state);
        let pass = state.deferral.until(monotonic).map_or_else(|| state.gate.shut(monotonic), Pass::At);
        match pass {
            Pass::Now => None,
            Pass::At(at) => Some(Some(now.plus(at.saturating_sub(monotonic)))),
            Pass::WhenTold => Some(None),
        }
    }

    /// Whether attempts are made, now or later, without anybody's doing.
    pub fn is_active(&self) -> bool {
        self.state() == EndpointState::Active
    }

    /// The delivery that is tried next.
    pub fn next_up(&self) -> Option<DeliverySeq> {
        lock(&self.state).waiting.front().map(|delivery| delivery.seq)
    }

    /// Gives up what waits in memory, for the store to keep. What is under way ends as ever.
    pub fn give_up(&self) -> Vec<ClaimedDelivery> {
        lock(&self.state).waiting.drain(..).collect()
    }

    /// The gate may let something pass: whatever it lets pass starts more.
    fn wake(self: &Arc<Self>, state: &mut State) {
        state.held = false;
        if !state.waiting.is_empty() {
            self.start_worker(state);
        }
    }

    /// Nothing passes before `pass`.
    fn hold(self: &Arc<Self>, state: &mut State, pass: Pass, now: Duration) {
        state.held = true;
        if let Pass::At(at) = pass
            && state.wakes_at.is_none_or(|wakes_at| at < wakes_at)
        {
            state.wakes_at = Some(at);
            let lane = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(at.saturating_sub(now)).await;
                let mut state = lock(&lane.state);
                if state.wakes_at == Some(at) {
                    state.wakes_at = None;
                }
                lane.wake(&mut state);
            });
        }
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

    /// When the delivery fell due that has waited longest in memory for its turn.
    pub fn oldest_due(&self) -> Option<Timestamp> {
        lock(&self.state).waiting.iter().map(|delivery| delivery.due_at).min()
    }

    async fn work(self: Arc<Self>, attempted: mpsc::Sender<Attempted>) {
        while let Some((delivery, ticket)) = self.next() {
            let attempt = self.attempt(delivery, ticket).await;
            // Fails only when the store has closed: the claim is released at the next start.
            if attempted.send(attempt).await.is_err() {
                return;
            }
        }
    }

    /// The next delivery that the gate lets pass. Without one the worker ends: waiting takes none.
    fn next(self: &Arc<Self>) -> Option<(ClaimedDelivery, Ticket)> {
        let mut state = lock(&self.state);
        let now = self.clock.monotonic();
        let passed = match state.deferral.until(now) {
            _ if state.waiting.is_empty() => None,
            Some(until) => Some(Err(Pass::At(until))),
            None => Some(state.gate.pass(now)),
        };
        let next = match passed {
            Some(Ok(ticket)) => state.waiting.pop_front().map(|delivery| (delivery, ticket)),
            Some(Err(pass)) => {
                self.hold(&mut state, pass, now);
                None
            }
            None => None,
        };
        if next.is_none() {
            state.workers -= 1;
        } else if !state.waiting.is_empty() {
            self.start_worker(&mut state);
        }
        next
    }

    async fn attempt(self: &Arc<Self>, delivery: ClaimedDelivery, ticket: Ticket) -> Attempted {
        let started_at = self.clock.now();
        // A panic of the host's own code on one delivery must not cost the lane a worker.
        let attempt = AssertUnwindSafe(async { self.endpoint.attempt(&delivery, started_at, &*self.clock).await });
        let outcome = attempt.catch_unwind().await.unwrap_or_else(|_| Outcome {
            result: AttemptResult::Transport("the host panicked during the attempt; please report this".to_owned()),
            retry_after: None,
            location: None,
            response: Bytes::new(),
            duration: Duration::ZERO,
        });
        let retry_after = outcome.retry_after;
        let record = self.record(&delivery, started_at, outcome);
        let news = self.ended(ticket, &record.transition, retry_after);
        Attempted { delivery, record, news }
    }

    /// Tells the gate what the attempt came to.
    fn ended(
        self: &Arc<Self>,
        ticket: Ticket,
        transition: &Transition,
        retry_after: Option<Timestamp>,
    ) -> Option<GateNews> {
        let at = self.clock.now();
        let sign = match transition {
            Transition::Delivered => Sign::Well,
            Transition::Retry { .. } | Transition::Dead { .. } => {
                Sign::Ill { asked: retry_after.map(|retry_after| retry_after.since(at)) }
            }
            Transition::Deferred { .. } => Sign::None,
        };
        let mut state = lock(&self.state);
        let now = self.clock.monotonic();
        let (before, news) = (state.gate.phase(), state.gate.ended(ticket, Ended { sign, transition }, at, now));
        // A probe that is over makes room for the next.
        if matches!(before, Some(Phase::Probing { .. })) {
            self.wake(&mut state);
        }
        news
    }

    fn record(self: &Arc<Self>, delivery: &ClaimedDelivery, started_at: Timestamp, outcome: Outcome) -> AttemptRecord {
        let number = delivery.attempts_made.saturating_add(1);
        let within_budget = number.saturating_sub(delivery.attempts_before_budget);
        let transition = match &outcome.result {
            AttemptResult::Deferred(why) => self.defer(why),
            _ => {
                let mut state = lock(&self.state);
                self.passed(&mut state);
                decide(&self.retry, within_budget, &outcome, self.clock.now(), &mut state.rng)
            }
        };
        let (status, error) = match outcome.result {
            AttemptResult::Status(status) => (Some(status), outcome.location.map(|to| redirected(status, &to))),
            AttemptResult::Transport(error) | AttemptResult::EgressDenied(error) | AttemptResult::Deferred(error) => {
                (None, Some(error))
            }
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

    /// The endpoint was not reached, for no fault of its own.
    fn defer(&self, why: &str) -> Transition {
        let mut state = lock(&self.state);
        let State { deferral, rng, deferred_for, .. } = &mut *state;
        let (wait, began) = deferral.failed(self.clock.monotonic(), rng);
        let due_at = self.clock.now().plus(wait);
        if began {
            tracing::warn!(endpoint = %self.name, error = why, %due_at, "deliveries wait, and no attempt is counted");
            *deferred_for = Some(why.to_owned());
        }
        Transition::Deferred { due_at }
    }

    /// The endpoint was reached, or is to blame that it was not.
    fn passed(self: &Arc<Self>, state: &mut State) {
        if state.deferral.passed() {
            tracing::info!(endpoint = %self.name, "deliveries go on");
            state.deferred_for = None;
            self.wake(state);
        }
    }

    /// Why deliveries wait although their endpoint may be well; `None` where they don't.
    pub fn deferred_for(&self) -> Option<String> {
        lock(&self.state).deferred_for.clone()
    }
}

fn redirected(status: u16, location: &str) -> String {
    format!("{status} redirects to {location}, which is not followed")
}
