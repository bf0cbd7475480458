//! The ways from a bus to the receiver that are compared.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};

use super::receiver::Receiver;
use super::{IN_FLIGHT, bare, child, deadline};
use crate::events::{self, PublishedEvent};
use crate::nats_server::NatsServer;
use crate::publisher::{HttpPublisher, StreamPublisher};
use crate::test_host::{PluginFile, TestHost};

/// How far core NATS publishing may be ahead of the receiver: a bus that can't wait must not overflow.
const WINDOW: usize = 4_096;

/// Events in one `POST`.
const ARRAY: usize = 64;

/// Clients that post arrays.
const ARRAY_CLIENTS: usize = 4;

/// Clients that post single events.
const SINGLE_CLIENTS: usize = 64;

/// Between two tries of a `POST` that the host could not take yet.
const BUSY_DELAY: Duration = Duration::from_millis(5);

const STREAM: &str = "EVENTS";

/// One way from a bus to the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// The plain subscriber on core NATS: what everything is compared with.
    BareCore,
    /// The plain subscriber on JetStream, acking after the response.
    BareJetstream,
    /// The host on JetStream.
    HostJetstream,
    /// The host's `http` source, in arrays.
    HostHttpArrays,
    /// The host's `http` source, one event a request.
    HostHttpSingle,
}

impl Scenario {
    /// In the order of the report; the first is the measure of the others.
    pub const ALL: [Self; 5] =
        [Self::BareCore, Self::BareJetstream, Self::HostJetstream, Self::HostHttpArrays, Self::HostHttpSingle];

    /// For the report.
    pub fn label(self) -> &'static str {
        match self {
            Self::BareCore => "plain subscriber, core NATS",
            Self::BareJetstream => "plain subscriber, JetStream with acks",
            Self::HostJetstream => "wirehook, JetStream",
            Self::HostHttpArrays => "wirehook, http, arrays of 64",
            Self::HostHttpSingle => "wirehook, http, single events",
        }
    }

    /// For the line of JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::BareCore => "bare_core",
            Self::BareJetstream => "bare_jetstream",
            Self::HostJetstream => "host_jetstream",
            Self::HostHttpArrays => "host_http_arrays",
            Self::HostHttpSingle => "host_http_single",
        }
    }
}

/// One repetition of one scenario.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From the first event's start to the last webhook's arrival.
    pub wall: Duration,
    /// CPU time of the subscriber's or the host's process meanwhile.
    pub cpu: Duration,
    /// Requests beyond one for each event.
    pub repeated: usize,
}

/// What the repetitions share.
#[derive(Debug)]
pub struct Bench<'a> {
    /// A folder on a real disk.
    pub folder: &'a Path,
    /// The receiver of every webhook.
    pub receiver: &'a Receiver,
    /// The events of one repetition.
    pub events: Vec<PublishedEvent>,
}

impl Bench<'_> {
    /// Runs one repetition, from a fresh bus and a fresh store to the last webhook.
    pub async fn run(&self, scenario: Scenario) -> Result<Measured> {
        self.receiver.expect(self.events.len());
        let run = async {
            match scenario {
                Scenario::BareCore => self.bare_core().await,
                Scenario::BareJetstream => self.bare_jetstream().await,
                Scenario::HostJetstream => self.host_jetstream().await,
                Scenario::HostHttpArrays => self.host_http(ARRAY, ARRAY_CLIENTS).await,
                Scenario::HostHttpSingle => self.host_http(1, SINGLE_CLIENTS).await,
            }
        };
        run.await.with_context(|| format!("in the scenario `{}`", scenario.label()))
    }

    async fn bare_core(&self) -> Result<Measured> {
        let nats = NatsServer::start().await?;
        let client = nats.client().await?;
        let subscriber = bare::start(&nats.url(), &self.receiver.url(), None).await?;
        let meter = Meter::start(subscriber.id().context("the subscriber ended")?)?;
        let mut progress = self.receiver.progress();
        for (number, event) in self.events.iter().enumerate() {
            if number % ARRAY == 0 {
                client.flush().await?;
                let room = progress.wait_for(|&arrived| arrived + WINDOW > number + ARRAY);
                tokio::time::timeout(deadline(self.events.len()), room)
                    .await
                    .context("LOST: the subscriber stands still")??;
            }
            client.publish(event.subject.clone(), event.body.clone()).await?;
        }
        client.flush().await?;
        self.finish(&meter).await
    }

    async fn bare_jetstream(&self) -> Result<Measured> {
        let nats = NatsServer::start().await?;
        let publisher = StreamPublisher::create(&nats, STREAM).await?;
        let subscriber = bare::start(&nats.url(), &self.receiver.url(), Some(STREAM)).await?;
        let pid = subscriber.id().context("the subscriber ended")?;
        let meter = self.preload_while_stopped(pid, &publisher).await?;
        self.finish(&meter).await
    }

    async fn host_jetstream(&self) -> Result<Measured> {
        let nats = NatsServer::start().await?;
        let publisher = StreamPublisher::create(&nats, STREAM).await?;
        let mut host = self.host(|builder| builder.jetstream(&nats, STREAM))?;
        host.start().await?;
        let meter = self.preload_while_stopped(host.pid()?, &publisher).await?;
        let measured = self.finish(&meter).await?;
        retire(host).await?;
        Ok(measured)
    }

    async fn host_http(&self, array: usize, clients: usize) -> Result<Measured> {
        let source = HttpPublisher::new()?;
        let mut host = self.host(|builder| builder.http(source.port, ""))?;
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
        let measured = self.finish(&meter).await?;
        retire(host).await?;
        Ok(measured)
    }

    /// A host with the example plugin, as many deliveries under way as the plain subscriber, and its default settings:
    /// a fresh sandbox for each event and a store that waits for the disk.
    fn host(
        &self,
        source: impl FnOnce(crate::test_host::HostFolderBuilder) -> crate::test_host::HostFolderBuilder,
    ) -> Result<TestHost> {
        source(TestHost::builder().within(self.folder))
            .endpoint_at("orders", &self.receiver.url(), &format!("concurrency = {IN_FLIGHT}"))
            .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
            .build()
    }

    /// Fills the stream while the consumer, ready and connected, is stopped by a signal; measuring begins when it goes on.
    /// So publishing takes no CPU from what is measured, and starting is no part of it.
    async fn preload_while_stopped(&self, pid: u32, publisher: &StreamPublisher) -> Result<Meter> {
        child::signal(pid, libc::SIGSTOP)?;
        let published = publisher.publish_all(self.events.iter().cloned()).await;
        let meter = Meter::start(pid);
        child::signal(pid, libc::SIGCONT)?;
        published?;
        meter
    }

    async fn finish(&self, meter: &Meter) -> Result<Measured> {
        let (last_at, requests) = self.receiver.finished(deadline(self.events.len())).await?;
        let cpu = child::cpu_time(meter.pid)?.saturating_sub(meter.cpu);
        Ok(Measured { wall: last_at - meter.started, cpu, repeated: requests - self.events.len() })
    }
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
async fn retire(mut host: TestHost) -> Result<()> {
    host.expect_all_accounted().await?;
    let dead = host.dead_letters().await?;
    ensure!(dead.is_empty(), "LOST: {} dead letters, such as {:?}", dead.len(), dead.first());
    host.stop().await?;
    host.forget_logs();
    Ok(())
}
