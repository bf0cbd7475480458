//! What every [`Store`] does. Each property opens fresh stores through the factory it is given; `for_each_property!`
//! in the suite's runner names them all.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use wirehook::clock::Timestamp;
use wirehook::dead_letter::Reason;
use wirehook::delivery::{DeliveryId, Distinct, Transition};
use wirehook::event::{Event, EventKey};
use wirehook::store::{
    Acceptance, Arrival, AttemptRecord, Claim, ClaimedDelivery, DeadLetterFilter, DeadLetterKind, DeadMessage,
    DeliveryFilter, DeliverySeq, DeliveryState, EventSeq, KnownPlugin, NewDelivery, NewRun, Retention, RunCompletion,
    RunOutcome, RunStart, Store, StoreError, StoreStatus,
};

/// Opens a fresh store.
pub trait Factory: Fn() -> Arc<dyn Store> {}
impl<F: Fn() -> Arc<dyn Store>> Factory for F {}

/// Runs `$each!(name)` for every property.
#[macro_export]
macro_rules! for_each_store_property {
    ($each:ident) => {
        $each!(
            accepts_a_key_once,
            tells_a_conflict_from_a_duplicate,
            keeps_a_conflict_once,
            keeps_a_dead_message_once,
            accepts_all_or_none_of_a_call_in_order,
            gives_an_event_back_as_it_came,
            claims_only_what_is_open,
            claims_runs_oldest_due_first,
            release_makes_work_due_again,
            gives_up_claims_of_a_caller_that_left,
            completes_a_run_once,
            completes_only_claimed_runs,
            writes_a_delivery_id_once_for_a_run,
            retries_a_run_when_due,
            parks_and_unparks_runs,
            a_dead_run_is_a_dead_letter,
            gives_a_delivery_back_as_it_came,
            claims_deliveries_earliest_due_first,
            records_an_attempt_once,
            a_dead_delivery_is_a_dead_letter,
            redrives_with_a_new_budget,
            refuses_to_redrive_messages,
            redrives_and_discards_what_the_filter_means,
            discards_for_good,
            counts_what_is_in_it,
            is_idle_when_nothing_will_happen_by_itself,
            sweeps_what_is_past_its_age_only,
            forgets_keys_by_their_own_age,
            lists_newest_first_within_the_limit,
            remembers_plugins,
        );
    };
}

/// The moment at which every property begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000);

/// `START` and some milliseconds.
pub fn at(offset_ms: i64) -> Timestamp {
    Timestamp(START.0 + offset_ms)
}

/// An event of source `bus` whose key and body are `id`.
pub fn event(id: &str) -> Event {
    event_with_body(id, id)
}

/// An event with the key `id` and a body of its own.
pub fn event_with_body(id: &str, body: &str) -> Event {
    let mut body_digest = [0; 16];
    for (index, byte) in body.bytes().enumerate() {
        body_digest[index % 16] ^= byte.rotate_left((index / 16 % 8) as u32);
    }
    Event {
        key: EventKey::new("bus", "id", id),
        source: "bus".into(),
        subject: "fraiseql.order.created".to_owned(),
        entity_type: "order".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some(id.to_owned()),
        tenant_id: None,
        timestamp: Some("2027-01-15T08:00:00Z".to_owned()),
        entity: Some(Bytes::from(format!("{{\"body\":\"{body}\"}}"))),
        previous: None,
        attributes: vec![("source".to_owned(), "bus".to_owned())],
        body_digest,
    }
}

/// `event` arriving, with a run of each plugin.
pub fn arrival(event: Event, plugins: &[&str], start: RunStart) -> Arrival {
    let runs = plugins.iter().map(|plugin| NewRun { plugin: (*plugin).into(), start }).collect();
    Arrival::Event { event: Arc::new(event), runs }
}

/// A run that this host holds.
pub const HERE: RunStart = RunStart::Pending(Claim::Here);

/// A run that waits.
pub const OPEN: RunStart = RunStart::Pending(Claim::Open);

/// A message that never became an event.
pub fn dead_message(key: &str, payload: &'static [u8]) -> Arrival {
    let mut body_digest = [0; 16];
    payload.iter().enumerate().for_each(|(index, byte)| body_digest[index % 16] ^= byte);
    Arrival::Dead(DeadMessage {
        key: EventKey::new("bus", "position", key),
        source: "bus".into(),
        subject: "orders".into(),
        payload: Bytes::from_static(payload),
        body_digest,
        reason: Reason::Undecodable,
        detail: "not JSON".to_owned(),
    })
}

/// Accepts one event with runs; its position.
pub async fn accept(store: &dyn Store, id: &str, plugins: &[&str], start: RunStart, now: Timestamp) -> EventSeq {
    match store.accept(vec![arrival(event(id), plugins, start)], now).await.unwrap()[0] {
        Acceptance::Fresh(seq) => seq,
        other => panic!("{id} should be fresh, is {other:?}"),
    }
}

/// The end of a try at `ended_at`.
pub fn completion(seq: EventSeq, plugin: &str, ended_at: Timestamp, outcome: RunOutcome) -> RunCompletion {
    RunCompletion { seq, plugin: plugin.into(), plugin_digest: "d1".into(), ended_at, outcome }
}

/// A delivery of `plugin` for the event `id` to `endpoint`.
pub fn delivery(id: &str, plugin: &str, endpoint: &str, index: u32, claim: Claim) -> NewDelivery {
    NewDelivery {
        id: DeliveryId::derive(&EventKey::new("bus", "id", id), plugin, endpoint, Distinct::Index(index), 0),
        endpoint: endpoint.into(),
        content_type: "application/json".to_owned(),
        headers: vec![("x-order".to_owned(), id.to_owned())],
        body: Bytes::from(format!("{{\"order\":\"{id}\"}}")),
        claim,
    }
}

