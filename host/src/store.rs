//! What survives: events, runs, deliveries, attempts, dead letters. Every method that writes returns after the commit.
//!
//! No caller may assume that it is alone: work is claimed before it is done, a claim belongs to one host, and a claim
//! whose host is gone is claimable again. [`sqlite`] is the embedded implementation.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::delivery::{DeliveryId, Transition};
use crate::event::{Event, EventKey, OrderKey};

pub mod begun;
mod endpoints;
pub mod history;
mod lists;
mod pause;
pub mod sqlite;
mod status;
mod waiting;
#[cfg(test)]
pub(crate) mod fake;

pub use self::begun::Begun;
pub use self::history::{
    Backfill, Backfilled, Candidate, Changed, DeliveryChange, DeliveryTrace, DeliveryVerb, Discarded, EventFilter,
    EventSummary, EventTrace, Forgotten, Found, History, LetterMark, Pace, ParkedFate, Purge, Purged, RunTrace, Sought,
};
pub use self::lists::{
    AttemptDetail, DeadLetterDetail, DeadLetterFilter, DeadLetterKind, DeadLetterSummary, DeliveryDetail,
    DeliveryFilter, DeliveryState, DeliverySummary, Redriven,
};
pub use self::pause::{Pause, PauseKind};
pub use self::status::{DeliveryCount, LATELY, ReasonCount, RunCount, StoreStatus};
pub use self::waiting::{EndpointBacklog, StoreSize, Waiting};
pub use endpoints::{
    EndpointChange, EndpointChanged, EndpointHealth, EndpointRecord, EndpointState, EndpointSummary, EndpointVerb,
};

/// The position of an event in accept order; names its runs and deliveries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventSeq(pub i64);

/// The position of a delivery in creation order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliverySeq(pub i64);

/// Whether work that is written now is already claimed by the writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// By this host, which holds it in memory and starts at once.
    Here,
    /// By nobody: whoever has room claims it later.
    Open,
}

/// One message on its way into the store.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A decoded event and a run for every plugin subscribed to it.
    Event {
        /// The event.
        event: Arc<Event>,
        /// Its runs; none when nobody subscribes.
        runs: Vec<NewRun>,
    },
    /// A message that never became an event: kept as a dead letter with its bytes.
    Dead(DeadMessage),
}

/// Where a source stands at its bus, for buses that don't keep it themselves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceCursor {
    /// The source's name.
    pub source: Arc<str>,
    /// Only the source knows what it says; at most [`CURSOR_BYTES_MAX`] bytes.
    pub value: Bytes,
}

/// The most bytes of a [`SourceCursor`].
pub const CURSOR_BYTES_MAX: usize = 1024 * 1024;

/// A message that never became an event.
#[derive(Clone, Debug)]
pub struct DeadMessage {
    /// Its key, so that a redelivery is not kept twice.
    pub key: EventKey,
    /// The source's name.
    pub source: Arc<str>,
    /// The bus's subject.
    pub subject: Arc<str>,
    /// The body, or its beginning where it is over the limit.
    pub payload: Bytes,
    /// As in [`Event::body_digest`].
    pub body_digest: [u8; 16],
    /// Why.
    pub reason: Reason,
    /// What exactly, for the operator.
    pub detail: String,
}

/// A run to be written with its event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRun {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// How it begins.
    pub start: RunStart,
    /// What it stands among.
    pub terms: RunTerms,
}

/// On what terms a run is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunTerms {
    /// What its deliveries keep order within, where an endpoint in reach of the plugin asks for order.
    pub order: Option<OrderKey>,
    /// What may wait for its plugin.
    pub backlog: BacklogBounds,
}

/// On what terms a delivery is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeliveryTerms {
    /// Whether its endpoint asks for order. It has one then, if its run has a key for it.
    pub ordered: bool,
    /// What may wait for its endpoint.
    pub backlog: BacklogBounds,
}

