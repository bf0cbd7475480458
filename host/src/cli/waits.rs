//! What was made due and is not done yet all the same: its endpoint or plugin is told to wait, or no host runs. A verb that
//! would say that it is done says this instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::Session;
use super::failure::{Failure, Failures};
use super::table::{counted, printable};
use crate::ops::endpoints::EndpointLine;
use crate::ops::{Reply, Request};
use crate::store::{EndpointState, PauseKind};

/// Work that waits for something besides its turn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Waits {
    /// The endpoint or plugin.
    #[serde(flatten)]
    of: Of,
    /// `paused`, `disabled` or `not configured`.
    state: &'static str,
    /// How much waits there of what the command was about, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    Endpoint(Arc<str>),
    Plugin(Arc<str>),
}

impl Waits {
    /// How many deliveries that are.
    pub(super) fn count(&self) -> u64 {
        self.count.unwrap_or(0)
    }

    /// That it waits, and what has it go on.
    pub(super) fn failure(&self) -> Failure {
        let (kind, name) = match &self.of {
            Of::Endpoint(name) => ("endpoint", printable(name)),
            Of::Plugin(name) => ("plugin", printable(name)),
        };
        let what = match (self.count, &self.of) {
            (Some(count), _) => counted(count, "delivery waits", "deliveries wait"),
            (None, Of::Endpoint(_)) => "deliveries wait".to_owned(),
            (None, Of::Plugin(_)) => "runs wait".to_owned(),
        };
        let (why, help) = match self.state {
            "disabled" => ("is disabled", format!("`wirehook endpoints enable {name}` has it go on")),
            "paused" if kind == "plugin" => ("is paused", format!("`wirehook plugin resume {name}` has it go on")),
            "paused" => ("is paused", format!("`wirehook endpoints resume {name}` has it go on")),
            _ => (
                "is not in the settings",
                format!("configure it, or use `wirehook deliveries move --endpoint {name} --to NAME`"),
            ),
        };
        Failure::new(format!("{what}, and nothing is tried now: {kind} `{name}` {why}")).help(help)
    }
}

/// Of deliveries that were made due at these endpoints, those that are not tried.
pub(super) async fn at_endpoints(
    session: &mut Session<'_>,
    due: &BTreeMap<Arc<str>, Option<u64>>,
) -> Result<Vec<Waits>, Failures> {
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let configured = session.endpoint_names()?;
    let mut lines = Vec::new();
    for reply in session.ask(Request::ListEndpoints).await? {
        if let Reply::Endpoint(line) = reply {
            lines.push(*line);
        }
    }
    Ok(waiting(due, &lines, &configured))
}

/// Of runs that were made due of these plugins, those that are not called.
pub(super) async fn of_plugins(session: &mut Session<'_>, due: &[Arc<str>]) -> Result<Vec<Waits>, Failures> {
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let pauses = super::pause::pauses(session).await?.pauses;
    let is_paused = |name: &&Arc<str>| pauses.iter().any(|it| it.kind == PauseKind::Plugin && it.name == **name);
    let waits = |name: &Arc<str>| Waits { of: Of::Plugin(Arc::clone(name)), state: "paused", count: None };
    Ok(due.iter().filter(is_paused).map(waits).collect())
}

/// Pure: those endpoints that get nothing. A running host says by itself which it has; without one, the settings do.
fn waiting(due: &BTreeMap<Arc<str>, Option<u64>>, lines: &[EndpointLine], configured: &[Arc<str>]) -> Vec<Waits> {
    let state = |name: &Arc<str>| {
        let line = lines.iter().find(|line| *line.summary.record.name == **name);
        let is_known = line.and_then(|line| line.configured).unwrap_or_else(|| configured.contains(name));
        match line.map(|line| line.summary.record.state) {
            _ if !is_known => Some("not configured"),
            Some(EndpointState::Paused) => Some("paused"),
            Some(EndpointState::Disabled) => Some("disabled"),
            Some(EndpointState::Active) | None => None,
        }
    };
    let waits = |(name, count): (&Arc<str>, &Option<u64>)| {
        Some(Waits { of: Of::Endpoint(Arc::clone(name)), state: state(name)?, count: *count })
    };
    due.iter().filter_map(waits).collect()
}

/// When what is due is done.
pub(super) fn when(session: &Session<'_>) -> &'static str {
    if session.offline.is_some() { "due, and tried once a host runs" } else { "tried now" }
}
