//! A running host as operators see it.

use serde::{Deserialize, Serialize};

use crate::admin::Part;
use crate::clock::Timestamp;

/// A running host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// How the memory of plugins' sandboxes is cleaned between events; empty where the host is an older one.
    #[serde(default)]
    pub cleaning: String,
    /// As `/readyz` lists them.
    pub parts: Vec<Part>,
    /// Its sources, as configured.
    #[serde(default)]
    pub sources: Vec<SourceLook>,
    /// Its plugins, by name.
    #[serde(default)]
    pub plugins: Vec<PluginLook>,
    /// What is on its way through its memory.
    #[serde(default)]
    pub memory: MemoryLook,
}

/// What events, results and webhooks take in a host's memory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MemoryLook {
    /// The most that they may take, in bytes: `[limits] memory_bytes_max`.
    pub budget_bytes: u64,
    /// What they take, by kind.
    pub kinds: Vec<MemoryKindLook>,
}

/// One kind of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemoryKindLook {
    /// `intake`, `runs`, `results` or `deliveries`.
    pub kind: String,
    /// Bytes in memory now.
    pub used_bytes: u64,
    /// How often somebody began to wait for room since the host began.
    pub waits: u64,
    /// Requests refused for want of room since the host began.
    pub refusals: u64,
}

/// A source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceLook {
    /// Its name.
    pub name: String,
    /// Its kind, as in the settings.
    pub kind: String,
    /// `connected`, `disconnected`, `paused`, `ended`; `stopped` while no host runs.
    pub state: String,
    /// The last error, while there is one.
    pub error: Option<String>,
    /// Whether its bus keeps what it does not take while it is paused.
    pub keeps: bool,
    /// Events made durable since the host began.
    pub accepted: u64,
    /// Messages lost since the host began; a lower bound.
    pub lost: u64,
    /// Times it connected again since the host began.
    pub reconnects: u64,
}

/// A plugin.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PluginLook {
    /// Its name.
    pub name: String,
    /// `serving`, `last_good` (its new files won't load), `paused`, `compiling` (for the first time), `refused` or `missing`.
    pub state: String,
    /// What is wrong with its files, and when they are tried again where it may pass.
    pub error: Option<String>,
    /// The hex SHA-256 of the file at work.
    pub digest: Option<String>,
    /// Calls since the host began.
    pub calls: u64,
    /// Half of those calls took at most this long, in seconds; interpolated within a bucket of
    /// `wirehook_plugin_duration_seconds`.
    pub duration_p50_s: Option<f64>,
}