/// What may wait in one queue, the newcomer included. What would go beyond is a dead letter `backlog_full`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BacklogBounds {
    /// Runs or deliveries.
    pub count: u64,
    /// Bytes of the runs' entities, or of the deliveries' bodies and headers.
    pub bytes: u64,
}

impl Default for BacklogBounds {
    /// Whatever the disk holds.
    fn default() -> Self {
        Self { count: u64::MAX, bytes: u64::MAX }
    }
}

/// A queue of the store's.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Backlog {
    /// The runs of this plugin.
    Runs(Arc<str>),
    /// The deliveries to this endpoint.
    Deliveries(Arc<str>),
}

/// How a run begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunStart {
    /// Waiting to be run.
    Pending(Claim),
    /// Its plugin is missing or won't load.
    Parked,
}

/// What became of an [`Arrival`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acceptance {
    /// New and durable.
    Fresh(EventSeq),
    /// Its key and body were accepted before; nothing was written.
    Duplicate,
    /// Its key was accepted before with another body; kept as a dead letter `id_conflict`.
    Conflict,
    /// Kept as a dead letter.
    Dead,
}

/// What became of arrivals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Accepted {
    /// One for each arrival, in order.
    pub acceptances: Vec<Acceptance>,
    /// Runs that became dead letters `backlog_full` as they were written; whoever was to hold them does not.
    pub refused: Vec<(EventSeq, Arc<str>)>,
}

/// A run that this host has claimed.
#[derive(Clone, Debug)]
pub struct ClaimedRun {
    /// Its event's position.
    pub seq: EventSeq,
    /// Its event.
    pub event: Arc<Event>,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Tries before this one, within the present budget.
    pub attempts_made: u32,
    /// Of those, the tries that broke the deadline.
    pub deadlines: u32,
    /// Hosts that ended without stopping while it was under way. A run that has any is called with nothing beside it.
    pub crashes: u32,
}

/// The end of one try of a run.
#[derive(Clone, Debug)]
pub struct RunCompletion {
    /// The run's event.
    pub seq: EventSeq,
    /// The run's plugin.
    pub plugin: Arc<str>,
    /// The hex SHA-256 of the plugin's file that ran.
    pub plugin_digest: Arc<str>,
    /// When the try ended.
    pub ended_at: Timestamp,
    /// What it came to.
    pub outcome: RunOutcome,
    /// What it read and wrote of its plugin's state; heeded where it produced (or filtered), for only then is the run
    /// done.
    pub state: Option<Arc<StateChange>>,
    /// Calls of it before, whose results were worth nothing because the state that they had read had changed.
    pub conflicts: u32,
}

impl RunCompletion {
    /// The version of what it wrote.
    pub fn state_version(&self) -> StateVersion {
        StateVersion { event: self.seq, call: self.conflicts }
    }
}

/// What became of a [`RunCompletion`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Completed {
    /// It is durable.
    Ended(Written),
    /// Nothing was written: the run was no longer this host's to complete.
    NotHeld,
    /// Nothing was written: what it read of the state has changed since, or the state would outgrow its bounds. The run
    /// is still this host's, to be run again.
    Conflict,
}

impl Completed {
    /// The positions of its deliveries; none where nothing was written.
    pub fn deliveries(&self) -> &[DeliverySeq] {
        match self {
            Self::Ended(written) => &written.deliveries,
            Self::NotHeld | Self::Conflict => &[],
        }
    }
}

/// What the end of a try wrote besides its run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// The positions of its deliveries.
    pub deliveries: Vec<DeliverySeq>,
    /// Where each of them is.
    pub places: Vec<Place>,
    /// Endpoints with deliveries that were written earlier and waited, for the sake of order, for this run alone. They are
    /// due now, and nobody's.
    pub freed: Vec<Arc<str>>,
}

/// Where a delivery is that was just written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// This host's, as was asked for.
    Here,
    /// Nobody's, and due.
    Open,
    /// Nobody's, and not due before what precedes it in its order has ended, whatever was asked for.
    Behind,
    /// A dead letter `backlog_full`.
    Dead,
}

