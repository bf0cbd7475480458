//! What a plugin asks for, what it is granted, and that the lesser holds on the whole path.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wirehook::plugin::digest;
use wirehook_tests::events::{self, page_event};
use wirehook_tests::fake_endpoint::{FakeEndpoint, RequestLog, Script};
use wirehook_tests::publisher::{HttpPublisher, answer};
use wirehook_tests::test_host::{PluginFile, TestHost};

/// A broken deadline is tried again after 1 s and after 10 s; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(90);

struct Scene {
    source: HttpPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
}

/// A host with `workers` and `plugin`, which is told `settings`; started.
async fn scene(plugin: PluginFile, workers: usize, settings: &str) -> Result<Scene> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .plugin_settings(&format!("workers = {workers}"))
        .settings(settings)
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(plugin)
        .build()?;
    host.start().await?;
    Ok(Scene { source, endpoint, host })
}

fn guest(name: &str, limits: &str) -> Result<PluginFile> {
    let sidecar = format!("subjects = [\"fraiseql.order.*\"]\nendpoints = [\"orders\"]\n{limits}");
    Ok(PluginFile::hostile(name)?.with_sidecar(&sidecar))
}

async fn publish(source: &HttpPublisher, number: usize, entity: &Value) -> Result<()> {
    // What gives the event its key.
    let request = source.request(page_event("order", "created", number, entity).body);
    let (status, text) = answer(request.header("Idempotency-Key", format!("event-{number}"))).await?;
    ensure!(status == 202, "the event was answered {status}: {text}");
    Ok(())
}

#[tokio::test]
async fn what_is_over_a_granted_limit_is_a_dead_letter_that_names_it() -> Result<()> {
    let check = async |name: &str, limits: &str, granted: &str, entity: Value, reason: &str, detail: &str| {
        let settings = format!("[[plugin]]\nname = {name:?}\n[plugin.limits]\n{granted}\n");
        let Scene { source, endpoint, mut host } = scene(guest(name, limits)?, 2, &settings).await?;
        publish(&source, 0, &entity).await?;
        let dead = host.wait_dead_letters(1, DEADLINE).await?;
        let dead = dead.first().context("a dead letter")?;
        ensure!(dead.reason == reason && dead.detail.contains(detail), "{name}: {} {}", dead.reason, dead.detail);
        assert_eq!(endpoint.look(RequestLog::ids), 0, "nothing of a refused result is sent");
        host.stop().await
    };
    let lines = json!({"lines": ["a", "b", "c"]});
    check("keyed", "", "webhooks = 2", lines, "plugin_output", "3 webhooks for one event; the limit is 2").await?;
    let text = json!({"note": "x".repeat(2_000)});
    let asks = "[limits]\nbody = \"2MiB\"\n";
    check("echo", asks, "body = \"2000B\"", text, "plugin_output", "in webhook 0; the limit is 2000").await?;
    let slow = "[limits]\ndeadline = \"5s\"\n[config]\nturns = \"20000000000\"\n";
    check("slow", slow, "deadline = \"20ms\"", json!({}), "plugin_deadline", "its deadline is 20 ms").await
}

/// The numbers that `remembers` gave, in the order of arrival.
fn numbers(log: &RequestLog) -> Vec<u64> {
    let number = |body: &[u8]| serde_json::from_slice::<Value>(body).ok()?["number"].as_u64();
    log.all().iter().filter_map(|request| number(&request.body)).collect()
}

/// One order after the other, each after the webhook of the one before.
async fn one_by_one(scene: &Scene, orders: std::ops::Range<usize>) -> Result<Vec<u64>> {
    let first = scene.endpoint.look(RequestLog::ids);
    for (sent, number) in orders.enumerate() {
        publish(&scene.source, number, &json!({})).await?;
        scene.endpoint.wait_for("an order's webhook", DEADLINE, |log| log.ids() > first + sent).await?;
    }
    Ok(scene.endpoint.look(|log| numbers(log).split_off(first)))
}

#[tokio::test]
async fn a_global_is_seen_by_the_next_event_only_where_reuse_is_asked_for_and_granted() -> Result<()> {
    let asks = "[limits]\nreuse = 3\n";
    let grants = "[[plugin]]\nname = \"remembers\"\n[plugin.limits]\nreuse = 100\n";
    let check = async |asks: &str, grants: &str, expected: &[u64]| {
        let mut scene = scene(guest("remembers", asks)?, 1, grants).await?;
        let seen = one_by_one(&scene, 0..expected.len()).await?;
        assert_eq!(seen, expected, "asked {asks:?}, granted {grants:?}");
        scene.host.expect_all_accounted().await?;
        scene.host.stop().await
    };
    check("", "", &[1, 1, 1]).await?;
    check(asks, "", &[1, 1, 1]).await?;
    check("", grants, &[1, 1, 1]).await?;
    check(asks, grants, &[1, 2, 3, 1, 2]).await
}

