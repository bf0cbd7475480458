//! What holds webhooks back from an endpoint: its breaker, its rate, its state; and the commands that change it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);

/// A breaker that needs few attempts and little time.
const QUICK_BREAKER: &str = "[endpoint.breaker]\nmin_attempts = 5\nopen = \"500ms\"\nmax_open = \"1s\"";

struct Scene {
    source: HttpPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
}

/// One endpoint that answers by `script`, ready; `settings` are more lines of its section.
async fn scene(script: Script, settings: &str) -> Result<Scene> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(script).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &endpoint, settings)
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    Ok(Scene { source, endpoint, host })
}

/// The line of `endpoints list` of the one endpoint there is.
async fn listed(host: &TestHost) -> Result<Value> {
    host.json(&["endpoints", "list"]).await?.object()
}

/// Waits until `endpoints list` says what is expected of one of its fields.
async fn wait_listed(host: &TestHost, field: &str, expected: impl Into<Value>) -> Result<Value> {
    let expected = expected.into();
    wait::until(&format!("{field} to be {expected}"), DEADLINE, async || {
        let line = listed(host).await?;
        Ok((line[field] == expected).then_some(line))
    })
    .await
}

/// How many requests were answered 200 so far.
fn taken(endpoint: &FakeEndpoint, refused: usize) -> usize {
    endpoint.look(|log| log.all().len()) - refused
}

#[tokio::test]
async fn a_breaker_opens_on_401_spends_few_attempts_and_closes_when_the_endpoint_is_back() -> Result<()> {
    const ORDERS: usize = 300;
    let retry = "[endpoint.retry]\ninitial_delay = \"100ms\"\nmax_attempts = 6";
    let settings = format!("concurrency = 4\n{retry}\n{QUICK_BREAKER}");
    let Scene { source, endpoint, host } = scene(Script::statuses(&[401]), &settings).await?;
    source.publish_orders(0..ORDERS).await?;
    host.wait_metric("wirehook_breaker_opened_total", "orders", 4.0, DEADLINE).await?;
    assert_eq!(host.metric("wirehook_breaker_open", "orders").await? as i64, 1);
    let line = listed(&host).await?;
    ensure!(line["breaker"] == "open" || line["breaker"] == "probing", "{line}");
    ensure!(
        line["backlog"] == ORDERS && !line["oldest_due_at"].is_null() && !line["last_failure_at"].is_null(),
        "{line}"
    );
    let (_, readiness) = host.readiness().await?;
    ensure!(readiness.contains("orders: its breaker is "), "{readiness}");
    let refused = endpoint.look(|log| log.all().len());
    ensure!(refused < 40, "{refused} attempts were spent while everything was refused");

    endpoint.set_script(Script::ok());
    host.wait_metric("wirehook_attempts_total", "outcome=\"delivered\"", ORDERS as f64, DEADLINE).await?;
    assert_eq!(host.metric("wirehook_breaker_open", "orders").await? as i64, 0);
    assert!(host.dead_letters().await?.is_empty(), "nothing is dead");
    let line = wait_listed(&host, "breaker", "closed").await?;
    ensure!(line["backlog"] == 0 && !line["last_success_at"].is_null(), "{line}");
    host.logs().wait_for("the breaker is closed", DEADLINE).await?;
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_410_disables_over_restarts_and_kills_until_it_is_enabled() -> Result<()> {
    let Scene { source, endpoint, mut host } = scene(Script::statuses(&[410]), "").await?;
    source.publish_orders([0]).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.reason.as_str(), dead.attempts), ("status_410", 1));
    let line = wait_listed(&host, "state", "disabled").await?;
    ensure!(line["reason"].as_str().is_some_and(|reason| reason.starts_with("it answered 410 to msg_")), "{line}");
    host.logs().wait_for("`wirehook endpoints enable` resumes it", DEADLINE).await?;
    source.publish_orders(1..31).await?;
    wait_listed(&host, "backlog", 30).await?;

    host.restart().await?;
    wait_listed(&host, "state", "disabled").await?;
    assert_eq!(host.metric("wirehook_endpoint_state", "endpoint=\"orders\",state=\"disabled\"").await? as i64, 1);
    let (code, readiness) = host.readiness().await?;
    ensure!(code == 200 && readiness.contains("orders is disabled"), "{readiness}");
    source.publish_orders(31..41).await?;
    wait_listed(&host, "backlog", 40).await?;
    host.kill9().await?;
    host.start().await?;
    wait_listed(&host, "state", "disabled").await?;
    wait_listed(&host, "backlog", 40).await?;
    assert_eq!(endpoint.look(|log| log.all().len()), 1, "it got nothing since");
    let status = host.command(&["status"]).await?.expect_code(0)?;
    ensure!(status.stdout.contains("endpoint orders is disabled since "), "{}", status.stdout);

    endpoint.set_script(Script::ok());
    host.command(&["endpoints", "enable", "orders"]).await?.expect_code(0)?;
    endpoint.wait_for("what waited", DEADLINE, |log| log.ids() == 41).await?;
    wait_listed(&host, "backlog", 0).await?;
    assert_eq!(taken(&endpoint, 1), 40, "each was tried once");
    host.command(&["dead-letters", "redrive", &dead.id.to_string()]).await?.expect_code(0)?;
    host.wait_delivery(dead.delivery_id.as_deref().context("an id")?, "delivered", DEADLINE).await?;
    host.kill9().await?;
    host.start().await?;
    assert_eq!(listed(&host).await?["state"], "active", "that holds over a crash too");
    host.expect_all_accounted().await
}

