//! What a receiver's answers lead to: attempts, delays, dead letters, redrives.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use wirehook_tests::events::{self, order_created};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, SECRET, Script};
use wirehook_tests::full;
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::nginx::{Nginx, NginxOptions};
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher};
use wirehook_tests::python_verifier;
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);

/// What a busy machine may add to a delay.
const SLACK: Duration = Duration::from_millis(700);

/// A stored moment has whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

struct Scene {
    publisher: StreamPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
    _nats: NatsServer,
}

/// JetStream, the `orders` plugin and one endpoint that answers by `script`, ready.
async fn scene(script: Script, endpoint_settings: &str) -> Result<Scene> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(script).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, endpoint_settings)
        .variable("ORDERS_BEARER", "Bearer page")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    Ok(Scene { publisher, endpoint, host, _nats: nats })
}

#[tokio::test]
async fn the_page_example_arrives_as_the_page_has_it() -> Result<()> {
    let Scene { publisher, endpoint, host, _nats } =
        scene(Script::ok(), "[endpoint.headers]\nAuthorization = { env = \"ORDERS_BEARER\" }").await?;
    publisher.publish(order_created(7)).await?;
    endpoint.wait_for("the webhook", DEADLINE, |log| log.ids() == 1).await?;

    let request = endpoint.requests().remove(0);
    let body: serde_json::Value = serde_json::from_slice(&request.body)?;
    let expected = json!({
        "event": "order.created",
        "order_id": events::entity_id(7),
        "customer_email": "customer-7@example.com",
        "total": 129.5,
    });
    assert_eq!(body, expected);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("authorization"), Some("Bearer page"));
    assert!(request.webhook_id().starts_with("msg_") && request.webhook_id().len() == 36, "{request:?}");
    python_verifier::accept_all(std::slice::from_ref(&request), SECRET).await?;
    host.wait_delivery(request.webhook_id(), "delivered", DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn two_503_then_200_are_three_attempts_with_the_policy_s_delays() -> Result<()> {
    let retry = "[endpoint.retry]\ninitial_delay = \"300ms\"\nmultiplier = 4.0\njitter = 0.1\nmax_attempts = 5";
    let Scene { publisher, endpoint, host, _nats } = scene(Script::statuses(&[503, 503, 200]), retry).await?;
    publisher.publish(order_created(1)).await?;
    endpoint.wait_for("three attempts", DEADLINE, |log| log.all().len() == 3).await?;

    let requests = endpoint.requests();
    let id = requests[0].webhook_id();
    for (earlier, delay_ms) in [(0, 300), (1, 1200)] {
        let gap = requests[earlier + 1].arrived_at - requests[earlier].arrived_at;
        let delay = Duration::from_millis(delay_ms);
        let longest = delay.mul_f64(1.1) + SLACK;
        ensure!(gap + ROUNDING >= delay && gap <= longest, "attempt {} came after {gap:?}, not {delay:?}", earlier + 2);
    }
    assert!(requests.iter().all(|request| request.webhook_id() == id && request.body == requests[0].body));
    python_verifier::accept_all(&requests, SECRET).await?;

    let delivery = host.wait_delivery(id, "delivered", DEADLINE).await?;
    let statuses: Vec<_> =
        delivery["attempts_made"].as_array().context("attempts")?.iter().map(|a| &a["status"]).collect();
    assert_eq!(statuses, [503, 503, 200]);
    assert_eq!(endpoint.requests().len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_400_is_dead_at_once_and_a_redrive_beside_the_running_host_delivers_it() -> Result<()> {
    let Scene { publisher, endpoint, host, _nats } =
        scene(Script::always(Answer::text(400, "the total is negative")), "").await?;
    publisher.publish(order_created(1)).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.kind.as_str(), dead.reason.as_str(), dead.attempts), ("delivery", "status_4xx", 1));
    assert_eq!((dead.last_status, dead.last_response.as_deref()), (Some(400), Some("the total is negative")));
    let id = endpoint.requests()[0].webhook_id().to_owned();
    assert_eq!(dead.delivery_id.as_deref(), Some(id.as_str()));

    endpoint.set_script(Script::ok());
    host.command(&["dead-letters", "redrive", &dead.id.to_string()]).await?.expect_code(0)?;
    endpoint.wait_for("the redriven webhook", DEADLINE, |log| log.of(&id).len() == 2).await?;
    host.wait_delivery(&id, "delivered", DEADLINE).await?;
    assert!(host.dead_letters().await?.is_empty());
    assert_eq!(endpoint.requests().len(), 2);
    endpoint.expect_all_signed()
}

#[tokio::test]
async fn a_discarded_dead_letter_is_gone() -> Result<()> {
    let Scene { publisher, endpoint, host, _nats } = scene(Script::statuses(&[400]), "").await?;
    publisher.publish(order_created(1)).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    host.command(&["dead-letters", "show", &dead.id.to_string()]).await?.expect_code(0)?;
    host.command(&["dead-letters", "discard", &dead.id.to_string(), "--yes"]).await?.expect_code(0)?;
    assert!(host.dead_letters().await?.is_empty());
    assert_eq!(endpoint.requests().len(), 1);
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_last_attempt_is_the_last() -> Result<()> {
    let retry = "[endpoint.retry]\ninitial_delay = \"10ms\"\nmultiplier = 1.0\nmax_attempts = 3";
    let Scene { publisher, endpoint, host, _nats } = scene(Script::statuses(&[500]), retry).await?;
    publisher.publish(order_created(1)).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.reason.as_str(), dead.attempts, dead.last_status), ("attempts_exhausted", 3, Some(500)));
    assert_eq!(endpoint.requests().len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_recorded_and_not_followed() -> Result<()> {
    let elsewhere = FakeEndpoint::start(Script::ok()).await?;
    let Scene { publisher, endpoint, host, _nats } =
        scene(Script::always(Answer::redirect(&elsewhere.url())), "").await?;
    publisher.publish(order_created(1)).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.reason.as_str(), dead.last_status), ("status_3xx", Some(302)));
    assert_eq!((endpoint.requests().len(), elsewhere.connections()), (1, 0));
    Ok(())
}

