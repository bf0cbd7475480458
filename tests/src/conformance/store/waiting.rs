//! What waits, what died lately, and what was told to wait.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::time::Duration;

use wirehook::delivery::Transition;
use wirehook::store::{Claim, EndpointBacklog, LATELY, ParkedFate, Pause, PauseKind, RunStart};

use super::{DEAD, Factory, HERE, OPEN, START, accept, at, attempt, dead_message, deliver, due_deliveries, status};

/// Backlogs have their number, and when the first that nobody holds is due.
pub async fn tells_what_waits(stores: impl Factory) {
    let store = stores();
    accept(&*store, "parked", &["missing"], RunStart::Parked, START).await;
    accept(&*store, "pending", &["orders"], OPEN, START).await;
    accept(&*store, "held", &["orders"], HERE, START).await;
    let (retrying, _) = deliver(&*store, "retrying", Claim::Here, START).await;
    let (delivered, _) = deliver(&*store, "delivered", Claim::Here, START).await;
    deliver(&*store, "later", Claim::Open, at(7)).await;
    let records = vec![
        attempt(retrying, 1, at(1), Transition::Retry { due_at: at(100) }),
        attempt(delivered, 1, at(1), Transition::Delivered),
    ];
    store.record_attempts(records).await.unwrap();
    let waiting = store.waiting(vec!["shop".into(), "idle".into()]).await.unwrap();
    let backlog =
        |endpoint: &str, count, oldest_due| EndpointBacklog { endpoint: endpoint.to_owned(), count, oldest_due };
    assert_eq!(waiting.endpoints, [backlog("shop", 2, Some(at(7))), backlog("idle", 0, None)]);
    let mut runs: Vec<_> = waiting.runs.iter().map(|run| (&*run.plugin, &*run.state, run.count)).collect();
    runs.sort_unstable();
    assert_eq!(runs, [("missing", "parked", 1), ("orders", "pending", 2)]);
    assert_eq!(due_deliveries(&*store, "shop", at(7)).await.len(), 1);
    let status = status(&*store).await;
    assert_eq!(status.backlog, [backlog("shop", 2, Some(at(100)))], "what is claimed does not wait in the store");
}

/// Dead letters of the last day are counted apart.
pub async fn counts_what_died_lately(stores: impl Factory) {
    let store = stores();
    store.accept(vec![dead_message("old", b"{")], START).await.unwrap();
    let now = START.plus(LATELY).plus(Duration::from_secs(1));
    store.accept(vec![dead_message("new", b"{")], now).await.unwrap();
    let (dead, _) = deliver(&*store, "dead", Claim::Here, START).await;
    store.record_attempts(vec![attempt(dead, 1, now, DEAD)]).await.unwrap();
    let status = store.status(now).await.unwrap();
    let counts = |counts: &[wirehook::store::ReasonCount]| {
        let mut counts: Vec<_> = counts.iter().map(|count| (count.reason.as_str(), count.count)).collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(counts(&status.dead_letters), [("status_4xx", 1), ("undecodable", 2)]);
    assert_eq!(counts(&status.dead_letters_lately), [("status_4xx", 1), ("undecodable", 1)]);
}

/// A pause is kept since it began, until it is ended; a plugin and a source of one name are two things.
pub async fn keeps_pauses(stores: impl Factory) {
    let store = stores();
    let pause = |kind, name: &str, since| Pause { kind, name: name.into(), since };
    let (plugin, source) = (pause(PauseKind::Plugin, "orders", START), pause(PauseKind::Source, "orders", at(1)));
    assert!(store.pause(plugin.clone()).await.unwrap());
    assert!(store.pause(source.clone()).await.unwrap());
    assert!(!store.pause(pause(PauseKind::Plugin, "orders", at(9))).await.unwrap(), "it was paused already");
    assert_eq!(store.pauses().await.unwrap(), [plugin, source.clone()]);
    assert_eq!(status(&*store).await.pauses.len(), 2);
    assert!(store.resume(PauseKind::Plugin, "orders".into()).await.unwrap());
    assert!(!store.resume(PauseKind::Plugin, "orders".into()).await.unwrap(), "it was not paused any more");
    assert_eq!(store.pauses().await.unwrap(), std::slice::from_ref(&source));
    store.pause(pause(PauseKind::Plugin, "orders", at(2))).await.unwrap();
    store.forget_plugin("orders".into(), ParkedFate::Die, at(3)).await.unwrap();
    assert_eq!(store.pauses().await.unwrap(), [source], "what is forgotten is not paused");
}