/// Accepts and completes one event with one delivery by `orders` to `shop`; the delivery's position and id.
pub async fn deliver(store: &dyn Store, id: &str, claim: Claim, now: Timestamp) -> (DeliverySeq, DeliveryId) {
    let seq = accept(store, id, &["orders"], HERE, now).await;
    let new = delivery(id, "orders", "shop", 0, claim);
    let webhook_id = new.id.clone();
    let outcome = RunOutcome::Produced(vec![new]);
    let written = store.complete_runs(vec![completion(seq, "orders", now, outcome)]).await.unwrap();
    (written[0][0], webhook_id)
}

/// An attempt that took 20 ms.
pub fn attempt(delivery: DeliverySeq, number: u32, started_at: Timestamp, transition: Transition) -> AttemptRecord {
    let status = match transition {
        Transition::Delivered => 200,
        Transition::Retry { .. } => 503,
        Transition::Dead { .. } => 400,
    };
    AttemptRecord {
        delivery,
        number,
        started_at,
        duration: Duration::from_millis(20),
        status: Some(status),
        error: None,
        response: Bytes::from_static(b"said so"),
        transition,
    }
}

/// The transition to a dead letter.
pub const DEAD: Transition = Transition::Dead { reason: Reason::Status4xx };

async fn due_runs(store: &dyn Store, plugin: &str, now: Timestamp) -> Vec<(EventSeq, u32)> {
    let claimed = store.claim_runs(plugin.into(), 100, now).await.unwrap();
    claimed.work.iter().map(|run| (run.seq, run.attempts_made)).collect()
}

async fn due_deliveries(store: &dyn Store, endpoint: &str, now: Timestamp) -> Vec<ClaimedDelivery> {
    store.claim_deliveries(endpoint.into(), 100, now).await.unwrap().work
}

async fn status(store: &dyn Store) -> StoreStatus {
    let status = store.status(START).await.unwrap();
    assert_eq!(status.events_unaccounted, 0, "every event is accounted for");
    status
}

fn runs_in(status: &StoreStatus, plugin: &str, state: &str) -> u64 {
    status.runs.iter().filter(|count| count.plugin == plugin && count.state == state).map(|count| count.count).sum()
}

fn deliveries_in(status: &StoreStatus, endpoint: &str, state: DeliveryState) -> u64 {
    let of = status.deliveries.iter().filter(|count| count.endpoint == endpoint && count.state == state);
    of.map(|count| count.count).sum()
}

/// A redelivery is recognised, across calls and within one.
pub async fn accepts_a_key_once(stores: impl Factory) {
    let store = stores();
    let seq = accept(&*store, "a", &["orders"], OPEN, START).await;
    let twice = vec![
        arrival(event("b"), &["orders"], OPEN),
        arrival(event("b"), &["orders"], OPEN),
        arrival(event("a"), &["orders"], OPEN),
    ];
    let acceptances = store.accept(twice, at(1)).await.unwrap();
    let [Acceptance::Fresh(second), Acceptance::Duplicate, Acceptance::Duplicate] = acceptances[..] else {
        panic!("{acceptances:?}")
    };
    assert!(second > seq, "positions rise");
    assert_eq!(due_runs(&*store, "orders", at(1)).await, [(seq, 0), (second, 0)]);
    assert_eq!(status(&*store).await.events, 2);
}

/// The same key with another body is a conflict, kept with its payload.
pub async fn tells_a_conflict_from_a_duplicate(stores: impl Factory) {
    let store = stores();
    accept(&*store, "a", &["orders"], HERE, START).await;
    let other = arrival(event_with_body("a", "other"), &["orders"], HERE);
    assert_eq!(store.accept(vec![other], at(1)).await.unwrap(), [Acceptance::Conflict]);
    let letters = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();
    assert_eq!((letters.len(), letters[0].kind, letters[0].reason), (1, DeadLetterKind::Message, Reason::IdConflict));
    assert_eq!((letters[0].died_at, letters[0].event_key.as_str()), (at(1), "bus/id/a"));
    let letter = store.show_dead_letter(letters[0].id).await.unwrap().unwrap();
    assert_eq!(letter.payload, "{\"body\":\"other\"}");
    assert_eq!(status(&*store).await.events, 1, "a conflict is no event");
}

/// A conflicting body that is redelivered is no second dead letter; a third body is.
pub async fn keeps_a_conflict_once(stores: impl Factory) {
    let store = stores();
    accept(&*store, "a", &[], HERE, START).await;
    for (body, letters) in [("x", 1), ("x", 1), ("y", 2), ("a", 2)] {
        let acceptance = store.accept(vec![arrival(event_with_body("a", body), &[], HERE)], START).await.unwrap()[0];
        let expected = if body == "a" { Acceptance::Duplicate } else { Acceptance::Conflict };
        assert_eq!(acceptance, expected, "{body}");
        assert_eq!(store.list_dead_letters(DeadLetterFilter::default()).await.unwrap().len(), letters, "{body}");
    }
}

/// A message that never became an event is kept with its bytes, once.
pub async fn keeps_a_dead_message_once(stores: impl Factory) {
    let store = stores();
    let message = || dead_message("7", b"\xff\xfenot json");
    assert_eq!(
        store.accept(vec![message(), message()], START).await.unwrap(),
        [Acceptance::Dead, Acceptance::Duplicate]
    );
    assert_eq!(store.accept(vec![message()], at(1)).await.unwrap(), [Acceptance::Duplicate]);
    assert_eq!(store.accept(vec![dead_message("7", b"more")], at(1)).await.unwrap(), [Acceptance::Conflict]);
    let letters = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();
    assert_eq!(
        letters.iter().map(|letter| letter.reason).collect::<Vec<_>>(),
        [Reason::IdConflict, Reason::Undecodable]
    );
    let letter = store.show_dead_letter(letters[1].id).await.unwrap().unwrap();
    assert_eq!(letter.payload, format!("hex:{}", hex::encode(b"\xff\xfenot json")));
    assert_eq!((letter.summary.subject.as_str(), letter.summary.detail.as_str()), ("orders", "not JSON"));
}

