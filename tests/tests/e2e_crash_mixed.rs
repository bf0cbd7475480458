//! Random `kill -9` under mixed load: two buses, plugins that deliver, retry, reject, filter and fan out, endpoints that are
//! fine, flaky, slow and picky. After every kill and at the end the two equations of guarantee 2 hold exactly.
//!
//! Some twenty seconds; `cargo xtask test --full` makes it ten minutes. `WIREHOOK_TEST_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use wirehook_tests::account::Account;
use wirehook_tests::events::order_created;
use wirehook_tests::fake_endpoint::{Answer, Call, FakeEndpoint, Script};
use wirehook_tests::full;
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher, answer};
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::wait;

/// For how long there are kills.
const DURATION: Duration = Duration::from_secs(20);
const DURATION_FULL: Duration = Duration::from_secs(600);

/// Between the start of a host and its end.
const LIFE_MS: std::ops::Range<u64> = 300..3_000;

/// Events published and not yet seen by the fine endpoint at most: what is under way at a kill, and not a growing heap.
const AHEAD_MAX: usize = 300;

/// For what is left to be worked off.
const DEADLINE: Duration = Duration::from_secs(240);

/// Attempts of a delivery.
const ATTEMPTS_MAX: u64 = 12;

/// A share of the requests to the flaky endpoint, and of the webhooks for the picky one, in percent.
const FLAKY_PERCENT: u64 = 10;
const PICKY_PERCENT: u64 = 5;

/// Numbers of events that come over HTTP begin here.
const HTTP_FROM: usize = 10_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_equations_hold_after_every_kill() -> Result<()> {
    let seed = seed()?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::start().await?;
    let publishers = scene.publish();
    let ends_at = Instant::now() + if full::is_full() { DURATION_FULL } else { DURATION };
    let mut kills = 0;
    while Instant::now() < ends_at {
        scene.host.spawn(&[]).await?;
        tokio::time::sleep(Duration::from_millis(rng.u64(LIFE_MS))).await;
        scene.host.kill9().await?;
        kills += 1;
        if scene.host.store_path().exists() {
            Account::of_copy(&scene.host.store_path()).with_context(|| format!("after kill {kills}, seed {seed}"))?;
        }
        scene.host.forget_logs();
    }
    scene.load.stop.store(true, Ordering::SeqCst);
    scene.host.start().await?;
    for publisher in publishers {
        publisher.await??;
    }
    let published = scene.load.published.load(Ordering::SeqCst);
    let account =
        scene.worked_off().await.with_context(|| format!("{published} events, {kills} kills, seed {seed}"))?;
    println!("{published} events, {kills} kills: {account:?}");
    scene.expect_every_end(&account, published as u64, kills).with_context(|| format!("seed {seed}"))
}

struct Scene {
    host: TestHost,
    _nats: NatsServer,
    stream: StreamPublisher,
    web: HttpPublisher,
    endpoints: BTreeMap<&'static str, Arc<FakeEndpoint>>,
    load: Arc<Load>,
}

/// What the publishers and the test share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    published: AtomicUsize,
}

