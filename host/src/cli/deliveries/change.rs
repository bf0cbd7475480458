//! `wirehook deliveries retry|discard|move`

use std::collections::HashSet;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{print_list, summaries};
use crate::cli::Session;
use crate::cli::endpoints::ENDPOINTS_NONE;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::filter::{DELIVERY_IDS_MAX, FilterArgs, LIST_LIMIT_MAX};
use crate::cli::steps::{Countable, Steps, interrupted};
use crate::cli::table::counted;
use crate::cli::waits::{self, Waits};
use crate::delivery::DeliveryId;
use crate::ops::{Reply, Request};
use crate::store::{
    Changed, DeliveryChange, DeliveryFilter, DeliverySeq, DeliveryState, DeliverySummary, DeliveryVerb,
};

/// How often what is being sent is looked at again, before it is left as it is.
const PASSES_MAX: usize = 5;

pub(super) const RETRY_EXAMPLE: &str = "\
Examples:
  wirehook deliveries retry msg_0123456789abcdef0123456789abcdef
  wirehook deliveries retry --endpoint orders --dry-run
  wirehook deliveries retry --endpoint orders --yes

Exit code: 0 when they are tried, or will be once a host runs; 1 where some wait because their endpoint is \
paused, disabled or not in the settings: they are due then, and tried once it goes on.

--reason is of dead deliveries, and refused here. To put those back to work:
  wirehook dead-letters redrive --reason status_4xx";

pub(super) const DISCARD_EXAMPLE: &str = "\
Examples:
  wirehook deliveries discard --plugin orders --since 2026-03-02T14:00:00Z --dry-run
  wirehook deliveries discard --parked --yes

--reason is of dead deliveries, and refused here. To delete those:
  wirehook dead-letters discard --reason status_4xx";

pub(super) const MOVE_EXAMPLE: &str = "\
Examples:
  wirehook deliveries move --endpoint old --to orders --dry-run
  wirehook deliveries move msg_0123456789abcdef0123456789abcdef --to orders
  wirehook deliveries move --dead --endpoint old --reason status_410 --to orders --yes

--reason is of dead deliveries, and wants --dead. Those stay dead until they are redriven:
  wirehook dead-letters redrive --endpoint orders";

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
        return Err(Failure::unknown("endpoint", &to, &configured, ENDPOINTS_NONE).into_usage());
    }
    change(session, args, DeliveryVerb::Move { to: to.into() }, dead).await
}

async fn change(session: &mut Session<'_>, args: ChangeArgs, verb: DeliveryVerb, dead: bool) -> Result<Exit, Failures> {
    if let Some(reason) = args.filter.reason.filter(|_| !dead) {
        let instead = match verb {
            DeliveryVerb::Retry => format!("use `wirehook dead-letters redrive --reason {reason}`"),
            DeliveryVerb::Discard => format!("use `wirehook dead-letters discard --reason {reason}`"),
            DeliveryVerb::Move { .. } => "add --dead to move those that are dead".to_owned(),
        };
        let failure = Failure::new("--reason is of dead deliveries, and this is about those that wait");
        return Err(failure.help(instead).into_usage());
    }
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
    let what = if dead { Countable::DeadDeliveries } else { Countable::WaitingDeliveries };
    if args.dry_run {
        let listed = summaries(session, listed).await?;
        print_list(session, &listed)?;
        if listed.len() as u64 >= LIST_LIMIT_MAX.unsigned_abs() {
            let meant = session.at_most(what).await?;
            session.tell_cut(listed.len(), meant, !args.all);
        }
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
            length = session.at_most(what).await?;
        }
    }
    let ids = filter.ids.clone();
    let found = found(session, &ids).await?;
    let (mut changed, whole) = carry_out(session, &verb, filter, length).await?;
    let due = changed.at.iter().map(|(endpoint, count)| (Arc::clone(endpoint), Some(*count))).collect();
    let waiting = waits::at_endpoints(session, &due).await?;
    // Those were never looked at.
    changed.refused += found.iter().filter(|found| dead && found.state != DeliveryState::Dead).count() as u64;
    tell(session, &verb, &changed, named, &waiting)?;
    if !whole {
        return Err(interrupted());
    }
    let known: HashSet<&DeliveryId> = found.iter().map(|found| &found.id).collect();
    let missing: Vec<&str> = ids.iter().filter(|id| !known.contains(id)).map(DeliveryId::as_str).collect();
    if !missing.is_empty() {
        let failure = Failure::new(format!("there is no delivery {}", missing.join(", ")));
        return Err(failure.help("`wirehook deliveries list` shows those there are").into());
    }
    let mut failures = Failures { failures: Vec::new(), exit: Exit::Failure };
    if verb == DeliveryVerb::Retry {
        failures.failures.extend(waiting.iter().map(Waits::failure));
    }
    if named && changed.refused > 0 {
        failures.failures.extend(refused(&found, changed.refused, &verb, dead).failures);
    }
    if failures.failures.is_empty() { Ok(Exit::Success) } else { Err(failures) }
}

/// The deliveries that were named, as far as there are such.
async fn found(session: &mut Session<'_>, ids: &[DeliveryId]) -> Result<Vec<DeliverySummary>, Failures> {
    match ids {
        [] => Ok(Vec::new()),
        ids => summaries(session, DeliveryFilter { ids: ids.to_vec(), ..DeliveryFilter::default() }).await,
    }
}