/// One result for each arrival, in order, whatever they are.
pub async fn accepts_all_or_none_of_a_call_in_order(stores: impl Factory) {
    let store = stores();
    accept(&*store, "old", &[], HERE, START).await;
    let mixed = vec![
        arrival(event("new"), &[], HERE),
        dead_message("1", b"{"),
        arrival(event("old"), &[], HERE),
        arrival(event_with_body("new", "x"), &[], HERE),
    ];
    let acceptances = store.accept(mixed, at(1)).await.unwrap();
    assert!(
        matches!(
            acceptances[..],
            [Acceptance::Fresh(_), Acceptance::Dead, Acceptance::Duplicate, Acceptance::Conflict]
        ),
        "{acceptances:?}"
    );
}

/// Every field of an event survives, bytes that are no text too.
pub async fn gives_an_event_back_as_it_came(stores: impl Factory) {
    let store = stores();
    let whole = Event {
        tenant_id: Some("tenant".to_owned()),
        previous: Some(Bytes::from_static(b"{\"was\":1}")),
        entity: Some(Bytes::from_static(b"\xff\x00\xfe")),
        attributes: vec![
            ("b".to_owned(), "2".to_owned()),
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "3".to_owned()),
        ],
        ..event("whole")
    };
    let bare = Event {
        entity_id: None,
        timestamp: None,
        entity: None,
        attributes: Vec::new(),
        subject: "Zürich ✓".to_owned(),
        ..event("bare")
    };
    let arrivals = vec![arrival(whole.clone(), &["orders"], OPEN), arrival(bare.clone(), &["orders"], OPEN)];
    store.accept(arrivals, START).await.unwrap();
    let claimed = store.claim_runs("orders".into(), 10, START).await.unwrap();
    assert_eq!(claimed.work.iter().map(|run| (*run.event).clone()).collect::<Vec<_>>(), [whole, bare]);
}

/// Work held here, parked work and other plugins' work are not to be claimed; nor is anything claimed twice.
pub async fn claims_only_what_is_open(stores: impl Factory) {
    let store = stores();
    accept(&*store, "here", &["orders"], HERE, START).await;
    accept(&*store, "parked", &["orders"], RunStart::Parked, START).await;
    accept(&*store, "other", &["invoices"], OPEN, START).await;
    let open = accept(&*store, "open", &["orders"], OPEN, START).await;
    assert_eq!(due_runs(&*store, "orders", START).await, [(open, 0)]);
    assert_eq!(due_runs(&*store, "orders", START).await, []);
}

/// Oldest first, at most the limit, and the next due moment told.
pub async fn claims_runs_oldest_due_first(stores: impl Factory) {
    let store = stores();
    let late = accept(&*store, "late", &["orders"], OPEN, at(20)).await;
    let early = accept(&*store, "early", &["orders"], OPEN, at(10)).await;
    let future = accept(&*store, "future", &["orders"], OPEN, at(500)).await;
    let claimed = store.claim_runs("orders".into(), 1, at(100)).await.unwrap();
    assert_eq!((claimed.work[0].seq, claimed.work.len(), claimed.next_due), (early, 1, Some(at(20))));
    let claimed = store.claim_runs("orders".into(), 5, at(100)).await.unwrap();
    assert_eq!((claimed.work[0].seq, claimed.work.len(), claimed.next_due), (late, 1, Some(at(500))));
    let claimed = store.claim_runs("orders".into(), 5, at(500)).await.unwrap();
    assert_eq!((claimed.work[0].seq, claimed.work.len(), claimed.next_due), (future, 1, None));
}

/// Work given up is due at once, for whoever asks.
pub async fn release_makes_work_due_again(stores: impl Factory) {
    let store = stores();
    let run = accept(&*store, "run", &["orders"], HERE, START).await;
    let (sent, _) = deliver(&*store, "sent", Claim::Here, START).await;
    assert!(due_deliveries(&*store, "shop", START).await.is_empty());
    store.release(vec![(run, "orders".into())], vec![sent]).await.unwrap();
    assert_eq!(due_runs(&*store, "orders", START).await, [(run, 0)]);
    assert_eq!(due_deliveries(&*store, "shop", START).await[0].seq, sent);
    assert_eq!(due_runs(&*store, "orders", START).await, [], "claimed again");
}

/// A caller that asks and goes away does not take the work with it, be it work it brought or work it asked for.
pub async fn gives_up_claims_of_a_caller_that_left(stores: impl Factory) {
    let store = stores();
    leave(&*store, store.accept(vec![arrival(event("a"), &["orders"], HERE)], START)).await;
    let mut claimed = Vec::new();
    // Claims are given up a group after they were made: soon, but not at once.
    for _ in 0..10_000 {
        leave(&*store, async { Ok(due_runs(&*store, "orders", START).await) }.boxed()).await;
        claimed.extend(due_runs(&*store, "orders", START).await);
        if !claimed.is_empty() {
            break;
        }
    }
    assert_eq!(claimed.len(), 1, "the run became due again");
}

/// Begins `call` and goes away; what it brought already is given back.
async fn leave<T>(store: &dyn Store, mut call: BoxFuture<'_, Result<T, StoreError>>) {
    if (&mut call).now_or_never().is_some() {
        drop(call);
        store.release(vec![(EventSeq(1), "orders".into())], Vec::new()).await.unwrap();
    }
}

