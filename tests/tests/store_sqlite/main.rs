//! What is particular to the store in a SQLite file: opening it, its lock, its commits and its failures.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

mod retention;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use rusqlite::Connection;
use tokio::task::unconstrained;
use wirehook::dead_letter::Reason;
use wirehook::delivery::Transition;
use wirehook::metrics::{CommitMetrics, Metrics};
use wirehook::store::sqlite::{OpenError, SqliteOptions, SqliteStore};
use wirehook::store::{Acceptance, Arrival, Claim, EventSeq, History, RunOutcome, Store, StoreError};
use wirehook_tests::conformance::store::{
    HERE, OPEN, START, accept, arrival, at, attempt, completion, cursor_of, deliver, delivery, event, kept_cursor,
};
use wirehook_tests::power_cut::{PowerCut, Unsynced};

use retention::BEFORE_PASSED;

fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(SqliteOptions::new(path), START)
}

fn one(id: &str) -> Vec<Arrival> {
    vec![arrival(event(id), &["orders"], HERE)]
}

/// The error of opening, which must name the path and say what to do.
#[track_caller]
fn refused(options: SqliteOptions, expected: &str) -> OpenError {
    let path = options.path.display().to_string();
    let error = SqliteStore::open(options, START).err().expect("opening is refused");
    let message = error.to_string();
    assert!(message.contains(&path) && message.contains(expected), "{message}");
    error
}

fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_not_a_store_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    let foreign = std::fs::read(&foreign).unwrap();
    std::fs::remove_file(folder.path().join("foreign.db")).unwrap();
    for content in [b"hello".to_vec(), vec![0; 200], b"SQLite format 3\0".to_vec(), foreign] {
        std::fs::write(&path, &content).unwrap();
        let error = refused(SqliteOptions::new(&path), "is not a Wirehook store and was left as it is");
        assert!(matches!(error, OpenError::NotAStore { .. }));
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(files_in(folder.path()), ["store.db"]);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(refused(SqliteOptions::new(&path), "not a Wirehook store"), OpenError::NotAStore { .. }));
}

#[test]
fn nothing_is_created_where_it_was_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let error = refused(SqliteOptions { create: false, ..SqliteOptions::new(&path) }, "`wirehook run` creates it");
    assert!(matches!(error, OpenError::Missing { .. }));
    let lost = folder.path().join("missing/store.db");
    assert!(matches!(refused(SqliteOptions::new(lost), "create it"), OpenError::NoFolder { .. }));
    assert!(files_in(folder.path()).is_empty());
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    let expected = format!("in use by process {}", std::process::id());
    let error = refused(SqliteOptions::new(&path), &expected);
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(open(&link), Err(OpenError::Locked { .. })), "by another name");
    drop(store);
    open(&path).unwrap();
}

#[tokio::test]
async fn the_files_are_the_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    accept(&store, "a", &["orders"], HERE, START).await;
    store.is_idle(Vec::new()).await.unwrap();
    assert_eq!(
        files_in(folder.path()),
        ["store.db", "store.db-shm", "store.db-wal", "store.db.begun", "store.db.lock"]
    );
    for name in files_in(folder.path()) {
        let mode = std::fs::metadata(folder.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    assert_eq!(files_in(folder.path()), ["store.db", "store.db.lock"], "a closed store is one file");
}

/// The version that this host writes.
const VERSION: usize = 11;

#[test]
fn versions_are_minded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(open(&path).unwrap());
    let set_version =
        |version: i32| Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
    set_version(99);
    let error = refused(SqliteOptions::new(&path), "use a later Wirehook");
    assert!(matches!(error, OpenError::Newer { found: 99, known: VERSION, .. }), "{error:?}");
    set_version(0);
    let error = refused(SqliteOptions { migrate: false, ..SqliteOptions::new(&path) }, "start `wirehook run` once");
    assert!(matches!(error, OpenError::NeedsMigration { found: 0, known: VERSION, .. }), "{error:?}");
    set_version(VERSION.try_into().unwrap());
    open(&path).unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_version_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(BEFORE_PASSED).unwrap();
    connection
        .execute_batch(
            "DROP TABLE source_cursor; DROP TABLE plugin_state; DROP TABLE plugin_state_usage;
             DROP TABLE lookup; DROP TABLE suspect; DROP TABLE endpoint_state; DROP TABLE pause;
             DROP INDEX dead_letter_by_time; DROP INDEX run_order; DROP INDEX delivery_order;
             ALTER TABLE run DROP COLUMN order_key; ALTER TABLE run DROP COLUMN bytes;
             ALTER TABLE delivery DROP COLUMN order_key; ALTER TABLE delivery DROP COLUMN bytes; PRAGMA user_version = 1",
        )
        .unwrap();
    let store = open(&path).unwrap();
    assert_eq!(store.cursor("bus".into()).await.unwrap(), None);
    drop(store);
    let version: i32 = Connection::open(&path).unwrap().query_row("PRAGMA user_version", (), |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(version).unwrap(), VERSION);
}

