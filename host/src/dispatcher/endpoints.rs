//! The states of endpoints while a host runs: restored at its start, changed by operators and by the host, and told.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::breaker::{Change, Phase};
use super::gate::{DisableReason, GateNews};
use super::lane::{Attempted, Lane};
use super::{Dispatcher, STORE_RETRY_DELAY};
use crate::clock::Timestamp;
use crate::store::{
    DeliverySeq, EndpointChange, EndpointChanged, EndpointRecord, EndpointState, EndpointVerb, StoreError,
};

/// A lane as operators see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaneView {
    /// The endpoint's name.
    pub name: String,
    /// `closed`, `open` or `probing`; none without a breaker.
    pub breaker: Option<String>,
    /// When an open breaker begins to probe.
    pub probes_at: Option<Timestamp>,
    /// The most attempts in a time, as in the settings.
    pub rate: Option<String>,
    /// For how long every attempt has failed, and when one succeeded and failed last: later than what the store keeps.
    #[serde(flatten)]
    pub health: crate::store::EndpointHealth,
}

impl Dispatcher {
    /// Goes on where the last host ended. Before anything is claimed.
    pub fn restore(&self, known: &[EndpointRecord]) {
        for record in known {
            let Some(lane) = self.lanes.get(&*record.name) else { continue };
            lane.gate(|gate, _| gate.restore(record.state, record.health.clone()));
            show_state(lane, record.state);
            if record.state != EndpointState::Active {
                let EndpointRecord { name: endpoint, state, since, reason, .. } = record;
                tracing::warn!(%endpoint, state = state.as_str(), %since, reason, "the endpoint gets nothing, and its deliveries wait");
            }
        }
    }

    /// Changes an endpoint's state: in the store first, so that it holds over a crash.
    pub async fn change_endpoint(&self, change: EndpointChange) -> Result<EndpointChanged, StoreError> {
        let _in_order = self.changing.lock().await;
        let changed = self.store.change_endpoint(change, self.clock.now()).await?;
        if let EndpointChanged::Done(record) | EndpointChanged::Already(record) = &changed {
            self.take_state(record).await;
        }
        Ok(changed)
    }

    /// Makes a state hold here. What waits in memory for an endpoint that gets nothing is left to the store.
    async fn take_state(&self, record: &EndpointRecord) {
        let Some(lane) = self.lanes.get(&*record.name) else { return };
        let (endpoint, state, reason) = (&record.name, record.state, &record.reason);
        lane.gate(|gate, now| gate.set_state(state, now));
        show_state(lane, state);
        show_breaker(lane);
        if state == EndpointState::Active {
            tracing::info!(%endpoint, reason, "attempts at the endpoint are made");
            self.spilled(endpoint);
            return;
        }
        tracing::warn!(%endpoint, state = state.as_str(), reason, "the endpoint gets nothing from now on, and its deliveries wait");
        let waiting = lane.give_up();
        let seqs = waiting.iter().map(|delivery| delivery.seq).collect();
        if let Err(error) = self.store.release(Vec::new(), seqs).await {
            tracing::warn!(%endpoint, %error, "claims could not be given back; these deliveries wait in memory");
            lane.enqueue(waiting);
            // Others are not held up by them.
            self.pressure.fall(lane.handover(|handover| handover.shed()));
            return;
        }
        self.spilled(endpoint);
        waiting.iter().for_each(|delivery| self.left(endpoint, delivery.content_bytes()));
    }

    /// Makes durable what attempts have disabled; tries until the store takes it.
    pub(super) async fn disable_where_told(&self, batch: &[Attempted]) -> Result<(), StoreError> {
        for attempted in batch {
            let Some(GateNews::Disable(why)) = attempted.news else { continue };
            let change = EndpointChange {
                name: Arc::clone(&attempted.delivery.endpoint),
                verb: EndpointVerb::Disable,
                reason: reason(why, attempted),
            };
            while let Err(error) = self.change_endpoint(change.clone()).await {
                if matches!(error, StoreError::Closed) {
                    return Err(error);
                }
                tracing::error!(endpoint = %change.name, %error, "the endpoint could not be disabled; trying again");
                tokio::time::sleep(STORE_RETRY_DELAY).await;
            }
            let (endpoint, reason) = (&change.name, &change.reason);
            tracing::error!(%endpoint, reason, "the endpoint is disabled; `wirehook endpoints enable` resumes it");
        }
        Ok(())
    }

