//! `order = "entity"` on the whole path: with endpoints and plugins that fail, and a host that is killed, no webhook goes
//! before one of the same entity whose event was accepted earlier.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use wirehook_tests::events::{PublishedEvent, page_event};
use wirehook_tests::fake_endpoint::{Answer, Call, FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::{full, store_file, wait};

/// Set to repeat a run.
const SEED_VARIABLE: &str = "WIREHOOK_TEST_SEED";

/// For everything to arrive, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(240);

/// The same for the long run.
const DEADLINE_LONG: Duration = Duration::from_secs(1_500);

/// An ordered run has to reach this share of an unordered one's throughput.
const SHARE_MIN: f64 = 0.5;

/// One run: what is published, and what goes wrong.
#[derive(Clone, Copy)]
struct Scenario {
    events: usize,
    keys: usize,
    order: &'static str,
    /// Of a thousand events, how many have the plugin ask for another try.
    plugin_retries: usize,
    /// The most webhooks of one event.
    webhooks: usize,
    kills: usize,
    deadline: Duration,
}

impl Scenario {
    /// The events, and how many webhooks they have.
    fn published(&self, rng: &mut fastrand::Rng) -> (Vec<PublishedEvent>, usize) {
        let mut all = 0;
        let event = |step| {
            let webhooks = rng.usize(1..=self.webhooks);
            all += webhooks;
            let retries = u8::from(rng.usize(..1000) < self.plugin_retries);
            let entity = json!({"step": step, "retries": retries, "webhooks": webhooks});
            page_event("order", "updated", rng.usize(..self.keys), &entity)
        };
        let events = (0..self.events).map(event).collect();
        (events, all)
    }
}

/// Of the deliveries, one in ten fails at first, and one in a hundred for good.
fn failing() -> Script {
    Script::by(|Call { request, number }| {
        let digits = request.webhook_id().get(4..12).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        match (digits.unwrap_or_default() % 100, number) {
            (0, _) => Answer::status(400),
            (1..10, 1) => Answer::status(503),
            _ => Answer::ok(),
        }
    })
}

/// Runs a scenario to its end. Returns how long it took from the first start until nothing was left to do.
async fn run(scenario: Scenario, rng: &mut fastrand::Rng) -> Result<Duration> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(failing()).await?;
    let settings = format!(
        "order = {:?}\nconcurrency = 64\n[endpoint.retry]\ninitial_delay = \"50ms\"\nmultiplier = 1.0",
        scenario.order
    );
    let plugin = PluginFile::hostile("as_asked")?
        .with_sidecar("subjects = [\"fraiseql.order.*\"]\n[retry]\ninitial_delay = \"100ms\"\nmultiplier = 1.0\n");
    let mut host =
        TestHost::builder().jetstream(&nats, "EVENTS").endpoint("shop", &endpoint, &settings).plugin(plugin).build()?;
    let (events, webhooks) = scenario.published(rng);
    publisher.publish_in_order(events).await?;
    let started = Instant::now();
    host.start().await?;
    for kill in 1..=scenario.kills {
        let arrived = scenario.events * kill / (scenario.kills + 1);
        let what = format!("{arrived} webhooks before kill {kill}");
        endpoint.wait_for(&what, scenario.deadline, |log| log.ids() >= arrived).await?;
        tokio::time::sleep(Duration::from_micros(rng.u64(..50_000))).await;
        host.kill9().await?;
        store_file::check_integrity_of_copy(&host.store_path()).with_context(|| format!("after kill {kill}"))?;
        host.start().await.with_context(|| format!("after kill {kill}"))?;
    }
    endpoint.wait_for("every webhook", scenario.deadline, |log| log.ids() == webhooks).await?;
    wait::until("nothing to be left to do", scenario.deadline, async || {
        let accepted = publisher.unacked("EVENTS", "wirehook-bus").await? == 0;
        let status = host.json(&["status"]).await?.object()?["store"].take();
        let open = |kind: &str| -> bool {
            let counts = status[kind].as_array().into_iter().flatten();
            counts.into_iter().any(|count| count["state"] == "pending" || count["state"] == "retrying")
        };
        Ok((accepted && !open("runs") && !open("deliveries")).then_some(()))
    })
    .await?;
    let took = started.elapsed();
    host.expect_all_accounted().await?;
    host.stop().await?;
    host.forget_logs();
    if scenario.order == "entity" {
        expect_in_order(&host.store_path(), &endpoint, scenario)?;
    }
    Ok(took)
}

