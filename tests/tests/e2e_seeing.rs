//! What an operator sees of a host at work, and what pauses it: metrics, alerts, logs, readiness, status.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use wirehook::dead_letter::Reason;
use wirehook::logging::{FIELDS, OTHER_FIELDS};
use wirehook::metrics::Metrics;
use wirehook_tests::events::{PublishedEvent, order_created, page_event};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher};
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::{http_client, promtool, wait};

const DEADLINE: Duration = Duration::from_secs(90);

/// In every event's entity, and so in every body; nobody may log it.
const BODY_MARK: &str = "body-that-nobody-may-log";
const BEARER: &str = "bearer-that-nobody-may-log";

/// As verbose as it gets, libraries too.
const LOUDEST: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace,h2=trace,rustls=trace,async_nats=trace";

const QUICK_RETRY: &str = "[endpoint.retry]\ninitial_delay = \"20ms\"\nmultiplier = 1.0\nmax_attempts = 3";

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

fn guest(name: &str) -> Result<PluginFile> {
    let sidecar = format!(
        "subjects = [\"fraiseql.{name}.*\"]\nendpoints = [\"orders\"]\n\
         [retry]\nmax_attempts = 3\ninitial_delay = \"20ms\"\n"
    );
    Ok(PluginFile::hostile(name)?.with_sidecar(&sidecar))
}

/// An event of `entity_type` with the mark inside.
fn marked(entity_type: &str, number: usize) -> Bytes {
    marked_event(entity_type, number).body
}

fn marked_event(entity_type: &str, number: usize) -> PublishedEvent {
    page_event(entity_type, "created", number, &json!({ "note": BODY_MARK }))
}

async fn scrape(host: &TestHost) -> Result<String> {
    let response = http_client::new()?.get(host.folder.admin_url("/metrics")).send().await?.error_for_status()?;
    let kind = response.headers()["content-type"].to_str()?.to_owned();
    ensure!(kind.starts_with("text/plain; version=0.0.4"), "the content type is {kind}");
    Ok(response.text().await?)
}

/// The value of the series that begins with `series`.
fn sample(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn metrics_are_complete_and_prometheus_reads_them() -> Result<()> {
    let source = HttpPublisher::new()?;
    // The first two orders hang, and hold both places; a third waits for its turn.
    let endpoint = FakeEndpoint::start(Script::always(Answer::Hang)).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &endpoint, "concurrency = 2\ntimeout = \"10m\"")
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    source.publish_orders(0..3).await?;
    endpoint.wait_for("both attempts", DEADLINE, |log| log.ids() == 2).await?;
    let oldest = "wirehook_oldest_due_timestamp_seconds{endpoint=\"orders\"}";
    let text = wait::until("the backlog to be seen", DEADLINE, async || {
        let text = scrape(&host).await?;
        Ok(sample(&text, oldest).is_some().then_some(text))
    })
    .await?;
    promtool::check_metrics(&text).await?;
    assert_eq!(sample(&text, "wirehook_backlog{endpoint=\"orders\"}"), Some(3.0));
    let started = sample(&text, "process_start_time_seconds").context("a start time")?;
    let due = sample(&text, oldest).context("a due time")?;
    ensure!((started..started + 600.0).contains(&due), "due at {due}, started at {started}");
    let commits = sample(&text, "wirehook_commit_duration_seconds_count").context("commits")?;
    ensure!(commits > 1.0, "{commits} commits");
    for name in ["wirehook_store_bytes", "wirehook_store_wal_bytes", "wirehook_store_free_bytes", "process_open_fds"] {
        ensure!(sample(&text, name).is_some_and(|value| value > 0.0), "{name} is not above 0 in\n{text}");
    }
    let exported: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in Metrics::new("0")?.names() {
        ensure!(exported.contains(name.as_str()), "{name} has no sample in\n{text}");
    }
    // Labels are configured names and closed lists, and nothing from an event.
    for line in text.lines().filter(|line| line.starts_with("wirehook_")) {
        for label in line.split_once('{').into_iter().flat_map(|(_, rest)| rest.split("\",")) {
            let name = label.split('=').next().unwrap_or_default();
            let known =
                ["source", "plugin", "endpoint", "listener", "outcome", "state", "kind", "reason", "version", "le"];
            ensure!(known.contains(&name), "the label `{name}` in {line}");
        }
    }
    let reasons = text.lines().filter(|line| line.starts_with("wirehook_dead_letters_total{")).count();
    assert_eq!(reasons, Reason::ALL.len());

    endpoint.set_script(Script::ok());
    host.kill9().await?;
    host.start().await?;
    wait::until("the backlog to be gone", DEADLINE, async || {
        let text = scrape(&host).await?;
        let gone = sample(&text, "wirehook_backlog{endpoint=\"orders\"}") == Some(0.0);
        Ok((gone && sample(&text, oldest).is_none()).then_some(()))
    })
    .await?;
    host.stop().await
}

