//! Endpoints as operators see them: what the store keeps, and what a running host knows besides.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::dispatcher::endpoints::LaneView;
use crate::store::{DeliverySeq, EndpointSummary, Store, StoreError};

/// One endpoint of a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointLine {
    /// What the store keeps, and what waits.
    #[serde(flatten)]
    pub summary: EndpointSummary,
    /// Whether the running host has it in its settings; none when there is no host.
    pub configured: Option<bool>,
    /// `closed`, `open` or `probing`; none without a breaker or a host.
    pub breaker: Option<String>,
    /// When an open breaker begins to probe.
    pub probes_at: Option<Timestamp>,
    /// The most attempts in a time, as in the settings.
    pub rate: Option<String>,
}

/// What a running host knows of its lanes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lanes {
    /// Each lane.
    pub views: Vec<LaneView>,
    /// What each lane tries next.
    pub next_up: Vec<(Arc<str>, DeliverySeq)>,
}

pub(super) async fn lines(
    store: &dyn Store,
    lanes: Option<Lanes>,
    now: Timestamp,
) -> Result<Vec<EndpointLine>, StoreError> {
    let next_up = lanes.as_ref().map(|lanes| lanes.next_up.clone()).unwrap_or_default();
    let summaries = store.list_endpoints(next_up, now).await?;
    Ok(summaries.into_iter().map(|summary| line(summary, lanes.as_ref())).collect())
}

fn line(mut summary: EndpointSummary, lanes: Option<&Lanes>) -> EndpointLine {
    let Some(lanes) = lanes else {
        return EndpointLine { summary, configured: None, breaker: None, probes_at: None, rate: None };
    };
    let Some(view) = lanes.views.iter().find(|view| view.name == summary.record.name) else {
        return EndpointLine { summary, configured: Some(false), breaker: None, probes_at: None, rate: None };
    };
    summary.record.health = view.health.clone();
    EndpointLine {
        summary,
        configured: Some(true),
        breaker: view.breaker.clone(),
        probes_at: view.probes_at,
        rate: view.rate.clone(),
    }
}
