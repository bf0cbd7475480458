//! `wirehook endpoints …`

use clap::{Args, Subcommand};

use super::Session;
use super::console::Look;
use super::failure::{Exit, Failure, Failures};
use super::table::{Table, maybe, plain, printable};
use crate::endpoint::TestReport;
use crate::ops::access::AskError;
use crate::ops::client::OpsClient;
use crate::ops::endpoints::EndpointLine;
use crate::ops::{Reply, Request};
use crate::store::{EndpointChange, EndpointChanged, EndpointRecord, EndpointState, EndpointVerb};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook endpoints list
  wirehook endpoints test orders
  wirehook endpoints pause orders --reason 'their maintenance'
  wirehook endpoints resume orders
  wirehook endpoints disable legacy
  wirehook endpoints enable orders

A paused or disabled endpoint gets nothing; its deliveries are kept and wait, \
for [endpoint.backlog] age at most. That holds over a restart.";

/// Why there may be no endpoint in the settings.
pub(super) const ENDPOINTS_NONE: &str = "no [[endpoint]] is configured";
/// Why there may be none in the store.
const ENDPOINTS_UNKNOWN: &str = "endpoints are known once `wirehook run` has started with them in its settings";

/// The longest reason, in characters.
const REASON_LEN_MAX: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum EndpointsCommand {
    /// List endpoints: state, breaker, what waits, when an attempt succeeded and failed last
    #[command(after_help = LIST_EXAMPLE)]
    List,
    /// Send one signed test webhook and print the exchange; nothing is recorded
    #[command(after_help = TEST_EXAMPLE)]
    Test {
        /// The endpoint
        name: String,
    },
    /// Let attempts be made again at an endpoint that was disabled
    #[command(after_help = ENABLE_EXAMPLE)]
    Enable(ChangeArgs),
    /// Make no attempts until it is enabled
    #[command(after_help = DISABLE_EXAMPLE)]
    Disable(ChangeArgs),
    /// Make no attempts until it is resumed
    #[command(after_help = PAUSE_EXAMPLE)]
    Pause(ChangeArgs),
    /// Let attempts be made again at an endpoint that was paused
    #[command(after_help = RESUME_EXAMPLE)]
    Resume(ChangeArgs),
}

const TEST_EXAMPLE: &str = "\
Example:
  wirehook endpoints test orders

It goes the way of every webhook, also while the endpoint is paused or disabled. Exit code: 0 when \
it was answered 2xx, else 1.";

const LIST_EXAMPLE: &str = "\
Examples:
  wirehook endpoints list
  wirehook endpoints list --json";

const ENABLE_EXAMPLE: &str = "\
Examples:
  wirehook endpoints enable orders
  wirehook endpoints enable orders --reason 'their new server is up'

One that answered 410 is disabled too: its deliveries were kept, and go out now.";

const DISABLE_EXAMPLE: &str = "\
Example:
  wirehook endpoints disable legacy --reason 'until they have moved'

A disabled endpoint gets nothing; its deliveries are kept and wait, \
for [endpoint.backlog] age at most. That holds over a restart.";

const PAUSE_EXAMPLE: &str = "\
Example:
  wirehook endpoints pause orders --reason 'their maintenance'

A paused endpoint gets nothing; its deliveries are kept and wait, \
for [endpoint.backlog] age at most. That holds over a restart.";

const RESUME_EXAMPLE: &str = "\
Example:
  wirehook endpoints resume orders";

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// The endpoint
    name: String,
    /// Why, for whoever looks at the list
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn endpoints(session: &mut Session<'_>, command: EndpointsCommand) -> Result<Exit, Failures> {
    match command {
        EndpointsCommand::List => list(session).await,
        EndpointsCommand::Test { name } => test(session, name).await,
        EndpointsCommand::Enable(args) => change(session, EndpointVerb::Enable, args).await,
        EndpointsCommand::Disable(args) => change(session, EndpointVerb::Disable, args).await,
        EndpointsCommand::Pause(args) => change(session, EndpointVerb::Pause, args).await,
        EndpointsCommand::Resume(args) => change(session, EndpointVerb::Resume, args).await,
    }
}

async fn list(session: &mut Session<'_>) -> Result<Exit, Failures> {
    let mut table = Table::new(&[
        "endpoint",
        "state",
        "breaker",
        "rate",
        "backlog",
        "oldest due",
        "last success",
        "last failure",
        "reason",
    ]);
    for reply in session.ask(Request::ListEndpoints).await? {
        let Reply::Endpoint(line) = reply else { continue };
        if session.console.json {
            session.console.object(&line)?;
        } else {
            table.row(row(&line));
        }
    }
    if !session.console.json {
        table.print_or("no endpoints", session.console)?;
    }
    Ok(Exit::Success)
}

