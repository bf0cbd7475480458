//! `wirehook deliveries …`

mod change;

use clap::{Args, Subcommand, ValueEnum};

use super::Session;
use super::console::Look;
use super::failure::{Exit, Failure, Failures};
use super::filter::{FilterArgs, LIST_LIMIT, LIST_LIMIT_MAX};
use super::table::{Table, maybe, plain, printable};
use crate::delivery::DeliveryId;
use crate::ops::{Reply, Request};
use crate::store::{AttemptDetail, DeliveryDetail, DeliveryFilter, DeliverySeq, DeliveryState, DeliverySummary};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook deliveries list --endpoint orders --state retrying --since 2h
  wirehook deliveries list --state parked
  wirehook deliveries show msg_0123456789abcdef0123456789abcdef
  wirehook deliveries retry msg_0123456789abcdef0123456789abcdef
  wirehook deliveries discard --plugin orders --since 2026-03-02T14:00:00Z --dry-run
  wirehook deliveries move --endpoint gone --to orders --yes";

const LIST_EXAMPLE: &str = "\
Examples:
  wirehook deliveries list --endpoint orders --state retrying --since 2h
  wirehook deliveries list --reason status_4xx --limit 1000
  wirehook deliveries list --before 41200 --json

A list that is cut ends with the position to go on below: with --json, the last one's `seq`.";

const SHOW_EXAMPLE: &str = "\
Examples:
  wirehook deliveries show msg_0123456789abcdef0123456789abcdef
  wirehook deliveries show msg_0123456789abcdef0123456789abcdef --json";

#[derive(Debug, Subcommand)]
pub(super) enum DeliveriesCommand {
    /// List deliveries, newest first
    #[command(after_help = LIST_EXAMPLE)]
    List(ListArgs),
    /// Show one delivery with every attempt
    #[command(after_help = SHOW_EXAMPLE)]
    Show {
        /// Its webhook-id
        id: String,
    },
    /// Try waiting deliveries now and not when their next attempt is due; their budget of attempts stays as it is
    #[command(after_help = change::RETRY_EXAMPLE)]
    Retry(change::ChangeArgs),
    /// Give up waiting deliveries: they are never sent
    #[command(after_help = change::DISCARD_EXAMPLE)]
    Discard(change::ChangeArgs),
    /// Send waiting deliveries to another endpoint, at once, under the webhook-id that they have
    #[command(after_help = change::MOVE_EXAMPLE)]
    Move(change::MoveArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only in this state; waiting: pending or retrying; parked: waiting for an endpoint that is not configured
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Go on below this position: the last one of the list before
    #[arg(long, value_name = "SEQ")]
    before: Option<i64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT, value_parser = clap::value_parser!(u32).range(1..=LIST_LIMIT_MAX))]
    limit: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum State {
    Pending,
    Retrying,
    Waiting,
    Parked,
    Delivered,
    Dead,
    Discarded,
}

impl State {
    /// Narrows a filter down to it.
    fn narrow(self, filter: &mut DeliveryFilter, session: &Session<'_>) -> Result<(), Failures> {
        filter.state = match self {
            Self::Pending => Some(DeliveryState::Pending),
            Self::Retrying => Some(DeliveryState::Retrying),
            Self::Delivered => Some(DeliveryState::Delivered),
            Self::Dead => Some(DeliveryState::Dead),
            Self::Discarded => Some(DeliveryState::Discarded),
            Self::Waiting => {
                filter.waiting = true;
                None
            }
            Self::Parked => {
                let configured = session.endpoint_names()?;
                filter.parked_beside = Some(configured.iter().map(ToString::to_string).collect());
                None
            }
        };
        Ok(())
    }
}

pub(super) async fn deliveries(session: &mut Session<'_>, command: DeliveriesCommand) -> Result<Exit, Failures> {
    match command {
        DeliveriesCommand::List(args) => list(session, args).await,
        DeliveriesCommand::Show { id } => show(session, id).await,
        DeliveriesCommand::Retry(args) => change::retry(session, args).await,
        DeliveriesCommand::Discard(args) => change::discard(session, args).await,
        DeliveriesCommand::Move(args) => change::move_to(session, args).await,
    }
}