/// That so many of the deliveries that were named are left as they were, and why.
fn refused(found: &[DeliverySummary], count: u64, verb: &DeliveryVerb, dead: bool) -> Failures {
    let fits = |found: &DeliverySummary| match dead {
        true => found.state == DeliveryState::Dead,
        false => matches!(found.state, DeliveryState::Pending | DeliveryState::Retrying),
    };
    let there = match verb {
        DeliveryVerb::Move { to } => found.iter().filter(|found| *found.endpoint == **to && fits(found)).count() as u64,
        _ => 0,
    };
    let of = |count| counted(count, "delivery is", "deliveries are");
    let mut failures = Vec::new();
    match count.saturating_sub(there) {
        0 => {}
        others if dead => {
            let failure = Failure::new(format!("{} not dead", of(others)));
            failures.push(failure.help("leave --dead out to move those that wait"));
        }
        others => {
            let help = "dead ones are for `wirehook dead-letters redrive`; what is delivered or discarded is done with";
            failures.push(Failure::new(format!("{} neither pending nor retrying", of(others))).help(help));
        }
    }
    if there > 0 {
        failures.push(Failure::new(format!("{} at that endpoint already", of(there))));
    }
    Failures { failures, exit: Exit::Failure }
}

async fn confirmed(session: &mut Session<'_>, verb: &DeliveryVerb, count: u64) -> Result<bool, Failures> {
    let or_more = if count >= LIST_LIMIT_MAX.unsigned_abs() { " or more" } else { "" };
    let meant = counted(count, "delivery", "deliveries") + or_more;
    let (question, would) = match verb {
        DeliveryVerb::Retry => (format!("Try {meant} now?"), "tried now".to_owned()),
        DeliveryVerb::Discard => (format!("Give up {meant}, never to be sent?"), "given up".to_owned()),
        DeliveryVerb::Move { to } => (format!("Move {meant} to `{to}`?"), format!("moved to `{to}`")),
    };
    session.may_ask(&format!("{meant} would be {would}"))?;
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
                pass.at.iter().for_each(|(name, count)| *total.at.entry(Arc::clone(name)).or_default() += count);
                steps.end();
                return Ok((total, false));
            }
            if last.is_none() {
                break;
            }
        }
        let mut at = std::mem::take(&mut total.at);
        pass.at.iter().for_each(|(name, count)| *at.entry(Arc::clone(name)).or_default() += count);
        let (changed, refused) = (total.changed + pass.changed, total.refused.max(pass.refused));
        total = Changed { changed, refused, at, ..pass };
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

fn tell(
    session: &mut Session<'_>,
    verb: &DeliveryVerb,
    changed: &Changed,
    named: bool,
    waiting: &[Waits],
) -> std::io::Result<()> {
    let (word, done): (&str, Arc<str>) = match verb {
        DeliveryVerb::Retry => ("retried", waits::when(session).into()),
        DeliveryVerb::Discard => ("discarded", "discarded".into()),
        DeliveryVerb::Move { to } => ("moved", format!("moved to {to}").into()),
    };
    if session.console.json {
        let refused = if named { changed.refused } else { 0 };
        return session.console.object(
            &json!({ word: changed.changed, "in_flight": changed.in_flight, "refused": refused, "waiting": waiting }),
        );
    }
    let held: u64 = waiting.iter().map(Waits::count).sum();
    let count = if *verb == DeliveryVerb::Retry { changed.changed.saturating_sub(held) } else { changed.changed };
    session.console.line(format_args!("{} {done}", counted(count, "delivery", "deliveries")))?;
    if *verb != DeliveryVerb::Retry {
        waiting.iter().for_each(|waits| session.console.warning(&waits.failure()));
    }
    if changed.in_flight > 0 {
        let being_sent = counted(changed.in_flight, "delivery is", "deliveries are");
        session.console.line(format_args!("{being_sent} being sent just now, and left as they are"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn what_is_left_as_it_was_is_told_by_what_was_asked() {
        let delivery = |state, endpoint: &str| DeliverySummary {
            seq: DeliverySeq(1),
            id: DeliveryId::from_stored("msg_1"),
            event_key: "bus/id/1".to_owned(),
            subject: "fraiseql.order.created".to_owned(),
            plugin: "orders".to_owned(),
            endpoint: endpoint.to_owned(),
            state,
            attempts: 1,
            created_at: Timestamp(0),
            due_at: None,
            last_status: None,
            last_error: None,
        };
        let check = |found: &[DeliverySummary], count, verb: &DeliveryVerb, dead, expected: &[&str]| {
            let failures = refused(found, count, verb, dead).failures;
            let said: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
            assert_eq!(said, expected, "{verb:?} {dead}");
        };
        let to = DeliveryVerb::Move { to: "depot".into() };
        let (waiting, dead) = (DeliveryState::Retrying, DeliveryState::Dead);
        check(
            &[delivery(dead, "shop")],
            1,
            &DeliveryVerb::Retry,
            false,
            &["1 delivery is neither pending nor retrying"],
        );
        check(&[delivery(dead, "depot")], 1, &to, false, &["1 delivery is neither pending nor retrying"]);
        check(&[delivery(waiting, "depot")], 1, &to, false, &["1 delivery is at that endpoint already"]);
        check(&[delivery(waiting, "shop")], 1, &to, true, &["1 delivery is not dead"]);
        check(
            &[delivery(dead, "depot"), delivery(waiting, "shop"), delivery(waiting, "depot"), delivery(dead, "shop")],
            3,
            &to,
            true,
            &["2 deliveries are not dead", "1 delivery is at that endpoint already"],
        );
    }
}