/// A completed run never runs again, and completing it again changes nothing.
pub async fn completes_a_run_once(stores: impl Factory) {
    let store = stores();
    let a = accept(&*store, "a", &["orders"], HERE, START).await;
    let b = accept(&*store, "b", &["orders"], HERE, START).await;
    let produced = || RunOutcome::Produced(vec![delivery("a", "orders", "shop", 0, Claim::Open)]);
    let completions = vec![
        completion(a, "orders", at(1), produced()),
        completion(a, "orders", at(1), produced()),
        completion(b, "orders", at(1), RunOutcome::Produced(Vec::new())),
    ];
    let written = store.complete_runs(completions).await.unwrap();
    assert_eq!(written.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 0]);
    let again = store.complete_runs(vec![completion(a, "orders", at(2), produced())]).await.unwrap();
    assert_eq!(again, [vec![]]);
    let status = status(&*store).await;
    assert_eq!((runs_in(&status, "orders", "produced"), runs_in(&status, "orders", "filtered")), (1, 1));
    assert_eq!(due_deliveries(&*store, "shop", at(2)).await.len(), 1);
    assert_eq!(due_runs(&*store, "orders", at(9_999_999)).await, []);
}

/// Whoever lost its claim has no say.
pub async fn completes_only_claimed_runs(stores: impl Factory) {
    let store = stores();
    let open = accept(&*store, "open", &["orders"], OPEN, START).await;
    let outcomes = [
        RunOutcome::Produced(vec![delivery("open", "orders", "shop", 0, Claim::Here)]),
        RunOutcome::Dead { reason: Reason::PluginTrap, detail: "trap".to_owned() },
        RunOutcome::Parked,
    ];
    for outcome in outcomes {
        assert_eq!(store.complete_runs(vec![completion(open, "orders", START, outcome)]).await.unwrap(), [vec![]]);
    }
    let unknown = completion(EventSeq(open.0 + 1000), "orders", START, RunOutcome::Produced(Vec::new()));
    assert_eq!(store.complete_runs(vec![unknown]).await.unwrap(), [vec![]]);
    assert_eq!(due_runs(&*store, "orders", START).await, [(open, 0)]);
    assert!(store.list_deliveries(DeliveryFilter::default()).await.unwrap().is_empty());
}

/// Two webhooks of one id are one delivery.
pub async fn writes_a_delivery_id_once_for_a_run(stores: impl Factory) {
    let store = stores();
    let seq = accept(&*store, "a", &["orders"], HERE, START).await;
    let twice = vec![
        delivery("a", "orders", "shop", 0, Claim::Open),
        delivery("a", "orders", "shop", 0, Claim::Open),
        delivery("a", "orders", "shop", 1, Claim::Open),
    ];
    let written =
        store.complete_runs(vec![completion(seq, "orders", START, RunOutcome::Produced(twice))]).await.unwrap();
    assert_eq!(written[0].len(), 2);
    assert_eq!(due_deliveries(&*store, "shop", START).await.len(), 2);
    status(&*store).await;
}

/// A retrying run comes back when it is due, and knows its tries.
pub async fn retries_a_run_when_due(stores: impl Factory) {
    let store = stores();
    let seq = accept(&*store, "a", &["orders"], HERE, START).await;
    let retry = RunOutcome::Retry { due_at: at(1000), detail: "not yet".to_owned() };
    store.complete_runs(vec![completion(seq, "orders", at(5), retry)]).await.unwrap();
    let early = store.claim_runs("orders".into(), 10, at(999)).await.unwrap();
    assert_eq!((early.work.len(), early.next_due), (0, Some(at(1000))));
    assert_eq!(due_runs(&*store, "orders", at(1000)).await, [(seq, 1)]);
    let done = completion(seq, "orders", at(1001), RunOutcome::Produced(Vec::new()));
    store.complete_runs(vec![done]).await.unwrap();
    assert_eq!(runs_in(&status(&*store).await, "orders", "filtered"), 1);
}

/// Parked runs wait for their plugin, spend no try, and come back when it is remembered.
pub async fn parks_and_unparks_runs(stores: impl Factory) {
    let store = stores();
    let born_parked = accept(&*store, "a", &["orders"], RunStart::Parked, START).await;
    let gone_missing = accept(&*store, "b", &["orders"], HERE, at(1)).await;
    let waiting = accept(&*store, "c", &["orders", "invoices"], OPEN, at(2)).await;
    let retrying = accept(&*store, "d", &["orders"], HERE, at(3)).await;
    let retry = RunOutcome::Retry { due_at: at(4), detail: String::new() };
    let ends = vec![
        completion(gone_missing, "orders", at(3), RunOutcome::Parked),
        completion(retrying, "orders", at(3), retry),
    ];
    store.complete_runs(ends).await.unwrap();
    assert_eq!(store.park_runs("orders".into()).await.unwrap(), 2);
    assert_eq!(runs_in(&status(&*store).await, "orders", "parked"), 4);
    assert_eq!(due_runs(&*store, "orders", at(1000)).await, []);
    assert_eq!(due_runs(&*store, "invoices", at(1000)).await, [(waiting, 0)]);
    let plugin = KnownPlugin { name: "orders".into(), subjects: vec!["fraiseql.>".to_owned()], digest: "d2".into() };
    assert_eq!(store.remember_plugin(plugin).await.unwrap(), 4);
    let due = due_runs(&*store, "orders", at(1000)).await;
    assert_eq!(due, [(born_parked, 0), (gone_missing, 0), (waiting, 0), (retrying, 1)]);
}

