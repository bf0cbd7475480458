//! `wirehook events backfill`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{EventArgs, summaries};
use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::steps::{Steps, interrupted};
use crate::cli::table::{counted, printable};
use crate::ops::{BackfillStep, Reply, Request};
use crate::store::{Backfilled, EventFilter, EventSeq};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook events backfill --plugin orders --since 2h --dry-run
  wirehook events backfill --plugin orders --since 2026-03-02T14:00:00Z --limit 10 --yes
  wirehook events backfill --plugin orders --unrouted --yes

For events that were accepted before the plugin was there, or while it could not be known. Each event \
that the plugin is subscribed to, and that never had a run of it, gets one: from the oldest on, and never \
a second one, whatever became of the first. The command ends where the plugin's backlog is full; \
run it again then. A webhook keeps the order of its entity with those that are still waiting.";

#[derive(Debug, Args)]
pub(in crate::cli) struct BackfillArgs {
    /// The plugin: its file's name without .wasm
    #[arg(long, value_name = "NAME")]
    plugin: String,
    #[command(flatten)]
    which: EventArgs,
    /// At most this many, the oldest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Every recorded event
    #[arg(long, conflicts_with_all = ["subject", "source", "unrouted", "since", "until"])]
    all: bool,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What all steps did together.
#[derive(Default)]
struct Total {
    runs: u64,
    full: Option<String>,
    /// Whether it went to the end.
    whole: bool,
}

pub(super) async fn backfill(session: &mut Session<'_>, args: BackfillArgs) -> Result<Exit, Failures> {
    if args.which.is_empty() && !args.all {
        let failure = Failure::new("nothing says which events are meant");
        return Err(failure.help("name --since, --until, --subject, --source or --unrouted, or --all").into_usage());
    }
    let filter = EventFilter { limit: args.limit, ..args.which.into_filter(session) };
    // What comes from here on is routed by itself.
    let newest = summaries(session, EventFilter { limit: Some(1), ..EventFilter::default() }).await?;
    let filter = EventFilter { before: newest.first().map(|newest| EventSeq(newest.seq.0 + 1)), ..filter };
    let (plugins, _) = crate::settings::load_plugins(session.global.config.as_deref(), session.environment)?;
    let step = BackfillStep {
        backlog: plugins.backlog_of(&args.plugin).bounds,
        plugin: args.plugin.as_str().into(),
        filter,
        dry_run: true,
    };
    let mut length = 0;
    if args.dry_run || !args.yes || session.console.watched() {
        let would = all_steps(session, step.clone(), 0).await?;
        if args.dry_run {
            return tell(session, &args.plugin, &would, true);
        }
        length = would.runs;
    }
    if !args.yes {
        let name = printable(&args.plugin);
        let meant = counted(length, "event", "events");
        session.may_ask(&format!("{meant} would get a run of `{name}`"))?;
        if length > 0 && !session.confirm(&format!("Have `{name}` run {meant} that it never ran?"))? {
            return Err(Failure::new("not confirmed: nothing was done").into());
        }
    }
    let total = all_steps(session, BackfillStep { dry_run: false, ..step }, length).await?;
    tell(session, &args.plugin, &total, false)
}

/// Step by step to the end, to a full backlog, or to an interrupt.
async fn all_steps(session: &mut Session<'_>, step: BackfillStep, length: u64) -> Result<Total, Failures> {
    let mut steps = Steps::new(session, length);
    let (mut total, mut after) = (Total::default(), None);
    loop {
        let limit = step.filter.limit.map(|limit| u64::from(limit).saturating_sub(total.runs));
        if limit == Some(0) {
            total.whole = true;
            break;
        }
        let limit = limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let filter = EventFilter { after, limit, ..step.filter.clone() };
        let replies =
            session.ask(Request::Backfill(BackfillStep { filter, plugin: Arc::clone(&step.plugin), ..step })).await?;
        let done = replies.into_iter().find_map(|reply| match reply {
            Reply::Backfilled(done) => Some(done),
            _ => None,
        });
        let Backfilled { runs, last, full } = done.unwrap_or_default();
        total.runs += runs;
        total.full = full;
        let goes_on = steps.done(runs);
        if last.is_none() || total.full.is_some() {
            total.whole = true;
            break;
        }
        if !goes_on {
            break;
        }
        after = last;
    }
    steps.end();
    Ok(total)
}

fn tell(session: &mut Session<'_>, plugin: &str, total: &Total, dry_run: bool) -> Result<Exit, Failures> {
    let events = counted(total.runs, "event", "events");
    if session.console.json {
        session
            .console
            .object(&json!({ "plugin": plugin, "runs": total.runs, "dry_run": dry_run, "full": total.full }))?;
    } else if dry_run {
        session.console.line(format_args!("{events} would get a run of `{}`", printable(plugin)))?;
    } else {
        session.console.line(format_args!("{events} got a run of `{}`", printable(plugin)))?;
    }
    if let Some(full) = &total.full {
        let failure = Failure::new(format!("the backlog of `{}` is full: {full}", printable(plugin)));
        return Err(failure.help("run the command again when it has been worked off, or raise [backlog]").into());
    }
    if total.whole { Ok(Exit::Success) } else { Err(interrupted()) }
}
