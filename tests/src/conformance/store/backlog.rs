//! The bounds of what waits, and that what goes beyond is a dead letter by name.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use wirehook::dead_letter::Reason;
use wirehook::delivery::Transition;
use wirehook::store::{
    Acceptance, Arrival, Backlog, BacklogBounds, Claim, Completed, DeadLetterFilter, DeliverySeq, DeliveryState,
    DeliveryTerms, EventSeq, NewDelivery, NewRun, Place, RunOutcome, RunStart, RunTerms, Store,
};

use super::{
    DEAD, Factory, HERE, OPEN, START, at, attempt, completion, deliveries_in, delivery, due_deliveries, due_runs,
    event, runs_in, status,
};

const UNBOUNDED: BacklogBounds = BacklogBounds { count: u64::MAX, bytes: u64::MAX };

/// Accepts one event; its position, and whether its run was one too many.
async fn accept(store: &dyn Store, id: &str, backlog: BacklogBounds, start: RunStart) -> (EventSeq, bool) {
    let terms = RunTerms { backlog, ..RunTerms::default() };
    let runs = vec![NewRun { plugin: "orders".into(), start, terms }];
    let arrivals = vec![Arrival::Event { event: Arc::new(event(id)), runs }];
    let accepted = store.accept_at(arrivals, None, START).await.unwrap();
    let Acceptance::Fresh(seq) = accepted.acceptances[0] else { panic!("{accepted:?}") };
    let refused: Vec<_> = accepted.refused.iter().map(|(seq, plugin)| (*seq, &**plugin)).collect();
    assert!(refused.is_empty() || refused == [(seq, "orders")], "{refused:?}");
    (seq, !refused.is_empty())
}

async fn deliver(store: &dyn Store, id: &str, backlog: BacklogBounds, claim: Claim) -> (DeliverySeq, Place) {
    let (seq, _) = accept(store, id, UNBOUNDED, HERE).await;
    let terms = DeliveryTerms { backlog, ..DeliveryTerms::default() };
    let new = NewDelivery { terms, ..delivery(id, "orders", "shop", 0, claim) };
    let outcome = RunOutcome::Produced(vec![new]);
    match store.complete_runs(vec![completion(seq, "orders", START, outcome)]).await.unwrap().remove(0) {
        Completed::Ended(written) => (written.deliveries[0], written.places[0]),
        other => panic!("{other:?}"),
    }
}

async fn full(store: &dyn Store) -> usize {
    let filter = DeadLetterFilter { reason: Some(Reason::BacklogFull), ..DeadLetterFilter::default() };
    store.list_dead_letters(filter).await.unwrap().len()
}

/// Whatever waits counts: pending, retrying, parked, held or not. What has ended does not.
pub async fn a_backlog_is_bounded_in_number(stores: impl Factory) {
    let store = stores();
    let two = BacklogBounds { count: 2, bytes: u64::MAX };
    let (a, refused) = accept(&*store, "a", two, HERE).await;
    assert!(!refused);
    assert!(!accept(&*store, "b", two, RunStart::Parked).await.1);
    for start in [HERE, OPEN, RunStart::Parked] {
        assert!(accept(&*store, &format!("{start:?}"), two, start).await.1, "{start:?}");
    }
    assert_eq!((runs_in(&status(&*store).await, "orders", "dead"), full(&*store).await), (3, 3));
    store.complete_runs(vec![completion(a, "orders", START, RunOutcome::Produced(Vec::new()))]).await.unwrap();
    assert!(!accept(&*store, "c", two, OPEN).await.1, "there is room again");
    assert!(accept(&*store, "d", two, OPEN).await.1);

    let store = stores();
    let (first, place) = deliver(&*store, "a", two, Claim::Here).await;
    assert_eq!(place, Place::Here);
    assert_eq!(deliver(&*store, "b", two, Claim::Open).await.1, Place::Open);
    let (dead, place) = deliver(&*store, "c", two, Claim::Here).await;
    assert_eq!(place, Place::Dead);
    let retry = Transition::Retry { due_at: at(50) };
    store.record_attempts(vec![attempt(first, 1, START, retry)]).await.unwrap();
    assert_eq!(deliver(&*store, "d", two, Claim::Here).await.1, Place::Dead, "a retry waits too");
    assert_eq!(due_deliveries(&*store, "shop", at(50)).await.len(), 2, "what died is not claimed");
    store.record_attempts(vec![attempt(first, 2, START, Transition::Delivered)]).await.unwrap();
    assert_eq!(deliver(&*store, "e", two, Claim::Here).await.1, Place::Here);
    let counted = status(&*store).await;
    assert_eq!((deliveries_in(&counted, "shop", DeliveryState::Dead), full(&*store).await), (2, 2));
    store.record_attempts(vec![attempt(dead, 1, START, Transition::Delivered)]).await.unwrap();
    assert_eq!(full(&*store).await, 2, "nobody can record an attempt of what died");
}

