//! How fast the store is by itself: every event is accepted, its run completed with one delivery, and its attempt
//! recorded, each in a commit of its own that it shares with whatever else waits.
//!
//! `store-bench [FOLDER] [EVENTS] [IN_FLIGHT] [full|normal]`

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use wirehook::clock::{SystemClock, Timestamp};
use wirehook::delivery::{DeliveryId, Distinct, Transition};
use wirehook::event::{Event, EventKey};
use wirehook::settings::Synchronous;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{
    Acceptance, Arrival, AttemptRecord, Claim, DeliveryTerms, NewDelivery, NewRun, RunCompletion, RunOutcome, RunStart,
    RunTerms, Store, StoreError,
};

/// What an entity and a webhook hold.
const BODY_BYTES: usize = 1024;

const PLUGIN_DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let events: u64 = arguments.next().map_or(Ok(100_000), |count| count.parse())?;
    let in_flight: u64 = arguments.next().map_or(Ok(256), |count| count.parse())?;
    let synchronous = match arguments.next().as_deref() {
        Some("normal") => Synchronous::Normal,
        _ => Synchronous::Full,
    };
    let folder = tempfile::tempdir_in(folder)?;
    let path = folder.path().join("store.db");
    let clock = SystemClock::shared();
    let options = SqliteOptions { synchronous, ..SqliteOptions::new(&path) };
    let store = Arc::new(SqliteStore::open(options, clock.now())?);
    let next = Arc::new(AtomicU64::new(0));
    let began = clock.monotonic();
    let workers = (0..in_flight).map(|_| {
        let (store, next, now) = (Arc::clone(&store), Arc::clone(&next), clock.now());
        let work = async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= events {
                    return Ok::<(), StoreError>(());
                }
                one(&*store, number, now).await?;
            }
        };
        async { anyhow::Ok(tokio::spawn(work).await??) }
    });
    try_join_all(workers).await?;
    let took = clock.monotonic().saturating_sub(began);
    let commits = store.commits();
    let writer = cpu_time("store-writer").unwrap_or_default();
    store.close().await;
    println!(
        "{events} events in {:.2} s: {:.0} events/s, {:.1} µs an event, {:.1} µs of the writer's CPU; {} commits of {:.1} commands; {} MiB",
        took.as_secs_f64(),
        events as f64 / took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / events as f64,
        writer.as_secs_f64() * 1e6 / events as f64,
        commits.committed,
        commits.commands as f64 / commits.committed as f64,
        std::fs::metadata(&path)?.len() >> 20,
    );
    Ok(())
}

/// What the thread of that name has spent, where the kernel tells.
fn cpu_time(name: &str) -> Option<Duration> {
    for thread in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).ok();
        if read("comm")?.trim() == name {
            return Some(Duration::from_nanos(read("schedstat")?.split(' ').next()?.parse().ok()?));
        }
    }
    None
}

async fn one(store: &dyn Store, number: u64, now: Timestamp) -> Result<(), StoreError> {
    let event = event(number);
    let key = event.key.clone();
    let runs =
        vec![NewRun { plugin: "orders".into(), start: RunStart::Pending(Claim::Here), terms: RunTerms::default() }];
    let accepted = store.accept(vec![Arrival::Event { event: Arc::new(event), runs }], now).await?;
    let Acceptance::Fresh(seq) = accepted[0] else { return Ok(()) };
    let delivery = NewDelivery {
        id: DeliveryId::derive(&key, "orders", "shop", Distinct::Index(0), 0),
        endpoint: "shop".into(),
        content_type: "application/json".to_owned(),
        headers: Vec::new(),
        body: Bytes::from(vec![b'b'; BODY_BYTES]),
        claim: Claim::Here,
        terms: DeliveryTerms::default(),
    };
    let completion = RunCompletion {
        seq,
        plugin: "orders".into(),
        plugin_digest: PLUGIN_DIGEST.into(),
        ended_at: now,
        outcome: RunOutcome::Produced(vec![delivery]),
        state: None,
        conflicts: 0,
    };
    let deliveries = store.complete_runs(vec![completion]).await?;
    let record = AttemptRecord {
        delivery: deliveries[0].deliveries()[0],
        number: 1,
        started_at: now,
        duration: Duration::from_millis(3),
        status: Some(200),
        error: None,
        response: Bytes::from_static(b"ok"),
        transition: Transition::Delivered,
    };
    store.record_attempts(vec![record]).await.map(drop)
}

fn event(number: u64) -> Event {
    let mut body_digest = [0; 16];
    body_digest[..8].copy_from_slice(&number.to_be_bytes());
    Event {
        key: EventKey::new("bus", "position", format_args!("ORDERS:1763900000:{number}")),
        source: "bus".into(),
        subject: "fraiseql.order.created".to_owned(),
        entity_type: "order".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some(format!("8f14e45f-ceea-467f-a8f1-{number:012}")),
        tenant_id: None,
        timestamp: Some("2026-11-23T12:00:00Z".to_owned()),
        entity: Some(Bytes::from(vec![b'e'; BODY_BYTES])),
        previous: None,
        attributes: vec![
            ("source".to_owned(), "bus".to_owned()),
            ("format".to_owned(), "change".to_owned()),
            ("raw_subject".to_owned(), "fraiseql.order.created".to_owned()),
        ],
        body_digest,
    }
}
