//! What operators see: metrics, readiness, signals; and what nobody may see.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wirehook::source::http::REQUESTS_IN_FLIGHT_MAX;
use wirehook_tests::bench::slow_disk;
use wirehook_tests::events::{self, order_created};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, SECRET, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher, answer};
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::{http_client, wait};

const DEADLINE: Duration = Duration::from_secs(60);

const TOKEN: &str = "token-that-nobody-may-see-1";
const BEARER: &str = "Bearer bearer-that-nobody-may-see-2";
const API_KEY: &str = "key-that-nobody-may-see-3";

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

async fn get(host: &TestHost, path: &str) -> Result<String> {
    Ok(http_client::new()?.get(host.folder.admin_url(path)).send().await?.error_for_status()?.text().await?)
}

#[tokio::test]
async fn metrics_have_their_documented_names_and_count() -> Result<()> {
    let source = HttpPublisher::new()?;
    // The first order is refused for good, the second at first, the third is taken.
    let script = Script::by(|call| match (events::order_id(&call.request.body), call.number) {
        (Some(id), _) if id == events::entity_id(0) => Answer::status(400),
        (Some(id), 1) if id == events::entity_id(1) => Answer::status(503),
        _ => Answer::ok(),
    });
    let endpoint = FakeEndpoint::start(script).await?;
    let mut host =
        TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.start().await?;
    source.publish_orders(0..3).await?;
    source.post(events::page_event("other", "created", 9, &serde_json::json!({})).body).await?;
    let outcomes = [("delivered", 2.0), ("retrying", 1.0), ("dead", 1.0)];
    for (outcome, count) in outcomes {
        let labels = format!("outcome=\"{outcome}\"");
        host.wait_metric("wirehook_attempts_total", &labels, count, DEADLINE).await?;
    }
    let text = get(&host, "/metrics").await?;
    for line in [
        "wirehook_events_accepted_total{source=\"web\"} 4",
        "wirehook_events_unrouted_total 1",
        "wirehook_runs_total{outcome=\"produced\",plugin=\"orders\"} 3",
        "wirehook_plugin_duration_seconds_count{plugin=\"orders\"} 3",
        "wirehook_attempts_total{endpoint=\"orders\",outcome=\"delivered\"} 2",
        "wirehook_attempts_total{endpoint=\"orders\",outcome=\"retrying\"} 1",
        "wirehook_attempts_total{endpoint=\"orders\",outcome=\"dead\"} 1",
        "wirehook_dead_letters_total{reason=\"status_4xx\"} 1",
        "wirehook_dead_letters_total{reason=\"undecodable\"} 0",
        "wirehook_source_connected{source=\"web\"} 1",
        "wirehook_events_unaccounted 0",
    ] {
        ensure!(text.lines().any(|known| known == line), "`{line}` is not in\n{text}");
    }
    for name in ["wirehook_backlog{endpoint=\"orders\"}", "wirehook_build_info{version="] {
        ensure!(text.lines().any(|line| line.starts_with(name)), "`{name}` is not in\n{text}");
    }
    ensure!(get(&host, "/healthz").await?.trim() == "ok");
    host.expect_all_accounted().await
}

#[tokio::test]
async fn readyz_names_the_bus_while_it_is_down_and_is_ready_again_once_it_is_back() -> Result<()> {
    let mut nats = NatsServer::start().await?;
    StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host =
        TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.start().await?;
    nats.kill();
    let text = wait::until("readyz to notice", DEADLINE, async || {
        let (status, text) = host.readiness().await?;
        Ok((status == 503).then_some(text))
    })
    .await?;
    let said: serde_json::Value = serde_json::from_str(&text)?;
    let missing: Vec<_> = said["parts"].as_array().context("parts")?.iter().filter(|it| it["ready"] == false).collect();
    ensure!(missing.len() == 1 && missing[0]["name"] == "source bus", "what is missing: {text}");
    ensure!(missing[0]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "it doesn't say why: {text}");
    assert_eq!(get(&host, "/healthz").await?.trim(), "ok", "the process lives all the same");
    nats.restart().await?;
    host.wait_ready().await?;
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_the_host_at_once_with_1_and_loses_nothing() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::always(Answer::Hang)).await?;
    let mut host = TestHost::builder()
        .limits("drain_deadline = \"5m\"")
        .http(source.port, "")
        .endpoint("orders", &endpoint, "timeout = \"10m\"")
        .plugin(orders()?)
        .build()?;
    for (number, signal) in [libc::SIGTERM, libc::SIGINT].into_iter().enumerate() {
        host.start().await?;
        source.publish_orders([number]).await?;
        endpoint.wait_for("the hanging attempt", DEADLINE, |log| log.ids() > number).await?;
        host.signal(signal)?;
        host.logs().wait_for("draining", DEADLINE).await?;
        host.signal(signal)?;
        let status = host.wait_exit(DEADLINE).await?;
        assert_eq!(status.code(), Some(1), "{}", host.logs().tail());
        host.forget_logs();
    }
    endpoint.set_script(Script::ok());
    host.start().await?;
    for request in endpoint.requests() {
        host.wait_delivery(request.webhook_id(), "delivered", DEADLINE).await?;
    }
    assert_eq!(endpoint.look(|log| log.ids()), 2);
    host.stop().await
}

