//! What operators ask of the store, as data: the same whether a running host answers over its socket or a command
//! opens the store by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::delivery::DeliveryId;
use crate::endpoint::TestReport;
use crate::store::{
    Backfilled, BacklogBounds, Changed, DeadLetterDetail, DeadLetterFilter, DeadLetterSummary, DeliveryChange,
    DeliveryDetail, DeliveryFilter, DeliverySeq, DeliveryState, DeliverySummary, DeliveryVerb, EndpointBacklog,
    EndpointChange, EndpointChanged, EventFilter, EventSummary, Forgotten, Found, Pace, ParkedFate, Pause, PauseKind,
    Purge, Purged, Redriven, Sought, Store, StoreError, StoreStatus,
};

pub mod access;
pub mod client;
pub mod endpoints;
mod events;
mod look;
mod pause;
pub mod protocol;
pub mod server;
pub mod socket;

pub use self::events::BackfillStep;
pub use self::look::{HostStatus, MemoryKindLook, MemoryLook, PluginLook, SourceLook};
use endpoints::{EndpointLine, Lanes};

/// What an operator asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What is in the store, and how the host is.
    Status,
    /// Deliveries, newest first.
    ListDeliveries(DeliveryFilter),
    /// One delivery with its attempts.
    ShowDelivery {
        /// `webhook-id`.
        id: DeliveryId,
    },
    /// Dead letters, newest first.
    ListDeadLetters(DeadLetterFilter),
    /// One dead letter with its payload.
    ShowDeadLetter {
        /// Its id.
        id: i64,
    },
    /// Dead letters whole, oldest first, as many as one answer holds.
    ExportDeadLetters(DeadLetterFilter),
    /// Puts dead letters back to work.
    Redrive(DeadLetterFilter),
    /// The same, one after the other.
    RedrivePaced {
        /// Which.
        filter: DeadLetterFilter,
        /// When.
        pace: Pace,
    },
    /// Deletes dead letters for good.
    Discard(DeadLetterFilter),
    /// Every endpoint, by name.
    ListEndpoints,
    /// Changes an endpoint's state.
    ChangeEndpoint(EndpointChange),
    /// Sends an endpoint a test webhook, of which nothing is recorded.
    TestEndpoint {
        /// Its name.
        name: String,
    },
    /// One step of a change of deliveries.
    ChangeDeliveries(DeliveryChange),
    /// Recorded events, newest first.
    ListEvents(EventFilter),
    /// One step of giving recorded events the run that they never had.
    Backfill(BackfillStep),
    /// Where something is.
    Trace(Sought),
    /// Deletes every trace of an entity.
    Purge(Purge),
    /// Writes the store's file anew, without what was deleted.
    Rewrite,
    /// What forgetting a plugin would come to.
    WouldForget {
        /// Its name.
        plugin: Arc<str>,
    },
    /// Forgets a plugin that is gone.
    ForgetPlugin {
        /// Its name.
        plugin: Arc<str>,
        /// What becomes of its runs.
        fate: ParkedFate,
    },
    /// What is paused, and the running host's sources.
    ListPauses,
    /// Has a plugin or source wait until it is resumed.
    Pause {
        /// Which of the two.
        kind: PauseKind,
        /// Its name.
        name: Arc<str>,
    },
    /// Has it go on.
    Resume {
        /// Which of the two.
        kind: PauseKind,
        /// Its name.
        name: Arc<str>,
    },
}

impl Request {
    /// How long the host may take to answer.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Rewrite | Self::Purge(_) | Self::ForgetPlugin { .. } => LONG_PATIENCE,
            _ => protocol::REPLY_TIMEOUT,
        }
    }
}

/// How long writing a store's file anew may take, or going through all that came of an entity or plugin: 100 GB on a slow disk.
const LONG_PATIENCE: Duration = Duration::from_hours(1);

/// One line of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// One of a list.
    Delivery(Box<DeliverySummary>),
    /// To [`Request::ShowDelivery`].
    DeliveryDetail(Box<DeliveryDetail>),
    /// One of a list.
    DeadLetter(Box<DeadLetterSummary>),
    /// To [`Request::ShowDeadLetter`].
    DeadLetterDetail(Box<DeadLetterDetail>),
    /// To [`Request::Redrive`].
    Redriven(Redriven),
    /// To [`Request::Discard`].
    Discarded {
        /// How many.
        count: u64,
        /// The last one looked at, to go on from.
        #[serde(default)]
        last: Option<i64>,
    },
    /// One of a list.
    Endpoint(Box<EndpointLine>),
    /// To [`Request::ChangeEndpoint`].
    EndpointChanged(EndpointChanged),
    /// To [`Request::TestEndpoint`].
    EndpointTested(Box<TestReport>),
    /// To [`Request::ChangeDeliveries`].
    Changed(Changed),
    /// One of a list.
    Event(Box<EventSummary>),
    /// To [`Request::Backfill`].
    Backfilled(Backfilled),
    /// To [`Request::Trace`]: one of what was found.
    Found(Box<Found>),
    /// To [`Request::Purge`].
    Purged(Purged),
    /// To [`Request::Rewrite`].
    Rewritten,
    /// To [`Request::WouldForget`] and [`Request::ForgetPlugin`].
    Forgotten(Forgotten),
    /// To [`Request::ListPauses`].
    Pauses(Pauses),
    /// To [`Request::Pause`] and [`Request::Resume`].
    PauseChanged {
        /// Whether it was otherwise before.
        changed: bool,
        /// Whether the running host, if there is one, does so by now.
        settled: bool,
    },
    /// What was to be shown or changed is not there.
    NotFound,
    /// It was not done.
    Failed {
        /// Why, and what to do.
        message: String,
    },
}

