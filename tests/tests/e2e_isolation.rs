//! What hangs or loops slows others by a bound: an endpoint that never answers, a plugin that never returns.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use wirehook_tests::events::{self, page_event};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// From an order's publication to its webhook: far above what a busy machine needs, far below what hangs.
const LATENCY_MAX: Duration = Duration::from_secs(10);

/// Orders that are published one after the other, each after the webhook of the one before.
const ORDERS: usize = 20;

/// Events in one request.
const BATCH: usize = 500;

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

async fn flood(source: &HttpPublisher, entity_type: &str, events: usize) -> Result<()> {
    for first in (0..events).step_by(BATCH) {
        let batch = (first..events.min(first + BATCH)).map(|n| page_event(entity_type, "created", n, &json!({})));
        let (status, text) = source.post(events::array(batch)).await?;
        ensure!(status == 202, "the flood was answered {status}: {text}");
    }
    Ok(())
}

/// The longest from an order's publication to its webhook.
async fn worst_latency(source: &HttpPublisher, endpoint: &FakeEndpoint) -> Result<Duration> {
    let mut worst = Duration::ZERO;
    for number in 0..ORDERS {
        let published_at = Instant::now();
        source.publish_orders([number]).await?;
        endpoint.wait_for("an order's webhook", DEADLINE, |log| log.ids() > number).await?;
        worst = worst.max(published_at.elapsed());
    }
    Ok(worst)
}

#[tokio::test]
async fn an_endpoint_that_hangs_with_thousands_of_webhooks_waiting_does_not_hold_up_another() -> Result<()> {
    /// More than a lane holds in memory.
    const FLOOD: usize = 3_000;
    let source = HttpPublisher::new()?;
    let good = FakeEndpoint::start(Script::ok()).await?;
    let stuck = FakeEndpoint::start(Script::always(Answer::Hang)).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &good, "")
        .endpoint("stuck", &stuck, "timeout = \"60s\"\nconcurrency = 8")
        .plugin(orders()?)
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.flood.*", "stuck"))
        .build()?;
    host.start().await?;
    flood(&source, "flood", FLOOD).await?;
    stuck.wait_for("the endpoint to be busy", DEADLINE, |log| log.all().len() == 8).await?;
    let worst = worst_latency(&source, &good).await?;
    ensure!(worst < LATENCY_MAX, "an order took {worst:?} beside the endpoint that hangs");
    assert_eq!(stuck.look(|log| log.all().len()), 8, "no more than its concurrency was sent");
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_flood_of_events_for_a_plugin_that_loops_does_not_hold_up_another() -> Result<()> {
    /// Each loops for 100 ms: minutes, if the orders had to wait for them all.
    const FLOOD: usize = 1_500;
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(orders()?)
        .plugin(PluginFile::hostile("loop_forever")?.subscribed("fraiseql.loop_forever.*", "orders"))
        .build()?;
    host.start().await?;
    flood(&source, "loop_forever", FLOOD).await?;
    host.wait_metric("wirehook_runs_total", "loop_forever", 1.0, DEADLINE).await?;
    let worst = worst_latency(&source, &endpoint).await?;
    ensure!(worst < LATENCY_MAX, "an order took {worst:?} beside the plugin that loops");
    let looped = host.metric("wirehook_runs_total", "loop_forever").await?;
    ensure!(looped < FLOOD as f64, "the flood was over before the orders were, which says nothing");
    host.expect_all_accounted().await
}
