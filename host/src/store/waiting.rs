//! What waits in a store, for those who look every few seconds.

use serde::{Deserialize, Serialize};

use super::RunCount;
use crate::clock::Timestamp;

/// What waits, and how large the store is.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// Runs pending, retrying or parked, by plugin and state; none where there are none.
    pub runs: Vec<RunCount>,
    /// One for each endpoint asked about.
    pub endpoints: Vec<EndpointBacklog>,
    /// How large the store is.
    pub size: StoreSize,
}

/// What waits for one endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointBacklog {
    /// The endpoint's name.
    pub endpoint: String,
    /// Deliveries neither delivered nor dead.
    pub count: u64,
    /// When the delivery is or was due that has waited longest for its turn; none where none waits. What is under way
    /// does not wait.
    pub oldest_due: Option<Timestamp>,
}

/// How large a store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoreSize {
    /// The database's file, in bytes.
    pub bytes: u64,
    /// The write-ahead log's file, in bytes.
    pub wal_bytes: u64,
    /// What the file system has left for it, in bytes; none where it does not say.
    pub free_bytes: Option<u64>,
}
