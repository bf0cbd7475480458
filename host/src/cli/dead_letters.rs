//! `wirehook dead-letters …`

mod export;

use std::collections::HashSet;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Session;
use super::console::Look;
use super::deliveries::{LIST_LIMIT, LIST_LIMIT_MAX};
use super::failure::{Exit, Failure, Failures};
use super::table::{Table, counted, maybe, plain, printable};
use crate::dead_letter::Reason;
use crate::ops::{Reply, Request};
use crate::store::{DeadLetterDetail, DeadLetterFilter, DeadLetterKind, DeadLetterSummary};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook dead-letters list --reason status_4xx
  wirehook dead-letters redrive 17 18
  wirehook dead-letters redrive --endpoint orders --dry-run
  wirehook dead-letters export 17 --fixture events --redact /entity/customer_email
  wirehook dead-letters discard --plugin orders --yes";

/// The most ids on one command line.
const IDS_MAX: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List dead letters, newest first
    #[command(after_help = EXAMPLE)]
    List(ListArgs),
    /// Show one dead letter with its payload
    #[command(after_help = EXAMPLE)]
    Show {
        /// Its id
        id: i64,
    },
    /// Put dead runs and deliveries back to work, with a new budget of attempts and the same webhook-id
    #[command(after_help = EXAMPLE)]
    Redrive(BulkArgs),
    /// Write the event of a dead letter to a file for `wirehook plugin test`
    #[command(after_help = export::EXAMPLE)]
    Export(export::ExportArgs),
    /// Delete dead letters for good
    #[command(after_help = EXAMPLE)]
    Discard(BulkArgs),
}

#[derive(Debug, Args)]
struct FilterArgs {
    /// Only to this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only by this plugin
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Only for this reason
    #[arg(long, value_name = "REASON", value_parser = reason(), hide_possible_values = true)]
    reason: Option<Reason>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT, value_parser = clap::value_parser!(u32).range(1..=LIST_LIMIT_MAX))]
    limit: u32,
}

#[derive(Debug, Args)]
pub(super) struct BulkArgs {
    /// These ids
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Every dead letter there is
    #[arg(long, conflicts_with_all = ["ids", "endpoint", "plugin", "reason"])]
    all: bool,
    /// Only list what would be affected
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Redrive,
    Discard,
}

/// Names for completion, and for a suggestion where one is mistyped.
fn reason() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.as_str())).try_map(|name| name.parse::<Reason>())
}

pub(super) async fn dead_letters(session: &mut Session<'_>, command: DeadLettersCommand) -> Result<Exit, Failures> {
    match command {
        DeadLettersCommand::List(args) => list(session, args.filter.into_filter(Vec::new(), Some(args.limit))).await,
        DeadLettersCommand::Show { id } => show(session, id).await,
        DeadLettersCommand::Redrive(args) => bulk(session, Verb::Redrive, args).await,
        DeadLettersCommand::Export(args) => export::export(session, args).await,
        DeadLettersCommand::Discard(args) => bulk(session, Verb::Discard, args).await,
    }
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        self.endpoint.is_none() && self.plugin.is_none() && self.reason.is_none()
    }

    fn into_filter(self, ids: Vec<i64>, limit: Option<u32>) -> DeadLetterFilter {
        DeadLetterFilter {
            ids,
            endpoint: self.endpoint,
            plugin: self.plugin,
            plugin_digest: None,
            reason: self.reason,
            limit,
        }
    }
}

async fn list(session: &mut Session<'_>, filter: DeadLetterFilter) -> Result<Exit, Failures> {
    let letters = summaries(session, filter).await?;
    print_list(session, &letters)?;
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
    fields.extend(letter.plugin.clone().map(|plugin| ("plugin", plugin)));
    fields.extend(letter.endpoint.clone().map(|endpoint| ("endpoint", endpoint)));
    fields.extend(letter.delivery_id.as_ref().map(|id| ("delivery", id.as_str().to_owned())));
    fields.push(("attempts", letter.attempts.to_string()));
    fields.extend(letter.last_status.map(|status| ("status", status.to_string())));
    fields.extend(letter.last_response.as_ref().map(|response| ("response", printable(response))));
    fields.push(("payload", printable(&detail.payload)));
    for (key, value) in fields {
        session.console.line(format_args!("{key:<10}{value}"))?;
    }
    Ok(())
}