#[tokio::test]
async fn the_alerts_are_rules_that_fire_for_what_they_are_for() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = root.join("../host/examples/alerts.yml");
    promtool::check_rules(&rules).await?;
    let tests = root.join("fixtures/alerts_test.yml");
    let (rules, tested) = (std::fs::read_to_string(&rules)?, std::fs::read_to_string(&tests)?);
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(tested.contains(&format!("alertname=\"{alert}\"")), "nothing tests that `{alert}` fires");
    }
    promtool::test_rules(&tests).await
}

/// Deliveries, retries, dead letters of every kind, plugins that fail, as loud as it gets.
#[tokio::test]
async fn logs_have_their_documented_fields_and_hold_no_body_and_no_secret() -> Result<()> {
    let source = HttpPublisher::new()?;
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let script = Script::by(|call| match call.number {
        1 => Answer::status(503),
        2 => Answer::HangUp,
        _ => Answer::ok(),
    });
    let endpoint = FakeEndpoint::start(script).await?;
    let refusing = FakeEndpoint::start(Script::always(Answer::text(422, "no"))).await?;
    let down = FakeEndpoint::down(Script::ok())?;
    let extra = format!("[endpoint.headers]\nAuthorization = {{ env = \"BEARER\" }}\n{QUICK_RETRY}");
    let failing = ["trap", "rejects", "retry_always", "loop_forever", "memory_hog", "reserved_header"];
    let mut builder = TestHost::builder()
        .http(source.port, "")
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, &extra)
        .endpoint("refusing", &refusing, &extra)
        .endpoint("down", &down, &extra)
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.note.*", "orders"))
        .plugin(PluginFile {
            name: "echo2".to_owned(),
            ..PluginFile::hostile("echo")?.subscribed("fraiseql.note.*", "refusing")
        })
        .plugin(PluginFile {
            name: "echo3".to_owned(),
            ..PluginFile::hostile("echo")?.subscribed("fraiseql.note.*", "down")
        })
        .variable("BEARER", &format!("Bearer {BEARER}"))
        .variable("WIREHOOK_LOG", LOUDEST);
    for name in failing {
        builder = builder.plugin(guest(name)?);
    }
    let mut host = builder.build()?;
    host.start().await?;
    publisher.publish(marked_event("note", 1)).await?;
    for (number, name) in (2..).zip(failing) {
        source.post(marked(name, number)).await?;
    }
    // A conflict: the same key with another body.
    let twice = |body: &'static str| source.request(body).header("Idempotency-Key", "twice").send();
    twice("{\"a\":\"body-that-nobody-may-log\"}").await?;
    twice("{\"b\":\"body-that-nobody-may-log\"}").await?;
    let dead = host.wait_dead_letters(failing.len() + 3, DEADLINE).await?;
    endpoint.wait_for("the delivery", DEADLINE, |log| log.all().len() == 3).await?;
    let id = endpoint.requests()[0].webhook_id().to_owned();
    host.wait_delivery(&id, "delivered", DEADLINE).await?;
    host.stop().await?;

    let lines = host.logs().lines();
    let mut on_path = 0;
    let mut outcomes = BTreeSet::new();
    for line in &lines {
        let parsed: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let fields = parsed.as_object().context("an object")?;
        if fields.contains_key("event_key") {
            on_path += 1;
            outcomes.extend(fields.get("outcome").and_then(Value::as_str).map(str::to_owned));
            for name in fields.keys() {
                ensure!(FIELDS.contains(&name.as_str()), "`{name}` has no place on the path: {line}");
            }
        } else if fields.contains_key("plugin") || fields.contains_key("source") || fields.contains_key("endpoint") {
            for name in fields.keys() {
                let known = FIELDS.contains(&name.as_str()) || OTHER_FIELDS.contains(&name.as_str());
                ensure!(known, "`{name}` is in no list: {line}");
            }
        }
        for name in ["timestamp", "level", "message"] {
            ensure!(fields.contains_key(name), "no `{name}`: {line}");
        }
    }
    ensure!(on_path > 20, "only {on_path} lines on the path");
    assert_eq!(Vec::from_iter(outcomes), ["dead", "delivered", "produced", "retrying"]);
    for letter in &dead {
        let reason = format!("\"reason\":\"{}\"", letter.reason);
        ensure!(lines.iter().any(|line| line.contains(&reason)), "the log does not tell of {letter:?}");
    }
    for mark in [BODY_MARK, BEARER] {
        let told = lines.iter().find(|line| line.contains(mark));
        ensure!(told.is_none(), "`{mark}` is in the log: {told:?}");
    }
    host.forget_logs();
    Ok(())
}

