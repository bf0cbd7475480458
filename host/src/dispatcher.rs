//! Claims due deliveries for each lane, and records what became of their attempts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc};

use crate::budget::Kind;
use crate::clock::{Clock, Timestamp};
use crate::delivery::Transition;
use crate::handover::quota::{Asking, Quota, share_out};
use crate::handover::refill::{Refill, Wanted};
use crate::handover::{Handover, Pressure, weight};
use crate::metrics::Metrics;
use crate::store::{
    AttemptRecord, AttemptsRecorded, Claim, ClaimRoom, ClaimedDelivery, DeliveryFilter, DeliverySeq, DeliveryTerms,
    Store, StoreError,
};

pub mod breaker;
pub mod rate;
pub mod health;
pub mod gate;
pub mod lane;
pub mod endpoints;

use lane::{Attempted, Lane};

/// Attempts recorded in one call to the store at most.
const BATCH_ATTEMPTS_MAX: usize = 256;

/// Attempts between the lanes and the recorder at most; then the lanes wait.
pub const ATTEMPTED_QUEUE_MAX: usize = 1024;

/// After a commit or claim that failed, how long until it is tried again.
const STORE_RETRY_DELAY: Duration = Duration::from_millis(250);

/// The lanes, one for each endpoint.
pub struct Dispatcher {
    lanes: HashMap<Arc<str>, Arc<Lane>>,
    /// What the lanes hold in bytes.
    quotas: HashMap<Arc<str>, Quota>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    pressure: Arc<Pressure>,
    metrics: Arc<Metrics>,
    changed: Notify,
    /// Changes of endpoints' states take effect in the order in which they become durable.
    changing: tokio::sync::Mutex<()>,
}

impl Dispatcher {
    /// Lanes by endpoint name.
    pub fn new(
        lanes: HashMap<Arc<str>, Arc<Lane>>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        pressure: Arc<Pressure>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (changed, changing) = (Notify::new(), tokio::sync::Mutex::default());
        let quota = |name: &Arc<str>| (Arc::clone(name), Quota::new(pressure.budget(), Kind::Deliveries));
        let quotas = lanes.keys().map(quota).collect();
        Arc::new(Self { lanes, quotas, store, clock, pressure, metrics, changed, changing })
    }

    /// Decides, before the commit, who will hold a new delivery to `endpoint`, of so many bytes of content. One to an
    /// endpoint that is not configured stays in the store, parked.
    pub fn offer(&self, endpoint: &str, bytes: usize) -> Claim {
        let Some((lane, quota)) = self.lane(endpoint) else { return Claim::Open };
        let weight = weight(bytes);
        let shut = lane.shut(self.clock.now()).is_some();
        lane.handover(|handover| {
            if shut {
                // It would only take up memory there.
                handover.spilled();
                return Claim::Open;
            }
            let claim = handover.offer(weight);
            if claim == Claim::Here && !quota.try_take(bytes) {
                handover.decline(weight);
                return Claim::Open;
            }
            if claim == Claim::Here {
                self.pressure.rise(weight);
            }
            claim
        })
    }

    fn lane(&self, endpoint: &str) -> Option<(&Arc<Lane>, &Quota)> {
        self.lanes.get(endpoint).zip(self.quotas.get(endpoint))
    }

    /// On what terms new deliveries to `endpoint` are taken.
    pub fn terms(&self, endpoint: &str) -> DeliveryTerms {
        self.lanes.get(endpoint).map(|lane| lane.terms).unwrap_or_default()
    }

    /// Takes a delivery that was offered, written as `Here` and committed.
    pub fn enqueue(&self, delivery: ClaimedDelivery) {
        if let Some(lane) = self.lanes.get(&delivery.endpoint) {
            lane.enqueue([delivery]);
        }
    }

    /// A delivery to `endpoint` was committed unclaimed, or falls due in the store now.
    pub fn spilled(&self, endpoint: &str) {
        if let Some(lane) = self.lanes.get(endpoint) {
            lane.handover(|handover| handover.spilled());
            self.changed.notify_one();
        }
    }

    /// A delivery to `endpoint`, of so many bytes of content, left the memory.
    pub fn left(&self, endpoint: &str, bytes: usize) {
        let Some((lane, quota)) = self.lane(endpoint) else { return };
        let (relief, spilled) = lane.handover(|handover| (handover.left(weight(bytes)), handover.is_spilled()));
        quota.give(bytes);
        self.pressure.fall(relief);
        if spilled {
            self.changed.notify_one();
        }
    }