    /// Tells what an attempt changed, once it is recorded.
    pub(super) fn report_news(&self, endpoint: &Arc<str>, news: Option<GateNews>) {
        let Some(lane) = self.lanes.get(endpoint) else { return };
        match news {
            Some(GateNews::Breaker(Change::Opened(open_for))) => {
                let open_s = open_for.as_secs_f64();
                tracing::warn!(%endpoint, open_s, "too many attempts failed: the breaker is open, and deliveries wait");
                lane.metrics.breaker_opened.inc();
            }
            Some(GateNews::Breaker(Change::Closed)) => {
                tracing::info!(%endpoint, "the endpoint works again: the breaker is closed");
            }
            Some(GateNews::Disable(_)) => {}
            None if lane.is_probing() => {}
            None => return,
        }
        show_breaker(lane);
        // The lane may want work now that was left in the store.
        self.changed.notify_one();
    }

    /// Keeps how endpoints fare, where that changed.
    pub async fn keep_health(&self) -> Result<(), StoreError> {
        let healths: Vec<_> =
            self.lanes.iter().filter_map(|(name, lane)| Some((Arc::clone(name), lane.take_health()?))).collect();
        if healths.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = healths.iter().map(|(name, _)| Arc::clone(name)).collect();
        let kept = self.store.keep_endpoint_health(healths).await;
        if kept.is_err() {
            names.iter().filter_map(|name| self.lanes.get(name)).for_each(|lane| lane.mark_health());
        }
        kept
    }

    /// The endpoints whose deliveries are tried without anybody's doing.
    pub fn active(&self) -> Vec<Arc<str>> {
        self.lanes.iter().filter(|(_, lane)| lane.is_active()).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Every lane as operators see it.
    pub fn views(&self) -> Vec<LaneView> {
        self.lanes.iter().map(|(name, lane)| lane.view(name)).collect()
    }

    /// The state that each lane's endpoint is in.
    pub fn states(&self) -> Vec<EndpointState> {
        self.lanes.values().map(|lane| lane.state()).collect()
    }

    /// What each lane tries next, which is what waits longest of all that it holds in memory.
    pub fn next_up(&self) -> Vec<(Arc<str>, DeliverySeq)> {
        self.lanes.iter().filter_map(|(name, lane)| Some((Arc::clone(name), lane.next_up()?))).collect()
    }

    /// What is to be said of endpoints that are not as they should be, in one line each.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<_> = self
            .lanes
            .iter()
            .filter_map(|(name, lane)| match (lane.state(), lane.view(name)) {
                (EndpointState::Active, LaneView { breaker: Some(breaker), .. }) if breaker != "closed" => {
                    Some(format!("{name}: its breaker is {breaker}"))
                }
                (EndpointState::Active, _) => None,
                (state, _) => Some(format!("{name} is {}", state.as_str())),
            })
            .collect();
        complaints.sort();
        complaints
    }
}

fn show_state(lane: &Lane, state: EndpointState) {
    for (known, gauge) in EndpointState::ALL.iter().zip(&lane.metrics.states) {
        gauge.set(i64::from(*known == state));
    }
}

fn reason(why: DisableReason, attempted: &Attempted) -> String {
    let id = attempted.delivery.id.as_str();
    match why {
        DisableReason::Gone => format!("it answered 410 to {id}"),
        DisableReason::Failing(failing_for) => {
            let failing_for = humantime::format_duration(Duration::from_secs(failing_for.as_secs()));
            format!("every attempt failed for {failing_for}, the last one at {id}")
        }
    }
}

impl Lane {
    /// As operators see it.
    fn view(self: &Arc<Self>, name: &str) -> LaneView {
        self.gate_look(|gate, now, wall| {
            let probes_at = match gate.phase() {
                Some(Phase::Open { until }) => Some(wall.plus(until.saturating_sub(now))),
                _ => None,
            };
            LaneView {
                name: name.to_owned(),
                breaker: gate.phase().map(|phase| phase_name(phase).to_owned()),
                probes_at,
                rate: gate.rate().map(|rate| rate.to_string()),
                health: gate.health().kept().clone(),
            }
        })
    }

    pub(super) fn state(&self) -> EndpointState {
        self.gate_look(|gate, _, _| gate.state())
    }

    fn is_probing(&self) -> bool {
        self.gate_look(|gate, _, _| matches!(gate.phase(), Some(Phase::Probing { .. })))
    }

    fn take_health(&self) -> Option<crate::store::EndpointHealth> {
        self.gate_look(|gate, _, _| gate.health().take_changed())
    }

    fn mark_health(&self) {
        self.gate_look(|gate, _, _| gate.health().mark_changed());
    }
}

fn show_breaker(lane: &Lane) {
    let is_closed = lane.gate_look(|gate, _, _| gate.phase().is_none_or(|phase| phase == Phase::Closed));
    lane.metrics.breaker_open.set(i64::from(!is_closed));
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Closed => "closed",
        Phase::Open { .. } => "open",
        Phase::Probing { .. } => "probing",
    }
}