#[tokio::test]
async fn a_reused_instance_ends_with_a_trap_and_with_a_new_build() -> Result<()> {
    let grants = "[plugins.limits]\nreuse = 100\n";
    let asks = "[limits]\nreuse = 100\n";
    let mut scene = scene(guest("remembers", asks)?, 1, grants).await?;
    assert_eq!(one_by_one(&scene, 0..2).await?, [1, 2]);
    publish(&scene.source, 100, &json!({"note": "trap"})).await?;
    scene.host.wait_dead_letters(1, DEADLINE).await?;
    assert_eq!(one_by_one(&scene, 2..4).await?, [1, 2], "an instance that trapped is gone");

    scene.host.forget_logs();
    scene.host.folder.put_plugin(&guest("remembers", "[limits]\nreuse = 50\n")?)?;
    scene.host.logs().wait_for("a new build of the plugin is at work", DEADLINE).await?;
    assert_eq!(one_by_one(&scene, 4..6).await?, [1, 2], "a new build begins with instances of its own");
    scene.host.stop().await
}

/// Whatever the language keeps in memory, a reused instance gives what a fresh one gives.
#[tokio::test]
async fn examples_give_the_same_webhooks_in_a_reused_instance() -> Result<()> {
    const ORDERS: usize = 5;
    let bodies = async |name: &str, reuse: usize| -> Result<Vec<Vec<u8>>> {
        let sidecar = format!(
            "subjects = [\"fraiseql.order.*\"]\nendpoints = [\"orders\"]\n[limits]\nreuse = {reuse}\ndeadline = \"5s\"\n"
        );
        let plugin = PluginFile::example(name)?.with_sidecar(&sidecar);
        let Scene { source, endpoint, mut host } = scene(plugin, 1, "[plugins.limits]\nreuse = 100\n").await?;
        source.publish_orders(0..ORDERS).await?;
        endpoint.wait_for("the orders' webhooks", DEADLINE, |log| log.ids() == ORDERS).await?;
        host.expect_all_accounted().await?;
        host.stop().await?;
        let mut bodies: Vec<_> = endpoint.look(|log| log.all().iter().map(|request| request.body.to_vec()).collect());
        bodies.sort();
        Ok(bodies)
    };
    for name in ["orders", "orders-c", "orders-go"] {
        assert_eq!(bodies(name, 1).await?, bodies(name, 100).await?, "{name}");
    }
    Ok(())
}

/// One call at a time needs one instance, and that instance counts every event: a second would count from 1 again.
#[tokio::test]
async fn one_call_at_once_is_one_instance_for_all_events() -> Result<()> {
    const EVENTS: usize = 300;
    let limits = "[limits]\nreuse = 100000\n";
    let grants =
        "[plugins.limits]\nreuse = 100000\n[[plugin]]\nname = \"remembers\"\n[plugin.limits]\nconcurrency = 1\n";
    let Scene { source, endpoint, mut host } = scene(guest("remembers", limits)?, 4, grants).await?;
    let all = (0..EVENTS).map(|number| page_event("order", "created", number, &json!({})));
    let (status, text) = source.post(events::array(all)).await?;
    ensure!(status == 202, "the events were answered {status}: {text}");
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == EVENTS).await?;
    let mut seen = endpoint.look(numbers);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (1..=EVENTS as u64).collect::<Vec<_>>());
    host.expect_all_accounted().await?;
    host.stop().await
}

/// What std tells a plugin of time and randomness is the event's: another host, at another time, gives the same bytes.
#[tokio::test]
async fn the_same_event_gives_the_same_bytes() -> Result<()> {
    let body = async |limits: &str, before: usize| -> Result<Value> {
        let mut scene = scene(guest("event_time", limits)?, 1, "[plugins.limits]\nreuse = 100\n").await?;
        for number in 7 - before..=7 {
            publish(&scene.source, number, &json!({})).await?;
            let sent = number + before - 7;
            scene.endpoint.wait_for("a webhook", DEADLINE, |log| log.ids() > sent).await?;
        }
        let body = scene.endpoint.look(|log| log.all().last().map(|request| request.body.clone()));
        scene.host.stop().await?;
        Ok(serde_json::from_slice(&body.context("a webhook")?)?)
    };
    let fresh = body("", 0).await?;
    assert_eq!(fresh, body("", 0).await?);
    assert_eq!(fresh, body("", 1).await?, "whatever came before it");
    let reused = body("[limits]\nreuse = 100\n", 1).await?;
    for member in ["began_at_ms", "ended_at_ms", "slept_ns"] {
        assert_eq!(fresh[member], reused[member], "{member} in an instance that is reused");
    }
    let time = |member: &str| fresh[member].as_u64().with_context(|| format!("{member} in {fresh}"));
    assert_eq!(time("ended_at_ms")? - time("began_at_ms")?, 200);
    ensure!((200_000_000..210_000_000).contains(&time("slept_ns")?), "{fresh}");
    Ok(())
}

