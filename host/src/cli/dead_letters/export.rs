//! `wirehook dead-letters export`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::filter::FilterArgs;
use crate::cli::{Session, output};
use crate::ops::{Reply, Request};
use crate::recorded::redact::{RedactError, redact};
use crate::store::DeadLetterDetail;

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook dead-letters export --reason status_4xx --since 7d > refused.jsonl
  wirehook dead-letters export 17 --fixture events
  wirehook dead-letters export 17 --fixture events \\
    --redact /entity/customer_email --redact '/entity/lines/*/note'
  wirehook plugin test dist/orders.wasm --events events --update

Without --fixture, writes what is meant as JSON lines, oldest first: each dead letter whole, with \
its event, its payload and every attempt, as `dead-letters show --json` does.

With it, writes the event as dead_letter_17.json, for `wirehook plugin test`. A path begins at the \
event: /entity, /previous, /tenant_id, /attributes/3/1. A text becomes \"redacted\", a number 0, a \
list or an object is emptied. Nothing is written where a path matches nothing, or where what was \
redacted (a text or number of four bytes or more) is still somewhere else in the event.";

/// What the paths of `--redact` begin at.
const ROOT: &str = "wirehook_event";

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// These ids; all that the filters mean where there is none
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// The folder to write the event of one dead letter into
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["endpoint", "plugin", "reason", "event", "entity_id", "since", "until"])]
    fixture: Option<PathBuf>,
    /// Replace what is at this path, a JSON pointer in which * stands for every member or element; may be repeated
    #[arg(long, value_name = "PATH", requires = "fixture")]
    redact: Vec<String>,
}

pub(super) async fn export(session: &mut Session<'_>, args: ExportArgs) -> Result<Exit, Failures> {
    match (&args.fixture, &args.ids[..]) {
        (Some(fixture), [id]) => fixture_of(session, *id, fixture, &args.redact).await,
        (Some(_), _) => {
            let failure = Failure::new("a fixture is of one dead letter");
            Err(failure.help("name one id, or leave --fixture out for JSON lines").into_usage())
        }
        (None, _) => lines(session, args).await,
    }
}

/// Asks for a part at a time, so that neither the host nor this command holds more than one.
async fn lines(session: &mut Session<'_>, args: ExportArgs) -> Result<Exit, Failures> {
    let mut filter = args.filter.into_letters(session.now());
    filter.ids = args.ids;
    loop {
        let mut last = None;
        for reply in session.ask(Request::ExportDeadLetters(filter.clone())).await? {
            let Reply::DeadLetterDetail(letter) = reply else { continue };
            session.console.object(&letter)?;
            last = Some(letter.summary.id);
        }
        let Some(last) = last else { return Ok(Exit::Success) };
        filter.after = Some(last);
    }
}

async fn fixture_of(session: &mut Session<'_>, id: i64, fixture: &Path, paths: &[String]) -> Result<Exit, Failures> {
    let mut replies = session.ask(Request::ShowDeadLetter { id }).await?;
    let Some(Reply::DeadLetterDetail(detail)) = replies.pop() else {
        let failure = Failure::new(format!("there is no dead letter {id}"));
        return Err(failure.help("`wirehook dead-letters list` shows those there are").into());
    };
    let DeadLetterDetail { event: Some(event), summary, .. } = *detail else {
        let failure =
            Failure::new(format!("dead letter {id} is a message that never became an event: no plugin met it"));
        return Err(failure.help(format!("look at it with `wirehook dead-letters show {id}`")).into());
    };
    let text = event.to_file().map_err(|error| Failure::new(format!("the event of dead letter {id}: {error}")))?;
    let text = redact(&text, ROOT, paths)?;
    let file = fixture.join(format!("dead_letter_{id}.json"));
    output::create(&file, (text + "\n").as_bytes())?;
    if session.console.json {
        session.console.object(&json!({ "dead_letter": id, "file": file, "redacted": paths }))?;
    } else {
        session.console.line(format_args!("wrote {}; next:", file.display()))?;
        let plugin = summary.plugin.as_deref().unwrap_or("PLUGIN");
        let fixture = fixture.display();
        session.console.line(format_args!("  wirehook plugin test {plugin}.wasm --events {fixture} --update"))?;
    }
    Ok(Exit::Success)
}

impl From<RedactError> for Failures {
    fn from(error: RedactError) -> Self {
        let failure = Failure::new(format!("nothing was written: {error}"));
        match error {
            RedactError::Left { .. } => failure.help("name these places with --redact too").into_usage(),
            RedactError::Nothing { .. } => {
                failure.help("export it without --redact elsewhere, to see its paths").into_usage()
            }
            RedactError::Path { .. } | RedactError::TooMany => failure.into_usage(),
            RedactError::Json(_) => failure.into(),
        }
    }
}
