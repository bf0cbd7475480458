//! Fills a store with deliveries that wait, or that were made, through the store's own interface and before a host opens it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use wirehook::clock::{SystemClock, Timestamp};
use wirehook::delivery::{DeliveryId, Distinct, Transition};
use wirehook::event::{Event, EventKey};
use wirehook::settings::Synchronous;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{
    Acceptance, Arrival, AttemptRecord, Claim, DeliverySeq, DeliveryTerms, EventSeq, NewDelivery, NewRun,
    RunCompletion, RunOutcome, RunStart, RunTerms, Store,
};

/// What an entity and a webhook hold where nothing else is said, in bytes.
pub const BODY_BYTES: usize = 700;

/// Events written in one commit.
const BATCH: usize = 1_000;

/// What is written, one delivery an event.
#[derive(Clone, Debug)]
pub struct Filling {
    /// Whose deliveries they are.
    pub plugin: Arc<str>,
    /// Where they go, in turn.
    pub endpoints: Vec<Arc<str>>,
    /// Bytes of an entity, and of a webhook's body.
    pub body_bytes: usize,
}

impl Filling {
    /// Deliveries by `plugin` to one endpoint.
    pub fn new(plugin: &str, endpoint: &str) -> Self {
        Self { plugin: plugin.into(), endpoints: vec![endpoint.into()], body_bytes: BODY_BYTES }
    }
}

/// Writes `count` events to the store at `path`, each with a delivery that nobody holds.
pub async fn waiting(path: &Path, filling: &Filling, count: usize) -> Result<()> {
    fill(path, filling, count, Claim::Open).await
}

/// Writes `count` events to the store at `path`, each with a run that is to be called.
pub async fn pending(path: &Path, filling: &Filling, count: usize) -> Result<()> {
    let options = SqliteOptions { synchronous: Synchronous::Normal, ..SqliteOptions::new(path) };
    let store = SqliteStore::open(options, SystemClock::shared().now())?;
    for first in (0..count).step_by(BATCH) {
        // Whoever opens the store next claims what this one held.
        Batch::new(filling, first..count.min(first + BATCH), Claim::Open).accept(&store).await?;
    }
    store.close().await;
    Ok(())
}

/// Writes `count` events to the store at `path`, each with a delivery that was made at its first attempt.
pub async fn delivered(path: &Path, filling: &Filling, count: usize) -> Result<()> {
    fill(path, filling, count, Claim::Here).await
}

async fn fill(path: &Path, filling: &Filling, count: usize, claim: Claim) -> Result<()> {
    // Nothing cuts the power here.
    let options = SqliteOptions { synchronous: Synchronous::Normal, ..SqliteOptions::new(path) };
    let store = SqliteStore::open(options, SystemClock::shared().now())?;
    for first in (0..count).step_by(BATCH) {
        let batch = Batch::new(filling, first..count.min(first + BATCH), claim);
        let accepted = batch.accept(&store).await?;
        let deliveries = batch.complete(&store, &accepted).await?;
        if claim == Claim::Here {
            batch.record(&store, &deliveries).await?;
        }
    }
    store.close().await;
    Ok(())
}

/// Events that are written together, in three steps.
#[derive(Debug)]
pub struct Batch<'a> {
    filling: &'a Filling,
    numbers: Range<usize>,
    claim: Claim,
    now: Timestamp,
}

impl<'a> Batch<'a> {
    /// Events with these numbers, which no other batch may have. Who claims their deliveries as they are written is `claim`.
    pub fn new(filling: &'a Filling, numbers: Range<usize>, claim: Claim) -> Self {
        Self { filling, numbers, claim, now: SystemClock::shared().now() }
    }

    /// Accepts them, each with a run that this store holds.
    pub async fn accept(&self, store: &SqliteStore) -> Result<Vec<EventSeq>> {
        let plugin = &self.filling.plugin;
        let run =
            || NewRun { plugin: Arc::clone(plugin), start: RunStart::Pending(Claim::Here), terms: RunTerms::default() };
        let arrival = |number| Arrival::Event { event: self.event(number), runs: vec![run()] };
        let accepted = store.accept(self.numbers.clone().map(arrival).collect(), self.now).await?;
        let fresh = accepted.iter().map(|acceptance| match acceptance {
            Acceptance::Fresh(seq) => Some(*seq),
            _ => None,
        });
        fresh.collect::<Option<_>>().context("an event that was there already")
    }

    /// Completes the runs of the events that were accepted so.
    pub async fn complete(&self, store: &SqliteStore, accepted: &[EventSeq]) -> Result<Vec<DeliverySeq>> {
        let numbered = self.numbers.clone().zip(accepted);
        let completions = numbered.map(|(number, seq)| self.completion(number, *seq)).collect();
        let completed = store.complete_runs(completions).await?;
        let deliveries: Vec<_> = completed.iter().flat_map(|completed| completed.deliveries()).copied().collect();
        ensure!(deliveries.len() == self.numbers.len(), "each event has one delivery");
        Ok(deliveries)
    }

    /// Records for each of its deliveries an attempt that delivered it.
    pub async fn record(&self, store: &SqliteStore, deliveries: &[DeliverySeq]) -> Result<()> {
        let record = |delivery: &DeliverySeq| AttemptRecord {
            delivery: *delivery,
            number: 1,
            started_at: self.now,
            duration: Duration::from_millis(3),
            status: Some(200),
            error: None,
            response: Bytes::from_static(b"ok"),
            transition: Transition::Delivered,
        };
        store.record_attempts(deliveries.iter().map(record).collect()).await?;
        Ok(())
    }

    fn completion(&self, number: usize, seq: EventSeq) -> RunCompletion {
        let Filling { plugin, endpoints, body_bytes } = self.filling;
        let endpoint = &endpoints[number % endpoints.len()];
        let delivery = NewDelivery {
            id: DeliveryId::derive(&key(number), plugin, endpoint, Distinct::Index(0), 0),
            endpoint: Arc::clone(endpoint),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body: Bytes::from(vec![b'-'; *body_bytes]),
            claim: self.claim,
            terms: DeliveryTerms::default(),
        };
        RunCompletion {
            seq,
            plugin: Arc::clone(plugin),
            plugin_digest: "filled".into(),
            ended_at: self.now,
            outcome: RunOutcome::Produced(vec![delivery]),
            state: None,
            conflicts: 0,
        }
    }

    fn event(&self, number: usize) -> Arc<Event> {
        let mut body_digest = [0; 16];
        body_digest[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Arc::new(Event {
            key: key(number),
            source: "filled".into(),
            subject: "fraiseql.order.created".to_owned(),
            entity_type: "order".to_owned(),
            operation: "created".to_owned(),
            entity_id: Some(number.to_string()),
            tenant_id: None,
            timestamp: None,
            entity: Some(Bytes::from(vec![b'-'; self.filling.body_bytes])),
            previous: None,
            attributes: Vec::new(),
            body_digest,
        })
    }
}

fn key(number: usize) -> EventKey {
    EventKey::new("filled", "position", number)
}