/// The keys one plugin may keep.
pub const STATE_KEYS_MAX: u64 = 10_000;

/// The bytes of keys and values one plugin may keep.
pub const STATE_BYTES_MAX: u64 = 16 << 20;

/// What a run read and wrote of its plugin's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StateChange {
    /// Each key read, once, with the version it had; none where the key was absent.
    pub reads: Vec<(Arc<str>, Option<StateVersion>)>,
    /// Each key written, once, with its value; none removes it.
    pub writes: Vec<(Arc<str>, Option<Bytes>)>,
}

/// Which call wrote a value. A call that met changed state is made again, and others may have seen meanwhile what it had
/// written first: so the run alone would not tell values apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateVersion {
    /// The run's event. A completed run never runs again.
    pub event: EventSeq,
    /// Calls of the run before this one whose results were worth nothing.
    pub call: u32,
}

/// A value of a plugin's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateValue {
    /// The bytes.
    pub value: Bytes,
    /// Who wrote it.
    pub version: StateVersion,
}

/// How much of its bounds a plugin's state takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateUsage {
    /// Keys, [`STATE_KEYS_MAX`] at most.
    pub keys: u64,
    /// Bytes of keys and values, [`STATE_BYTES_MAX`] at most.
    pub bytes: u64,
}

/// Which of a run's budgets of tries a try is taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spends {
    /// The plugin's own, of `failure::retry`.
    Retry,
    /// That of broken deadlines.
    Deadline,
    /// None: the host could not serve the call.
    Nothing,
}

/// What one try of a run came to.
#[derive(Clone, Debug)]
pub enum RunOutcome {
    /// Deliveries, or none: then the run is `filtered`.
    Produced(Vec<NewDelivery>),
    /// To be tried again.
    Retry {
        /// Of which budget it takes a try.
        spends: Spends,
        /// When.
        due_at: Timestamp,
        /// What the plugin said, or which limit it broke.
        detail: String,
    },
    /// A dead letter.
    Dead {
        /// Why.
        reason: Reason,
        /// What exactly.
        detail: String,
    },
    /// Its plugin is gone: kept until it is back. Spends no try.
    Parked,
}

/// A delivery to be written with its run's completion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewDelivery {
    /// `webhook-id`.
    pub id: DeliveryId,
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The request's `Content-Type`.
    pub content_type: String,
    /// The plugin's headers, validated.
    pub headers: Vec<(String, String)>,
    /// The request's body, never changed again.
    pub body: Bytes,
    /// Who holds it.
    pub claim: Claim,
    /// What it stands among.
    pub terms: DeliveryTerms,
}

impl NewDelivery {
    /// What it takes in memory and on disk, in bytes, but for a bounded rest.
    pub fn content_bytes(&self) -> usize {
        webhook_bytes(&self.body, &self.headers, &self.content_type)
    }
}

impl ClaimedDelivery {
    /// As [`NewDelivery::content_bytes`].
    pub fn content_bytes(&self) -> usize {
        webhook_bytes(&self.body, &self.headers, &self.content_type)
    }
}

fn webhook_bytes(body: &Bytes, headers: &[(String, String)], content_type: &str) -> usize {
    let headers = headers.iter().map(|(name, value)| name.len() + value.len());
    body.len() + content_type.len() + headers.sum::<usize>()
}

/// A delivery that this host has claimed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimedDelivery {
    /// Its position.
    pub seq: DeliverySeq,
    /// `webhook-id`.
    pub id: DeliveryId,
    /// The event's key, for logs.
    pub event_key: EventKey,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The request's `Content-Type`.
    pub content_type: String,
    /// The plugin's headers.
    pub headers: Vec<(String, String)>,
    /// The request's body.
    pub body: Bytes,
    /// When it fell due.
    pub due_at: Timestamp,
    /// Attempts ever made: the next one's number is one more.
    pub attempts_made: u32,
    /// Of those, how many were made before the present budget began (a redrive begins a new one).
    pub attempts_before_budget: u32,
}

