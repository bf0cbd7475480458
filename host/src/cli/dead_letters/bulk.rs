//! `wirehook dead-letters redrive|discard`

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{print_list, summaries};
use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::filter::{FilterArgs, IDS_MAX, LIST_LIMIT_MAX, Rate};
use crate::cli::steps::{Countable, Steps, interrupted};
use crate::cli::table::counted;
use crate::cli::waits::{self, Waits};
use crate::ops::{Reply, Request};
use crate::store::{DeadLetterFilter, DeadLetterSummary, Discarded, Pace, Redriven};

/// Dead letters in one step.
const STEP_LETTERS: u32 = 2_000;

pub(super) const REDRIVE_EXAMPLE: &str = "\
Examples:
  wirehook dead-letters redrive 17 18
  wirehook dead-letters redrive --endpoint orders --limit 10 --dry-run
  wirehook dead-letters redrive --endpoint orders --rate 100/s --yes

Try a few first with --limit, the oldest; then the rest with --rate, which spares a receiver that \
has just come back.";

pub(super) const DISCARD_EXAMPLE: &str = "\
Examples:
  wirehook dead-letters discard 17 18
  wirehook dead-letters discard --plugin orders --since 2026-03-02T14:00:00Z --dry-run
  wirehook dead-letters discard --reason status_410 --yes";

