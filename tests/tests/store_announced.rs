//! Runs that are called before their event is durable: what becomes of them shares its commit, or comes to nothing.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{Acceptance, Accepted, Completed, EventSeq, History, RunOutcome, Store, StoreError};
use wirehook_tests::account::Account;
use wirehook_tests::conformance::store::{HERE, OPEN, START, accept, arrival, at, completion, event};
use wirehook_tests::power_cut::PowerCut;

/// For what a busy machine may make late.
const DEADLINE: Duration = Duration::from_secs(60);

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(SqliteOptions::new(path), START).unwrap()
}

fn account(path: &Path) -> Account {
    Account::of_copy(path).unwrap()
}

fn produced() -> RunOutcome {
    RunOutcome::Produced(Vec::new())
}

/// Offers an event with a run, and completes the run as soon as it is announced; `None` where it was not.
async fn accept_and_complete(store: &SqliteStore, id: &str) -> (Result<Accepted, StoreError>, Option<Early>) {
    let (announce, announced) = oneshot::channel();
    let accepting = store.accept_announced(vec![arrival(event(id), &["orders"], HERE)], None, announce, START);
    let completing = async {
        let accepted = announced.await.ok()?;
        let [Acceptance::Fresh(seq)] = accepted.acceptances[..] else { panic!("{accepted:?}") };
        // As the outbox does, whatever becomes of the event.
        let completed = loop {
            match store.complete_runs(vec![completion(seq, "orders", at(1), produced())]).await {
                Ok(completed) => break completed,
                Err(error) => assert!(matches!(error, StoreError::Commit(_)), "{error}"),
            }
        };
        Some(Early { accepted, seq, completed: completed.into_iter().next().unwrap() })
    };
    tokio::join!(accepting, completing)
}

/// A run that was announced, and what its completion came to.
struct Early {
    accepted: Accepted,
    seq: EventSeq,
    completed: Completed,
}

#[tokio::test]
async fn a_run_may_be_completed_in_the_commit_that_accepts_its_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    let (started, mut events, mut shared) = (Instant::now(), 0, false);
    // On a busy machine a completion may come too late again and again.
    while !shared && started.elapsed() < DEADLINE {
        let before = store.commits().committed;
        let (accepted, early) = accept_and_complete(&store, &events.to_string()).await;
        let early = early.expect("it was announced");
        assert_eq!(accepted.unwrap(), early.accepted);
        assert!(matches!(early.completed, Completed::Ended(_)), "{:?}", early.completed);
        let commits = store.commits().committed - before;
        assert!((1..=2).contains(&commits), "{commits} commits");
        (events, shared) = (events + 1, commits == 1);
    }
    assert!(shared, "no completion came within a commit's time");
    store.close().await;
    assert_eq!(account(&path).events, events);
}

#[tokio::test]
async fn what_was_announced_and_failed_is_no_other_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let power = PowerCut::register();
    let options = SqliteOptions { vfs: Some(power.vfs().to_owned()), ..SqliteOptions::new(&path) };
    let store = SqliteStore::open(options, START).unwrap();
    power.fail_syncs("-wal", 0, 1);
    let (failed, early) = accept_and_complete(&store, "a").await;
    assert!(matches!(failed, Err(StoreError::Commit(_))), "{failed:?}");
    let early = early.expect("it was announced");
    assert_eq!(early.completed, Completed::NotHeld);
    // It comes again: the run that was called before must not pass for its.
    let (accepted, again) = accept_and_complete(&store, "a").await;
    let Acceptance::Fresh(seq) = accepted.unwrap().acceptances[0] else { panic!("nothing of it was kept") };
    assert!(seq > early.seq);
    assert!(again.is_none(), "plugins are not called again and again for what has no room");
    let (accepted, early) = accept_and_complete(&store, "b").await;
    let early = early.expect("there was room for an event");
    assert_eq!(accepted.unwrap(), early.accepted);
    assert!(matches!(early.completed, Completed::Ended(_)));
    store.close().await;
    assert_eq!(account(&path).events, 2);
}

/// An event whose call ended the host before it was durable is counted by nobody. It is durable the next time.
#[tokio::test]
async fn after_a_crash_an_event_is_durable_before_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    accept_and_complete(&store, "a").await.0.unwrap();
    let seq = accept(&store, "b", &["orders"], OPEN, START).await;
    let claimed = store.claim_runs("orders".into(), 9, at(1)).await.unwrap().work;
    assert_eq!(claimed[0].seq, seq);
    // The mark outlives the store, as after a crash.
    let mark = store.begin(&claimed[0], "digest", false);
    drop(store);
    drop(mark);
    let store = open(&path);
    let (accepted, early) = accept_and_complete(&store, "c").await;
    assert!(accepted.is_ok() && early.is_none());
    store.close().await;
    drop(store);
    // One that is killed before its first call has nothing to name, and has not stopped all the same.
    let begun = path.with_file_name("store.db.begun");
    let store = open(&path);
    let unnamed = std::fs::read(&begun).unwrap();
    drop(store);
    assert!(!begun.exists(), "a store that was opened for a look leaves nothing");
    std::fs::write(&begun, unnamed).unwrap();
    let store = open(&path);
    assert!(accept_and_complete(&store, "d").await.1.is_none());
    store.close().await;
    drop(store);
    assert!(accept_and_complete(&open(&path), "e").await.1.is_some(), "an orderly stop ends that");
}

/// Offers an event with a run that nobody completes, and tells when it was announced, so that the transaction waits for it.
async fn accept_and(
    store: &SqliteStore,
    id: &str,
    meanwhile: impl Future<Output = ()>,
) -> Result<Accepted, StoreError> {
    let (announce, announced) = oneshot::channel();
    let accepting = store.accept_announced(vec![arrival(event(id), &["orders"], HERE)], None, announce, START);
    let meanwhile = async {
        announced.await.expect("it was announced");
        meanwhile.await;
    };
    tokio::join!(accepting, meanwhile).0
}

#[tokio::test]
async fn a_store_closed_while_it_waits_for_a_run_keeps_the_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    for round in 0..20 {
        let store = open(&path);
        // A wait is as long as the commit before it took.
        accept_and_complete(&store, &format!("before {round}")).await.0.unwrap();
        accept_and(&store, &format!("waits {round}"), store.close()).await.unwrap();
        let late = store.complete_runs(vec![completion(EventSeq(1), "orders", START, produced())]).await;
        assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    }
    let store = open(&path);
    let left = store.claim_runs("orders".into(), 99, at(1)).await.unwrap().work;
    assert_eq!(left.len(), 20, "what nobody completed is called again");
    assert_eq!(account(&path).events, 40);
}

#[tokio::test]
async fn a_file_written_anew_while_a_run_is_waited_for_has_the_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    for round in 0..20 {
        accept_and_complete(&store, &format!("before {round}")).await.0.unwrap();
        let accepted = accept_and(&store, &format!("waits {round}"), async { store.rewrite().await.unwrap() }).await;
        let Acceptance::Fresh(seq) = accepted.unwrap().acceptances[0] else { panic!("it is new") };
        let completed = store.complete_runs(vec![completion(seq, "orders", at(1), produced())]).await.unwrap();
        assert!(matches!(completed[..], [Completed::Ended(_)]), "{completed:?}");
    }
    store.close().await;
    assert_eq!((account(&path).events, account(&path).runs_of("orders", "filtered")), (40, 40));
}
