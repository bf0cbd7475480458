//! A source's cursor is never ahead of its events after a power cut, nor behind them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use wirehook::store::Store;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook_tests::conformance::store::{HERE, START, arrival, cursor_of, event, kept_cursor};
use wirehook_tests::power_cut::{PowerCut, Unsynced};

const EVENTS: u64 = 60;
/// Each is opened twice.
const CUTS: usize = 80;
const SEED: u64 = 0x5eed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_and_its_events_survive_together() {
    let power = PowerCut::register();
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        checkpoint_bytes: 64 * 1024,
        vfs: Some(power.vfs().to_owned()),
        ..SqliteOptions::new(folder.path().join("store.db"))
    };
    let store = SqliteStore::open(options, START).unwrap();
    for number in 1..=EVENTS {
        let arrivals = vec![arrival(event(&number.to_string()), &["orders"], HERE)];
        store.accept_at(arrivals, Some(cursor_of("bus", &number.to_be_bytes())), START).await.unwrap();
        power.mark(number.to_string());
    }
    let recording = power.recording();
    let mut cuts = Vec::new();
    recording.for_each_cut(&recording.sample(CUTS, SEED), |cut| {
        for unsynced in [Unsynced::Lost, Unsynced::Torn(SEED ^ cut.step as u64)] {
            let folder = tempfile::tempdir().unwrap();
            cut.image(unsynced).write_to(folder.path()).unwrap();
            let acknowledged = cut.marks.last().map_or(0, |mark| mark.parse::<u64>().unwrap());
            cuts.push((folder, acknowledged));
        }
    });
    for (folder, acknowledged) in cuts {
        let path = folder.path().join("store.db");
        if !path.exists() {
            assert_eq!(acknowledged, 0);
            continue;
        }
        let store = SqliteStore::open(SqliteOptions::new(path), START).unwrap();
        let cursor = kept_cursor(&store, "bus").await.map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap()));
        assert_eq!(cursor, store.status(START).await.unwrap().events);
        assert!(cursor >= acknowledged, "{cursor} of {acknowledged}");
    }
}
