//! An event that takes the host down is met alone, and is a dead letter in the end; what was beside it is not.
//!
//! Nothing in the host knows of this test: a plugin says in the log that it has the marked event, and the test kills the
//! host then, as the kernel does with one that is out of memory.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use wirehook_tests::account::Account;
use wirehook_tests::bench::slow_disk;
use wirehook_tests::events::{self, PublishedEvent, entity_id, page_event};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::store_file;
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::wait;

/// For one step, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Turns that take longer than a test needs to kill the host, and not longer than the deadline of a call.
const FOR_LONG: u64 = 4_000_000_000;

/// Turns of some ten milliseconds.
const FOR_A_MOMENT: u64 = 20_000_000;

const EVENTS: usize = 200;
const MARKED: usize = 100;

fn order(number: usize, linger: u64) -> PublishedEvent {
    page_event("order", "created", number, &json!({ "id": entity_id(number), "linger": linger }))
}

fn lingers() -> Result<PluginFile> {
    let sidecar = "subjects = [\"fraiseql.order.*\"]\nendpoints = [\"shop\"]\n[limits]\ndeadline = \"10s\"\n";
    Ok(PluginFile::hostile("lingers")?.with_sidecar(sidecar))
}

/// Waits until the store has so many events. A call may begin before its event is durable, and a crash then counts for
/// nothing.
async fn accepted(host: &TestHost, events: usize) -> Result<()> {
    let are_there = async || Ok((Account::of_copy(&host.store_path())?.events >= u64::try_from(events)?).then_some(()));
    wait::until(&format!("{events} events in the store"), DEADLINE, are_there).await
}

/// Starts the host, and kills it as soon as the plugin has the marked event.
async fn killed_by(host: &mut TestHost, marked: usize) -> Result<()> {
    host.forget_logs();
    host.spawn(&[]).await?;
    host.logs().wait_for(&format!("lingering over {}", entity_id(marked)), DEADLINE).await?;
    accepted(host, marked + 1).await?;
    host.kill9().await?;
    store_file::check_integrity_of_copy(&host.store_path())
}

/// Looks at the store and changes it by commands, which count no crash and forget none.
async fn commands_while_no_host_runs(host: &TestHost) -> Result<()> {
    let commands: [&[&str]; 8] = [
        &["dead-letters", "list"],
        &["dead-letters", "redrive", "--reason", "plugin_trap", "--yes"],
        &["deliveries", "list"],
        &["deliveries", "retry", "--all", "--yes"],
        &["plugin", "list"],
        &["endpoints", "list"],
        &["trace", &entity_id(MARKED)],
        &["check"],
    ];
    for command in commands {
        host.command(command).await?.expect_code(0).with_context(|| format!("{command:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_takes_the_host_down_is_a_dead_letter_and_its_neighbours_are_delivered() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let shop = FakeEndpoint::start(Script::ok()).await?;
    let ledger = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .plugin_settings("workers = 4")
        .endpoint("shop", &shop, "")
        .endpoint("ledger", &ledger, "")
        .plugin(lingers()?)
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "ledger"))
        .build()?;
    let linger = |number| if number == MARKED { FOR_LONG } else { 0 };
    publisher.publish_all((0..EVENTS).map(|number| order(number, linger(number)))).await?;

    // In company, then alone twice.
    for crash in 1..=3 {
        killed_by(&mut host, MARKED).await.with_context(|| format!("crash {crash}"))?;
        commands_while_no_host_runs(&host).await.with_context(|| format!("after crash {crash}"))?;
    }
    host.forget_logs();
    host.start().await?;
    shop.wait_for("the neighbours' webhooks", DEADLINE, |log| log.ids() == EVENTS - 1).await?;
    ledger.wait_for("the other plugin's webhooks", DEADLINE, |log| log.ids() == EVENTS).await?;
    let delivered: BTreeSet<_> = shop.requests().iter().filter_map(|request| events::order_id(&request.body)).collect();
    ensure!(!delivered.contains(&entity_id(MARKED)), "the marked event was delivered");
    let dead = host.dead_letters().await?;
    ensure!(dead.len() == 1, "one run dies, and no other: {dead:?}");
    ensure!(dead[0].reason == "host_crash" && dead[0].kind == "run", "{:?}", dead[0]);
    ensure!(dead[0].plugin.as_deref() == Some("lingers"), "{:?}", dead[0]);
    ensure!(dead[0].detail.contains("3 times"), "{}", dead[0].detail);
    ensure!(host.metric("wirehook_dead_letters_total", "host_crash").await? == 1.0, "it is counted");
    let called = host.logs().lines().iter().any(|line| line.contains("lingering over"));
    ensure!(!called, "a dead run is not called");
    host.expect_all_accounted().await?;

    // Redriven, it is met alone at once: once more is enough.
    host.command(&["dead-letters", "redrive", "--reason", "host_crash", "--yes"]).await?.expect_code(0)?;
    host.logs().wait_for("lingering over", DEADLINE).await?;
    host.kill9().await?;
    host.start().await?;
    let dead = host.dead_letters().await?;
    ensure!(dead.len() == 1 && dead[0].reason == "host_crash", "{dead:?}");
    ensure!(dead[0].detail.contains("4 times"), "{}", dead[0].detail);
    host.expect_all_accounted().await?;
    host.stop().await
}

/// Eight calls are under way at any moment, and the host is killed again and again: no event did that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_many_runs_are_under_way_make_no_dead_letter() -> Result<()> {
    const KILLS: usize = 6;
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let shop = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .plugin_settings("workers = 8")
        .endpoint("shop", &shop, "")
        .plugin(lingers()?)
        .build()?;
    publisher.publish_all((0..EVENTS).map(|number| order(number, FOR_A_MOMENT))).await?;
    for kill in 1..=KILLS {
        host.forget_logs();
        host.spawn(&[]).await?;
        // Some are delivered, so the runs that were alone are past and others are under way beside each other.
        let arrived = shop.look(|log| log.ids()) + 15;
        let what = format!("{arrived} webhooks before kill {kill}");
        shop.wait_for(&what, DEADLINE, |log| log.ids() >= arrived).await?;
        host.kill9().await?;
    }
    host.start().await?;
    shop.wait_for("every webhook", DEADLINE, |log| log.ids() == EVENTS).await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await
}