/// A dead run is listed with its reason, tries and event.
pub async fn a_dead_run_is_a_dead_letter(stores: impl Factory) {
    let store = stores();
    let seq = accept(&*store, "a", &["orders"], HERE, START).await;
    let dead = RunOutcome::Dead { reason: Reason::PluginTrap, detail: "unreachable".to_owned() };
    store.complete_runs(vec![completion(seq, "orders", at(7), dead)]).await.unwrap();
    let letters = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();
    let letter = &letters[0];
    assert_eq!((letters.len(), letter.kind, letter.reason), (1, DeadLetterKind::Run, Reason::PluginTrap));
    assert_eq!((letter.detail.as_str(), letter.died_at, letter.attempts), ("unreachable", at(7), 1));
    assert_eq!((letter.plugin.as_deref(), letter.endpoint.as_deref()), (Some("orders"), None));
    let whole = store.show_dead_letter(letter.id).await.unwrap().unwrap();
    assert_eq!(whole.payload, "{\"body\":\"a\"}");
    assert!(store.show_dead_letter(letter.id + 1).await.unwrap().is_none());
    status(&*store).await;
}

/// Every field of a delivery survives, bytes that are no text too.
pub async fn gives_a_delivery_back_as_it_came(stores: impl Factory) {
    let store = stores();
    let seq = accept(&*store, "a", &["orders"], HERE, START).await;
    let binary = NewDelivery {
        content_type: "application/octet-stream".to_owned(),
        headers: vec![
            ("x-b".to_owned(), "2".to_owned()),
            ("x-a".to_owned(), "1".to_owned()),
            ("x-b".to_owned(), "3".to_owned()),
        ],
        body: Bytes::from_static(b"\x00\xff\xfe"),
        ..delivery("a", "orders", "shop", 0, Claim::Open)
    };
    let empty =
        NewDelivery { body: Bytes::new(), headers: Vec::new(), ..delivery("a", "orders", "shop", 1, Claim::Open) };
    let produced = RunOutcome::Produced(vec![binary.clone(), empty.clone()]);
    let written = store.complete_runs(vec![completion(seq, "orders", START, produced)]).await.unwrap();
    let claimed = due_deliveries(&*store, "shop", START).await;
    for ((claimed, new), seq) in claimed.iter().zip([&binary, &empty]).zip(&written[0]) {
        let expected = ClaimedDelivery {
            seq: *seq,
            id: new.id.clone(),
            event_key: EventKey::new("bus", "id", "a"),
            plugin: "orders".into(),
            endpoint: "shop".into(),
            content_type: new.content_type.clone(),
            headers: new.headers.clone(),
            body: new.body.clone(),
            attempts_made: 0,
            attempts_before_budget: 0,
        };
        assert_eq!(*claimed, expected);
    }
    assert_eq!(claimed.len(), 2);
    let shown = store.show_delivery(binary.id).await.unwrap().unwrap();
    assert_eq!(
        (shown.body.as_str(), shown.headers, shown.plugin_digest.as_str()),
        ("hex:00fffe", binary.headers, "d1")
    );
}

/// Earliest due first, at most the limit, only to the endpoint named, and the next due moment told.
pub async fn claims_deliveries_earliest_due_first(stores: impl Factory) {
    let store = stores();
    let (late, _) = deliver(&*store, "late", Claim::Open, at(20)).await;
    let (early, _) = deliver(&*store, "early", Claim::Open, at(10)).await;
    let (held, _) = deliver(&*store, "held", Claim::Here, at(5)).await;
    store.record_attempts(vec![attempt(held, 1, at(5), Transition::Retry { due_at: at(300) })]).await.unwrap();
    let claimed = store.claim_deliveries("shop".into(), 1, at(100)).await.unwrap();
    assert_eq!((claimed.work[0].seq, claimed.work.len(), claimed.next_due), (early, 1, Some(at(20))));
    let claimed = store.claim_deliveries("shop".into(), 9, at(100)).await.unwrap();
    assert_eq!((claimed.work[0].seq, claimed.work.len(), claimed.next_due), (late, 1, Some(at(300))));
    let claimed = store.claim_deliveries("elsewhere".into(), 9, at(1000)).await.unwrap();
    assert_eq!((claimed.work.len(), claimed.next_due), (0, None));
    let claimed = store.claim_deliveries("shop".into(), 9, at(300)).await.unwrap();
    assert_eq!((claimed.work[0].seq, claimed.work[0].attempts_made, claimed.next_due), (held, 1, None));
}

/// Recording an attempt again changes nothing, whatever it says the second time.
pub async fn records_an_attempt_once(stores: impl Factory) {
    let store = stores();
    let (seq, id) = deliver(&*store, "a", Claim::Here, START).await;
    let first = attempt(seq, 1, at(10), Transition::Retry { due_at: at(100) });
    store.record_attempts(vec![first.clone(), first.clone()]).await.unwrap();
    store.record_attempts(vec![first.clone()]).await.unwrap();
    assert_eq!(due_deliveries(&*store, "shop", at(100)).await[0].attempts_made, 1);
    store.record_attempts(vec![AttemptRecord { transition: DEAD, ..first }]).await.unwrap();
    let refused = AttemptRecord {
        status: None,
        error: Some("connection refused".to_owned()),
        response: Bytes::new(),
        ..attempt(seq, 2, at(100), Transition::Delivered)
    };
    store.record_attempts(vec![refused.clone()]).await.unwrap();
    store.record_attempts(vec![attempt(seq, 3, at(200), DEAD), refused]).await.unwrap();
    let shown = store.show_delivery(id).await.unwrap().unwrap();
    assert_eq!((shown.summary.state, shown.summary.attempts), (DeliveryState::Delivered, 2));
    assert_eq!((shown.summary.last_status, shown.summary.last_error.as_deref()), (None, Some("connection refused")));
    assert_eq!(shown.summary.due_at, None);
    let attempts: Vec<_> = shown.attempts_made.iter().map(|made| (made.number, made.started_at, made.status)).collect();
    assert_eq!(attempts, [(1, at(10), Some(503)), (2, at(100), None)]);
    assert_eq!((shown.attempts_made[0].response.as_str(), shown.attempts_made[0].duration_s), ("said so", 0.02));
    status(&*store).await;
}

