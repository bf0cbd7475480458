//! Order: of one key's deliveries to one endpoint, one at a time can be claimed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use wirehook::clock::Timestamp;
use wirehook::dead_letter::Reason;
use wirehook::delivery::Transition;
use wirehook::event::OrderKey;
use wirehook::store::{
    Acceptance, Arrival, Backlog, Claim, ClaimedDelivery, Completed, DeadLetterFilter, DeliveryChange, DeliveryFilter,
    DeliverySeq, DeliveryTerms, DeliveryVerb, EventSeq, KnownPlugin, NewDelivery, NewRun, ParkedFate, Place,
    RunOutcome, RunStart, RunTerms, Spends, Store, Written,
};

use super::{DEAD, Factory, HERE, START, at, attempt, completion, delivery, due_deliveries, due_runs, event, status};

/// The entity that most of these are about.
const CHAIR: Option<OrderKey> = Some(OrderKey(-7));

/// Another one.
const TABLE: Option<OrderKey> = Some(OrderKey(8));

/// Accepts one event with a run of `orders`.
async fn accept(store: &dyn Store, id: &str, order: Option<OrderKey>, start: RunStart) -> EventSeq {
    let terms = RunTerms { order, ..RunTerms::default() };
    let runs = vec![NewRun { plugin: "orders".into(), start, terms }];
    let arrival = Arrival::Event { event: Arc::new(event(id)), runs };
    match store.accept(vec![arrival], START).await.unwrap()[0] {
        Acceptance::Fresh(seq) => seq,
        other => panic!("{id} should be fresh, is {other:?}"),
    }
}

fn ordered(id: &str, endpoint: &str, index: u32, claim: Claim) -> NewDelivery {
    let terms = DeliveryTerms { ordered: true, ..DeliveryTerms::default() };
    NewDelivery { terms, ..delivery(id, "orders", endpoint, index, claim) }
}

async fn complete(store: &dyn Store, seq: EventSeq, outcome: RunOutcome) -> Written {
    match store.complete_runs(vec![completion(seq, "orders", START, outcome)]).await.unwrap().remove(0) {
        Completed::Ended(written) => written,
        other => panic!("{seq:?} should have ended, is {other:?}"),
    }
}

/// Accepts one event and completes its run with one delivery to `shop`.
async fn deliver(store: &dyn Store, id: &str, order: Option<OrderKey>, claim: Claim) -> (DeliverySeq, Place) {
    let seq = accept(store, id, order, HERE).await;
    let written = complete(store, seq, RunOutcome::Produced(vec![ordered(id, "shop", 0, claim)])).await;
    (written.deliveries[0], written.places[0])
}

async fn end(store: &dyn Store, delivery: DeliverySeq, number: u32, transition: Transition) -> Vec<DeliverySeq> {
    let next = store.record_attempts(vec![attempt(delivery, number, START, transition)]).await.unwrap();
    next.into_iter().map(|delivery| delivery.seq).collect()
}

async fn due(store: &dyn Store, endpoint: &str, now: Timestamp) -> Vec<DeliverySeq> {
    due_deliveries(store, endpoint, now).await.into_iter().map(|delivery| delivery.seq).collect()
}

/// Nobody can claim what waits for its turn; whoever ends the one before it has it.
pub async fn a_delivery_waits_for_the_one_before_it(stores: impl Factory) {
    let store = stores();
    let (a, place) = deliver(&*store, "a", CHAIR, Claim::Here).await;
    assert_eq!(place, Place::Here);
    let (b, place) = deliver(&*store, "b", CHAIR, Claim::Here).await;
    assert_eq!(place, Place::Behind, "whatever was asked for");
    let (c, place) = deliver(&*store, "c", CHAIR, Claim::Open).await;
    assert_eq!(place, Place::Behind);
    let (_, place) = deliver(&*store, "d", TABLE, Claim::Here).await;
    assert_eq!(place, Place::Here, "another entity");
    let claimed = store.claim_deliveries("shop".into(), 9, at(9_999)).await.unwrap();
    assert_eq!((claimed.work.len(), claimed.next_due), (0, None), "what waits for its turn is due at no time");

    assert_eq!(end(&*store, a, 1, Transition::Retry { due_at: at(100) }).await, [], "a retry holds its key");
    assert_eq!(due(&*store, "shop", at(100)).await, [a]);
    assert_eq!(end(&*store, a, 2, Transition::Delivered).await, [b]);
    assert_eq!(end(&*store, a, 2, Transition::Delivered).await, [], "once");
    let next: Vec<ClaimedDelivery> =
        store.record_attempts(vec![attempt(b, 1, START, Transition::Delivered)]).await.unwrap();
    let shown = store.show_delivery(next[0].id.clone()).await.unwrap().unwrap();
    assert_eq!((next[0].seq, next[0].body.as_ref(), next[0].attempts_made), (c, shown.body.as_bytes(), 0));
    assert_eq!(end(&*store, c, 1, Transition::Delivered).await, []);
    status(&*store).await;
}

