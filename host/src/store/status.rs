//! What is in a store, counted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DeliveryState, EndpointBacklog, EndpointRecord, Pause, StoreSize};
use crate::dead_letter::Reason;

/// What is in the store, counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Events kept.
    pub events: u64,
    /// Events that nobody subscribed to.
    pub unrouted: u64,
    /// Runs, by plugin and state.
    pub runs: Vec<RunCount>,
    /// Deliveries, by endpoint and state.
    pub deliveries: Vec<DeliveryCount>,
    /// Dead letters, by reason.
    pub dead_letters: Vec<ReasonCount>,
    /// Events for which guarantee 2 does not hold; must be 0.
    pub events_unaccounted: u64,
    /// Every endpoint that was ever configured.
    #[serde(default)]
    pub endpoints: Vec<EndpointRecord>,
    /// Of those, how many died in the last 24 hours and are still kept.
    #[serde(default)]
    pub dead_letters_lately: Vec<ReasonCount>,
    /// What waits for each endpoint for which something does.
    #[serde(default)]
    pub backlog: Vec<EndpointBacklog>,
    /// What is paused.
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// How large it is.
    #[serde(default)]
    pub size: StoreSize,
}

/// How long [`StoreStatus::dead_letters_lately`] looks back.
pub const LATELY: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs of one plugin in one state: `pending`, `retrying`, `parked`, `produced`, `filtered`, `dead`, `discarded`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunCount {
    /// The plugin's name.
    pub plugin: String,
    /// The state's name.
    pub state: String,
    /// How many.
    pub count: u64,
}

/// Deliveries to one endpoint in one state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryCount {
    /// The endpoint's name.
    pub endpoint: String,
    /// The state.
    pub state: DeliveryState,
    /// How many.
    pub count: u64,
}

/// Dead letters for one reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
}
