//! Deliveries: claimed, attempted, listed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;

use bytes::Bytes;
use wirehook::delivery::{DeliveryId, Transition};
use wirehook::event::EventKey;
use wirehook::store::{AttemptRecord, Claim, ClaimedDelivery, DeliveryFilter, DeliveryState, NewDelivery, RunOutcome};

use super::{DEAD, Factory, HERE, START, accept, at, attempt, completion, deliver, delivery, due_deliveries, status};

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
    for ((claimed, new), seq) in claimed.iter().zip([&binary, &empty]).zip(written[0].deliveries()) {
        let expected = ClaimedDelivery {
            seq: *seq,
            id: new.id.clone(),
            event_key: EventKey::new("bus", "id", "a"),
            plugin: "orders".into(),
            endpoint: "shop".into(),
            content_type: new.content_type.clone(),
            headers: new.headers.clone(),
            body: new.body.clone(),
            due_at: START,
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

/// An attempt that was deferred leaves no trace but why the delivery waits: neither a number nor a part of its budget.
pub async fn a_deferred_attempt_is_none(stores: impl Factory) {
    let store = stores();
    let (seq, id) = deliver(&*store, "a", Claim::Here, START).await;
    let deferred = |number, due_at| AttemptRecord {
        status: None,
        error: Some("the proxy is down".to_owned()),
        ..attempt(seq, number, START, Transition::Deferred { due_at })
    };
    store.record_attempts(vec![deferred(1, at(100)), deferred(1, at(200))]).await.unwrap();
    assert_eq!(due_deliveries(&*store, "shop", at(99)).await, []);
    let shown = store.show_delivery(id.clone()).await.unwrap().unwrap();
    assert_eq!((shown.summary.state, shown.summary.attempts), (DeliveryState::Pending, 0));
    assert_eq!((shown.summary.due_at, shown.summary.last_error.as_deref()), (Some(at(100)), Some("the proxy is down")));
    assert_eq!(shown.attempts_made.len(), 0);

    let claimed = due_deliveries(&*store, "shop", at(100)).await;
    assert_eq!((claimed.len(), claimed[0].attempts_made), (1, 0));
    store.record_attempts(vec![attempt(seq, 1, at(100), Transition::Retry { due_at: at(150) })]).await.unwrap();
    due_deliveries(&*store, "shop", at(150)).await;
    store.record_attempts(vec![deferred(2, at(160))]).await.unwrap();
    let claimed = due_deliveries(&*store, "shop", at(160)).await;
    assert_eq!((claimed.len(), claimed[0].attempts_made), (1, 1));
    store.record_attempts(vec![attempt(seq, 2, at(160), Transition::Delivered)]).await.unwrap();
    // Too late, and not this host's any more.
    store.record_attempts(vec![deferred(2, at(300)), deferred(3, at(300))]).await.unwrap();
    let shown = store.show_delivery(id).await.unwrap().unwrap();
    assert_eq!((shown.summary.state, shown.summary.attempts), (DeliveryState::Delivered, 2));
    assert_eq!(shown.attempts_made.iter().map(|made| made.number).collect::<Vec<_>>(), [1, 2]);
    status(&*store).await;
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
