//! A dead letter becomes a recorded event, and the event a regression test.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wirehook_tests::artifacts;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// A host with one dead delivery, and its id.
async fn bad_night() -> Result<(TestHost, FakeEndpoint, String)> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::always(Answer::text(422, "no such customer"))).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    source.publish_orders(3..4).await?;
    let letters = host.wait_dead_letters(1, DEADLINE).await?;
    Ok((host, endpoint, letters[0].id.to_string()))
}

#[tokio::test]
async fn a_dead_letter_becomes_a_test_that_tells_when_the_plugin_changes() -> Result<()> {
    let (host, _endpoint, id) = bad_night().await?;
    let folder = tempfile::tempdir()?;
    let events = folder.path().to_str().context("UTF-8")?;
    let export = ["dead-letters", "export", &id, "--fixture", events, "--redact", "/entity/customer_email"];
    host.command(&export).await?.expect_code(0)?;
    let file = folder.path().join(format!("dead_letter_{id}.json"));
    let text = std::fs::read_to_string(&file)?;
    ensure!(!text.contains("customer-3@") && text.contains("\"customer_email\": \"redacted\""), "{text}");
    ensure!(text.contains("\"total\": 129.5"), "{text}");
    host.command(&export).await?.expect_code(1)?.expect_said(&["can't be written"])?;

    let wasm = artifacts::example_plugin("orders")?;
    let test = |more: &[&'static str]| {
        let arguments = [&["plugin", "test", wasm.to_str().unwrap_or_default(), "--events", events], more].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let host = &host;
        async move { host.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    test(&[]).await?.expect_code(1)?.expect_said(&["--update"])?;
    test(&["--update"]).await?.expect_code(0)?;
    let report = test(&["--json"]).await?.expect_code(0)?.object()?;
    assert_eq!((&report["result"], &report["outcome"]), (&"ok".into(), &"produced".into()), "{report}");
    let usage = &report["usage"];
    let bytes = |name: &str| usage[name].as_u64().unwrap_or_default();
    ensure!(usage["duration_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{usage}");
    ensure!(bytes("instance_bytes") >= 64 << 10 && bytes("memory_peak_bytes") >= bytes("instance_bytes"), "{usage}");

    change(&file.with_extension("webhooks.json"), "order.created", "order.made")?;
    let different = test(&[]).await?.expect_code(1)?;
    for line in ["-         \"event\": \"order.made\",", "+         \"event\": \"order.created\","] {
        ensure!(different.stdout.contains(line), "no `{line}` in {}", different.stdout);
    }
    Ok(())
}

#[tokio::test]
async fn a_result_that_can_not_be_indented_is_shown_as_text_and_the_rest_is_tried() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, total: &str| {
        let event = format!(
            r#"{{"event": "fraiseql.order.created", "entity_type": "order", "operation": "created", "entity_id": "1",
            "entity": {{"customer_email": "a@b", "total": {total}}}, "timestamp": "2026-03-02T14:00:00Z"}}"#
        );
        std::fs::write(folder.path().join(name), event)
    };
    write("a.json", &format!("{}1.50{}", "[".repeat(5_000), "]".repeat(5_000)))?;
    write("b.json", r#"{"\ud800": 1.50}"#)?;
    write("c.json", "1.50")?;
    std::fs::write(folder.path().join("d.json"), "no JSON")?;
    std::fs::create_dir(folder.path().join("c.webhooks.json"))?;
    let (host, wasm) = (TestHost::builder().build()?, artifacts::example_plugin("orders")?);
    let (wasm, events) = (wasm.to_str().context("UTF-8")?, folder.path().to_str().context("UTF-8")?);
    let test = ["plugin", "test", wasm, "--events", events];
    let tried = host.command(&[&test[..], &["--update"]].concat()).await?.expect_code(1)?;
    for line in ["updated    a: produced", "updated    b: produced", "unreadable c: ", "unreadable d: "] {
        ensure!(tried.stdout.contains(line), "no `{line}` in {}", tried.stdout);
    }
    std::fs::remove_dir(folder.path().join("c.webhooks.json"))?;
    std::fs::remove_file(folder.path().join("d.json"))?;
    host.command(&[&test[..], &["--update"]].concat()).await?.expect_code(0)?;
    host.command(&test).await?.expect_code(0)?;
    let deep = std::fs::read_to_string(folder.path().join("a.webhooks.json"))?;
    ensure!(deep.contains("\"body_text\": \"{\\\"event") && deep.contains("[1.50]"), "{deep}");
    Ok(())
}

#[tokio::test]
async fn a_redaction_that_is_not_certain_writes_nothing() -> Result<()> {
    let (mut host, _endpoint, id) = bad_night().await?;
    host.stop().await?;
    let folder = tempfile::tempdir()?;
    let events = folder.path().join("events");
    let events = events.to_str().context("UTF-8")?;
    // The entity's id is the event's, too: redacted in one place it would still be in the other.
    for (path, said) in [("/entity/email", "nothing is at `/entity/email`"), ("/entity/id", "still at /entity_id")] {
        let export = ["dead-letters", "export", &id, "--fixture", events, "--redact", path];
        host.command(&export).await?.expect_code(2)?.expect_said(&[said])?;
        ensure!(!Path::new(events).exists(), "something was written");
    }
    host.command(&["dead-letters", "export", "999", "--fixture", events])
        .await?
        .expect_code(1)?
        .expect_said(&["999"])?;
    Ok(())
}

#[tokio::test]
async fn every_way_to_end_has_its_golden_file() -> Result<()> {
    let host = TestHost::builder().build()?;
    let folder = tempfile::tempdir()?;
    std::fs::copy(artifacts::fixture("fraiseql/page_created.json"), folder.path().join("unused.txt"))?;
    std::fs::write(folder.path().join("shop.orders.json"), "{\"a\": 1}")?;
    let events = folder.path().to_str().context("UTF-8")?;
    for (guest, outcome, reason) in [
        ("filters", "filtered", Value::Null),
        ("rejects", "dead", "plugin_rejected".into()),
        ("retry_always", "retry", Value::Null),
        ("trap", "dead", "plugin_trap".into()),
        ("loop_forever", "dead", "plugin_deadline".into()),
        ("reserved_header", "dead", "header_reserved".into()),
        ("unknown_endpoint", "dead", "endpoint_unknown".into()),
    ] {
        let wasm = artifacts::hostile_guest(guest)?;
        let wasm = wasm.to_str().context("UTF-8")?;
        host.command(&["plugin", "test", wasm, "--events", events, "--update"]).await?.expect_code(0)?;
        let golden = std::fs::read_to_string(folder.path().join("shop.orders.webhooks.json"))?;
        let golden: Value = serde_json::from_str(&golden)?;
        assert_eq!((&golden["outcome"], &golden["reason"]), (&outcome.into(), &reason), "{guest}: {golden}");
        host.command(&["plugin", "test", wasm, "--events", events]).await?.expect_code(0)?;
    }
    let orders = artifacts::example_plugin("orders")?;
    let orders = orders.to_str().context("UTF-8")?;
    let output = host.command(&["plugin", "test", orders, "--events", events, "--json"]).await?.expect_code(1)?;
    assert_eq!(output.object()?["outcome"], "unsubscribed", "its sidecar has another subject");
    Ok(())
}

fn change(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    ensure!(text.contains(from), "{text}");
    Ok(std::fs::write(file, text.replace(from, to))?)
}

/// What is compiled for a command is there for the next one: the second run reads the entry that the first one wrote.
#[tokio::test]
async fn commands_keep_what_they_compiled_for_the_next_one() -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let (mut host, _endpoint, id) = bad_night().await?;
    let folder = tempfile::tempdir()?;
    let events = folder.path().to_str().context("UTF-8")?;
    host.command(&["dead-letters", "export", &id, "--fixture", events]).await?.expect_code(0)?;
    host.stop().await?;
    let wasm = artifacts::example_plugin("orders")?;
    let wasm = wasm.to_str().context("UTF-8")?;
    let kept = host.store_path().with_file_name("cache").join("wirehook").join("compiled");
    host.command(&["plugin", "inspect", wasm]).await?.expect_code(0)?;
    host.command(&["--no-cache", "plugin", "test", wasm, "--events", events, "--update"]).await?.expect_code(0)?;
    let entries = || -> Result<Vec<(u64, u64)>> {
        let files = std::fs::read_dir(&kept)?.map(|file| file.and_then(|file| file.metadata()));
        let files = files.collect::<std::io::Result<Vec<_>>>()?;
        Ok(files.iter().map(|file| (file.ino(), file.len())).collect())
    };
    let inspected = entries()?;
    ensure!(inspected.iter().all(|(_, bytes)| *bytes < 1 << 20), "inspecting compiled the plugin: {inspected:?}");
    host.command(&["plugin", "test", wasm, "--events", events]).await?.expect_code(0)?;
    let first = entries()?;
    ensure!(first.len() == 2 && inspected.len() == 1, "{inspected:?}, then {first:?}");
    ensure!(std::fs::metadata(&kept)?.permissions().mode() & 0o777 == 0o700, "others may read it");
    host.command(&["plugin", "test", wasm, "--events", events]).await?.expect_code(0)?;
    host.command(&["check"]).await?.expect_code(0)?;
    ensure!(entries()? == first, "the same plugin was compiled again");

    // A folder that others could have written into is not trusted: what is in it goes, and is compiled anew.
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o777))?;
    host.command(&["plugin", "test", wasm, "--events", events]).await?.expect_code(0)?;
    ensure!(std::fs::metadata(&kept)?.permissions().mode() & 0o777 == 0o700, "others may still write");
    ensure!(entries()?.len() == 1, "what others could have written is still there: {:?}", entries()?);
    Ok(())
}