#[derive(Debug, Args)]
pub(in crate::cli) struct BulkArgs {
    /// These ids
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many, the oldest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Every dead letter there is
    #[arg(long, conflicts_with_all = ["ids", "endpoint", "plugin", "reason", "event", "entity_id", "since", "until"])]
    all: bool,
    /// Only list what would be affected
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RedriveArgs {
    #[command(flatten)]
    bulk: BulkArgs,
    /// Spread them over time: so many are due in each second (100/s), minute (/m) or hour (/h)
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
}

#[derive(Clone, Copy)]
enum Verb {
    Redrive(Option<Rate>),
    Discard,
}

pub(super) async fn redrive(session: &mut Session<'_>, args: RedriveArgs) -> Result<Exit, Failures> {
    bulk(session, Verb::Redrive(args.rate), args.bulk).await
}

pub(super) async fn discard(session: &mut Session<'_>, args: BulkArgs) -> Result<Exit, Failures> {
    bulk(session, Verb::Discard, args).await
}

async fn bulk(session: &mut Session<'_>, verb: Verb, args: BulkArgs) -> Result<Exit, Failures> {
    if args.ids.is_empty() && args.filter.is_empty() && !args.all {
        let failure = Failure::new("nothing says which dead letters are meant");
        let help = "name ids, or --endpoint, --plugin, --reason, --event, --entity-id, --since or --until, or --all";
        return Err(failure.help(help).into_usage());
    }
    if args.ids.len() > IDS_MAX {
        let failure = Failure::new(format!("more than {IDS_MAX} ids are named"));
        return Err(failure.help("use a filter, or several commands").into_usage());
    }
    let mut filter = args.filter.into_letters(session.now());
    filter.ids = args.ids;
    filter.limit = args.limit;
    let named = !filter.ids.is_empty();
    if args.dry_run {
        return dry_run(session, filter, args.all).await;
    }
    let mut length = 0;
    if !named && (!args.yes || session.console.watched()) {
        length = summaries(session, filter.clone()).await?.len() as u64;
        if !args.yes && !confirmed(session, verb, length).await? {
            return Err(Failure::new("not confirmed: nothing was done").into());
        }
        if length >= LIST_LIMIT_MAX.unsigned_abs() {
            length = session.at_most(Countable::DeadLetters).await?;
        }
    }
    let missing = missing(session, &filter.ids).await?;
    let whole = match verb {
        Verb::Redrive(rate) => redrive_all(session, filter, rate, length).await?,
        Verb::Discard => discard_all(session, filter, length).await?,
    };
    if !whole {
        return Err(interrupted());
    }
    if missing.is_empty() {
        return Ok(Exit::Success);
    }
    let failure = Failure::new(format!("there is no dead letter {}", missing.join(", ")));
    Err(failure.help("`wirehook dead-letters list` shows those there are").into())
}

/// Lists what would be affected: all of it newest first, or the oldest first where a limit says how many.
async fn dry_run(session: &mut Session<'_>, filter: DeadLetterFilter, all: bool) -> Result<Exit, Failures> {
    let limit = filter.limit.map(u64::from);
    let letters = match limit {
        Some(limit) => oldest(session, filter, limit).await?,
        None => summaries(session, filter).await?,
    };
    print_list(session, &letters)?;
    if letters.len() as u64 >= LIST_LIMIT_MAX.unsigned_abs() {
        let there_are = session.at_most(Countable::DeadLetters).await?;
        session.tell_cut(letters.len(), limit.map_or(there_are, |limit| limit.min(there_are)), !all);
    }
    Ok(Exit::Success)
}

/// As many as a list may have, asked for part by part: only an export begins with the oldest.
async fn oldest(
    session: &mut Session<'_>,
    mut filter: DeadLetterFilter,
    limit: u64,
) -> Result<Vec<DeadLetterSummary>, Failures> {
    let limit = limit.min(LIST_LIMIT_MAX.unsigned_abs());
    let mut letters = Vec::new();
    loop {
        let left = limit.saturating_sub(letters.len() as u64);
        filter.limit = Some(u32::try_from(left).unwrap_or(u32::MAX));
        let before = letters.len();
        if left > 0 {
            let replies = session.ask(Request::ExportDeadLetters(filter.clone())).await?;
            letters.extend(replies.into_iter().filter_map(|reply| match reply {
                Reply::DeadLetterDetail(letter) => Some(letter.summary),
                _ => None,
            }));
        }
        if letters.len() == before {
            return Ok(letters);
        }
        filter.after = letters.last().map(|letter: &DeadLetterSummary| letter.id);
    }
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
async fn confirmed(session: &mut Session<'_>, verb: Verb, count: u64) -> Result<bool, Failures> {
    let meant = letters(count) + if count >= LIST_LIMIT_MAX.unsigned_abs() { " or more" } else { "" };
    let (question, would) = match verb {
        Verb::Redrive(_) => (format!("Put {meant} back to work?"), "put back to work"),
        Verb::Discard => (format!("Delete {meant} for good?"), "deleted for good"),
    };
    session.may_ask(&format!("{meant} would be {would}"))?;
    Ok(count == 0 || session.confirm(&question)?)
}

fn letters(count: u64) -> String {
    counted(count, "dead letter", "dead letters")
}

/// The part of a filter that one step is about; none once its limit is reached. What dies from here on is not meant: a
/// redriven delivery may die at once.
fn next_step(filter: &DeadLetterFilter, done: u64, after: Option<i64>) -> Option<DeadLetterFilter> {
    let left = filter.limit.map_or(u64::from(STEP_LETTERS), |limit| u64::from(limit).saturating_sub(done));
    let limit = u32::try_from(left).unwrap_or(u32::MAX).min(STEP_LETTERS);
    (limit > 0).then(|| DeadLetterFilter { after, limit: Some(limit), ..filter.clone() })
}

async fn up_to_now(session: &mut Session<'_>, filter: DeadLetterFilter) -> Result<DeadLetterFilter, Failures> {
    let newest = summaries(session, DeadLetterFilter { limit: Some(1), ..DeadLetterFilter::default() }).await?;
    Ok(DeadLetterFilter { before: newest.first().map(|newest| newest.id.saturating_add(1)), ..filter })
}

/// Returns whether it came to its end.
async fn redrive_all(
    session: &mut Session<'_>,
    filter: DeadLetterFilter,
    rate: Option<Rate>,
    length: u64,
) -> Result<bool, Failures> {
    let filter = up_to_now(session, filter).await?;
    let pace = Pace { first: session.now(), interval: rate.unwrap_or_default().0 };
    let mut steps = Steps::new(session, length);
    let mut total = Redriven::default();
    let mut whole = true;
    while let Some(step) = next_step(&filter, total.total(), total.last) {
        // Later steps go on at the moments where the ones before ended.
        let pace = Pace { first: pace.due(total.runs + total.deliveries), ..pace };
        let limit = step.limit;
        let request = match rate {
            Some(_) => Request::RedrivePaced { filter: step, pace },
            None => Request::Redrive(step),
        };
        let redriven = session.ask(request).await?.into_iter().find_map(|reply| match reply {
            Reply::Redriven(redriven) => Some(redriven),
            _ => None,
        });
        let redriven = redriven.unwrap_or_default();
        let count = redriven.total();
        total.add(redriven);
        if !steps.done(count) {
            whole = false;
            break;
        }
        if limit.is_some_and(|limit| count < u64::from(limit)) {
            break;
        }
    }
    steps.end();
    let due = total.endpoints.iter().map(|endpoint| (Arc::clone(endpoint), None)).collect();
    let mut waiting = waits::at_endpoints(session, &due).await?;
    waiting.extend(waits::of_plugins(session, &total.plugins).await?);
    tell_redriven(session, &total, pace, &waiting)?;
    Ok(whole)
}

fn tell_redriven(
    session: &mut Session<'_>,
    redriven: &Redriven,
    pace: Pace,
    waiting: &[Waits],
) -> Result<(), Failures> {
    waiting.iter().for_each(|waits| session.console.warning(&waits.failure()));
    if redriven.refused > 0 {
        let refused = counted(redriven.refused, "dead letter is a message", "dead letters are messages");
        let message = format!("{refused} and can't be redriven");
        let help = "publish them again once the cause is mended, or discard them";
        session.console.warning(&Failure::new(message).help(help));
    }
    if session.console.json {
        let mut object = json!(redriven);
        object["waiting"] = json!(waiting);
        return Ok(session.console.object(&object)?);
    }
    let runs = counted(redriven.runs, "run", "runs");
    let deliveries = counted(redriven.deliveries, "delivery", "deliveries");
    let count = redriven.runs + redriven.deliveries;
    let until = match pace.interval.is_zero() || count < 2 {
        true => String::new(),
        false => format!(", the last one due at {}", pace.due(count - 1)),
    };
    Ok(session.console.line(format_args!("{runs} and {deliveries} put back to work{until}"))?)
}

/// Returns whether it came to its end.
async fn discard_all(session: &mut Session<'_>, filter: DeadLetterFilter, length: u64) -> Result<bool, Failures> {
    let filter = up_to_now(session, filter).await?;
    let mut steps = Steps::new(session, length);
    let mut total = Discarded::default();
    let mut whole = true;
    while let Some(step) = next_step(&filter, total.count, total.last) {
        let limit = step.limit;
        let replies = session.ask(Request::Discard(step)).await?;
        let discarded = replies.into_iter().find_map(|reply| match reply {
            Reply::Discarded { count, last } => Some(Discarded { count, last }),
            _ => None,
        });
        let step = discarded.unwrap_or_default();
        total = Discarded { count: total.count + step.count, last: step.last.or(total.last) };
        if !steps.done(step.count) {
            whole = false;
            break;
        }
        if limit.is_some_and(|limit| step.count < u64::from(limit)) {
            break;
        }
    }
    steps.end();
    if session.console.json {
        session.console.object(&json!({ "discarded": total.count }))?;
    } else {
        session.console.line(format_args!("{} deleted", letters(total.count)))?;
    }
    Ok(whole)
}
