//! Dead letters: listed, redriven, discarded.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;

use wirehook::dead_letter::Reason;
use wirehook::delivery::Transition;
use wirehook::store::{Acceptance, Claim, DeadLetterFilter, DeadLetterKind, DeliveryState, RunOutcome};

use super::{
    DEAD, Factory, HERE, START, accept, at, attempt, completion, dead_message, deliver, deliveries_in, delivery,
    due_deliveries, due_runs, runs_in, status,
};

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
    let event = whole.event.unwrap();
    assert_eq!((event.key, event.entity), (letter.event_key.clone(), Some("{\"body\":\"a\"}".to_owned())));
    assert!(store.show_dead_letter(letter.id + 1).await.unwrap().is_none());
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
    assert_eq!(whole.event.map(|event| event.key), Some(letter.event_key.clone()), "the event, not the body");
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
        store.record_attempts(vec![attempt(written[0].deliveries()[0], 1, START, transition)]).await.unwrap();
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
