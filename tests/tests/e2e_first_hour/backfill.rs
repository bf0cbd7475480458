//! Recorded events get the run that they never had, though the host is killed meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wirehook_tests::events::{self, order_created};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::{HttpPublisher, answer};
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::{full, wait};

const DEADLINE: Duration = Duration::from_secs(600);
/// Events of one request.
const BATCH: usize = 500;

/// Of a route, which is a plugin like any other.
const ROUTE: &str =
    "[[route]]\nname = \"late\"\nsubjects = [\"fraiseql.order.*\"]\nto = \"orders\"\nbody = \"entity\"\n";

/// Posts these orders, each batch until it is answered 202: a batch that is sent again is the same events.
async fn publish(web: &HttpPublisher, from: usize, to: usize) -> Result<()> {
    for first in (from..to).step_by(BATCH) {
        let orders = || events::array((first..(first + BATCH).min(to)).map(order_created));
        wait::until("a batch to be accepted", DEADLINE, async || {
            let request = web.request(orders()).header("idempotency-key", first.to_string());
            Ok(answer(request).await.is_ok_and(|(status, _)| status == 202).then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_gets_one_run_beside_new_ones_and_two_kills() -> Result<()> {
    let (recorded, fresh) = if full::is_full() { (100_000, 10_000) } else { (2_000, 1_000) };
    let web = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .http(web.port, "")
        .endpoint("orders", &endpoint, "concurrency = 64\nbreaker = \"off\"")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.invoice.*", "orders"))
        .plugin_settings("[plugins.backlog]\ncount = 1000000\nbytes = \"4GiB\"")
        .build()?;
    host.start().await?;
    publish(&web, 0, recorded).await?;
    host.wait_metric("wirehook_events_unrouted_total", "", recorded as f64, DEADLINE).await?;
    host.stop().await?;
    // The route comes, and with it events that it gets by itself.
    host.folder.write_settings(&format!("{}\n{ROUTE}", host.folder.read_settings()?))?;
    host.start().await?;
    host.logs().wait_for("\"plugin\":\"route:late\"", DEADLINE).await?;
    let backfill = ["events", "backfill", "--plugin", "route:late", "--since", "2h", "--yes"];
    let filling = async {
        for part in [4, 2] {
            // Cut short by the kill, in the middle of the work.
            tokio::select! {
                ended = host.command(&backfill) => drop(ended?),
                part = endpoint.wait_for("a part of them", DEADLINE, |log| log.ids() >= recorded / part) => part?,
            }
            host.kill9().await?;
            host.start().await?;
        }
        host.command(&backfill).await?.expect_code(0)
    };
    let (published, filled) = tokio::join!(publish(&web, recorded, recorded + fresh), filling);
    published?;
    filled?;
    let again = host.json(&backfill).await?.object()?;
    ensure!(again["runs"] == 0, "something was left: {again}");
    endpoint.wait_for("a webhook of each event", DEADLINE, |log| log.ids() >= recorded + fresh).await?;
    host.stop().await?;
    host.expect_all_accounted().await?;
    // One run of an event has one id; an attempt that a kill cut short is made again under it.
    let mut ids: HashMap<String, String> = HashMap::new();
    for request in endpoint.requests() {
        let entity: Value = serde_json::from_slice(&request.body)?;
        let order = entity["id"].as_str().context("an id")?.to_owned();
        let id = ids.entry(order).or_insert_with(|| request.webhook_id().to_owned());
        ensure!(id == request.webhook_id(), "{entity} had two runs: {id} and {}", request.webhook_id());
    }
    ensure!(ids.len() == recorded + fresh, "{} of {} orders came", ids.len(), recorded + fresh);
    Ok(())
}
