//! What operators do beside a running host with what was sent, waits or died: retry, discard, move, redrive, trace, purge.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wirehook::ops::Request;
use wirehook::ops::client::OpsClient;
use wirehook::store::ParkedFate;
use wirehook_tests::events;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher};
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(120);

/// For twenty thousand of anything, on a machine that does other things too.
const LONG_DEADLINE: Duration = Duration::from_secs(400);

/// Retries that no test waits for.
const RETRY_IN_AN_HOUR: &str =
    "[endpoint.retry]\ninitial_delay = \"1h\"\nmultiplier = 1.0\njitter = 0.0\nmax_attempts = 3";

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

struct Scene {
    source: HttpPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
}

/// A running host with one plugin and one endpoint, `extra` of it.
async fn scene(script: Script, extra: &str) -> Result<Scene> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(script).await?;
    let mut host =
        TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, extra).plugin(orders()?).build()?;
    host.start().await?;
    Ok(Scene { source, endpoint, host })
}

/// Deliveries by state, summed over the endpoints.
async fn deliveries(host: &TestHost) -> Result<BTreeMap<String, u64>> {
    let status = host.json(&["status"]).await?.object()?;
    let mut counts = BTreeMap::new();
    for row in status["store"]["deliveries"].as_array().context("the deliveries' counts")? {
        let state = row["state"].as_str().context("a state")?.to_owned();
        *counts.entry(state).or_default() += row["count"].as_u64().context("a count")?;
    }
    Ok(counts)
}

/// Both equations of guarantee 2 for orders with one delivery each: every event's run produced, and every delivery is in one
/// of these states.
async fn expect_deliveries(host: &TestHost, expected: &[(&str, u64)]) -> Result<()> {
    let counts = deliveries(host).await?;
    let expected: BTreeMap<_, _> = expected.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect();
    ensure!(counts == expected, "the deliveries are {counts:?}, not {expected:?}");
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_retry_now_beside_a_failing_endpoint_spends_the_budget_that_there_is() -> Result<()> {
    let Scene { source, endpoint, host } = scene(Script::always(Answer::text(503, "busy")), RETRY_IN_AN_HOUR).await?;
    source.publish_orders([1]).await?;
    endpoint.wait_for("the first attempt", DEADLINE, |log| log.all().len() == 1).await?;
    let id = endpoint.requests()[0].webhook_id().to_owned();
    host.wait_delivery(&id, "retrying", DEADLINE).await?;

    // While it is being sent, it is not sent a second time.
    endpoint.set_script(Script::always(Answer::text(503, "busy").after(Duration::from_secs(3))));
    let retry = ["deliveries", "retry", &id];
    let said = host.json(&retry).await?.object()?;
    assert_eq!((&said["retried"], &said["in_flight"]), (&1.into(), &0.into()));
    endpoint.wait_for("the second attempt", DEADLINE, |log| log.all().len() == 2).await?;
    let said = host.json(&retry).await?.object()?;
    assert_eq!((&said["retried"], &said["in_flight"]), (&0.into(), &1.into()));
    let waiting = wirehook_tests::wait::until("the second attempt to end", DEADLINE, async || {
        let delivery = host.delivery(&id).await?;
        Ok((delivery["attempts"] == 2).then_some(delivery))
    });
    assert_eq!(waiting.await?["state"], "retrying");
    assert_eq!(endpoint.requests().len(), 2, "one slot");

    // The third attempt is the budget's last, whoever asked for it.
    endpoint.set_script(Script::always(Answer::text(503, "busy")));
    host.command(&retry).await?.expect_code(0)?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.reason.as_str(), dead.attempts), ("attempts_exhausted", 3));
    host.command(&retry).await?.expect_code(1)?.expect_said(&["dead-letters redrive"])?;
    assert_eq!(endpoint.requests().len(), 3);

    // Each attempt is told whole, and of what build.
    let letter = host.json(&["dead-letters", "show", &dead.id.to_string()]).await?.object()?;
    let attempts = letter["attempts_made"].as_array().context("attempts")?;
    assert_eq!(attempts.len(), 3);
    for attempt in attempts {
        assert_eq!((&attempt["status"], &attempt["response"]), (&503.into(), &"busy".into()));
        ensure!(attempt["duration_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{attempt}");
    }
    ensure!(letter["plugin_digest"].as_str().is_some_and(|digest| digest.len() == 64), "{letter}");
    expect_deliveries(&host, &[("dead", 1)]).await
}