impl Scene {
    async fn start() -> Result<Self> {
        let nats = NatsServer::start().await?;
        let stream = StreamPublisher::create(&nats, "EVENTS").await?;
        let web = HttpPublisher::new()?;
        let scripts = [
            ("fine", Script::ok()),
            ("flaky", Script::by(|call| if flakes(call) { Answer::status(503) } else { Answer::ok() })),
            ("slow", Script::by(|_| Answer::ok().after(Duration::from_millis(40)))),
            ("picky", Script::by(|call| Answer::status(if picks(call.request.webhook_id()) { 400 } else { 200 }))),
        ];
        let mut endpoints = BTreeMap::new();
        let mut builder = TestHost::builder().jetstream(&nats, "EVENTS").http(web.port, "");
        for (name, script) in scripts {
            let endpoint = Arc::new(FakeEndpoint::start(script).await?);
            let retry = format!(
                "[endpoint.retry]\nmax_attempts = {ATTEMPTS_MAX}\ninitial_delay = \"50ms\"\nmultiplier = 1.5\nmax_delay = \"400ms\""
            );
            builder = builder.endpoint(name, &endpoint, &retry);
            endpoints.insert(name, endpoint);
        }
        let sidecar = |endpoints: &str, more: &str| {
            format!("subjects = [\"fraiseql.order.*\"]\nendpoints = [{endpoints}]\n[limits]\ndeadline = \"2s\"\n{more}")
        };
        let retry = "[retry]\nmax_attempts = 5\ninitial_delay = \"20ms\"\nmultiplier = 1.0\nmax_delay = \"1s\"\n";
        let config = "[config]\nendpoints = \"fine,flaky,slow,picky\"\n";
        let host = builder
            .plugin(PluginFile::example("orders")?.with_sidecar(&sidecar("\"fine\"", "")))
            .plugin(PluginFile::hostile("retry_twice")?.with_sidecar(&sidecar("\"flaky\"", retry)))
            .plugin(PluginFile::hostile("rejects")?.with_sidecar(&sidecar("\"fine\"", "")))
            .plugin(PluginFile::hostile("filters")?.with_sidecar(&sidecar("\"fine\"", "")))
            .plugin(
                PluginFile::hostile("fan_out")?
                    .with_sidecar(&sidecar("\"fine\", \"flaky\", \"slow\", \"picky\"", config)),
            )
            .build()?;
        Ok(Self { host, _nats: nats, stream, web, endpoints, load: Arc::default() })
    }

    /// Publishes to both buses until it is told to stop; what was begun is published to its end.
    fn publish(&self) -> Vec<tokio::task::JoinHandle<Result<()>>> {
        let fine = Arc::clone(&self.endpoints["fine"]);
        let (load, stream) = (Arc::clone(&self.load), self.stream.clone());
        let seen = Arc::clone(&fine);
        let bus = tokio::spawn(async move {
            let mut number = 0;
            while load.goes_on(&seen).await {
                stream.publish(order_created(number)).await?;
                load.published.fetch_add(1, Ordering::SeqCst);
                number += 1;
            }
            Ok(())
        });
        let (load, web) = (Arc::clone(&self.load), self.web.clone());
        let http = tokio::spawn(async move {
            let mut number = HTTP_FROM;
            while load.goes_on(&fine).await {
                post_until_accepted(&web, number).await?;
                load.published.fetch_add(1, Ordering::SeqCst);
                number += 1;
            }
            Ok(())
        });
        vec![bus, http]
    }

    /// Waits until nothing is left to do, stops the host, and counts.
    async fn worked_off(&mut self) -> Result<Account> {
        let published = self.load.published.load(Ordering::SeqCst);
        wait::until("every message to be acked", DEADLINE, async || {
            Ok((self.stream.unacked("EVENTS", "wirehook-bus").await? == 0).then_some(()))
        })
        .await?;
        let mut last = None;
        let idle = wait::until("every run and delivery to end", DEADLINE, async || {
            let status = self.host.json(&["status"]).await?.object()?["store"].clone();
            let open = |name: &str| {
                let rows = status[name].as_array().cloned().unwrap_or_default();
                let open = rows.iter().filter(|row| row["state"] == "pending" || row["state"] == "retrying");
                open.filter_map(|row| row["count"].as_u64()).sum::<u64>()
            };
            let idle = open("runs") == 0 && open("deliveries") == 0 && status["events"] == published as u64;
            last = Some(status);
            Ok(idle.then_some(()))
        })
        .await;
        idle.with_context(|| format!("the status was {last:?}"))?;
        self.host.expect_all_accounted().await?;
        self.host.stop().await?;
        Account::of_copy(&self.host.store_path())
    }

