//! The outbox under load: eight writers that commit late or not at all, a host that is killed, and what reading costs
//! the writers. `WIREHOOK_TEST_FULL=1` makes it long.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, Statement};
use wirehook_tests::events;
use wirehook_tests::fake_endpoint::{FakeEndpoint, RequestLog, Script};
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::store_file;
use wirehook_tests::test_host::{PluginFile, TestHost};

const WRITERS: usize = 8;
const KILLS: usize = 2;
/// One transaction in so many rolls back.
const ROLLBACK_ONE_IN: usize = 8;
const ROWS_OF_TRANSACTION_MAX: usize = 8;
/// The longest wait of a transaction between its rows and its commit.
const COMMIT_DELAY_US_MAX: u64 = 20_000;
/// For everything to arrive, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(900);
/// Set to repeat a run, as far as the machine lets it be repeated.
const SEED_VARIABLE: &str = "WIREHOOK_TEST_SEED";
/// Commits a second of each writer while latencies are measured.
const RATE: u64 = 25;
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(15);
/// How much the median latency of a commit may rise.
const RISE_MAX: f64 = 1.10;

const ROLE: &str = "CREATE ROLE reader LOGIN PASSWORD 'open sesame'; GRANT USAGE ON SCHEMA core TO reader; \
    GRANT SELECT ON core.tb_entity_change_log TO reader";
const INSERT: &str = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data) \
    VALUES ('Order', 'INSERT', $1::text::uuid, jsonb_build_object('id', $1::text, 'customer_email', 'ada@example.com', 'total', 129.5))";

fn is_full() -> bool {
    std::env::var_os("WIREHOOK_TEST_FULL").is_some_and(|full| full == "1")
}

async fn outbox() -> Result<PostgresServer> {
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    server.notify_of_rows().await?;
    server.client().await?.batch_execute(ROLE).await?;
    Ok(server)
}