async fn bulk(session: &mut Session<'_>, verb: Verb, args: BulkArgs) -> Result<Exit, Failures> {
    if args.ids.is_empty() && args.filter.is_empty() && !args.all {
        let failure = Failure::new("nothing says which dead letters are meant");
        return Err(failure.help("name ids, or --endpoint, --plugin or --reason, or --all").into_usage());
    }
    if args.ids.len() > IDS_MAX {
        let failure = Failure::new(format!("more than {IDS_MAX} ids are named"));
        return Err(failure.help("use a filter, or several commands").into_usage());
    }
    let named_only = !args.ids.is_empty();
    let filter = args.filter.into_filter(args.ids, args.limit);
    if args.dry_run {
        return list(session, filter).await;
    }
    if !named_only && !args.yes && !confirmed(session, verb, &filter).await? {
        return Err(Failure::new("not confirmed: nothing was done").into());
    }
    let missing = missing(session, &filter.ids).await?;
    carry_out(session, verb, filter).await?;
    if missing.is_empty() {
        return Ok(Exit::Success);
    }
    let failure = Failure::new(format!("there is no dead letter {}", missing.join(", ")));
    Err(failure.help("`wirehook dead-letters list` shows those there are").into())
}

/// The named ids that are no dead letters, or not any more.
async fn missing(session: &mut Session<'_>, ids: &[i64]) -> Result<Vec<String>, Failures> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let named = DeadLetterFilter { ids: ids.to_vec(), ..DeadLetterFilter::default() };
    let found: HashSet<i64> = summaries(session, named).await?.iter().map(|letter| letter.id).collect();
    Ok(ids.iter().filter(|id| !found.contains(id)).map(ToString::to_string).collect())
}

/// Asks before more than the named ids is affected.
async fn confirmed(session: &mut Session<'_>, verb: Verb, filter: &DeadLetterFilter) -> Result<bool, Failures> {
    if !session.console.interactive() {
        let failure = Failure::new("more than named ids is affected, and there is no terminal to ask on");
        return Err(failure.help("look with --dry-run, then say --yes").into_usage());
    }
    let count = summaries(session, filter.clone()).await?.len();
    let meant = letters(count as u64) + if count as i64 >= LIST_LIMIT_MAX { " or more" } else { "" };
    let question = match verb {
        Verb::Redrive => format!("Put {meant} back to work?"),
        Verb::Discard => format!("Delete {meant} for good?"),
    };
    Ok(count == 0 || session.console.confirm(&question)?)
}

fn letters(count: u64) -> String {
    counted(count, "dead letter", "dead letters")
}

async fn carry_out(session: &mut Session<'_>, verb: Verb, filter: DeadLetterFilter) -> Result<(), Failures> {
    let request = match verb {
        Verb::Redrive => Request::Redrive(filter),
        Verb::Discard => Request::Discard(filter),
    };
    for reply in session.ask(request).await? {
        let (text, object) = match reply {
            Reply::Redriven(redriven) => {
                let runs = counted(redriven.runs, "run", "runs");
                let deliveries = counted(redriven.deliveries, "delivery", "deliveries");
                let text = format!("{runs} and {deliveries} put back to work");
                if redriven.refused > 0 {
                    let refused = counted(redriven.refused, "dead letter is a message", "dead letters are messages");
                    let message = format!("{refused} and can't be redriven");
                    let help = "publish them again once the cause is mended, or discard them";
                    session.console.warning(&Failure::new(message).help(help));
                }
                (text, json!(redriven))
            }
            Reply::Discarded { count } => (format!("{} deleted", letters(count)), json!({ "discarded": count })),
            _ => continue,
        };
        if session.console.json { session.console.object(&object)? } else { session.console.line(text)? }
    }
    Ok(())
}