async fn list(session: &mut Session<'_>, args: ListArgs) -> Result<Exit, Failures> {
    let mut filter = args.filter.into_deliveries(session.now());
    if let Some(state) = args.state {
        state.narrow(&mut filter, session)?;
    }
    filter.before = args.before.map(DeliverySeq);
    filter.limit = Some(args.limit);
    let listed = summaries(session, filter).await?;
    print_list(session, &listed)?;
    if let Some(last) = listed.last().filter(|_| listed.len() == args.limit as usize && !session.console.json) {
        session.console.line(format_args!("for more: --before {}", last.seq.0))?;
    }
    Ok(Exit::Success)
}

async fn summaries(session: &mut Session<'_>, filter: DeliveryFilter) -> Result<Vec<DeliverySummary>, Failures> {
    let replies = session.ask(Request::ListDeliveries(filter)).await?;
    let listed = replies.into_iter().filter_map(|reply| match reply {
        Reply::Delivery(delivery) => Some(*delivery),
        _ => None,
    });
    Ok(listed.collect())
}

fn print_list(session: &mut Session<'_>, listed: &[DeliverySummary]) -> std::io::Result<()> {
    if session.console.json {
        return listed.iter().try_for_each(|delivery| session.console.object(delivery));
    }
    let mut table =
        Table::new(&["id", "state", "endpoint", "plugin", "subject", "attempts", "status", "created", "due"]);
    listed.iter().for_each(|delivery| table.row(row(delivery)));
    table.print_or("no deliveries", session.console)
}

fn row(delivery: &DeliverySummary) -> Vec<(String, Look)> {
    vec![
        plain(delivery.id.as_str()),
        state_look(delivery.state),
        plain(&delivery.endpoint),
        plain(&delivery.plugin),
        plain(&delivery.subject),
        plain(delivery.attempts),
        maybe(delivery.last_status),
        plain(delivery.created_at),
        maybe(delivery.due_at),
    ]
}

async fn show(session: &mut Session<'_>, id: String) -> Result<Exit, Failures> {
    for reply in session.ask(Request::ShowDelivery { id: DeliveryId::from_stored(id.as_str()) }).await? {
        match reply {
            Reply::DeliveryDetail(detail) if session.console.json => session.console.object(&detail)?,
            Reply::DeliveryDetail(detail) => print(session, &detail)?,
            _ => {
                let failure = Failure::new(format!("there is no delivery {id}"));
                return Err(failure.help("`wirehook deliveries list` shows those there are").into());
            }
        }
    }
    Ok(Exit::Success)
}

fn print(session: &mut Session<'_>, detail: &DeliveryDetail) -> std::io::Result<()> {
    let summary = &detail.summary;
    let coloured = session.console.coloured();
    let (state, look) = state_look(summary.state);
    let mut fields = vec![
        ("id", summary.id.as_str().to_owned()),
        ("state", look.paint(&state, coloured)),
        ("event", printable(&summary.event_key)),
        ("subject", printable(&summary.subject)),
        ("plugin", format!("{} (sha256 {})", summary.plugin, detail.plugin_digest)),
        ("endpoint", summary.endpoint.clone()),
        ("created", summary.created_at.to_string()),
    ];
    fields.extend(summary.due_at.map(|due_at| ("due", due_at.to_string())));
    fields.push(("type", printable(&detail.content_type)));
    fields.extend(detail.headers.iter().map(|(name, value)| ("header", printable(&format!("{name}: {value}")))));
    fields.push(("body", printable(&detail.body)));
    for (key, value) in fields {
        session.console.line(format_args!("{key:<10}{value}"))?;
    }
    session.console.line("")?;
    print_attempts(session, &detail.attempts_made)
}

/// Attempts as a table.
pub(super) fn print_attempts(session: &mut Session<'_>, attempts: &[AttemptDetail]) -> std::io::Result<()> {
    let mut table = Table::new(&["attempt", "began", "seconds", "status", "error", "response"]);
    for attempt in attempts {
        table.row(vec![
            plain(attempt.number),
            plain(attempt.started_at),
            plain(format!("{:.3}", attempt.duration_s)),
            maybe(attempt.status),
            maybe(attempt.error.as_ref()),
            plain(&attempt.response),
        ]);
    }
    table.print_or("no attempt was made yet", session.console)
}

/// A state as a cell.
pub(super) fn state_look(state: DeliveryState) -> (String, Look) {
    let (word, look) = match state {
        DeliveryState::Pending => ("pending", Look::Plain),
        DeliveryState::Retrying => ("retrying", Look::Uneasy),
        DeliveryState::Delivered => ("delivered", Look::Good),
        DeliveryState::Dead => ("dead", Look::Bad),
        DeliveryState::Discarded => ("discarded", Look::Plain),
    };
    (word.to_owned(), look)
}
