//! What Wirehook counts. The path holds handles resolved beforehand: counting is one atomic addition.

use std::sync::{Arc, Mutex};

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use self::door::{DoorMetrics, Refused};
use self::process::Process;
use crate::budget::{Budget, Kind};
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::store::{DeadLetterKind, EndpointBacklog, EndpointState, StoreSize};
use crate::sync::lock;

mod door;
mod process;
pub mod quantile;

/// From 10 µs to 10 s: a call of a small plugin takes microseconds, a broken deadline seconds.
const PLUGIN_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0,
];

/// From 1 ms to 30 s: a receiver beside the host takes a millisecond, one that hangs as long as its `timeout`.
const ATTEMPT_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// From 100 µs to 10 s: a sync of a good disk takes a millisecond, of a bad one a second.
const COMMIT_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The states of runs that `wirehook_runs_waiting{plugin,state}` counts.
pub const WAITING_STATES: [&str; 3] = ["pending", "retrying", "parked"];

/// Every metric, registered once for a host.
#[derive(Clone, Debug)]
pub struct Metrics {
    catalog: Catalog,
    /// What the store counts its commits with.
    pub commits: CommitMetrics,
    /// What the store counts dead letters with.
    pub letters: LetterMetrics,
    /// `wirehook_events_unrouted_total`: accepted events that nobody subscribes to.
    pub events_unrouted: IntCounter,
    /// `wirehook_event_conflicts_total`: messages with the key of an earlier one and another body.
    pub event_conflicts: IntCounter,
    /// `wirehook_events_unaccounted`: events for which nothing says what became of them; must be 0.
    pub events_unaccounted: IntGauge,
    /// `wirehook_intake_stopped`: 1 while the store takes no events because its disk is full.
    pub intake_stopped: IntGauge,
    dead_letters: Vec<IntCounter>,
    events_accepted: IntCounterVec,
    events_lost: IntCounterVec,
    source_connected: IntGaugeVec,
    source_paused: IntGaugeVec,
    source_interruptions: IntCounterVec,
    source_reconnects: IntCounterVec,
    headers_dropped: IntCounterVec,
    delete_markers: IntCounterVec,
    http_closed: IntCounterVec,
    http_refused: IntCounterVec,
    runs: IntCounterVec,
    runs_waiting: IntGaugeVec,
    plugin_paused: IntGaugeVec,
    state_conflicts: IntCounterVec,
    rollbacks: IntCounterVec,
    plugin_duration: HistogramVec,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    backlog: IntGaugeVec,
    endpoint_state: IntGaugeVec,
    breaker_open: IntGaugeVec,
    breaker_opened: IntCounterVec,
    oldest_due: GaugeVec,
    memory_budget: IntGauge,
    memory_used: IntGaugeVec,
    memory_waits: IntCounterVec,
    memory_refusals: IntCounterVec,
    store_bytes: IntGauge,
    store_wal_bytes: IntGauge,
    store_free_bytes: IntGaugeVec,
}

/// What the store counts its commits with.
#[derive(Clone, Debug)]
pub struct CommitMetrics {
    /// `wirehook_commit_duration_seconds`: one group, from its beginning to the end of the sync, without waits for plugins.
    pub seconds: Histogram,
    /// `wirehook_commit_failures_total`: groups that failed.
    pub failures: IntCounter,
}

/// What the store counts dead letters with.
#[derive(Clone, Debug)]
pub struct LetterMetrics {
    /// `wirehook_dead_letters_evicted_total{kind}`: those that made room, by kind in the order of
    /// [`DeadLetterKind::ALL`].
    pub evicted: [IntCounter; DeadLetterKind::ALL.len()],
    /// `wirehook_dead_letter_bytes`: what dead letters keep.
    pub bytes: IntGauge,
}

