//! What the store deletes, by age and by bytes.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use wirehook::clock::ManualClock;
use wirehook::dead_letter::Reason;
use wirehook::delivery::Transition;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{Arrival, Claim, DeadMessage, Retention, RunOutcome, Store};
use wirehook_tests::conformance::store::{DEAD, HERE, START, accept, at, attempt, completion, dead_message, deliver};

/// Takes the schema back by the last three steps.
pub(crate) const BEFORE_PASSED: &str = "ALTER TABLE run DROP COLUMN deadlines; DROP INDEX dead_letter_by_holder; ALTER TABLE dead_letter DROP COLUMN bytes;
    DELETE FROM tally WHERE kind = 'dead_letter_bytes'; DROP TABLE passed_clock; DROP TABLE wall_stretch;
    ALTER TABLE event DROP COLUMN aged_from; ALTER TABLE run DROP COLUMN aged_from;
    ALTER TABLE delivery DROP COLUMN aged_from; ALTER TABLE dead_letter DROP COLUMN aged_from;";

#[tokio::test]
async fn what_came_before_the_store_had_a_clock_ages_by_the_wall_clock_and_from_the_migration_at_the_latest() {
    const HOUR: i64 = 3_600_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let clock = ManualClock::starting_at(START);
    let open =
        || SqliteStore::open(SqliteOptions { clock: clock.clone(), ..SqliteOptions::new(&path) }, START).unwrap();
    let store = open();
    for id in ["old", "ahead"] {
        let (delivered, _) = deliver(&store, id, Claim::Here, START).await;
        store.record_attempts(vec![attempt(delivered, 1, START, Transition::Delivered)]).await.unwrap();
    }
    store.accept(vec![dead_message("old", b"{"), dead_message("ahead", b"[")], START).await.unwrap();
    drop(store);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(BEFORE_PASSED).unwrap();
    let stamp = |table: &str, column: &str, seq: &str, first: i64| {
        let sql = format!("UPDATE {table} SET {column} = iif({seq} = {first}, ?1, ?2)");
        connection.execute(&sql, (at(-HOUR).0, at(1_000 * HOUR).0)).unwrap();
    };
    stamp("event", "accepted_at", "seq", 1);
    stamp("run", "ended_at", "event_seq", 1);
    stamp("delivery", "ended_at", "event_seq", 1);
    stamp("dedup", "seen_at", "key LIKE '%old'", 1);
    stamp("dead_letter", "died_at", "id", 1);
    connection.pragma_update(None, "user_version", 8).unwrap();
    drop(connection);

    let store = open();
    let left = async |age: i64| {
        let age = Duration::from_millis(age.unsigned_abs());
        while store.sweep(Retention { delivered: age, dead: age, dedup: age }).await.unwrap() {}
        let reader = Connection::open(&path).unwrap();
        let count = |table| {
            let sql = format!("SELECT count(*) FROM {table}");
            reader.query_row(&sql, (), |row| row.get::<_, i64>(0)).unwrap()
        };
        ["event", "dedup", "dead_letter"].map(count)
    };
    assert_eq!(left(HOUR + 1).await, [2, 4, 2]);
    assert_eq!(left(HOUR - 1).await, [1, 2, 1], "an hour old by its stamp");
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(left(HOUR + 1).await, [1, 2, 1]);
    assert_eq!(left(HOUR - 1).await, [0, 0, 0], "an hour since the migration, whatever its stamp says");
}

/// A message of 1,000 bytes that never became an event.
fn garbage(source: &str, number: usize) -> Arrival {
    let Arrival::Dead(dead) = dead_message(&format!("{source}-{number}"), &[b'{'; 1_000]) else { unreachable!() };
    Arrival::Dead(DeadMessage { source: source.into(), ..dead })
}

/// The dead letters that are kept, oldest first, and what they and their events come to.
fn kept(path: &Path) -> (Vec<String>, i64, i64) {
    let reader = Connection::open(path).unwrap();
    let mut select = reader.prepare("SELECT event_key FROM dead_letter ORDER BY id").unwrap();
    let keys = select.query_map((), |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>().unwrap();
    let number = |sql: &str| reader.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
    let bytes = number("SELECT coalesce(sum(bytes), 0) FROM dead_letter");
    assert_eq!(number("SELECT sum(count) FROM tally WHERE kind = 'dead_letter_bytes'"), bytes, "the count is true");
    (keys, bytes, number("SELECT count(*) FROM event"))
}

#[tokio::test]
async fn dead_letters_make_room_for_newer_ones_of_whoever_has_most() {
    const BOUND: u64 = 64 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let with = |dead_bytes_max| SqliteOptions { dead_bytes_max, ..SqliteOptions::new(&path) };
    let store = SqliteStore::open(with(BOUND), START).unwrap();
    let (dead, _) = deliver(&store, "delivery", Claim::Here, START).await;
    store.record_attempts(vec![attempt(dead, 1, START, DEAD)]).await.unwrap();
    store.accept(vec![garbage("quiet", 1)], START).await.unwrap();
    for number in 0..500 {
        store.accept(vec![garbage("flood", number)], START).await.unwrap();
    }
    let (keys, bytes, events) = kept(&path);
    assert!(bytes <= BOUND as i64 && bytes > BOUND as i64 * 9 / 10, "{bytes} bytes");
    assert!(keys[0].ends_with("delivery") && keys[1].ends_with("quiet-1"), "{keys:?}");
    assert!(keys.last().unwrap().ends_with("flood-499"), "the newest are kept: {keys:?}");
    assert_eq!(events, 1);

    // Runs and deliveries go with their events, once nothing else is kept of those.
    for number in 0..500 {
        let id = format!("run-{number}");
        let run = accept(&store, &id, &["rejects"], HERE, START).await;
        let dies = RunOutcome::Dead { reason: Reason::PluginRejected, detail: "no".repeat(300) };
        store.complete_runs(vec![completion(run, "rejects", START, dies)]).await.unwrap();
    }
    let (keys, bytes, events) = kept(&path);
    let runs = keys.iter().filter(|key| key.contains("run-")).count();
    assert!(bytes <= BOUND as i64, "{bytes} bytes");
    assert!(keys[0].ends_with("delivery") && keys[1].ends_with("quiet-1"), "{keys:?}");
    assert_eq!(events, 1 + runs as i64, "events whose runs were given up are gone");
    assert!(
        keys.iter().filter(|key| key.contains("flood-")).count() >= 20 && runs >= 20,
        "both have a share: {keys:?}"
    );
    drop(store);

    // A bound that was lowered is met without anything that dies.
    let store = SqliteStore::open(with(8 * 1024), START).unwrap();
    let ages = Retention { delivered: Duration::MAX, dead: Duration::MAX, dedup: Duration::MAX };
    while store.sweep(ages).await.unwrap() {}
    let (keys, bytes, _) = kept(&path);
    assert!(bytes <= 8 * 1024 && keys[0].ends_with("delivery"), "{bytes} bytes: {keys:?}");
    assert_eq!(store.status(START).await.unwrap().events_unaccounted, 0);
}
