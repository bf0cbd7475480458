//! `wirehook events …`

mod backfill;

use clap::{Args, Subcommand};

use super::Session;
use super::console::Look;
use super::failure::{Exit, Failure, Failures};
use super::filter::{LIST_LIMIT, LIST_LIMIT_MAX, When};
use super::table::{Table, maybe, plain};
use crate::event::subject::SubjectPattern;
use crate::ops::{Reply, Request};
use crate::store::{EventFilter, EventSeq, EventSummary};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook events list --unrouted --since 2h
  wirehook events show 42
  wirehook events backfill --plugin orders --since 2h --dry-run
  wirehook events backfill --plugin orders --since 2026-03-02T14:00:00Z --yes";

const LIST_EXAMPLE: &str = "\
Examples:
  wirehook events list --unrouted --since 2h
  wirehook events list --subject 'fraiseql.order.*' --limit 1000
  wirehook events list --before 42 --json

Unrouted events have no run: no plugin was subscribed when they were accepted. \
A list that is cut ends with the position to continue below: with --json, the last one's `seq`.";

const SHOW_EXAMPLE: &str = "\
Examples:
  wirehook events show 42
  wirehook events show bus/position/ORDERS:1763900000:42 --json";

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// List recorded events, newest first
    #[command(after_help = LIST_EXAMPLE)]
    List(ListArgs),
    /// Show one event and everything that came of it
    #[command(after_help = SHOW_EXAMPLE)]
    Show {
        /// Its position or its key
        event: String,
    },
    /// Give recorded events the run of a plugin that they never had
    #[command(after_help = backfill::EXAMPLE)]
    Backfill(backfill::BackfillArgs),
}

/// What narrows down which events are meant; all of it together.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which ones")]
struct EventArgs {
    /// Only of subjects that match this pattern
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    subject: Option<String>,
    /// Only from this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only those that no plugin has or had a run of
    #[arg(long)]
    unrouted: bool,
    /// Only accepted from then on: a time, or how long ago (2h)
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Only accepted before then: a time, or how long ago (2h)
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
}

fn pattern(text: &str) -> Result<String, String> {
    text.parse::<SubjectPattern>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl EventArgs {
    fn is_empty(&self) -> bool {
        self.subject.is_none()
            && self.source.is_none()
            && !self.unrouted
            && self.since.is_none()
            && self.until.is_none()
    }

    fn into_filter(self, session: &Session<'_>) -> EventFilter {
        let now = session.now();
        EventFilter {
            since: self.since.map(|when| when.at(now)),
            until: self.until.map(|when| when.at(now)),
            subject: self.subject,
            source: self.source,
            unrouted: self.unrouted,
            ..EventFilter::default()
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    which: EventArgs,
    /// Continue below this position: the last one of the list before
    #[arg(long, value_name = "POSITION")]
    before: Option<i64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT, value_parser = clap::value_parser!(u32).range(1..=LIST_LIMIT_MAX))]
    limit: u32,
}

pub(super) async fn events(session: &mut Session<'_>, command: EventsCommand) -> Result<Exit, Failures> {
    match command {
        EventsCommand::List(args) => list(session, args).await,
        EventsCommand::Show { event } => show(session, event).await,
        EventsCommand::Backfill(args) => backfill::backfill(session, args).await,
    }
}

async fn list(session: &mut Session<'_>, args: ListArgs) -> Result<Exit, Failures> {
    let filter = args.which.into_filter(session);
    let limit = args.limit;
    let events = summaries(session, EventFilter { before: args.before.map(EventSeq), limit: Some(limit), ..filter });
    let events = events.await?;
    print_list(session, &events)?;
    if let Some(last) = events.last().filter(|_| events.len() == limit as usize && !session.console.json) {
        session.console.line(format_args!("for more: --before {}", last.seq.0))?;
    }
    Ok(Exit::Success)
}

async fn summaries(session: &mut Session<'_>, filter: EventFilter) -> Result<Vec<EventSummary>, Failures> {
    let replies = session.ask(Request::ListEvents(filter)).await?;
    let events = replies.into_iter().filter_map(|reply| match reply {
        Reply::Event(event) => Some(*event),
        _ => None,
    });
    Ok(events.collect())
}

fn print_list(session: &mut Session<'_>, events: &[EventSummary]) -> std::io::Result<()> {
    if session.console.json {
        return events.iter().try_for_each(|event| session.console.object(event));
    }
    let mut table = Table::new(&["position", "accepted", "source", "subject", "entity", "tenant", "runs"]);
    for event in events {
        table.row(vec![
            plain(event.seq.0),
            plain(event.accepted_at),
            plain(&event.source),
            plain(&event.subject),
            maybe(event.entity_id.as_ref()),
            maybe(event.tenant_id.as_ref()),
            if event.runs == 0 { ("unrouted".to_owned(), Look::Uneasy) } else { plain(event.runs) },
        ]);
    }
    table.print_or("no events", session.console)
}

/// An event's position is what `trace` calls `event:N`.
async fn show(session: &mut Session<'_>, event: String) -> Result<Exit, Failures> {
    let named = if event.parse::<i64>().is_ok() { format!("event:{event}") } else { event.clone() };
    if !named.contains(['/', ':']) {
        let failure = Failure::new(format!("`{event}` is neither an event's position nor its key"));
        return Err(failure.help("`wirehook events list` shows positions; `wirehook trace` takes other names").into());
    }
    super::trace::trace(session, super::trace::TraceArgs::of(named)).await
}