/// Where a delivery stands: its entity, the position of its event, its own.
type Position = (String, (i64, i64));

/// Every request of an entity is for the same delivery as the one before, or for one that stands after it.
fn expect_in_order(store: &Path, endpoint: &FakeEndpoint, scenario: Scenario) -> Result<()> {
    let positions = positions(store)?;
    let mut last: HashMap<&str, (i64, i64)> = HashMap::new();
    let (mut requests, mut repeated) = (0, 0);
    endpoint.look(|log| {
        for request in log.all() {
            let (entity, position) =
                positions.get(request.webhook_id()).with_context(|| format!("unknown: {request:?}"))?;
            let before = last.insert(entity, *position);
            ensure!(before.is_none_or(|before| before <= *position), "{position:?} of {entity} came after {before:?}");
            requests += 1;
            repeated += usize::from(before == Some(*position));
        }
        ensure!(log.ids() == positions.len(), "{} of {} deliveries arrived", log.ids(), positions.len());
        Ok(())
    })?;
    ensure!(last.len() == scenario.keys, "{} entities of {}", last.len(), scenario.keys);
    ensure!(repeated * 20 > positions.len(), "only {repeated} of {requests} requests were repeated: nothing failed");
    println!("{requests} requests for {} deliveries of {} entities, in order", positions.len(), last.len());
    Ok(())
}

fn positions(store: &Path) -> Result<HashMap<String, Position>> {
    let store = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut select = store
        .prepare("SELECT d.id, e.entity_id, d.event_seq, d.seq FROM delivery d JOIN event e ON e.seq = d.event_seq")?;
    let rows = select.query_map((), |row| Ok((row.get(0)?, (row.get(1)?, (row.get(2)?, row.get(3)?)))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn seeded() -> Result<fastrand::Rng> {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED_VARIABLE} is a whole number"))?,
        Err(_) => fastrand::u64(..),
    };
    println!("repeat with {SEED_VARIABLE}={seed}");
    Ok(fastrand::Rng::with_seed(seed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entitys_webhooks_arrive_in_order_though_much_fails_and_the_host_is_killed() -> Result<()> {
    let scenario = Scenario {
        events: 3_000,
        keys: 100,
        order: "entity",
        plugin_retries: 30,
        webhooks: 2,
        kills: 3,
        deadline: DEADLINE,
    };
    run(scenario, &mut seeded()?).await.map(drop)
}

/// One entity only: its webhooks go one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entitys_webhooks_go_one_after_the_other() -> Result<()> {
    let scenario = Scenario {
        events: 300,
        keys: 1,
        order: "entity",
        plugin_retries: 10,
        webhooks: 3,
        kills: 1,
        deadline: DEADLINE,
    };
    run(scenario, &mut seeded()?).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_costs_no_more_than_half_of_the_throughput() -> Result<()> {
    if !full::wanted("100,000 events of 1,000 entities in order") {
        return Ok(());
    }
    let scenario = |order| Scenario {
        events: 100_000,
        keys: 1_000,
        order,
        plugin_retries: 0,
        webhooks: 1,
        kills: 0,
        deadline: DEADLINE_LONG,
    };
    let mut rng = seeded()?;
    let unordered = run(scenario("none"), &mut rng).await?;
    let ordered = run(scenario("entity"), &mut rng).await?;
    let share = unordered.as_secs_f64() / ordered.as_secs_f64();
    let rate = |took: Duration| 100_000.0 / took.as_secs_f64();
    println!("unordered {:.0}/s, ordered {:.0}/s: {share:.2}", rate(unordered), rate(ordered));
    ensure!(share >= SHARE_MIN, "in order, only {share:.2} of the throughput: {ordered:?} beside {unordered:?}");
    Ok(())
}
