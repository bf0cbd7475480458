//! One repetition of a scenario, from a fresh bus and a fresh store to the last webhook.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};

use super::receiver::Receiver;
use super::scenario::{Scenario, Setting};
use super::{IN_FLIGHT, bare, child, deadline};
use crate::events::{self, PublishedEvent};
use crate::nats_server::NatsServer;
use crate::outbox_writer;
use crate::postgres_server::PostgresServer;
use crate::publisher::{HttpPublisher, StreamPublisher};
use crate::redis_server::RedisServer;
use crate::test_host::{HostFolderBuilder, PluginFile, TestHost};

/// How far core NATS publishing may be ahead of the receiver: a bus that can't wait must not overflow.
const WINDOW: usize = 4_096;

/// The same in bytes.
const WINDOW_BYTES: usize = 16 << 20;

/// Events in one `POST`, and between two looks at the window.
const ARRAY: usize = 64;

/// Clients that post arrays.
const ARRAY_CLIENTS: usize = 4;

/// Clients that post single events.
const SINGLE_CLIENTS: usize = 64;

/// Between two tries of a `POST` that the host could not take yet.
const BUSY_DELAY: Duration = Duration::from_millis(5);

/// The stream of a repetition.
pub const STREAM: &str = "EVENTS";

/// One repetition of one scenario.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From the first event's start to the last webhook's arrival.
    pub wall: Duration,
    /// CPU time of the subscriber's or the host's process meanwhile.
    pub cpu: Duration,
    /// Different webhooks that arrived.
    pub webhooks: usize,
    /// Requests beyond one for each webhook.
    pub repeated: usize,
    /// Bytes that the process has in memory at the end.
    pub resident_bytes: u64,
}

impl Measured {
    /// Webhooks a second.
    pub fn rate(&self) -> u64 {
        let micros = self.wall.as_micros().max(1);
        u64::try_from(self.webhooks as u128 * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    /// CPU time of a webhook, in microseconds.
    pub fn cpu_us(&self) -> u128 {
        self.cpu.as_micros() / (self.webhooks as u128).max(1)
    }
}

/// What the repetitions share.
#[derive(Debug)]
pub struct Bench<'a> {
    /// A folder on a real disk.
    pub folder: &'a Path,
    /// The receiver of every webhook.
    pub receiver: &'a Receiver,
    /// The host that is measured; this build's own where none.
    pub program: Option<&'a Path>,
}

/// One repetition's events and their setting.
struct Repetition<'a> {
    bench: &'a Bench<'a>,
    setting: Setting,
    events: Vec<PublishedEvent>,
    webhooks: usize,
}

