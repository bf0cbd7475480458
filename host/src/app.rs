//! The one file that names concrete types: settings in, a running host out.

use std::collections::{BTreeSet, HashMap};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::dead_letter::Reason;
use crate::dispatcher::lane::{Attempted, Lane};
use crate::dispatcher::{ATTEMPTED_QUEUE_MAX, Dispatcher};
use crate::drain::{self, Drain, DrainHandle};
use crate::endpoint::{Endpoints, Network};
use crate::handover::Pressure;
use crate::handover::refill::refill;
use crate::inbox::gate::IntakeGate;
use crate::inbox::{Inbox, Intake, Once};
use crate::metrics::Metrics;
use crate::ops::socket::OpsSocket;
use crate::ops::{self, Operator};
use crate::outbox::{Outbox, RAN_QUEUE_MAX};
use crate::plugin::builds::Builds;
use crate::plugin::compiler::Compiler;
use crate::plugin::http::Outgoing;
use crate::plugin::pool::{Pool, Workers};
use crate::plugin::registry::{Registry, RegistryParts};
use crate::plugin::state::{SharedState, StateSource};
use crate::plugin::{Cleaning, Engine, Grant, Runtime, Services, WORKERS_MAX};
use crate::routes::SharedRoutes;
use crate::secret_files;
use crate::settings::{EndpointSettings, LimitsSettings, Order, Settings, SourceKind, SourceSettings};
use crate::source::pausable::Pausable;
use crate::source::{self, Source, SourceError, SourceState};
use crate::store::Store;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

mod background;
mod error;
mod look;
mod news;
mod sampler;
mod space;

pub use error::AppError;
pub use news::{Called, News};

use background::{
    Hooks, Housekeeping, Parts, beat, count_source, keep_health, obey_pauses, watch_builds, watch_clock, watch_plugins,
};
use look::SourceSwitch;
use sampler::Sampler;
use space::SpaceWatch;

/// The weight of work in the memory of direct queues together, above which intake waits. Below the room of a single queue, so that a
/// host that is merely busy never spills.
const PRESSURE_MAX: usize = 1024;

/// How long commands, health and housekeeping may take to end after the drain.
const SERVICES_DEADLINE: Duration = Duration::from_secs(5);

/// With `--exit-when-idle`: how often idleness is looked at.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// With `--exit-when-idle`: a source without an end counts as idle after this long without a message.
const SOURCE_IDLE_AFTER: Duration = Duration::from_secs(2);

/// How a host runs, besides its settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunOptions {
    /// End once every source is at its end or idle and no work is left.
    pub exit_when_idle: bool,
}

/// What a host did until it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RunReport {
    /// Dead letters that came to be during the run.
    pub dead_letters: u64,
    /// Whether everything in flight ended before the drain's deadline; what did not is in the store.
    pub drained: bool,
}

/// Runs a host until it is drained. The first signal begins the drain; the caller answers a second one.
///
/// # Errors
/// When the host can't start, or a source can't go on. Nothing is half-started: what was begun is drained.
pub async fn run(
    settings: Settings,
    options: RunOptions,
    clock: Arc<dyn Clock>,
    signal: impl Future<Output = ()> + Send,
) -> Result<RunReport, AppError> {
    run_watched(settings, options, clock, None, signal).await
}

/// As [`run`], and tells `watcher` what goes on. A watcher that does not listen holds the host up.
///
/// # Errors
/// As [`run`].
pub async fn run_watched(
    settings: Settings,
    options: RunOptions,
    clock: Arc<dyn Clock>,
    watcher: Option<mpsc::Sender<News>>,
    signal: impl Future<Output = ()> + Send,
) -> Result<RunReport, AppError> {
    let mut host = Host::start(settings, clock, watcher).await?;
    let ended = host.until(options, signal).await;
    let report = host.drain().await;
    ended.map(|()| report)
}

/// A running host: what has to be told to stop, and waited for.
struct Host {
    store: Arc<SqliteStore>,
    inbox: Arc<Inbox>,
    pool: Arc<Pool>,
    dispatcher: Arc<Dispatcher>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    sources: Sources,
    /// Ends intake and claims.
    intake: DrainHandle,
    /// Ends commands, health and housekeeping; last.
    service: DrainHandle,
    workers: Vec<JoinHandle<()>>,
    /// The outbox and the recorder; each ends when nothing can come to it any more.
    path: JoinSet<()>,
    /// Keeps the recorder at work where there is no lane, until the drain.
    attempted: Option<mpsc::Sender<Attempted>>,
    services: JoinSet<()>,
    drain_deadline: Duration,
}

