//! What a plugin keeps: every event counts once, however many calls run at a time and however the host ends.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use wirehook_tests::fake_endpoint::{FakeEndpoint, RequestLog, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

const EVENTS: usize = 3_000;
const KILLS: usize = 2;

/// For everything to arrive, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(240);

const SIDECAR: &str = "subjects = [\"fraiseql.order.*\"]\nendpoints = [\"orders\"]\ngrants = [\"state\"]\n";
const GRANTED: &str = "[[plugin]]\nname = \"counter\"\ngrants = [\"state\"]\n";

#[derive(Deserialize)]
struct Counted {
    order_id: String,
    number: usize,
}

/// Each order's number, as its webhooks say it: the same in every attempt.
fn numbers(log: &RequestLog) -> Result<BTreeMap<String, usize>> {
    let mut numbers = BTreeMap::new();
    for request in log.all() {
        let counted: Counted = serde_json::from_slice(&request.body).context("a webhook of `counter`")?;
        let before = numbers.insert(counted.order_id, counted.number);
        ensure!(before.is_none_or(|before| before == counted.number), "an order was counted twice");
    }
    Ok(numbers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_counts_once_through_concurrency_and_kills() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .plugin_settings("workers = 4")
        .settings(GRANTED)
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::hostile("counter")?.with_sidecar(SIDECAR))
        .build()?;
    host.start().await?;
    let publishing = tokio::spawn(async move { publisher.publish_orders(0..EVENTS).await });
    for kill in 1..=KILLS {
        let arrived = kill * EVENTS / (KILLS + 2);
        endpoint.wait_for("a part of the webhooks", DEADLINE, |log| log.ids() >= arrived).await?;
        host.kill9().await?;
        host.start().await?;
    }
    publishing.await??;
    endpoint.wait_for("every event's webhook", DEADLINE, |log| log.ids() >= EVENTS).await?;
    let mut numbers: Vec<_> = endpoint.look(numbers)?.into_values().collect();
    numbers.sort_unstable();
    let twice: Vec<_> = numbers.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    let missing: Vec<_> = (1..=EVENTS).filter(|number| numbers.binary_search(number).is_err()).collect();
    ensure!(numbers.len() == EVENTS, "{} orders arrived", numbers.len());
    ensure!(twice.is_empty() && missing.is_empty(), "given twice: {twice:?}; never: {missing:?}");
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await
}

#[tokio::test]
async fn a_plugin_that_is_not_granted_what_it_asks_for_is_refused_with_what_to_write() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let host = TestHost::builder()
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::hostile("counter")?.with_sidecar(SIDECAR))
        .build()?;
    host.command(&["check"])
        .await?
        .expect_code(1)?
        .expect_said(&["asks for the grant `state`, which the settings do not give", "grants = [\"state\"]"])?;
    let silent = TestHost::builder()
        .settings(GRANTED)
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::hostile("counter")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    let refused = silent.command(&["check"]).await?.expect_code(1)?;
    refused.expect_said(&[
        "imports `wirehook:plugin/state@0.1.0`, which takes the grant `state`",
        "its sidecar must ask",
    ])?;
    Ok(())
}