/// A dead delivery is listed with what the endpoint said.
pub async fn a_dead_delivery_is_a_dead_letter(stores: impl Factory) {
    let store = stores();
    let (seq, id) = deliver(&*store, "a", Claim::Here, START).await;
    store.record_attempts(vec![attempt(seq, 1, at(10), DEAD)]).await.unwrap();
    let letters = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();
    let letter = &letters[0];
    assert_eq!((letters.len(), letter.kind, letter.reason), (1, DeadLetterKind::Delivery, Reason::Status4xx));
    assert_eq!((letter.attempts, letter.last_status, letter.last_response.as_deref()), (1, Some(400), Some("said so")));
    assert_eq!((letter.endpoint.as_deref(), letter.delivery_id.clone()), (Some("shop"), Some(id)));
    assert_eq!((letter.died_at, letter.detail.as_str()), (at(30), "attempt 1: the endpoint answered 400"));
    let whole = store.show_dead_letter(letter.id).await.unwrap().unwrap();
    assert_eq!(whole.payload, "{\"order\":\"a\"}");
    assert!(due_deliveries(&*store, "shop", at(9999)).await.is_empty());
    status(&*store).await;
}

/// Redriven work is due now, under its old identity, with its attempts counted on and its budget begun anew.
pub async fn redrives_with_a_new_budget(stores: impl Factory) {
    let store = stores();
    let run = accept(&*store, "run", &["invoices"], HERE, START).await;
    let dead = RunOutcome::Dead { reason: Reason::PluginTrap, detail: "trap".to_owned() };
    store.complete_runs(vec![completion(run, "invoices", at(1), dead)]).await.unwrap();
    let (seq, id) = deliver(&*store, "sent", Claim::Here, START).await;
    store.record_attempts(vec![attempt(seq, 1, at(10), DEAD)]).await.unwrap();
    let redriven = store.redrive(DeadLetterFilter::default(), at(50)).await.unwrap();
    assert_eq!((redriven.runs, redriven.deliveries, redriven.refused), (1, 1, 0));
    assert_eq!((redriven.plugins, redriven.endpoints), (vec!["invoices".into()], vec!["shop".into()]));
    assert!(store.list_dead_letters(DeadLetterFilter::default()).await.unwrap().is_empty());
    assert_eq!(due_runs(&*store, "invoices", at(49)).await, []);
    assert_eq!(due_runs(&*store, "invoices", at(50)).await, [(run, 0)]);
    let claimed = due_deliveries(&*store, "shop", at(50)).await;
    assert_eq!((claimed[0].seq, claimed[0].id.clone()), (seq, id.clone()));
    assert_eq!((claimed[0].attempts_made, claimed[0].attempts_before_budget), (1, 1));
    store.record_attempts(vec![attempt(seq, 2, at(60), Transition::Delivered)]).await.unwrap();
    assert_eq!(store.show_delivery(id).await.unwrap().unwrap().attempts_made.len(), 2);
    status(&*store).await;
}

/// A dead message can't be put back to work, and stays.
pub async fn refuses_to_redrive_messages(stores: impl Factory) {
    let store = stores();
    store.accept(vec![dead_message("1", b"{"), dead_message("2", b"[")], START).await.unwrap();
    let redriven = store.redrive(DeadLetterFilter::default(), at(1)).await.unwrap();
    assert_eq!((redriven.runs, redriven.deliveries, redriven.refused), (0, 0, 2));
    assert_eq!(store.list_dead_letters(DeadLetterFilter::default()).await.unwrap().len(), 2);
}

/// A filter means what it says: ids, endpoint, plugin, reason, limit.
pub async fn redrives_and_discards_what_the_filter_means(stores: impl Factory) {
    let store = stores();
    for (id, plugin, endpoint, reason) in [
        ("1", "orders", "shop", Reason::Status4xx),
        ("2", "orders", "warehouse", Reason::Status4xx),
        ("3", "invoices", "shop", Reason::Status410),
        ("4", "invoices", "shop", Reason::Status410),
    ] {
        let seq = accept(&*store, id, &[plugin], HERE, START).await;
        let produced = RunOutcome::Produced(vec![delivery(id, plugin, endpoint, 0, Claim::Here)]);
        let written = store.complete_runs(vec![completion(seq, plugin, START, produced)]).await.unwrap();
        let transition = Transition::Dead { reason };
        store.record_attempts(vec![attempt(written[0][0], 1, START, transition)]).await.unwrap();
    }
    let keys = |filter: DeadLetterFilter| {
        let store = Arc::clone(&store);
        async move {
            let letters = store.list_dead_letters(filter).await.unwrap();
            letters.into_iter().map(|letter| letter.event_key).collect::<Vec<_>>().concat().replace("bus/id/", "")
        }
    };
    let all = DeadLetterFilter::default;
    let ids: Vec<_> = store.list_dead_letters(all()).await.unwrap().iter().map(|letter| letter.id).collect();
    assert_eq!(keys(all()).await, "4321");
    assert_eq!(keys(DeadLetterFilter { ids: vec![ids[0], ids[2], -1], ..all() }).await, "42");
    assert_eq!(keys(DeadLetterFilter { endpoint: Some("shop".to_owned()), ..all() }).await, "431");
    assert_eq!(keys(DeadLetterFilter { plugin: Some("orders".to_owned()), ..all() }).await, "21");
    assert_eq!(keys(DeadLetterFilter { reason: Some(Reason::Status410), ..all() }).await, "43");
    assert_eq!(keys(DeadLetterFilter { limit: Some(1), ..all() }).await, "4");
    let oldest = DeadLetterFilter { endpoint: Some("shop".to_owned()), limit: Some(1), ..all() };
    assert_eq!(store.redrive(oldest, at(1)).await.unwrap().deliveries, 1);
    assert_eq!(keys(all()).await, "432", "a limited redrive begins with the oldest");
    let by_reason = DeadLetterFilter { reason: Some(Reason::Status410), ..all() };
    assert_eq!(store.discard(by_reason).await.unwrap(), 2);
    assert_eq!(keys(all()).await, "2");
    status(&*store).await;
}

