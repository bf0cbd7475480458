//! The outbox under load: eight writers that commit late or not at all, and a host that is killed.
//! A run of the long tests makes it long.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;
use wirehook_tests::events;
use wirehook_tests::fake_endpoint::{FakeEndpoint, RequestLog, Script};
use wirehook_tests::full::{self, is_full};
use wirehook_tests::outbox_writer::{OutboxWriter, RATE, measure, median};
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::postgres_server::pgbouncer::PgBouncer;
use wirehook_tests::store_file;
use wirehook_tests::test_host::{PluginFile, TestHost};

const WRITERS: usize = 8;
const KILLS: usize = 2;
/// Rows of each connection of an application that shares the host's pool, at least.
const INSERTS_MIN: usize = 200;
/// Between two of them.
const INSERT_PAUSE: Duration = Duration::from_millis(10);
/// For everything to arrive, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(900);
/// Rounds without a host, each followed by one with it.
const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_secs(10);
/// How much the median latency of a commit may rise.
const FACTOR_MAX: f64 = 1.10;
/// Set to repeat a run, as far as the machine lets it be repeated.
const SEED_VARIABLE: &str = "WIREHOOK_TEST_SEED";

const ROLE: &str = "CREATE ROLE reader LOGIN PASSWORD 'open sesame'; GRANT USAGE ON SCHEMA core TO reader; \
    GRANT SELECT ON core.tb_entity_change_log TO reader";

async fn outbox() -> Result<PostgresServer> {
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    server.notify_of_rows().await?;
    server.client().await?.batch_execute(ROLE).await?;
    Ok(server)
}

fn host(server: &PostgresServer, endpoint: &FakeEndpoint) -> Result<TestHost> {
    host_at(&server.url_as("reader"), endpoint)
}

