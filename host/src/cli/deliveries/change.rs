//! `wirehook deliveries retry|discard|move`

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{print_list, summaries};
use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::filter::{DELIVERY_IDS_MAX, FilterArgs, LIST_LIMIT_MAX};
use crate::cli::steps::{Steps, interrupted};
use crate::cli::table::counted;
use crate::delivery::DeliveryId;
use crate::ops::{Reply, Request};
use crate::store::{Changed, DeliveryChange, DeliveryFilter, DeliverySeq, DeliveryState, DeliveryVerb};

/// How often what is being sent is looked at again, before it is left as it is.
const PASSES_MAX: usize = 5;

#[derive(Debug, Args)]
pub(in crate::cli) struct ChangeArgs {
    /// These webhook-ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only those that wait for an endpoint that is not configured
    #[arg(long)]
    parked: bool,
    /// Every delivery that waits
    #[arg(long, conflicts_with_all = ["ids", "endpoint", "plugin", "reason", "event", "entity_id", "since", "until", "parked"])]
    all: bool,
    /// Only list what would be affected
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MoveArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Those that are dead instead of those that wait; they stay dead, for `dead-letters redrive`
    #[arg(long)]
    dead: bool,
    /// The endpoint to send them to
    #[arg(long, value_name = "NAME")]
    to: String,
}

pub(super) async fn retry(session: &mut Session<'_>, args: ChangeArgs) -> Result<Exit, Failures> {
    change(session, args, DeliveryVerb::Retry, false).await
}

pub(super) async fn discard(session: &mut Session<'_>, args: ChangeArgs) -> Result<Exit, Failures> {
    change(session, args, DeliveryVerb::Discard, false).await
}

pub(super) async fn move_to(session: &mut Session<'_>, args: MoveArgs) -> Result<Exit, Failures> {
    let MoveArgs { change: args, dead, to } = args;
    let configured = session.endpoint_names()?;
    if !configured.iter().any(|name| **name == *to) {
        let names: Vec<&str> = configured.iter().map(|name| &**name).collect();
        let failure = Failure::new(format!("there is no endpoint `{to}` to move deliveries to"));
        return Err(failure.help(format!("there is: {}", names.join(", "))).into_usage());
    }
    change(session, args, DeliveryVerb::Move { to: to.into() }, dead).await
}

async fn change(session: &mut Session<'_>, args: ChangeArgs, verb: DeliveryVerb, dead: bool) -> Result<Exit, Failures> {
    if args.ids.is_empty() && args.filter.is_empty() && !args.parked && !args.all {
        let failure = Failure::new("nothing says which deliveries are meant");
        let help = "name ids, or --endpoint, --plugin, --event, --entity-id, --since, --until or --parked, or --all";
        return Err(failure.help(help).into_usage());
    }
    if args.ids.len() > DELIVERY_IDS_MAX {
        let failure = Failure::new(format!("more than {DELIVERY_IDS_MAX} ids are named"));
        return Err(failure.help("use a filter, or several commands").into_usage());
    }
    let mut filter = args.filter.into_deliveries(session.now());
    filter.ids = args.ids.iter().map(|id| DeliveryId::from_stored(id.as_str())).collect();
    if args.parked {
        let configured = session.endpoint_names()?;
        filter.parked_beside = Some(configured.iter().map(ToString::to_string).collect());
    }
    filter.state = dead.then_some(DeliveryState::Dead);
    let listed = DeliveryFilter { waiting: !dead, limit: Some(LIST_LIMIT_MAX as u32), ..filter.clone() };
    if args.dry_run {
        let listed = summaries(session, listed).await?;
        print_list(session, &listed)?;
        return Ok(Exit::Success);
    }
    let named = !filter.ids.is_empty();
    let mut length = 0;
    if !named && (!args.yes || session.console.watched()) {
        length = summaries(session, listed).await?.len() as u64;
        if !args.yes && !confirmed(session, &verb, length).await? {
            return Err(Failure::new("not confirmed: nothing was done").into());
        }
        if length >= LIST_LIMIT_MAX.unsigned_abs() {
            length = session.at_most(false).await?;
        }
    }
    let missing = missing(session, &filter.ids).await?;
    let (changed, whole) = carry_out(session, &verb, filter, length).await?;
    tell(session, &verb, &changed, named)?;
    if !whole {
        return Err(interrupted());
    }
    if !missing.is_empty() {
        let failure = Failure::new(format!("there is no delivery {}", missing.join(", ")));
        return Err(failure.help("`wirehook deliveries list` shows those there are").into());
    }
    if named && changed.refused > 0 {
        let message =
            format!("{} neither pending nor retrying", counted(changed.refused, "delivery is", "deliveries are"));
        let help = "dead ones are for `wirehook dead-letters redrive`; what is delivered or discarded is done with";
        return Err(Failure::new(message).help(help).into());
    }
    Ok(Exit::Success)
}

