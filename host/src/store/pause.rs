//! What an operator has told to wait.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What can be paused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// A plugin: its events are accepted, its runs wait.
    Plugin,
    /// A source: it asks its bus for nothing.
    Source,
}

impl PauseKind {
    /// The name used in the store and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Source => "source",
        }
    }
}

/// Something that waits until it is resumed, restarts or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pause {
    /// What it is.
    pub kind: PauseKind,
    /// Its name.
    pub name: Arc<str>,
    /// Since when.
    pub since: Timestamp,
}
