//! A plugin with the real engine around it and nothing else: no store, no endpoint.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::Recorded;
use super::golden::Golden;
use crate::endpoint::{EndpointError, Endpoints};
use crate::outbox::webhook;
use crate::plugin::{Plugin, Services, subject_matches};
use crate::settings::EgressSettings;
use crate::store::{EventSeq, StateVersion};

/// The endpoint of a plugin whose sidecar names none.
pub const ENDPOINT: &str = "default";

/// A plugin to be tried.
pub struct Trial {
    plugin: Plugin,
    endpoints: Endpoints,
    // Kept from one event to the next, as a host keeps it.
    services: Services,
    // What was compiled for it goes with it.
    _cache: Option<TempDir>,
}

/// What came of one event, and what it took.
#[derive(Debug)]
pub struct Tried {
    /// What came of it.
    pub golden: Golden,
    /// Time on the wall clock.
    pub duration: Duration,
    /// CPU time.
    pub cpu: Duration,
    /// The most memory in use at once, in bytes.
    pub memory_peak_bytes: usize,
    /// Memories and tables of a fresh sandbox, in bytes.
    pub instance_bytes: usize,
}

impl Trial {
    /// Of a plugin that is loaded, with the folder that it was compiled into, where that goes with the trial.
    ///
    /// # Errors
    /// The machine's certificates can't be read.
    pub fn new(plugin: Plugin, cache: Option<TempDir>) -> Result<Self, EndpointError> {
        let endpoints = Endpoints::new(&[], &EgressSettings::default())?;
        Ok(Self { plugin, endpoints, services: Services::default(), _cache: cache })
    }

    /// Runs it as the host would, where its sidecar is subscribed at all. Blocks for as long as the plugin takes.
    pub fn run(&self, recorded: &Recorded) -> Tried {
        let Recorded { event, attempt, .. } = recorded;
        if !self.plugin.manifest.subjects.iter().any(|pattern| subject_matches(pattern, &event.subject)) {
            let nothing = Duration::ZERO;
            let golden = Golden::unsubscribed();
            return Tried { golden, duration: nothing, cpu: nothing, memory_peak_bytes: 0, instance_bytes: 0 };
        }
        let report = self.plugin.call_with(event, *attempt, &self.services);
        let judged = report.result.as_ref().ok();
        let judged =
            judged.map(|webhooks| webhook::deliveries(webhooks, &self.plugin, &event.key, &self.endpoints).err());
        if let (Some(change), None | Some(None)) = (&report.state, &judged) {
            self.services.state.publish(&self.plugin.name, StateVersion { event: EventSeq(0), call: 0 }, change);
        }
        Tried {
            golden: Golden::of(report.result, judged.flatten().as_ref()),
            duration: report.duration,
            cpu: report.cpu,
            memory_peak_bytes: report.memory_peak_bytes,
            instance_bytes: report.instance_bytes,
        }
    }
}

/// The endpoints of a plugin whose sidecar names these.
pub fn endpoints(named: Vec<Arc<str>>) -> Vec<Arc<str>> {
    if named.is_empty() { vec![ENDPOINT.into()] } else { named }
}
