//! The running host's sources and plugins, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::budget::{Budget, Kind};
use crate::dispatcher::Dispatcher;
use crate::metrics::quantile::quantile;
use crate::metrics::{Metrics, PluginMetrics};
use crate::ops::{MemoryKindLook, MemoryLook, PluginLook, SourceLook};
use crate::plugin::registry::{Fault, Registry, Status};
use crate::source::SourceState;
use crate::store::EndpointState;

/// A source with what pauses it.
#[derive(Clone)]
pub(super) struct SourceSwitch {
    pub(super) state: SourceState,
    /// As in [`crate::settings::SourceKind::keeps`].
    pub(super) keeps: bool,
    /// Whether it can be paused at all.
    pub(super) pausable: bool,
    pub(super) wish: Arc<watch::Sender<bool>>,
}

pub(super) fn sources(switches: &[SourceSwitch], metrics: &Metrics) -> Vec<SourceLook> {
    let look = |switch: &SourceSwitch| {
        let (status, counts) = (switch.state.status(), metrics.source(switch.state.name()));
        SourceLook {
            name: switch.state.name().to_string(),
            kind: switch.state.kind().to_owned(),
            state: status.word().to_owned(),
            error: status.trouble().map(|trouble| trouble.to_string()),
            keeps: switch.keeps,
            accepted: counts.accepted.get(),
            lost: status.messages_lost,
            reconnects: status.reconnects,
        }
    };
    switches.iter().map(look).collect()
}

pub(super) fn memory(budget: &Budget) -> MemoryLook {
    let look = |kind: Kind| {
        let usage = budget.usage(kind);
        MemoryKindLook {
            kind: kind.as_str().to_owned(),
            used_bytes: usage.used as u64,
            waits: usage.waits,
            refusals: usage.refusals,
        }
    };
    MemoryLook { budget_bytes: budget.bytes_max() as u64, kinds: Kind::ALL.map(look).into() }
}

pub(super) fn plugins(registry: &Registry, metrics: &Metrics) -> Vec<PluginLook> {
    let look = |(name, status): (Arc<str>, Status)| {
        let PluginMetrics { duration, .. } = metrics.plugin(&name);
        PluginLook {
            state: plugin_state(&status, registry.is_paused(&name)).to_owned(),
            error: status.why(),
            digest: status.serving.map(|plugin| plugin.digest.to_string()),
            calls: duration.get_sample_count(),
            duration_p50_s: quantile(&duration, 0.5),
            name: name.to_string(),
        }
    };
    registry.statuses().into_iter().map(look).collect()
}

/// How many plugins are in which state: `2 serving, 1 paused`.
pub(super) fn plugins_in_short(registry: &Registry) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for (name, status) in registry.statuses() {
        *counts.entry(plugin_state(&status, registry.is_paused(&name))).or_default() += 1;
    }
    let words: Vec<_> = counts.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// How many endpoints are in which state: `3 active, 1 paused`.
pub(super) fn endpoints_in_short(dispatcher: &Dispatcher) -> String {
    let states = dispatcher.states();
    let count = |state: EndpointState| states.iter().filter(|it| **it == state).count();
    let words = EndpointState::ALL.iter().map(|state| (state, count(*state))).filter(|(_, count)| *count > 0);
    let words: Vec<_> = words.map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn plugin_state(status: &Status, paused: bool) -> &'static str {
    match (&status.serving, &status.fault) {
        (_, Some(Fault::Missing)) => "missing",
        (None, None) => "compiling",
        (None, _) => "refused",
        (Some(_), _) if paused => "paused",
        (Some(_), Some(Fault::Refused(_))) => "last_good",
        (Some(_), None) => "serving",
    }
}
