//! What a start makes of a store whose host ended without stopping: what was under way is suspect, and damage is found.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use wirehook::clock::Timestamp;
use wirehook::dead_letter::Reason;
use wirehook::delivery::Transition;
use wirehook::store::sqlite::{FailingKind, OpenError, SqliteOptions, SqliteStore};
use wirehook::store::{Begun, Claim, ClaimedRun, DeadLetterFilter, EventSeq, RunOutcome, Spends, Store, StoreError};
use wirehook_tests::account::Account;
use wirehook_tests::conformance::store::{OPEN, START, accept, arrival, at, attempt, completion, deliver, event};
use wirehook_tests::power_cut::PowerCut;

const DIGEST: &str = "8b5f48702995c1598c573db1e21866a9b825d4a794d169d7060a03605796360b";

/// Longer than any test takes.
const LATER: Timestamp = Timestamp(START.0 + 86_400_000);

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(SqliteOptions::new(path), START).unwrap()
}

/// A store on a disk that fails when it is told to.
fn open_on_failing_disk(path: &Path) -> (PowerCut, SqliteStore) {
    let power = PowerCut::register();
    let options = SqliteOptions { vfs: Some(power.vfs().to_owned()), ..SqliteOptions::new(path) };
    let store = SqliteStore::open(options, START).unwrap();
    (power, store)
}

async fn claim(store: &SqliteStore) -> Vec<ClaimedRun> {
    store.claim_runs("orders".into(), 99, LATER).await.unwrap().work
}

/// Marks that calls of these runs begin.
fn begin<'r>(store: &SqliteStore, runs: impl IntoIterator<Item = &'r ClaimedRun>, alone: bool) -> Vec<Begun> {
    runs.into_iter().map(|run| store.begin(run, DIGEST, alone)).collect()
}

/// Ends the store as a crash would: no claim is given up, and nothing says that it stopped.
fn crash(store: SqliteStore, marks: Vec<Begun>) {
    drop(store);
    drop(marks);
}

fn account(path: &Path) -> Account {
    Account::of_copy(path).unwrap()
}

fn produced() -> RunOutcome {
    RunOutcome::Produced(Vec::new())
}

#[tokio::test]
async fn a_run_that_ends_the_host_alone_twice_is_a_dead_letter_and_no_other_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    for id in ["a", "guilty", "b", "waiting"] {
        accept(&store, id, &["orders"], OPEN, START).await;
    }
    let runs = claim(&store).await;
    let guilty = runs[1].seq;
    assert!(runs.iter().all(|run| run.crashes == 0));
    // The last is claimed, and no call of it begins.
    let marks = begin(&store, &runs[..3], false);
    crash(store, marks);

    for crashes in 1..=2 {
        let store = open(&path);
        let runs = claim(&store).await;
        let suspects: Vec<_> = runs.iter().map(|run| (run.seq == guilty, run.crashes)).collect();
        let expected = [(false, 1), (true, crashes), (false, 1), (false, 0)];
        assert_eq!(suspects, expected, "what was not under way when the host ended is no more suspect than before");
        let marks = begin(&store, &runs[1..2], true);
        crash(store, marks);
    }
    let store = open(&path);
    let runs = claim(&store).await;
    assert_eq!(runs.len(), 3);
    let dead = store.list_dead_letters(DeadLetterFilter::default()).await.unwrap();
    assert_eq!((dead.len(), dead[0].reason), (1, Reason::HostCrash));
    assert!(dead[0].detail.contains("3 times") && dead[0].detail.contains("2 of them"), "{}", dead[0].detail);
    let by_digest = DeadLetterFilter { plugin_digest: Some(DIGEST.to_owned()), ..DeadLetterFilter::default() };
    assert_eq!(store.list_dead_letters(by_digest).await.unwrap().len(), 1, "the build is named");
    assert_eq!(store.status(START).await.unwrap().events_unaccounted, 0);
    let outcomes = runs.iter().map(|run| completion(run.seq, "orders", START, produced()));
    store.complete_runs(outcomes.collect()).await.unwrap();
    store.close().await;
    drop(store);
    let account = account(&path);
    assert_eq!((account.runs_of("orders", "dead"), account.runs_of("orders", "filtered")), (1, 3));

    // Redriven, it is called alone from the first.
    let store = open(&path);
    store.redrive(DeadLetterFilter::default(), START).await.unwrap();
    let runs = claim(&store).await;
    assert_eq!(runs.iter().map(|run| run.crashes).collect::<Vec<_>>(), [3]);
    let marks = begin(&store, &runs, true);
    crash(store, marks);
    let store = open(&path);
    assert!(claim(&store).await.is_empty());
    assert_eq!(store.list_dead_letters(DeadLetterFilter::default()).await.unwrap()[0].reason, Reason::HostCrash);
}

