//! Dedup and durable accept, with a pending run for every plugin subscribed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::budget::{Account, Kind};
use crate::clock::Clock;
use crate::dead_letter::Reason;
use crate::dispatcher::Dispatcher;
use crate::event::decode::{Fields, TEXT_BYTES_MAX, body_digest, decode, fallback_key, literal_subject};
use crate::event::{Event, EventKey, Message, OrderKey};
use crate::handover::Pressure;
use crate::metrics::{Metrics, SourceMetrics};
use crate::plugin::pool::Pool;
use crate::routes::{Routes, SharedRoutes};
use crate::source::{Accept, AcceptError};
use crate::store::{
    Acceptance, Accepted, Arrival, Claim, ClaimedRun, DeadMessage, EventSeq, NewRun, RunStart, RunTerms, SourceCursor,
    Store, StoreError,
};

pub mod gate;
mod batches;

use self::gate::IntakeGate;

/// How much of a message over the limit is kept with its dead letter, in bytes.
const TOO_LARGE_KEPT_BYTES: usize = 64 * 1024;

/// Told of an event that no plugin is subscribed to; waits for nobody.
pub type Unrouted = Box<dyn Fn(&Event) + Send + Sync>;

/// Takes messages from sources; returns once they are durable.
pub struct Inbox {
    /// Where events become durable.
    pub store: Arc<dyn Store>,
    /// Given the runs.
    pub pool: Arc<Pool>,
    /// Made to shed with the pool.
    pub dispatcher: Arc<Dispatcher>,
    /// What intake waits for.
    pub pressure: Arc<Pressure>,
    /// What stops intake.
    pub gate: Arc<IntakeGate>,
    /// Who is subscribed to what.
    pub routes: Arc<SharedRoutes>,
    /// When an event was accepted.
    pub clock: Arc<dyn Clock>,
    /// Counts events.
    pub metrics: Arc<Metrics>,
    /// What the inbox knows of each source.
    pub sources: HashMap<Arc<str>, Intake>,
    /// The largest message accepted, in bytes.
    pub event_bytes_max: usize,
    /// Tells apart messages without any identity: unique to this start of the host.
    pub once: Once,
    /// Told of each event that no plugin is subscribed to, where somebody watches.
    pub unrouted: Option<Unrouted>,
    /// Held by one batch at a time until the store has it, so that batches keep their order.
    pub turn: tokio::sync::Mutex<()>,
}

/// What the inbox knows of one source.
pub struct Intake {
    /// Where its messages have what an event needs, where they are in no recognised format.
    pub fields: Fields,
    /// Whether events of recognised formats keep the bus's own subject.
    pub raw_subjects: bool,
    /// Counts its events.
    pub metrics: SourceMetrics,
}

/// Values that no other message has had.
#[derive(Debug)]
pub struct Once {
    start: String,
    next: AtomicU64,
}

impl Once {
    /// Values that begin with `start`, which no other start of a host on this store may have.
    pub fn new(start: String) -> Self {
        Self { start, next: AtomicU64::new(0) }
    }

