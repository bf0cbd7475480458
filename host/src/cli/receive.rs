//! `wirehook receive`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::console::Look;
use super::failure::{Exit, Failure, Failures};
use super::parts::{ReceiveOptions, Received};
use super::scheme::{SchemeArgs, secret_of_file, secret_of_variable};
use super::table::printable;
use super::{Console, Session};
use crate::settings::SignatureScheme;

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook receive --secret-env ORDERS_SECRET
  wirehook receive --listen 127.0.0.1:8081 --secret-file orders.secret --json
  wirehook receive --scheme standard-webhooks --secret-env ORDERS_PUBLIC_KEY
  wirehook receive --secret-env ORDERS_SECRET --status 503,503,200 --count 3

Without a secret, every webhook is taken and nothing is verified.";

/// The most statuses of one `--status`.
const STATUSES_MAX: usize = 64;

#[derive(Debug, Args)]
pub(super) struct ReceiveArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    scheme: SchemeArgs,
    /// The environment variable with the endpoint's secret; whpk_… for ed25519
    #[arg(long, value_name = "NAME", conflicts_with = "secret_file")]
    secret_env: Option<String>,
    /// The file with the endpoint's secret; one newline at its end is not part of it
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The statuses to answer to the attempts at one webhook, in order; the last one from then on
    #[arg(long, value_name = "STATUS,…", value_delimiter = ',', default_value = "200",
          value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Vec<u16>,
    /// End after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) async fn receive(session: &mut Session<'_>, args: ReceiveArgs) -> Result<Exit, Failures> {
    if args.status.len() > STATUSES_MAX {
        return Err(Failure::new(format!("--status names more than {STATUSES_MAX} statuses")).into_usage());
    }
    let secret = match (&args.secret_env, &args.secret_file) {
        (Some(name), _) => Some(secret_of_variable(session.environment, name)?),
        (None, Some(file)) => Some(secret_of_file(file)?),
        (None, None) => None,
    };
    let scheme = args.scheme.scheme()?;
    if secret.is_none() && scheme != SignatureScheme::None {
        tracing::warn!(
            "nothing is verified: no secret is named; name the endpoint's with --secret-env or --secret-file, \
             or say --scheme none"
        );
    }
    let options = ReceiveOptions { listen: args.listen, scheme, secret, statuses: args.status, count: args.count };
    let console = &mut *session.console;
    let mut unprinted = None;
    let mut print = |received: &Received| {
        if let Err(error) = print(console, received) {
            unprinted.get_or_insert(error);
        }
    };
    session.parts.receive(options, &mut print).await?;
    unprinted.map_or(Ok(Exit::Success), |error| Err(error.into()))
}

/// One request, on standard output at once: somebody may be watching, or reading it through a pipe.
pub(super) fn print(console: &mut Console, received: &Received) -> std::io::Result<()> {
    if console.json {
        console.object(received)?;
        return console.flush();
    }
    let (word, look) = match (received.verified, &received.problem) {
        (Some(true), _) => ("verified".to_owned(), Look::Good),
        (Some(false), Some(problem)) => (format!("not verified: {}", printable(problem)), Look::Bad),
        (Some(false), None) => ("not verified".to_owned(), Look::Bad),
        (None, _) => ("unchecked".to_owned(), Look::Uneasy),
    };
    let word = look.paint(&word, console.coloured());
    let id = received.webhook_id.as_deref().unwrap_or("-");
    // Whoever can't sign can't make an attempt either: those are not counted.
    let attempt = if received.attempt == 0 { String::new() } else { format!("attempt {} ", received.attempt) };
    console.line(format_args!("{} {} {} {attempt}{word}", received.number, received.status, printable(id)))?;
    console.line(format_args!("  {}", printable(&received.body)))?;
    console.flush()
}