/// A bad release queued wrong webhooks: all but those that are being sent at that moment are given up.
#[tokio::test]
async fn twenty_thousand_waiting_deliveries_are_discarded_at_once() -> Result<()> {
    const ORDERS: u64 = 20_000;
    let Scene { source, mut endpoint, mut host } =
        scene(Script::always(Answer::Hang), "timeout = \"10m\"\nconcurrency = 4").await?;
    for first in (0..ORDERS as usize).step_by(1_000) {
        source.publish_orders(first..first + 1_000).await?;
    }
    host.wait_runs("orders", "produced", ORDERS, LONG_DEADLINE).await?;
    endpoint.wait_for("the hanging attempts", DEADLINE, |log| log.all().len() == 4).await?;
    let selection = ["--plugin", "orders", "--since", "1h"];
    let counted = host.json(&[&["deliveries", "discard", "--dry-run"], &selection[..]].concat()).await?;
    assert_eq!(counted.objects::<Value>()?.len(), 10_000, "a dry run lists what a list may");
    counted.expect_said(&["and 10000 more at most"])?;
    host.command(&[&["deliveries", "discard"], &selection[..]].concat())
        .await?
        .expect_code(2)?
        .expect_said(&["--yes"])?;

    let began = std::time::Instant::now();
    let said = host.json(&[&["deliveries", "discard", "--yes"], &selection[..]].concat()).await?.object()?;
    println!("{ORDERS} discarded in {:?}", began.elapsed());
    assert_eq!((&said["discarded"], &said["in_flight"]), (&(ORDERS - 4).into(), &4.into()));
    expect_deliveries(&host, &[("discarded", ORDERS - 4), ("pending", 4)]).await?;

    // What was being sent is sent again when its connection breaks; nothing else ever is.
    endpoint.hang_up().await;
    endpoint.set_script(Script::ok());
    endpoint.listen().await?;
    wirehook_tests::wait::until("the four", DEADLINE, async || {
        Ok((deliveries(&host).await?.get("delivered") == Some(&4)).then_some(()))
    })
    .await?;
    expect_deliveries(&host, &[("discarded", ORDERS - 4), ("delivered", 4)]).await?;
    host.restart().await?;
    expect_deliveries(&host, &[("discarded", ORDERS - 4), ("delivered", 4)]).await?;
    assert_eq!(endpoint.look(|log| log.ids()), 4);
    Ok(())
}

#[tokio::test]
async fn a_redrive_with_a_rate_is_spread_over_time_and_a_discard_is_for_good() -> Result<()> {
    const ORDERS: usize = 40;
    let Scene { source, endpoint, host } = scene(Script::always(Answer::text(422, "no")), "breaker = \"off\"").await?;
    source.publish_orders(0..ORDERS).await?;
    let dead = host.wait_dead_letters(ORDERS, DEADLINE).await?;
    let middle = dead[ORDERS / 2].id.to_string();
    host.command(&["dead-letters", "discard", &middle]).await?.expect_code(0)?;

    let lines: Vec<Value> = host.command(&["dead-letters", "export", "--endpoint", "orders"]).await?.objects()?;
    assert_eq!(lines.len(), ORDERS - 1);
    ensure!(lines.windows(2).all(|pair| pair[0]["id"].as_i64() < pair[1]["id"].as_i64()), "oldest first");
    ensure!(lines.iter().all(|line| line["event"]["key"].is_string() && line["attempts_made"][0]["status"] == 422));

    endpoint.set_script(Script::ok());
    let command = ["dead-letters", "redrive", "--reason", "status_4xx", "--rate", "20/s", "--yes"];
    let said = host.json(&command).await?.object()?;
    assert_eq!((&said["deliveries"], &said["refused"]), (&(ORDERS as u64 - 1).into(), &0.into()));
    endpoint.wait_for("the redriven", DEADLINE, |log| log.all().len() == 2 * ORDERS - 1).await?;
    let requests = endpoint.requests();
    let took = requests[2 * ORDERS - 2].arrived_at - requests[ORDERS].arrived_at;
    // 38 intervals of 50 ms; a claim may bring several that fell due meanwhile, but none before it is due.
    ensure!(took >= Duration::from_millis(1_500), "39 at 20/s came within {took:?}");
    wirehook_tests::wait::until("all to be recorded", DEADLINE, async || {
        Ok((deliveries(&host).await?.get("delivered") == Some(&(ORDERS as u64 - 1))).then_some(()))
    })
    .await?;
    expect_deliveries(&host, &[("delivered", ORDERS as u64 - 1), ("discarded", 1)]).await
}

