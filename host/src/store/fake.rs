//! A store in memory for tests of what stands on it: it can be told to fail, and tells when something was asked of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    Acceptance, Accepted, Arrival, AttemptRecord, AttemptsRecorded, Backfill, Backfilled, Backlog, Changed, Claim,
    ClaimRoom, Claimed, ClaimedDelivery, ClaimedRun, Completed, DeadLetterDetail, DeadLetterFilter, DeadLetterSummary,
    DeliveryChange, DeliveryDetail, DeliveryFilter, DeliverySeq, DeliverySummary, Discarded, EndpointChange,
    EndpointChanged, EndpointHealth, EndpointRecord, EndpointSummary, EventFilter, EventSeq, EventSummary, Forgotten,
    Found, History, KnownPlugin, NewDelivery, Pace, ParkedFate, Pause, PauseKind, Place, Purge, Purged, Redriven,
    Retention, RunCompletion, RunOutcome, RunStart, Sought, SourceCursor, StateUsage, StateValue, Store, StoreError,
    StoreStatus, Waiting, Written,
};
use crate::clock::Timestamp;
use crate::delivery::{DeliveryId, Transition};
use crate::event::EventKey;
use crate::sync::lock;

/// Longer than anything a test waits for takes; reached only by a test that fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A store in memory.
pub(crate) struct FakeStore {
    seen: Mutex<Seen>,
    changed: watch::Sender<()>,
}

/// What was asked of it, and what it holds unclaimed.
#[derive(Default)]
pub(crate) struct Seen {
    /// Calls of the next kind that fail with [`StoreError::Commit`], by the method's name.
    pub(crate) failing: HashMap<&'static str, usize>,
    /// Calls, by the method's name; failed ones too.
    pub(crate) calls: HashMap<&'static str, usize>,
    /// Everything accepted, in order, duplicates too.
    pub(crate) arrivals: Vec<Arrival>,
    /// Completions that were made durable.
    pub(crate) completions: Vec<RunCompletion>,
    /// Attempts that were made durable.
    pub(crate) attempts: Vec<AttemptRecord>,
    /// Runs that nobody has claimed, with when they are due.
    pub(crate) runs: VecDeque<(Timestamp, ClaimedRun)>,
    /// Deliveries that nobody has claimed, with when they are due.
    pub(crate) deliveries: VecDeque<(Timestamp, ClaimedDelivery)>,
    /// Plugins remembered.
    pub(crate) plugins: Vec<KnownPlugin>,
    /// Plugins whose runs were to be parked.
    pub(crate) parked: Vec<Arc<str>>,
    /// Calls of these methods take effect one by one, as permits are given.
    pub(crate) held: HashMap<&'static str, Arc<Semaphore>>,
    /// What happens just before the next call of a method takes effect.
    pub(crate) before: HashMap<&'static str, Box<dyn FnOnce() + Send>>,
    /// Whether what becomes of arrivals is announced.
    pub(crate) announces: bool,
    /// Whether completions find that their runs are another host's by now.
    pub(crate) disowned: bool,
    /// Completions with state that find it changed, from the next on.
    pub(crate) conflicts: usize,
    /// What plugins keep, by plugin and key.
    pub(crate) state: HashMap<(String, String), StateValue>,
    /// Plugins whose backlog has no room.
    pub(crate) full: HashSet<&'static str>,
    /// Where new deliveries of these ids are put, whatever is asked for.
    pub(crate) places: HashMap<String, Place>,
    /// Endpoints that the next completion gives work to.
    pub(crate) freed: Vec<Arc<str>>,
    /// Deliveries whose turn it is once another has ended.
    pub(crate) behind: HashMap<DeliverySeq, ClaimedDelivery>,
    /// What was to be expired, and of which age.
    pub(crate) expired: Vec<(Backlog, Duration)>,
    /// What is paused.
    pub(crate) pauses: Vec<Pause>,
    /// The cursor last kept for each source.
    pub(crate) cursors: HashMap<Arc<str>, Bytes>,
    /// Changes of endpoints that were made durable.
    pub(crate) changes: Vec<EndpointChange>,
    /// How endpoints fared when that was kept last.
    pub(crate) healths: HashMap<Arc<str>, EndpointHealth>,
    /// Deliveries whose claims were given up.
    pub(crate) released: Vec<DeliverySeq>,
    known: HashMap<EventKey, [u8; 16]>,
    claimed: HashMap<DeliverySeq, ClaimedDelivery>,
    next: i64,
}