#[test]
fn a_crash_during_creation_leaves_nothing_in_the_way() {
    let power = PowerCut::register();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(SqliteStore::open(SqliteOptions { vfs: Some(power.vfs().to_owned()), ..SqliteOptions::new(&path) }, START));
    let recording = power.recording();
    let all: Vec<usize> = (0..=recording.len()).collect();
    recording.for_each_cut(&all, |cut| {
        for unsynced in [Unsynced::Lost, Unsynced::Torn(cut.step as u64)] {
            let folder = tempfile::tempdir().unwrap();
            cut.image(unsynced).write_to(folder.path()).unwrap();
            let opened = open(&folder.path().join("store.db"));
            assert!(opened.is_ok(), "step {}, {unsynced:?}: {:?}", cut.step, opened.err());
        }
    });
}

#[tokio::test]
async fn work_that_was_claimed_before_a_crash_is_due_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    let (retrying, _) = deliver(&store, "retrying", Claim::Here, START).await;
    store.record_attempts(vec![attempt(retrying, 1, START, Transition::Retry { due_at: at(5) })]).await.unwrap();
    let (done, _) = deliver(&store, "done", Claim::Here, START).await;
    store.record_attempts(vec![attempt(done, 1, START, Transition::Delivered)]).await.unwrap();
    let held = accept(&store, "held", &["orders", "invoices"], HERE, START).await;
    accept(&store, "open", &["orders"], OPEN, START).await;
    let (sent, _) = deliver(&store, "sent", Claim::Here, START).await;
    assert_eq!(store.claim_deliveries("shop".into(), 9, at(5)).await.unwrap().work.len(), 1);
    // Dropping ends the writer as a crash would: no claim is given up.
    drop(store);
    let store = open(&path).unwrap();
    let due = |plugin: &str| store.claim_runs(plugin.into(), 9, at(10));
    let orders = due("orders").await.unwrap().work;
    assert_eq!((orders.len(), orders[0].seq), (2, held));
    assert_eq!(due("invoices").await.unwrap().work.len(), 1);
    let work = store.claim_deliveries("shop".into(), 9, at(10)).await.unwrap().work;
    assert_eq!(work.iter().map(|delivery| delivery.seq).collect::<Vec<_>>(), [sent, retrying]);
    assert_eq!(store.status(START).await.unwrap().events_unaccounted, 0);
}

#[tokio::test]
async fn claims_of_a_host_that_is_gone_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    let run = accept(&store, "run", &["orders"], OPEN, START).await;
    let beside = Connection::open(&path).unwrap();
    beside
        .execute_batch(&format!(
            "INSERT INTO host (id, pid, started_at, seen_at) VALUES (77, 1, 0, {0}); UPDATE run SET claimed_by = 77",
            START.0
        ))
        .unwrap();
    assert!(store.claim_runs("orders".into(), 9, at(60_000)).await.unwrap().work.is_empty(), "seen a minute ago");
    assert_eq!(store.claim_runs("orders".into(), 9, at(60_001)).await.unwrap().work[0].seq, run);
    beside.execute_batch("DELETE FROM host").unwrap();
    store.heartbeat(at(70_000)).await.unwrap();
    assert_eq!(store.status(START).await.unwrap().events_unaccounted, 0, "the heartbeat enters the host again");
}

