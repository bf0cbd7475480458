//! The well-behaved plugin that the hostile ones run beside: orders flow through it all the while, and each is timed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wirehook_tests::bench::quantile;
use wirehook_tests::events::entity_id;
use wirehook_tests::fake_endpoint::{FakeEndpoint, RequestLog, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{HostFolderBuilder, PluginFile, TestHost};

/// From an order to its webhook, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Orders under way at once: each of these clients publishes the next when the webhook of the last has arrived.
const CLIENTS: usize = 2;

/// Orders of one figure, so that its p99 is not its worst.
pub(crate) const ORDERS: usize = 400;

/// Orders that fill the store's caches, in requests of so many, and numbers that no other order has.
const FILLING: usize = 40_000;
const FILLING_BATCH: usize = 1_000;
const FILLING_FROM: usize = 1_000_000;

/// Webhooks that are looked through for an order's own, the last first.
const LOOKED_THROUGH_MAX: usize = 64;

/// The example plugin, its source and its endpoint.
pub(crate) struct Neighbour {
    pub(crate) source: HttpPublisher,
    pub(crate) endpoint: FakeEndpoint,
    next: AtomicUsize,
}

impl Neighbour {
    pub(crate) async fn new() -> Result<Self> {
        let endpoint = FakeEndpoint::start(Script::ok()).await?;
        Ok(Self { source: HttpPublisher::new()?, endpoint, next: AtomicUsize::new(0) })
    }

    /// A host with the neighbour, and nothing else yet.
    pub(crate) fn host(&self) -> Result<HostFolderBuilder> {
        Ok(TestHost::builder()
            .http(self.source.port, "")
            .endpoint("orders", &self.endpoint, "")
            .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders")))
    }

    /// The 99th percentile of the time from an order's publication to its webhook, over `orders` orders.
    pub(crate) async fn p99(&self, orders: usize) -> Result<Duration> {
        let client = async || {
            let mut times = Vec::new();
            for _ in 0..orders / CLIENTS {
                times.push(self.time_one().await?);
            }
            anyhow::Ok(times)
        };
        let times = futures::future::try_join_all((0..CLIENTS).map(|_| client())).await?;
        Ok(quantile(&times.concat(), 0.99))
    }

    async fn time_one(&self) -> Result<Duration> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = entity_id(number);
        let published_at = Instant::now();
        self.source.publish_orders([number]).await?;
        let mut arrived_at = None;
        self.endpoint
            .wait_for("an order's webhook", DEADLINE, |log| {
                let last = log.all().iter().rev().take(LOOKED_THROUGH_MAX);
                let mut own = last.filter(|webhook| webhook.body.windows(id.len()).any(|part| part == id.as_bytes()));
                arrived_at = own.next().map(|webhook| webhook.arrived_at);
                arrived_at.is_some()
            })
            .await?;
        let arrived_at = arrived_at.context("the webhook arrived")?;
        Ok(arrived_at.saturating_duration_since(published_at))
    }

    /// Has as many orders delivered as fill the store's caches: what the host has in memory then is what it needs.
    pub(crate) async fn fill_caches(&self) -> Result<()> {
        let before = self.endpoint.look(RequestLog::ids);
        for first in (0..FILLING).step_by(FILLING_BATCH) {
            let numbers = FILLING_FROM + first..FILLING_FROM + first + FILLING_BATCH;
            self.source.publish_orders(numbers).await?;
        }
        self.endpoint.wait_for("the orders", DEADLINE, |log| log.ids() == before + FILLING).await
    }

    /// How many orders were published so far.
    pub(crate) fn orders(&self) -> usize {
        self.next.load(Ordering::Relaxed)
    }
}