/// One source's metrics.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// `wirehook_events_accepted_total{source}`: made durable, duplicates not counted.
    pub accepted: IntCounter,
    /// `wirehook_events_lost_total{source}`: refused or dropped by a bus that can't wait or redeliver.
    pub lost: IntCounter,
    /// `wirehook_source_connected{source}`: 1 while connected.
    pub connected: IntGauge,
    /// `wirehook_source_paused{source}`: 1 while an operator has it paused.
    pub paused: IntGauge,
    /// `wirehook_source_interruptions_total{source}`: times that the connection to a bus that keeps nothing was lost.
    pub interruptions: IntCounter,
    /// `wirehook_source_reconnects_total{source}`
    pub reconnects: IntCounter,
    /// `wirehook_headers_dropped_total{source}`: lines of a message's headers that are no header.
    pub headers_dropped: IntCounter,
    /// `wirehook_delete_markers_total{source}`: what a server puts in place of messages that are gone.
    pub delete_markers: IntCounter,
}

/// One plugin's metrics: `wirehook_runs_total{plugin,outcome}` and its duration.
#[derive(Clone, Debug)]
pub struct PluginMetrics {
    /// Outcome `produced`.
    pub produced: IntCounter,
    /// Outcome `filtered`.
    pub filtered: IntCounter,
    /// Outcome `retrying`.
    pub retrying: IntCounter,
    /// Calls made again because the state they had read has changed.
    pub state_conflicts: IntCounter,
    /// Builds taken from work.
    pub rollbacks: IntCounter,
    /// Outcome `parked`.
    pub parked: IntCounter,
    /// Outcome `dead`.
    pub dead: IntCounter,
    /// `wirehook_plugin_paused{plugin}`: 1 while an operator has it paused.
    pub paused: IntGauge,
    /// `wirehook_plugin_duration_seconds{plugin}`: one call, instantiation included.
    pub duration: Histogram,
}

/// One endpoint's metrics: `wirehook_attempts_total{endpoint,outcome}` and its backlog.
#[derive(Clone, Debug)]
pub struct EndpointMetrics {
    /// Outcome `delivered`.
    pub delivered: IntCounter,
    /// Outcome `retrying`.
    pub retrying: IntCounter,
    /// Outcome `dead`.
    pub dead: IntCounter,
    /// Outcome `deferred`: the endpoint was not reached for no fault of its own, and no attempt is counted.
    pub deferred: IntCounter,
    /// `wirehook_endpoint_state{endpoint,state}`: 1 for the one it is in, in the order of [`EndpointState::ALL`].
    pub states: [IntGauge; EndpointState::ALL.len()],
    /// `wirehook_breaker_open{endpoint}`: 1 while its deliveries wait for the breaker, probes included.
    pub breaker_open: IntGauge,
    /// `wirehook_breaker_opened_total{endpoint}`
    pub breaker_opened: IntCounter,
    /// `wirehook_attempt_duration_seconds{endpoint}`: one attempt, from the lookup of the name to the response.
    pub duration: Histogram,
}