/// The named ids that there are no deliveries of.
async fn missing(session: &mut Session<'_>, ids: &[DeliveryId]) -> Result<Vec<String>, Failures> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let named = DeliveryFilter { ids: ids.to_vec(), ..DeliveryFilter::default() };
    let found: HashSet<DeliveryId> = summaries(session, named).await?.into_iter().map(|found| found.id).collect();
    Ok(ids.iter().filter(|id| !found.contains(id)).map(|id| id.as_str().to_owned()).collect())
}

async fn confirmed(session: &mut Session<'_>, verb: &DeliveryVerb, count: u64) -> Result<bool, Failures> {
    session.may_ask()?;
    let or_more = if count >= LIST_LIMIT_MAX.unsigned_abs() { " or more" } else { "" };
    let meant = counted(count, "delivery", "deliveries") + or_more;
    let question = match verb {
        DeliveryVerb::Retry => format!("Try {meant} now?"),
        DeliveryVerb::Discard => format!("Give up {meant}, never to be sent?"),
        DeliveryVerb::Move { to } => format!("Move {meant} to `{to}`?"),
    };
    Ok(count == 0 || session.confirm(&question)?)
}

/// Step by step to the end, or to an interrupt: then the second value is false. What is being sent is looked at again a
/// few times, for it may come to wait.
async fn carry_out(
    session: &mut Session<'_>,
    verb: &DeliveryVerb,
    mut filter: DeliveryFilter,
    length: u64,
) -> Result<(Changed, bool), Failures> {
    // What is created from here on is not meant.
    let newest = summaries(session, DeliveryFilter { limit: Some(1), ..DeliveryFilter::default() }).await?;
    filter.before = newest.first().map(|newest| DeliverySeq(newest.seq.0.saturating_add(1)));
    let mut steps = Steps::new(session, length);
    let mut total = Changed::default();
    for _ in 0..PASSES_MAX {
        let mut pass = Changed::default();
        loop {
            let change =
                DeliveryChange { verb: verb.clone(), filter: filter.clone(), after: pass.last, given_back: Vec::new() };
            let step = changed(session.ask(Request::ChangeDeliveries(change)).await?);
            let (count, last) = (step.changed, step.last);
            pass.add(step);
            if !steps.done(count) {
                total.changed += pass.changed;
                steps.end();
                return Ok((total, false));
            }
            if last.is_none() {
                break;
            }
        }
        total = Changed { changed: total.changed + pass.changed, refused: total.refused.max(pass.refused), ..pass };
        // The first pass has told what there was to refuse; what it changed is refused by the next.
        if total.in_flight == 0 || *verb == DeliveryVerb::Retry || !filter.ids.is_empty() {
            break;
        }
    }
    steps.end();
    Ok((total, true))
}

fn changed(replies: Vec<Reply>) -> Changed {
    let step = replies.into_iter().find_map(|reply| match reply {
        Reply::Changed(changed) => Some(changed),
        _ => None,
    });
    step.unwrap_or_default()
}

fn tell(session: &mut Session<'_>, verb: &DeliveryVerb, changed: &Changed, named: bool) -> std::io::Result<()> {
    let (word, done): (&str, Arc<str>) = match verb {
        DeliveryVerb::Retry => ("retried", "tried now".into()),
        DeliveryVerb::Discard => ("discarded", "discarded".into()),
        DeliveryVerb::Move { to } => ("moved", format!("moved to {to}").into()),
    };
    if session.console.json {
        let refused = if named { changed.refused } else { 0 };
        return session
            .console
            .object(&json!({ word: changed.changed, "in_flight": changed.in_flight, "refused": refused }));
    }
    session.console.line(format_args!("{} {done}", counted(changed.changed, "delivery", "deliveries")))?;
    if changed.in_flight > 0 {
        let being_sent = counted(changed.in_flight, "delivery is", "deliveries are");
        session.console.line(format_args!("{being_sent} being sent just now, and left as they are"))?;
    }
    Ok(())
}