/// Claimed work, and when more falls due.
#[derive(Clone, Debug)]
pub struct Claimed<T> {
    /// What was claimed, oldest first.
    pub work: Vec<T>,
    /// When the earliest unclaimed work that remains is due; may be in the past when the claim was cut short.
    pub next_due: Option<Timestamp>,
    /// Bytes of the first piece, where it alone had no room, so that nothing was claimed; else 0.
    pub needs: usize,
}

/// What a claim has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimRoom {
    /// Pieces of work.
    pub count: usize,
    /// Bytes of their content, as [`Event::content_bytes`] and [`ClaimedDelivery::content_bytes`] count them.
    pub bytes: usize,
}

impl ClaimRoom {
    /// Room for `count` pieces of any size.
    pub fn of(count: usize) -> Self {
        Self { count, bytes: usize::MAX }
    }
}

/// What came of recording attempts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AttemptsRecorded {
    /// Deliveries whose turn it is, in their order, because one recorded here has ended: they are this host's now. Each
    /// is hardly larger than the one whose place it takes.
    pub next: Vec<ClaimedDelivery>,
    /// Endpoints of deliveries whose turn it is and that are larger. They are due now, and nobody's.
    pub freed: Vec<Arc<str>>,
}

/// One attempt and what follows from it.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// The delivery.
    pub delivery: DeliverySeq,
    /// The attempt's number, from 1, counted over the delivery's whole life.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long the exchange took.
    pub duration: Duration,
    /// The response's status, where one arrived.
    pub status: Option<u16>,
    /// What went wrong, where no response arrived.
    pub error: Option<String>,
    /// The first bytes of the response.
    pub response: Bytes,
    /// What follows.
    pub transition: Transition,
}

/// A plugin as the store knows it: what lets events be accepted for a plugin whose file is missing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownPlugin {
    /// The file's stem.
    pub name: Arc<str>,
    /// The subjects it is subscribed to.
    pub subjects: Vec<String>,
    /// The hex SHA-256 of the file last loaded.
    pub digest: Arc<str>,
}

