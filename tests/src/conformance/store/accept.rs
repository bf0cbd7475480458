//! Arrivals: what is fresh, what was there before, what is kept.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use wirehook::dead_letter::Reason;
use wirehook::event::Event;
use wirehook::store::{Acceptance, DeadLetterFilter, DeadLetterKind, EventSeq, Store, StoreError};

use super::{Factory, HERE, OPEN, START, accept, arrival, at, dead_message, due_runs, event, event_with_body, status};

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
    assert_eq!(letter.event, None, "a message that never became an event");
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

/// A caller that asks and goes away does not take the work with it, be it work it brought or work it asked for.
pub async fn gives_up_claims_of_a_caller_that_left(stores: impl Factory) {
    let store = stores();
    leave(&*store, store.accept(vec![arrival(event("a"), &["orders"], HERE)], START)).await;
    let (seq, _) = soon_due(&*store).await;
    store.release(vec![(seq, "orders".into())], Vec::new()).await.unwrap();
    leave(&*store, store.claim_runs("orders".into(), 10, START)).await;
    soon_due(&*store).await;
}

/// The one run that is due. Claims are given up in the group after the one they were made in, so that the first look
/// may be too early; the third can't be.
async fn soon_due(store: &dyn Store) -> (EventSeq, u32) {
    for _ in 0..3 {
        if let [run] = due_runs(store, "orders", START).await[..] {
            return run;
        }
    }
    panic!("the run is held by nobody and not due");
}

/// Begins `call` and goes away; what it brought already is given back.
async fn leave<T>(store: &dyn Store, mut call: BoxFuture<'_, Result<T, StoreError>>) {
    if (&mut call).now_or_never().is_some() {
        drop(call);
        store.release(vec![(EventSeq(1), "orders".into())], Vec::new()).await.unwrap();
    }
}
