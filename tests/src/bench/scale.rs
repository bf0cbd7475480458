//! What becomes of rate, memory and the time of a claim when more waits, for more endpoints, of more plugins, or after more
//! history.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wirehook::clock::SystemClock;
use wirehook::store::Store;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};

use super::run::{Bench, STREAM, retire};
use super::scenario::{Scenario, Setting};
use super::{IN_FLIGHT, child, deadline, many, quantile};
use crate::nats_server::NatsServer;
use crate::publisher::StreamPublisher;
use crate::store_fill::{self, BODY_BYTES, Filling};
use crate::test_host::{HostFolderBuilder, PluginFile, TestHost};

/// Claims that are timed, each of so many deliveries as a host has under way.
const CLAIMS: usize = 50;
/// Of a larger backlog so many are drained, which takes long enough to know the rate.
const DRAINED_MAX: usize = 1_000_000;
/// From this many on, what is written is small: a disk has an end.
const SMALL_FROM: usize = 5_000_000;
const SMALL_BODY_BYTES: usize = 64;
/// Between two looks at a host's memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How far it goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Deliveries that wait.
    backlogs: &'static [usize],
    /// Endpoints that a backlog is for, in equal parts.
    endpoints: &'static [usize],
    /// Plugins that each make a webhook of every event.
    plugins: &'static [usize],
    /// Deliveries that were made before.
    histories: &'static [usize],
    /// Webhooks where something else than the backlog grows.
    webhooks: usize,
}

impl Plan {
    /// What curves are drawn from.
    pub const FULL: Self = Self {
        backlogs: &[1_000, 10_000, 100_000, 1_000_000],
        endpoints: &[1, 10, 100, 1_000],
        plugins: &[1, 10, 50, 100],
        histories: &[1_000, 100_000, 1_000_000],
        webhooks: 20_000,
    };
    /// The same with ten million: a quarter of an hour more, and 15 GB of disk.
    pub const HUGE: Self = Self {
        backlogs: &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
        histories: &[1_000, 100_000, 1_000_000, 10_000_000],
        ..Self::FULL
    };
    /// Whether it works.
    pub const QUICK: Self = Self {
        backlogs: &[1_000, 10_000],
        endpoints: &[1, 10],
        plugins: &[1, 10],
        histories: &[1_000],
        webhooks: 2_000,
    };
}

/// One point of a curve.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// How many of what grows.
    pub count: usize,
    /// Webhooks a second.
    pub rate: u64,
    /// Bytes in memory at most, as far as it was seen.
    pub resident_bytes: u64,
    /// Median time to claim, where a backlog was there to be claimed from.
    pub claim: Duration,
}

/// Every curve.
#[derive(Clone, Default, Debug)]
pub struct Scale {
    /// Webhooks a second of events that come from JetStream in the same run.
    pub fresh_rate: u64,
    /// By deliveries that wait.
    pub backlogs: Vec<Point>,
    /// By endpoints.
    pub endpoints: Vec<Point>,
    /// By plugins.
    pub plugins: Vec<Point>,
    /// By deliveries made before.
    pub histories: Vec<Point>,
}

/// Measures every point once.
pub async fn measure(bench: &Bench<'_>, plan: &Plan) -> Result<Scale> {
    let fresh = bench.run(Scenario::HostJetstream, Setting::MAIN, plan.webhooks).await?;
    eprintln!("fresh from JetStream: {} webhooks/s", fresh.rate());
    let mut scale = Scale { fresh_rate: fresh.rate(), ..Scale::default() };
    for &waiting in plan.backlogs {
        scale.backlogs.push(shown("waiting", drain(bench, 1, waiting).await?.at(waiting)));
    }
    for &endpoints in plan.endpoints {
        scale.endpoints.push(shown("endpoints", drain(bench, endpoints, plan.webhooks).await?.at(endpoints)));
    }
    for &count in plan.plugins {
        scale.plugins.push(shown("plugins", plugins(bench, count, plan.webhooks).await?));
    }
    for &count in plan.histories {
        scale.histories.push(shown("in history", history(bench, count, plan.webhooks).await?));
    }
    Ok(scale)
}

impl Point {
    fn at(self, count: usize) -> Self {
        Self { count, ..self }
    }
}

fn shown(what: &str, point: Point) -> Point {
    let Point { count, rate, resident_bytes, claim } = point;
    eprintln!("{count} {what}: {rate} webhooks/s, {} MiB, a claim {claim:.0?}", resident_bytes >> 20);
    point
}