/// Each of these never ends its answer: only a timeout over the whole exchange ends the attempt.
#[tokio::test]
async fn the_timeout_covers_the_whole_exchange() -> Result<()> {
    let script = Script::by(|call| match call.number {
        1 => Answer::Hang,
        2 => Answer::Drip(Duration::from_millis(50)),
        3 => Answer::HangUp,
        _ => Answer::ok(),
    });
    let settings = "timeout = \"500ms\"\n[endpoint.retry]\ninitial_delay = \"10ms\"\nmultiplier = 1.0";
    let Scene { publisher, endpoint, host, _nats } = scene(script, settings).await?;
    publisher.publish(order_created(1)).await?;
    endpoint.wait_for("the fourth attempt", DEADLINE, |log| log.all().len() == 4).await?;
    let id = endpoint.requests()[0].webhook_id().to_owned();
    let delivery = host.wait_delivery(&id, "delivered", DEADLINE).await?;
    let attempts = delivery["attempts_made"].as_array().context("attempts")?;
    assert_eq!(attempts.len(), 4);
    for attempt in &attempts[..2] {
        let seconds = attempt["duration_s"].as_f64().context("a duration")?;
        ensure!((0.49..0.5 + SLACK.as_secs_f64()).contains(&seconds), "the attempt took {seconds} s");
        ensure!(!attempt["error"].is_null(), "the attempt has an error: {attempt}");
    }
    ensure!(!attempts[2]["error"].is_null(), "a closed connection is an error: {}", attempts[2]);
    Ok(())
}