#[tokio::test]
async fn an_endpoint_that_fails_for_long_is_disabled() -> Result<()> {
    let settings =
        "disable_after = \"2s\"\n[endpoint.retry]\ninitial_delay = \"200ms\"\nmultiplier = 1.0\nmax_attempts = 1000";
    let Scene { source, endpoint, host } = scene(Script::statuses(&[503]), settings).await?;
    source.publish_orders([0]).await?;
    let line = wait_listed(&host, "state", "disabled").await?;
    ensure!(line["reason"].as_str().is_some_and(|reason| reason.starts_with("every attempt failed for ")), "{line}");
    let requests = endpoint.requests();
    let failed_for = requests[requests.len() - 1].arrived_at - requests[0].arrived_at;
    ensure!(failed_for >= Duration::from_millis(1_950), "it was disabled after {failed_for:?}");
    assert!(host.dead_letters().await?.is_empty());
    endpoint.set_script(Script::ok());
    host.command(&["endpoints", "enable", "orders"]).await?.expect_code(0)?;
    host.wait_delivery(requests[0].webhook_id(), "delivered", DEADLINE).await?;
    Ok(())
}

/// When attempts began, as the host recorded it, in seconds since the first.
fn began_s(host: &TestHost, endpoint: &str) -> Result<Vec<f64>> {
    let store = rusqlite::Connection::open(host.store_path())?;
    let mut select = store.prepare(
        "SELECT a.started_at FROM attempt a JOIN delivery d ON d.seq = a.delivery_seq WHERE d.endpoint = ?1 ORDER BY 1",
    )?;
    let began_ms: Vec<f64> = select.query_map([endpoint], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let first_ms = *began_ms.first().context("attempts")?;
    Ok(began_ms.into_iter().map(|began_ms| (began_ms - first_ms) / 1000.0).collect())
}

#[tokio::test]
async fn a_rate_holds_within_a_few_per_cent_and_holds_up_nobody_else() -> Result<()> {
    const BACKLOG: usize = 400;
    const MORE: usize = 20;
    const RATE: f64 = 80.0;
    /// What attempts may be ahead of an even pace, and what a busy machine may add between the gate and the clock.
    const AHEAD_S: f64 = 0.1 + 0.15;
    let source = HttpPublisher::new()?;
    let (slow, quick) = (FakeEndpoint::start(Script::ok()).await?, FakeEndpoint::start(Script::ok()).await?);
    let plugin = |name: &str, endpoint: &str| -> Result<PluginFile> {
        let orders = PluginFile::example("orders")?.subscribed("fraiseql.order.*", endpoint);
        Ok(PluginFile { name: name.to_owned(), ..orders })
    };
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("slow", &slow, "rate = \"80/s\"")
        .endpoint("quick", &quick, "")
        .plugin(plugin("a", "slow")?)
        .plugin(plugin("b", "quick")?)
        .build()?;
    host.start().await?;
    // The plugin's own pace is not what is measured: everything waits before the first one goes.
    host.command(&["endpoints", "pause", "slow"]).await?.expect_code(0)?;
    source.publish_orders(0..BACKLOG).await?;
    quick.wait_for("all of the quick one", DEADLINE, |log| log.ids() == BACKLOG).await?;
    wait::until("the backlog", DEADLINE, async || {
        let lines: Vec<Value> = host.json(&["endpoints", "list"]).await?.objects()?;
        Ok(lines.iter().any(|line| line["name"] == "slow" && line["backlog"] == BACKLOG).then_some(()))
    })
    .await?;
    host.command(&["endpoints", "resume", "slow"]).await?.expect_code(0)?;
    source.publish_orders(BACKLOG..BACKLOG + MORE).await?;
    quick.wait_for("the quick one's", DEADLINE, |log| log.ids() == BACKLOG + MORE).await?;
    ensure!(slow.look(|log| log.ids()) < BACKLOG + MORE, "the rate held nothing back");
    slow.wait_for("all of the slow one", DEADLINE, |log| log.ids() == BACKLOG + MORE).await?;
    host.stop().await?;

    let began_s = began_s(&host, "slow")?;
    let took_s = began_s[BACKLOG - 1];
    eprintln!("{:.2} a second over {took_s:.2} s, where {RATE} are allowed", (BACKLOG - 1) as f64 / took_s);
    for (first, from_s) in began_s.iter().enumerate() {
        for (last, to_s) in began_s.iter().enumerate().skip(first) {
            let allowed = 1.0 + RATE * (to_s - from_s + AHEAD_S);
            ensure!((last - first + 1) as f64 <= allowed, "{} began within {} s", last - first + 1, to_s - from_s);
        }
    }
    // That the rate is also used up is measured over simulated time, where no busy machine loses a part of it.
    ensure!((BACKLOG - 1) as f64 / took_s >= RATE / 2.0, "{BACKLOG} took {took_s} s");
    Ok(())
}

#[tokio::test]
async fn a_paused_endpoint_gets_nothing_until_it_is_resumed_and_a_host_that_is_down_can_be_told_too() -> Result<()> {
    let Scene { source, endpoint, mut host } = scene(Script::ok(), "").await?;
    let refused = host.command(&["endpoints", "pause", "ordres"]).await?.expect_code(1)?;
    refused.expect_said(&["there is no endpoint `ordres`", "there are: orders"])?;
    host.command(&["endpoints", "pause", "orders", "--reason", "their maintenance"]).await?.expect_code(0)?;
    source.publish_orders(0..20).await?;
    let line = wait_listed(&host, "backlog", 20).await?;
    ensure!(line["state"] == "paused" && line["configured"] == true, "{line}");
    assert_eq!(line["reason"], "by `wirehook endpoints pause`: their maintenance");
    host.command(&["endpoints", "enable", "orders"])
        .await?
        .expect_code(1)?
        .expect_said(&["endpoints resume orders"])?;
    host.stop().await?;

    let line = listed(&host).await?;
    ensure!(line["state"] == "paused" && line["backlog"] == 20 && line["configured"].is_null(), "{line}");
    // What waits for a paused endpoint is no work that is done by itself.
    host.spawn(&["--exit-when-idle"]).await?;
    let status = host.wait_exit(DEADLINE).await?;
    assert_eq!(status.code(), Some(0), "{}", host.logs().tail());
    assert_eq!(endpoint.look(|log| log.all().len()), 0, "it got nothing");
    host.command(&["endpoints", "resume", "orders"]).await?.expect_code(0)?;
    host.start().await?;
    endpoint.wait_for("what waited", DEADLINE, |log| log.ids() == 20).await?;
    wait_listed(&host, "backlog", 0).await?;
    assert_eq!(endpoint.look(|log| log.all().len()), 20);
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_test_webhook_goes_the_way_of_every_other_and_is_recorded_nowhere() -> Result<()> {
    let script = Script::by(|_| Answer::text(202, "thank you"));
    let settings = "[endpoint.headers]\nX-Api-Token = { env = \"ORDERS_TOKEN\" }";
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(script).await?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &endpoint, settings)
        .endpoint_at("inside", "http://[::1]:9/", "")
        .variable("ORDERS_TOKEN", "token-that-nobody-may-see")
        .build()?;
    // Without a host, then beside one, disabled: the same.
    for number in 1..=2 {
        let output = host.command(&["endpoints", "test", "orders"]).await?.expect_code(0)?;
        let shown = &output.stdout;
        for part in
            ["> POST http://127.0.0.1:", "> x-api-token: <redacted>", "wirehook.test", "< status 202", "< thank you"]
        {
            ensure!(shown.contains(part), "`{part}` is not in\n{shown}");
        }
        ensure!(!shown.contains("nobody-may-see"), "{shown}");
        assert_eq!(endpoint.look(|log| log.all().len()), number);
        endpoint.expect_all_signed()?;
        let request = endpoint.requests().remove(number - 1);
        assert_eq!(request.header("x-api-token"), Some("token-that-nobody-may-see"));
        let body: Value = serde_json::from_slice(&request.body)?;
        ensure!(body["type"] == "wirehook.test" && body["data"]["endpoint"] == "orders", "{body}");
        if number == 1 {
            host.start().await?;
            host.command(&["endpoints", "disable", "orders"]).await?.expect_code(0)?;
        }
    }
    let report = host.command(&["endpoints", "test", "inside", "--json"]).await?.expect_code(1)?.object()?;
    ensure!(
        report["status"].is_null() && report["error"].as_str().is_some_and(|error| error.contains("::1")),
        "{report}"
    );
    host.command(&["endpoints", "test", "nobody"])
        .await?
        .expect_code(1)?
        .expect_said(&["there is no endpoint `nobody`", "there are: "])?;
    assert_eq!(host.json(&["deliveries", "list"]).await?.stdout, "", "no delivery is recorded");
    let line = &host.json(&["endpoints", "list"]).await?.objects::<Value>()?[1];
    ensure!(line["last_success_at"].is_null() && line["backlog"] == 0, "{line}");
    Ok(())
}

/// A verb that would say that something is tried now says so where it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_at_an_endpoint_that_gets_nothing_says_so() -> Result<()> {
    let Scene { source, endpoint, mut host } = scene(Script::always(Answer::status(400)), "").await?;
    source.publish_orders([1]).await?;
    host.wait_dead_letters(1, DEADLINE).await?;
    endpoint.set_script(Script::ok());
    host.command(&["endpoints", "pause", "orders"]).await?.expect_code(0)?;
    let redriven = host.command(&["dead-letters", "redrive", "--all", "--yes"]).await?.expect_code(0)?;
    redriven.expect_said(&["nothing is tried now", "endpoint `orders` is paused"])?;
    for (verb, state, back) in [("pause", "paused", "resume"), ("disable", "disabled", "enable")] {
        if verb == "disable" {
            host.command(&["endpoints", "disable", "orders"]).await?.expect_code(0)?;
        }
        let said = host.command(&["deliveries", "retry", "--all", "--yes"]).await?.expect_code(1)?;
        ensure!(said.stdout.contains("0 deliveries tried now"), "{}", said.stdout);
        let help = format!("wirehook endpoints {back} orders");
        said.expect_said(&["1 delivery waits, and nothing is tried now", &format!("is {state}"), &help])?;
        let said = host.command(&["deliveries", "retry", "--all", "--yes", "--json"]).await?.expect_code(1)?;
        let said = said.object()?;
        ensure!(said["waiting"][0]["endpoint"] == "orders" && said["waiting"][0]["state"] == state, "{said}");
        ensure!(said["waiting"][0]["count"] == 1 && said["retried"] == 1, "{said}");
        ensure!(endpoint.requests().len() == 1, "nothing is sent");
    }
    host.stop().await?;
    host.command(&["deliveries", "retry", "--all", "--yes"]).await?.expect_code(1)?.expect_said(&["is disabled"])?;
    host.command(&["endpoints", "enable", "orders"]).await?.expect_code(0)?;
    let said = host.command(&["deliveries", "retry", "--all", "--yes"]).await?.expect_code(0)?;
    ensure!(said.stdout.contains("tried once a host runs"), "{}", said.stdout);
    Ok(())
}