impl Metrics {
    /// Registers everything, and sets `wirehook_build_info{version}` to 1.
    ///
    /// # Errors
    /// Only when two metrics of this file share a name.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Catalog::default();
        registry.register(Box::new(Process::new()?))?;
        let evicted = counters(
            &registry,
            "dead_letters_evicted_total",
            "Dead letters that were deleted because newer ones needed their room.",
            &["kind"],
        )?;
        let letters = LetterMetrics {
            evicted: DeadLetterKind::ALL.map(|kind| evicted.with_label_values(&[kind.as_str()])),
            bytes: gauges(&registry, "dead_letter_bytes", "What dead letters keep.", &[])?
                .with_label_values::<&str>(&[]),
        };
        let dead_letters =
            counters(&registry, "dead_letters_total", "What will not be tried again by itself.", &["reason"])?;
        let build_info = gauges(&registry, "build_info", "1, labelled with the version.", &["version"])?;
        build_info.with_label_values(&[version]).set(1);
        Ok(Self {
            events_unrouted: counter(&registry, "events_unrouted_total", "Accepted events that nobody subscribes to.")?,
            event_conflicts: counter(
                &registry,
                "event_conflicts_total",
                "Messages with a known key and another body.",
            )?,
            events_unaccounted: gauges(&registry, "events_unaccounted", "Events without an end; must be 0.", &[])?
                .with_label_values::<&str>(&[]),
            intake_stopped: gauges(&registry, "intake_stopped", "1 while the store's disk is full.", &[])?
                .with_label_values::<&str>(&[]),
            // In the order of `Reason::ALL`; each is 0 from the start, so that an alert sees the first increase.
            dead_letters: Reason::ALL.iter().map(|reason| dead_letters.with_label_values(&[reason.as_str()])).collect(),
            events_accepted: counters(&registry, "events_accepted_total", "Events made durable.", &["source"])?,
            events_lost: counters(
                &registry,
                "events_lost_total",
                "Events refused that won't come again.",
                &["source"],
            )?,
            source_connected: gauges(&registry, "source_connected", "1 while the source is connected.", &["source"])?,
            source_paused: gauges(
                &registry,
                "source_paused",
                "1 while an operator has the source paused.",
                &["source"],
            )?,
            source_interruptions: counters(
                &registry,
                "source_interruptions_total",
                "Times a bus that keeps nothing was lost, and its events.",
                &["source"],
            )?,
            source_reconnects: counters(
                &registry,
                "source_reconnects_total",
                "Times the source connected again.",
                &["source"],
            )?,
            headers_dropped: counters(
                &registry,
                "headers_dropped_total",
                "Lines of messages' headers that are no header, and were left out.",
                &["source"],
            )?,
            delete_markers: counters(
                &registry,
                "delete_markers_total",
                "Delete markers of a stream, which are no events.",
                &["source"],
            )?,
            http_closed: counters(
                &registry,
                "http_connections_closed_total",
                "Connections that the host closed because their client let it wait.",
                &["listener", "reason"],
            )?,
            http_refused: counters(
                &registry,
                "http_requests_refused_total",
                "Requests that were refused.",
                &["listener", "reason"],
            )?,
            runs: counters(&registry, "runs_total", "Tries of runs by what they came to.", &["plugin", "outcome"])?,
            runs_waiting: gauges(
                &registry,
                "runs_waiting",
                "Runs that are pending, retrying or parked.",
                &["plugin", "state"],
            )?,
            plugin_paused: gauges(
                &registry,
                "plugin_paused",
                "1 while an operator has the plugin paused.",
                &["plugin"],
            )?,
            plugin_duration: histogram(
                &registry,
                "plugin_duration_seconds",
                "Calls of plugins.",
                PLUGIN_SECONDS,
                &["plugin"],
            )?,
            rollbacks: counters(
                &registry,
                "plugin_rollbacks_total",
                "Builds taken from work because they failed so much more than the ones before.",
                &["plugin"],
            )?,
            state_conflicts: counters(
                &registry,
                "state_conflicts_total",
                "Calls made again because the state they had read has changed.",
                &["plugin"],
            )?,
            attempts: counters(
                &registry,
                "attempts_total",
                "Attempts by what they came to.",
                &["endpoint", "outcome"],
            )?,
            attempt_duration: histogram(
                &registry,
                "attempt_duration_seconds",
                "Attempts, whatever they came to.",
                ATTEMPT_SECONDS,
                &["endpoint"],
            )?,
            backlog: gauges(&registry, "backlog", "Deliveries neither delivered nor dead.", &["endpoint"])?,
            endpoint_state: gauges(
                &registry,
                "endpoint_state",
                "1 for the state that the endpoint is in: active, paused or disabled.",
                &["endpoint", "state"],
            )?,
            breaker_open: gauges(&registry, "breaker_open", "1 while deliveries wait for a breaker.", &["endpoint"])?,
            breaker_opened: counters(
                &registry,
                "breaker_opened_total",
                "Times a breaker opened, after a failed probe too.",
                &["endpoint"],
            )?,
            oldest_due: oldest_due(&registry)?,
            letters,
            commits: CommitMetrics {
                seconds: histogram(&registry, "commit_duration_seconds", "Commits of the store.", COMMIT_SECONDS, &[])?
                    .with_label_values::<&str>(&[]),
                failures: counter(&registry, "commit_failures_total", "Commits of the store that failed.")?,
            },
            memory_budget: gauges(
                &registry,
                "memory_budget_bytes",
                "What events, results and webhooks may take in memory.",
                &[],
            )?
            .with_label_values::<&str>(&[]),
            memory_used: gauges(&registry, "memory_used_bytes", "What they take, by what they are.", &["kind"])?,
            memory_waits: counters(
                &registry,
                "memory_waits_total",
                "Times somebody began to wait for room in memory.",
                &["kind"],
            )?,
            memory_refusals: counters(
                &registry,
                "memory_refusals_total",
                "Requests refused because there was no room in memory.",
                &["kind"],
            )?,
            store_bytes: gauges(&registry, "store_bytes", "Size of the store's database file.", &[])?
                .with_label_values::<&str>(&[]),
            store_wal_bytes: gauges(&registry, "store_wal_bytes", "Size of the store's write-ahead log.", &[])?
                .with_label_values::<&str>(&[]),
            store_free_bytes: gauges(&registry, "store_free_bytes", "What the store's disk has left.", &[])?,
            catalog: registry,
        })
    }

    /// The handles of one source.
    pub fn source(&self, name: &str) -> SourceMetrics {
        SourceMetrics {
            accepted: self.events_accepted.with_label_values(&[name]),
            lost: self.events_lost.with_label_values(&[name]),
            connected: self.source_connected.with_label_values(&[name]),
            paused: self.source_paused.with_label_values(&[name]),
            interruptions: self.source_interruptions.with_label_values(&[name]),
            reconnects: self.source_reconnects.with_label_values(&[name]),
            headers_dropped: self.headers_dropped.with_label_values(&[name]),
            delete_markers: self.delete_markers.with_label_values(&[name]),
        }
    }

    /// The handles of one HTTP listener, named as in `/readyz`: `admin`, `source orders`.
    pub fn door(&self, listener: &str) -> DoorMetrics {
        DoorMetrics::new(listener, &self.http_closed, &self.http_refused)
    }

    /// The handles of one plugin.
    pub fn plugin(&self, name: &str) -> PluginMetrics {
        let outcome = |outcome| self.runs.with_label_values(&[name, outcome]);
        PluginMetrics {
            produced: outcome("produced"),
            filtered: outcome("filtered"),
            retrying: outcome("retrying"),
            parked: outcome("parked"),
            dead: outcome("dead"),
            state_conflicts: self.state_conflicts.with_label_values(&[name]),
            rollbacks: self.rollbacks.with_label_values(&[name]),
            paused: self.plugin_paused.with_label_values(&[name]),
            duration: self.plugin_duration.with_label_values(&[name]),
        }
    }

    /// The handles of one endpoint.
    pub fn endpoint(&self, name: &str) -> EndpointMetrics {
        let outcome = |outcome| self.attempts.with_label_values(&[name, outcome]);
        EndpointMetrics {
            delivered: outcome("delivered"),
            retrying: outcome("retrying"),
            dead: outcome("dead"),
            deferred: outcome("deferred"),
            states: EndpointState::ALL.map(|state| self.endpoint_state.with_label_values(&[name, state.as_str()])),
            breaker_open: self.breaker_open.with_label_values(&[name]),
            breaker_opened: self.breaker_opened.with_label_values(&[name]),
            duration: self.attempt_duration.with_label_values(&[name]),
        }
    }

    /// `wirehook_runs_waiting{plugin,state}`.
    pub fn runs_waiting(&self, plugin: &str, state: &str, count: u64) {
        self.runs_waiting.with_label_values(&[plugin, state]).set(signed(count));
    }

    /// `wirehook_backlog{endpoint}` and `wirehook_oldest_due_timestamp_seconds{endpoint}`; the latter has no sample while
    /// nothing waits.
    pub fn endpoint_backlog(&self, EndpointBacklog { endpoint, count, oldest_due }: &EndpointBacklog) {
        self.backlog.with_label_values(&[endpoint]).set(signed(*count));
        match oldest_due {
            Some(Timestamp(due_at)) => {
                self.oldest_due.with_label_values(&[endpoint]).set(*due_at as f64 / MILLISECONDS_IN_SECOND);
            }
            // An error says that there was no sample.
            None => drop(self.oldest_due.remove_label_values(&[endpoint])),
        }
    }

    /// `wirehook_memory_budget_bytes`, and by kind `wirehook_memory_used_bytes`, `wirehook_memory_waits_total` and
    /// `wirehook_memory_refusals_total`.
    pub fn memory(&self, budget: &Budget) {
        self.memory_budget.set(signed(budget.bytes_max() as u64));
        for kind in Kind::ALL {
            let (name, usage) = ([kind.as_str()], budget.usage(kind));
            self.memory_used.with_label_values(&name).set(signed(usage.used as u64));
            let up_to = |counter: &IntCounter, count: u64| counter.inc_by(count.saturating_sub(counter.get()));
            up_to(&self.memory_waits.with_label_values(&name), usage.waits);
            up_to(&self.memory_refusals.with_label_values(&name), usage.refusals);
        }
    }

    /// `wirehook_store_bytes` and `wirehook_store_wal_bytes`.
    pub fn store_size(&self, size: StoreSize) {
        self.store_bytes.set(signed(size.bytes));
        self.store_wal_bytes.set(signed(size.wal_bytes));
    }

    /// `wirehook_store_free_bytes`. Where the system does not say, there is no sample: 0 would be an alarm.
    pub fn store_free_bytes(&self, free: Option<u64>) {
        if let Some(free) = free {
            self.store_free_bytes.with_label_values::<&str>(&[]).set(signed(free));
        }
    }

    /// The name of every metric, those without a sample too.
    pub fn names(&self) -> Vec<String> {
        lock(&self.catalog.names).clone()
    }

    /// `wirehook_dead_letters_total{reason}`.
    pub fn dead_letter(&self, reason: Reason) {
        self.dead_letters(reason, 1);
    }

    /// The same, of several.
    pub fn dead_letters(&self, reason: Reason, count: u64) {
        if let Some(index) = Reason::ALL.iter().position(|known| *known == reason) {
            self.dead_letters[index].inc_by(count);
        }
    }

    /// Dead letters of every reason together.
    pub fn died(&self) -> u64 {
        self.dead_letters.iter().map(IntCounter::get).sum()
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.catalog.registry.gather(), &mut text)?;
        Ok(text)
    }
}

const MILLISECONDS_IN_SECOND: f64 = 1000.0;

/// A registry that knows the names of what is in it: one without samples does not show.
#[derive(Clone, Debug, Default)]
struct Catalog {
    registry: Registry,
    names: Arc<Mutex<Vec<String>>>,
}

impl Catalog {
    fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        let names: Vec<_> = collector.desc().iter().map(|desc| desc.fq_name.clone()).collect();
        self.registry.register(collector)?;
        lock(&self.names).extend(names);
        Ok(())
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn oldest_due(registry: &Catalog) -> Result<GaugeVec, prometheus::Error> {
    let help = "When the delivery is or was due that has waited longest for its turn; no sample while none waits.";
    let gauges = GaugeVec::new(options("oldest_due_timestamp_seconds", help), &["endpoint"])?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("wirehook")
}

fn counter(registry: &Catalog, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::with_opts(options(name, help))?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn counters(registry: &Catalog, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(options(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn gauges(registry: &Catalog, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    let gauges = IntGaugeVec::new(options(name, help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn histogram(
    registry: &Catalog,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts { common_opts: options(name, help), buckets: buckets.to_vec() };
    let histogram = HistogramVec::new(options, labels)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

#[cfg(test)]
mod tests;