#[tokio::test]
async fn a_huge_answer_is_read_no_further_than_its_bound() -> Result<()> {
    let Scene { publisher, endpoint, host, _nats } = scene(Script::always(Answer::Huge(64 << 20)), "").await?;
    publisher.publish(order_created(1)).await?;
    endpoint.wait_for("the attempt", DEADLINE, |log| log.all().len() == 1).await?;
    let id = endpoint.requests()[0].webhook_id().to_owned();
    let delivery = host.wait_delivery(&id, "delivered", DEADLINE).await?;
    let response = delivery["attempts_made"][0]["response"].as_str().context("a response")?;
    ensure!(!response.is_empty() && response.len() <= 64 << 10, "{} bytes of the response are kept", response.len());
    Ok(())
}

#[tokio::test]
async fn retry_after_lengthens_the_delay() -> Result<()> {
    let script = Script::by(|call| match call.number {
        1 => Answer::status(429).with_header("retry-after", "2"),
        _ => Answer::ok(),
    });
    let Scene { publisher, endpoint, host: _host, _nats } = scene(script, "").await?;
    publisher.publish(order_created(1)).await?;
    endpoint.wait_for("the second attempt", DEADLINE, |log| log.all().len() == 2).await?;
    let requests = endpoint.requests();
    let gap = requests[1].arrived_at - requests[0].arrived_at;
    ensure!(gap + ROUNDING >= Duration::from_secs(2), "the second attempt came after {gap:?}");
    Ok(())
}

#[tokio::test]
async fn many_webhooks_share_few_connections() -> Result<()> {
    let Scene { publisher, endpoint, host: _host, _nats } = scene(Script::ok(), "concurrency = 4").await?;
    publisher.publish_orders(0..200).await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 200).await?;
    ensure!(endpoint.connections() <= 8, "{} connections for concurrency 4", endpoint.connections());
    Ok(())
}

#[tokio::test]
async fn a_refused_address_is_a_dead_letter_and_no_connection() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    let settings = host.folder.read_settings()?.replace("allow = [\"127.0.0.0/8\"]", "allow = []");
    host.folder.write_settings(&settings)?;
    host.start().await?;
    publisher.publish(order_created(1)).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.reason.as_str(), endpoint.connections()), ("egress_denied", 0));
    Ok(())
}

/// A proxy that ends its connections as it likes costs no attempt, and opens no breaker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_ends_its_connections_is_sent_each_webhook_once() -> Result<()> {
    // By default a connection ends after 1,000 requests, which an ordinary run does not reach.
    let (count, configurations): (u16, &[&str]) = match full::is_full() {
        true => (10_000, &["", "keepalive_requests 10;", "keepalive_requests 1;"]),
        false => (1_000, &["keepalive_requests 10;", "keepalive_requests 1;"]),
    };
    for &more in configurations {
        let nginx = Nginx::start(NginxOptions { more, ..NginxOptions::default() }).await?;
        let web = HttpPublisher::new()?;
        let mut host = TestHost::builder()
            .http(web.port, "")
            .endpoint_at("orders", &nginx.url("127.0.0.1", "/hook"), "concurrency = 64")
            .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
            .build()?;
        host.start().await?;
        for first in (0..usize::from(count)).step_by(50) {
            web.publish_orders(first..first + 50).await?;
        }
        host.wait_metric("wirehook_attempts_total", "outcome=\"delivered\"", f64::from(count), DEADLINE).await?;
        // A line is written after its answer was sent.
        let count = usize::from(count);
        let complete = async || Ok(Some(nginx.access_log()?).filter(|lines| lines.len() >= count));
        let lines = wait::until("a line for each", DEADLINE, complete).await?;
        let ids: HashSet<_> = lines.iter().filter_map(|line| line.rsplit(' ').next()).collect();
        ensure!((lines.len(), ids.len()) == (count, count), "`{more}`: {} lines of {} ids", lines.len(), ids.len());
        for outcome in ["retrying", "dead", "deferred"] {
            let labels = format!("endpoint=\"orders\",outcome=\"{outcome}\"");
            ensure!(host.metric("wirehook_attempts_total", &labels).await? == 0.0, "`{more}`: attempts are {outcome}");
        }
        ensure!(host.metric("wirehook_breaker_opened_total", "endpoint=\"orders\"").await? == 0.0, "`{more}`");
        host.stop().await?;
    }
    Ok(())
}