/// A run that is not over may still have webhooks: those of later events wait for it, to every endpoint.
pub async fn a_delivery_waits_for_earlier_runs(stores: impl Factory) {
    let store = stores();
    let early = accept(&*store, "early", CHAIR, HERE).await;
    let late = accept(&*store, "late", CHAIR, HERE).await;
    let two = vec![ordered("late", "shop", 0, Claim::Here), ordered("late", "crm", 1, Claim::Here)];
    let written = complete(&*store, late, RunOutcome::Produced(two)).await;
    assert_eq!(written.places, [Place::Behind, Place::Behind]);
    let (shop, crm) = (written.deliveries[0], written.deliveries[1]);

    let retry = RunOutcome::Retry { spends: Spends::Retry, due_at: at(50), detail: String::new() };
    assert_eq!(complete(&*store, early, retry).await.freed, Vec::<Arc<str>>::new(), "a retry holds its key");
    assert_eq!(due(&*store, "shop", at(49)).await, []);
    assert_eq!(due_runs(&*store, "orders", at(50)).await, [(early, 1)]);
    let one = vec![ordered("early", "shop", 0, Claim::Here)];
    let written = complete(&*store, early, RunOutcome::Produced(one)).await;
    assert_eq!((written.places, written.freed), (vec![Place::Here], vec![Arc::<str>::from("crm")]));
    assert_eq!(due(&*store, "crm", at(50)).await, [crm]);
    assert_eq!(due(&*store, "shop", at(50)).await, []);
    assert_eq!(end(&*store, written.deliveries[0], 1, Transition::Delivered).await, [shop]);

    let filtered = accept(&*store, "filtered", TABLE, HERE).await;
    let dies = accept(&*store, "dies", TABLE, HERE).await;
    let (last, place) = deliver(&*store, "last", TABLE, Claim::Here).await;
    assert_eq!(place, Place::Behind);
    assert_eq!(complete(&*store, filtered, RunOutcome::Produced(Vec::new())).await.freed, Vec::<Arc<str>>::new());
    let dead = RunOutcome::Dead { reason: Reason::PluginTrap, detail: String::new() };
    assert_eq!(complete(&*store, dies, dead).await.freed, [Arc::<str>::from("shop")]);
    assert_eq!(due(&*store, "shop", at(50)).await, [last]);
}

/// The next has its turn when the one before it dies.
pub async fn a_dead_letter_frees_its_key(stores: impl Factory) {
    let store = stores();
    let (a, _) = deliver(&*store, "a", CHAIR, Claim::Here).await;
    let (b, _) = deliver(&*store, "b", CHAIR, Claim::Here).await;
    assert_eq!(end(&*store, a, 1, DEAD).await, [b]);
    status(&*store).await;
}

/// Its plugin comes back, and has the same order then.
pub async fn a_parked_run_holds_its_key(stores: impl Factory) {
    let store = stores();
    let parked = accept(&*store, "a", CHAIR, RunStart::Parked).await;
    let (later, place) = deliver(&*store, "b", CHAIR, Claim::Here).await;
    assert_eq!(place, Place::Behind);
    let plugin = KnownPlugin { name: "orders".into(), subjects: vec![">".to_owned()], digest: "d1".into() };
    assert_eq!(store.remember_plugin(plugin, at(9)).await.unwrap(), 1);
    assert_eq!(due(&*store, "shop", at(10)).await, [], "it is back, and has not run");
    assert_eq!(due_runs(&*store, "orders", at(10)).await, [(parked, 0)]);
    let written = complete(&*store, parked, RunOutcome::Produced(vec![ordered("a", "shop", 0, Claim::Here)])).await;
    assert_eq!(end(&*store, written.deliveries[0], 1, Transition::Delivered).await, [later]);
}

/// What was dead and is put back to work neither waits for its entity's others nor keeps them waiting.
pub async fn a_redrive_is_out_of_order(stores: impl Factory) {
    let store = stores();
    let (a, _) = deliver(&*store, "a", CHAIR, Claim::Here).await;
    assert_eq!(end(&*store, a, 1, DEAD).await, []);
    let dies = accept(&*store, "dies", CHAIR, HERE).await;
    let dead = RunOutcome::Dead { reason: Reason::PluginTrap, detail: String::new() };
    complete(&*store, dies, dead).await;
    let (b, _) = deliver(&*store, "b", CHAIR, Claim::Here).await;
    assert_eq!(store.redrive(DeadLetterFilter::default(), at(10)).await.unwrap().total(), 2);
    assert_eq!(due(&*store, "shop", at(10)).await, [a]);
    assert_eq!(due_runs(&*store, "orders", at(10)).await, [(dies, 0)]);
    let redriven = complete(&*store, dies, RunOutcome::Produced(vec![ordered("dies", "shop", 0, Claim::Here)])).await;
    assert_eq!(redriven.places, [Place::Here]);
    let (c, place) = deliver(&*store, "c", CHAIR, Claim::Here).await;
    assert_eq!(place, Place::Behind, "b goes before it");
    assert_eq!(end(&*store, a, 2, Transition::Delivered).await, [], "it was nobody's turn that waited for this");
    assert_eq!(end(&*store, b, 1, Transition::Delivered).await, [c]);
}