#[tokio::test]
async fn a_paused_plugin_s_events_are_accepted_and_wait_over_restarts() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host =
        TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.start().await?;
    source.publish_orders(0..2).await?;
    endpoint.wait_for("the first", DEADLINE, |log| log.ids() == 2).await?;
    let said = host.command(&["plugin", "pause", "orders"]).await?.expect_code(0)?.stdout;
    ensure!(said.starts_with("plugin `orders` is paused"), "{said}");
    source.publish_orders(2..5).await?;
    host.wait_runs("orders", "parked", 3, DEADLINE).await?;
    host.wait_metric("wirehook_plugin_paused", "plugin=\"orders\"", 1.0, DEADLINE).await?;
    host.wait_metric("wirehook_runs_waiting", "state=\"parked\"", 3.0, DEADLINE).await?;
    let (status, text) = host.readiness().await?;
    ensure!(status == 200 && text.contains("\"state\":\"1 paused\""), "{status} {text}");

    host.restart().await?;
    source.publish_orders([5]).await?;
    host.wait_runs("orders", "parked", 4, DEADLINE).await?;
    let listed: Vec<Value> = host.json(&["plugin", "list"]).await?.objects()?;
    assert_eq!(listed[0]["paused"], true);
    let status = host.json(&["status"]).await?.object()?;
    assert_eq!(status["host"]["plugins"][0]["state"], "paused");
    assert_eq!(status["store"]["pauses"][0]["name"], "orders");
    // Paused and resumed while no host runs, it is as the store says at the next start.
    host.stop().await?;
    let again = host.json(&["plugin", "pause", "orders"]).await?.object()?;
    assert_eq!((&again["paused"], &again["changed"]), (&json!(true), &json!(false)));
    host.command(&["plugin", "resume", "orders"]).await?.expect_code(0)?;
    assert_eq!(endpoint.look(|log| log.ids()), 2, "nothing was sent while it was paused");
    host.start().await?;
    endpoint.wait_for("all six", DEADLINE, |log| log.ids() == 6).await?;
    host.command(&["plugin", "pause", "nobody"])
        .await?
        .expect_code(1)?
        .expect_said(&["there is no plugin `nobody`"])?;

    // A new build that comes meanwhile waits too, and events are accepted for its subjects.
    host.command(&["plugin", "pause", "orders"]).await?.expect_code(0)?;
    let echo = PluginFile::hostile("echo")?.subscribed("fraiseql.note.*", "orders");
    host.folder.put_plugin(&PluginFile { name: "orders".to_owned(), ..echo })?;
    host.logs().wait_for("a new build of the plugin is at work", DEADLINE).await?;
    source.post(marked("note", 9)).await?;
    host.wait_runs("orders", "parked", 1, DEADLINE).await?;
    host.command(&["plugin", "resume", "orders"]).await?.expect_code(0)?;
    endpoint.wait_for("the seventh", DEADLINE, |log| log.ids() == 7).await?;
    host.expect_all_accounted().await?;
    host.stop().await
}