/// What is in the store, and how the host is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The running host; `None` when the command opened the store by itself.
    pub host: Option<HostStatus>,
    /// The store, counted.
    pub store: StoreStatus,
    /// Deliveries that wait for endpoints which are not configured; empty where the command has to say which those are.
    #[serde(default)]
    pub parked: Vec<ParkedCount>,
}

/// Deliveries that nobody works on, because their endpoint is not configured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ParkedCount {
    /// The endpoint's name.
    pub endpoint: String,
    /// How many deliveries wait for it.
    pub count: u64,
}

impl Status {
    /// Counts the deliveries that wait for other endpoints than those configured.
    pub fn park_beside(&mut self, configured: &[Arc<str>]) {
        let waits = |state| matches!(state, DeliveryState::Pending | DeliveryState::Retrying);
        let mut parked: BTreeMap<&str, u64> = BTreeMap::new();
        for row in self.store.deliveries.iter().filter(|row| waits(row.state)) {
            if !configured.iter().any(|name| **name == *row.endpoint) {
                *parked.entry(&row.endpoint).or_default() += row.count;
            }
        }
        let counts = parked.into_iter().map(|(name, count)| ParkedCount { endpoint: name.to_owned(), count });
        self.parked = counts.collect();
    }
}

/// What is paused, and what could be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pauses {
    /// What is paused.
    pub pauses: Vec<Pause>,
    /// The running host's sources; `None` where none runs.
    pub sources: Option<Vec<SourceLook>>,
    /// The names of the plugins ever loaded and not forgotten.
    #[serde(default)]
    pub plugins: Vec<Arc<str>>,
}

/// The running host, as far as operators' commands concern it.
pub trait OpsHooks: Send + Sync + 'static {
    /// Runs and deliveries were put back to work: whoever does that work should look.
    fn redriven(&self, redriven: &Redriven);

    /// How the host is; `None` when there is none.
    fn host(&self) -> Option<HostStatus>;

    /// The host's lanes; `None` when there is no host.
    fn lanes(&self) -> Option<Lanes> {
        None
    }

    /// Changes an endpoint's state, in the store and in the host.
    fn change_endpoint<'a>(
        &'a self,
        store: &'a dyn Store,
        change: EndpointChange,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<EndpointChanged, StoreError>> {
        store.change_endpoint(change, now)
    }

    /// Sends a test webhook; `None` where the host has no such endpoint.
    fn test_endpoint<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Option<TestReport>> {
        std::future::ready(None).boxed()
    }

    /// The endpoints that are configured; `None` when there is no host to know.
    fn endpoints(&self) -> Option<Vec<Arc<str>>> {
        None
    }

    /// Takes out of memory what `filter` may mean of the deliveries that nobody has begun to send. The store still has
    /// them claimed: the caller decides over them. Nothing is in memory where there is no host.
    fn give_back(&self, _filter: &DeliveryFilter) -> Vec<DeliverySeq> {
        Vec::new()
    }

    /// Forgets a plugin, unless its file is there; `None` when there is no host that knows plugins.
    fn forget_plugin(&self, _plugin: Arc<str>, _fate: ParkedFate) -> BoxFuture<'_, Option<Result<Forgotten, String>>> {
        async { None }.boxed()
    }

    /// On what terms a run of that plugin is taken: whether it has a place in an order, and what may wait; `None` when there is
    /// no host.
    fn run_terms(&self, _plugin: &str) -> Option<(bool, BacklogBounds)> {
        None
    }

    /// Whether the host has a plugin or source of that name; `None` when there is no host.
    fn knows(&self, _kind: PauseKind, _name: &str) -> Option<bool> {
        None
    }

    /// The store's pauses have changed, that of `name` at least. Returns whether the host does as they say by now.
    fn pauses_changed(&self, _kind: PauseKind, _name: Arc<str>) -> BoxFuture<'_, Result<bool, StoreError>> {
        async { Ok(true) }.boxed()
    }

    /// Adds what the host holds in memory to what the store knows of its backlogs.
    fn add_waiting(&self, _backlog: &mut [EndpointBacklog]) {}
}

