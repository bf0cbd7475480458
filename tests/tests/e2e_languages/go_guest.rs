//! What a plugin in Go sees: time and randomness of the event, and nothing of the machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use wirehook::clock::SystemClock;
use wirehook::event::{Event, EventKey};
use wirehook::plugin::compiler::Compiler;
use wirehook::plugin::{Engine, Manifest, Plugin};
use wirehook_tests::artifacts;
use wirehook_tests::events::page_event;
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

/// For a dead letter; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Built from `tests/guests/go/go_probe`.
const PROBE: &str = "go_probe";

fn engine(folder: &Path) -> Result<Arc<Engine>> {
    Ok(Engine::new(1, &folder.join("compiled"), Compiler::InProcess, SystemClock::shared())?)
}

fn event(key: u32, timestamp: Option<&str>) -> Event {
    Event {
        key: EventKey::new("bus", "id", key),
        source: "bus".into(),
        subject: "fraiseql.probe.created".to_owned(),
        entity_type: "probe".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some("7".to_owned()),
        tenant_id: None,
        timestamp: timestamp.map(str::to_owned),
        entity: Some(Bytes::from_static(b"{}")),
        previous: None,
        attributes: Vec::new(),
        body_digest: [0; 16],
    }
}

fn answer(plugin: &Plugin, event: &Event) -> Result<Value> {
    let webhooks = plugin.call(event, 1).result?;
    Ok(serde_json::from_slice(&webhooks.first().context("a webhook")?.body)?)
}

#[test]
fn time_and_randomness_are_the_events_and_nothing_else_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wasm = std::fs::read(artifacts::hostile_guest(PROBE)?)?;
    let probe = Plugin::load(&engine(folder.path())?, PROBE, &wasm, Manifest::default())?;

    let first = answer(&probe, &event(1, Some("2026-03-02T14:00:00.25Z")))?;
    assert_eq!(first["now"], "2026-03-02T14:00:00.25Z");
    // Reading the clock that only goes on takes a microsecond of the sleep.
    let after_sleep = first["after_sleep"].as_str().unwrap_or_default();
    ensure!(after_sleep.starts_with("2026-03-02T14:01:00.2"), "{after_sleep}");
    assert_eq!(first["timed_out"], true);
    assert_eq!(first["sum"], 5050, "of a hundred goroutines");
    assert_eq!((&first["arguments"], &first["variables"]), (&json!(0), &json!(0)));
    ensure!(first["file"].as_str().is_some_and(|error| error.contains("/etc/passwd")), "{first}");
    assert_eq!(first["config"], "none");

    assert_eq!(answer(&probe, &event(1, Some("2026-03-02T14:00:00.25Z")))?, first, "the same event, the same result");
    let other = answer(&probe, &event(2, None))?;
    for name in ["rand_v1", "rand_v2", "crypto"] {
        assert_ne!(other[name], first[name], "{name}");
    }
    assert_eq!(other["now"], "1970-01-01T00:00:00Z", "without a timestamp");
    assert_eq!(other["calls"], 1, "each event has an instance of its own");
    for odd in ["yesterday", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z"] {
        assert_eq!(answer(&probe, &event(3, Some(odd)))?["now"], "1970-01-01T00:00:00Z", "{odd}");
    }
    Ok(())
}

#[tokio::test]
async fn a_panic_is_a_dead_letter_whose_place_is_in_the_log() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let probe = PluginFile::hostile(PROBE)?;
    let mut host = TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, "").plugin(probe).build()?;
    host.start().await?;
    for (number, operation) in ["created", "updated", "deleted", "custom"].into_iter().enumerate() {
        source.post(page_event("probe", operation, number, &json!({})).body.clone()).await?;
    }
    let mut dead = host.wait_dead_letters(3, DEADLINE).await?;
    dead.sort_by(|one, other| one.reason.cmp(&other.reason));
    let reasons: Vec<_> = dead.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["plugin_rejected", "plugin_retries_exhausted", "plugin_trap"]);
    ensure!(dead[0].detail.contains("no such probe"), "{}", dead[0].detail);
    ensure!(dead[2].detail.starts_with("panic: assignment to entry in nil map ("), "{}", dead[2].detail);
    ensure!(dead[1].detail.contains("probing: not yet"), "{}", dead[1].detail);

    endpoint.wait_for("the probe's webhook", DEADLINE, |log| log.ids() == 1).await?;
    let found: Value = serde_json::from_slice(&endpoint.requests()[0].body)?;
    assert_eq!(found["config"], "EUR");
    for line in [
        "panic: assignment to entry in nil map",
        "main.onEvent (",
        "main.go:",
        "probe 1",
        "probing subject=fraiseql.probe.created",
    ] {
        host.logs().wait_for(line, DEADLINE).await?;
    }
    ensure!(!host.logs().lines().iter().any(|line| line.contains("swallowed")), "what was printed is not logged");
    host.expect_all_accounted().await
}