#[tokio::test]
async fn a_paused_jetstream_source_leaves_its_messages_at_the_bus() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host =
        TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "").plugin(orders()?).build()?;
    host.start().await?;
    publisher.publish_orders(0..2).await?;
    endpoint.wait_for("the first", DEADLINE, |log| log.ids() == 2).await?;
    host.command(&["source", "pause", "bus"]).await?.expect_code(0)?;
    publisher.publish_orders(2..5).await?;
    let source = host.json(&["source", "list"]).await?.object()?;
    assert_eq!(
        (&source["state"], &source["kind"], &source["keeps"]),
        (&json!("paused"), &json!("jetstream"), &json!(true))
    );
    ensure!(source["paused_since"].is_number(), "{source}");
    let (status, text) = host.readiness().await?;
    ensure!(status == 200 && text.contains("\"state\":\"paused\""), "a paused source is no reason for 503: {text}");
    host.wait_metric("wirehook_source_paused", "source=\"bus\"", 1.0, DEADLINE).await?;
    assert_eq!(host.metric("wirehook_source_connected", "source=\"bus\"").await?, 0.0);

    host.restart().await?;
    assert_eq!(host.json(&["source", "list"]).await?.object()?["state"], "paused", "a pause outlasts a restart");
    assert_eq!(host.metric("wirehook_events_accepted_total", "").await?, 0.0);
    let text = host.command(&["status"]).await?.expect_code(0)?.stdout;
    ensure!(
        text.lines().any(|line| line.starts_with("bus") && line.contains("jetstream") && line.contains("paused")),
        "{text}"
    );
    let said = host.command(&["source", "resume", "bus"]).await?.expect_code(0)?.stdout;
    ensure!(said.starts_with("source `bus` is resumed"), "{said}");
    endpoint.wait_for("what waited at the bus", DEADLINE, |log| log.ids() == 5).await?;
    assert_eq!(host.json(&["source", "resume", "bus"]).await?.object()?["changed"], false);
    host.command(&["source", "pause", "nobody"]).await?.expect_code(1)?.expect_said(&["`nobody`", "there are: bus"])?;
    host.stop().await
}

#[tokio::test]
async fn a_source_whose_bus_keeps_nothing_is_paused_only_where_that_is_meant() -> Result<()> {
    let nats = NatsServer::start().await?;
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .nats(&nats)
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    for (name, said) in [("bus", "nats keeps nothing"), ("web", "its senders are refused")] {
        host.command(&["source", "pause", name]).await?.expect_code(2)?.expect_said(&[said, "--yes"])?;
        assert_eq!(host.metric("wirehook_source_paused", &format!("source=\"{name}\"")).await?, 0.0);
        host.command(&["source", "pause", name, "--yes"]).await?.expect_code(0)?;
    }
    ensure!(source.request("{}").send().await.is_err(), "a paused http source does not listen");
    // Its place is free for somebody else, and is taken again.
    let other = std::net::TcpListener::bind(("127.0.0.1", source.port))?;
    host.command(&["source", "resume", "web"]).await?.expect_code(0)?;
    host.logs().wait_for("the source failed and tries again", DEADLINE).await?;
    drop(other);
    wait::until("the source to listen again", DEADLINE, async || {
        Ok(source.publish_orders([1]).await.is_ok().then_some(()))
    })
    .await?;
    endpoint.wait_for("the webhook", DEADLINE, |log| log.ids() == 1).await?;
    host.command(&["source", "resume", "bus"]).await?.expect_code(0)?;
    host.wait_metric("wirehook_source_connected", "source=\"bus\"", 1.0, DEADLINE).await?;
    let client = nats.client().await?;
    let event = order_created(2);
    client.publish(event.subject, event.body).await?;
    client.flush().await?;
    endpoint.wait_for("the webhook from the bus", DEADLINE, |log| log.ids() == 2).await?;
    host.stop().await
}