fn host_at(url: &str, endpoint: &FakeEndpoint) -> Result<TestHost> {
    TestHost::builder()
        .settings(&format!(
            "[[source]]\nname = \"bus\"\nkind = \"postgres-outbox\"\nurl = {url:?}\npassword = {{ env = \"READER\" }}\nstart = \"all\""
        ))
        .variable("READER", "open sesame")
        .endpoint("orders", endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()
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
        let writer = OutboxWriter::new(&server, index).await?;
        writers.spawn(writer.write_late(rows / WRITERS, rng.fork()));
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

/// Row after row by one connection through the pooler, until told to stop; the orders. The first that fails ends it.
async fn insert_until(pooler: &PgBouncer, index: usize, stop: Arc<AtomicBool>) -> Result<Vec<String>> {
    let client = pooler.client_as("reader").await?;
    let mut orders = Vec::new();
    while !stop.load(Ordering::Relaxed) || orders.len() < INSERTS_MIN {
        let order = events::entity_id(index * 1_000_000 + orders.len());
        let insert = format!(
            "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data) VALUES \
             ('Order', 'INSERT', '{order}', '{{\"id\": \"{order}\", \"customer_email\": \"ada@example.com\", \"total\": 129.5}}')"
        );
        client.batch_execute(&insert).await.with_context(|| format!("insert {} of {index}", orders.len()))?;
        orders.push(order);
        tokio::time::sleep(INSERT_PAUSE).await;
    }
    Ok(orders)
}

/// What both connections of the pool have that its next user would meet. They are two because both are in a transaction.
async fn left_behind(pooler: &PgBouncer) -> Result<Vec<String>> {
    const LEFT_BEHIND: &str = "\
        SELECT name || ' = ' || setting FROM pg_settings WHERE source = 'session' \
            AND name NOT IN ('application_name', 'client_encoding') \
        UNION ALL SELECT 'read-only' WHERE current_setting('default_transaction_read_only') = 'on' \
        UNION ALL SELECT 'listens to ' || pg_listening_channels() \
        UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements WHERE name <> '' \
        UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> '' \
        UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
        UNION ALL SELECT 'temporary objects' WHERE pg_my_temp_schema() <> 0";
    let clients = [pooler.client_as("reader").await?, pooler.client_as("reader").await?];
    let mut left = Vec::new();
    for client in &clients {
        client.batch_execute("BEGIN").await?;
    }
    for client in &clients {
        let said = client.simple_query(LEFT_BEHIND).await?;
        left.extend(said.iter().filter_map(|said| match said {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }));
    }
    for client in &clients {
        client.batch_execute("COMMIT").await?;
    }
    Ok(left)
}

/// The application and the host are one role, and the pooler has two connections for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_of_the_same_pool_writes_on_whatever_becomes_of_the_host() -> Result<()> {
    let server = outbox().await?;
    let grant =
        "GRANT INSERT ON core.tb_entity_change_log TO reader; GRANT USAGE ON ALL SEQUENCES IN SCHEMA core TO reader";
    server.client().await?.batch_execute(grant).await?;
    let pooler = PgBouncer::start(&server, "transaction", &[("reader", "open sesame")], &[]).await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = host_at(&pooler.url_as("reader"), &endpoint)?;
    let stop = Arc::new(AtomicBool::new(false));
    let pooler = Arc::new(pooler);
    let mut writers = JoinSet::new();
    for index in 0..2 {
        let (pooler, stop) = (Arc::clone(&pooler), Arc::clone(&stop));
        writers.spawn(async move { insert_until(&pooler, index, stop).await });
    }
    let arrived = async |rows: usize| endpoint.wait_for("webhooks", DEADLINE, |log| log.ids() >= rows).await;
    host.start().await?;
    arrived(20).await?;
    host.kill9().await?;
    ensure!(left_behind(&pooler).await?.is_empty(), "after a kill: {:?}", left_behind(&pooler).await?);
    host.start().await?;
    arrived(60).await?;
    // Its transactions fail, and those of the application do not.
    let client = server.client().await?;
    client.batch_execute("REVOKE SELECT ON core.tb_entity_change_log FROM reader").await?;
    host.logs().wait_for("may not read the table", DEADLINE).await?;
    client.batch_execute("GRANT SELECT ON core.tb_entity_change_log TO reader").await?;
    arrived(100).await?;
    host.stop().await?;
    ensure!(left_behind(&pooler).await?.is_empty(), "after a stop: {:?}", left_behind(&pooler).await?);
    stop.store(true, Ordering::Relaxed);
    let mut committed = HashSet::new();
    while let Some(written) = writers.join_next().await {
        committed.extend(written??);
    }
    host.start().await?;
    arrived(committed.len()).await?;
    endpoint.look(|log| expect_one_id_for_each(log, &committed))?;
    host.stop().await
}

/// With all that a host does: its store on the disk of the database, its plugin, its requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_costs_the_writers_little() -> Result<()> {
    if !full::wanted("what a host costs the writers of its outbox") {
        return Ok(());
    }
    let server = outbox().await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = host(&server, &endpoint)?;
    let arrived = async |rows| endpoint.wait_for("every row's webhook", DEADLINE, |log| log.ids() >= rows).await;
    let mut writers = Vec::new();
    for index in 0..WRITERS {
        writers.push(OutboxWriter::new(&server, index).await?);
    }
    let (mut without, mut with, mut rows) = (Vec::new(), Vec::new(), 0);
    // In turns, so that what else the machine does meets both alike; the first round warms up.
    for round in 0..=ROUNDS {
        let alone = measure(&mut writers, ROUND).await?;
        rows += alone.len();
        host.start().await?;
        arrived(rows).await?;
        let beside = measure(&mut writers, ROUND).await?;
        rows += beside.len();
        arrived(rows).await?;
        host.stop().await?;
        if round > 0 {
            without.extend(alone);
            with.extend(beside);
        }
    }
    let (without, with) = (median(without), median(with));
    let factor = with.as_secs_f64() / without.as_secs_f64();
    println!(
        "{} commits/s: median {without:.2?} without a host, {with:.2?} with it: × {factor:.3}",
        RATE as usize * WRITERS
    );
    ensure!(factor <= FACTOR_MAX, "the median latency of commits rose from {without:?} to {with:?}: × {factor:.3}");
    Ok(())
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
