//! What the store keeps of endpoints: whether attempts at them are made, and how they fare.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Whether attempts at an endpoint are made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// They are.
    #[default]
    Active,
    /// Not until the operator resumes it; its deliveries wait.
    Paused,
    /// Not until the operator enables it: it is gone, failed for too long, or was disabled; its deliveries wait.
    Disabled,
}

impl EndpointState {
    /// Every state.
    pub const ALL: &[Self; 3] = &[Self::Active, Self::Paused, Self::Disabled];

    /// The name used in the store, in metrics and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// What is done to an endpoint's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointVerb {
    /// From disabled to active.
    Enable,
    /// To disabled, from wherever it is.
    Disable,
    /// From active to paused.
    Pause,
    /// From paused to active.
    Resume,
}

impl EndpointVerb {
    /// Where it leads from `state`; an error says which verb is meant instead.
    pub fn apply(self, state: EndpointState) -> Result<EndpointState, Self> {
        use EndpointState::{Active, Disabled, Paused};
        match (self, state) {
            (Self::Disable, _) => Ok(Disabled),
            (Self::Enable, Paused) => Err(Self::Resume),
            (Self::Pause | Self::Resume, Disabled) => Err(Self::Enable),
            (Self::Pause, Active | Paused) => Ok(Paused),
            (Self::Enable, Active | Disabled) | (Self::Resume, Active | Paused) => Ok(Active),
        }
    }

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// A change of an endpoint's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointChange {
    /// The endpoint's name.
    pub name: Arc<str>,
    /// What is done.
    pub verb: EndpointVerb,
    /// Who does it, and why.
    pub reason: String,
}

/// What became of an [`EndpointChange`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointChanged {
    /// It is durable.
    Done(EndpointRecord),
    /// It was there already; nothing was written.
    Already(EndpointRecord),
    /// Nothing was written: another verb is meant.
    Refused {
        /// Where the endpoint is.
        record: EndpointRecord,
        /// The verb that is meant.
        meant: EndpointVerb,
    },
    /// The store knows no endpoint of that name, but these.
    Unknown {
        /// Their names.
        known: Vec<String>,
    },
}

/// How an endpoint fares.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// For how long every attempt has failed; zero after one that succeeded.
    #[serde(rename = "failing_s", with = "seconds")]
    pub failing_for: Duration,
    /// When an attempt succeeded last.
    pub last_success_at: Option<Timestamp>,
    /// When an attempt failed last.
    pub last_failure_at: Option<Timestamp>,
}

/// An endpoint that was ever configured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// What plugins name.
    pub name: String,
    /// Whether attempts are made.
    pub state: EndpointState,
    /// Since when.
    pub since: Timestamp,
    /// Who put it there, and why.
    pub reason: String,
    /// How it fares.
    #[serde(flatten)]
    pub health: EndpointHealth,
}

/// An endpoint with what waits for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointSummary {
    /// What is kept of it.
    #[serde(flatten)]
    pub record: EndpointRecord,
    /// Deliveries neither delivered nor dead.
    pub backlog: u64,
    /// When the one was due that waits longest; none where nothing waits, or all of it is under way.
    pub oldest_due_at: Option<Timestamp>,
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
