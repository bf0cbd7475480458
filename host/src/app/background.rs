//! What goes on beside the path while a host runs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::look::{self, SourceSwitch, endpoints_in_short, plugins_in_short};
use super::sampler::add_waiting;
use crate::admin::{Part, Readiness};
use crate::budget::Budget;
use crate::clock::{Clock, ClockStep, StepWatch, Timestamp};
use crate::dead_letter::Reason;
use crate::dispatcher::Dispatcher;
use crate::drain::Drain;
use crate::endpoint::{Endpoints, TestReport};
use crate::handover::refill::Refill as _;
use crate::inbox::gate::IntakeGate;
use crate::metrics::Metrics;
use crate::ops::endpoints::Lanes;
use crate::ops::{HostStatus, OpsHooks};
use crate::plugin::limits::{Held, hold};
use crate::plugin::pool::Pool;
use crate::plugin::registry::{Fault, Registry, Starting, Status};
use crate::settings::{BacklogSettings, PluginsSettings, RetentionSettings};
use crate::source::SourceState;
use crate::store::sqlite::SqliteStore;
use crate::store::{
    Backlog, BacklogBounds, DeliveryFilter, DeliverySeq, EndpointBacklog, EndpointChange, EndpointChanged, Forgotten,
    ParkedFate, PauseKind, Redriven, Retention, Store, StoreError,
};
use crate::sync::may_block;
use crate::watch::FolderWatch;

/// How often the host tells the store that it is alive; its claims outlive several missed ones.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How often what is past its retention is deleted, and parked runs of loaded plugins are looked for.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(30);

/// How long a store stays over its bound in which nothing is finished, before all of it is looked through again.
const NO_ROOM_DELAY: Duration = Duration::from_mins(10);

/// How often names are made quick to find in one housekeeping: a million events. The rest has to wait for the next.
const INDEX_STEPS_MAX: usize = 256;

/// How long until a folder that could not be watched is tried again.
const WATCH_RETRY_DELAY: Duration = Duration::from_secs(10);

/// Says that this host is alive.
pub(super) async fn beat(store: Arc<dyn Store>, clock: Arc<dyn Clock>, drain: Drain) {
    while wait(HEARTBEAT_INTERVAL, &drain).await {
        if let Err(error) = store.heartbeat(clock.now()).await {
            tracing::error!(%error, "the store did not take the heartbeat");
        }
    }
}

/// How often the clock is looked at.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Where the wall clock is set back, has what waits be due earlier by as much, so that nothing waits an hour for an
/// instant.
pub(super) async fn watch_clock(
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
    dispatcher: Arc<Dispatcher>,
    clock: Arc<dyn Clock>,
    drain: Drain,
) {
    let mut watch = StepWatch::new(&*clock);
    // What the store has not been told yet.
    let mut untold = Duration::ZERO;
    while wait(CLOCK_INTERVAL, &drain).await {
        match watch.look(&*clock) {
            Some(ClockStep::Back(back)) => {
                tracing::warn!(
                    back_s = back.as_secs_f64(),
                    "the clock was set back; what waits is due earlier by as much"
                );
                untold += back;
            }
            Some(ClockStep::Forward(forward)) => {
                tracing::warn!(
                    forward_s = forward.as_secs_f64(),
                    "the clock was set forward; what falls due by that is due"
                );
            }
            None => {}
        }
        if untold.is_zero() {
            continue;
        }
        match store.clock_went_back(untold, clock.now()).await {
            Ok(()) => {
                untold = Duration::ZERO;
                pool.look_again();
                dispatcher.look_again();
                pool.changed().notify_one();
                dispatcher.changed().notify_one();
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be told that the clock was set back; trying again");
            }
        }
    }
}

/// How often it is kept how endpoints fare; what came after the last time is forgotten in a crash.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps how endpoints fare.
pub(super) async fn keep_health(dispatcher: Arc<Dispatcher>, drain: Drain) {
    while wait(HEALTH_INTERVAL, &drain).await {
        if let Err(error) = dispatcher.keep_health().await {
            tracing::error!(%error, "the store did not keep how endpoints fare; trying again");
        }
    }
}