#[tokio::test]
async fn no_number_of_crashes_in_company_kills_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    for id in 0..50 {
        accept(&store, &id.to_string(), &["orders"], OPEN, START).await;
    }
    drop(store);
    for crashes in 0..6 {
        let store = open(&path);
        let runs = claim(&store).await;
        assert_eq!(runs.len(), 50);
        assert!(runs.iter().all(|run| run.crashes == crashes), "{crashes}");
        let marks = begin(&store, &runs, false);
        crash(store, marks);
    }
    assert!(account(&path).dead_letters.is_empty());
}

#[tokio::test]
async fn an_outcome_and_an_orderly_stop_clear_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    for id in ["retries", "done", "stopped"] {
        accept(&store, id, &["orders"], OPEN, START).await;
    }
    let runs = claim(&store).await;
    let marks = begin(&store, &runs, false);
    let retry = RunOutcome::Retry { spends: Spends::Retry, due_at: at(5), detail: "later".to_owned() };
    // Both have an outcome before the host ends; their marks are still there.
    let ends = vec![
        completion(runs[0].seq, "orders", START, retry.clone()),
        completion(runs[1].seq, "orders", START, produced()),
    ];
    store.complete_runs(ends).await.unwrap();
    crash(store, marks);

    let store = open(&path);
    let runs = claim(&store).await;
    assert_eq!(runs.iter().map(|run| run.crashes).collect::<Vec<_>>(), [1, 0], "by when they are due");
    let marks = begin(&store, &runs, true);
    // Alone, and the host still stands: it is a run as any other.
    store.complete_runs(vec![completion(runs[0].seq, "orders", START, retry)]).await.unwrap();
    store.close().await;
    drop((store, marks));

    let store = open(&path);
    let runs = claim(&store).await;
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|run| run.crashes == 0), "a host that stopped in order ended under nobody: {runs:?}");
}

#[tokio::test]
async fn a_suspect_keeps_its_count_while_it_is_parked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    accept(&store, "a", &["orders"], OPEN, START).await;
    let runs = claim(&store).await;
    let marks = begin(&store, &runs, false);
    crash(store, marks);
    let store = open(&path);
    assert_eq!(store.park_runs("orders".into()).await.unwrap(), 1);
    crash(store, Vec::new());
    let store = open(&path);
    let known = wirehook::store::KnownPlugin { name: "orders".into(), subjects: Vec::new(), digest: "d".into() };
    assert_eq!(store.remember_plugin(known, START).await.unwrap(), 1);
    assert_eq!(claim(&store).await[0].crashes, 1);
}