#[tokio::test]
async fn what_is_lessened_is_said() -> Result<()> {
    let settings = "[plugins.limits]\nwebhooks = 5\n";
    let Scene { mut host, .. } = scene(guest("keyed", "[limits]\nwebhooks = 10\n")?, 1, settings).await?;
    host.logs().wait_for("asks for more than it is granted", DEADLINE).await?;
    let plugins: Vec<Value> = host.json(&["plugin", "list"]).await?.expect_code(0)?.objects()?;
    let plugin = plugins.first().context("the plugin")?;
    assert_eq!((&plugin["limits"]["webhooks"], &plugin["limits_asked"]["webhooks"]), (&json!("5"), &json!("10")));
    assert_eq!(plugin["limits_lessened"], json!(["webhooks"]));
    host.command(&["check"]).await?.expect_code(0)?.expect_said(&["asks for webhooks 10, and has 5"])?;
    let status = host.command(&["status"]).await?.expect_code(0)?.stdout;
    ensure!(status.contains("keyed asks for webhooks 10, and has 5"), "{status}");
    host.stop().await
}

#[tokio::test]
async fn approve_says_what_changed_and_prints_what_admits_it() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let before = guest("remembers", "")?;
    let pinned = |sha256: &str| format!("[[plugin]]\nname = \"remembers\"\nsha256 = \"{sha256}\"\n");
    let host = TestHost::builder()
        .plugin_settings("admit = \"listed\"")
        .settings(&pinned(&digest(&before.wasm)))
        .endpoint("orders", &endpoint, "")
        .plugin(before)
        .build()?;
    host.command(&["check"]).await?.expect_code(0)?;

    // The next build is another plugin altogether, which asks for more.
    let mut next = guest("counter", "grants = [\"state\"]\n[limits]\nreuse = 100\nbody = \"2MiB\"\n")?;
    next.name = "remembers".to_owned();
    let elsewhere = tempfile::tempdir()?;
    let file = elsewhere.path().join("remembers.wasm");
    std::fs::write(&file, &next.wasm)?;
    std::fs::write(file.with_extension("toml"), next.sidecar.as_deref().unwrap_or_default())?;
    let file = file.to_str().context("a path of text")?;
    let config = host.folder.settings_path();
    let config = config.to_str().context("a path of text")?;
    host.command(&["plugin", "inspect", file]).await?.expect_code(0)?;
    let refused = host.command(&["--config", config, "plugin", "inspect", file]).await?.expect_code(1)?;
    refused.expect_said(&["the settings admit only"])?;

    let approved = host.json(&["plugin", "approve", file]).await?.expect_code(0)?.object()?;
    assert_eq!((&approved["approved_build_found"], &approved["admit"]), (&json!(true), &json!("listed")));
    let changes = approved["changes"].as_array().context("changes")?;
    let new = |what: &str| changes.iter().find(|change| change["what"] == what).map(|change| change["now"].clone());
    assert_eq!(new("import"), Some(json!("wirehook:plugin/state@0.1.0")));
    assert_eq!((new("grant"), new("limit body")), (Some(json!("state")), Some(json!("2MiB"))));
    let told = host.command(&["plugin", "approve", file]).await?.expect_code(0)?.stdout;
    ensure!(told.contains("put this in place of its [[plugin]]"), "{told}");

    let block = approved["block"].as_str().context("a block")?;
    let settings = host.folder.read_settings()?;
    let old = settings.find("[[plugin]]").context("the old block")?;
    let (kept, rest) = settings.split_at(old);
    let after = rest.find("[[endpoint]]").context("what follows the old block")?;
    host.folder.write_settings(&format!("{kept}{block}{}", &rest[after..]))?;
    host.folder.put_plugin(&next)?;
    host.command(&["check"]).await?.expect_code(0)?;
    let held = host.json(&["--config", config, "plugin", "inspect", file]).await?.expect_code(0)?.object()?;
    assert_eq!((&held["limits"]["reuse"], &held["limits_lessened"]), (&json!("100"), &json!([])));
    Ok(())
}
