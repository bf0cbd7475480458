//! A store in memory with dead letters only, for what talks to operators.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use wirehook::clock::Timestamp;
use wirehook::dead_letter::Reason;
use wirehook::delivery::DeliveryId;
use wirehook::store::{
    Accepted, Arrival, AttemptRecord, AttemptsRecorded, Backfill, Backfilled, Backlog, Changed, ClaimRoom, Claimed,
    ClaimedDelivery, ClaimedRun, Completed, DeadLetterDetail, DeadLetterFilter, DeadLetterKind, DeadLetterSummary,
    DeliveryChange, DeliveryDetail, DeliveryFilter, DeliverySeq, DeliverySummary, Discarded, EndpointChange,
    EndpointChanged, EndpointHealth, EndpointRecord, EndpointState, EndpointSummary, EventFilter, EventSeq,
    EventSummary, Forgotten, Found, History, KnownPlugin, Pace, ParkedFate, Pause, PauseKind, Purge, Purged,
    ReasonCount, Redriven, Retention, RunCompletion, Sought, SourceCursor, StateUsage, StateValue, Store, StoreError,
    StoreStatus, Waiting,
};

#[derive(Default)]
pub(crate) struct FakeStore {
    pub(crate) letters: Mutex<Vec<DeadLetterDetail>>,
    pub(crate) redriven_at: Mutex<Vec<Timestamp>>,
    pub(crate) endpoints: Mutex<Vec<EndpointRecord>>,
    pub(crate) pauses: Mutex<Vec<Pause>>,
    pub(crate) forgotten: Mutex<Vec<Arc<str>>>,
}

pub(crate) fn endpoint(name: &str, state: EndpointState, reason: &str) -> EndpointRecord {
    let health = EndpointHealth { last_success_at: Some(Timestamp(1_772_460_000_000)), ..EndpointHealth::default() };
    EndpointRecord {
        name: name.to_owned(),
        state,
        since: Timestamp(1_772_460_000_001),
        reason: reason.to_owned(),
        health,
    }
}

pub(crate) fn letter(
    id: i64,
    kind: DeadLetterKind,
    reason: Reason,
    plugin: &str,
    endpoint: Option<&str>,
) -> DeadLetterDetail {
    DeadLetterDetail {
        summary: DeadLetterSummary {
            id,
            kind,
            reason,
            detail: format!("detail {id}"),
            died_at: Timestamp(1_772_460_000_000 + id),
            event_key: format!("bus/id/{id}"),
            subject: "fraiseql.order.created".to_owned(),
            plugin: Some(plugin.to_owned()),
            endpoint: endpoint.map(str::to_owned),
            delivery_id: endpoint.map(|_| DeliveryId::from_stored(format!("msg_{id}"))),
            attempts: 1,
            last_status: endpoint.map(|_| 400),
            last_response: None,
        },
        payload: format!("{{\"id\":{id}}}"),
        event: None,
        plugin_digest: None,
        attempts_made: Vec::new(),
    }
}

impl FakeStore {
    pub(crate) fn with_letters() -> Arc<Self> {
        let letters = vec![
            letter(1, DeadLetterKind::Run, Reason::PluginTrap, "orders", None),
            letter(2, DeadLetterKind::Delivery, Reason::Status4xx, "orders", Some("shop")),
            letter(3, DeadLetterKind::Delivery, Reason::AttemptsExhausted, "ledger", Some("shop")),
            letter(4, DeadLetterKind::Message, Reason::Undecodable, "", None),
        ];
        let endpoints = vec![
            endpoint("ledger", EndpointState::Disabled, "it answered 410"),
            endpoint("shop", EndpointState::Active, "new in the settings"),
        ];
        Arc::new(Self { letters: Mutex::new(letters), endpoints: Mutex::new(endpoints), ..Self::default() })
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.letters.lock().unwrap().iter().map(|letter| letter.summary.id).collect()
    }

    fn matching(&self, filter: &DeadLetterFilter) -> Vec<DeadLetterDetail> {
        let matches = |letter: &&DeadLetterDetail| {
            let summary = &letter.summary;
            (filter.ids.is_empty() || filter.ids.contains(&summary.id))
                && filter.endpoint.as_ref().is_none_or(|endpoint| summary.endpoint.as_ref() == Some(endpoint))
                && filter.plugin.as_ref().is_none_or(|plugin| summary.plugin.as_ref() == Some(plugin))
                && filter.reason.is_none_or(|reason| summary.reason == reason)
                && filter.after.is_none_or(|after| summary.id > after)
                && filter.before.is_none_or(|before| summary.id < before)
                && filter.since.is_none_or(|since| summary.died_at >= since)
                && filter.until.is_none_or(|until| summary.died_at < until)
        };
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        self.letters.lock().unwrap().iter().rev().filter(matches).take(limit).cloned().collect()
    }