impl Bench<'_> {
    /// Runs one repetition of `count` events.
    pub async fn run(&self, scenario: Scenario, setting: Setting, count: usize) -> Result<Measured> {
        let is_host = !matches!(scenario, Scenario::BareCore | Scenario::BareJetstream | Scenario::HandWritten(_));
        let webhooks = if is_host { count * setting.webhooks } else { count };
        let repetition = Repetition { bench: self, setting, events: setting.events(count), webhooks };
        self.receiver.expect(webhooks);
        let run = async {
            match scenario {
                Scenario::BareCore | Scenario::HandWritten(_) => repetition.core(scenario).await,
                Scenario::BareJetstream => repetition.bare_jetstream().await,
                Scenario::HostJetstream => repetition.host_jetstream().await,
                Scenario::HostRedisStream => repetition.host_redis_stream().await,
                Scenario::HostOutbox => repetition.host_outbox().await,
                Scenario::HostHttpArrays => repetition.host_http(ARRAY, ARRAY_CLIENTS).await,
                Scenario::HostHttpSingle => repetition.host_http(1, SINGLE_CLIENTS).await,
            }
        };
        run.await.with_context(|| format!("in the scenario `{}`", scenario.label()))
    }

    /// A host with as many deliveries under way as the plain subscriber, and its default settings otherwise: a fresh
    /// sandbox for each event, and a store that waits for the disk unless `setting` says something else.
    pub fn host(
        &self,
        setting: &Setting,
        source: impl FnOnce(HostFolderBuilder) -> HostFolderBuilder,
    ) -> Result<TestHost> {
        let url = self.receiver.url();
        let extra = format!("concurrency = {IN_FLIGHT}");
        let builder = TestHost::builder().within(self.folder);
        let builder = source(self.program.into_iter().fold(builder, HostFolderBuilder::program));
        let builder = builder.store_settings(&format!("synchronous = {:?}", setting.synchronous));
        if setting.webhooks > 1 {
            let endpoints = ["crm", "warehouse", "billing"].into_iter();
            let builder = endpoints.fold(builder, |builder, name| builder.endpoint_at(name, &url, &extra));
            return builder.plugin(PluginFile::example("fanout")?).build();
        }
        let plugin = PluginFile::example(setting.plugin)?.subscribed("fraiseql.order.*", "orders");
        builder.endpoint_at("orders", &url, &extra).plugin(plugin).build()
    }

    /// Starts `host`, lets `publish` fill its bus while it is stopped, and measures until the last of `webhooks`, which
    /// the receiver has to expect.
    pub async fn filled(
        &self,
        mut host: TestHost,
        webhooks: usize,
        publish: impl Future<Output = Result<()>>,
    ) -> Result<Measured> {
        host.start().await?;
        let meter = fill_while_stopped(host.pid()?, publish).await?;
        let measured = self.finish(&meter, webhooks).await?;
        retire(host).await?;
        Ok(measured)
    }

    async fn finish(&self, meter: &Meter, webhooks: usize) -> Result<Measured> {
        let (last_at, requests) = self.receiver.finished(deadline(webhooks)).await?;
        let cpu = child::cpu_time(meter.pid)?.saturating_sub(meter.cpu);
        let resident_bytes = child::resident_bytes(meter.pid)?;
        Ok(Measured { wall: last_at - meter.started, cpu, webhooks, repeated: requests - webhooks, resident_bytes })
    }
}