type SourceTasks = JoinSet<Result<(), SourceError>>;

/// The sources as tasks.
struct Sources {
    tasks: SourceTasks,
    states: Vec<SourceState>,
}

/// A source before it runs.
struct Prepared {
    source: Pausable,
    switch: SourceSwitch,
}

impl Host {
    async fn start(
        settings: Settings,
        clock: Arc<dyn Clock>,
        watcher: Option<mpsc::Sender<News>>,
    ) -> Result<Self, AppError> {
        // What can be wrong with the machine is found out before anything is begun. The store's lock comes first: whoever
        // holds it holds the addresses too, and is named.
        let endpoints = Arc::new(Endpoints::new(&settings.endpoints, &settings.egress)?);
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"))?);
        let workers = workers(&settings);
        // It takes address space and the store syncs, each some milliseconds: the one is made beside the other.
        let (places, memory_reset) = (workers.total(), settings.plugins.memory_reset);
        let make_runtime = move || Runtime::new(places, Cleaning::under(memory_reset));
        let runtime = thread::Builder::new().name("runtime".to_owned()).spawn(make_runtime);
        let store = Arc::new(SqliteStore::open(store_options(&settings, &metrics, &clock), clock.now())?);
        metrics.dead_letters(Reason::HostCrash, store.dead_at_opening());
        let socket = OpsSocket::bind(&settings.store.path)?;
        let admin = admin::bind(settings.admin.listen, settings.admin.hosts.clone()).await?;
        let prepared = settings.sources.iter().map(|source| prepare(source, &settings.limits, &metrics));
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        let switches: Vec<_> = prepared.iter().map(|prepared| prepared.switch.clone()).collect();

        let (intake, drain) = drain::channel();
        let (service, service_drain) = drain::channel();
        let budget = Budget::new(settings.memory_bytes_max);
        let pressure = Arc::new(Pressure::within(PRESSURE_MAX, Arc::clone(&budget)));
        let gate = Arc::new(IntakeGate::default());
        let shared: Arc<dyn Store> = Arc::<SqliteStore>::clone(&store);

        let (attempted, attempts) = mpsc::channel(ATTEMPTED_QUEUE_MAX);
        let lanes = lanes(&settings, &endpoints, &metrics, &clock, &attempted);
        let dispatcher = Dispatcher::new(
            lanes,
            Arc::clone(&shared),
            Arc::clone(&clock),
            Arc::clone(&pressure),
            Arc::clone(&metrics),
        );
        let endpoint_names: Vec<_> = settings.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect();
        dispatcher.restore(&shared.enter_endpoints(endpoint_names.clone(), clock.now()).await?);

        let state: Arc<dyn StateSource> = SharedState::new(Arc::clone(&shared));
        let outgoing =
            Outgoing::new(Handle::current(), &Network::default(), &settings.plugins.listed, &settings.egress)?;
        let services = Services { state: Arc::clone(&state), outgoing: Arc::new(outgoing) };
        let pool = Pool::new(Arc::clone(&shared), Arc::clone(&clock), Arc::clone(&pressure), services, workers);
        let runtime = match runtime {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_no_thread) => make_runtime(),
        };
        let compiler = Compiler::child(settings.plugins.compile_cpu);
        let engine = Engine::of(runtime?, &cache_dir(&settings.store.path), compiler, Arc::clone(&clock))?;
        let builds_dir = builds_dir(&settings.store.path);
        let builds = Builds::open(&builds_dir).map_err(|source| AppError::Builds { dir: builds_dir, source })?;
        let routes = Arc::new(SharedRoutes::default());
        // What an operator has paused waits from the start.
        let paused = obey_pauses(&*shared, &switches).await?;
        let parts = RegistryParts {
            engine,
            settings: settings.plugins.clone(),
            endpoints: endpoint_names.clone(),
            ordered: ordered(&settings.endpoints),
            store: Arc::clone(&shared),
            pool: Arc::clone(&pool),
            routes: Arc::clone(&routes),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            builds: Arc::new(builds),
        };
        let registry = Arc::new(Registry::new(parts).with_paused(paused));
        // What is there is known, and its events are kept, before a source takes any; it is compiled beside all else.
        registry.scan().await?;

