//! Plugins: sandboxed components that turn one event into webhooks.
//!
//! A plugin is loaded once and called for each event in a sandbox of its own, which the call's end destroys, unless reuse
//! is asked for and granted. Calls are synchronous and belong on worker threads. Everything a call may use has a bound in [`limits`], and every way it can
//! fail is told apart in [`CallFailure`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::store::StateChange;

#[allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all, reason = "generated from wit/")]
mod bindings;
pub mod registry;
pub mod pool;
mod fair;
pub mod limits;
mod gate;
mod reservation;
mod swap;
mod engine;
mod cache;
pub mod compiler;
mod capability;
mod linker;
mod encode;
mod loader;
mod grant;
mod manifest;
pub mod state;
pub mod http;
mod call;
mod instance;
mod scan;
pub mod builds;
pub mod builtin;
pub mod rollback;
mod hollow;
mod inspect;
#[cfg(test)]
pub(crate) mod fixture;

pub use cache::CacheError;
pub use encode::encode;
pub use engine::{Engine, EngineError, Runtime, WORKERS_MAX};
pub use grant::Grant;
pub use inspect::{Inspection, inspect};
pub use linker::HANDLER;
pub use loader::{FILE_BYTES_MAX, Kind, LoadError, digest};
pub use manifest::{Manifest, ManifestError, effective, subject_matches};
pub use scan::{Folder, PluginError, ScanError, Scanned, Stamp, admitted, manifest_beside, scan};
pub use swap::{CannotSwap, Cleaning, MaySwap};

/// A plugin that can be called, from any thread.
pub struct Plugin {
    /// The file's stem.
    pub name: Arc<str>,
    /// The lower-case hex SHA-256 of the file.
    pub digest: Arc<str>,
    /// Names the pair of files that it was made of, sidecar included.
    pub build: Arc<str>,
    /// What it may do: what it asked for, within what the operator grants.
    pub manifest: Manifest,
    engine: Arc<Engine>,
    handler: bindings::AllCapabilitiesPre<call::CallState>,
    config: capability::config::ConfigValues,
    kept: instance::Kept,
}

/// What the host provides to a call, besides the event.
#[derive(Clone)]
pub struct Services {
    /// Where granted calls read state.
    pub state: Arc<dyn state::StateSource>,
    /// What makes granted calls' requests.
    pub outgoing: Arc<http::Outgoing>,
}

impl Default for Services {
    /// State that is empty at first, and no request is made: what a call outside a host gets.
    fn default() -> Self {
        Self { state: Arc::new(state::InMemory::default()), outgoing: Arc::default() }
    }
}

/// What one call came to, and what it used.
#[derive(Debug)]
pub struct CallReport {
    /// The webhooks (none: the event is filtered), or why there are none.
    pub result: Result<Vec<Webhook>, CallFailure>,
    /// Time on the wall clock, making and destroying the sandbox included.
    pub duration: Duration,
    /// CPU time, making and destroying the sandbox included: what plugins are shared fairly by.
    pub cpu: Duration,
    /// The most memory in use at once, in bytes.
    pub memory_peak_bytes: usize,
    /// Memories and tables of the sandbox when it was fresh, before its first event went in, in bytes; 0 where it was not
    /// made.
    pub instance_bytes: usize,
    /// Log lines over the event's budget.
    pub log_lines_dropped: u64,
    /// What it read and wrote of its state, where the result was good.
    pub state: Option<Arc<StateChange>>,
}

impl CallReport {
    /// What its result takes in memory, in bytes, but for a bounded rest.
    pub fn content_bytes(&self) -> usize {
        let webhook = |webhook: &Webhook| {
            let names = [&webhook.endpoint, &webhook.key, &webhook.content_type].into_iter().flatten().map(String::len);
            let headers = webhook.headers.iter().map(|(name, value)| name.len() + value.len());
            webhook.body.len() + names.chain(headers).sum::<usize>()
        };
        let webhooks = self.result.iter().flatten().map(webhook).sum::<usize>();
        let writes = self.state.iter().flat_map(|change| &change.writes);
        webhooks + writes.map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum::<usize>()
    }
}

/// Why a call produced no webhooks. The texts are bounded and safe to show.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallFailure {
    /// It trapped: a panic, an exit, a fault of the plugin's own.
    #[error("the plugin trapped: {0}")]
    Trap(String),
    /// It ran past its deadline.
    #[error("the plugin {0}")]
    Deadline(String),
    /// It asked for more memory than its limit, and then failed.
    #[error("the plugin {0}")]
    Memory(String),
    /// What it returned breaks a bound of [`limits`]; none of it was taken.
    #[error("the plugin returned {0}")]
    Output(String),
    /// It returned `failure::retry`.
    #[error("the plugin asked to be tried again: {0}")]
    Retry(String),
    /// The host could not give it what it asked for: not the plugin's fault.
    #[error("the plugin could not be served: {0}")]
    Host(String),
    /// It returned `failure::reject`.
    #[error("the plugin rejected the event: {0}")]
    Reject(String),
}

/// A webhook as the plugin returned it: within the bounds of [`limits`], nothing else checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Webhook {
    /// The endpoint's name; none means the plugin's first.
    pub endpoint: Option<String>,
    /// What tells it apart from the event's other webhooks; none means its position.
    pub key: Option<String>,
    /// The body's `Content-Type`; none leaves it to the host.
    pub content_type: Option<String>,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}