/// Claims given up, and claims of a host that is gone, change nothing about whose turn it is.
pub async fn the_order_outlives_its_host(stores: impl Factory) {
    let store = stores();
    let (a, _) = deliver(&*store, "a", CHAIR, Claim::Here).await;
    let (b, _) = deliver(&*store, "b", CHAIR, Claim::Here).await;
    store.release(Vec::new(), vec![a, b]).await.unwrap();
    assert_eq!(due(&*store, "shop", at(10)).await, [a]);
    assert_eq!(end(&*store, a, 1, Transition::Delivered).await, [b]);
    store.release(Vec::new(), vec![b]).await.unwrap();
    let (c, place) = deliver(&*store, "c", CHAIR, Claim::Here).await;
    assert_eq!(place, Place::Behind);
    assert_eq!(due(&*store, "shop", at(1_000)).await, [b]);
    assert_eq!(end(&*store, b, 1, Transition::Delivered).await, [c]);
}

/// The first of an event's webhooks goes first.
pub async fn webhooks_of_one_event_keep_the_plugins_order(stores: impl Factory) {
    let store = stores();
    let seq = accept(&*store, "a", CHAIR, HERE).await;
    let three = (0..3).map(|index| ordered("a", "shop", index, Claim::Here)).collect();
    let written = complete(&*store, seq, RunOutcome::Produced(three)).await;
    assert_eq!(written.places, [Place::Here, Place::Behind, Place::Behind]);
    let [first, second, third] = written.deliveries[..] else { panic!("{written:?}") };
    assert_eq!(end(&*store, first, 1, Transition::Delivered).await, [second]);
    assert_eq!(end(&*store, second, 1, DEAD).await, [third]);
}

/// An endpoint that asks for no order, and an event without an entity.
pub async fn what_keeps_no_order_waits_for_nothing(stores: impl Factory) {
    let store = stores();
    let first = accept(&*store, "first", CHAIR, HERE).await;
    for (id, order, ordered) in [("a", CHAIR, false), ("b", CHAIR, false), ("c", None, true), ("d", None, true)] {
        let seq = accept(&*store, id, order, HERE).await;
        let terms = DeliveryTerms { ordered, ..DeliveryTerms::default() };
        let new = NewDelivery { terms, ..delivery(id, "orders", "shop", 0, Claim::Here) };
        assert_eq!(complete(&*store, seq, RunOutcome::Produced(vec![new])).await.places, [Place::Here], "{id}");
    }
    assert_eq!(complete(&*store, first, RunOutcome::Produced(Vec::new())).await.freed, Vec::<Arc<str>>::new());
}

/// How long a delivery waits for its turn, or a run for its plugin, is no time in which it could have been tried.
pub async fn what_had_no_turn_does_not_expire(stores: impl Factory) {
    let store = stores();
    let (a, _) = deliver(&*store, "a", CHAIR, Claim::Here).await;
    let (b, _) = deliver(&*store, "b", CHAIR, Claim::Here).await;
    let (c, _) = deliver(&*store, "c", CHAIR, Claim::Here).await;
    let next = store.record_attempts(vec![attempt(a, 1, at(50_000), Transition::Delivered)]).await.unwrap();
    assert_eq!(next[0].seq, b, "claimed for whoever ended the one before");
    store.release(Vec::new(), vec![b]).await.unwrap();
    super::pass_until(at(60_000));
    let expire = |backlog| store.expire(backlog, Duration::from_secs(20), at(60_000));
    assert_eq!(expire(Backlog::Deliveries("shop".into())).await.unwrap(), 0);
    let ids = vec![next[0].id.clone()];
    let filter = DeliveryFilter { ids, ..DeliveryFilter::default() };
    let discard = DeliveryChange { verb: DeliveryVerb::Discard, filter, after: None, given_back: Vec::new() };
    assert_eq!(store.change_deliveries(discard, at(60_000)).await.unwrap().changed, 1);
    assert_eq!(expire(Backlog::Deliveries("shop".into())).await.unwrap(), 0, "freed without an attempt");
    assert_eq!(due(&*store, "shop", at(60_000)).await, [c]);

    let parked = accept(&*store, "d", TABLE, RunStart::Parked).await;
    let plugin = KnownPlugin { name: "orders".into(), subjects: vec![">".to_owned()], digest: "d1".into() };
    store.remember_plugin(plugin, at(50_000)).await.unwrap();
    assert_eq!(expire(Backlog::Runs("orders".into())).await.unwrap(), 0);
    assert_eq!(due_runs(&*store, "orders", at(60_000)).await, [(parked, 0)]);
}