/// Discarded work is gone from the dead letters and never comes back.
pub async fn discards_for_good(stores: impl Factory) {
    let store = stores();
    let run = accept(&*store, "run", &["invoices"], HERE, START).await;
    let dead = RunOutcome::Dead { reason: Reason::PluginTrap, detail: "trap".to_owned() };
    store.complete_runs(vec![completion(run, "invoices", at(1), dead)]).await.unwrap();
    let (seq, id) = deliver(&*store, "sent", Claim::Here, START).await;
    store.record_attempts(vec![attempt(seq, 1, at(10), DEAD)]).await.unwrap();
    store.accept(vec![dead_message("1", b"{")], START).await.unwrap();
    assert_eq!(store.discard(DeadLetterFilter::default()).await.unwrap(), 3);
    assert_eq!(store.redrive(DeadLetterFilter::default(), at(20)).await.unwrap().total(), 0);
    let status = status(&*store).await;
    assert_eq!(runs_in(&status, "invoices", "discarded"), 1);
    assert_eq!(deliveries_in(&status, "shop", DeliveryState::Discarded), 1);
    assert!(status.dead_letters.is_empty());
    assert_eq!(store.show_delivery(id).await.unwrap().unwrap().summary.state, DeliveryState::Discarded);
    assert!(due_deliveries(&*store, "shop", at(9999)).await.is_empty());
    let redelivered = store.accept(vec![dead_message("1", b"{")], START).await.unwrap();
    assert_eq!(redelivered, [Acceptance::Duplicate], "its key is still known");
}

/// The status counts events, runs, deliveries and dead letters as they are.
pub async fn counts_what_is_in_it(stores: impl Factory) {
    let store = stores();
    accept(&*store, "unrouted", &[], HERE, START).await;
    accept(&*store, "waiting", &["orders", "invoices"], OPEN, START).await;
    let (delivered, _) = deliver(&*store, "delivered", Claim::Here, START).await;
    let (retrying, _) = deliver(&*store, "retrying", Claim::Here, START).await;
    let (dead, _) = deliver(&*store, "dead", Claim::Here, START).await;
    deliver(&*store, "pending", Claim::Open, START).await;
    let records = vec![
        attempt(delivered, 1, at(1), Transition::Delivered),
        attempt(retrying, 1, at(1), Transition::Retry { due_at: at(100) }),
        attempt(dead, 1, at(1), DEAD),
    ];
    store.record_attempts(records).await.unwrap();
    store.accept(vec![dead_message("1", b"{")], START).await.unwrap();
    let status = status(&*store).await;
    assert_eq!((status.events, status.unrouted), (6, 1));
    let runs = [("orders", "pending", 1), ("invoices", "pending", 1), ("orders", "produced", 4), ("orders", "dead", 0)];
    for (plugin, state, count) in runs {
        assert_eq!(runs_in(&status, plugin, state), count, "{plugin} {state}");
    }
    for state in DeliveryState::ALL {
        let expected = u64::from(*state != DeliveryState::Discarded);
        assert_eq!(deliveries_in(&status, "shop", *state), expected, "{state:?}");
    }
    let mut letters: Vec<_> = status.dead_letters.iter().map(|count| (count.reason.as_str(), count.count)).collect();
    letters.sort_unstable();
    assert_eq!(letters, [("status_4xx", 1), ("undecodable", 1)]);
}

/// Idle means that nothing is left that happens by itself: claimed and later work count, parked and dead don't, nor do
/// deliveries to endpoints that nobody works for.
pub async fn is_idle_when_nothing_will_happen_by_itself(stores: impl Factory) {
    let store = stores();
    let idle = |endpoints: &[&str]| {
        let store = Arc::clone(&store);
        let endpoints = endpoints.iter().map(|name| Arc::from(*name)).collect();
        async move { store.is_idle(endpoints).await.unwrap() }
    };
    assert!(idle(&["shop"]).await);
    accept(&*store, "parked", &["missing"], RunStart::Parked, START).await;
    assert!(idle(&["shop"]).await, "parked");
    let run = accept(&*store, "run", &["orders"], HERE, START).await;
    assert!(!idle(&["shop"]).await, "a claimed run");
    let produced = RunOutcome::Produced(vec![delivery("run", "orders", "shop", 0, Claim::Here)]);
    let written = store.complete_runs(vec![completion(run, "orders", START, produced)]).await.unwrap();
    assert!(!idle(&["other", "shop"]).await, "a claimed delivery");
    assert!(idle(&["other"]).await, "nobody works for the endpoint");
    let seq = written[0][0];
    store.record_attempts(vec![attempt(seq, 1, START, Transition::Retry { due_at: at(99_999) })]).await.unwrap();
    assert!(!idle(&["shop"]).await, "a later attempt");
    due_deliveries(&*store, "shop", at(99_999)).await;
    store.record_attempts(vec![attempt(seq, 2, START, DEAD)]).await.unwrap();
    assert!(idle(&["shop"]).await, "dead");
}

async fn sweep_all(store: &dyn Store, before: Retention) {
    for _ in 0..1_000 {
        if !store.sweep(before).await.unwrap() {
            return;
        }
    }
    panic!("a sweep ends");
}

/// Retention that keeps keys, and everything that ended at `delivered` or later or died at `dead` or later.
fn retention(delivered: Timestamp, dead: Timestamp) -> Retention {
    Retention { delivered, dead, dedup: Timestamp(0) }
}

