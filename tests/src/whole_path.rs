//! The whole path in the test's own process, from the inbox to the endpoints, on a store that the test has opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use wirehook::clock::SystemClock;
use wirehook::delivery::RetryPolicy;
use wirehook::dispatcher::gate::GatePolicy;
use wirehook::dispatcher::lane::Lane;
use wirehook::dispatcher::{ATTEMPTED_QUEUE_MAX, Dispatcher};
use wirehook::drain::{self, DrainHandle};
use wirehook::endpoint::Endpoints;
use wirehook::event::decode::Fields;
use wirehook::handover::Pressure;
use wirehook::handover::refill::refill;
use wirehook::inbox::{Inbox, Intake, Once};
use wirehook::metrics::Metrics;
use wirehook::outbox::{Outbox, RAN_QUEUE_MAX};
use wirehook::plugin::Engine;
use wirehook::plugin::Services;
use wirehook::plugin::builds::Builds;
use wirehook::plugin::compiler::Compiler;
use wirehook::plugin::limits::SomeLimits;
use wirehook::plugin::pool::{Pool, Workers};
use wirehook::plugin::registry::{Registry, RegistryParts};
use wirehook::plugin::state::InMemory;
use wirehook::routes::SharedRoutes;
use wirehook::secret::Secret;
use wirehook::settings::{
    AccessSettings, Admit, BacklogSettings, EgressSettings, EndpointSettings, MemoryReset, Order, PluginsSettings,
    SignatureScheme,
};
use wirehook::store::Store;
use wirehook::store::sqlite::SqliteStore;

use crate::fake_endpoint::{FakeEndpoint, SECRET};

/// Threads that call plugins.
const WORKERS: usize = 2;

/// As the host has it.
const PRESSURE_MAX: usize = 1024;

/// The largest message accepted, in bytes.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// What several paths may share: the compiler, and the plugins' folder.
pub struct Plugins {
    engine: Arc<Engine>,
    folder: PathBuf,
}

impl Plugins {
    /// The plugins in `folder`, compiled into a folder beside it.
    pub fn new(folder: &Path) -> Result<Self> {
        let engine = Engine::new(WORKERS, &folder.with_extension("cache"), Compiler::InProcess, SystemClock::shared())?;
        Ok(Self { engine, folder: folder.to_owned() })
    }
}

/// Everything between a source and the endpoints, at work.
pub struct WholePath {
    /// What sources push into.
    pub inbox: Arc<Inbox>,
    store: Arc<SqliteStore>,
    pool: Arc<Pool>,
    dispatcher: Arc<Dispatcher>,
    intake: DrainHandle,
    threads: Vec<std::thread::JoinHandle<()>>,
    outbox: JoinHandle<()>,
    recorder: JoinHandle<()>,
    refills: JoinSet<()>,
}