/// A renamed endpoint gets an entity's webhooks in their order.
pub async fn what_is_moved_keeps_its_order(stores: impl Factory) {
    let store = stores();
    let (a, _) = deliver(&*store, "a", CHAIR, Claim::Open).await;
    let (b, _) = deliver(&*store, "b", CHAIR, Claim::Open).await;
    let verb = DeliveryVerb::Move { to: "depot".into() };
    let moved = DeliveryChange { verb, filter: DeliveryFilter::default(), after: None, given_back: Vec::new() };
    assert_eq!(store.change_deliveries(moved, at(1)).await.unwrap().changed, 2);
    assert_eq!(due(&*store, "depot", at(9_999)).await, [a]);
    assert_eq!(end(&*store, a, 1, Transition::Delivered).await, [b]);
}

/// Nothing happens by itself to what waits for a run whose plugin is away.
pub async fn a_turn_that_does_not_come_keeps_no_host_busy(stores: impl Factory) {
    let store = stores();
    accept(&*store, "early", CHAIR, RunStart::Parked).await;
    let (_, place) = deliver(&*store, "late", CHAIR, Claim::Here).await;
    assert_eq!(place, Place::Behind);
    assert!(store.is_idle(vec!["shop".into()]).await.unwrap());
    deliver(&*store, "other", TABLE, Claim::Open).await;
    assert!(!store.is_idle(vec!["shop".into()]).await.unwrap());
}

/// A wrong moment in which a delivery is due costs a look: it is not claimed.
pub async fn one_made_due_early_waits_all_the_same(stores: impl Factory) {
    let store = stores();
    let early = accept(&*store, "early", CHAIR, RunStart::Parked).await;
    let (late, _) = deliver(&*store, "late", CHAIR, Claim::Here).await;
    assert_eq!(due(&*store, "shop", Timestamp(i64::MAX)).await, [], "not even at the end of time");
    let plugin = KnownPlugin { name: "orders".into(), subjects: vec![">".to_owned()], digest: "d1".into() };
    store.remember_plugin(plugin, at(9)).await.unwrap();
    assert_eq!(due_runs(&*store, "orders", at(10)).await, [(early, 0)]);
    assert_eq!(complete(&*store, early, RunOutcome::Produced(Vec::new())).await.freed, [Arc::<str>::from("shop")]);
    assert_eq!(due(&*store, "shop", at(10)).await, [late]);
}

/// Whatever an operator does with the first of its key, the next has its turn, and the endpoint is told.
pub async fn an_operator_frees_the_next(stores: impl Factory) {
    for verb in [DeliveryVerb::Discard, DeliveryVerb::Move { to: "depot".into() }] {
        let store = stores();
        let (first, _) = deliver(&*store, "first", CHAIR, Claim::Here).await;
        let (next, place) = deliver(&*store, "next", CHAIR, Claim::Here).await;
        assert_eq!(place, Place::Behind);
        let moves = matches!(verb, DeliveryVerb::Move { .. });
        let filter = DeliveryFilter { limit: Some(1), ..DeliveryFilter::default() };
        let change = DeliveryChange { verb, filter, after: None, given_back: vec![first] };
        let changed = store.change_deliveries(change, at(5)).await.unwrap();
        assert_eq!(changed.changed, 1);
        assert!(changed.endpoints.contains(&Arc::from("shop")), "{:?}", changed.endpoints);
        assert_eq!(due(&*store, "shop", at(5)).await, [next]);
        assert_eq!(due(&*store, "depot", at(5)).await, if moves { vec![first] } else { vec![] });
    }
}

/// What waits behind a run of a plugin that is forgotten has its turn.
pub async fn forgetting_a_plugin_frees_what_waits_for_it(stores: impl Factory) {
    let store = stores();
    let earlier = accept(&*store, "earlier", CHAIR, HERE).await;
    let (delivery, place) = deliver(&*store, "later", CHAIR, Claim::Open).await;
    assert_eq!(place, Place::Behind);
    store.release(vec![(earlier, "orders".into())], Vec::new()).await.unwrap();
    store.park_runs("orders".into()).await.unwrap();
    assert_eq!(due(&*store, "shop", at(9)).await, []);
    store.forget_plugin("orders".into(), ParkedFate::Discard, at(9)).await.unwrap();
    assert_eq!(due(&*store, "shop", at(9)).await, [delivery]);
}
