//! Endpoints: their states, how they fare, what waits for them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use wirehook::delivery::Transition;
use wirehook::store::{
    Claim, EndpointChange, EndpointChanged, EndpointHealth, EndpointRecord, EndpointState, EndpointSummary,
    EndpointVerb, Store,
};

use super::{Factory, START, at, attempt, deliver, due_deliveries, status};

async fn enter(store: &dyn Store, names: &[&str], now_ms: i64) -> Vec<EndpointRecord> {
    let names = names.iter().map(|name| Arc::from(*name)).collect();
    store.enter_endpoints(names, at(now_ms)).await.unwrap()
}

async fn change(store: &dyn Store, name: &str, verb: EndpointVerb, now_ms: i64) -> EndpointChanged {
    let change = EndpointChange { name: name.into(), verb, reason: format!("to {}", verb.as_str()) };
    store.change_endpoint(change, at(now_ms)).await.unwrap()
}

async fn list(store: &dyn Store) -> Vec<EndpointSummary> {
    store.list_endpoints(Vec::new(), START).await.unwrap()
}

fn states(records: &[EndpointRecord]) -> Vec<(&str, EndpointState, i64)> {
    records.iter().map(|record| (record.name.as_str(), record.state, record.since.0 - START.0)).collect()
}

/// What was known stays as it is, in the settings or not.
pub async fn knows_endpoints_from_when_they_were_entered(stores: impl Factory) {
    let store = stores();
    use EndpointState::{Active, Disabled};
    assert_eq!(states(&enter(&*store, &["shop", "ledger"], 1).await), [("ledger", Active, 1), ("shop", Active, 1)]);
    change(&*store, "shop", EndpointVerb::Disable, 2).await;
    let entered = enter(&*store, &["shop", "crm"], 3).await;
    assert_eq!(states(&entered), [("crm", Active, 3), ("ledger", Active, 1), ("shop", Disabled, 2)]);
    assert_eq!(status(&*store).await.endpoints, entered);
}

/// Where a verb leads nowhere, nothing is written; where it leads, its reason stands.
pub async fn changes_an_endpoint_s_state_once(stores: impl Factory) {
    let store = stores();
    let EndpointChanged::Unknown { known } = change(&*store, "shop", EndpointVerb::Pause, 1).await else {
        panic!("nobody entered it")
    };
    assert_eq!(known, [] as [String; 0]);
    enter(&*store, &["shop"], 1).await;
    let EndpointChanged::Unknown { known } = change(&*store, "shopp", EndpointVerb::Pause, 1).await else {
        panic!("nobody entered that one")
    };
    assert_eq!(known, ["shop"]);
    let EndpointChanged::Done(record) = change(&*store, "shop", EndpointVerb::Pause, 2).await else { panic!() };
    assert_eq!((record.state, record.since, record.reason.as_str()), (EndpointState::Paused, at(2), "to pause"));
    let EndpointChanged::Already(same) = change(&*store, "shop", EndpointVerb::Pause, 3).await else { panic!() };
    assert_eq!(same, record);
    let EndpointChanged::Refused { record: same, meant } = change(&*store, "shop", EndpointVerb::Enable, 4).await
    else {
        panic!("it is paused")
    };
    assert_eq!((same, meant), (record, EndpointVerb::Resume));
    for (verb, state) in [
        (EndpointVerb::Disable, EndpointState::Disabled),
        (EndpointVerb::Enable, EndpointState::Active),
        (EndpointVerb::Pause, EndpointState::Paused),
        (EndpointVerb::Resume, EndpointState::Active),
    ] {
        let EndpointChanged::Done(record) = change(&*store, "shop", verb, 5).await else { panic!("{verb:?}") };
        assert_eq!((record.state, &record), (state, &list(&*store).await[0].record));
    }
}

/// How an endpoint fares survives changes of its state, but that enabling forgives its failures.
pub async fn keeps_how_endpoints_fare(stores: impl Factory) {
    let store = stores();
    enter(&*store, &["shop", "ledger"], 1).await;
    let health = EndpointHealth {
        failing_for: Duration::from_millis(3_600_123),
        last_success_at: Some(at(5)),
        last_failure_at: Some(at(6)),
    };
    let kept = vec![("shop".into(), health.clone()), ("gone".into(), health.clone())];
    store.keep_endpoint_health(kept).await.unwrap();
    let healths = |list: Vec<EndpointSummary>| list.into_iter().map(|it| it.record.health).collect::<Vec<_>>();
    assert_eq!(healths(list(&*store).await), [EndpointHealth::default(), health.clone()]);
    change(&*store, "shop", EndpointVerb::Pause, 2).await;
    change(&*store, "shop", EndpointVerb::Resume, 2).await;
    assert_eq!(list(&*store).await[1].record.health, health);
    change(&*store, "shop", EndpointVerb::Disable, 3).await;
    change(&*store, "shop", EndpointVerb::Enable, 4).await;
    let forgiven = EndpointHealth { failing_for: Duration::ZERO, ..health };
    assert_eq!(list(&*store).await[1].record.health, forgiven);
}

/// What waits is counted whether a host holds it or not, for endpoints that nobody entered too.
pub async fn lists_what_waits_for_each_endpoint(stores: impl Factory) {
    let store = stores();
    enter(&*store, &["ledger"], 1).await;
    let (held, _) = deliver(&*store, "held", Claim::Here, at(10)).await;
    deliver(&*store, "open", Claim::Open, at(20)).await;
    let shop = list(&*store).await.remove(1);
    assert_eq!((shop.record.name.as_str(), shop.backlog, shop.oldest_due_at), ("shop", 2, Some(at(20))));
    let shop = store.list_endpoints(vec![("shop".into(), held)], START).await.unwrap().remove(1);
    assert_eq!((shop.backlog, shop.oldest_due_at), (2, Some(at(10))), "a host says that it holds an older one");
    store.record_attempts(vec![attempt(held, 1, at(30), Transition::Delivered)]).await.unwrap();
    assert_eq!(due_deliveries(&*store, "shop", at(30)).await.len(), 1);
    let shop = store.list_endpoints(vec![("shop".into(), held)], START).await.unwrap().remove(1);
    assert_eq!((shop.backlog, shop.oldest_due_at), (1, None), "claimed, and the one that was held is done");
    let ledger = list(&*store).await.remove(0);
    assert_eq!((ledger.record.name.as_str(), ledger.backlog, ledger.oldest_due_at), ("ledger", 0, None));
}