    fn value(&self) -> String {
        format!("{}-{}", self.start, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Accept for Inbox {
    fn accept_at(
        &self,
        source: &Arc<str>,
        messages: Vec<Message>,
        cursor: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Vec<Acceptance>, AcceptError>> {
        let source = Arc::clone(source);
        Box::pin(async move { self.accept_all(&source, messages, cursor).await })
    }

    fn intake(&self) -> Arc<Account> {
        self.pressure.budget().account(Kind::Intake)
    }

    fn cursor(&self, source: &Arc<str>) -> BoxFuture<'_, Result<Option<Bytes>, AcceptError>> {
        let source = Arc::clone(source);
        Box::pin(async move { self.store.cursor(source).await.map_err(accept_error) })
    }
}

impl Inbox {
    /// Events accepted so far, from every source.
    pub fn accepted(&self) -> u64 {
        self.sources.values().map(|intake| intake.metrics.accepted.get()).sum()
    }

    async fn accept_all(
        &self,
        source: &Arc<str>,
        messages: Vec<Message>,
        cursor: Option<Bytes>,
    ) -> Result<Vec<Acceptance>, AcceptError> {
        if let Some(bound) = self.gate.closed() {
            return Err(AcceptError::Full { bound: bound.to_string() });
        }
        let (messages, batches) = batches::open(messages);
        let turn = self.turn.lock().await;
        let (arrivals, routes) = self.arrivals(source, &messages).await;
        let cursor = cursor.map(|value| SourceCursor { source: Arc::clone(source), value });
        let (announce, announced) = oneshot::channel();
        let mut accepted = self.store.accept_announced(arrivals.clone(), cursor, announce, self.clock.now());
        // Polled once within the turn, whatever this task has done already: that gives the batch its place in the store.
        let first = futures::poll!(tokio::task::unconstrained(&mut accepted));
        // Held until here: whoever replaces routes waits until nothing is on its way by the old ones.
        drop(routes);
        drop(turn);
        let accepted = async {
            match first {
                Poll::Ready(accepted) => accepted,
                Poll::Pending => accepted.await,
            }
        };
        tokio::pin!(accepted);
        let (called, accepted) = tokio::select! {
            biased;
            Ok(announced) = announced => {
                self.pool.enqueue(held(&arrivals, &announced));
                (Some(announced), accepted.await)
            }
            accepted = &mut accepted => (None, accepted),
        };
        match accepted {
            Ok(accepted) => {
                if called.is_none() {
                    self.pool.enqueue(held(&arrivals, &accepted));
                }
                self.settle(source, &arrivals, &accepted);
                Ok(batches.fold(accepted.acceptances))
            }
            Err(error) => {
                // What is called already gives its place back by itself.
                match called {
                    Some(announced) => reserved(&arrivals, &announced)
                        .filter(|(_, _, held)| held.is_none())
                        .for_each(|(event, run, _)| self.pool.left(&run.plugin, event)),
                    None => arrivals.iter().for_each(|arrival| self.give_back(arrival)),
                }
                Err(accept_error(error))
            }
        }
    }

    /// Waits for room, then decodes and routes. Returns the routes that it went by, too.
    async fn arrivals(&self, source: &Arc<str>, messages: &[Message]) -> (Vec<Arrival>, Arc<Routes>) {
        if !self.pressure.room().await {
            self.shed();
        }
        let routes = self.routes.get();
        (messages.iter().map(|message| self.arrival(source, message, &routes)).collect(), routes)
    }

    /// The queues that have held up intake for [`crate::handover::PATIENCE`] leave their work to the store from now on.
    fn shed(&self) {
        let least = self.pool.pressing_most().max(self.dispatcher.pressing_most()).div_ceil(2).max(1);
        self.pool.shed(least);
        self.dispatcher.shed(least);
    }

    fn arrival(&self, source: &Arc<str>, message: &Message, routes: &Routes) -> Arrival {
        if message.payload.len() > self.event_bytes_max {
            let detail = format!(
                "{} bytes, over the limit of {} bytes ([limits] event); the first {TOO_LARGE_KEPT_BYTES} are kept",
                message.payload.len(),
                self.event_bytes_max
            );
            return self.dead(source, message, TOO_LARGE_KEPT_BYTES, Reason::TooLarge, detail);
        }
        let intake = self.sources.get(source);
        let fields = intake.map_or(Fields::none(), |intake| &intake.fields);
        match decode(source, message, fields, || self.once.value()) {
            Ok(mut event) => {
                if intake.is_some_and(|intake| intake.raw_subjects) {
                    event.subject = literal_subject(&message.subject);
                }
                self.route(event, routes)
            }
            Err(undecodable) => {
                self.dead(source, message, self.event_bytes_max, Reason::Undecodable, undecodable.to_string())
            }
        }
    }

    fn route(&self, event: Event, routes: &Routes) -> Arrival {
        let runs = routes.subscribed(&event.subject).map(|route| NewRun {
            plugin: Arc::clone(&route.plugin),
            start: match route.loaded {
                true => RunStart::Pending(self.pool.offer(&route.plugin, &event)),
                false => RunStart::Parked,
            },
            terms: RunTerms {
                order: route.ordered.then(|| OrderKey::of(&event, &route.plugin)).flatten(),
                backlog: route.backlog,
            },
        });
        let runs = runs.collect();
        Arrival::Event { runs, event: Arc::new(event) }
    }

    fn dead(&self, source: &Arc<str>, message: &Message, kept_bytes: usize, reason: Reason, detail: String) -> Arrival {
        Arrival::Dead(DeadMessage {
            key: fallback_key(source, message, || self.once.value()),
            body_digest: body_digest(&message.payload),
            source: Arc::clone(source),
            subject: kept_subject(&message.subject),
            payload: message.payload.slice(..message.payload.len().min(kept_bytes)),
            reason,
            detail,
        })
    }

    /// After the commit: what became of each arrival is counted and told; places reserved for duplicates, and for what there
    /// is no room for in a backlog, are given back.
    fn settle(&self, source: &Arc<str>, arrivals: &[Arrival], Accepted { acceptances, refused }: &Accepted) {
        let refused: HashSet<_> = refused.iter().map(|(seq, plugin)| (*seq, &**plugin)).collect();
        if let Some(intake) = self.sources.get(source) {
            intake
                .metrics
                .accepted
                .inc_by(acceptances.iter().filter(|it| **it != Acceptance::Duplicate).count() as u64);
        }
        for (arrival, acceptance) in arrivals.iter().zip(acceptances) {
            match (arrival, acceptance) {
                (Arrival::Event { event, runs }, Acceptance::Fresh(seq)) => {
                    if runs.is_empty() {
                        self.metrics.events_unrouted.inc();
                        if let Some(unrouted) = &self.unrouted {
                            unrouted(event);
                        }
                    }
                    for run in runs {
                        if refused.contains(&(*seq, &*run.plugin)) {
                            self.refused(run, event);
                        } else if run.start == RunStart::Pending(Claim::Open) {
                            self.pool.spilled(&run.plugin);
                        }
                    }
                }
                (Arrival::Event { .. }, _) => {
                    if *acceptance == Acceptance::Conflict {
                        self.conflicts(source, event_key(arrival));
                    }
                    self.give_back(arrival);
                }
                (Arrival::Dead(dead), Acceptance::Dead) => {
                    tracing::error!(event_key = %dead.key, source = %source, outcome = "dead", reason = %dead.reason, error = dead.detail, "the message is a dead letter");
                    self.metrics.dead_letter(dead.reason);
                }
                (Arrival::Dead(dead), Acceptance::Conflict) => self.conflicts(source, &dead.key),
                (Arrival::Dead(_), _) => {}
            }
        }
    }

    fn conflicts(&self, source: &Arc<str>, event_key: &EventKey) {
        let reason = Reason::IdConflict;
        tracing::error!(%event_key, %source, outcome = "dead", %reason, "the event's key was accepted before with another body; it is a dead letter");
        self.metrics.event_conflicts.inc();
        self.metrics.dead_letter(reason);
    }

    /// The run was one too many for its plugin's backlog, and is a dead letter.
    fn refused(&self, run: &NewRun, event: &Event) {
        let reason = Reason::BacklogFull;
        tracing::error!(plugin = %run.plugin, event_key = %event.key, outcome = "dead", %reason, "the run is a dead letter");
        self.metrics.dead_letter(reason);
        if run.start == RunStart::Pending(Claim::Here) {
            self.pool.left(&run.plugin, event);
        }
    }

    fn give_back(&self, arrival: &Arrival) {
        let Arrival::Event { runs, event } = arrival else { return };
        let reserved = runs.iter().filter(|run| run.start == RunStart::Pending(Claim::Here));
        reserved.for_each(|run| self.pool.left(&run.plugin, event));
    }
}

/// Each run that a place was reserved for, with its event's position where it is this host's to call.
fn reserved<'a>(
    arrivals: &'a [Arrival],
    Accepted { acceptances, refused }: &'a Accepted,
) -> impl Iterator<Item = (&'a Arc<Event>, &'a NewRun, Option<EventSeq>)> {
    let refused: HashSet<_> = refused.iter().map(|(seq, plugin)| (*seq, &**plugin)).collect();
    let events = arrivals.iter().zip(acceptances).filter_map(|(arrival, acceptance)| match arrival {
        Arrival::Event { event, runs } => Some((event, runs, *acceptance)),
        Arrival::Dead(_) => None,
    });
    let reserved = events.flat_map(|(event, runs, acceptance)| {
        let runs = runs.iter().filter(|run| run.start == RunStart::Pending(Claim::Here));
        runs.map(move |run| (event, run, acceptance))
    });
    reserved.map(move |(event, run, acceptance)| match acceptance {
        Acceptance::Fresh(seq) if !refused.contains(&(seq, &*run.plugin)) => (event, run, Some(seq)),
        _ => (event, run, None),
    })
}

/// The runs that are this host's to call, in accept order.
fn held(arrivals: &[Arrival], accepted: &Accepted) -> Vec<ClaimedRun> {
    let held = reserved(arrivals, accepted).filter_map(|(event, run, held)| {
        let (event, plugin) = (Arc::clone(event), Arc::clone(&run.plugin));
        held.map(|seq| ClaimedRun { seq, event, plugin, attempts_made: 0, deadlines: 0, crashes: 0 })
    });
    held.collect()
}

/// The subject as a dead letter keeps it: whole, but for one that no event could have.
fn kept_subject(subject: &Arc<str>) -> Arc<str> {
    match subject.len() > TEXT_BYTES_MAX {
        true => subject[..subject.floor_char_boundary(TEXT_BYTES_MAX)].into(),
        false => Arc::clone(subject),
    }
}

fn accept_error(error: StoreError) -> AcceptError {
    match error {
        StoreError::Closed => AcceptError::Closed,
        error => AcceptError::Store(error),
    }
}

fn event_key(arrival: &Arrival) -> &EventKey {
    match arrival {
        Arrival::Event { event, .. } => &event.key,
        Arrival::Dead(dead) => &dead.key,
    }
}

#[cfg(test)]
mod tests;
