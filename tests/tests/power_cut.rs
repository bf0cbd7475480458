//! No acknowledgement precedes its sync: whatever the store said was done is there after a power cut at any moment.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use rusqlite::Connection;
use wirehook::delivery::Transition;
use wirehook::settings::Synchronous;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{Acceptance, Claim, Retention, RunOutcome, Store, StoreError};
use wirehook_tests::account::Account;
use wirehook_tests::conformance::store::{HERE, START, arrival, at, attempt, completion, delivery, event};
use wirehook_tests::power_cut::{PowerCut, Recording, Unsynced};

/// Chooses the cuts, what survives them, and the syncs that fail; `POWER_CUT_SEED` overrides it.
fn seed() -> u64 {
    let seed = std::env::var("POWER_CUT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("POWER_CUT_SEED={seed}");
    seed
}

/// Cuts for each test; each is opened twice.
const CUTS: usize = 120;

fn options(folder: &Path, power: &PowerCut, synchronous: Synchronous) -> SqliteOptions {
    SqliteOptions {
        synchronous,
        // Small, so that a short test meets many checkpoints.
        checkpoint_bytes: 64 * 1024,
        vfs: Some(power.vfs().to_owned()),
        ..SqliteOptions::new(folder.join("store.db"))
    }
}

/// Takes one event the whole way, noting each acknowledgement. Failed commits are tried again.
async fn go(store: &SqliteStore, power: &PowerCut, id: String) {
    let seq = loop {
        match store.accept(vec![arrival(event(&id), &["orders"], HERE)], START).await {
            Ok(acceptances) => match acceptances[0] {
                Acceptance::Fresh(seq) => break seq,
                other => panic!("{id}: {other:?}"),
            },
            Err(StoreError::Commit(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    power.mark(format!("accepted {id}"));
    let done =
        completion(seq, "orders", at(1), RunOutcome::Produced(vec![delivery(&id, "orders", "shop", 0, Claim::Here)]));
    let written = loop {
        match store.complete_runs(vec![done.clone()]).await {
            Ok(written) => break written,
            Err(StoreError::Commit(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    power.mark(format!("completed {id}"));
    let record = attempt(written[0].deliveries()[0], 1, at(2), Transition::Delivered);
    while let Err(error) = store.record_attempts(vec![record.clone()]).await {
        assert!(matches!(error, StoreError::Commit(_)), "{error}");
    }
    power.mark(format!("delivered {id}"));
}

async fn rounds(store: &SqliteStore, power: &PowerCut, name: &str, rounds: usize) {
    for round in 0..rounds {
        join_all((0..4).map(|index| go(store, power, format!("{name}-{round}-{index}")))).await;
    }
}

/// Creates a store, works with it, closes it and works again.
async fn work(synchronous: Synchronous) -> Recording {
    let power = PowerCut::register();
    let folder = tempfile::tempdir().unwrap();
    for name in ["first", "second"] {
        let store = SqliteStore::open(options(folder.path(), &power, synchronous), START).unwrap();
        rounds(&store, &power, name, 12).await;
        store.close().await;
    }
    let store = SqliteStore::open(options(folder.path(), &power, synchronous), START).unwrap();
    rounds(&store, &power, "third", 4).await;
    let ages = Retention { delivered: Duration::MAX, dead: Duration::MAX, dedup: Duration::MAX };
    store.sweep(ages).await.unwrap();
    power.recording()
}

/// What the disk should hold and doesn't.
fn lost(folder: &Path, marks: &[String]) -> Vec<String> {
    let path = folder.join("store.db");
    if !path.exists() {
        return marks.to_vec();
    }
    let connection = Connection::open(&path).unwrap();
    let integrity: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    drop(connection);
    let store = SqliteStore::open(SqliteOptions::new(&path), START).expect("the store opens clean");
    drop(store);
    let connection = Connection::open(&path).unwrap();
    Account::of(&connection).expect("the equations hold");
    let names = |sql: &str| -> HashSet<String> {
        let mut select = connection.prepare(sql).unwrap();
        select.query_map((), |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let mut there = names("SELECT 'accepted ' || entity_id FROM event JOIN dedup USING (seq)");
    there.extend(names(
        "SELECT 'completed ' || entity_id FROM run JOIN event e ON e.seq = run.event_seq
         JOIN delivery d ON d.event_seq = run.event_seq JOIN webhook w ON w.delivery_seq = d.seq
         WHERE run.state = 'produced'",
    ));
    there.extend(names(
        "SELECT 'delivered ' || entity_id FROM delivery d JOIN event e ON e.seq = d.event_seq
         JOIN attempt a ON a.delivery_seq = d.seq WHERE d.state = 'delivered' AND d.claimed_by IS NULL",
    ));
    marks.iter().filter(|mark| !there.contains(*mark)).cloned().collect()
}

/// Acknowledgements that some cut lost, with the cut.
fn losses(recording: &Recording, seed: u64) -> Vec<String> {
    let mut losses = Vec::new();
    recording.for_each_cut(&recording.sample(CUTS, seed), |cut| {
        for unsynced in [Unsynced::Lost, Unsynced::Torn(seed ^ cut.step as u64)] {
            let folder = tempfile::tempdir().unwrap();
            cut.image(unsynced).write_to(folder.path()).unwrap();
            let lost = lost(folder.path(), cut.marks);
            losses
                .extend(lost.into_iter().map(|mark| format!("{mark} at step {}, {unsynced:?}, seed {seed}", cut.step)));
        }
    });
    losses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let recording = work(Synchronous::Full).await;
    assert_eq!(losses(&recording, seed()), Vec::<String>::new());
}

/// The harness is worth something: where commits don't wait for the disk, it finds what is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_do_not_wait_for_the_disk_are_caught() {
    let recording = work(Synchronous::Normal).await;
    let losses = losses(&recording, seed());
    for kind in ["accepted", "completed", "delivered"] {
        assert!(losses.iter().any(|loss| loss.starts_with(kind)), "no {kind} lost in {} steps", recording.len());
    }
}

/// A disk that fails some syncs costs tries, never anything acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_syncs_lose_nothing_acknowledged() {
    let power = PowerCut::register();
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(options(folder.path(), &power, Synchronous::Full), START).unwrap();
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut failed = 0;
    for round in 0..9 {
        power.fail_syncs("-wal", rng.u32(..6), rng.u32(1..3));
        power.fail_syncs("store.db", rng.u32(..2), 1);
        rounds(&store, &power, &format!("round{round}"), 3).await;
        if round % 3 == 2 {
            failed += store.commits().failed;
            // What failed in the database file is mended by opening the store again.
            store.close().await;
            drop(store);
            power.heal();
            store = SqliteStore::open(options(folder.path(), &power, Synchronous::Full), START).unwrap();
            rounds(&store, &power, &format!("mended{round}"), 4).await;
        }
    }
    assert!(failed >= 8, "{failed}");
    let recording = power.recording();
    assert_eq!(losses(&recording, seed), Vec::<String>::new());
}