/// Fills a store with `waiting` deliveries to `endpoints` endpoints, times claims from it, and lets a host drain it.
async fn drain(bench: &Bench<'_>, endpoints: usize, waiting: usize) -> Result<Point> {
    let names: Vec<String> = (0..endpoints).map(|number| format!("orders-{number}")).collect();
    let (url, extra) = (bench.receiver.url(), format!("concurrency = {}", (IN_FLIGHT / endpoints).max(1)));
    let builder = TestHost::builder().within(bench.folder);
    let builder = names.iter().fold(builder, |builder, name| builder.endpoint_at(name, &url, &extra));
    let plugin = PluginFile::example("orders")?.subscribed("fraiseql.order.*", &names[0]);
    let mut host = builder.stdin().plugin(plugin).build()?;
    let filling = Filling { endpoints: names.iter().map(|name| name.as_str().into()).collect(), ..filling(waiting) };
    store_fill::waiting(&host.store_path(), &filling, waiting).await?;
    let claim = claim(&host.store_path(), &names[0]).await?;
    let drained = waiting.min(DRAINED_MAX);
    bench.receiver.expect(drained);
    host.start().await?;
    let pid = host.pid()?;
    let finished = bench.receiver.finished(deadline(drained));
    let (finished, resident_bytes) = while_looking(pid, finished).await?;
    let (last_at, _) = finished?;
    let first_at = bench.receiver.first_at().context("a webhook arrived")?;
    if drained == waiting {
        retire(host).await?;
    } else {
        host.kill9().await?;
    }
    Ok(Point { count: waiting, rate: rate(drained, last_at - first_at), resident_bytes, claim })
}

fn filling(count: usize) -> Filling {
    let body_bytes = if count < SMALL_FROM { BODY_BYTES } else { SMALL_BODY_BYTES };
    Filling { body_bytes, ..Filling::new("orders", "orders") }
}

/// Events from JetStream, to a host with `count` deliveries in its history, each with its attempt.
async fn history(bench: &Bench<'_>, count: usize, webhooks: usize) -> Result<Point> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, STREAM).await?;
    let host = bench.host(&Setting::MAIN, |builder| builder.jetstream(&nats, STREAM))?;
    store_fill::delivered(&host.store_path(), &filling(count), count).await?;
    bench.receiver.expect(webhooks);
    let measured = bench.filled(host, webhooks, publisher.publish_all(Setting::MAIN.events(webhooks))).await?;
    Ok(Point { count, rate: measured.rate(), resident_bytes: measured.resident_bytes, claim: Duration::ZERO })
}

/// The median time to claim as many deliveries to `endpoint` as a host has under way, of claims that are given up again.
async fn claim(path: &Path, endpoint: &str) -> Result<Duration> {
    let now = SystemClock::shared().now();
    let store = SqliteStore::open(SqliteOptions::new(path), now)?;
    let mut times = Vec::with_capacity(CLAIMS);
    for _ in 0..CLAIMS {
        let started = Instant::now();
        let claimed = store.claim_deliveries(endpoint.into(), IN_FLIGHT, now).await?;
        times.push(started.elapsed());
        store.release(Vec::new(), claimed.work.iter().map(|delivery| delivery.seq).collect()).await?;
    }
    store.close().await;
    Ok(quantile(&times, 0.5))
}

/// Events from JetStream, of each of which `count` plugins make a webhook: `webhooks` or a few less together.
async fn plugins(bench: &Bench<'_>, count: usize, webhooks: usize) -> Result<Point> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, STREAM).await?;
    let builder = TestHost::builder().within(bench.folder).jetstream(&nats, STREAM);
    let builder = builder.endpoint_at("orders", &bench.receiver.url(), &format!("concurrency = {IN_FLIGHT}"));
    let host = many::copies(count)?.into_iter().fold(builder, HostFolderBuilder::plugin).build()?;
    let events = Setting::MAIN.events(webhooks / count);
    let webhooks = events.len() * count;
    bench.receiver.expect(webhooks);
    let measured = bench.filled(host, webhooks, publisher.publish_all(events)).await?;
    Ok(Point { count, rate: measured.rate(), resident_bytes: measured.resident_bytes, claim: Duration::ZERO })
}

/// Waits for `work`, and returns with it the most that process `pid` was seen to have in memory meanwhile.
async fn while_looking<T>(pid: u32, work: impl Future<Output = T>) -> Result<(T, u64)> {
    tokio::pin!(work);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut most = child::resident_bytes(pid)?;
    loop {
        tokio::select! {
            done = &mut work => return Ok((done, most.max(child::resident_bytes(pid)?))),
            _ = looks.tick() => most = most.max(child::resident_bytes(pid)?),
        }
    }
}

fn rate(webhooks: usize, wall: Duration) -> u64 {
    u64::try_from(webhooks as u128 * 1_000_000 / wall.as_micros().max(1)).unwrap_or(u64::MAX)
}