/// A store, shared by everything on the path.
pub trait Store: History + Send + Sync + 'static {
    /// As [`Store::accept_at`], leaving every cursor as it is.
    fn accept(&self, arrivals: Vec<Arrival>, now: Timestamp) -> BoxFuture<'_, Result<Vec<Acceptance>, StoreError>> {
        let accepted = self.accept_at(arrivals, None, now);
        Box::pin(async move { Ok(accepted.await?.acceptances) })
    }

    /// Makes arrivals durable, all or none, and with them the source's cursor, in place of the one before. One result for
    /// each arrival, in order; a cursor may come without arrivals. Calls take effect in the order in which they were first
    /// polled; a task whose budget is spent polls in vain, unless [unconstrained](tokio::task::unconstrained).
    fn accept_at(
        &self,
        arrivals: Vec<Arrival>,
        cursor: Option<SourceCursor>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Accepted, StoreError>>;

    /// As [`Store::accept_at`]. A store that can tells `announce`, before they are durable, what becomes of the arrivals, so
    /// that their runs may be called at once and completed in the same commit. What is announced may still fail: then none
    /// of it was accepted, its runs' completions find them [`Completed::NotHeld`], and while this store is open no other event gets its position.
    fn accept_announced(
        &self,
        arrivals: Vec<Arrival>,
        cursor: Option<SourceCursor>,
        announce: oneshot::Sender<Accepted>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Accepted, StoreError>> {
        drop(announce);
        self.accept_at(arrivals, cursor, now)
    }

    /// The cursor that was last kept for a source.
    fn cursor(&self, source: Arc<str>) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// As [`Store::claim_runs_within`], `limit` at most.
    fn claim_runs(
        &self,
        plugin: Arc<str>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Claimed<ClaimedRun>, StoreError>> {
        self.claim_runs_within(plugin, ClaimRoom::of(limit), now)
    }

    /// Claims pending and retrying runs of `plugin` that are due at `now`, oldest first, as many as `room` has place for.
    fn claim_runs_within(
        &self,
        plugin: Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Claimed<ClaimedRun>, StoreError>>;

    /// Notes that a call of a run that this host holds, or will once its event is durable, begins, by the plugin's build of `plugin_digest`; `alone` where
    /// nothing is under way beside it. No commit: it tells the next start what was under way should this process end
    /// without stopping. To be kept until the run's outcome is durable.
    fn begin(&self, _run: &ClaimedRun, _plugin_digest: &str, _alone: bool) -> Begun {
        Begun::default()
    }

    /// Ends tries of claimed runs, with their deliveries and what they wrote of their plugins' state: durable together
    /// or not at all. One result for each completion, in order, which is also the order in which they are applied.
    fn complete_runs(&self, completions: Vec<RunCompletion>) -> BoxFuture<'_, Result<Vec<Completed>, StoreError>>;

    /// The value that `plugin` keeps under `key`. Blocks on the disk: for threads that may.
    fn state_value(&self, plugin: &str, key: &str) -> Result<Option<StateValue>, StoreError>;

    /// How much `plugin` keeps. Blocks on the disk: for threads that may.
    fn state_usage(&self, plugin: &str) -> Result<StateUsage, StoreError>;

    /// As [`Store::claim_deliveries_within`], `limit` at most.
    fn claim_deliveries(
        &self,
        endpoint: Arc<str>,
        limit: usize,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Claimed<ClaimedDelivery>, StoreError>> {
        self.claim_deliveries_within(endpoint, ClaimRoom::of(limit), now)
    }

    /// Claims deliveries to `endpoint` that are due at `now`, earliest due first, as many as `room` has place for. Of those
    /// that keep an order, only what nothing precedes is ever due: see [`OrderKey`].
    fn claim_deliveries_within(
        &self,
        endpoint: Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Claimed<ClaimedDelivery>, StoreError>>;

    /// As [`Store::record`]; returns the deliveries whose turn it is.
    fn record_attempts(&self, records: Vec<AttemptRecord>) -> BoxFuture<'_, Result<Vec<ClaimedDelivery>, StoreError>> {
        let recorded = self.record(records);
        Box::pin(async move { Ok(recorded.await?.next) })
    }

    /// Records attempts of claimed deliveries and what follows from them, all or none. Recording the same attempt
    /// again changes nothing. One that was deferred is no attempt: it only says why the delivery waits, and until when.
    fn record(&self, records: Vec<AttemptRecord>) -> BoxFuture<'_, Result<AttemptsRecorded, StoreError>>;

    /// Makes dead letters `backlog_full` of what nobody holds in `backlog` and has been due for longer than `age`, by the
    /// time that has passed. Returns how many.
    fn expire(&self, backlog: Backlog, age: Duration, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Gives up this host's claims on work that it will not do; the work is due again at once.
    fn release(
        &self,
        runs: Vec<(EventSeq, Arc<str>)>,
        deliveries: Vec<DeliverySeq>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Every plugin ever loaded and not forgotten.
    fn known_plugins(&self) -> BoxFuture<'_, Result<Vec<KnownPlugin>, StoreError>>;

    /// Remembers a plugin that was loaded, and puts its parked runs back to pending, due since `now`. Returns how many those
    /// were.
    fn remember_plugin(&self, plugin: KnownPlugin, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Ends as filtered every run of `plugin` that nobody has claimed and whose event is of no subject of its: runs that were
    /// kept for it before it was ever loaded, when nobody could tell. Returns how many those were.
    fn narrow_runs(&self, plugin: KnownPlugin, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Parks every run of `plugin` that is pending or retrying and not claimed. Returns how many those were.
    fn park_runs(&self, plugin: Arc<str>) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// What is in the store, counted.
    fn status(&self, now: Timestamp) -> BoxFuture<'_, Result<StoreStatus, StoreError>>;

    /// What waits, by plugin and for these endpoints, and how large the store is. Cheap enough to be asked every few
    /// seconds: no look at history.
    fn waiting(&self, endpoints: Vec<Arc<str>>) -> BoxFuture<'_, Result<Waiting, StoreError>>;

    /// What is paused.
    fn pauses(&self) -> BoxFuture<'_, Result<Vec<Pause>, StoreError>>;

    /// Pauses something until it is resumed. Returns whether it was not paused before; else it is paused since then.
    fn pause(&self, pause: Pause) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Ends a pause. Returns whether there was one.
    fn resume(&self, kind: PauseKind, name: Arc<str>) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Whether no work is left that will be done by itself: no run pending or retrying, no delivery waiting, for the
    /// endpoints named. Parked work does not count.
    fn is_idle(&self, endpoints: Vec<Arc<str>>) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Deliveries, newest first.
    fn list_deliveries(&self, filter: DeliveryFilter) -> BoxFuture<'_, Result<Vec<DeliverySummary>, StoreError>>;

    /// One delivery with its attempts; `None` where there is none of that id.
    fn show_delivery(&self, id: DeliveryId) -> BoxFuture<'_, Result<Option<DeliveryDetail>, StoreError>>;

    /// Dead letters, newest first.
    fn list_dead_letters(&self, filter: DeadLetterFilter) -> BoxFuture<'_, Result<Vec<DeadLetterSummary>, StoreError>>;

    /// One dead letter; `None` where there is none of that id.
    fn show_dead_letter(&self, id: i64) -> BoxFuture<'_, Result<Option<DeadLetterDetail>, StoreError>>;

    /// As [`History::redrive_paced`], all due at `now`.
    fn redrive(&self, filter: DeadLetterFilter, now: Timestamp) -> BoxFuture<'_, Result<Redriven, StoreError>> {
        self.redrive_paced(filter, Pace::at_once(now))
    }

    /// As [`History::discard_from`]. Returns how many.
    fn discard(&self, filter: DeadLetterFilter) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { Ok(self.discard_from(filter).await?.count) })
    }

    /// Deletes what is past its age, a bounded part at a time. Age is time that has passed: no step of the wall clock makes
    /// anything older. Returns whether more remains.
    fn sweep(&self, ages: Retention) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// The wall clock was set back by `by`, to `now`: what is due later by the clock before is due earlier by as much.
    fn clock_went_back(&self, by: Duration, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Tells the store that this host is alive; its claims hold while it says so.
    fn heartbeat(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Enters endpoints as active that are not known yet. Returns everyone known, by name.
    fn enter_endpoints(
        &self,
        names: Vec<Arc<str>>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<EndpointRecord>, StoreError>>;

    /// Changes an endpoint's state, if its verb leads anywhere from where it is.
    fn change_endpoint(
        &self,
        change: EndpointChange,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<EndpointChanged, StoreError>>;

    /// Keeps how endpoints fare, in place of what was kept before.
    fn keep_endpoint_health(&self, healths: Vec<(Arc<str>, EndpointHealth)>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Every endpoint that is known, or that something waits for. `held` are deliveries that this host holds in memory, of which
    /// the oldest due are to be among those looked at.
    fn list_endpoints(
        &self,
        held: Vec<(Arc<str>, DeliverySeq)>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<EndpointSummary>, StoreError>>;
}

/// What is older than this may go.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Finished events with their runs, deliveries and attempts.
    pub delivered: Duration,
    /// Dead letters with what they belong to.
    pub dead: Duration,
    /// Event keys kept to recognise a redelivery.
    pub dedup: Duration,
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The commit failed; nothing of it is durable, and the store reopens. Try again.
    #[error("the store could not commit: {0}; nothing of this was kept, try again")]
    Commit(String),
    /// What was deleted may still be in the file.
    #[error(
        "what was deleted is not gone from the file yet, which could not be written anew: {0}; `wirehook purge --rewrite` tries again"
    )]
    Rewrite(String),
    /// Reading failed.
    #[error("the store could not be read: {0}")]
    Read(String),
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
}
