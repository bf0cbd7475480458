//! `kill -9` at any moment loses nothing and changes no webhook's id.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wirehook_tests::events;
use wirehook_tests::fake_endpoint::{FakeEndpoint, RequestLog, SECRET, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::{python_verifier, store_file, wait};

const EVENTS: usize = 10_000;
const KILLS: usize = 5;

/// Events published before the first kill, and after each.
const PART: usize = EVENTS / (KILLS + 1);

/// The longest random wait before a kill, once its random number of webhooks has arrived.
const KILL_DELAY_US_MAX: u64 = 100_000;

/// For everything to arrive, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(240);

/// Set to repeat a run.
const SEED_VARIABLE: &str = "WIREHOOK_TEST_SEED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_survive_five_kills() -> Result<()> {
    let mut rng = seeded()?;
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;

    let mut publishing = tokio::spawn(publish(publisher.clone(), 0..PART));
    for kill in 1..=KILLS {
        // A random share of what is published by now has arrived; the rest is somewhere on the way.
        let arrived = rng.usize(PART * (kill - 1) + 1..PART * kill);
        let what = format!("{arrived} webhooks before kill {kill}");
        endpoint.wait_for(&what, DEADLINE, |log| log.ids() >= arrived).await?;
        tokio::time::sleep(Duration::from_micros(rng.u64(0..KILL_DELAY_US_MAX))).await;
        host.kill9().await?;
        store_file::check_integrity_of_copy(&host.store_path()).with_context(|| format!("after kill {kill}"))?;
        publishing.await??;
        let next = PART * kill..if kill == KILLS { EVENTS } else { PART * (kill + 1) };
        publishing = tokio::spawn(publish(publisher.clone(), next));
        host.start().await.with_context(|| format!("after kill {kill}"))?;
    }
    publishing.await??;

    endpoint.wait_for("every event's webhook", DEADLINE, |log| log.ids() >= EVENTS).await?;
    wait::until("every message to be acked", DEADLINE, async || {
        Ok((publisher.unacked("EVENTS", "wirehook-bus").await? == 0).then_some(()))
    })
    .await?;
    let requests = endpoint.look(|log| {
        expect_one_id_for_each_order(log)?;
        anyhow::Ok(log.all().to_vec())
    })?;
    println!("{EVENTS} events, {KILLS} kills, {} requests", requests.len());
    endpoint.expect_all_signed()?;
    python_verifier::accept_all(&requests, SECRET).await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await?;
    store_file::check_integrity_of_copy(&host.store_path())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_while_it_starts_leaves_a_store_that_opens() -> Result<()> {
    let mut rng = seeded()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    publisher.publish_orders(0..200).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    for _ in 0..10 {
        host.spawn(&[]).await?;
        tokio::time::sleep(Duration::from_micros(rng.u64(0..200_000))).await;
        host.kill9().await?;
        if host.store_path().exists() {
            store_file::check_integrity_of_copy(&host.store_path())?;
        }
    }
    host.start().await?;
    endpoint.wait_for("every event's webhook", DEADLINE, |log| log.ids() >= 200).await?;
    endpoint.look(expect_one_id_for_each_order).map(|_| ())
}

async fn publish(publisher: StreamPublisher, numbers: std::ops::Range<usize>) -> Result<()> {
    publisher.publish_orders(numbers).await
}

/// Every order arrived, each under one id, no id for two orders. Returns how many orders those are.
fn expect_one_id_for_each_order(log: &RequestLog) -> Result<usize> {
    let mut ids: HashMap<String, HashSet<&str>> = HashMap::new();
    for request in log.all() {
        let order = events::order_id(&request.body).with_context(|| format!("no order in {request:?}"))?;
        ids.entry(order).or_default().insert(request.webhook_id());
    }
    let unstable = ids.iter().find(|(_, ids)| ids.len() != 1);
    ensure!(unstable.is_none(), "an order has not one webhook-id: {unstable:?}");
    ensure!(ids.len() == log.ids(), "{} orders arrived under {} ids", ids.len(), log.ids());
    Ok(ids.len())
}

fn seeded() -> Result<fastrand::Rng> {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED_VARIABLE} is a whole number"))?,
        Err(_) => fastrand::u64(..),
    };
    println!("repeat with {SEED_VARIABLE}={seed}");
    Ok(fastrand::Rng::with_seed(seed))
}