        let secret_files = endpoints.secret_files(&settings.endpoints);
        let (ran, runs) = mpsc::channel(RAN_QUEUE_MAX);
        let threads = pool.start(&ran).map_err(AppError::Thread)?;
        drop(ran);
        let outbox = Outbox {
            store: Arc::clone(&shared),
            pool: Arc::clone(&pool),
            state,
            dispatcher: Arc::clone(&dispatcher),
            endpoints: Arc::clone(&endpoints),
            metrics: Arc::clone(&metrics),
            plugin_metrics: HashMap::new(),
            clock: Arc::clone(&clock),
        };
        let inbox = Arc::new(Inbox {
            store: Arc::clone(&shared),
            pool: Arc::clone(&pool),
            dispatcher: Arc::clone(&dispatcher),
            pressure,
            gate: Arc::clone(&gate),
            routes,
            sources: intakes(&settings.sources, &metrics),
            event_bytes_max: settings.limits.event_bytes_max,
            once: Once::new(format!("{}-{}", clock.now().0, std::process::id())),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            unrouted: watcher.as_ref().map(news::of_unrouted),
            turn: tokio::sync::Mutex::default(),
        });
        let sources = Sources::start(prepared, &inbox, &drain);

        let mut services = JoinSet::new();
        services.spawn(refill(Arc::clone(&pool), Arc::clone(&clock), drain.clone()));
        services.spawn(refill(Arc::clone(&dispatcher), Arc::clone(&clock), drain.clone()));
        let (queues, lanes) = (Arc::clone(&pool), Arc::clone(&dispatcher));
        services.spawn(watch_clock(Arc::clone(&shared), queues, lanes, Arc::clone(&clock), drain.clone()));
        let plugins = &settings.plugins;
        services.spawn(watch_plugins(plugins.dir.clone(), plugins.dir_is_optional(), Arc::clone(&registry), drain));
        services.spawn(watch_builds(Arc::clone(&pool), Arc::clone(&registry), service_drain.clone()));
        services.spawn(secret_files::keep_reading(secret_files, service_drain.clone()));
        let space = SpaceWatch {
            store: Arc::clone(&store),
            gate: Arc::clone(&gate),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
            free_bytes_min: settings.store.free_bytes_min,
        };
        services.spawn(space.run(service_drain.clone()));
        services.spawn(beat(Arc::clone(&shared), Arc::clone(&clock), service_drain.clone()));
        services.spawn(keep_health(Arc::clone(&dispatcher), service_drain.clone()));
        let keeper = Housekeeping {
            store: Arc::clone(&shared),
            registry: Arc::clone(&registry),
            retention: settings.retention.clone(),
            plugins: settings.plugins.clone(),
            backlogs: settings.endpoints.iter().map(|it| (Arc::clone(&it.name), it.backlog)).collect(),
            dispatcher: Arc::clone(&dispatcher),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
            no_room_before: Duration::ZERO,
        };
        services.spawn(keeper.run(service_drain.clone()));
        let sampler = Sampler {
            store: Arc::clone(&shared),
            registry: Arc::clone(&registry),
            dispatcher: Arc::clone(&dispatcher),
            endpoints: endpoint_names.clone(),
            metrics: Arc::clone(&metrics),
            sampled: BTreeSet::new(),
            budget: Arc::clone(&budget),
        };
        services.spawn(sampler.run(service_drain.clone()));
        for state in &sources.states {
            services.spawn(count_source(state.clone(), Arc::clone(&metrics), service_drain.clone()));
        }
        let parts = Arc::new(Parts {
            registry: Arc::clone(&registry),
            endpoints: Arc::clone(&endpoints),
            dispatcher: Arc::clone(&dispatcher),
            states: sources.states.clone(),
            store: Arc::clone(&store),
            gate,
        });
        let (readiness, counted, ended) = (Arc::clone(&parts), Arc::clone(&metrics), service_drain.begun());
        services.spawn(admin.serve(readiness, counted, Arc::clone(&clock), ended));
        let hooks = Hooks {
            pool: Arc::clone(&pool),
            dispatcher: Arc::clone(&dispatcher),
            endpoints,
            clock: Arc::clone(&clock),
            parts,
            endpoint_names,
            sources: switches,
            metrics: Arc::clone(&metrics),
            budget,
            started_at: clock.now(),
            pausing: tokio::sync::Mutex::default(),
        };
        let operator = Operator { store: shared, hooks: Arc::new(hooks), clock: Arc::clone(&clock) };
        services.spawn(ops::server::serve(socket, operator, service_drain.begun()));