/// No host runs: the next one finds the work in the store.
#[derive(Clone, Copy, Debug)]
pub struct Offline;

impl OpsHooks for Offline {
    fn redriven(&self, _: &Redriven) {}

    fn host(&self) -> Option<HostStatus> {
        None
    }
}

/// Does what is asked. A failure of the store is a reply too.
pub async fn handle(store: &dyn Store, hooks: &dyn OpsHooks, clock: &dyn Clock, request: Request) -> Vec<Reply> {
    answer(store, hooks, clock, request)
        .await
        .unwrap_or_else(|error| vec![Reply::Failed { message: error.to_string() }])
}

async fn answer(
    store: &dyn Store,
    hooks: &dyn OpsHooks,
    clock: &dyn Clock,
    request: Request,
) -> Result<Vec<Reply>, StoreError> {
    Ok(match request {
        Request::Status => {
            let store = store.status(clock.now()).await?;
            let mut status = Status { host: hooks.host(), store, parked: Vec::new() };
            hooks.endpoints().iter().for_each(|configured| status.park_beside(configured));
            hooks.add_waiting(&mut status.store.backlog);
            vec![Reply::Status(Box::new(status))]
        }
        Request::ListDeliveries(filter) => {
            let filter = as_configured(filter, hooks);
            store.list_deliveries(filter).await?.into_iter().map(|one| Reply::Delivery(Box::new(one))).collect()
        }
        Request::ShowDelivery { id } => {
            let detail = store.show_delivery(id).await?;
            vec![detail.map_or(Reply::NotFound, |detail| Reply::DeliveryDetail(Box::new(detail)))]
        }
        Request::ListDeadLetters(filter) => {
            store.list_dead_letters(filter).await?.into_iter().map(|one| Reply::DeadLetter(Box::new(one))).collect()
        }
        Request::ShowDeadLetter { id } => {
            let detail = store.show_dead_letter(id).await?;
            vec![detail.map_or(Reply::NotFound, |detail| Reply::DeadLetterDetail(Box::new(detail)))]
        }
        Request::ExportDeadLetters(filter) => {
            let letters = store.export_dead_letters(filter).await?;
            letters.into_iter().map(|one| Reply::DeadLetterDetail(Box::new(one))).collect()
        }
        Request::ListEndpoints => {
            let lines = endpoints::lines(store, hooks.lanes(), clock.now()).await?;
            lines.into_iter().map(|line| Reply::Endpoint(Box::new(line))).collect()
        }
        Request::ChangeEndpoint(change) => {
            vec![Reply::EndpointChanged(hooks.change_endpoint(store, change, clock.now()).await?)]
        }
        Request::TestEndpoint { name } => {
            let report = hooks.test_endpoint(&name).await;
            vec![report.map_or(Reply::NotFound, |report| Reply::EndpointTested(Box::new(report)))]
        }
        Request::Redrive(filter) => redrive(store, hooks, filter, Pace::at_once(clock.now())).await?,
        Request::RedrivePaced { filter, pace } => redrive(store, hooks, filter, pace).await?,
        Request::Discard(filter) => {
            let discarded = store.discard_from(filter).await?;
            vec![Reply::Discarded { count: discarded.count, last: discarded.last }]
        }
        Request::ChangeDeliveries(change) => change_deliveries(store, hooks, clock, change).await?,
        Request::ListEvents(filter) => {
            store.list_events(filter).await?.into_iter().map(|one| Reply::Event(Box::new(one))).collect()
        }
        Request::Backfill(step) => events::backfill(store, hooks, clock, step).await?,
        Request::Trace(sought) => {
            store.trace(sought).await?.into_iter().map(|one| Reply::Found(Box::new(one))).collect()
        }
        Request::Purge(purge) => purge_entity(store, hooks, clock, purge).await?,
        Request::Rewrite => {
            store.rewrite().await?;
            vec![Reply::Rewritten]
        }
        Request::WouldForget { plugin } => vec![Reply::Forgotten(store.would_forget(plugin).await?)],
        Request::ForgetPlugin { plugin, fate } => match hooks.forget_plugin(Arc::clone(&plugin), fate).await {
            Some(Ok(forgotten)) => {
                // Deliveries that waited for its runs are due now.
                let endpoints = hooks.endpoints().unwrap_or_default();
                hooks.redriven(&Redriven { endpoints, ..Redriven::default() });
                vec![Reply::Forgotten(forgotten)]
            }
            Some(Err(message)) => vec![Reply::Failed { message }],
            None => vec![Reply::Forgotten(store.forget_plugin(plugin, fate, clock.now()).await?)],
        },
        Request::ListPauses => {
            let sources = hooks.host().map(|host| host.sources);
            let plugins = store.known_plugins().await?.into_iter().map(|known| known.name).collect();
            vec![Reply::Pauses(Pauses { pauses: store.pauses().await?, sources, plugins })]
        }
        Request::Pause { kind, name } => {
            let pause = Pause { kind, name, since: clock.now() };
            vec![pause::change(store, hooks, pause, true).await?]
        }
        Request::Resume { kind, name } => {
            let pause = Pause { kind, name, since: clock.now() };
            vec![pause::change(store, hooks, pause, false).await?]
        }
    })
}

