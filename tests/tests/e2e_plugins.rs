//! Plugins that misbehave, go missing or can't be loaded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wirehook_tests::events::page_event;
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

/// A broken deadline is tried again after 1 s and after 10 s; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(90);

/// Hostile guests and what becomes of their event.
const REASONS: &[(&str, &str)] = &[
    ("loop_forever", "plugin_deadline"),
    ("memory_hog", "plugin_memory"),
    ("trap", "plugin_trap"),
    ("output_flood", "plugin_output"),
    ("reserved_header", "header_reserved"),
    ("unknown_endpoint", "endpoint_unknown"),
    ("retry_always", "plugin_retries_exhausted"),
    ("rejects", "plugin_rejected"),
    ("output_huge", "plugin_output"),
    ("duplicate_key", "plugin_output"),
    ("header_injection", "plugin_output"),
    ("panics", "plugin_trap"),
    ("stack_overflow", "plugin_trap"),
    ("bad_list", "plugin_trap"),
    ("bad_pointer", "plugin_trap"),
    ("bad_utf8", "plugin_trap"),
    ("sleeper", "plugin_deadline"),
];

/// Floods of logs are cut; the event is not.
const LOG_FLOODS: &[&str] = &["log_flood", "stdout_flood"];

/// What the host may log for one event's flood: the budget of bytes, and as much again for the envelope of each line.
const FLOOD_BYTES_MAX: usize = 64 << 10;

struct Scene {
    publisher: StreamPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
    _nats: NatsServer,
}

/// JetStream, one endpoint and `plugins`; not started.
async fn scene(plugins: Vec<PluginFile>) -> Result<Scene> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let builder = TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "");
    let host = plugins.into_iter().fold(builder, |builder, plugin| builder.plugin(plugin)).build()?;
    Ok(Scene { publisher, endpoint, host, _nats: nats })
}

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

/// A hostile guest with a subject of its own.
fn guest(name: &str) -> Result<PluginFile> {
    let sidecar = format!(
        "subjects = [\"fraiseql.{name}.*\"]\nendpoints = [\"orders\"]\n\
         [retry]\nmax_attempts = 3\ninitial_delay = \"50ms\"\n"
    );
    Ok(PluginFile::hostile(name)?.with_sidecar(&sidecar))
}

#[tokio::test]
async fn hostile_plugins_die_by_name_while_the_other_plugin_s_webhooks_arrive() -> Result<()> {
    let mut plugins = vec![orders()?];
    for (name, _) in REASONS {
        plugins.push(guest(name)?);
    }
    let Scene { publisher, endpoint, mut host, _nats } = scene(plugins).await?;
    host.start().await?;
    for (number, (name, _)) in REASONS.iter().enumerate() {
        publisher.publish(page_event(name, "created", number, &json!({}))).await?;
    }
    publisher.publish_orders(0..300).await?;
    endpoint.wait_for("the orders' webhooks", DEADLINE, |log| log.ids() == 300).await?;
    let early = host.dead_letters().await?;
    ensure!(early.iter().all(|dead| dead.reason != "plugin_deadline"), "the orders waited for the loop: {early:?}");

    let dead = host.wait_dead_letters(REASONS.len(), DEADLINE).await?;
    for (name, reason) in REASONS {
        let letter = dead.iter().find(|dead| dead.plugin.as_deref() == Some(name));
        let letter = letter.with_context(|| format!("{name} left no dead letter: {dead:?}"))?;
        assert_eq!((letter.reason.as_str(), letter.kind.as_str()), (*reason, "run"), "{name}: {}", letter.detail);
        ensure!(!letter.detail.is_empty(), "{name}'s dead letter says nothing");
    }
    let tries = |name: &str| dead.iter().find(|dead| dead.plugin.as_deref() == Some(name)).map(|dead| dead.attempts);
    assert_eq!([tries("loop_forever"), tries("retry_always"), tries("trap")], [Some(3), Some(3), Some(1)]);
    assert_eq!(endpoint.look(|log| log.ids()), 300, "no hostile plugin's webhook was sent");
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_flood_of_logs_is_cut_and_the_webhook_arrives() -> Result<()> {
    for name in LOG_FLOODS {
        let mut flooder = guest(name)?;
        // A host without optimisation takes its time over 16 MiB.
        flooder.sidecar = flooder.sidecar.map(|sidecar| sidecar + "[limits]\ndeadline = \"10s\"\n");
        let nats = NatsServer::start().await?;
        let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
        let endpoint = FakeEndpoint::start(Script::ok()).await?;
        let builder = TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "");
        let mut host = builder.plugin(flooder).variable("WIREHOOK_LOG", "info,plugin=debug").build()?;
        host.start().await?;
        publisher.publish(page_event(name, "created", 0, &json!({}))).await?;
        endpoint.wait_for("the flooding plugin's webhook", DEADLINE, |log| log.ids() == 1).await?;
        host.stop().await?;
        let flood: usize = host.logs().lines().iter().filter(|line| line.contains("xxxx")).map(String::len).sum();
        ensure!((1..=FLOOD_BYTES_MAX).contains(&flood), "{name} made the host log {flood} bytes");
    }
    Ok(())
}