/// Polls each call once, so that it is queued.
fn queue<'s, T>(calls: impl IntoIterator<Item = BoxFuture<'s, T>>) -> Vec<BoxFuture<'s, T>> {
    let mut calls: Vec<_> = calls.into_iter().collect();
    for call in &mut calls {
        assert!(unconstrained(call).now_or_never().is_none(), "it waits for its commit");
    }
    calls
}

/// A store whose writer is in a commit that can't end, and the call that waits for it.
struct Held {
    power: PowerCut,
    store: Arc<SqliteStore>,
    first: tokio::task::JoinHandle<Result<Vec<Acceptance>, StoreError>>,
    commits: CommitMetrics,
    _folder: tempfile::TempDir,
}

async fn held() -> Held {
    let power = PowerCut::register();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let commits = Metrics::new("0").unwrap().commits;
    let vfs = Some(power.vfs().to_owned());
    let options = SqliteOptions { vfs, commits: Some(commits.clone()), ..SqliteOptions::new(path) };
    let store = Arc::new(SqliteStore::open(options, START).unwrap());
    power.hold_syncs();
    let accepting = Arc::clone(&store);
    let first = tokio::spawn(async move { accepting.accept(one("first"), START).await });
    let power = tokio::task::spawn_blocking(move || {
        power.wait_for_held_sync();
        power
    });
    Held { power: power.await.unwrap(), store, first, commits, _folder: folder }
}

#[tokio::test]
async fn what_waits_shares_one_commit_and_is_answered_after_it() {
    let Held { power, store, first, commits: _, _folder } = held().await;
    let before = store.commits();
    let mut calls = queue((0..50).map(|index| store.accept(one(&index.to_string()), START)));
    assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()), "nobody is answered before the commit");
    power.release_syncs();
    first.await.unwrap().unwrap();
    for answer in join_all(calls).await {
        assert!(matches!(answer.unwrap()[..], [Acceptance::Fresh(_)]));
    }
    let after = store.commits();
    assert_eq!((after.committed - before.committed, after.commands - before.commands), (2, 51));
}

#[tokio::test]
async fn a_failed_commit_fails_all_its_waiters_and_the_store_reopens() {
    let Held { power, store, first, commits, _folder } = held().await;
    let calls = queue((0..10).map(|index| store.accept(one(&index.to_string()), START)));
    power.fail_syncs("-wal", 1, 1);
    power.release_syncs();
    first.await.unwrap().unwrap();
    for answer in join_all(calls).await {
        let error = answer.unwrap_err();
        assert!(matches!(error, StoreError::Commit(_)) && error.to_string().contains("try again"), "{error}");
    }
    assert_eq!((store.commits().failed, store.failing().is_some(), commits.failures.get()), (1, true, 1));
    let counted = commits.seconds.get_sample_count();
    let again = store.accept((0..10).flat_map(|index| one(&index.to_string())).collect(), START).await.unwrap();
    assert!(again.iter().all(|acceptance| matches!(acceptance, Acceptance::Fresh(_))), "nothing was kept: {again:?}");
    assert!(store.failing().is_none());
    assert_eq!((commits.seconds.get_sample_count(), commits.failures.get()), (counted + 1, 1));
    let status = store.status(START).await.unwrap();
    assert_eq!((status.events, status.runs[0].count), (11, 11));
}

#[tokio::test]
async fn a_cursor_is_kept_or_not_with_its_events() {
    let Held { power, store, first, commits: _, _folder } = held().await;
    power.release_syncs();
    first.await.unwrap().unwrap();
    store.accept_at(one("a"), Some(cursor_of("bus", b"1")), START).await.unwrap();
    power.fail_syncs("-wal", 0, 1);
    let failed = store.accept_at(one("b"), Some(cursor_of("bus", b"2")), START).await;
    assert!(matches!(failed, Err(StoreError::Commit(_))), "{failed:?}");
    assert_eq!(kept_cursor(&*store, "bus").await.unwrap(), b"1");
    assert!(matches!(store.accept(one("b"), START).await.unwrap()[..], [Acceptance::Fresh(_)]));
}