impl WholePath {
    /// Starts the path on `store`, with one source called `source` and these endpoints by name.
    pub async fn start(
        store: Arc<SqliteStore>,
        plugins: &Plugins,
        source: &str,
        endpoints: &[(&str, &FakeEndpoint)],
    ) -> Result<Self> {
        let settings = endpoints.iter().map(|(name, endpoint)| endpoint_settings(name, endpoint));
        let settings = settings.collect::<Result<Vec<_>>>()?;
        let egress = EgressSettings { allow: vec!["127.0.0.0/8".parse()?], proxy: None };
        let endpoints = Arc::new(Endpoints::new(&settings, &egress)?);
        let clock = SystemClock::shared();
        let metrics = Arc::new(Metrics::new("test")?);
        let pressure = Arc::new(Pressure::new(PRESSURE_MAX));
        let shared: Arc<dyn Store> = Arc::<SqliteStore>::clone(&store);

        let (attempted, attempts) = mpsc::channel(ATTEMPTED_QUEUE_MAX);
        let mut lanes = HashMap::new();
        for (settings, seed) in settings.iter().zip(0..) {
            let endpoint = endpoints.get(&settings.name).context("an endpoint that was just built")?;
            let (counts, rng) = (metrics.endpoint(&settings.name), fastrand::Rng::with_seed(seed));
            let lane = Lane::new(Arc::clone(endpoint), settings, counts, Arc::clone(&clock), rng, attempted.clone());
            lanes.insert(Arc::clone(&settings.name), lane);
        }
        drop(attempted);
        let dispatcher = Dispatcher::new(
            lanes,
            Arc::clone(&shared),
            Arc::clone(&clock),
            Arc::clone(&pressure),
            Arc::clone(&metrics),
        );

        let pool = Pool::new(
            Arc::clone(&shared),
            Arc::clone(&clock),
            Arc::clone(&pressure),
            Services::default(),
            Workers::computing(WORKERS),
        );
        let routes = Arc::new(SharedRoutes::default());
        let registry = Arc::new(Registry::new(RegistryParts {
            engine: Arc::clone(&plugins.engine),
            settings: PluginsSettings {
                dir: plugins.folder.clone(),
                dir_is_default: false,
                routes: Vec::new(),
                admit: Admit::Any,
                workers: WORKERS,
                limits: SomeLimits::default(),
                backlog: BacklogSettings::default(),
                http_workers: 1,
                compile_cpu: Duration::from_secs(120),
                memory_reset: MemoryReset::default(),
                listed: Vec::new(),
            },
            endpoints: settings.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect(),
            ordered: Vec::new(),
            store: Arc::clone(&shared),
            pool: Arc::clone(&pool),
            routes: Arc::clone(&routes),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            builds: Arc::new(Builds::open(&plugins.folder.with_extension("builds"))?),
        }));
        registry.scan_to_the_end().await?;

        let (ran, runs) = mpsc::channel(RAN_QUEUE_MAX);
        let threads = pool.start(&ran)?;
        drop(ran);
        let outbox = Outbox {
            store: Arc::clone(&shared),
            pool: Arc::clone(&pool),
            state: Arc::new(InMemory::default()),
            dispatcher: Arc::clone(&dispatcher),
            endpoints,
            metrics: Arc::clone(&metrics),
            plugin_metrics: HashMap::new(),
            clock: Arc::clone(&clock),
        };
        let inbox = Arc::new(Inbox {
            store: shared,
            pool: Arc::clone(&pool),
            dispatcher: Arc::clone(&dispatcher),
            pressure,
            gate: Arc::default(),
            routes,
            sources: HashMap::from([(
                source.into(),
                Intake { fields: Fields::default(), raw_subjects: false, metrics: metrics.source(source) },
            )]),
            event_bytes_max: EVENT_BYTES_MAX,
            once: Once::new(clock.now().0.to_string()),
            clock: Arc::clone(&clock),
            metrics,
            unrouted: None,
            turn: tokio::sync::Mutex::default(),
        });
        let (intake, drain) = drain::channel();
        let mut refills = JoinSet::new();
        refills.spawn(refill(Arc::clone(&pool), Arc::clone(&clock), drain.clone()));
        refills.spawn(refill(Arc::clone(&dispatcher), clock, drain));
        Ok(Self {
            outbox: tokio::spawn(outbox.run(runs)),
            recorder: tokio::spawn(Arc::clone(&dispatcher).record(attempts)),
            inbox,
            store,
            pool,
            dispatcher,
            intake,
            threads,
            refills,
        })
    }

    /// Finishes what is under way, leaves the rest in the store and closes it; as the host's drain does.
    pub async fn stop(mut self) -> Result<()> {
        self.intake.begin();
        while self.refills.join_next().await.is_some() {}
        let runs = self.pool.stop();
        let threads = self.threads;
        tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok())).await?;
        self.outbox.await?;
        let deliveries = self.dispatcher.stop();
        self.store.release(runs, deliveries).await?;
        self.recorder.await?;
        self.store.close().await;
        Ok(())
    }
}

fn endpoint_settings(name: &str, endpoint: &FakeEndpoint) -> Result<EndpointSettings> {
    Ok(EndpointSettings {
        name: name.into(),
        url: endpoint.url().parse()?,
        secrets: vec![Secret::new(SECRET).into()],
        signature: SignatureScheme::Fraiseql,
        timeout: Duration::from_secs(15),
        concurrency: 4,
        headers: Vec::new(),
        access: AccessSettings::default(),
        retry: RetryPolicy { initial_delay: Duration::from_millis(10), multiplier: 1.0, ..RetryPolicy::default() },
        order: Order::None,
        backlog: BacklogSettings::default(),
        gate: GatePolicy::default(),
    })
}
