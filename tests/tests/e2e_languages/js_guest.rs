//! What a plugin in TypeScript sees: what JavaScript's libraries expect, with time and chance of the event, and nothing
//! of the machine.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use wirehook::clock::SystemClock;
use wirehook::event::{Event, EventKey};
use wirehook::plugin::compiler::Compiler;
use wirehook::plugin::{Engine, Manifest, Plugin};
use wirehook_tests::artifacts;

/// Built from `tests/guests/js/js_probe`.
const PROBE: &str = "js_probe";

fn probe(folder: &Path) -> Result<Plugin> {
    let engine: Arc<Engine> = Engine::new(1, &folder.join("compiled"), Compiler::InProcess, SystemClock::shared())?;
    let wasm = std::fs::read(artifacts::hostile_guest(PROBE)?)?;
    // A debug build of the engine, on a machine that is busy.
    let manifest =
        Manifest::parse(Path::new("js_probe.toml"), "[config]\ncurrency = \"EUR\"\n[limits]\ndeadline = \"10s\"\n")?;
    Ok(Plugin::load(&engine, PROBE, &wasm, manifest)?)
}

fn event(key: u32, operation: &str, entity: &'static str) -> Event {
    Event {
        key: EventKey::new("bus", "id", key),
        source: "bus".into(),
        subject: format!("fraiseql.probe.{operation}"),
        entity_type: "probe".to_owned(),
        operation: operation.to_owned(),
        entity_id: Some("7".to_owned()),
        tenant_id: None,
        timestamp: Some("2026-03-02T14:00:00.250Z".to_owned()),
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

#[test]
fn what_libraries_expect_is_there_and_time_and_chance_are_the_events() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let probe = probe(folder.path())?;
    let good = r#"{"email": "ada@example.com", "total": 129.5}"#;
    let first = answer(&probe, &event(1, "created", good))?;
    assert_eq!(first["now"], "2026-03-02T14:00:00.250Z");
    assert_eq!(first["nowAgain"], 1_772_460_000_250_i64);
    assert_eq!(first["text"], "ö€😀");
    assert_eq!(first["url"], json!(["https://user@example.com:8443/b?x=1&y=%C3%B6#z", "8443", "ö"]));
    assert_eq!(first["copied"], true);
    assert_eq!(first["base64"], json!(["aGVsbG8=", "hello"]));
    assert_eq!(first["elapsed"], 0);
    assert_eq!(first["nodeThings"], json!(["undefined", "undefined"]));
    assert_eq!(first["currency"], "EUR");
    assert_eq!(first["libraries"], json!({"issues": [], "tags": [], "due": "2026-04-01 Wednesday"}));
    let uuid = first["uuid"].as_str().unwrap_or_default();
    ensure!(uuid.len() == 36 && uuid.as_bytes()[14] == b'4', "{uuid}");

    assert_eq!(answer(&probe, &event(1, "created", good))?, first, "the same event, the same result");
    let other = answer(&probe, &event(2, "created", r#"{"email": "ada", "total": -1}"#))?;
    for name in ["random", "uuid", "bytes"] {
        assert_ne!(other[name], first[name], "{name}");
    }
    assert_eq!(other["calls"], 1, "each event has an instance of its own");
    assert_eq!(other["libraries"]["issues"], json!(["email", "total"]));
    Ok(())
}

#[test]
fn numbers_and_texts_arrive_as_they_were_sent() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let probe = probe(folder.path())?;
    let body = |operation, entity: &[u8]| -> Result<Bytes> {
        let event = Event { entity: Some(Bytes::copy_from_slice(entity)), ..event(1, operation, "") };
        Ok(probe.call(&event, 1).result?.first().context("a webhook")?.body.clone())
    };
    let exact = r#"{"a":12345678901234567890.10,"b":[1.0,-2e3,0],"c":"\u0000n1","d":"x\"\u0000n7","e":"ö€😀"}"#;
    assert_eq!(body("exact", exact.as_bytes())?, exact);
    let long = "ä%".repeat(5000);
    let well_formed = ["", "plain", "ö€😀\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}", &long].map(str::as_bytes);
    let broken: [&[u8]; 6] =
        [b"a\xff", b"\xc3(", b"\xe2\x82z", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80%41"];
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let deep = Event { entity: Some(Bytes::from(deep)), ..event(1, "exact", "") };
    let refused = format!("{:?}", probe.call(&deep, 1).result);
    ensure!(refused.starts_with("Err(Reject") && refused.contains("nested deeper than 127 levels"), "{refused}");
    for bytes in well_formed.into_iter().chain(broken) {
        assert_eq!(String::from_utf8(body("text", bytes)?.to_vec())?, String::from_utf8_lossy(bytes));
    }
    Ok(())
}

#[test]
fn an_uncaught_exception_is_a_rejection_that_names_the_line_of_the_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let probe = probe(folder.path())?;
    let failure = |operation| match probe.call(&event(1, operation, "{}"), 1).result {
        Ok(webhooks) => format!("{webhooks:?}"),
        Err(error) => format!("{error:?} {error}"),
    };
    let uncaught = failure("deleted");
    for part in ["Reject", "uncaught TypeError", "at charge (src/broken.ts:4:", "at onEvent (src/plugin.ts:"] {
        ensure!(uncaught.contains(part), "no {part} in {uncaught}");
    }
    ensure!(!uncaught.contains("wirehook:"), "frames of the SDK say nothing: {uncaught}");
    let text = failure("custom");
    ensure!(text.contains("Reject") && text.contains("uncaught: a text"), "{text}");
    let retried = failure("updated");
    ensure!(retried.contains("Retry") && retried.contains("not yet"), "{retried}");
    Ok(())
}