#[tokio::test]
async fn a_trace_leads_from_every_name_to_the_last_attempt() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::always(Answer::text(422, "no such customer"))).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, "")
        .plugin(orders()?)
        .plugin(PluginFile::hostile("trap")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    publisher.publish_orders(0..3).await?;
    let dead = host.wait_dead_letters(6, DEADLINE).await?;
    let first = events::entity_id(0);
    let letter = dead.iter().find(|letter| letter.kind == "delivery").context("a dead delivery")?;
    let run = dead.iter().find(|letter| letter.kind == "run").context("a dead run")?;

    let whole = host.json(&["trace", &first]).await?.object()?;
    let event = &whole["event"];
    assert_eq!((&event["entity_id"], &event["source"]), (&first.as_str().into(), &"bus".into()));
    let key = event["key"].as_str().context("a key")?.to_owned();
    ensure!(key.starts_with("bus/position/EVENTS"), "its position in the stream: {key}");
    let runs = event["runs"].as_array().context("runs")?;
    assert_eq!(runs.iter().map(|run| &run["state"]).collect::<Vec<_>>(), ["produced", "dead"]);
    let sent = &runs[0]["deliveries"][0];
    assert_eq!((&sent["state"], &sent["dead_letter"]["reason"]), (&"dead".into(), &"status_4xx".into()));
    assert_eq!(sent["last_attempts"][0]["response"], "no such customer");
    assert_eq!(runs[1]["dead_letter"]["reason"], "plugin_trap");

    let seq = format!("event:{}", event["seq"]);
    let delivery = sent["id"].as_str().context("an id")?;
    for name in [seq.as_str(), &key, delivery, &first] {
        assert_eq!(host.json(&["trace", name]).await?.object()?, whole, "{name}");
    }
    for letter in [letter, run] {
        let traced = host.json(&["trace", &format!("dead-letter:{}", letter.id)]).await?.object()?;
        ensure!(traced.to_string().contains(&format!("\"id\":{}", letter.id)), "{traced}");
    }
    // The ids differ at their end only.
    let candidates = host.command(&["trace", "550e", "--json"]).await?.expect_code(2)?.expect_said(&["550e"])?;
    assert_eq!(candidates.objects::<Value>()?.len(), 3);
    host.command(&["trace", "551e"]).await?.expect_code(1)?.expect_said(&["551e"])?;
    let tree = host.command(&["trace", &first]).await?.expect_code(0)?.stdout;
    for part in ["fraiseql.order.created", &key, "├─ orders produced", "└─ trap dead", delivery, "422 no such customer"]
    {
        ensure!(tree.contains(part), "`{part}` is not in\n{tree}");
    }
    host.stop().await?;
    assert_eq!(host.json(&["trace", &first]).await?.object()?, whole, "while the host is down");
    Ok(())
}

