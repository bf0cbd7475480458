//! The `http` source: 202 is a promise.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wirehook_tests::events::{self, order_created};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::{HttpPublisher, answer};
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);

struct Scene {
    source: HttpPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
}

async fn scene(limits: &str, source_settings: &str) -> Result<Scene> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .limits(limits)
        .http(source.port, source_settings)
        .endpoint("orders", &endpoint, "")
        .variable("EVENTS_TOKEN", "a-token-of-sixteen-characters")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    Ok(Scene { source, endpoint, host })
}

#[tokio::test]
async fn an_accepted_event_survives_a_kill_right_after_its_202() -> Result<()> {
    let Scene { source, endpoint, mut host } = scene("", "").await?;
    for number in 0..5 {
        source.publish_orders([number * 2, number * 2 + 1]).await?;
        host.kill9().await?;
        host.start().await?;
    }
    endpoint.wait_for("every accepted event's webhook", DEADLINE, |log| log.ids() == 10).await?;
    host.expect_all_accounted().await
}

#[tokio::test]
async fn one_event_or_an_array_is_taken() -> Result<()> {
    let Scene { source, endpoint, host: _host } = scene("", "").await?;
    assert_eq!(source.post(order_created(0).body).await?.0, 202);
    assert_eq!(source.post(events::array((1..4).map(order_created))).await?.0, 202);
    endpoint.wait_for("four webhooks", DEADLINE, |log| log.ids() == 4).await?;
    endpoint.expect_all_signed()
}

