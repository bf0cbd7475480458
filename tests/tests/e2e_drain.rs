//! Starts and ends: a drain under load, servers that are down.

use std::time::Duration;

use anyhow::{Result, ensure};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher};
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(90);

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

#[tokio::test]
async fn sigterm_under_load_ends_with_0_and_loses_nothing() -> Result<()> {
    const EVENTS: usize = 3_000;
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::by(|_| Answer::ok().after(Duration::from_millis(20)))).await?;
    let mut host =
        TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.start().await?;
    publisher.publish_orders(0..EVENTS).await?;
    endpoint.wait_for("the load", DEADLINE, |log| log.ids() >= 100).await?;
    host.stop().await?;
    let before = endpoint.look(|log| log.all().len());
    ensure!(before < EVENTS, "the drain came too late to mean anything");

    host.start().await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == EVENTS).await?;
    // Attempts that were in flight at the signal were finished and recorded, so nothing is sent twice.
    assert_eq!(endpoint.look(|log| log.all().len()), EVENTS);
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_drain_gives_up_at_its_deadline_and_leaves_the_rest_in_the_store() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::always(Answer::Hang)).await?;
    let mut host = TestHost::builder()
        .limits("drain_deadline = \"1s\"")
        .http(source.port, "")
        .endpoint("orders", &endpoint, "timeout = \"60s\"")
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    source.publish_orders(0..10).await?;
    endpoint.wait_for("the hanging attempts", DEADLINE, |log| log.ids() == 10).await?;
    let signalled = std::time::Instant::now();
    host.stop().await?;
    ensure!(signalled.elapsed() < Duration::from_secs(15), "the drain took {:?}", signalled.elapsed());

    endpoint.set_script(Script::ok());
    host.start().await?;
    endpoint.wait_for("every webhook again", DEADLINE, |log| log.all().len() == 20 && log.ids() == 10).await
}

#[tokio::test]
async fn an_endpoint_that_is_down_at_start_gets_its_webhooks_later() -> Result<()> {
    let source = HttpPublisher::new()?;
    let mut endpoint = FakeEndpoint::down(Script::ok())?;
    let retry = "[endpoint.retry]\ninitial_delay = \"100ms\"\nmultiplier = 1.0\nmax_attempts = 1000";
    let mut host =
        TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, retry).plugin(orders()?).build()?;
    host.start().await?;
    source.publish_orders(0..5).await?;
    host.wait_metric("wirehook_attempts_total", "endpoint=\"orders\"", 5.0, DEADLINE).await?;
    endpoint.listen().await?;
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 5).await
}

#[tokio::test]
async fn a_bus_that_is_down_at_start_is_retried_and_readyz_names_it() -> Result<()> {
    let mut nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    publisher.publish_orders(0..5).await?;
    nats.kill();
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host =
        TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.spawn(&[]).await?;
    let (status, text) = wirehook_tests::wait::until("the admin listener", DEADLINE, async || {
        Ok(host.readiness().await.ok())
    })
    .await?;
    ensure!(status == 503 && text.contains("bus"), "/readyz answered {status}: {text}");

    nats.restart().await?;
    host.wait_ready().await?;
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 5).await
}

#[tokio::test]
async fn a_bus_that_goes_down_meanwhile_is_connected_again() -> Result<()> {
    let mut nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host =
        TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.start().await?;
    publisher.publish_orders(0..50).await?;
    nats.kill();
    nats.restart().await?;
    StreamPublisher::create(&nats, "EVENTS").await?.publish_orders(50..100).await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 100).await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    Ok(())
}

#[tokio::test]
async fn core_nats_events_arrive() -> Result<()> {
    let nats = NatsServer::start().await?;
    let client = nats.client().await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder().nats(&nats).endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.start().await?;
    for number in 0..100 {
        let event = wirehook_tests::events::order_created(number);
        client.publish(event.subject, event.body).await?;
    }
    client.flush().await?;
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 100).await?;
    host.stop().await
}
