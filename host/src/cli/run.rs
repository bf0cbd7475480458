//! `wirehook run`

use clap::Args;

use super::failure::{Exit, Failures};
use super::parts::RunOptions;
use super::table::counted;
use super::{Failure, Observers, Session};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook run --config /etc/wirehook/wirehook.toml
  wirehook run --observers fraiseql.toml
  wirehook run --exit-when-idle < events.jsonl

Exit code: 0 after a drain (what its deadline cuts off stays in the store), 2 for settings, 1 \
otherwise. A second signal stops at once, with 1.";

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// End once the sources are at their end and no work is left; exit 1 if anything died
    #[arg(long)]
    exit_when_idle: bool,
    #[command(flatten)]
    observers: Observers,
}

pub(super) async fn run(session: &mut Session<'_>, args: RunArgs) -> Result<Exit, Failures> {
    let loaded = session.load_observed(&args.observers)?;
    for warning in &loaded.warnings {
        tracing::warn!(at = %warning.at, "{}", warning.message);
    }
    let options = RunOptions { exit_when_idle: args.exit_when_idle };
    let report = session.parts.run(loaded.for_run()?, options).await?;
    if session.console.json {
        session.console.object(&report)?;
    }
    if args.exit_when_idle && report.dead_letters > 0 {
        let message =
            format!("{} came to be during the run", counted(report.dead_letters, "dead letter", "dead letters"));
        return Err(Failure::new(message).help("look at them with `wirehook dead-letters list`").into());
    }
    // A drain that its deadline cut off is a clean one: what was in flight is in the store, and the log said so.
    Ok(Exit::Success)
}