#[tokio::test]
async fn an_array_is_taken_whole_or_not_at_all() -> Result<()> {
    let Scene { source, endpoint, host } = scene("", "").await?;
    let mut broken = order_created(1);
    // The page's format, without what it needs.
    broken.body = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":5}"#.into();
    let (status, text) = source.post(events::array([order_created(0), broken, order_created(2)])).await?;
    ensure!(status == 400 && !text.is_empty(), "{status}: {text}");

    source.publish_orders([3]).await?;
    endpoint.wait_for("the later event's webhook", DEADLINE, |log| log.ids() >= 1).await?;
    host.wait_delivery(endpoint.requests()[0].webhook_id(), "delivered", DEADLINE).await?;
    assert_eq!(events::order_id(&endpoint.requests()[0].body), Some(events::entity_id(3)));
    assert_eq!(endpoint.requests().len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_idempotency_key_makes_a_repeated_post_one_event() -> Result<()> {
    let Scene { source, endpoint, host } = scene("", "").await?;
    for _ in 0..3 {
        let request = source.request(order_created(0).body).header("idempotency-key", "order-0-created");
        assert_eq!(answer(request).await?.0, 202);
    }
    source.publish_orders([1]).await?;
    endpoint.wait_for("both webhooks", DEADLINE, |log| log.ids() == 2).await?;
    for request in endpoint.requests() {
        host.wait_delivery(request.webhook_id(), "delivered", DEADLINE).await?;
    }
    assert_eq!(endpoint.requests().len(), 2);
    Ok(())
}

#[tokio::test]
async fn what_is_not_an_event_is_400_with_a_reason() -> Result<()> {
    let Scene { source, endpoint: _endpoint, host: _host } = scene("", "").await?;
    for body in ["  ", "{\"half\": ", "this is not JSON"] {
        let (status, text) = source.post(body).await?;
        ensure!(status == 400 && !text.is_empty(), "`{body}` was answered {status}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn an_event_over_the_limit_is_413_with_a_reason() -> Result<()> {
    let Scene { source, endpoint: _endpoint, host: _host } = scene("event = \"2KiB\"", "").await?;
    let large = serde_json::json!({"note": "-".repeat(4096)}).to_string();
    let (status, text) = source.post(large).await?;
    ensure!(status == 413 && !text.is_empty(), "{status}: {text}");
    assert_eq!(source.post(order_created(0).body).await?.0, 202);
    Ok(())
}

#[tokio::test]
async fn a_request_far_over_every_limit_is_413_before_its_body_is_sent() -> Result<()> {
    let Scene { source, endpoint: _endpoint, host: _host } = scene("", "").await?;
    let mut stream = TcpStream::connect(("127.0.0.1", source.port)).await?;
    stream.write_all(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n").await?;
    let mut status = [0; 12];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut status)).await??;
    assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 413");
    Ok(())
}

#[tokio::test]
async fn a_token_is_asked_for_where_one_is_set() -> Result<()> {
    let Scene { source, endpoint, host: _host } = scene("", "token = { env = \"EVENTS_TOKEN\" }").await?;
    let body = || order_created(0).body;
    assert_eq!(source.post(body()).await?.0, 401);
    assert_eq!(answer(source.request(body()).bearer_auth("another")).await?.0, 401);
    assert_eq!(answer(source.request(body()).bearer_auth("a-token-of-sixteen-characters")).await?.0, 202);
    endpoint.wait_for("the webhook", DEADLINE, |log| log.ids() == 1).await
}

/// For `/healthz` of a build without optimisation, beside other tests; a probe gives up after a second.
const ANSWERED: Duration = Duration::from_secs(3);

/// One request on a connection of its own: the answer, and how long it took.
async fn ask(address: &str, host: &str, path: &str) -> Result<(String, Duration)> {
    let began = std::time::Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((answer, began.elapsed()))
}

#[tokio::test]
async fn whoever_opens_connections_and_sends_nothing_keeps_nobody_out() -> Result<()> {
    wirehook::open_files::allow_most()?;
    let Scene { source, endpoint, mut host } = scene("", "").await?;
    let (admin, intake) = (host.folder.admin_address(), format!("127.0.0.1:{}", source.port));
    // More than the system holds until they are accepted.
    let many = 5000;
    let mut streams = Vec::new();
    for (address, count, sent) in [
        (&admin, 32, &b""[..]),
        (&admin, 1300, b""),
        (&admin, 1300, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: "),
        (&admin, many, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        (&admin, many, b""),
        (&intake, many, b"P"),
    ] {
        streams.clear();
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await?;
            let _ = stream.write_all(sent).await;
            streams.push(stream);
        }
        let (answer, took) = ask(&admin, "localhost", "/healthz").await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        ensure!(took < ANSWERED, "/healthz took {took:?} beside {count} connections to {address}");
        ensure!(source.post(order_created(0).body).await?.0 == 202);
    }
    host.logs().wait_for("gave way to new ones", DEADLINE).await?;
    // The connections of the last round may still be on their way in.
    for listener in ["admin", "source web"] {
        let labels = format!("listener=\"{listener}\",reason=\"gave_way\"");
        wait::until("a connection to have given way", DEADLINE, async || {
            let count = host.metric("wirehook_http_connections_closed_total", &labels).await?;
            Ok((count > 0.0).then_some(()))
        })
        .await?;
    }
    drop(streams);
    endpoint.wait_for("a webhook of each round", DEADLINE, |log| log.ids() == 6).await?;
    host.stop().await
}

#[tokio::test]
async fn the_admin_listener_answers_no_host_that_a_page_could_have() -> Result<()> {
    let Scene { host, .. } = scene("", "").await?;
    let admin = host.folder.admin_address();
    for path in ["/healthz", "/readyz", "/metrics", "/nowhere", "http://evil.example/readyz"] {
        let (answer, _) = ask(&admin, "evil.example:80", path).await?;
        ensure!(answer.starts_with("HTTP/1.1 421") && !answer.contains("wirehook_"), "{path}: {answer}");
    }
    for name in ["localhost", "LOCALHOST.:1", "[::1]:7465", "10.0.0.1"] {
        ensure!(ask(&admin, name, "/healthz").await?.0.starts_with("HTTP/1.1 200"), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn failed_tokens_are_counted() -> Result<()> {
    let Scene { source, host, .. } = scene("", "token = { env = \"EVENTS_TOKEN\" }").await?;
    for _ in 0..3 {
        ensure!(answer(source.request("{}").header("authorization", "Bearer wrong")).await?.0 == 401);
    }
    let (metrics, _) = ask(&host.folder.admin_address(), "localhost", "/metrics").await?;
    let counted = "wirehook_http_requests_refused_total{listener=\"source web\",reason=\"token\"} 3";
    ensure!(metrics.contains(counted), "{metrics}");
    Ok(())
}