async fn redrive(
    store: &dyn Store,
    hooks: &dyn OpsHooks,
    filter: DeadLetterFilter,
    pace: Pace,
) -> Result<Vec<Reply>, StoreError> {
    let redriven = store.redrive_paced(filter, pace).await?;
    if !redriven.plugins.is_empty() {
        let known = store.known_plugins().await?;
        for plugin in redriven.plugins.iter().filter(|plugin| known.iter().all(|known| known.name != **plugin)) {
            // Forgotten meanwhile: its runs wait for it as before.
            store.park_runs(Arc::clone(plugin)).await?;
        }
    }
    hooks.redriven(&redriven);
    Ok(vec![Reply::Redriven(redriven)])
}

/// A host knows better than a command which endpoints are configured: the file may have changed since it started.
fn as_configured(mut filter: DeliveryFilter, hooks: &dyn OpsHooks) -> DeliveryFilter {
    if let (Some(beside), Some(configured)) = (&mut filter.parked_beside, hooks.endpoints()) {
        *beside = configured.iter().map(ToString::to_string).collect();
    }
    filter
}

async fn change_deliveries(
    store: &dyn Store,
    hooks: &dyn OpsHooks,
    clock: &dyn Clock,
    mut change: DeliveryChange,
) -> Result<Vec<Reply>, StoreError> {
    if let (DeliveryVerb::Move { to }, Some(configured)) = (&change.verb, hooks.endpoints())
        && !configured.contains(to)
    {
        return Ok(vec![Reply::Failed { message: format!("there is no endpoint `{to}`; configure it first") }]);
    }
    change.filter = as_configured(change.filter, hooks);
    // What is in memory for a retry is on its way already.
    if change.verb != DeliveryVerb::Retry {
        change.given_back = hooks.give_back(&change.filter);
    }
    let given_back = change.given_back.clone();
    let changed = store.change_deliveries(change, clock.now()).await;
    if changed.is_err() {
        release(store, given_back.clone()).await;
    }
    // What was given back and is not meant after all is for its lane to claim again.
    let endpoints = if given_back.is_empty() { None } else { hooks.endpoints() };
    let mut endpoints = endpoints.unwrap_or_default();
    endpoints.extend(changed.iter().flat_map(|changed| changed.endpoints.clone()));
    hooks.redriven(&Redriven { endpoints, ..Redriven::default() });
    Ok(vec![Reply::Changed(changed?)])
}

async fn purge_entity(
    store: &dyn Store,
    hooks: &dyn OpsHooks,
    clock: &dyn Clock,
    mut purge: Purge,
) -> Result<Vec<Reply>, StoreError> {
    if purge.discard_waiting && !purge.dry_run {
        purge.given_back = hooks.give_back(&DeliveryFilter::default());
    }
    let given_back = purge.given_back.clone();
    let purged = store.purge(purge, clock.now()).await;
    if purged.is_err() {
        release(store, given_back.clone()).await;
    }
    // What waited in the order of something that is gone is due now.
    let freed = purged.iter().any(|purged| purged.events > 0);
    if freed || !given_back.is_empty() {
        hooks.redriven(&Redriven { endpoints: hooks.endpoints().unwrap_or_default(), ..Redriven::default() });
    }
    Ok(vec![Reply::Purged(purged?)])
}

/// How long until claims that could not be given up are given up again.
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(250);

/// Gives up claims after a change that was not made: nobody has them in memory any more.
async fn release(store: &dyn Store, deliveries: Vec<DeliverySeq>) {
    while let Err(error) = store.release(Vec::new(), deliveries.clone()).await {
        if matches!(error, StoreError::Closed) {
            return;
        }
        tracing::warn!(%error, "claims could not be given back; trying again");
        tokio::time::sleep(RELEASE_RETRY_DELAY).await;
    }
}

/// What answers requests, shared by every connection of a running host.
#[derive(Clone)]
pub struct Operator {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The running host.
    pub hooks: Arc<dyn OpsHooks>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Operator {
    /// As [`handle`].
    pub async fn handle(&self, request: Request) -> Vec<Reply> {
        handle(self.store.as_ref(), self.hooks.as_ref(), self.clock.as_ref(), request).await
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").finish_non_exhaustive()
    }
}