#[tokio::test]
async fn a_cursor_is_there_when_the_store_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    store.accept_at(one("a"), Some(cursor_of("bus", b"1")), START).await.unwrap();
    store.accept_at(one("b"), Some(cursor_of("bus", b"2")), START).await.unwrap();
    store.close().await;
    drop(store);
    assert_eq!(kept_cursor(&open(&path).unwrap(), "bus").await.unwrap(), b"2");
}

#[tokio::test]
async fn a_store_that_cannot_reopen_says_so_and_recovers() {
    let Held { power, store, first, commits: _, _folder } = held().await;
    power.fail_syncs("-wal", 0, 1);
    power.fail_opens(3);
    power.release_syncs();
    assert!(matches!(first.await.unwrap(), Err(StoreError::Commit(_))));
    let mut refusals = 0;
    loop {
        match store.accept(one("later"), START).await {
            Ok(acceptances) => {
                assert!(matches!(acceptances[..], [Acceptance::Fresh(_)]));
                break;
            }
            Err(error) => {
                assert!(error.to_string().contains("could not be reopened"), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals <= 2, "each command is another try: {refusals}");
}

/// A writer that has a rewriting to do takes nothing else: it must not wait for a store that can't be opened.
#[tokio::test]
async fn a_rewriting_asked_of_a_store_that_cannot_reopen_fails_and_holds_up_nothing() {
    let Held { power, store, first, commits: _, _folder } = held().await;
    power.fail_syncs("-wal", 0, 1);
    power.fail_opens(3);
    let rewriting = Arc::clone(&store);
    let mut rewriting = Box::pin(async move { rewriting.rewrite().await });
    assert!((&mut rewriting).now_or_never().is_none());
    power.release_syncs();
    assert!(matches!(first.await.unwrap(), Err(StoreError::Commit(_))));
    assert!(matches!(rewriting.await, Err(StoreError::Rewrite(_))));
    while store.accept(one("later"), START).await.is_err() {}
    store.close().await;
}

/// Room that was given to a batch that has yet to run does not let another pass: a stream's messages would change places.
#[tokio::test]
async fn batches_keep_their_order_when_the_queue_was_full() {
    let Held { power, store, first, commits: _, _folder } = held().await;
    let mut calls = queue((0..1023).map(|index| store.accept(one(&index.to_string()), START)));
    let mut second = queue([store.accept(one("second"), START)]);
    power.release_syncs();
    first.await.unwrap().unwrap();
    // There is room for the second now, and it was not run since.
    calls.pop().unwrap().await.unwrap();
    let third = queue([store.accept(one("third"), START)]);
    let second = second.pop().unwrap().await.unwrap();
    let third = join_all(third).await.pop().unwrap().unwrap();
    let ([Acceptance::Fresh(second)], [Acceptance::Fresh(third)]) = (&second[..], &third[..]) else {
        panic!("both are new")
    };
    assert!(second < third, "{second:?} and {third:?}");
    join_all(calls).await;
}

#[tokio::test]
async fn a_closed_store_finishes_what_was_asked_and_refuses_the_rest() {
    let Held { power, store, first, commits: _, _folder } = held().await;
    let calls = queue((0..10).map(|index| store.accept(one(&index.to_string()), START)));
    let closing = Arc::clone(&store);
    let mut closing = Box::pin(async move { closing.close().await });
    assert!((&mut closing).now_or_never().is_none());
    assert!(matches!(store.accept(one("late"), START).await, Err(StoreError::Closed)));
    assert!(matches!(store.status(START).await, Err(StoreError::Closed)));
    power.release_syncs();
    first.await.unwrap().unwrap();
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    closing.await;
    store.close().await;
}

#[tokio::test]
async fn the_log_does_not_grow_for_ever() {
    const CHECKPOINT_BYTES: u64 = 64 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let options = SqliteOptions { checkpoint_bytes: CHECKPOINT_BYTES, ..SqliteOptions::new(&path) };
    let store = SqliteStore::open(options, START).unwrap();
    // A reader that never ends, such as a forgotten `sqlite3`, keeps the log from starting anew only while it lasts.
    let reader = Connection::open(&path).unwrap();
    let size = || std::fs::metadata(folder.path().join("store.db-wal")).unwrap().len();
    for round in 0..3 {
        if round == 1 {
            reader.execute_batch("BEGIN; SELECT count(*) FROM event").unwrap();
        }
        if round == 2 {
            reader.execute_batch("COMMIT").unwrap();
        }
        for batch in 0..40 {
            let body = "x".repeat(8 * 1024);
            let arrivals = (0..16).map(|index| {
                let id = format!("{round}-{batch}-{index}");
                arrival(wirehook_tests::conformance::store::event_with_body(&id, &body), &["orders"], OPEN)
            });
            store.accept(arrivals.collect(), START).await.unwrap();
        }
        if round != 1 {
            assert!(size() < 64 * CHECKPOINT_BYTES, "{} bytes in round {round}", size());
        }
    }
}

/// The indexes that a claim needs, and that history must not slow down, are used.
#[test]
fn claims_do_not_scan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    let check = |sql: &str, expected: &str| {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> = explain.query_map((), |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
        let plan = plan.join("; ");
        assert!(plan.contains(expected) && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    };
    check(
        "SELECT * FROM run WHERE plugin = 'p' AND claimed_by IS NULL AND state IN ('pending', 'retrying') AND due_at <= 5
         ORDER BY due_at, event_seq LIMIT 5",
        "run_claimable (plugin=? AND due_at<?)",
    );
    check(
        "SELECT * FROM delivery WHERE endpoint = 'e' AND claimed_by IS NULL AND state IN ('pending', 'retrying')
           AND due_at <= 5 ORDER BY due_at, seq LIMIT 5",
        "delivery_claimable (endpoint=? AND due_at<?)",
    );
    check(
        "SELECT 1 FROM dead_letter WHERE event_seq = 5 AND plugin = 'p' AND delivery_seq = 7",
        "dead_letter_of_event",
    );
}

/// An operator with `sqlite3` reads the views.
#[tokio::test]
async fn the_views_read_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    let (seq, id) = deliver(&store, "a", Claim::Here, START).await;
    store.record_attempts(vec![attempt(seq, 1, at(10), Transition::Retry { due_at: at(1_500) })]).await.unwrap();
    let dead = accept(&store, "b", &["orders"], HERE, START).await;
    let trap = RunOutcome::Dead { reason: Reason::PluginTrap, detail: "unreachable".to_owned() };
    store.complete_runs(vec![completion(dead, "orders", at(1), trap)]).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    let check = |sql: &str, expected: &str| {
        let found: String = connection.query_row(sql, (), |row| row.get(0)).unwrap();
        assert_eq!(found, expected, "{sql}");
    };
    let line = format!("{} bus/id/a retrying 2027-01-15T08:00:01.500Z {{\"order\":\"a\"}}", id.as_str());
    check("SELECT concat_ws(' ', id, event_key, state, due, body) FROM v_delivery", &line);
    check(
        "SELECT concat_ws(' ', number, started, duration_s, status, response) FROM v_attempt",
        "1 2027-01-15T08:00:00.010Z 0.02 503 said so",
    );
    check(
        "SELECT concat_ws(' ', kind, reason, died, detail) FROM v_dead_letter",
        "run plugin_trap 2027-01-15T08:00:00.001Z unreachable",
    );
    check("SELECT concat_ws(' ', event_key, plugin, state) FROM v_run WHERE state = 'dead'", "bus/id/b orders dead");
    check(
        "SELECT concat_ws(' ', accepted, entity) FROM v_event WHERE seq = 1",
        "2027-01-15T08:00:00.000Z {\"body\":\"a\"}",
    );
}

/// Each way in which guarantee 2 can be broken behind the store's back is seen.
#[tokio::test]
async fn unaccounted_events_are_counted() {
    for damage in [
        "DELETE FROM run WHERE state = 'pending'",
        "UPDATE run SET state = 'nonsense' WHERE state = 'pending'",
        "UPDATE run SET claimed_by = 999 WHERE state = 'pending'",
        "DELETE FROM delivery WHERE state = 'delivered'",
        "UPDATE delivery SET state = 'nonsense' WHERE state = 'delivered'",
        "UPDATE run SET delivery_count = 0 WHERE state = 'produced' AND delivery_from = 1",
        "DELETE FROM dead_letter WHERE kind = 'delivery'",
        "DELETE FROM dead_letter WHERE kind = 'run'",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = open(&path).unwrap();
        accept(&store, "waiting", &["orders"], OPEN, START).await;
        let (delivered, _) = deliver(&store, "delivered", Claim::Here, START).await;
        let (dead, _) = deliver(&store, "dead", Claim::Here, START).await;
        let transition = Transition::Dead { reason: Reason::Status4xx };
        let records = vec![attempt(delivered, 1, START, Transition::Delivered), attempt(dead, 1, START, transition)];
        store.record_attempts(records).await.unwrap();
        let run = accept(&store, "trapped", &["orders"], HERE, START).await;
        let trap = RunOutcome::Dead { reason: Reason::PluginTrap, detail: String::new() };
        store.complete_runs(vec![completion(run, "orders", START, trap)]).await.unwrap();
        assert_eq!(store.status(START).await.unwrap().events_unaccounted, 0);
        assert!(Connection::open(&path).unwrap().execute(damage, ()).unwrap() >= 1);
        assert_eq!(store.status(START).await.unwrap().events_unaccounted, 1, "{damage}");
    }
}

/// A completion that panics or can't be written costs its group alone.
#[tokio::test]
async fn a_later_command_is_not_hurt_by_a_failed_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    let seq = accept(&store, "a", &["orders"], HERE, START).await;
    let beside = Connection::open(&path).unwrap();
    beside.execute_batch("ALTER TABLE webhook RENAME TO elsewhere").unwrap();
    let done = || {
        let produced = RunOutcome::Produced(vec![delivery("a", "orders", "shop", 0, Claim::Open)]);
        completion(seq, "orders", START, produced)
    };
    assert!(matches!(store.complete_runs(vec![done()]).await, Err(StoreError::Commit(_))));
    beside.execute_batch("ALTER TABLE elsewhere RENAME TO webhook").unwrap();
    assert_eq!(store.complete_runs(vec![done()]).await.unwrap()[0].deliveries().len(), 1);
    assert_eq!(store.accept(one("a"), START).await.unwrap(), [Acceptance::Duplicate]);
    assert!(seq > EventSeq(0));
}

/// Whether the store's file or its log has these bytes in it.
/// What could not be given back is still this host's, and is given back when it is asked again.
#[tokio::test]
async fn claims_that_a_failing_disk_keeps_are_given_back_later() {
    let Held { power, store, first, commits: _, _folder } = held().await;
    power.release_syncs();
    first.await.unwrap().unwrap();
    accept(&*store, "a", &["orders"], OPEN, START).await;
    let run = store.claim_runs("orders".into(), 9, at(1)).await.unwrap().work.remove(0);
    let release = || store.release(vec![(run.seq, "orders".into())], Vec::new());
    power.fail_syncs("-wal", 0, 1);
    assert!(matches!(release().await, Err(StoreError::Commit(_))));
    assert!(store.claim_runs("orders".into(), 9, at(1)).await.unwrap().work.is_empty());
    release().await.unwrap();
    assert_eq!(store.claim_runs("orders".into(), 9, at(1)).await.unwrap().work[0].seq, run.seq);
}

/// `.cargo/config.toml` asks for it; a build from another folder has SQLite's own choice, which is slower.
#[test]
fn sqlite_is_built_as_the_project_asks() {
    let connection = Connection::open_in_memory().unwrap();
    let mut statement = connection.prepare("PRAGMA compile_options").unwrap();
    let options: Vec<String> = statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for (option, is_there) in
        [("DEFAULT_MEMSTATUS=0", true), ("ENABLE_API_ARMOR", false), ("ENABLE_MEMORY_MANAGEMENT", false)]
    {
        assert_eq!(options.iter().any(|one| one == option), is_there, "{option}: {options:?}");
    }
}
