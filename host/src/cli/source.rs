//! `wirehook source …`

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Session;
use super::failure::{Exit, Failure, Failures};
use super::pause::{self, Change};
use super::status::source_look;
use super::table::{Table, maybe, plain};
use super::words::span;
use crate::clock::Timestamp;
use crate::ops::SourceLook;
use crate::settings::{SourceKind, SourceSettings};
use crate::store::PauseKind;

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook source list
  wirehook source pause bus
  wirehook source resume bus";

#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    /// List the sources with their states
    #[command(after_help = LIST_EXAMPLE)]
    List,
    /// Have a source ask its bus for nothing, until it is resumed, restarts or not
    #[command(after_help = PAUSE_EXAMPLE)]
    Pause(PauseArgs),
    /// Have a paused source go on
    #[command(after_help = RESUME_EXAMPLE)]
    Resume {
        /// Its name
        name: String,
    },
}

const LIST_EXAMPLE: &str = "\
Examples:
  wirehook source list
  wirehook source list --json";

const PAUSE_EXAMPLE: &str = "\
Examples:
  wirehook source pause bus
  wirehook source pause notifications --yes

JetStream, Redis Streams and the PostgreSQL outbox keep what is not asked for, within their own \
limits. Core NATS, Redis pub/sub and NOTIFY lose it, and the senders of an http source are \
refused: that wants a yes.";

const RESUME_EXAMPLE: &str = "\
Example:
  wirehook source resume bus";

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Its name
    name: String,
    /// Do not ask, though the bus keeps nothing meanwhile
    #[arg(long)]
    yes: bool,
}

/// A source as a list shows it.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    look: SourceLook,
    /// Since when it is paused.
    paused_since: Option<Timestamp>,
}

pub(super) async fn source(session: &mut Session<'_>, command: SourceCommand) -> Result<Exit, Failures> {
    match command {
        SourceCommand::List => list(session).await,
        SourceCommand::Pause(args) => pause(session, args).await,
        SourceCommand::Resume { name } => {
            let meaning = "it asks its bus again";
            let resume = Change { kind: PauseKind::Source, name: &name, paused: false, meaning };
            pause::change(session, resume).await
        }
    }
}

async fn list(session: &mut Session<'_>) -> Result<Exit, Failures> {
    let now = session.parts.clock().now();
    let sources = sources(session).await?;
    if session.console.json {
        sources.iter().try_for_each(|source| session.console.object(source))?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["source", "kind", "state", "accepted", "lost", "reconnects", "while paused", "error"])
        .numbers(&[3, 4, 5]);
    for Listed { look, paused_since } in sources {
        let since = paused_since.map(|since| format!("paused {}", span(now.since(since))));
        table.row(vec![
            plain(&look.name),
            plain(&look.kind),
            (since.unwrap_or_else(|| look.state.clone()), source_look(&look.state)),
            plain(look.accepted),
            plain(look.lost),
            plain(look.reconnects),
            plain(if look.keeps { "kept" } else { "lost" }),
            maybe(look.error),
        ]);
    }
    table.print_or("no sources", session.console)?;
    Ok(Exit::Success)
}

async fn pause(session: &mut Session<'_>, PauseArgs { name, yes }: PauseArgs) -> Result<Exit, Failures> {
    let sources = sources(session).await?;
    let Some(Listed { look, .. }) = sources.iter().find(|source| source.look.name == name) else {
        let names: Vec<_> = sources.iter().map(|source| source.look.name.as_str()).collect();
        return Err(Failure::unknown("source", &name, &names, pause::SOURCES_NONE).into());
    };
    if look.kind == SourceKind::Stdin.name() {
        let failure = Failure::new(format!("source `{name}` reads standard input, which can't be paused"));
        return Err(failure.help("have what feeds it wait").into_usage());
    }
    if !look.keeps && !yes && !confirmed(session, look)? {
        return Err(Failure::new("not confirmed: nothing was done").into());
    }
    let meaning = match look.keeps {
        true => "its bus keeps what comes, within the bus's own limits",
        false => "what comes meanwhile is lost",
    };
    pause::change(session, Change { kind: PauseKind::Source, name: &name, paused: true, meaning }).await
}

/// Asks before events are lost.
fn confirmed(session: &mut Session<'_>, source: &SourceLook) -> Result<bool, Failures> {
    let lost = match source.kind.as_str() {
        "http" => "its senders are refused meanwhile, and lose what they don't send again".to_owned(),
        kind => format!("{kind} keeps nothing: what is published meanwhile is lost"),
    };
    if !session.console.interactive() {
        let failure = Failure::new(format!("source `{}` can't be paused without a loss: {lost}", source.name));
        return Err(failure.help("say --yes where that is meant").into_usage());
    }
    Ok(session.console.confirm(&format!("Pause source `{}`? {lost}.", source.name))?)
}

/// The running host's sources, else those of the settings.
async fn sources(session: &mut Session<'_>) -> Result<Vec<Listed>, Failures> {
    let pauses = pause::pauses(session).await?;
    let looks = match pauses.sources {
        Some(sources) => sources,
        None => session.load()?.settings.sources.iter().map(stopped).collect(),
    };
    let since = |name: &str| {
        let mut paused = pauses.pauses.iter().filter(|pause| pause.kind == PauseKind::Source);
        paused.find(|pause| *pause.name == *name).map(|pause| pause.since)
    };
    Ok(looks.into_iter().map(|look| Listed { paused_since: since(&look.name), look }).collect())
}

fn stopped(settings: &SourceSettings) -> SourceLook {
    SourceLook {
        name: settings.name.to_string(),
        kind: settings.kind.name().to_owned(),
        state: "stopped".to_owned(),
        error: None,
        keeps: settings.kind.keeps(),
        accepted: 0,
        lost: 0,
        reconnects: 0,
    }
}