impl FakeStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { seen: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// Looks at what was asked, or changes what it holds.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut lock(&self.seen))
    }

    /// Has the next `count` calls of `method` fail.
    pub(crate) fn fail(&self, method: &'static str, count: usize) {
        self.look(|seen| seen.failing.insert(method, count));
    }

    /// Has calls of `method` wait from now on, each for a permit.
    pub(crate) fn hold_back(&self, method: &'static str) -> Arc<Semaphore> {
        let permits = Arc::new(Semaphore::new(0));
        self.look(|seen| seen.held.insert(method, Arc::clone(&permits)));
        permits
    }

    /// A delivery that its host holds from the start, as the outbox hands them over.
    pub(crate) fn hold(&self, delivery: &ClaimedDelivery) {
        self.look(|seen| seen.claimed.insert(delivery.seq, delivery.clone()));
    }

    /// Calls of `method` so far.
    pub(crate) fn calls(&self, method: &'static str) -> usize {
        self.look(|seen| seen.calls.get(method).copied().unwrap_or(0))
    }

    /// Waits until `condition` holds; it is looked at once, and then after every call.
    pub(crate) async fn wait_for(&self, what: &str, mut condition: impl FnMut(&Seen) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !self.look(|seen| condition(seen)) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("gave up waiting for {what}"));
    }

    fn answer<'a, T: Send + 'a>(
        &'a self,
        method: &'static str,
        work: impl FnOnce(&mut Seen) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        async move {
            let held = self.look(|seen| {
                *seen.calls.entry(method).or_default() += 1;
                seen.held.get(method).cloned()
            });
            self.changed.send_replace(());
            if let Some(held) = held {
                held.acquire().await.expect("nobody closes it").forget();
            }
            if let Some(before) = self.look(|seen| seen.before.remove(method)) {
                before();
            }
            let answer = self.look(|seen| match seen.failing.get_mut(method) {
                Some(left @ 1..) => {
                    *left -= 1;
                    Err(StoreError::Commit("told to fail".to_owned()))
                }
                _ => Ok(work(seen)),
            });
            self.changed.send_replace(());
            answer
        }
        .boxed()
    }
}

/// A delivery to `endpoint` that was never tried.
pub(crate) fn delivery(seq: i64, endpoint: &str) -> ClaimedDelivery {
    ClaimedDelivery {
        seq: DeliverySeq(seq),
        id: DeliveryId::from_stored(format!("msg_{seq}")),
        event_key: EventKey::new("bus", "id", seq),
        plugin: "orders".into(),
        endpoint: endpoint.into(),
        content_type: "application/json".to_owned(),
        headers: Vec::new(),
        body: Bytes::from(seq.to_string()),
        due_at: Timestamp(0),
        attempts_made: 0,
        attempts_before_budget: 0,
    }
}