/// Whether any file of the store has these bytes in it.
fn is_in_store(store: &Path, bytes: &str) -> Result<bool> {
    let folder = store.parent().context("the store's folder")?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("wirehook.db") && path.is_file() {
            let content = std::fs::read(&path)?;
            if content.windows(bytes.len()).any(|window| window == bytes.as_bytes()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[tokio::test]
async fn a_purge_beside_the_host_leaves_nothing_of_an_entity_in_its_files() -> Result<()> {
    let script = Script::by(|call| match events::order_id(&call.request.body) {
        Some(id) if id == events::entity_id(7) => Answer::text(422, "the-answer-about-seven"),
        _ => Answer::ok(),
    });
    let Scene { source, endpoint: _endpoint, mut host } = scene(script, "").await?;
    source.publish_orders(0..40).await?;
    host.wait_dead_letters(1, DEADLINE).await?;
    wirehook_tests::wait::until("the others", DEADLINE, async || {
        Ok((deliveries(&host).await?.get("delivered") == Some(&39)).then_some(()))
    })
    .await?;
    let store = host.store_path();
    let traces = ["customer-7@example.com", "the-answer-about-seven", &events::entity_id(7)];
    for trace in traces {
        ensure!(is_in_store(&store, trace)?, "`{trace}` is in the store before");
    }
    let purge = ["purge", "--entity-id", &events::entity_id(7)];
    let counted = host.json(&[&purge[..], &["--dry-run"]].concat()).await?.object()?;
    assert_eq!((&counted["events"], &counted["dead_letters"], &counted["done"]), (&1.into(), &1.into(), &false.into()));
    host.command(&purge).await?.expect_code(2)?.expect_said(&["--yes"])?;
    let purged = host.json(&[&purge[..], &["--yes"]].concat()).await?.object()?;
    assert_eq!((&purged["events"], &purged["attempts"], &purged["done"]), (&1.into(), &1.into(), &true.into()));
    for trace in traces {
        ensure!(!is_in_store(&store, trace)?, "`{trace}` is in the store after");
    }
    ensure!(is_in_store(&store, "customer-8@example.com")?, "others' data stays");
    host.command(&["trace", &events::entity_id(7)]).await?.expect_code(1)?;
    expect_deliveries(&host, &[("delivered", 39)]).await?;

    source.publish_orders([40]).await?;
    host.restart().await?;
    for trace in traces {
        ensure!(!is_in_store(&store, trace)?, "`{trace}` is in the store after a restart");
    }
    host.expect_all_accounted().await
}

#[tokio::test]
async fn deliveries_to_an_endpoint_that_is_gone_are_listed_and_moved() -> Result<()> {
    let Scene { source, endpoint, mut host } = scene(Script::always(Answer::status(503)), RETRY_IN_AN_HOUR).await?;
    source.publish_orders(0..3).await?;
    endpoint.wait_for("the first attempts", DEADLINE, |log| log.all().len() == 3).await?;
    let before = endpoint.requests();
    for request in &before {
        host.wait_delivery(request.webhook_id(), "retrying", DEADLINE).await?;
    }
    host.stop().await?;
    let settings = host.folder.read_settings()?;
    host.folder.write_settings(&settings.replace("name = \"orders\"", "name = \"depot\""))?;
    host.folder.put_plugin(&PluginFile::example("orders")?.subscribed("fraiseql.order.*", "depot"))?;
    let mut listed = Vec::new();
    for running in [false, true] {
        if running {
            endpoint.set_script(Script::ok());
            host.start().await?;
        }
        let status = host.json(&["status"]).await?.object()?;
        assert_eq!(status["parked"], serde_json::json!([{ "endpoint": "orders", "count": 3 }]), "running: {running}");
        listed = host.json(&["deliveries", "list", "--state", "parked"]).await?.objects::<Value>()?;
        assert_eq!(listed.len(), 3, "running: {running}");
    }
    host.command(&["deliveries", "move", "--parked", "--to", "nowhere", "--yes"]).await?.expect_code(2)?;
    let waiting = listed[0]["id"].as_str().context("an id")?;
    let refused = host.command(&["deliveries", "move", waiting, "--dead", "--to", "depot"]).await?.expect_code(1)?;
    refused.expect_said(&["1 delivery is not dead", "leave --dead out"])?;
    let said = host.json(&["deliveries", "move", "--parked", "--to", "depot", "--yes"]).await?.object()?;
    assert_eq!(said["moved"], 3);
    for delivery in &listed {
        let id = delivery["id"].as_str().context("an id")?;
        host.wait_delivery(id, "delivered", DEADLINE).await?;
        assert_eq!(endpoint.look(|log| log.of(id).len()), 2, "under the id that it had");
    }
    assert_eq!(host.json(&["status"]).await?.object()?["parked"], serde_json::json!([]));
    expect_deliveries(&host, &[("delivered", 3)]).await
}

#[tokio::test]
async fn a_forgotten_plugin_s_runs_are_dead_letters_and_go_through_it_should_it_come_back() -> Result<()> {
    let Scene { source, endpoint, host } = scene(Script::ok(), "").await?;
    host.command(&["plugin", "forget", "orders", "--yes"]).await?.expect_code(1)?.expect_said(&["remove it first"])?;
    host.folder.remove_plugin("orders")?;
    host.logs().wait_for("the plugin's file is missing", DEADLINE).await?;
    source.publish_orders(0..3).await?;
    host.wait_runs("orders", "parked", 3, DEADLINE).await?;
    host.command(&["plugin", "forget", "orders"]).await?.expect_code(2)?.expect_said(&["3 parked runs", "--yes"])?;
    let would = host.json(&["plugin", "forget", "orders", "--dry-run"]).await?.object()?;
    assert_eq!((&would["known"], &would["runs"]), (&true.into(), &3.into()));
    host.command(&["plugin", "forget", "nobody"]).await?.expect_code(1)?.expect_said(&["there are: orders"])?;
    // Whatever asks, nothing is said of a plugin that never was.
    let client = OpsClient::connect(&host.store_path()).await?.context("the host's socket")?;
    client.ask(Request::ForgetPlugin { plugin: "nobody".into(), fate: ParkedFate::Die }).await?;
    let said = host.json(&["plugin", "forget", "orders", "--yes"]).await?.object()?;
    assert_eq!((&said["known"], &said["runs"]), (&true.into(), &3.into()));
    let dead = host.wait_dead_letters(3, DEADLINE).await?;
    ensure!(dead.iter().all(|letter| letter.kind == "run" && letter.reason == "plugin_forgotten"), "{dead:?}");
    assert_eq!(host.metric("wirehook_dead_letters_total", "plugin_forgotten").await?, 3.0);
    host.logs().wait_for("the plugin is forgotten", DEADLINE).await?;
    assert_eq!(host.logs().lines().iter().filter(|line| line.contains("the plugin is forgotten")).count(), 1);
    source.publish_orders(3..4).await?;
    host.wait_metric("wirehook_events_unrouted_total", "", 1.0, DEADLINE).await?;
    host.expect_all_accounted().await?;

    // Redriven before it is back, they wait for it.
    host.command(&["dead-letters", "redrive", "--plugin", "orders", "--yes"]).await?.expect_code(0)?;
    host.wait_runs("orders", "parked", 3, DEADLINE).await?;
    host.expect_all_accounted().await?;
    host.folder.put_plugin(&orders()?)?;
    endpoint.wait_for("the redriven", DEADLINE, |log| log.ids() == 3).await?;
    host.wait_runs("orders", "produced", 3, DEADLINE).await?;
    ensure!(host.dead_letters().await?.is_empty());
    host.expect_all_accounted().await
}

#[tokio::test]
async fn recorded_events_get_the_run_that_they_never_had_and_no_second_one() -> Result<()> {
    let Scene { source, endpoint, mut host } = scene(Script::ok(), "").await?;
    source.publish_orders(0..3).await?;
    endpoint.wait_for("the first orders", DEADLINE, |log| log.ids() == 3).await?;
    host.folder.remove_plugin("orders")?;
    host.logs().wait_for("the plugin's file is missing", DEADLINE).await?;
    host.command(&["plugin", "forget", "orders", "--yes"]).await?.expect_code(0)?;
    // Nobody is subscribed to these, and one is of a subject that nobody will be.
    source.publish_orders(3..8).await?;
    let other = events::page_event("invoice", "created", 0, &serde_json::json!({}));
    ensure!(source.post(other.body).await?.0 == 202);
    host.wait_metric("wirehook_events_unrouted_total", "", 6.0, DEADLINE).await?;
    let unrouted: Vec<Value> = host.json(&["events", "list", "--unrouted"]).await?.objects()?;
    ensure!(unrouted.len() == 6 && unrouted.iter().all(|event| event["runs"] == 0), "{unrouted:?}");
    let orders_only: Vec<Value> = host.json(&["events", "list", "--subject", "fraiseql.order.*"]).await?.objects()?;
    ensure!(orders_only.len() == 8, "{orders_only:?}");
    let position = unrouted[0]["seq"].to_string();
    host.command(&["events", "show", &position]).await?.expect_code(0)?;

    let backfill = ["events", "backfill", "--plugin", "orders", "--since", "1h"];
    let with = |more: &[&'static str]| [&backfill[..], more].concat();
    host.command(&with(&["--yes"])).await?.expect_code(1)?.expect_said(&["no plugin `orders` was ever loaded"])?;
    host.folder.put_plugin(&orders()?)?;
    wait_loaded(&host).await?;
    host.command(&["events", "backfill", "--plugin", "orders", "--yes"]).await?.expect_code(2)?;
    let would = host.json(&with(&["--dry-run"])).await?.object()?;
    ensure!(would["runs"] == 5 && endpoint.look(|log| log.ids()) == 3, "{would}");
    host.command(&backfill).await?.expect_code(2)?.expect_said(&["5 events would get a run of `orders`"])?;
    let two = host.json(&with(&["--limit", "2", "--yes"])).await?.object()?;
    ensure!(two["runs"] == 2, "{two}");
    endpoint.wait_for("the first two", DEADLINE, |log| log.ids() == 5).await?;
    // The rest while no host runs; and once more, which comes to nothing.
    host.stop().await?;
    let rest = host.json(&with(&["--yes"])).await?.object()?;
    ensure!(rest["runs"] == 3, "{rest}");
    let again = host.json(&with(&["--yes"])).await?.object()?;
    ensure!(again["runs"] == 0, "{again}");
    host.expect_all_accounted().await?;
    host.start().await?;
    endpoint.wait_for("every order", DEADLINE, |log| log.ids() == 8).await?;
    let again = host.json(&["events", "backfill", "--plugin", "orders", "--all", "--yes"]).await?.object()?;
    ensure!(again["runs"] == 0, "{again}");
    host.stop().await?;
    ensure!(endpoint.look(|log| log.all().len()) == 8, "each once, and the invoice never");
    host.expect_all_accounted().await
}

async fn wait_loaded(host: &TestHost) -> Result<()> {
    wirehook_tests::wait::until("the plugin to be loaded", DEADLINE, async || {
        let status = host.json(&["status"]).await?.object()?;
        let plugins = status["host"]["plugins"].as_array().context("plugins")?;
        Ok(plugins.iter().any(|plugin| plugin["state"] == "serving").then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_backfill_ends_where_the_backlog_is_full() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let builder = TestHost::builder().plugin_settings("[plugins.backlog]\ncount = 2").http(source.port, "");
    let mut host = builder.endpoint("orders", &endpoint, "").build()?;
    host.start().await?;
    source.publish_orders(0..5).await?;
    host.wait_metric("wirehook_events_unrouted_total", "", 5.0, DEADLINE).await?;
    host.folder.put_plugin(&orders()?)?;
    wait_loaded(&host).await?;
    host.stop().await?;
    let backfill = ["events", "backfill", "--plugin", "orders", "--all", "--yes"];
    let full = host.command(&backfill).await?.expect_code(1)?.expect_said(&["the backlog of `orders` is full"])?;
    ensure!(full.stdout.contains("2 events got a run"), "{}", full.stdout);
    for ids in [2, 4, 5] {
        host.start().await?;
        endpoint.wait_for("what there was room for", DEADLINE, |log| log.ids() == ids).await?;
        host.stop().await?;
        host.command(&backfill).await?;
    }
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die of a backfill");
    host.expect_all_accounted().await
}