/// Only what has ended goes, when its own age says so, with all that belongs to it.
pub async fn sweeps_what_is_past_its_age_only(stores: impl Factory) {
    let store = stores();
    let (delivered, id) = deliver(&*store, "delivered", Claim::Here, at(10)).await;
    let (dead, dead_id) = deliver(&*store, "dead", Claim::Here, at(20)).await;
    let (waiting, _) = deliver(&*store, "waiting", Claim::Here, at(30)).await;
    accept(&*store, "parked", &["orders"], RunStart::Parked, at(40)).await;
    accept(&*store, "unrouted", &[], HERE, at(50)).await;
    let records = vec![
        attempt(delivered, 1, at(100), Transition::Delivered),
        attempt(dead, 1, at(100), DEAD),
        attempt(waiting, 1, at(100), Transition::Retry { due_at: at(200) }),
    ];
    store.record_attempts(records).await.unwrap();
    store.accept(vec![dead_message("1", b"{")], at(100)).await.unwrap();

    sweep_all(&*store, retention(at(120), at(0))).await;
    assert_eq!(status(&*store).await.events, 4, "the event nobody wanted goes, what ended at the very moment stays");
    sweep_all(&*store, retention(at(121), at(0))).await;
    assert_eq!(status(&*store).await.events, 3);
    assert!(store.show_delivery(id).await.unwrap().is_none());
    assert!(store.show_delivery(dead_id.clone()).await.unwrap().is_some(), "dead letters have an age of their own");
    sweep_all(&*store, retention(at(10_000), at(121))).await;
    let status = status(&*store).await;
    assert_eq!((status.events, status.dead_letters.len()), (2, 0), "open and parked work stays");
    assert!(store.show_delivery(dead_id).await.unwrap().is_none());
    assert_eq!(due_deliveries(&*store, "shop", at(200)).await.len(), 1);
    let redelivered = store.accept(vec![arrival(event("delivered"), &["orders"], HERE)], at(300)).await.unwrap();
    assert_eq!(redelivered, [Acceptance::Duplicate], "the key outlives the event");
    let later = accept(&*store, "later", &["orders"], HERE, at(300)).await;
    sweep_all(&*store, retention(at(10_000), at(10_000))).await;
    let produced = RunOutcome::Produced(vec![delivery("later", "orders", "shop", 0, Claim::Here)]);
    let written = store.complete_runs(vec![completion(later, "orders", at(300), produced)]).await.unwrap();
    assert!(written[0][0] > waiting, "a position is never given twice");
}

/// A key is forgotten after its own age, and its message is a new event then.
pub async fn forgets_keys_by_their_own_age(stores: impl Factory) {
    let store = stores();
    let first = accept(&*store, "a", &[], HERE, at(0)).await;
    store.accept(vec![dead_message("1", b"{")], at(10)).await.unwrap();
    let before = |dedup| Retention { delivered: at(-1), dead: at(-1), dedup };
    let message = || vec![arrival(event("a"), &[], HERE), dead_message("1", b"{")];
    sweep_all(&*store, before(at(0))).await;
    assert_eq!(store.accept(message(), at(20)).await.unwrap(), [Acceptance::Duplicate, Acceptance::Duplicate]);
    sweep_all(&*store, before(at(1))).await;
    let acceptances = store.accept(message(), at(30)).await.unwrap();
    assert!(
        matches!(acceptances[..], [Acceptance::Fresh(seq), Acceptance::Duplicate] if seq > first),
        "{acceptances:?}"
    );
}

/// Lists are newest first and end at the limit.
pub async fn lists_newest_first_within_the_limit(stores: impl Factory) {
    let store = stores();
    let mut ids = Vec::new();
    for index in 0..5 {
        let (seq, id) = deliver(&*store, &index.to_string(), Claim::Here, at(index)).await;
        if index == 2 {
            store.record_attempts(vec![attempt(seq, 1, at(50), Transition::Delivered)]).await.unwrap();
        }
        ids.push(id);
    }
    ids.reverse();
    let all = DeliveryFilter::default;
    let list = |filter: DeliveryFilter| {
        let store = Arc::clone(&store);
        async move { store.list_deliveries(filter).await.unwrap() }
    };
    let listed = list(all()).await;
    assert_eq!(listed.iter().map(|summary| summary.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!((listed[0].event_key.as_str(), listed[0].subject.as_str()), ("bus/id/4", "fraiseql.order.created"));
    assert_eq!((listed[0].created_at, listed[0].due_at), (at(4), Some(at(4))));
    assert_eq!(list(DeliveryFilter { limit: Some(2), ..all() }).await.len(), 2);
    let delivered = list(DeliveryFilter { state: Some(DeliveryState::Delivered), ..all() }).await;
    assert_eq!(delivered.iter().map(|summary| summary.id.clone()).collect::<Vec<_>>(), [ids[2].clone()]);
    assert_eq!(list(DeliveryFilter { endpoint: Some("shop".to_owned()), ..all() }).await.len(), 5);
    assert_eq!(list(DeliveryFilter { endpoint: Some("none".to_owned()), ..all() }).await.len(), 0);
    assert_eq!(list(DeliveryFilter { plugin: Some("none".to_owned()), ..all() }).await.len(), 0);
    assert!(store.show_delivery(DeliveryId::from_stored("msg_none")).await.unwrap().is_none());
}

/// Plugins are remembered with their subjects and their last digest.
pub async fn remembers_plugins(stores: impl Factory) {
    let store = stores();
    let plugin = |name: &str, digest: &str| KnownPlugin {
        name: name.into(),
        subjects: vec!["fraiseql.order.*".to_owned(), "x".to_owned()],
        digest: digest.into(),
    };
    for known in [plugin("b", "1"), plugin("a", "1"), plugin("b", "2")] {
        assert_eq!(store.remember_plugin(known).await.unwrap(), 0);
    }
    assert_eq!(store.known_plugins().await.unwrap(), [plugin("a", "1"), plugin("b", "2")]);
    store.heartbeat(at(5)).await.unwrap();
}
