//! The store as a whole: counts, idleness, retention.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use wirehook::clock::{Clock as _, Timestamp};
use wirehook::delivery::Transition;
use wirehook::store::{Acceptance, Claim, DeliveryState, Retention, RunOutcome, RunStart, Store};

use super::{
    DEAD, Factory, HERE, OPEN, START, accept, arrival, at, attempt, completion, dead_message, deliver, deliveries_in,
    delivery, due_deliveries, event, pass_until, runs_in, status,
};

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
    let seq = written[0].deliveries()[0];
    store.record_attempts(vec![attempt(seq, 1, START, Transition::Retry { due_at: at(99_999) })]).await.unwrap();
    assert!(!idle(&["shop"]).await, "a later attempt");
    due_deliveries(&*store, "shop", at(99_999)).await;
    store.record_attempts(vec![attempt(seq, 2, START, DEAD)]).await.unwrap();
    assert!(idle(&["shop"]).await, "dead");
}

async fn sweep_all(store: &dyn Store, ages: Retention) {
    for _ in 0..1_000 {
        if !store.sweep(ages).await.unwrap() {
            return;
        }
    }
    panic!("a sweep ends");
}

/// Retention, at this moment, that keeps what ended at `delivered` or later or died at `dead` or later, and keys that came
/// at `dedup` or later.
fn retention(delivered: Timestamp, dead: Timestamp, dedup: Timestamp) -> Retention {
    let now = super::clock().now();
    Retention { delivered: now.since(delivered), dead: now.since(dead), dedup: now.since(dedup) }
}

/// Only what has ended goes, when its own age says so, with all that belongs to it.
pub async fn sweeps_what_is_past_its_age_only(stores: impl Factory) {
    let store = stores();
    pass_until(at(10));
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
    pass_until(at(120));
    store.record_attempts(records).await.unwrap();
    store.accept(vec![dead_message("1", b"{")], at(100)).await.unwrap();

    // However the wall clock is set: nothing is older or younger for it.
    pass_until(at(10_000));
    super::clock().step(-31 * 86_400_000);
    let retention = |delivered, dead| {
        let now = at(10_000);
        Retention { delivered: now.since(delivered), dead: now.since(dead), dedup: Duration::MAX }
    };
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
    assert!(written[0].deliveries()[0] > waiting, "a position is never given twice");
}

/// A key is forgotten after its own age, and its message is a new event then.
pub async fn forgets_keys_by_their_own_age(stores: impl Factory) {
    let store = stores();
    let first = accept(&*store, "a", &[], HERE, at(0)).await;
    pass_until(at(10));
    store.accept(vec![dead_message("1", b"{")], at(10)).await.unwrap();
    pass_until(at(20));
    let before = |dedup| retention(at(-1), at(-1), dedup);
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
