//! `wirehook deliveries …`

use clap::{Args, Subcommand, ValueEnum};

use super::Session;
use super::console::Look;
use super::failure::{Exit, Failure, Failures};
use super::table::{Table, maybe, plain, printable};
use crate::delivery::DeliveryId;
use crate::ops::{Reply, Request};
use crate::store::{DeliveryDetail, DeliveryFilter, DeliveryState, DeliverySummary};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook deliveries list --endpoint orders --state retrying
  wirehook deliveries show msg_0123456789abcdef0123456789abcdef";

/// How many a list shows unless told.
pub(super) const LIST_LIMIT: u32 = 100;
/// The store's own bound of a list.
pub(super) const LIST_LIMIT_MAX: i64 = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum DeliveriesCommand {
    /// List deliveries, newest first
    #[command(after_help = EXAMPLE)]
    List(ListArgs),
    /// Show one delivery with every attempt
    #[command(after_help = EXAMPLE)]
    Show {
        /// Its webhook-id
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only to this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only by this plugin
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Only in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT, value_parser = clap::value_parser!(u32).range(1..=LIST_LIMIT_MAX))]
    limit: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Pending,
    Retrying,
    Delivered,
    Dead,
    Discarded,
}

impl From<State> for DeliveryState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Retrying => Self::Retrying,
            State::Delivered => Self::Delivered,
            State::Dead => Self::Dead,
            State::Discarded => Self::Discarded,
        }
    }
}

pub(super) async fn deliveries(session: &mut Session<'_>, command: DeliveriesCommand) -> Result<Exit, Failures> {
    match command {
        DeliveriesCommand::List(args) => list(session, args).await,
        DeliveriesCommand::Show { id } => show(session, id).await,
    }
}

async fn list(session: &mut Session<'_>, args: ListArgs) -> Result<Exit, Failures> {
    let filter = DeliveryFilter {
        endpoint: args.endpoint,
        plugin: args.plugin,
        state: args.state.map(Into::into),
        limit: Some(args.limit),
    };
    let mut table =
        Table::new(&["id", "state", "endpoint", "plugin", "subject", "attempts", "status", "created", "due"]);
    for reply in session.ask(Request::ListDeliveries(filter)).await? {
        let Reply::Delivery(delivery) = reply else { continue };
        if session.console.json {
            session.console.object(&delivery)?;
        } else {
            table.row(row(&delivery));
        }
    }
    if !session.console.json {
        table.print_or("no deliveries", session.console)?;
    }
    Ok(Exit::Success)
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
    let mut table = Table::new(&["attempt", "began", "seconds", "status", "error", "response"]);
    for attempt in &detail.attempts_made {
        table.row(vec![
            plain(attempt.number),
            plain(attempt.started_at),
            plain(format!("{:.3}", attempt.duration_s)),
            maybe(attempt.status),
            maybe(attempt.error.as_ref()),
            plain(&attempt.response),
        ]);
    }
    session.console.line("")?;
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