    fn remove(&self, ids: &[i64]) {
        self.letters.lock().unwrap().retain(|letter| !ids.contains(&letter.summary.id));
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

fn no<'a, T: Send + 'a>() -> Answer<'a, T> {
    async { Err(StoreError::Closed) }.boxed()
}

impl Store for FakeStore {
    fn accept_at(&self, _: Vec<Arrival>, _: Option<SourceCursor>, _: Timestamp) -> Answer<'_, Accepted> {
        no()
    }
    fn cursor(&self, _: Arc<str>) -> Answer<'_, Option<Bytes>> {
        no()
    }
    fn claim_runs_within(&self, _: Arc<str>, _: ClaimRoom, _: Timestamp) -> Answer<'_, Claimed<ClaimedRun>> {
        no()
    }
    fn complete_runs(&self, _: Vec<RunCompletion>) -> Answer<'_, Vec<Completed>> {
        no()
    }
    fn state_value(&self, _: &str, _: &str) -> Result<Option<StateValue>, StoreError> {
        Ok(None)
    }
    fn state_usage(&self, _: &str) -> Result<StateUsage, StoreError> {
        Ok(StateUsage::default())
    }
    fn claim_deliveries_within(&self, _: Arc<str>, _: ClaimRoom, _: Timestamp) -> Answer<'_, Claimed<ClaimedDelivery>> {
        no()
    }
    fn record(&self, _: Vec<AttemptRecord>) -> Answer<'_, AttemptsRecorded> {
        no()
    }
    fn expire(&self, _: Backlog, _: std::time::Duration, _: Timestamp) -> Answer<'_, u64> {
        no()
    }
    fn release(&self, _: Vec<(EventSeq, Arc<str>)>, _: Vec<DeliverySeq>) -> Answer<'_, ()> {
        no()
    }
    fn known_plugins(&self) -> Answer<'_, Vec<KnownPlugin>> {
        let orders = KnownPlugin { name: "orders".into(), subjects: Vec::new(), digest: "d1".into() };
        async { Ok(vec![orders]) }.boxed()
    }
    fn remember_plugin(&self, _: KnownPlugin, _: Timestamp) -> Answer<'_, u64> {
        no()
    }
    fn narrow_runs(&self, _: KnownPlugin, _: Timestamp) -> Answer<'_, u64> {
        async { Ok(0) }.boxed()
    }
    fn park_runs(&self, _: Arc<str>) -> Answer<'_, u64> {
        async { Ok(0) }.boxed()
    }
    fn status(&self, _: Timestamp) -> Answer<'_, StoreStatus> {
        let trapped =
            self.letters.lock().unwrap().iter().filter(|one| one.summary.reason == Reason::PluginTrap).count();
        let dead_letters = vec![ReasonCount { reason: Reason::PluginTrap, count: trapped as u64 }];
        async { Ok(StoreStatus { events: 7, dead_letters, ..StoreStatus::default() }) }.boxed()
    }
    fn waiting(&self, _: Vec<Arc<str>>) -> Answer<'_, Waiting> {
        no()
    }
    fn pauses(&self) -> Answer<'_, Vec<Pause>> {
        let pauses = self.pauses.lock().unwrap().clone();
        async { Ok(pauses) }.boxed()
    }
    fn pause(&self, pause: Pause) -> Answer<'_, bool> {
        let mut pauses = self.pauses.lock().unwrap();
        let fresh = !pauses.iter().any(|known| (known.kind, &known.name) == (pause.kind, &pause.name));
        pauses.extend(fresh.then_some(pause));
        async move { Ok(fresh) }.boxed()
    }
    fn resume(&self, kind: PauseKind, name: Arc<str>) -> Answer<'_, bool> {
        let mut pauses = self.pauses.lock().unwrap();
        let before = pauses.len();
        pauses.retain(|known| (known.kind, &known.name) != (kind, &name));
        let resumed = pauses.len() < before;
        async move { Ok(resumed) }.boxed()
    }
    fn is_idle(&self, _: Vec<Arc<str>>) -> Answer<'_, bool> {
        no()
    }
    fn list_deliveries(&self, _: DeliveryFilter) -> Answer<'_, Vec<DeliverySummary>> {
        no()
    }
    fn show_delivery(&self, _: DeliveryId) -> Answer<'_, Option<DeliveryDetail>> {
        async { Ok(None) }.boxed()
    }
    fn list_dead_letters(&self, filter: DeadLetterFilter) -> Answer<'_, Vec<DeadLetterSummary>> {
        let found = self.matching(&filter).into_iter().take(10_000).map(|letter| letter.summary).collect();
        async { Ok(found) }.boxed()
    }
    fn show_dead_letter(&self, id: i64) -> Answer<'_, Option<DeadLetterDetail>> {
        let found = self.letters.lock().unwrap().iter().find(|letter| letter.summary.id == id).cloned();
        async { Ok(found) }.boxed()
    }
    fn sweep(&self, _: Retention) -> Answer<'_, bool> {
        no()
    }
    fn clock_went_back(&self, _: std::time::Duration, _: Timestamp) -> Answer<'_, ()> {
        no()
    }
    fn heartbeat(&self, _: Timestamp) -> Answer<'_, ()> {
        no()
    }
    fn enter_endpoints(&self, _: Vec<Arc<str>>, _: Timestamp) -> Answer<'_, Vec<EndpointRecord>> {
        no()
    }
    fn change_endpoint(&self, change: EndpointChange, now: Timestamp) -> Answer<'_, EndpointChanged> {
        let mut endpoints = self.endpoints.lock().unwrap();
        let known = endpoints.iter().map(|record| record.name.clone()).collect();
        let Some(record) = endpoints.iter_mut().find(|record| *record.name == *change.name) else {
            return async { Ok(EndpointChanged::Unknown { known }) }.boxed();
        };
        let changed = match change.verb.apply(record.state) {
            Err(meant) => EndpointChanged::Refused { record: record.clone(), meant },
            Ok(state) if state == record.state => EndpointChanged::Already(record.clone()),
            Ok(state) => {
                *record = EndpointRecord { state, since: now, reason: change.reason, ..record.clone() };
                EndpointChanged::Done(record.clone())
            }
        };
        async { Ok(changed) }.boxed()
    }
    fn keep_endpoint_health(&self, _: Vec<(Arc<str>, EndpointHealth)>) -> Answer<'_, ()> {
        no()
    }
    fn list_endpoints(&self, _: Vec<(Arc<str>, DeliverySeq)>, _: Timestamp) -> Answer<'_, Vec<EndpointSummary>> {
        let summary = |record: &EndpointRecord| EndpointSummary {
            record: record.clone(),
            backlog: 7,
            oldest_due_at: Some(Timestamp(1_772_460_000_002)),
        };
        let summaries = self.endpoints.lock().unwrap().iter().map(summary).collect();
        async { Ok(summaries) }.boxed()
    }
}

