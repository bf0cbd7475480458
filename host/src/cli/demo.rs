//! `wirehook demo`

use std::path::PathBuf;

use clap::Args;

use super::Session;
use super::failure::{Exit, Failures};
use super::parts::DemoOptions;

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook demo
  wirehook demo --plugin orders.wasm --events 100000

Exit code: 0 only when every event is accounted for.";

/// The most events of a demonstration.
const EVENTS_MAX: u64 = 1_000_000;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many events to feed
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=EVENTS_MAX))]
    events: u64,
    /// The plugin to demonstrate with [default: events are forwarded as they come, by routes]
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

pub(super) async fn demo(session: &mut Session<'_>, args: DemoArgs) -> Result<Exit, Failures> {
    let options = DemoOptions { events: args.events, plugin: args.plugin, json: session.console.json };
    let report = session.parts.demo(options).await?;
    Ok(if report.accounted { Exit::Success } else { Exit::Failure })
}