impl Repetition<'_> {
    async fn core(&self, scenario: Scenario) -> Result<Measured> {
        let nats = NatsServer::start().await?;
        let client = nats.client().await?;
        let receiver = self.bench.receiver;
        let subscriber = match scenario {
            Scenario::HandWritten(subscriber) => subscriber.start(&nats.url(), &receiver.url()).await?,
            _ => bare::start(&nats.url(), &receiver.url(), None).await?,
        };
        let meter = Meter::start(subscriber.id().context("the subscriber ended")?)?;
        let mut progress = receiver.progress();
        let window = WINDOW.min(WINDOW_BYTES / self.setting.bytes).max(2 * ARRAY);
        for (number, event) in self.events.iter().enumerate() {
            if number % ARRAY == 0 {
                client.flush().await?;
                let room = progress.wait_for(|&arrived| arrived + window > number + ARRAY);
                tokio::time::timeout(deadline(self.events.len()), room)
                    .await
                    .context("LOST: the subscriber stands still")??;
            }
            client.publish(event.subject.clone(), event.body.clone()).await?;
        }
        client.flush().await?;
        self.bench.finish(&meter, self.webhooks).await
    }

    async fn bare_jetstream(&self) -> Result<Measured> {
        let nats = NatsServer::start().await?;
        let publisher = StreamPublisher::create(&nats, STREAM).await?;
        let subscriber = bare::start(&nats.url(), &self.bench.receiver.url(), Some(STREAM)).await?;
        let pid = subscriber.id().context("the subscriber ended")?;
        let publish = publisher.publish_all(self.events.iter().cloned());
        let meter = fill_while_stopped(pid, publish).await?;
        self.bench.finish(&meter, self.webhooks).await
    }

    async fn host_jetstream(&self) -> Result<Measured> {
        let nats = NatsServer::start().await?;
        let publisher = StreamPublisher::create(&nats, STREAM).await?;
        let host = self.bench.host(&self.setting, |builder| builder.jetstream(&nats, STREAM))?;
        self.bench.filled(host, self.webhooks, publisher.publish_all(self.events.iter().cloned())).await
    }

    async fn host_redis_stream(&self) -> Result<Measured> {
        let redis = RedisServer::start().await?;
        let url = redis.url();
        let source = format!(
            "[[source]]\nname = \"bus\"\nkind = \"redis-stream\"\nurl = {url:?}\nstreams = [{STREAM:?}]\nstart = \"all\""
        );
        let host = self.bench.host(&self.setting, |builder| builder.settings(&source))?;
        let bodies = self.events.iter().map(|event| String::from_utf8_lossy(&event.body));
        self.bench.filled(host, self.webhooks, async { redis.add(STREAM, bodies).await.map(drop) }).await
    }

    async fn host_outbox(&self) -> Result<Measured> {
        let postgres = PostgresServer::start().await?;
        postgres.create_outbox().await?;
        postgres.notify_of_rows().await?;
        let url = postgres.url();
        let source = format!("[[source]]\nname = \"bus\"\nkind = \"postgres-outbox\"\nurl = {url:?}\nstart = \"all\"");
        let host = self.bench.host(&self.setting, |builder| builder.settings(&source))?;
        self.bench.filled(host, self.webhooks, outbox_writer::write_all(&postgres, &self.events)).await
    }

    async fn host_http(&self, array: usize, clients: usize) -> Result<Measured> {
        let source = HttpPublisher::new()?;
        let mut host = self.bench.host(&self.setting, |builder| builder.http(source.port, ""))?;
        host.start().await?;
        let bodies: Vec<Vec<u8>> = if array == 1 {
            self.events.iter().map(|event| event.body.to_vec()).collect()
        } else {
            self.events.chunks(array).map(|chunk| events::array(chunk.iter().cloned())).collect()
        };
        let meter = Meter::start(host.pid()?)?;
        let posts = stream::iter(bodies).map(|body| post_until_taken(&source, body)).buffer_unordered(clients);
        let posted = tokio::time::timeout(deadline(self.events.len()), posts.try_collect::<()>()).await;
        posted.context("the source takes no events")??;
        let measured = self.bench.finish(&meter, self.webhooks).await?;
        retire(host).await?;
        Ok(measured)
    }
}

/// Fills the bus while the consumer, ready and connected, is stopped by a signal; measuring begins when it goes on.
/// So publishing takes no CPU from what is measured, and starting is no part of it.
async fn fill_while_stopped(pid: u32, publish: impl Future<Output = Result<()>>) -> Result<Meter> {
    child::signal(pid, libc::SIGSTOP)?;
    let published = publish.await;
    let meter = Meter::start(pid);
    child::signal(pid, libc::SIGCONT)?;
    published?;
    meter
}

struct Meter {
    pid: u32,
    started: Instant,
    cpu: Duration,
}

impl Meter {
    fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, cpu: child::cpu_time(pid)?, started: Instant::now() })
    }
}

/// Posts until it is taken: 429 and 503 are the source's back-pressure.
async fn post_until_taken(source: &HttpPublisher, body: Vec<u8>) -> Result<()> {
    loop {
        let (status, text) = source.post(body.clone()).await?;
        match status {
            202 => return Ok(()),
            429 | 503 => tokio::time::sleep(BUSY_DELAY).await,
            _ => anyhow::bail!("the source answered {status}: {text}"),
        }
    }
}

/// The host must have lost nothing, left nothing undone and drain cleanly.
pub async fn retire(mut host: TestHost) -> Result<()> {
    host.expect_all_accounted().await?;
    let dead = host.dead_letters().await?;
    ensure!(dead.is_empty(), "LOST: {} dead letters, such as {:?}", dead.len(), dead.first());
    host.stop().await?;
    host.forget_logs();
    Ok(())
}