        let mut path = JoinSet::new();
        let (runs, attempts) = match watcher {
            None => (runs, attempts),
            Some(watcher) => {
                services.spawn(news::tell_ready(
                    sources.states.clone(),
                    Arc::clone(&registry),
                    watcher.clone(),
                    service_drain,
                ));
                let (passed, attempts_passed) = mpsc::channel(ATTEMPTED_QUEUE_MAX);
                path.spawn(news::tell_attempts(attempts, passed, watcher.clone()));
                let (passed, runs_passed) = mpsc::channel(RAN_QUEUE_MAX);
                path.spawn(news::tell_calls(runs, passed, watcher));
                (runs_passed, attempts_passed)
            }
        };
        path.spawn(outbox.run(runs));
        path.spawn(Arc::clone(&dispatcher).record(attempts));
        Ok(Self {
            path,
            attempted: Some(attempted),
            store,
            inbox,
            pool,
            dispatcher,
            registry,
            metrics,
            clock,
            sources,
            intake,
            service,
            workers: threads,
            services,
            drain_deadline: settings.limits.drain_deadline,
        })
    }

    async fn until(&mut self, options: RunOptions, signal: impl Future<Output = ()> + Send) -> Result<(), AppError> {
        let mut tasks = std::mem::take(&mut self.sources.tasks);
        let (mut path, mut services) = (std::mem::take(&mut self.path), std::mem::take(&mut self.services));
        let ended = tokio::select! {
            () = signal => Ok(()),
            failed = first_failure(&mut tasks) => Err(failed),
            // None of these ends before the drain, unless it panicked or the store's writer is gone.
            _ = path.join_next() => Err(AppError::PartEnded),
            _ = services.join_next() => Err(AppError::PartEnded),
            () = self.idle(), if options.exit_when_idle => Ok(()),
        };
        (self.sources.tasks, self.path, self.services) = (tasks, path, services);
        ended
    }

    /// Returns once nothing is left to do: every source at its end or quiet, nothing in memory, nothing due later.
    async fn idle(&self) {
        let mut accepted = (self.inbox.accepted(), self.clock.monotonic());
        loop {
            tokio::time::sleep(IDLE_POLL_INTERVAL).await;
            let now = self.clock.monotonic();
            if self.inbox.accepted() != accepted.0 {
                accepted = (self.inbox.accepted(), now);
            }
            let quiet = now.saturating_sub(accepted.1) >= SOURCE_IDLE_AFTER;
            let sources_done =
                self.sources.states.iter().map(SourceState::status).all(|it| it.is_done() || (it.connected && quiet));
            let sources_done = sources_done && self.registry.starting().is_none();
            if sources_done && self.pool.is_idle() && self.dispatcher.is_idle() {
                match self.store.is_idle(self.dispatcher.active()).await {
                    // Looked at in this order: what left the memory before is in the store by now.
                    Ok(idle) if idle && self.pool.is_idle() && self.dispatcher.is_idle() => return,
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "the store can't say whether it is idle"),
                }
            }
        }
    }

    /// Stops taking events, finishes what is in flight within the deadline, leaves the rest in the store.
    async fn drain(mut self) -> RunReport {
        tracing::info!(deadline_s = self.drain_deadline.as_secs_f64(), "draining");
        self.intake.begin();
        let finished = tokio::time::timeout(self.drain_deadline, self.finish()).await.is_ok();
        if !finished {
            tracing::warn!("the drain's deadline passed; what was in flight is done again after the next start");
        }
        self.service.begin();
        let services = async { while self.services.join_next().await.is_some() {} };
        if tokio::time::timeout(SERVICES_DEADLINE, services).await.is_err() {
            self.services.shutdown().await;
        }
        self.store.close().await;
        tracing::info!(drained = finished, "stopped");
        RunReport { dead_letters: self.metrics.died(), drained: finished }
    }

    async fn finish(&mut self) {
        // What compiles is for calls that will not be made.
        self.registry.stop().await;
        while self.sources.tasks.join_next().await.is_some() {}
        let runs = self.pool.stop();
        let threads = std::mem::take(&mut self.workers);
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a plugin worker ended with a panic");
        }
        // The outbox ends when the workers are gone and what they sent is durable; the recorder when the lanes have
        // stopped, so not before it.
        self.path.join_next().await;
        let deliveries = self.dispatcher.stop();
        self.attempted = None;
        if let Err(error) = self.store.release(runs, deliveries).await {
            tracing::warn!(%error, "claims could not be given back; the next start does");
        }
        while self.path.join_next().await.is_some() {}
        if let Err(error) = self.dispatcher.keep_health().await {
            tracing::warn!(%error, "the store did not keep how endpoints fare");
        }
    }
}