/// Requests are counted from when they are whole until they are durable, which the disk delays here.
#[tokio::test]
async fn more_requests_than_there_is_room_for_are_429_and_told_when_to_come_again() -> Result<()> {
    const MORE: usize = 64;
    let folder = tempfile::tempdir()?;
    let slow_disk = slow_disk::library(folder.path(), Duration::from_secs(2))?;
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .variable(slow_disk::VARIABLE, &slow_disk.to_string_lossy())
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    let mut waiting = Vec::new();
    for _ in 0..REQUESTS_IN_FLIGHT_MAX + MORE {
        let mut stream = TcpStream::connect(("127.0.0.1", source.port)).await?;
        let head =
            "POST /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
        stream.write_all(format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes()).await?;
        waiting.push(stream);
    }
    let (mut taken, mut refused) = (0, 0);
    for mut stream in waiting {
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
        match answer.get(..12) {
            Some("HTTP/1.1 202") => taken += 1,
            Some("HTTP/1.1 429") => {
                let told = answer.to_ascii_lowercase();
                ensure!(told.contains("retry-after: 1\r\n") && told.contains("too many requests"), "{answer}");
                refused += 1;
            }
            _ => bail!("{answer}"),
        }
    }
    ensure!(taken >= REQUESTS_IN_FLIGHT_MAX && refused > 0, "{taken} taken, {refused} refused");

    assert_eq!(source.post(order_created(0).body).await?.0, 202);
    endpoint.wait_for("the webhook", DEADLINE, |log| log.ids() == 1).await
}

#[tokio::test]
async fn secrets_are_in_no_log_no_answer_and_no_file() -> Result<()> {
    let source = HttpPublisher::new()?;
    let script = Script::by(|call| match call.number {
        1 => Answer::status(503),
        2 => Answer::HangUp,
        _ => Answer::text(400, "no"),
    });
    let endpoint = FakeEndpoint::start(script).await?;
    let gone = FakeEndpoint::down(Script::ok())?;
    let retry = "[endpoint.retry]\ninitial_delay = \"10ms\"\nmultiplier = 1.0\nmax_attempts = 4";
    let headers = "[endpoint.headers]\nAuthorization = { env = \"BEARER\" }\nX-Api-Key = { env = \"API_KEY\" }";
    let mut host = TestHost::builder()
        .http(source.port, "token = { env = \"TOKEN\" }")
        .endpoint("orders", &endpoint, &format!("{headers}\n{retry}"))
        .endpoint("gone", &gone, &format!("{headers}\n{retry}"))
        .plugin(orders()?)
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.order.*", "gone"))
        .plugin(PluginFile::hostile("trap")?.subscribed("fraiseql.order.*", "orders"))
        .variable("TOKEN", TOKEN)
        .variable("BEARER", BEARER)
        .variable("API_KEY", API_KEY)
        .variable("WIREHOOK_LOG", "trace")
        .build()?;
    host.start().await?;
    for token in ["wrong", TOKEN] {
        let answered = answer(source.request(order_created(1).body).bearer_auth(token)).await?;
        ensure!(!answered.1.contains(TOKEN), "the source told its token: {}", answered.1);
    }
    let dead = host.wait_dead_letters(3, DEADLINE).await?;
    let request = endpoint.requests().remove(0);
    assert_eq!((request.header("authorization"), request.header("x-api-key")), (Some(BEARER), Some(API_KEY)));

    let mut seen = vec![("/metrics", get(&host, "/metrics").await?), ("/readyz", get(&host, "/readyz").await?)];
    let delivery = dead.iter().find_map(|letter| letter.delivery_id.clone()).context("a dead delivery")?;
    let letter = dead[0].id.to_string();
    for command in [
        &["status"][..],
        &["config", "show"],
        &["config", "show", "--json"],
        &["check"],
        &["deliveries", "list", "--json"],
        &["deliveries", "show", &delivery],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "show", &letter],
    ] {
        let output = host.command(command).await?;
        seen.push((command[0], output.stdout + &output.stderr));
    }
    // Before the drain empties the log file into the database, and after.
    let mut files = host.folder.contents()?;
    host.stop().await?;
    files.extend(host.folder.contents()?);
    seen.push(("the logs", host.logs().lines().join("\n")));

    let store = host.store_path();
    ensure!(files.iter().any(|(path, _)| *path == store), "the store was not looked into: {files:?}");
    ensure!(seen.iter().any(|(_, text)| text.contains("the delivery is a dead letter")), "the logs say nothing");
    for secret in [SECRET, TOKEN, BEARER.trim_start_matches("Bearer "), API_KEY] {
        for (place, text) in &seen {
            ensure!(!text.contains(secret), "`{secret}` is in {place}");
        }
        for (path, content) in &files {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "`{secret}` is in {}", path.display());
        }
    }
    host.forget_logs();
    Ok(())
}
