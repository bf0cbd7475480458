//! What is purged is in no file any more, however much it is.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::path::Path;

use rusqlite::Connection;
use wirehook::delivery::Transition;
use wirehook::event::Event;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{AttemptRecord, Claim, History, Purge, Store};
use wirehook_tests::conformance::store::{HERE, OPEN, START, accept, arrival, at, attempt, deliver, event, purge};

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(SqliteOptions::new(path), START).unwrap()
}

fn is_in_files(path: &Path, bytes: &str) -> bool {
    std::fs::read_dir(path.parent().unwrap()).unwrap().any(|file| {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    })
}

/// What was moved within the file before it was deleted may have left copies: they go with the rewriting.
#[tokio::test]
async fn a_purged_entity_is_in_neither_the_file_nor_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    for index in 0..300 {
        let id = format!("entity-{index:03}");
        let (seq, _) = deliver(&store, &id, Claim::Here, START).await;
        let record = attempt(seq, 1, at(10), Transition::Retry { due_at: at(20) });
        let said = format!("said-of-{index:03}-").repeat(index % 40 + 1);
        store.record_attempts(vec![AttemptRecord { response: said.into(), ..record }]).await.unwrap();
    }
    for claimed in store.claim_deliveries("shop".into(), 1_000, at(20)).await.unwrap().work {
        let record = attempt(claimed.seq, 2, at(30), Transition::Delivered);
        store.record_attempts(vec![record]).await.unwrap();
    }
    while store.index_some().await.unwrap() {}
    let traces = ["entity-123", "said-of-123-"];
    assert!(traces.iter().all(|trace| is_in_files(&path, trace)));
    let purged = store.purge(purge("entity-123"), START).await.unwrap();
    assert_eq!((purged.events, purged.attempts, purged.done), (1, 2, true));
    store.rewrite().await.unwrap();
    let left: Vec<_> = traces.iter().filter(|trace| is_in_files(&path, trace)).collect();
    // The event's key is kept, so that a redelivery is not taken for new; here it has the entity's id in it.
    assert_eq!(left, [&"entity-123"]);
    let connection = Connection::open(&path).unwrap();
    let keys = "SELECT count(*) FROM dedup WHERE key LIKE '%entity-123'";
    assert_eq!(connection.query_row(keys, (), |row| row.get::<_, i64>(0)).unwrap(), 1);
    drop(connection);
    assert!(is_in_files(&path, "said-of-124-"));
    assert_eq!(store.status(START).await.unwrap().events_unaccounted, 0);
    accept(&store, "after", &["orders"], HERE, at(40)).await;
}

/// Only so many events of an entity are found at a time.
#[tokio::test]
async fn an_entity_with_very_many_events_is_purged_but_for_what_waits() {
    const EVENTS: usize = 10_050;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db"));
    let of_entity = |number: usize, plugins: &[&str]| {
        let event = Event { entity_id: Some("busy".to_owned()), ..event(&number.to_string()) };
        arrival(event, plugins, OPEN)
    };
    // The oldest, which is found last, still waits for its plugin.
    store.accept(vec![of_entity(0, &["orders"])], START).await.unwrap();
    let numbers: Vec<_> = (1..EVENTS).collect();
    for some in numbers.chunks(500) {
        store.accept(some.iter().map(|number| of_entity(*number, &[])).collect(), START).await.unwrap();
    }
    accept(&store, "another", &["orders"], OPEN, START).await;
    while store.index_some().await.unwrap() {}
    let purged = store.purge(purge("busy"), START).await.unwrap();
    assert_eq!((purged.events, purged.waiting, purged.done), (EVENTS as u64 - 1, 1, false));
    let purged = store.purge(Purge { discard_waiting: true, ..purge("busy") }, START).await.unwrap();
    assert_eq!((purged.events, purged.done), (1, true));
    let status = store.status(START).await.unwrap();
    assert_eq!((status.events, status.events_unaccounted), (1, 0));
}

/// A reader that holds an old state of the store keeps what was deleted: the operator is told.
#[tokio::test]
async fn a_rewrite_that_a_reader_holds_up_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path);
    accept(&store, "a", &["orders"], HERE, START).await;
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM event").unwrap();
    let error = store.rewrite().await.unwrap_err().to_string();
    assert!(error.contains("a reader"), "{error}");
    reader.execute_batch("COMMIT").unwrap();
    store.rewrite().await.unwrap();
    accept(&store, "b", &["orders"], HERE, START).await;
}
