//! What `plugin pause|resume` and `source pause|resume` share: asking for it, and saying what came of it.

use std::sync::Arc;

use serde_json::json;

use super::Session;
use super::failure::{Exit, Failure, Failures};
use crate::ops::{Pauses, Reply, Request};
use crate::store::PauseKind;

/// Why there may be no plugin.
pub(super) const PLUGINS_NONE: &str = "plugins are known once `wirehook run` has loaded them";
/// Why there may be no source.
pub(super) const SOURCES_NONE: &str = "no [[source]] is configured";

/// What is to wait, or to go on.
pub(super) struct Change<'a> {
    pub(super) kind: PauseKind,
    pub(super) name: &'a str,
    pub(super) paused: bool,
    /// What that means, for people.
    pub(super) meaning: &'a str,
}

/// Asks for it, and says what came of it.
pub(super) async fn change(session: &mut Session<'_>, change: Change<'_>) -> Result<Exit, Failures> {
    let Change { kind, name, paused, meaning } = change;
    let (word, request) = {
        let (kind, name) = (kind, Arc::from(name));
        match paused {
            true => ("paused", Request::Pause { kind, name }),
            false => ("resumed", Request::Resume { kind, name }),
        }
    };
    let (of, kind) = (kind, kind.as_str());
    for reply in session.ask(request).await? {
        match reply {
            Reply::PauseChanged { changed, settled } if session.console.json => {
                session
                    .console
                    .object(&json!({ kind: name, "paused": paused, "changed": changed, "settled": settled }))?;
            }
            Reply::PauseChanged { settled: false, .. } => {
                let text = format!("{kind} `{name}` will be {word} as soon as it has finished what it has begun");
                session.console.line(text)?;
            }
            Reply::PauseChanged { changed: true, .. } => {
                session.console.line(format_args!("{kind} `{name}` is {word}: {meaning}"))?;
            }
            Reply::PauseChanged { changed: false, .. } => {
                let state = if paused { "was paused already" } else { "was not paused" };
                session.console.line(format_args!("{kind} `{name}` {state}"))?;
            }
            Reply::NotFound => return Err(unknown(session, of, name).await?.into()),
            _ => {}
        }
    }
    Ok(Exit::Success)
}

async fn unknown(session: &mut Session<'_>, kind: PauseKind, name: &str) -> Result<Failure, Failures> {
    let pauses = pauses(session).await?;
    let (known, none) = match kind {
        PauseKind::Plugin => (pauses.plugins, PLUGINS_NONE),
        PauseKind::Source => {
            let sources = pauses.sources.into_iter().flatten();
            (sources.map(|source| source.name.into()).collect(), SOURCES_NONE)
        }
    };
    Ok(Failure::unknown(kind.as_str(), name, &known, none))
}

/// What is paused, the running host's sources, and the plugins that are known.
pub(super) async fn pauses(session: &mut Session<'_>) -> Result<Pauses, Failures> {
    for reply in session.ask(Request::ListPauses).await? {
        if let Reply::Pauses(pauses) = reply {
            return Ok(pauses);
        }
    }
    Err(Failure::new("the host did not say what is paused").help("are the command and the host of one version?").into())
}