/// Looks into the plugins folder whenever it changed, and when the registry has a reason to. A folder that is not there is
/// looked for again and again, without a word where it `is_optional`.
pub(super) async fn watch_plugins(dir: PathBuf, is_optional: bool, registry: Arc<Registry>, drain: Drain) {
    let mut missing = is_optional;
    loop {
        let mut folder = match may_block(|| FolderWatch::new(&dir)) {
            Ok(folder) => folder,
            Err(error) => {
                if !missing {
                    tracing::warn!(dir = %dir.display(), %error, "the plugins folder can't be watched; trying again");
                }
                missing = true;
                tokio::select! {
                    () = drain.begun() => return,
                    () = tokio::time::sleep(WATCH_RETRY_DELAY) => {}
                    // It may be there and only the watch be refused: what is in it is looked at all the same.
                    () = registry.due() => look_into(&registry).await,
                }
                continue;
            }
        };
        missing = false;
        // What came between the last look and the first watch.
        let mut watched = true;
        while watched {
            look_into(&registry).await;
            tokio::select! {
                () = drain.begun() => return,
                still_there = folder.changed() => watched = still_there,
                () = registry.due() => {}
            }
        }
    }
}

async fn look_into(registry: &Arc<Registry>) {
    if let Err(error) = registry.scan().await {
        tracing::error!(%error, "the plugins folder changed and the store could not be told; trying again");
    }
}

/// How long after a rollback what the bad build killed last is put back to work.
const AFTER_ROLLBACK: Duration = Duration::from_secs(2);

/// Takes builds from work that fail so much more than the ones before them.
pub(super) async fn watch_builds(pool: Arc<Pool>, registry: Arc<Registry>, drain: Drain) {
    loop {
        let condemned = tokio::select! {
            () = drain.begun() => return,
            condemned = pool.condemned() => condemned,
        };
        for plugin in condemned {
            if let Err(error) = registry.roll_back(&plugin).await {
                tracing::error!(plugin = %plugin.name, %error, "the rollback was not finished; it is at the next housekeeping");
            }
        }
        // Calls of the bad build were under way: what they killed is looked for again. Housekeeping does so later too.
        if !wait(AFTER_ROLLBACK, &drain).await {
            return;
        }
        if let Err(error) = registry.settle().await {
            tracing::error!(%error, "the store could not be told of the rollback; housekeeping tries again");
        }
    }
}

/// Deletes what is past its age, keeps gauges true.
pub(super) struct Housekeeping {
    pub(super) store: Arc<dyn Store>,
    pub(super) registry: Arc<Registry>,
    pub(super) retention: RetentionSettings,
    /// Says what may wait for a plugin.
    pub(super) plugins: PluginsSettings,
    /// What may wait for each endpoint.
    pub(super) backlogs: Vec<(Arc<str>, BacklogSettings)>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    /// Not before this moment is room made again: the last time there was nothing left to delete.
    pub(super) no_room_before: Duration,
}

impl Housekeeping {
    pub(super) async fn run(mut self, drain: Drain) {
        while wait(HOUSEKEEPING_INTERVAL, &drain).await {
            if let Err(error) = self.keep(&drain).await {
                tracing::error!(%error, "the store could not be tidied; trying again later");
            }
        }
    }