impl Sources {
    fn start(prepared: Vec<Prepared>, inbox: &Arc<Inbox>, drain: &Drain) -> Self {
        let mut tasks = JoinSet::new();
        let mut states = Vec::with_capacity(prepared.len());
        for Prepared { source, switch } in prepared {
            let (state, inbox, drain) = (switch.state.clone(), Arc::<Inbox>::clone(inbox), drain.clone());
            tasks.spawn(Box::new(source).run(inbox, state, drain));
            states.push(switch.state);
        }
        Self { tasks, states }
    }
}

/// A source with what pauses it. An address is taken from here on, so that a failure is seen before anything starts.
fn prepare(settings: &SourceSettings, limits: &LimitsSettings, metrics: &Metrics) -> Result<Prepared, SourceError> {
    let (wish, wished) = watch::channel(false);
    let first = source::build(settings, limits)?;
    let (again, limits) = (settings.clone(), limits.clone());
    let make = Box::new(move || source::build(&again, &limits));
    let state = SourceState::new(Arc::clone(&settings.name), settings.kind.name());
    let listens = matches!(settings.kind, SourceKind::Http { .. });
    Ok(Prepared {
        source: Pausable { first, make, wish: wished },
        switch: SourceSwitch {
            state: if listens { state.with_door(metrics.door(&format!("source {}", settings.name))) } else { state },
            keeps: settings.kind.keeps(),
            // What was read of standard input and not taken yet would be lost, and it can't be opened again.
            pausable: !matches!(settings.kind, SourceKind::Stdin),
            wish: Arc::new(wish),
        },
    })
}

/// Returns when a source can't go on. One that comes to its end is no failure.
async fn first_failure(sources: &mut SourceTasks) -> AppError {
    while let Some(ended) = sources.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return AppError::Source(error),
            Err(panicked) => return AppError::Panicked(panicked),
        }
    }
    std::future::pending().await
}

fn lanes(
    settings: &Settings,
    endpoints: &Endpoints,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
    attempted: &mpsc::Sender<Attempted>,
) -> HashMap<Arc<str>, Arc<Lane>> {
    let seed = clock.now().0.unsigned_abs() ^ (u64::from(std::process::id()) << 32);
    let lane = |(settings, index): (&EndpointSettings, u64)| {
        let endpoint = endpoints.get(&settings.name)?;
        let rng = fastrand::Rng::with_seed(seed.wrapping_add(index));
        let counts = metrics.endpoint(&settings.name);
        let lane = Lane::new(Arc::clone(endpoint), settings, counts, Arc::clone(clock), rng, attempted.clone());
        Some((Arc::clone(&settings.name), lane))
    };
    settings.endpoints.iter().zip(0..).filter_map(lane).collect()
}

fn ordered(endpoints: &[EndpointSettings]) -> Vec<Arc<str>> {
    let ordered = endpoints.iter().filter(|endpoint| endpoint.order == Order::Entity);
    ordered.map(|endpoint| Arc::clone(&endpoint.name)).collect()
}

fn intakes(sources: &[SourceSettings], metrics: &Metrics) -> HashMap<Arc<str>, Intake> {
    let intake = |source: &SourceSettings| {
        let intake = Intake {
            fields: source.fields.clone(),
            raw_subjects: source.raw_subjects,
            metrics: metrics.source(&source.name),
        };
        (Arc::clone(&source.name), intake)
    };
    sources.iter().map(intake).collect()
}

fn store_options(settings: &Settings, metrics: &Metrics, clock: &Arc<dyn Clock>) -> SqliteOptions {
    SqliteOptions {
        synchronous: settings.store.synchronous,
        commits: Some(metrics.commits.clone()),
        letters: Some(metrics.letters.clone()),
        dead_bytes_max: settings.retention.dead_bytes_max,
        clock: Arc::clone(clock),
        ..SqliteOptions::new(&settings.store.path)
    }
}

fn workers(settings: &Settings) -> Workers {
    let plugins = &settings.plugins;
    let computing = match plugins.workers {
        0 => thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
        workers => workers,
    };
    let makes_requests = plugins.listed.iter().any(|listed| listed.grants.contains(&Grant::Http));
    Workers { computing, waiting: if makes_requests { plugins.http_workers } else { 0 } }
}

/// Compiled plugins are kept beside the store, in a folder that only the host may read.
pub fn cache_dir(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".cache");
    name.into()
}

/// The last good builds of plugins are kept beside the store.
pub fn builds_dir(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".builds");
    name.into()
}
