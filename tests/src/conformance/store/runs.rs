//! Runs: claimed, released, completed, retried, parked.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use wirehook::dead_letter::Reason;
use wirehook::store::{
    Claim, Completed, DeadLetterFilter, DeliveryFilter, EventSeq, KnownPlugin, RunOutcome, RunStart, Spends, Written,
};

use super::{
    Factory, HERE, OPEN, START, accept, at, completion, deliver, delivery, due_deliveries, due_runs, runs_in, status,
};

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
    assert!(matches!(&written[0], Completed::Ended(written) if written.deliveries.len() == 1), "{written:?}");
    assert_eq!(written[1..], [Completed::NotHeld, Completed::Ended(Written::default())]);
    let again = store.complete_runs(vec![completion(a, "orders", at(2), produced())]).await.unwrap();
    assert_eq!(again, [Completed::NotHeld]);
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
        let completed = store.complete_runs(vec![completion(open, "orders", START, outcome)]).await.unwrap();
        assert_eq!(completed, [Completed::NotHeld]);
    }
    let unknown = completion(EventSeq(open.0 + 1000), "orders", START, RunOutcome::Produced(Vec::new()));
    assert_eq!(store.complete_runs(vec![unknown]).await.unwrap(), [Completed::NotHeld]);
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
    assert_eq!(written[0].deliveries().len(), 2);
    assert_eq!(due_deliveries(&*store, "shop", START).await.len(), 2);
    status(&*store).await;
}

/// A retrying run comes back when it is due, and knows its tries.
pub async fn retries_a_run_when_due(stores: impl Factory) {
    let store = stores();
    let seq = accept(&*store, "a", &["orders"], HERE, START).await;
    let retry = RunOutcome::Retry { spends: Spends::Retry, due_at: at(1000), detail: "not yet".to_owned() };
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
    let retry = RunOutcome::Retry { spends: Spends::Retry, due_at: at(4), detail: String::new() };
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
    assert_eq!(store.remember_plugin(plugin, at(3)).await.unwrap(), 4);
    let due = due_runs(&*store, "orders", at(1000)).await;
    assert_eq!(due, [(born_parked, 0), (gone_missing, 0), (waiting, 0), (retrying, 1)]);
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
        assert_eq!(store.remember_plugin(known, at(3)).await.unwrap(), 0);
    }
    assert_eq!(store.known_plugins().await.unwrap(), [plugin("a", "1"), plugin("b", "2")]);
    store.heartbeat(at(5)).await.unwrap();
}

/// A try that the host could not serve is none; a broken deadline is counted apart. A redrive begins anew.
pub async fn counts_tries_by_their_budgets(stores: impl Factory) {
    let store = stores();
    let run = accept(&*store, "a", &["orders"], HERE, START).await;
    let tries = async || {
        let claimed = store.claim_runs("orders".into(), 9, at(1)).await.unwrap().work;
        (claimed[0].attempts_made, claimed[0].deadlines)
    };
    let ends = async |outcome| store.complete_runs(vec![completion(run, "orders", START, outcome)]).await.unwrap();
    let spent = [
        (Spends::Nothing, (0, 0)),
        (Spends::Deadline, (1, 1)),
        (Spends::Retry, (2, 1)),
        (Spends::Nothing, (2, 1)),
        (Spends::Deadline, (3, 2)),
    ];
    for (spends, expected) in spent {
        ends(RunOutcome::Retry { spends, due_at: START, detail: String::new() }).await;
        assert_eq!(tries().await, expected, "{spends:?}");
    }
    ends(RunOutcome::Dead { reason: Reason::PluginDeadline, detail: String::new() }).await;
    store.redrive(DeadLetterFilter::default(), at(1)).await.unwrap();
    assert_eq!(tries().await, (0, 0));
}