impl Seen {
    fn seq(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn accept(&mut self, arrival: &Arrival, now: Timestamp, refused: &mut Vec<(EventSeq, Arc<str>)>) -> Acceptance {
        self.arrivals.push(arrival.clone());
        let Arrival::Event { event, runs } = arrival else { return Acceptance::Dead };
        match self.known.insert(event.key.clone(), event.body_digest) {
            Some(digest) if digest == event.body_digest => return Acceptance::Duplicate,
            Some(_) => return Acceptance::Conflict,
            None => {}
        }
        let seq = EventSeq(self.seq());
        let full = runs.iter().filter(|run| self.full.contains(&*run.plugin));
        refused.extend(full.map(|run| (seq, Arc::clone(&run.plugin))));
        for run in runs.iter().filter(|run| run.start == RunStart::Pending(Claim::Open)) {
            let (event, plugin) = (Arc::clone(event), Arc::clone(&run.plugin));
            self.runs.push_back((now, ClaimedRun { seq, event, plugin, attempts_made: 0, deadlines: 0, crashes: 0 }));
        }
        Acceptance::Fresh(seq)
    }

    fn complete(&mut self, completion: RunCompletion) -> Completed {
        if self.conflicts > 0 && completion.state.is_some() {
            self.conflicts -= 1;
            return Completed::Conflict;
        }
        let places: Vec<_> = match &completion.outcome {
            RunOutcome::Produced(deliveries) => deliveries.iter().map(|delivery| self.place(delivery)).collect(),
            _ => Vec::new(),
        };
        self.completions.push(completion);
        if self.disowned {
            return Completed::NotHeld;
        }
        let deliveries = places.iter().map(|_| DeliverySeq(self.seq())).collect();
        Completed::Ended(Written { deliveries, places, freed: std::mem::take(&mut self.freed) })
    }

    fn place(&self, delivery: &NewDelivery) -> Place {
        match (self.places.get(delivery.id.as_str()), delivery.claim) {
            (Some(place), _) => *place,
            (None, Claim::Here) => Place::Here,
            (None, Claim::Open) => Place::Open,
        }
    }

    fn record(&mut self, record: AttemptRecord) {
        match (self.claimed.remove(&record.delivery), &record.transition) {
            (Some(mut delivery), Transition::Retry { due_at }) => {
                delivery.attempts_made += 1;
                self.deliveries.push_back((*due_at, delivery));
            }
            (Some(delivery), Transition::Deferred { due_at }) => self.deliveries.push_back((*due_at, delivery)),
            _ => {}
        }
        self.attempts.push(record);
    }
}

/// Takes what is `wanted` and due out of `work`, as much as `room` has place for.
fn claim<T>(
    work: &mut VecDeque<(Timestamp, T)>,
    room: ClaimRoom,
    now: Timestamp,
    wanted: impl Fn(&T) -> bool,
    bytes_of: impl Fn(&T) -> usize,
) -> Claimed<T> {
    let mut claimed = Vec::new();
    let mut left = VecDeque::new();
    let (mut bytes_left, mut needs) = (room.bytes, 0);
    for (due_at, piece) in work.drain(..) {
        let may_be = wanted(&piece) && due_at <= now && claimed.len() < room.count && needs == 0;
        match bytes_left.checked_sub(bytes_of(&piece)) {
            Some(left) if may_be => {
                bytes_left = left;
                claimed.push(piece);
                continue;
            }
            None if may_be => needs = bytes_of(&piece),
            _ => {}
        }
        left.push_back((due_at, piece));
    }
    let needs = if claimed.is_empty() { needs } else { 0 };
    *work = left;
    let next_due = work.iter().filter(|(_, piece)| wanted(piece)).map(|(due_at, _)| *due_at).min();
    Claimed { work: claimed, next_due, needs }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl Store for FakeStore {
    fn accept_at(&self, arrivals: Vec<Arrival>, cursor: Option<SourceCursor>, now: Timestamp) -> Answer<'_, Accepted> {
        self.answer("accept", move |seen| {
            seen.cursors.extend(cursor.map(|cursor| (cursor.source, cursor.value)));
            let mut refused = Vec::new();
            let acceptances = arrivals.iter().map(|arrival| seen.accept(arrival, now, &mut refused)).collect();
            Accepted { acceptances, refused }
        })
    }
    fn accept_announced(
        &self,
        arrivals: Vec<Arrival>,
        cursor: Option<SourceCursor>,
        announce: oneshot::Sender<Accepted>,
        now: Timestamp,
    ) -> Answer<'_, Accepted> {
        if !self.look(|seen| seen.announces) {
            drop(announce);
            return self.accept_at(arrivals, cursor, now);
        }
        let accepted = self.look(|seen| {
            seen.cursors.extend(cursor.map(|cursor| (cursor.source, cursor.value)));
            let mut refused = Vec::new();
            let acceptances = arrivals.iter().map(|arrival| seen.accept(arrival, now, &mut refused)).collect();
            Accepted { acceptances, refused }
        });
        announce.send(accepted.clone()).expect("somebody listens");
        self.answer("accept", move |_| accepted)
    }
    fn cursor(&self, source: Arc<str>) -> Answer<'_, Option<Bytes>> {
        self.answer("cursor", move |seen| seen.cursors.get(&source).cloned())
    }
    fn claim_runs_within(&self, plugin: Arc<str>, room: ClaimRoom, now: Timestamp) -> Answer<'_, Claimed<ClaimedRun>> {
        self.answer("claim_runs", move |seen| {
            claim(&mut seen.runs, room, now, |run| run.plugin == plugin, |run| run.event.content_bytes())
        })
    }
    fn complete_runs(&self, completions: Vec<RunCompletion>) -> Answer<'_, Vec<Completed>> {
        self.answer("complete_runs", |seen| completions.into_iter().map(|one| seen.complete(one)).collect())
    }
    fn state_value(&self, plugin: &str, key: &str) -> Result<Option<StateValue>, StoreError> {
        self.answer("state_value", |seen| seen.state.get(&(plugin.to_owned(), key.to_owned())).cloned())
            .now_or_never()
            .expect("nothing here waits")
    }
    fn state_usage(&self, _: &str) -> Result<StateUsage, StoreError> {
        Ok(StateUsage::default())
    }
    fn claim_deliveries_within(
        &self,
        endpoint: Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> Answer<'_, Claimed<ClaimedDelivery>> {
        self.answer("claim_deliveries", move |seen| {
            let wanted = |delivery: &ClaimedDelivery| delivery.endpoint == endpoint;
            let claimed = claim(&mut seen.deliveries, room, now, wanted, ClaimedDelivery::content_bytes);
            seen.claimed.extend(claimed.work.iter().map(|delivery| (delivery.seq, delivery.clone())));
            claimed
        })
    }
    fn record(&self, records: Vec<AttemptRecord>) -> Answer<'_, AttemptsRecorded> {
        self.answer("record_attempts", |seen| {
            let ended = records.iter().filter(|record| !matches!(record.transition, Transition::Retry { .. }));
            let next = ended.filter_map(|record| seen.behind.remove(&record.delivery)).collect();
            records.into_iter().for_each(|record| seen.record(record));
            AttemptsRecorded { next, freed: Vec::new() }
        })
    }
    fn expire(&self, backlog: Backlog, age: Duration, _: Timestamp) -> Answer<'_, u64> {
        self.answer("expire", move |seen| {
            seen.expired.push((backlog, age));
            0
        })
    }
    fn release(&self, _: Vec<(EventSeq, Arc<str>)>, deliveries: Vec<DeliverySeq>) -> Answer<'_, ()> {
        self.answer("release", |seen| {
            for seq in deliveries {
                let held = seen.claimed.remove(&seq);
                seen.deliveries.extend(held.map(|delivery| (Timestamp(0), delivery)));
                seen.released.push(seq);
            }
        })
    }
    fn known_plugins(&self) -> Answer<'_, Vec<KnownPlugin>> {
        self.answer("known_plugins", |seen| seen.plugins.clone())
    }
    fn remember_plugin(&self, plugin: KnownPlugin, _: Timestamp) -> Answer<'_, u64> {
        self.answer("remember_plugin", |seen| {
            seen.plugins.retain(|known| known.name != plugin.name);
            seen.plugins.push(plugin);
            0
        })
    }
    fn narrow_runs(&self, _: KnownPlugin, _: Timestamp) -> Answer<'_, u64> {
        self.answer("narrow_runs", |_| 0)
    }
    fn park_runs(&self, plugin: Arc<str>) -> Answer<'_, u64> {
        self.answer("park_runs", |seen| {
            seen.parked.push(plugin);
            0
        })
    }
    fn status(&self, _: Timestamp) -> Answer<'_, StoreStatus> {
        self.answer("status", |_| StoreStatus::default())
    }
    fn waiting(&self, _: Vec<Arc<str>>) -> Answer<'_, Waiting> {
        self.answer("waiting", |_| Waiting::default())
    }
    fn pauses(&self) -> Answer<'_, Vec<Pause>> {
        self.answer("pauses", |seen| seen.pauses.clone())
    }
    fn pause(&self, pause: Pause) -> Answer<'_, bool> {
        self.answer("pause", |seen| {
            seen.pauses.push(pause);
            true
        })
    }
    fn resume(&self, kind: PauseKind, name: Arc<str>) -> Answer<'_, bool> {
        self.answer("resume", move |seen| {
            let before = seen.pauses.len();
            seen.pauses.retain(|pause| (pause.kind, &pause.name) != (kind, &name));
            seen.pauses.len() < before
        })
    }
    fn is_idle(&self, _: Vec<Arc<str>>) -> Answer<'_, bool> {
        self.answer("is_idle", |_| true)
    }
    fn list_deliveries(&self, _: DeliveryFilter) -> Answer<'_, Vec<DeliverySummary>> {
        self.answer("list_deliveries", |_| Vec::new())
    }
    fn show_delivery(&self, _: DeliveryId) -> Answer<'_, Option<DeliveryDetail>> {
        self.answer("show_delivery", |_| None)
    }
    fn list_dead_letters(&self, _: DeadLetterFilter) -> Answer<'_, Vec<DeadLetterSummary>> {
        self.answer("list_dead_letters", |_| Vec::new())
    }
    fn show_dead_letter(&self, _: i64) -> Answer<'_, Option<DeadLetterDetail>> {
        self.answer("show_dead_letter", |_| None)
    }
    fn sweep(&self, _: Retention) -> Answer<'_, bool> {
        self.answer("sweep", |_| false)
    }
    fn clock_went_back(&self, _: Duration, _: Timestamp) -> Answer<'_, ()> {
        self.answer("clock_went_back", |_| ())
    }
    fn heartbeat(&self, _: Timestamp) -> Answer<'_, ()> {
        self.answer("heartbeat", |_| ())
    }
    fn enter_endpoints(&self, _: Vec<Arc<str>>, _: Timestamp) -> Answer<'_, Vec<EndpointRecord>> {
        self.answer("enter_endpoints", |_| Vec::new())
    }
    fn change_endpoint(&self, change: EndpointChange, now: Timestamp) -> Answer<'_, EndpointChanged> {
        self.answer("change_endpoint", move |seen| {
            let known = seen.changes.iter().rev().find(|known| known.name == change.name);
            let before = known.and_then(|known| known.verb.apply(Default::default()).ok()).unwrap_or_default();
            match change.verb.apply(before) {
                Err(meant) => EndpointChanged::Refused { record: record(&change, before, now), meant },
                Ok(state) => {
                    let record = record(&change, state, now);
                    seen.changes.push(change);
                    EndpointChanged::Done(record)
                }
            }
        })
    }
    fn keep_endpoint_health(&self, healths: Vec<(Arc<str>, EndpointHealth)>) -> Answer<'_, ()> {
        self.answer("keep_endpoint_health", |seen| seen.healths.extend(healths))
    }
    fn list_endpoints(&self, _: Vec<(Arc<str>, DeliverySeq)>, _: Timestamp) -> Answer<'_, Vec<EndpointSummary>> {
        self.answer("list_endpoints", |_| Vec::new())
    }
}

