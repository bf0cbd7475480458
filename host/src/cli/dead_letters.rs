//! `wirehook dead-letters …`

mod bulk;
mod export;

use clap::{Args, Subcommand};

use super::Session;
use super::console::Look;
use super::deliveries::print_attempts;
use super::failure::{Exit, Failure, Failures};
use super::filter::{FilterArgs, LIST_LIMIT, LIST_LIMIT_MAX};
use super::table::{Table, maybe, plain, printable};
use crate::ops::{Reply, Request};
use crate::store::{DeadLetterDetail, DeadLetterFilter, DeadLetterKind, DeadLetterSummary};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook dead-letters list --reason status_4xx --since 2h
  wirehook dead-letters redrive 17 18
  wirehook dead-letters redrive --endpoint orders --rate 100/s
  wirehook dead-letters export --plugin orders > orders.jsonl
  wirehook dead-letters export 17 --fixture events --redact /entity/customer_email
  wirehook dead-letters discard --plugin orders --since 2026-03-02T14:00:00Z --dry-run";

const LIST_EXAMPLE: &str = "\
Examples:
  wirehook dead-letters list --reason status_4xx --since 2h
  wirehook dead-letters list --endpoint orders --limit 1000
  wirehook dead-letters list --before 17 --json

A list that is cut ends with the id to go on below: with --json, the last one's `id`.";

const SHOW_EXAMPLE: &str = "\
Examples:
  wirehook dead-letters show 17
  wirehook dead-letters show 17 --json";

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List dead letters, newest first
    #[command(after_help = LIST_EXAMPLE)]
    List(ListArgs),
    /// Show one dead letter with its payload and every attempt
    #[command(after_help = SHOW_EXAMPLE)]
    Show {
        /// Its id
        id: i64,
    },
    /// Put dead runs and deliveries back to work, with a new budget of attempts and the same webhook-id
    #[command(after_help = bulk::REDRIVE_EXAMPLE)]
    Redrive(bulk::RedriveArgs),
    /// Write dead letters as JSON lines, or the event of one to a file for `wirehook plugin test`
    #[command(after_help = export::EXAMPLE)]
    Export(export::ExportArgs),
    /// Delete dead letters for good
    #[command(after_help = bulk::DISCARD_EXAMPLE)]
    Discard(bulk::BulkArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Go on below this id: the last one of the list before
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT, value_parser = clap::value_parser!(u32).range(1..=LIST_LIMIT_MAX))]
    limit: u32,
}

pub(super) async fn dead_letters(session: &mut Session<'_>, command: DeadLettersCommand) -> Result<Exit, Failures> {
    match command {
        DeadLettersCommand::List(args) => list(session, args).await,
        DeadLettersCommand::Show { id } => show(session, id).await,
        DeadLettersCommand::Redrive(args) => bulk::redrive(session, args).await,
        DeadLettersCommand::Export(args) => export::export(session, args).await,
        DeadLettersCommand::Discard(args) => bulk::discard(session, args).await,
    }
}

async fn list(session: &mut Session<'_>, args: ListArgs) -> Result<Exit, Failures> {
    let filter = args.filter.into_letters(session.now());
    let letters =
        summaries(session, DeadLetterFilter { before: args.before, limit: Some(args.limit), ..filter }).await?;
    print_list(session, &letters)?;
    if let Some(last) = letters.last().filter(|_| letters.len() == args.limit as usize && !session.console.json) {
        session.console.line(format_args!("for more: --before {}", last.id))?;
    }
    Ok(Exit::Success)
}

async fn summaries(session: &mut Session<'_>, filter: DeadLetterFilter) -> Result<Vec<DeadLetterSummary>, Failures> {
    let replies = session.ask(Request::ListDeadLetters(filter)).await?;
    let letters = replies.into_iter().filter_map(|reply| match reply {
        Reply::DeadLetter(letter) => Some(*letter),
        _ => None,
    });
    Ok(letters.collect())
}

fn print_list(session: &mut Session<'_>, letters: &[DeadLetterSummary]) -> std::io::Result<()> {
    if session.console.json {
        return letters.iter().try_for_each(|letter| session.console.object(letter));
    }
    let mut table = Table::new(&["id", "kind", "reason", "plugin", "endpoint", "status", "died", "subject", "detail"]);
    for letter in letters {
        table.row(vec![
            plain(letter.id),
            plain(kind(letter.kind)),
            (letter.reason.to_string(), Look::Bad),
            maybe(letter.plugin.as_ref()),
            maybe(letter.endpoint.as_ref()),
            maybe(letter.last_status),
            plain(letter.died_at),
            plain(&letter.subject),
            plain(&letter.detail),
        ]);
    }
    table.print_or("no dead letters", session.console)
}

fn kind(kind: DeadLetterKind) -> &'static str {
    match kind {
        DeadLetterKind::Message => "message",
        DeadLetterKind::Run => "run",
        DeadLetterKind::Delivery => "delivery",
    }
}

async fn show(session: &mut Session<'_>, id: i64) -> Result<Exit, Failures> {
    for reply in session.ask(Request::ShowDeadLetter { id }).await? {
        match reply {
            Reply::DeadLetterDetail(detail) if session.console.json => session.console.object(&detail)?,
            Reply::DeadLetterDetail(detail) => print(session, &detail)?,
            _ => {
                let failure = Failure::new(format!("there is no dead letter {id}"));
                return Err(failure.help("`wirehook dead-letters list` shows those there are").into());
            }
        }
    }
    Ok(Exit::Success)
}

fn print(session: &mut Session<'_>, detail: &DeadLetterDetail) -> std::io::Result<()> {
    let letter = &detail.summary;
    let reason = Look::Bad.paint(letter.reason.as_str(), session.console.coloured());
    let mut fields = vec![
        ("id", letter.id.to_string()),
        ("kind", kind(letter.kind).to_owned()),
        ("reason", reason),
        ("detail", printable(&letter.detail)),
        ("died", letter.died_at.to_string()),
        ("event", printable(&letter.event_key)),
        ("subject", printable(&letter.subject)),
    ];
    fields
        .extend(letter.plugin.as_ref().map(|plugin| ("plugin", with_digest(plugin, detail.plugin_digest.as_deref()))));
    fields.extend(letter.endpoint.clone().map(|endpoint| ("endpoint", endpoint)));
    fields.extend(letter.delivery_id.as_ref().map(|id| ("delivery", id.as_str().to_owned())));
    fields.push(("attempts", letter.attempts.to_string()));
    fields.extend(letter.last_status.map(|status| ("status", status.to_string())));
    fields.extend(letter.last_response.as_ref().map(|response| ("response", printable(response))));
    fields.push(("payload", printable(&detail.payload)));
    for (key, value) in fields {
        session.console.line(format_args!("{key:<10}{value}"))?;
    }
    if letter.kind == DeadLetterKind::Delivery {
        session.console.line("")?;
        print_attempts(session, &detail.attempts_made)?;
    }
    Ok(())
}

fn with_digest(plugin: &str, digest: Option<&str>) -> String {
    digest.map_or_else(|| plugin.to_owned(), |digest| format!("{plugin} (sha256 {digest})"))
}