impl History for FakeStore {
    fn change_deliveries(&self, _: DeliveryChange, _: Timestamp) -> Answer<'_, Changed> {
        no()
    }
    fn redrive_paced(&self, filter: DeadLetterFilter, pace: Pace) -> Answer<'_, Redriven> {
        let found = self.matching(&filter);
        let of = |kind| found.iter().filter(|letter| letter.summary.kind == kind).count() as u64;
        let redriven = Redriven {
            runs: of(DeadLetterKind::Run),
            deliveries: of(DeadLetterKind::Delivery),
            refused: of(DeadLetterKind::Message),
            last: found.iter().map(|letter| letter.summary.id).max(),
            plugins: found.iter().filter_map(|l| l.summary.plugin.as_deref().map(Arc::from)).collect(),
            endpoints: found.iter().filter_map(|l| l.summary.endpoint.as_deref().map(Arc::from)).collect(),
        };
        let gone: Vec<i64> =
            found.iter().filter(|l| l.summary.kind != DeadLetterKind::Message).map(|l| l.summary.id).collect();
        self.remove(&gone);
        self.redriven_at.lock().unwrap().push(pace.first);
        async { Ok(redriven) }.boxed()
    }
    fn discard_from(&self, filter: DeadLetterFilter) -> Answer<'_, Discarded> {
        let gone: Vec<i64> = self.matching(&filter).iter().map(|letter| letter.summary.id).collect();
        self.remove(&gone);
        async move { Ok(Discarded { count: gone.len() as u64, last: gone.into_iter().max() }) }.boxed()
    }
    fn export_dead_letters(&self, filter: DeadLetterFilter) -> Answer<'_, Vec<DeadLetterDetail>> {
        let mut found = self.matching(&DeadLetterFilter { limit: None, ..filter });
        found.reverse();
        found.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
        async { Ok(found) }.boxed()
    }
    fn trace(&self, _: Sought) -> Answer<'_, Vec<Found>> {
        async { Ok(Vec::new()) }.boxed()
    }
    fn purge(&self, _: Purge, _: Timestamp) -> Answer<'_, Purged> {
        no()
    }
    fn rewrite(&self) -> Answer<'_, ()> {
        no()
    }
    fn would_forget(&self, plugin: Arc<str>) -> Answer<'_, Forgotten> {
        let gone = self.forgotten.lock().unwrap().contains(&plugin);
        let forgotten = match *plugin == *"orders" && !gone {
            true => Forgotten { known: true, runs: 3, in_flight: 0, keys: 2 },
            false => Forgotten::default(),
        };
        async move { Ok(forgotten) }.boxed()
    }
    fn forget_plugin(&self, plugin: Arc<str>, _: ParkedFate, _: Timestamp) -> Answer<'_, Forgotten> {
        async move {
            let forgotten = self.would_forget(Arc::clone(&plugin)).await?;
            self.forgotten.lock().unwrap().push(plugin);
            Ok(forgotten)
        }
        .boxed()
    }
    fn list_events(&self, _: EventFilter) -> Answer<'_, Vec<EventSummary>> {
        no()
    }
    fn backfill(&self, _: Backfill, _: Timestamp) -> Answer<'_, Backfilled> {
        no()
    }
    fn index_some(&self) -> Answer<'_, bool> {
        no()
    }
    fn shrink(&self, _: u64) -> Answer<'_, bool> {
        no()
    }
    fn bytes(&self) -> Answer<'_, u64> {
        no()
    }
}