fn record(change: &EndpointChange, state: super::EndpointState, now: Timestamp) -> EndpointRecord {
    let (name, reason) = (change.name.to_string(), change.reason.clone());
    EndpointRecord { name, state, since: now, reason, health: EndpointHealth::default() }
}

impl History for FakeStore {
    fn change_deliveries(&self, _: DeliveryChange, _: Timestamp) -> Answer<'_, Changed> {
        self.answer("change_deliveries", |_| Changed::default())
    }
    fn redrive_paced(&self, _: DeadLetterFilter, _: Pace) -> Answer<'_, Redriven> {
        self.answer("redrive", |_| Redriven::default())
    }
    fn discard_from(&self, _: DeadLetterFilter) -> Answer<'_, Discarded> {
        self.answer("discard", |_| Discarded::default())
    }
    fn export_dead_letters(&self, _: DeadLetterFilter) -> Answer<'_, Vec<DeadLetterDetail>> {
        self.answer("export_dead_letters", |_| Vec::new())
    }
    fn trace(&self, _: Sought) -> Answer<'_, Vec<Found>> {
        self.answer("trace", |_| Vec::new())
    }
    fn purge(&self, _: Purge, _: Timestamp) -> Answer<'_, Purged> {
        self.answer("purge", |_| Purged::default())
    }
    fn rewrite(&self) -> Answer<'_, ()> {
        self.answer("rewrite", |_| ())
    }
    fn would_forget(&self, plugin: Arc<str>) -> Answer<'_, Forgotten> {
        self.answer("would_forget", move |seen| {
            let known = seen.plugins.iter().any(|known| known.name == plugin);
            Forgotten { known, ..Forgotten::default() }
        })
    }
    fn forget_plugin(&self, plugin: Arc<str>, _: ParkedFate, _: Timestamp) -> Answer<'_, Forgotten> {
        self.answer("forget_plugin", move |seen| {
            let before = seen.plugins.len();
            seen.plugins.retain(|known| known.name != plugin);
            Forgotten { known: seen.plugins.len() < before, ..Forgotten::default() }
        })
    }
    fn list_events(&self, _: EventFilter) -> Answer<'_, Vec<EventSummary>> {
        self.answer("list_events", |_| Vec::new())
    }
    fn backfill(&self, _: Backfill, _: Timestamp) -> Answer<'_, Backfilled> {
        self.answer("backfill", |_| Backfilled::default())
    }
    fn index_some(&self) -> Answer<'_, bool> {
        self.answer("index_some", |_| false)
    }
    fn shrink(&self, _: u64) -> Answer<'_, bool> {
        self.answer("shrink", |_| false)
    }
    fn bytes(&self) -> Answer<'_, u64> {
        self.answer("bytes", |_| 0)
    }
}
