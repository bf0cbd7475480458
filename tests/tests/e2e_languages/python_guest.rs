//! What a plugin in Python sees: time and randomness of the event, and nothing of the machine.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use wirehook::clock::SystemClock;
use wirehook::event::{Event, EventKey};
use wirehook::plugin::compiler::Compiler;
use wirehook::plugin::{CallFailure, Engine, Manifest, Plugin};
use wirehook_tests::artifacts;

/// Built from `tests/guests/python/py_probe`.
const PROBE: &str = "py_probe";

fn event(key: u32, timestamp: Option<&str>, entity: &'static str) -> Event {
    Event {
        key: EventKey::new("bus", "id", key),
        source: "bus".into(),
        subject: "fraiseql.probe.created".to_owned(),
        entity_type: "probe".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some("7".to_owned()),
        tenant_id: None,
        timestamp: timestamp.map(str::to_owned),
        entity: Some(Bytes::from_static(entity.as_bytes())),
        previous: None,
        attributes: Vec::new(),
        body_digest: [0; 16],
    }
}

fn answer(plugin: &Plugin, event: &Event) -> Result<Value> {
    let webhooks = plugin.call(event, 1).result?;
    Ok(serde_json::from_slice(&webhooks.first().context("a webhook")?.body)?)
}

fn reason(plugin: &Plugin, wish: &'static str) -> Result<String> {
    match plugin.call(&event(1, None, wish), 1).result {
        Err(CallFailure::Reject(reason)) => Ok(reason),
        other => anyhow::bail!("{other:?}"),
    }
}

#[test]
fn time_and_randomness_are_the_events_and_nothing_else_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wasm = std::fs::read(artifacts::hostile_guest(PROBE)?)?;
    let engine = Engine::new(1, &folder.path().join("compiled"), Compiler::InProcess, SystemClock::shared())?;
    let mut manifest = Manifest::default();
    // A build without optimisation is slow, and none of this is about time.
    manifest.limits.deadline *= 10;
    let probe = Plugin::load(&engine, PROBE, &wasm, manifest)?;

    let first = answer(&probe, &event(1, Some("2026-03-02T14:00:00.25Z"), "{}"))?;
    assert_eq!(first["now"], "2026-03-02T14:00:00.250000+00:00");
    assert_eq!((&first["today"], &first["local"]), (&json!("2026-03-02"), &json!("2026-03-02 14:00:00")));
    assert_eq!(first["time"], 1_772_460_000.25);
    assert_eq!((&first["is_datetime"], &first["went_on"]), (&json!(true), &json!(true)));
    assert_eq!((&first["variables"], &first["config"]), (&json!(0), &json!("none")));
    assert_eq!(answer(&probe, &event(1, Some("2026-03-02T14:00:00.25Z"), "{}"))?, first, "the same event");
    assert_eq!(first["calls"], 1, "each event has an instance of its own");

    let other = answer(&probe, &event(2, None, "{}"))?;
    assert_eq!(other["now"], "1970-01-01T00:00:00+00:00", "without a timestamp");
    for name in ["secret", "uuid", "urandom"] {
        assert_ne!(other[name], first[name], "{name}");
    }
    for index in 0..3 {
        assert_ne!(other["random"][index], first["random"][index], "{index}");
    }

    let raised = reason(&probe, r#"{"wish": "raise"}"#)?;
    ensure!(raised.starts_with("KeyError: 'total'\n  at plugin.py:"), "{raised}");
    ensure!(raised.contains("in deeper: return order[\"total\"]") && raised.contains("in on_event"), "{raised}");
    let slept = reason(&probe, r#"{"wish": "sleep"}"#)?;
    ensure!(slept.contains("a plugin can't sleep"), "{slept}");
    for (wish, said) in [("zone", "no data for the time zone 'Europe/Paris'"), ("import", "colorsys was not imported")]
    {
        let said_so = reason(&probe, Box::leak(format!(r#"{{"wish": "{wish}"}}"#).into_boxed_str()))?;
        ensure!(said_so.contains(said) && said_so.contains("at the top of"), "{said_so}");
    }
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let deep = reason(&probe, Box::leak(deep.into_boxed_str()))?;
    assert_eq!(deep, "the event's `entity` is nested deeper than 127 levels");
    let opened = probe.call(&event(1, None, r#"{"wish": "open"}"#), 1).result;
    ensure!(matches!(opened, Err(CallFailure::Trap(_))), "there are no files: {opened:?}");
    Ok(())
}
