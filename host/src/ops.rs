//! What operators ask of the store, as data: the same whether a running host answers over its socket or a command
//! opens the store by itself.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::admin::Part;
use crate::clock::{Clock, Timestamp};
use crate::delivery::DeliveryId;
use crate::endpoint::TestReport;
use crate::store::{
    DeadLetterDetail, DeadLetterFilter, DeadLetterSummary, DeliveryDetail, DeliveryFilter, DeliverySummary,
    EndpointChange, EndpointChanged, Redriven, Store, StoreError, StoreStatus,
};

pub mod access;
pub mod client;
pub mod endpoints;
pub mod protocol;
pub mod server;
pub mod socket;

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
    /// Puts dead letters back to work.
    Redrive(DeadLetterFilter),
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
}

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
    },
    /// One of a list.
    Endpoint(Box<EndpointLine>),
    /// To [`Request::ChangeEndpoint`].
    EndpointChanged(EndpointChanged),
    /// To [`Request::TestEndpoint`].
    EndpointTested(Box<TestReport>),
    /// What was to be shown is not there.
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
}

/// A running host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// As `/readyz` lists them.
    pub parts: Vec<Part>,
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
            let status = Status { host: hooks.host(), store: store.status(clock.now()).await? };
            vec![Reply::Status(Box::new(status))]
        }
        Request::ListDeliveries(filter) => {
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
        Request::Redrive(filter) => {
            let redriven = store.redrive(filter, clock.now()).await?;
            hooks.redriven(&redriven);
            vec![Reply::Redriven(redriven)]
        }
        Request::Discard(filter) => vec![Reply::Discarded { count: store.discard(filter).await? }],
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
    })
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