/// Bytes of what waits are given back when it ends.
pub async fn a_backlog_is_bounded_in_bytes(stores: impl Factory) {
    let store = stores();
    let run_bytes = event("a").content_bytes() as u64;
    let two = BacklogBounds { count: u64::MAX, bytes: 2 * run_bytes + 1 };
    let (a, refused) = accept(&*store, "a", two, HERE).await;
    assert!(!refused && !accept(&*store, "b", two, OPEN).await.1);
    assert!(accept(&*store, "c", two, HERE).await.1);
    store.complete_runs(vec![completion(a, "orders", START, RunOutcome::Produced(Vec::new()))]).await.unwrap();
    assert!(!accept(&*store, "d", two, HERE).await.1);

    let store = stores();
    let one = BacklogBounds { count: u64::MAX, bytes: 59 };
    let (first, place) = deliver(&*store, "a", one, Claim::Here).await;
    assert_eq!(place, Place::Here);
    assert_eq!(deliver(&*store, "b", one, Claim::Here).await.1, Place::Dead);
    store.record_attempts(vec![attempt(first, 1, START, DEAD)]).await.unwrap();
    assert_eq!(deliver(&*store, "c", one, Claim::Here).await.1, Place::Here);
    let none = BacklogBounds { count: u64::MAX, bytes: 1 };
    assert_eq!(deliver(&*store, "d", none, Claim::Here).await.1, Place::Dead);
    status(&*store).await;
}

/// An operator may go beyond the bound; what is new may not then.
pub async fn a_redrive_counts_in_the_backlog(stores: impl Factory) {
    let store = stores();
    let one = BacklogBounds { count: 1, bytes: u64::MAX };
    let (a, _) = accept(&*store, "a", one, HERE).await;
    assert!(accept(&*store, "b", one, HERE).await.1);
    let (first, _) = deliver(&*store, "c", one, Claim::Here).await;
    assert_eq!(deliver(&*store, "d", one, Claim::Here).await.1, Place::Dead);
    let redriven = store.redrive(DeadLetterFilter::default(), at(5)).await.unwrap();
    assert_eq!((redriven.runs, redriven.deliveries), (1, 1));
    store.complete_runs(vec![completion(a, "orders", START, RunOutcome::Produced(Vec::new()))]).await.unwrap();
    store.record_attempts(vec![attempt(first, 1, START, Transition::Delivered)]).await.unwrap();
    assert!(accept(&*store, "e", one, HERE).await.1, "the redriven one waits");
    assert_eq!(deliver(&*store, "f", one, Claim::Here).await.1, Place::Dead);
    assert_eq!(due_runs(&*store, "orders", at(5)).await.len(), 1);
    assert_eq!(due_deliveries(&*store, "shop", at(5)).await.len(), 1);
    status(&*store).await;
}

/// What nobody came for in time is a dead letter; what somebody holds is not.
pub async fn what_is_due_for_too_long_expires(stores: impl Factory) {
    let store = stores();
    let (held, _) = accept(&*store, "held", UNBOUNDED, HERE).await;
    let (old, _) = accept(&*store, "old", UNBOUNDED, OPEN).await;
    accept(&*store, "parked", UNBOUNDED, RunStart::Parked).await;
    let runs = || Backlog::Runs("orders".into());
    let ms = Duration::from_millis;
    // A clock that is set forward makes nothing wait for longer than it has.
    super::clock().step(31 * 86_400_000);
    super::pass_until(at(31 * 86_400_000 + 10));
    assert_eq!(store.expire(runs(), ms(10), at(10)).await.unwrap(), 0, "it was due then, not before");
    assert_eq!(store.expire(Backlog::Runs("other".into()), ms(9), at(10)).await.unwrap(), 0);
    super::clock().step(-31 * 86_400_000);
    assert_eq!(store.expire(runs(), ms(9), at(10)).await.unwrap(), 1);
    assert_eq!(due_runs(&*store, "orders", at(10)).await, []);
    let letters = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();
    assert_eq!((letters.len(), letters[0].reason, letters[0].died_at), (1, Reason::BacklogFull, at(10)));
    assert_eq!(letters[0].event_key, event("old").key.as_str());
    assert_eq!(store.redrive(DeadLetterFilter::default(), at(20)).await.unwrap().runs, 1);
    assert_eq!(due_runs(&*store, "orders", at(20)).await, [(old, 0)]);
    store.complete_runs(vec![completion(held, "orders", START, RunOutcome::Parked)]).await.unwrap();

    let (here, _) = deliver(&*store, "here", UNBOUNDED, Claim::Here).await;
    let (later, _) = deliver(&*store, "later", UNBOUNDED, Claim::Here).await;
    deliver(&*store, "open", UNBOUNDED, Claim::Open).await;
    let retry = Transition::Retry { due_at: START.plus(Duration::from_secs(60)) };
    store.record_attempts(vec![attempt(later, 1, START, retry)]).await.unwrap();
    let deliveries = Backlog::Deliveries("shop".into());
    assert_eq!(store.expire(deliveries.clone(), ms(9), at(10)).await.unwrap(), 1);
    assert_eq!(store.expire(deliveries, ms(9), at(10)).await.unwrap(), 0);
    assert_eq!(due_deliveries(&*store, "shop", at(60_000)).await.len(), 1, "a retry is due later");
    assert_eq!(store.record_attempts(vec![attempt(here, 1, START, Transition::Delivered)]).await.unwrap(), []);
    let counted = status(&*store).await;
    assert_eq!(deliveries_in(&counted, "shop", DeliveryState::Dead), 1);
    assert_eq!(deliveries_in(&counted, "shop", DeliveryState::Delivered), 1);
}