    /// Every event came to its end in every plugin, every webhook to its own, and the receivers agree.
    fn expect_every_end(&self, account: &Account, published: u64, kills: u64) -> Result<()> {
        ensure!(account.is_idle() && account.events == published, "{published} published: {account:?}");
        for (plugin, state) in [
            ("orders", "produced"),
            ("retry_twice", "produced"),
            ("fan_out", "produced"),
            ("rejects", "dead"),
            ("filters", "filtered"),
        ] {
            let found = account.runs_of(plugin, state);
            ensure!(found == published, "{found} of {published} runs of {plugin} are {state}: {account:?}");
        }
        for (endpoint, each) in [("fine", 2), ("flaky", 2), ("slow", 1), ("picky", 1)] {
            let (delivered, dead) =
                (account.deliveries_to(endpoint, "delivered"), account.deliveries_to(endpoint, "dead"));
            ensure!(delivered + dead == published * each, "{delivered} + {dead} to {endpoint}: {account:?}");
            self.expect_received(endpoint, delivered, dead, kills)?;
        }
        let expected = BTreeSet::from(["plugin_rejected", "status_4xx"]);
        let reasons: BTreeSet<_> = account.dead_letters.keys().map(String::as_str).collect();
        ensure!(reasons.is_subset(&expected), "something else died: {:?}", account.dead_letters);
        ensure!(account.attempts_most <= ATTEMPTS_MAX, "a delivery has {} attempts", account.attempts_most);
        Ok(())
    }

    /// The receiver has each webhook under one id with one body; more often than its budget only by kills.
    fn expect_received(&self, endpoint: &str, delivered: u64, dead: u64, kills: u64) -> Result<()> {
        self.endpoints[endpoint].look(|log| {
            let mut webhooks: BTreeMap<&str, (&Bytes, u64)> = BTreeMap::new();
            for request in log.all() {
                let (body, times) = webhooks.entry(request.webhook_id()).or_insert((&request.body, 0));
                ensure!(**body == request.body, "{} came with two bodies", request.webhook_id());
                *times += 1;
            }
            let ids = webhooks.len() as u64;
            ensure!(ids == delivered + dead, "{endpoint} received {ids} ids, of {delivered} delivered and {dead} dead");
            let refused = if endpoint == "picky" { webhooks.keys().filter(|id| picks(id)).count() as u64 } else { 0 };
            ensure!(refused == dead, "{endpoint} refused {refused} for good, and {dead} are dead");
            let most = webhooks.values().map(|(_, times)| *times).max().unwrap_or(0);
            ensure!(most <= ATTEMPTS_MAX + kills, "{endpoint} received one webhook {most} times");
            Ok(())
        })
    }
}

impl Load {
    /// Waits until little enough is under way. `false` once publishing is to end.
    async fn goes_on(&self, fine: &FakeEndpoint) -> bool {
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return false;
            }
            // Two plugins send each event there.
            let seen = fine.look(|log| log.ids()) / 2;
            if self.published.load(Ordering::SeqCst) < seen + AHEAD_MAX {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A sender whose request may be cut: it sends it again, under the same key, until it is told that it was taken.
async fn post_until_accepted(web: &HttpPublisher, number: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let request = web.request(order_created(number).body).header("idempotency-key", number.to_string());
        let said = answer(request).await;
        if said.as_ref().is_ok_and(|(status, _)| *status == 202) {
            return Ok(());
        }
        ensure!(began.elapsed() < DEADLINE, "event {number} was never accepted: {said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn hash(text: &str, salt: usize) -> u64 {
    text.bytes()
        .fold(salt as u64 + 17, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        .rotate_left(29)
}

fn flakes(call: &Call<'_>) -> bool {
    hash(call.request.webhook_id(), call.number) % 100 < FLAKY_PERCENT
}

fn picks(webhook_id: &str) -> bool {
    hash(webhook_id, 0) % 100 < PICKY_PERCENT
}

fn seed() -> Result<u64> {
    let seed = match std::env::var("WIREHOOK_TEST_SEED") {
        Ok(seed) => seed.parse().context("WIREHOOK_TEST_SEED is a whole number")?,
        Err(_) => fastrand::u64(..),
    };
    println!("repeat with WIREHOOK_TEST_SEED={seed}");
    Ok(seed)
}