fn host(server: &PostgresServer, endpoint: &FakeEndpoint) -> Result<TestHost> {
    let url = server.url_as("reader");
    TestHost::builder()
        .settings(&format!(
            "[[source]]\nname = \"bus\"\nkind = \"postgres-outbox\"\nurl = {url:?}\npassword = {{ env = \"READER\" }}\nstart = \"all\""
        ))
        .variable("READER", "open sesame")
        .endpoint("orders", endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()
}

/// One connection that writes orders of its own.
struct Writer {
    client: Client,
    insert: Statement,
    next: usize,
}

impl Writer {
    async fn new(server: &PostgresServer, index: usize) -> Result<Self> {
        let client = server.client().await?;
        let insert = client.prepare(INSERT).await?;
        Ok(Self { client, insert, next: index * 10_000_000 })
    }

    async fn insert(&mut self) -> Result<String> {
        let order = events::entity_id(self.next);
        self.next += 1;
        self.client.execute(&self.insert, &[&order]).await?;
        Ok(order)
    }

    /// Writes at least `rows` rows in transactions that last a while, and returns those that were committed.
    async fn write(mut self, rows: usize, mut rng: fastrand::Rng) -> Result<Vec<String>> {
        let mut committed = Vec::with_capacity(rows);
        while committed.len() < rows {
            self.client.batch_execute("BEGIN").await?;
            let mut orders = Vec::new();
            for _ in 0..rng.usize(1..=ROWS_OF_TRANSACTION_MAX).min(rows - committed.len()) {
                orders.push(self.insert().await?);
            }
            tokio::time::sleep(Duration::from_micros(rng.u64(0..COMMIT_DELAY_US_MAX))).await;
            if rng.usize(0..ROLLBACK_ONE_IN) == 0 {
                self.client.batch_execute("ROLLBACK").await?;
            } else {
                self.client.batch_execute("COMMIT").await?;
                committed.extend(orders);
            }
        }
        Ok(committed)
    }

    /// Commits row after row at [`RATE`] for [`ROUND`]; how long each took.
    async fn measure(mut self) -> Result<(Self, Vec<Duration>)> {
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (begun, mut latencies) = (Instant::now(), Vec::new());
        while begun.elapsed() < ROUND {
            ticks.tick().await;
            let sent = Instant::now();
            self.insert().await?;
            latencies.push(sent.elapsed());
        }
        Ok((self, latencies))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_committed_row_arrives_under_one_id_whoever_is_killed() -> Result<()> {
    let rows: usize = if is_full() { 100_000 } else { 5_000 };
    let mut rng = seeded()?;
    let server = outbox().await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = host(&server, &endpoint)?;
    host.start().await?;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for index in 0..WRITERS {
        let writer = Writer::new(&server, index).await?;
        writers.spawn(writer.write(rows / WRITERS, rng.fork()));
    }
    for kill in 1..=KILLS {
        let part = rows / (KILLS + 1);
        let arrived = rng.usize(part * (kill - 1) + 1..part * kill);
        endpoint.wait_for(&format!("{arrived} webhooks"), DEADLINE, |log| log.ids() >= arrived).await?;
        host.kill9().await?;
        store_file::check_integrity_of_copy(&host.store_path()).with_context(|| format!("after kill {kill}"))?;
        host.start().await.with_context(|| format!("after kill {kill}"))?;
    }
    let mut committed = HashSet::new();
    while let Some(written) = writers.join_next().await {
        committed.extend(written??);
    }
    let written = begun.elapsed();
    endpoint.wait_for("every row's webhook", DEADLINE, |log| log.ids() >= committed.len()).await?;
    let requests = endpoint.look(|log| expect_one_id_for_each(log, &committed))?;
    let last: i64 = {
        let client = server.client().await?;
        client.query_one("SELECT max(pk_entity_change_log) FROM core.tb_entity_change_log", &[]).await?.get(0)
    };
    println!(
        "{} rows committed by {WRITERS} connections in {written:.1?}, {} keys never used, {KILLS} kills, {requests} requests, all delivered after {:.1?}",
        committed.len(),
        last as usize - committed.len(),
        begun.elapsed()
    );
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_costs_the_writers_little() -> Result<()> {
    if !is_full() {
        println!("measured with WIREHOOK_TEST_FULL=1 only");
        return Ok(());
    }
    let server = outbox().await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = host(&server, &endpoint)?;
    let mut writers = Vec::new();
    for index in 0..WRITERS {
        writers.push(Writer::new(&server, index).await?);
    }
    let (mut without, mut with, mut rows) = (Vec::new(), Vec::new(), 0);
    // In turns, so that what else the machine does meets both alike; the first round warms up.
    for round in 0..=ROUNDS {
        let latencies = measure(&mut writers).await?;
        rows += latencies.len();
        if round > 0 {
            without.extend(latencies);
        }
        host.start().await?;
        endpoint.wait_for("what was written meanwhile", DEADLINE, |log| log.ids() >= rows).await?;
        let latencies = measure(&mut writers).await?;
        rows += latencies.len();
        if round > 0 {
            with.extend(latencies);
        }
        endpoint.wait_for("every row's webhook", DEADLINE, |log| log.ids() >= rows).await?;
        host.stop().await?;
    }
    let (without, with) = (median(without), median(with));
    let rise = with.as_secs_f64() / without.as_secs_f64();
    println!(
        "{} commits/s: median {without:.2?} without Wirehook, {with:.2?} with it: × {rise:.3}",
        RATE as usize * WRITERS
    );
    ensure!(rise <= RISE_MAX, "the median latency of commits rose from {without:?} to {with:?}");
    Ok(())
}

/// One round of all writers at once.
async fn measure(writers: &mut Vec<Writer>) -> Result<Vec<Duration>> {
    let mut round: JoinSet<_> = writers.drain(..).map(Writer::measure).collect();
    let mut all = Vec::new();
    while let Some(measured) = round.join_next().await {
        let (writer, latencies) = measured??;
        writers.push(writer);
        all.extend(latencies);
    }
    Ok(all)
}

fn median(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() / 2]
}

/// Exactly the `committed` orders have arrived, each under one id. How many requests that took.
fn expect_one_id_for_each(log: &RequestLog, committed: &HashSet<String>) -> Result<usize> {
    let mut ids: HashMap<String, HashSet<&str>> = HashMap::new();
    for request in log.all() {
        let order = events::order_id(&request.body).with_context(|| format!("no order in {request:?}"))?;
        ids.entry(order).or_default().insert(request.webhook_id());
    }
    let unstable = ids.iter().find(|(_, ids)| ids.len() != 1);
    ensure!(unstable.is_none(), "an order has not one webhook-id: {unstable:?}");
    let missing = committed.iter().filter(|order| !ids.contains_key(*order)).count();
    ensure!(missing == 0, "{missing} of {} committed rows were not delivered", committed.len());
    ensure!(ids.len() == committed.len(), "{} orders arrived, {} were committed", ids.len(), committed.len());
    Ok(log.all().len())
}

fn seeded() -> Result<fastrand::Rng> {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED_VARIABLE} is a whole number"))?,
        Err(_) => fastrand::u64(..),
    };
    println!("repeat with {SEED_VARIABLE}={seed}");
    Ok(fastrand::Rng::with_seed(seed))
}