/// A plugin is called while its event is being made durable; until that is, nothing of it leaves the host. Killed meanwhile,
/// a host has neither lost the event nor delivered it twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_killed_between_a_call_and_its_commit_keeps_the_event() -> Result<()> {
    /// Longer than a test needs to kill the host.
    const SYNC: Duration = Duration::from_millis(1_500);
    let folder = tempfile::tempdir()?;
    let slow_disk = slow_disk::library(folder.path(), SYNC)?;
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let shop = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .endpoint("shop", &shop, "")
        .plugin(lingers()?)
        .variable(slow_disk::VARIABLE, &slow_disk.to_string_lossy())
        .build()?;
    host.start().await?;
    publisher.publish_all([order(0, 1)]).await?;
    host.logs().wait_for("lingering over", DEADLINE).await?;
    host.kill9().await?;
    ensure!(shop.look(|log| log.ids()) == 0, "a webhook left the host before its event was durable");
    store_file::check_integrity_of_copy(&host.store_path())?;

    host.start().await?;
    shop.wait_for("the webhook", DEADLINE, |log| log.ids() == 1).await?;
    publisher.publish_all([order(1, 0)]).await?;
    shop.wait_for("the next one", DEADLINE, |log| log.ids() == 2).await?;
    ensure!(shop.requests().len() == 2, "each once: {:?}", shop.requests());
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await
}

/// A build that does so with every event is not called any more: its runs wait for another build, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_takes_the_host_down_with_three_events_is_not_called_any_more() -> Result<()> {
    /// In company once, and alone twice for each.
    const KILLS: usize = 1 + 2 * 3;
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let (shop, ledger) = (FakeEndpoint::start(Script::ok()).await?, FakeEndpoint::start(Script::ok()).await?);
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .plugin_settings("workers = 8")
        .endpoint("shop", &shop, "")
        .endpoint("ledger", &ledger, "")
        .plugin(lingers()?)
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "ledger"))
        .build()?;
    publisher.publish_all((0..3).map(|number| order(number, FOR_LONG))).await?;
    for kill in 1..=KILLS {
        host.forget_logs();
        host.spawn(&[]).await?;
        let events = if kill == 1 { 0..3 } else { 0..0 };
        for number in events {
            host.logs().wait_for(&format!("lingering over {}", entity_id(number)), DEADLINE).await?;
        }
        host.logs().wait_for("lingering over", DEADLINE).await.with_context(|| format!("kill {kill}"))?;
        accepted(&host, 3).await?;
        host.kill9().await?;
    }
    host.forget_logs();
    host.start().await?;
    let reasons: Vec<_> = host.dead_letters().await?.into_iter().map(|letter| letter.reason).collect();
    ensure!(reasons == ["host_crash"; 3], "{reasons:?}");
    let (_, said) = host.readiness().await?;
    ensure!(said.contains("took the host down with 3 events"), "/readyz said: {said}");
    publisher.publish_all((3..20).map(|number| order(number, 0))).await?;
    ledger.wait_for("the other plugin's webhooks", DEADLINE, |log| log.ids() == 20).await?;
    host.wait_runs("lingers", "parked", 17, DEADLINE).await?;

    // Another build: the same, and a custom section more.
    let mut better = PluginFile::hostile("lingers")?;
    better.wasm.extend([0, 3, 1, b'v', b'2']);
    host.folder.put_plugin(&better)?;
    shop.wait_for("what was parked", DEADLINE, |log| log.ids() == 17).await?;
    host.expect_all_accounted().await?;
    host.stop().await
}