    async fn keep(&mut self, drain: &Drain) -> Result<(), StoreError> {
        let now = self.clock.now();
        let RetentionSettings { delivered, dead, dedup, .. } = self.retention;
        while self.store.sweep(Retention { delivered, dead, dedup }).await? && !drain.is_draining() {
            tokio::task::yield_now().await;
        }
        self.make_room(drain).await?;
        for _ in 0..INDEX_STEPS_MAX {
            if drain.is_draining() || !self.store.index_some().await? {
                break;
            }
        }
        self.registry.settle().await?;
        self.expire(now).await?;
        let status = self.store.status(now).await?;
        self.metrics.events_unaccounted.set(i64::try_from(status.events_unaccounted).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl Housekeeping {
    /// Makes dead letters of what has waited for too long.
    async fn expire(&self, now: Timestamp) -> Result<(), StoreError> {
        let plugins = self.registry.statuses().into_iter();
        let runs = plugins.map(|(name, _)| (self.plugins.backlog_of(&name).age, Backlog::Runs(name)));
        let deliveries = self.backlogs.iter().map(|(name, of)| (of.age, Backlog::Deliveries(Arc::clone(name))));
        let mut any = false;
        for (age, backlog) in runs.chain(deliveries) {
            let expired = self.store.expire(backlog.clone(), age, now).await?;
            if expired > 0 {
                let reason = Reason::BacklogFull;
                tracing::error!(?backlog, expired, %reason, "what waited for longer than `[backlog] age` is dead letters");
                self.metrics.dead_letters(reason, expired);
                any = true;
            }
        }
        if any {
            // What was behind them in their order is due now.
            self.dispatcher.look_again();
            self.dispatcher.changed().notify_one();
        }
        Ok(())
    }

    /// Deletes the oldest finished events where the store is over its bound.
    async fn make_room(&mut self, drain: &Drain) -> Result<(), StoreError> {
        if self.clock.monotonic() < self.no_room_before {
            return Ok(());
        }
        let bytes_max = self.retention.bytes_max;
        while self.store.shrink(bytes_max).await? && !drain.is_draining() {
            tokio::task::yield_now().await;
        }
        let bytes = self.store.bytes().await?;
        if bytes > bytes_max {
            self.no_room_before = self.clock.monotonic() + NO_ROOM_DELAY;
            tracing::warn!(
                bytes,
                bytes_max,
                "the store is over [retention] max_bytes, and all that is finished is deleted: what is left waits, or is a dead letter"
            );
        }
        Ok(())
    }
}

/// Keeps one source's metrics at what its state says.
pub(super) async fn count_source(state: SourceState, metrics: Arc<Metrics>, drain: Drain) {
    let mut changes = state.on_change();
    let counts = metrics.source(state.name());
    loop {
        let status = changes.borrow_and_update().clone();
        counts.connected.set(i64::from(status.connected));
        counts.paused.set(i64::from(status.paused));
        counts.lost.inc_by(status.messages_lost.saturating_sub(counts.lost.get()));
        counts.interruptions.inc_by(status.interruptions.saturating_sub(counts.interruptions.get()));
        counts.reconnects.inc_by(status.reconnects.saturating_sub(counts.reconnects.get()));
        counts.headers_dropped.inc_by(status.headers_dropped.saturating_sub(counts.headers_dropped.get()));
        counts.delete_markers.inc_by(status.delete_markers.saturating_sub(counts.delete_markers.get()));
        tokio::select! {
            () = drain.begun() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits; `false` once the drain has begun.
pub(super) async fn wait(duration: Duration, drain: &Drain) -> bool {
    tokio::select! {
        () = drain.begun() => false,
        () = tokio::time::sleep(duration) => true,
    }
}

/// What `/readyz` answers.
pub(super) struct Parts {
    pub(super) store: Arc<SqliteStore>,
    pub(super) registry: Arc<Registry>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) states: Vec<SourceState>,
    pub(super) gate: Arc<IntakeGate>,
}

impl Parts {
    /// The store is ready while it commits and takes events.
    fn store(&self) -> Part {
        let failing = self.store.failing();
        let commits =
            failing.as_ref().map(|failing| format!("it can't commit: {}; {}", failing.error, failing.advice()));
        let stopped = self
            .gate
            .closed()
            .map(|bound| format!("intake is stopped: {bound}; it goes on by itself when there is room"));
        let said: Vec<_> = stopped.iter().cloned().chain(commits).collect();
        let state = match (failing, stopped) {
            (Some(_), _) => "failing",
            (None, Some(_)) => "full",
            (None, None) => "open",
        };
        Part { name: "store".to_owned(), ready: said.is_empty(), state: state.to_owned(), detail: said.join("; ") }
    }
}

impl Parts {
    /// Plugins are ready once each file that was there at the start was tried. From then on one that won't load parks its own
    /// runs, and is no reason to send traffic elsewhere.
    fn plugins(&self) -> Part {
        let starting = self.registry.starting();
        let statuses = self.registry.statuses();
        let lessened: Vec<_> = statuses.iter().filter_map(|(name, status)| lessened(name, status)).collect();
        let refused = statuses.into_iter().filter_map(not_loaded);
        let said = self.registry.folder_fault().into_iter().chain(starting.as_ref().map(starts)).chain(refused);
        Part {
            name: "plugins".to_owned(),
            ready: starting.is_none(),
            state: plugins_in_short(&self.registry),
            detail: said.chain(lessened).collect::<Vec<_>>().join("; "),
        }
    }
}

impl Readiness for Parts {
    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![self.store()];
        parts.push(self.plugins());
        // An endpoint that gets nothing keeps its own webhooks waiting and nobody else's.
        parts.push(Part {
            name: "endpoints".to_owned(),
            ready: true,
            state: endpoints_in_short(&self.dispatcher),
            detail: self.dispatcher.complaints().join("; "),
        });
        parts.extend(self.states.iter().map(|state| {
            let status = state.status();
            Part {
                name: format!("source {}", state.name()),
                ready: status.is_ready(),
                state: status.word().to_owned(),
                detail: status.trouble().map(|trouble| trouble.to_string()).unwrap_or_default(),
            }
        }));
        // Events are accepted all the same, and are delivered later: neither is a reason to send traffic elsewhere.
        let proxy = self.endpoints.proxy_fault();
        parts.extend(proxy.map(|fault| Part {
            name: "egress proxy".to_owned(),
            ready: true,
            state: if fault.is_empty() { "well" } else { "down" }.to_owned(),
            detail: fault,
        }));
        parts.extend(self.dispatcher.deferred().into_iter().map(|(name, why)| Part {
            name: format!("endpoint {name}"),
            ready: true,
            state: "waiting".to_owned(),
            detail: format!("deliveries wait: {why}"),
        }));
        parts
    }
}

/// That the plugin at work asks for more of some limits than it has.
fn lessened(name: &str, status: &Status) -> Option<String> {
    let manifest = &status.serving.as_ref()?.manifest;
    let all: Vec<_> = hold(&manifest.asked, &manifest.granted).iter().filter_map(Held::lessened).collect();
    (!all.is_empty()).then(|| format!("{name} asks for {}", all.join("; ")))
}

/// How far a start is with its plugins.
fn starts(Starting { tried, all, untried }: &Starting) -> String {
    let far = |(name, compiled): &(Arc<str>, Option<Duration>)| match compiled {
        Some(compiled) => format!("compiling {name} for {} s", compiled.as_secs()),
        None => format!("{name} waits for its turn"),
    };
    let untried: Vec<_> = untried.iter().map(far).collect();
    format!("{tried} of {all} plugins tried, their events wait for them: {}", untried.join(", "))
}

fn not_loaded((name, status): (Arc<str>, Status)) -> Option<String> {
    let why = status.why();
    match (status.fault?, status.serving) {
        (Fault::Refused(_), None) => Some(format!("{name} won't load: {}", why?)),
        (Fault::Refused(_), Some(_)) => Some(format!("{name} goes on as it was, its new files won't load: {}", why?)),
        (Fault::Missing, _) => Some(format!("{name}: its file is missing")),
    }
}

/// The running host as operators' commands see it.
pub(super) struct Hooks {
    pub(super) pool: Arc<Pool>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) parts: Arc<Parts>,
    pub(super) endpoint_names: Vec<Arc<str>>,
    pub(super) sources: Vec<SourceSwitch>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<Budget>,
    pub(super) started_at: Timestamp,
    /// One look at the store's pauses at a time, so that the last one counts.
    pub(super) pausing: tokio::sync::Mutex<()>,
}

/// How long a source may take to end before the command that pauses it says that it is on its way. It finishes what it has
/// begun.
const PAUSE_PATIENCE: Duration = Duration::from_secs(15);

/// Has sources wait or work as the store says. Returns the plugins that are to wait.
pub(super) async fn obey_pauses(store: &dyn Store, sources: &[SourceSwitch]) -> Result<BTreeSet<Arc<str>>, StoreError> {
    let pauses = store.pauses().await?;
    let names = |kind| pauses.iter().filter(move |it| it.kind == kind).map(|it| Arc::clone(&it.name));
    let paused: BTreeSet<_> = names(PauseKind::Source).collect();
    for source in sources {
        source.wish.send_replace(source.pausable && paused.contains(source.state.name()));
    }
    Ok(names(PauseKind::Plugin).collect())
}

impl OpsHooks for Hooks {
    fn redriven(&self, redriven: &Redriven) {
        redriven.plugins.iter().for_each(|plugin| self.pool.spilled(plugin));
        redriven.endpoints.iter().for_each(|endpoint| self.dispatcher.spilled(endpoint));
    }

    fn host(&self) -> Option<HostStatus> {
        Some(HostStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            cleaning: self.parts.registry.cleaning().to_string(),
            parts: self.parts.parts(),
            sources: look::sources(&self.sources, &self.metrics),
            plugins: look::plugins(&self.parts.registry, &self.metrics),
            memory: look::memory(&self.budget),
        })
    }

    fn lanes(&self) -> Option<Lanes> {
        Some(Lanes { views: self.dispatcher.views(), next_up: self.dispatcher.next_up() })
    }

    fn change_endpoint<'a>(
        &'a self,
        _: &'a dyn Store,
        change: EndpointChange,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<EndpointChanged, StoreError>> {
        self.dispatcher.change_endpoint(change).boxed()
    }

    fn test_endpoint<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<TestReport>> {
        async move { Some(self.endpoints.get(name)?.test(&*self.clock).await) }.boxed()
    }

    fn endpoints(&self) -> Option<Vec<Arc<str>>> {
        Some(self.endpoint_names.clone())
    }

    fn give_back(&self, filter: &DeliveryFilter) -> Vec<DeliverySeq> {
        self.dispatcher.give_back(filter)
    }

    fn forget_plugin(&self, plugin: Arc<str>, fate: ParkedFate) -> BoxFuture<'_, Option<Result<Forgotten, String>>> {
        async move {
            let forgotten = self.parts.registry.forget(&plugin, fate).await;
            if let (Ok(forgotten), ParkedFate::Die) = (&forgotten, fate) {
                self.metrics.dead_letters(Reason::PluginForgotten, forgotten.runs);
            }
            Some(forgotten.map_err(|error| error.to_string()))
        }
        .boxed()
    }

    fn run_terms(&self, plugin: &str) -> Option<(bool, BacklogBounds)> {
        Some(self.parts.registry.terms(plugin))
    }

    fn knows(&self, kind: PauseKind, name: &str) -> Option<bool> {
        Some(match kind {
            PauseKind::Source => self.source(name).is_some_and(|source| source.pausable),
            PauseKind::Plugin => self.parts.registry.statuses().iter().any(|(known, _)| **known == *name),
        })
    }

    fn pauses_changed(&self, kind: PauseKind, name: Arc<str>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let turn = self.pausing.lock().await;
            let plugins = obey_pauses(&*self.parts.store, &self.sources).await?;
            self.parts.registry.pause(plugins).await?;
            drop(turn);
            let Some(source) = self.source(&name).filter(|_| kind == PauseKind::Source) else { return Ok(true) };
            let wish = *source.wish.borrow();
            let mut changes = source.state.on_change();
            Ok(tokio::time::timeout(PAUSE_PATIENCE, changes.wait_for(|status| status.paused == wish)).await.is_ok())
        })
    }

    fn add_waiting(&self, backlog: &mut [EndpointBacklog]) {
        add_waiting(&self.dispatcher, backlog);
    }
}

impl Hooks {
    fn source(&self, name: &str) -> Option<&SourceSwitch> {
        self.sources.iter().find(|source| **source.state.name() == *name)
    }
}