/// Damages the middle of the file, where rows are.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_refused_after_a_crash_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    for id in 0..500 {
        accept(&store, &format!("{id}-{}", "x".repeat(300)), &["orders"], OPEN, START).await;
    }
    store.close().await;
    drop(store);
    damage(&path);
    // A host that opened it and crashed leaves a log behind.
    let beside = Connection::open(&path).unwrap();
    beside.execute_batch("PRAGMA wal_autocheckpoint = 0; UPDATE sequence SET last = last + 1").unwrap();
    let log = std::fs::read(folder.path().join("store.db-wal")).unwrap();
    assert!(!log.is_empty());
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(SqliteOptions::new(&path), START).err().expect("it is refused");
    let said = refused.to_string();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{said}");
    assert!(said.contains(&path.display().to_string()) && said.contains("restore it from a backup"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    drop(beside);
}

#[tokio::test]
async fn a_store_that_fails_says_why_until_a_commit_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let (power, store) = open_on_failing_disk(&folder.path().join("store.db"));
    assert_eq!(store.failing(), None);
    power.fail_syncs("-wal", 0, 1);
    let failed = store.heartbeat(at(1)).await;
    assert!(matches!(failed, Err(StoreError::Commit(_))), "{failed:?}");
    let failing = store.failing().expect("the last commit failed");
    assert_eq!(failing.kind, FailingKind::Other);
    assert!(failing.advice().contains("disk"), "{}", failing.advice());
    store.heartbeat(at(2)).await.unwrap();
    assert_eq!(store.failing(), None);
}

/// What a failed commit wrote into the log looks committed to whoever recovers the log: it must be overwritten at once.
#[tokio::test]
async fn what_a_failed_commit_left_is_not_found_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (power, store) = open_on_failing_disk(&path);
    power.fail_syncs("-wal", 0, 1);
    let failed = store.accept(vec![arrival(event("a"), &["orders"], OPEN)], START).await;
    assert!(matches!(failed, Err(StoreError::Commit(_))), "{failed:?}");
    // What it says is there already, so this writes nothing; it is answered after the store has reopened.
    store.heartbeat(START).await.unwrap();
    assert_eq!(account(&path).events, 0, "as a crash at this moment would leave it");
    drop(store);
}

#[tokio::test]
async fn a_clock_that_is_set_back_delays_nothing() {
    const HOUR: i64 = 3_600_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    for id in ["pending", "retrying"] {
        accept(&store, id, &["orders"], OPEN, at(HOUR)).await;
    }
    let (delivery, _) = deliver(&store, "delivered", Claim::Here, at(HOUR)).await;
    store
        .record_attempts(vec![attempt(delivery, 1, at(HOUR), Transition::Retry { due_at: at(HOUR + 5_000) })])
        .await
        .unwrap();
    let retrying = claim(&store).await.pop().unwrap();
    let retry = RunOutcome::Retry { spends: Spends::Retry, due_at: at(HOUR + 2_000), detail: "later".to_owned() };
    store.complete_runs(vec![completion(retrying.seq, "orders", at(HOUR), retry)]).await.unwrap();
    let pending = store.release(vec![(EventSeq(1), "orders".into())], Vec::new());
    pending.await.unwrap();

    let due = async |store: &SqliteStore, now| {
        let (runs, deliveries) =
            (store.claim_runs("orders".into(), 99, now), store.claim_deliveries("shop".into(), 99, now));
        (runs.await.unwrap(), deliveries.await.unwrap())
    };
    let (runs, deliveries) = due(&store, at(0)).await;
    assert_eq!((runs.work.len(), deliveries.work.len()), (0, 0), "by the clock before, it is not due for an hour");
    store.clock_went_back(Duration::from_millis(HOUR as u64), at(0)).await.unwrap();
    let (runs, deliveries) = due(&store, at(0)).await;
    assert_eq!((runs.work.len(), runs.next_due), (1, Some(at(2_000))));
    assert_eq!((deliveries.work.len(), deliveries.next_due), (0, Some(at(5_000))));

    // The host that is started next finds a clock that shows less than the one before has seen.
    store.heartbeat(at(HOUR)).await.unwrap();
    drop(store);
    let store = SqliteStore::open(SqliteOptions::new(&path), at(-HOUR)).unwrap();
    let (runs, _) = due(&store, at(-HOUR)).await;
    assert_eq!(runs.work.len(), 2);
}
