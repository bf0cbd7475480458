//! Fills a store with deliveries that wait, through the store's own interface and before a host opens it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use wirehook::clock::{SystemClock, Timestamp};
use wirehook::delivery::{DeliveryId, Distinct};
use wirehook::event::{Event, EventKey};
use wirehook::settings::Synchronous;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{
    Acceptance, Arrival, Claim, DeliveryTerms, NewDelivery, NewRun, RunCompletion, RunOutcome, RunStart, RunTerms,
    Store,
};

/// What an entity and a webhook hold, in bytes.
const BODY_BYTES: usize = 700;

/// Events written in one commit.
const BATCH: usize = 1_000;

/// Writes `count` events to the store at `path`, each with one delivery by `plugin` to `endpoint` that nobody holds.
pub async fn waiting(path: &Path, plugin: &str, endpoint: &str, count: usize) -> Result<()> {
    waiting_at(path, plugin, &[endpoint.to_owned()], count).await
}

/// The same to each of `endpoints` in turn.
pub async fn waiting_at(path: &Path, plugin: &str, endpoints: &[String], count: usize) -> Result<()> {
    // Nothing cuts the power here.
    let options = SqliteOptions { synchronous: Synchronous::Normal, ..SqliteOptions::new(path) };
    let now = SystemClock::shared().now();
    let store = SqliteStore::open(options, now)?;
    for first in (0..count).step_by(BATCH) {
        let events: Vec<_> = (first..count.min(first + BATCH)).map(event).collect();
        batch(&store, plugin, endpoints, events, now).await?;
    }
    store.close().await;
    Ok(())
}

async fn batch(
    store: &SqliteStore,
    plugin: &str,
    endpoints: &[String],
    events: Vec<Arc<Event>>,
    now: Timestamp,
) -> Result<()> {
    let run = || NewRun { plugin: plugin.into(), start: RunStart::Pending(Claim::Here), terms: RunTerms::default() };
    let arrivals = events.iter().map(|event| Arrival::Event { event: Arc::clone(event), runs: vec![run()] });
    let accepted = store.accept(arrivals.collect(), now).await?;
    let completion = |((event, acceptance), endpoint): ((&Arc<Event>, &Acceptance), &String)| {
        let Acceptance::Fresh(seq) = *acceptance else { return None };
        let delivery = NewDelivery {
            id: DeliveryId::derive(&event.key, plugin, endpoint, Distinct::Index(0), 0),
            endpoint: endpoint.as_str().into(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body: Bytes::from(vec![b'-'; BODY_BYTES]),
            claim: Claim::Open,
            terms: DeliveryTerms::default(),
        };
        Some(RunCompletion {
            seq,
            plugin: plugin.into(),
            plugin_digest: "filled".into(),
            ended_at: now,
            outcome: RunOutcome::Produced(vec![delivery]),
            state: None,
            conflicts: 0,
        })
    };
    let completions =
        events.iter().zip(&accepted).zip(endpoints.iter().cycle()).map(completion).collect::<Option<Vec<_>>>();
    let completions = completions.context("an event that was there already")?;
    let written = store.complete_runs(completions).await?;
    ensure!(written.iter().all(|written| written.deliveries().len() == 1), "each event has one delivery");
    Ok(())
}

fn event(number: usize) -> Arc<Event> {
    let mut body_digest = [0; 16];
    body_digest[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Arc::new(Event {
        key: EventKey::new("filled", "position", number),
        source: "filled".into(),
        subject: "fraiseql.order.created".to_owned(),
        entity_type: "order".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some(number.to_string()),
        tenant_id: None,
        timestamp: None,
        entity: Some(Bytes::from(vec![b'-'; BODY_BYTES])),
        previous: None,
        attributes: Vec::new(),
        body_digest,
    })
}