fn row(line: &EndpointLine) -> Vec<(String, Look)> {
    let EndpointRecord { name, state, reason, health, .. } = &line.summary.record;
    let state = match (state, line.configured) {
        (_, Some(false)) => ("not in the settings".to_owned(), Look::Bad),
        (EndpointState::Active, _) => ("active".to_owned(), Look::Good),
        (EndpointState::Paused, _) => ("paused".to_owned(), Look::Uneasy),
        (EndpointState::Disabled, _) => ("disabled".to_owned(), Look::Bad),
    };
    let breaker = match (line.breaker.as_deref(), line.probes_at) {
        (Some("open"), Some(at)) => (format!("open until {at}"), Look::Bad),
        (Some("closed"), _) => ("closed".to_owned(), Look::Plain),
        (Some(other), _) => (other.to_owned(), Look::Uneasy),
        (None, _) => maybe(None::<&str>),
    };
    vec![
        plain(name),
        state,
        breaker,
        maybe(line.rate.as_ref()),
        plain(line.summary.backlog),
        maybe(line.summary.oldest_due_at),
        maybe(health.last_success_at),
        maybe(health.last_failure_at),
        plain(reason),
    ]
}

async fn change(session: &mut Session<'_>, verb: EndpointVerb, args: ChangeArgs) -> Result<Exit, Failures> {
    let given = args.reason.map(|reason| reason.chars().take(REASON_LEN_MAX).collect::<String>());
    let reason = match given {
        None => format!("by `wirehook endpoints {}`", verb.as_str()),
        Some(why) => format!("by `wirehook endpoints {}`: {why}", verb.as_str()),
    };
    let change = EndpointChange { name: args.name.as_str().into(), verb, reason };
    for reply in session.ask(Request::ChangeEndpoint(change)).await? {
        let Reply::EndpointChanged(changed) = reply else { continue };
        let (record, already) = match changed {
            EndpointChanged::Done(record) => (record, ""),
            EndpointChanged::Already(record) => (record, " already"),
            EndpointChanged::Refused { record, meant } => return Err(refused(&record, verb, meant).into()),
            EndpointChanged::Unknown { known } => {
                return Err(Failure::unknown("endpoint", &args.name, &known, ENDPOINTS_UNKNOWN).into());
            }
        };
        if session.console.json {
            session.console.object(&record)?;
        } else {
            let EndpointRecord { name, state, since, .. } = record;
            session.console.line(format_args!("{name} is {}{already}, since {since}", state.as_str()))?;
        }
    }
    Ok(Exit::Success)
}

fn refused(record: &EndpointRecord, verb: EndpointVerb, meant: EndpointVerb) -> Failure {
    let (name, state, since) = (&record.name, record.state.as_str(), record.since);
    Failure::new(format!("endpoint {name} is {state} since {since} ({}), so it can't {}", record.reason, verb.as_str()))
        .help(format!("use `wirehook endpoints {} {name}`", meant.as_str()))
}

async fn test(session: &mut Session<'_>, name: String) -> Result<Exit, Failures> {
    let report = match running(session).await? {
        Some(client) => {
            let replies = client.ask(Request::TestEndpoint { name: name.clone() }).await.map_err(AskError::Host)?;
            replies.into_iter().find_map(|reply| match reply {
                Reply::EndpointTested(report) => Some(*report),
                _ => None,
            })
        }
        // Without a host it is this command that needs the secrets.
        None => {
            let loaded = session.load()?;
            session.parts.test_endpoint(&loaded.settings, &name).await?
        }
    };
    let Some(report) = report else {
        let known = configured(session).await?;
        return Err(Failure::unknown("endpoint", &name, &known, ENDPOINTS_NONE).into());
    };
    if session.console.json {
        session.console.object(&report)?;
    } else {
        print(session, &report)?;
    }
    Ok(if report.delivered { Exit::Success } else { Exit::Failure })
}

/// The names of the running host's endpoints, else of those in the settings.
async fn configured(session: &mut Session<'_>) -> Result<Vec<String>, Failures> {
    let Some(client) = running(session).await? else {
        return Ok(session.endpoint_names()?.iter().map(ToString::to_string).collect());
    };
    let replies = client.ask(Request::ListEndpoints).await.map_err(AskError::Host)?;
    let configured = replies.into_iter().filter_map(|reply| match reply {
        Reply::Endpoint(line) if line.configured != Some(false) => Some(line.summary.record.name),
        _ => None,
    });
    Ok(configured.collect())
}

async fn running(session: &mut Session<'_>) -> Result<Option<OpsClient>, Failures> {
    let store = crate::settings::load_store(session.global.config.as_deref(), session.environment)?;
    Ok(OpsClient::connect(&store.path).await.map_err(AskError::Host)?)
}

fn print(session: &mut Session<'_>, report: &TestReport) -> std::io::Result<()> {
    let coloured = session.console.coloured();
    session.console.line(format_args!("> POST {}", printable(&report.url)))?;
    for (name, value) in &report.headers {
        session.console.line(format_args!("> {name}: {}", printable(value)))?;
    }
    session.console.line(">")?;
    session.console.line(format_args!("> {}", report.body))?;
    session.console.line("")?;
    let came_back = match (report.status, &report.error) {
        (Some(status), _) => format!("status {status}"),
        (None, error) => printable(error.as_deref().unwrap_or("no answer")),
    };
    let look = if report.delivered { Look::Good } else { Look::Bad };
    let came_back = look.paint(&came_back, coloured);
    session.console.line(format_args!("< {came_back}, after {:.3} s", report.duration_s))?;
    if let Some(retry_after) = report.retry_after {
        session.console.line(format_args!("< retry-after: {retry_after}"))?;
    }
    if !report.response.is_empty() {
        session.console.line("<")?;
        session.console.line(format_args!("< {}", report.response))?;
    }
    Ok(())
}
