//! A plugin that asks a service for what an event lacks: what it gets, what it is refused, and whom it keeps waiting.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

/// For everything to arrive, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(60);
/// More than the threads that wait for answers.
const SLOW_EVENTS: usize = 12;
const TOKEN: &str = "Bearer token-of-the-operator";

fn sidecar(service: &FakeEndpoint, method: &str) -> String {
    format!(
        "subjects = [\"fraiseql.order.*\"]\nendpoints = [\"orders\"]\ngrants = [\"http\"]\n\
         [config]\nurl = \"{}\"\nmethod = \"{method}\"\n",
        service.url()
    )
}

fn granted(service: &FakeEndpoint, extra: &str) -> String {
    format!(
        "[[plugin]]\nname = \"enrich\"\ngrants = [\"http\"]\n\
         [[plugin.http]]\nurl = \"{}\"\n{extra}\nheaders = {{ Authorization = {{ env = \"SERVICE_TOKEN\" }} }}\n",
        service.url()
    )
}

/// A host with the plugin that asks `service`, and one beside it that asks nobody.
fn host(
    nats: &NatsServer,
    service: &FakeEndpoint,
    orders: &FakeEndpoint,
    method: &str,
    extra: &str,
) -> Result<TestHost> {
    TestHost::builder()
        .plugin_settings("workers = 2\nhttp_workers = 4")
        .settings(&granted(service, extra))
        .variable("SERVICE_TOKEN", TOKEN)
        .jetstream(nats, "EVENTS")
        .endpoint("orders", orders, "")
        .plugin(PluginFile::hostile("enrich")?.with_sidecar(&sidecar(service, method)))
        .build()
}

#[tokio::test]
async fn the_answer_is_in_the_webhook_and_the_credentials_are_the_hosts() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let orders = FakeEndpoint::start(Script::ok()).await?;
    let service = FakeEndpoint::start(Script::by(|call| match call.request.path.rsplit('/').next() {
        Some(id) => Answer::text(200, &json!({"of": id}).to_string()).with_header("set-cookie", "session=1"),
        None => Answer::status(404),
    }))
    .await?;
    let mut host = host(&nats, &service, &orders, "GET", "")?;
    host.start().await?;
    publisher.publish_orders(0..20).await?;
    orders.wait_for("a webhook for each order", DEADLINE, |log| log.ids() >= 20).await?;
    for request in orders.requests() {
        let body: Value = serde_json::from_slice(&request.body).context("a webhook of `enrich`")?;
        ensure!(body["customer"]["of"] == body["order_id"], "{body}");
        ensure!(!String::from_utf8_lossy(&request.body).contains("token-of-the-operator"), "the plugin saw the token");
    }
    for request in service.requests() {
        ensure!(request.header("authorization") == Some(TOKEN), "{:?}", request.headers);
        ensure!(request.header("x-event").is_some_and(|key| key.starts_with("bus/")), "{:?}", request.headers);
    }
    ensure!(!host.logs().lines().iter().any(|line| line.contains("token-of-the-operator")), "the log has the token");
    host.expect_all_accounted().await?;
    host.stop().await
}

#[tokio::test]
async fn what_is_not_on_the_list_is_a_dead_letter_that_says_what_to_write() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let orders = FakeEndpoint::start(Script::ok()).await?;
    let service = FakeEndpoint::start(Script::ok()).await?;
    let mut host = host(&nats, &service, &orders, "POST", "")?;
    host.start().await?;
    publisher.publish_orders(0..1).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?;
    ensure!(dead[0].reason == "plugin_rejected", "{dead:?}");
    ensure!(dead[0].detail.contains("POST http://127.0.0.1:"), "{dead:?}");
    ensure!(dead[0].detail.contains("add the method to its [[plugin.http]]"), "{dead:?}");
    ensure!(service.requests().is_empty(), "nothing may go out");
    host.stop().await
}

#[tokio::test]
async fn the_grant_and_the_list_belong_together() -> Result<()> {
    let orders = FakeEndpoint::start(Script::ok()).await?;
    let service = FakeEndpoint::start(Script::ok()).await?;
    let check = async |settings: &str, code: i32, said: &[&str]| -> Result<()> {
        let host = TestHost::builder()
            .settings(settings)
            .endpoint("orders", &orders, "")
            .plugin(PluginFile::hostile("enrich")?.with_sidecar(&sidecar(&service, "GET")))
            .build()?;
        host.command(&["check"]).await?.expect_code(code)?.expect_said(said)?;
        Ok(())
    };
    let name = "[[plugin]]\nname = \"enrich\"\n";
    check(name, 1, &["asks for the grant `http`, which the settings do not give", "grants = [\"http\"]"]).await?;
    check(&format!("{name}grants = [\"http\"]\n"), 2, &["no URL is allowed", "add a [[plugin.http]]"]).await?;
    check(&format!("{name}[[plugin.http]]\nurl = \"https://a.net\"\n"), 2, &["`grants` has no \"http\""]).await?;
    let wrong = "grants = [\"http\"]\n[[plugin.http]]\nurl = \"https://a.net/?a=b\"\nmethods = [\"Get\"]\n";
    check(&format!("{name}{wrong}"), 2, &["has a query", "[[plugin.enrich.http]] number 1", "known: DELETE, GET"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_never_answers_keeps_nobody_waiting_but_its_own_plugin() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let orders = FakeEndpoint::start(Script::ok()).await?;
    let beside = FakeEndpoint::start(Script::ok()).await?;
    let service = FakeEndpoint::start(Script::always(Answer::Hang)).await?;
    let mut host = TestHost::builder()
        .plugin_settings("workers = 2\nhttp_workers = 4")
        .settings(&granted(&service, "timeout = \"60s\""))
        .variable("SERVICE_TOKEN", TOKEN)
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &orders, "")
        .endpoint("beside", &beside, "")
        .plugin(PluginFile::hostile("enrich")?.with_sidecar(&sidecar(&service, "GET")))
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.order.*", "beside"))
        .build()?;
    host.start().await?;
    publisher.publish_orders(0..SLOW_EVENTS).await?;
    beside.wait_for("the webhooks of the other plugin", DEADLINE, |log| log.ids() >= SLOW_EVENTS).await?;
    let asked = service.requests().len();
    ensure!(asked < SLOW_EVENTS, "{asked} requests were under way before the other plugin was done");
    // Three tries of a second each, and the waits between them, end the first ones.
    let dead = host.wait_dead_letters(SLOW_EVENTS, DEADLINE).await?;
    ensure!(dead.iter().all(|dead| dead.reason == "plugin_deadline"), "{dead:?}");
    ensure!(dead[0].detail.contains("lasted longer than 1000 ms"), "{dead:?}");
    ensure!(orders.requests().is_empty(), "there was no answer to put into a webhook");
    host.stop().await
}