    /// Takes out of memory what `filter` may mean of the deliveries that nobody has begun to send. They are still claimed,
    /// and for the caller to release.
    pub fn give_back(&self, filter: &DeliveryFilter) -> Vec<DeliverySeq> {
        let wanted = |delivery: &ClaimedDelivery| {
            filter.plugin.as_deref().is_none_or(|plugin| *plugin == *delivery.plugin)
                && (filter.ids.is_empty() || filter.ids.contains(&delivery.id))
        };
        let mut given = Vec::new();
        for (name, lane) in &self.lanes {
            if filter.endpoint.as_deref().is_some_and(|endpoint| *endpoint != **name) {
                continue;
            }
            for delivery in lane.give_back(wanted) {
                self.left(name, delivery.content_bytes());
                given.push(delivery.seq);
            }
        }
        given
    }

    /// Makes the lanes that cause most of the pressure spill.
    pub fn shed(&self, least: usize) {
        for lane in self.lanes.values() {
            self.pressure
                .fall(lane.handover(|handover| if handover.pressing() >= least { handover.shed() } else { 0 }));
        }
        self.changed.notify_one();
    }

    /// The most that one lane contributes to the pressure.
    pub fn pressing_most(&self) -> usize {
        self.lanes.values().map(|lane| lane.handover(|handover| handover.pressing())).max().unwrap_or(0)
    }

    /// When the delivery to `endpoint` fell due that has waited longest in memory for its turn.
    pub fn oldest_due(&self, endpoint: &str) -> Option<Timestamp> {
        self.lanes.get(endpoint)?.oldest_due()
    }

    /// Whether no delivery is in memory that will be tried by itself.
    pub fn is_idle(&self) -> bool {
        self.lanes
            .values()
            .filter(|lane| lane.is_active())
            .all(|lane| lane.handover(|handover| handover.in_memory()) == 0)
    }

    /// The endpoints whose deliveries wait for no fault of their own, and why.
    pub fn deferred(&self) -> Vec<(Arc<str>, String)> {
        let deferred = self.lanes.iter().filter_map(|(name, lane)| Some((Arc::clone(name), lane.deferred_for()?)));
        let mut deferred: Vec<_> = deferred.collect();
        deferred.sort_unstable();
        deferred
    }

    /// No attempt begins from now on. Returns the deliveries that are left.
    pub fn stop(&self) -> Vec<DeliverySeq> {
        self.lanes.values().flat_map(|lane| lane.stop()).collect()
    }

    /// Makes attempts durable until every sender of `attempted` is gone.
    pub async fn record(self: Arc<Self>, mut attempted: mpsc::Receiver<Attempted>) {
        let mut batch = Vec::with_capacity(BATCH_ATTEMPTS_MAX);
        while attempted.recv_many(&mut batch, BATCH_ATTEMPTS_MAX).await > 0 {
            // Before the attempts that are the reason: a host that dies between the two would go on as if nothing had been.
            if self.disable_where_told(&batch).await.is_err() {
                return;
            }
            let records = batch.iter().map(|attempted| attempted.record.clone()).collect();
            let Ok(AttemptsRecorded { next, freed }) = self.commit(records).await else { return };
            for attempted in batch.drain(..) {
                self.recorded(&attempted);
            }
            freed.iter().for_each(|endpoint| self.spilled(endpoint));
            next.into_iter().for_each(|delivery| self.follow(delivery));
        }
    }

    /// The request was made, whatever the disk says: its record is kept here until it is durable, so that it is not made
    /// again. Memory stays bounded, for the lanes wait behind this queue.
    async fn commit(&self, records: Vec<AttemptRecord>) -> Result<AttemptsRecorded, StoreError> {
        loop {
            match self.store.record(records.clone()).await {
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                Err(error) => {
                    tracing::error!(%error, attempts = records.len(), "attempts could not be recorded; trying again");
                    tokio::time::sleep(STORE_RETRY_DELAY).await;
                }
                Ok(recorded) => return Ok(recorded),
            }
        }
    }

    /// It is this delivery's turn, since the one before it in their order has ended.
    fn follow(&self, delivery: ClaimedDelivery) {
        if let Some((lane, quota)) = self.lane(&delivery.endpoint) {
            let bytes = delivery.content_bytes();
            lane.handover(|handover| handover.follows(weight(bytes)));
            quota.follow(bytes);
            lane.enqueue([delivery]);
        }
    }