#[tokio::test]
async fn a_plugin_reaches_nothing_of_the_machine() -> Result<()> {
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![guest("wasi_probe")?]).await?;
    host.start().await?;
    let target = endpoint.url().trim_start_matches("http://").trim_end_matches("/hook").to_owned();
    let file = host.folder.settings_path();
    publisher.publish(page_event("wasi_probe", "created", 0, &json!({"connect": target, "file": file}))).await?;
    endpoint.wait_for("the probe's report", DEADLINE, |log| log.ids() == 1).await?;
    let report: serde_json::Map<String, Value> = serde_json::from_slice(&endpoint.requests()[0].body)?;
    ensure!(report.len() >= 10, "the probe tried too little: {report:?}");
    for (way, outcome) in report {
        ensure!(outcome.as_str().is_some_and(|outcome| outcome.starts_with("refused")), "{way}: {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn a_webhook_s_id_follows_its_key_and_not_its_position() -> Result<()> {
    let script = Script::statuses(&[503, 200]);
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![guest("keyed")?]).await?;
    endpoint.set_script(script);
    host.start().await?;
    publisher.publish(page_event("keyed", "created", 0, &json!({"lines": ["a", "b", "c"]}))).await?;
    endpoint.wait_for("both attempts of three webhooks", DEADLINE, |log| log.all().len() == 6).await?;
    endpoint.look(|log| {
        ensure!(log.ids() == 3, "{} ids for three keys", log.ids());
        for request in log.all() {
            let same = log.of(request.webhook_id());
            ensure!(same.len() == 2 && same[0].body == same[1].body, "an id with two bodies: {same:?}");
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_plugin_that_asks_to_be_tried_again_is_told_the_attempt() -> Result<()> {
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![guest("retry_twice")?]).await?;
    host.start().await?;
    publisher.publish(page_event("retry_twice", "created", 0, &json!({}))).await?;
    endpoint.wait_for("the third try's webhook", DEADLINE, |log| log.ids() == 1).await?;
    assert_eq!(&endpoint.requests()[0].body[..], br#"{"attempt":3}"#);
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_loops_for_ever_slows_the_other_within_bounds() -> Result<()> {
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![orders()?, guest("loop_forever")?]).await?;
    host.start().await?;
    for number in 0..40 {
        publisher.publish(page_event("loop_forever", "created", number, &json!({}))).await?;
    }
    publisher.publish_orders(0..50).await?;
    endpoint.wait_for("the orders' webhooks", DEADLINE, |log| log.ids() == 50).await?;
    // 40 loops of 100 ms on every worker would be over before the orders if plugins were not shared fairly.
    let early = host.dead_letters().await?;
    ensure!(early.is_empty(), "the orders waited for the loops: {early:?}");
    Ok(())
}

#[tokio::test]
async fn a_removed_plugin_loses_nothing_when_it_is_put_back_while_the_host_runs() -> Result<()> {
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![orders()?]).await?;
    host.start().await?;
    publisher.publish_orders(0..50).await?;
    endpoint.wait_for("the first webhooks", DEADLINE, |log| log.ids() == 50).await?;

    host.stop().await?;
    host.folder.remove_plugin("orders")?;
    host.start().await?;
    publisher.publish_orders(50..100).await?;
    host.wait_runs("orders", "parked", 50, DEADLINE).await?;
    host.expect_all_accounted().await?;
    assert_eq!(endpoint.look(|log| log.ids()), 50);

    host.folder.put_plugin(&orders()?)?;
    endpoint.wait_for("the parked events' webhooks", DEADLINE, |log| log.ids() == 100).await?;
    publisher.publish_orders(100..110).await?;
    endpoint.wait_for("the later webhooks", DEADLINE, |log| log.ids() == 110).await?;
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_removed_plugin_loses_nothing_when_it_is_put_back_before_a_start() -> Result<()> {
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![orders()?]).await?;
    host.start().await?;
    host.stop().await?;
    host.folder.remove_plugin("orders")?;
    host.start().await?;
    publisher.publish_orders(0..50).await?;
    host.wait_runs("orders", "parked", 50, DEADLINE).await?;
    host.stop().await?;
    host.folder.put_plugin(&orders()?)?;
    host.start().await?;
    endpoint.wait_for("the parked events' webhooks", DEADLINE, |log| log.ids() == 50).await
}

#[tokio::test]
async fn a_plugin_removed_and_put_back_while_the_host_runs_loses_nothing() -> Result<()> {
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![orders()?]).await?;
    host.start().await?;
    for round in 0..3 {
        host.folder.remove_plugin("orders")?;
        publisher.publish_orders(round * 20..round * 20 + 10).await?;
        host.folder.put_plugin(&orders()?)?;
        publisher.publish_orders(round * 20 + 10..round * 20 + 20).await?;
    }
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 60).await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_bad_file_does_not_disturb_the_running_plugin_at_a_start_neither() -> Result<()> {
    let Scene { publisher, endpoint, mut host, _nats } = scene(vec![orders()?]).await?;
    host.start().await?;
    host.folder.put_plugin(&PluginFile::of_bytes("orders", b"this is not wasm"))?;
    publisher.publish_orders(0..20).await?;
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 20).await?;

    host.restart().await?;
    host.logs().wait_for("not WebAssembly", DEADLINE).await?;
    publisher.publish_orders(20..40).await?;
    endpoint.wait_for("the last good build's webhooks", DEADLINE, |log| log.ids() == 40).await?;
    host.expect_all_accounted().await
}

#[tokio::test]
async fn check_names_the_plugins_that_can_t_be_loaded_and_run_starts_all_the_same() -> Result<()> {
    let bad = [
        (PluginFile::of_bytes("not_wasm", b"this is not wasm"), "not_wasm"),
        (PluginFile::hostile("no_export")?, "no_export"),
        (PluginFile::hostile("wrong_world")?, "wrong_world"),
        (PluginFile::hostile("wrong_import")?, "somebody:rocket"),
        (PluginFile::hostile("wrong_types")?, "wrong_types"),
        (PluginFile::hostile("wrong_version")?, "9.0.0"),
        (PluginFile::hostile("bare_core")?, "bare_core"),
    ];
    for (plugin, name) in bad {
        let plugin = plugin.subscribed("fraiseql.other.*", "orders");
        let Scene { publisher, endpoint, mut host, _nats } = scene(vec![orders()?, plugin]).await?;
        let check = host.command(&["check"]).await?;
        ensure!(check.status.code() == Some(1), "check with {name} ended with {}: {}", check.status, check.stderr);
        let said = format!("{}{}", check.stdout, check.stderr);
        ensure!(said.contains(name), "check doesn't name {name}: {said}");
        host.start().await?;
        publisher.publish_orders(0..3).await?;
        endpoint.wait_for("the good plugin's webhooks", DEADLINE, |log| log.ids() == 3).await?;
        host.stop().await?;
    }
    Ok(())
}