    fn recorded(&self, Attempted { delivery, record, news }: &Attempted) {
        self.report_news(&delivery.endpoint, *news);
        if let (Transition::Retry { due_at } | Transition::Deferred { due_at }, Some(lane)) =
            (&record.transition, self.lanes.get(&delivery.endpoint))
        {
            lane.handover(|handover| handover.due(*due_at));
            self.changed.notify_one();
        }
        self.left(&delivery.endpoint, delivery.content_bytes());
        self.report(delivery, record);
    }

    fn report(&self, delivery: &ClaimedDelivery, record: &AttemptRecord) {
        let (endpoint, delivery_id, event_key) = (&delivery.endpoint, delivery.id.as_str(), &delivery.event_key);
        let (attempt, status, duration_s) = (record.number, record.status, record.duration.as_secs_f64());
        let (error, plugin) = (record.error.as_deref(), &delivery.plugin);
        let Some(counts) = self.lanes.get(endpoint).map(|lane| &lane.metrics) else { return };
        if !matches!(record.transition, Transition::Deferred { .. }) {
            counts.duration.observe(duration_s);
        }
        let counter = match &record.transition {
            Transition::Delivered => {
                tracing::debug!(%event_key, delivery_id, %plugin, %endpoint, attempt, outcome = "delivered", status, duration_s, "delivered");
                &counts.delivered
            }
            Transition::Retry { due_at } => {
                tracing::warn!(%event_key, delivery_id, %plugin, %endpoint, attempt, outcome = "retrying", status, error, duration_s, %due_at, "the attempt failed and is repeated");
                &counts.retrying
            }
            // The lane has said why, once for all of its deliveries.
            Transition::Deferred { due_at } => {
                tracing::debug!(%event_key, delivery_id, %plugin, %endpoint, outcome = "deferred", error, %due_at, "put off; no attempt is counted");
                &counts.deferred
            }
            Transition::Dead { reason } => {
                tracing::error!(%event_key, delivery_id, %plugin, %endpoint, attempt, outcome = "dead", status, %reason, error, duration_s, "the delivery is a dead letter");
                self.metrics.dead_letter(*reason);
                &counts.dead
            }
        };
        counter.inc();
    }
}

impl Refill for Dispatcher {
    fn wants(&self, now: Timestamp) -> Wanted {
        let mut wanted = Wanted::default();
        let mut asking = Vec::new();
        for (name, lane) in &self.lanes {
            let Some(quota) = self.quotas.get(name) else { continue };
            if let Some(opens_at) = lane.shut(now) {
                wanted.due(opens_at);
                continue;
            }
            let (count, next_due) = lane.handover(|handover| (handover.wants(now), handover.next_due()));
            wanted.due(next_due);
            asking.extend(count.map(|count| Asking { name: Arc::clone(name), count, quota }));
        }
        let shares = share_out(self.pressure.budget(), Kind::Deliveries, asking);
        for lane in shares.denied.iter().filter_map(|name| self.lanes.get(name)) {
            lane.handover(Handover::denied);
        }
        wanted.claims = shares.given;
        wanted
    }

    fn claim(self: Arc<Self>, name: Arc<str>, room: ClaimRoom) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some((lane, quota)) = self.lane(&name) else { return };
            let now = self.clock.now();
            match self.store.claim_deliveries_within(Arc::clone(&name), room, now).await {
                Ok(claimed) => {
                    let bytes = || claimed.work.iter().map(ClaimedDelivery::content_bytes);
                    quota.claimed(room.bytes, bytes(), claimed.needs);
                    let weight = bytes().map(weight).sum();
                    lane.handover(|handover| handover.claimed(weight, claimed.next_due, now));
                    lane.enqueue(claimed.work);
                }
                Err(error) => {
                    tracing::error!(endpoint = %name, %error, "deliveries could not be claimed; trying again");
                    quota.claimed(room.bytes, std::iter::empty(), 0);
                    lane.handover(|handover| handover.claim_failed(now.plus(STORE_RETRY_DELAY)));
                }
            }
        })
    }

    fn look_again(&self) {
        self.lanes.values().for_each(|lane| lane.handover(|handover| handover.spilled()));
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn freed(&self) -> &Notify {
        self.pressure.budget().freed(Kind::Deliveries)
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod simulated;
