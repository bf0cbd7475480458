//! `wirehook purge`

use clap::Args;

use super::Session;
use super::failure::{Exit, Failure, Failures};
use super::table::{counted, printable};
use crate::ops::{Reply, Request};
use crate::store::{Purge, Purged};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook purge --entity-id 550e8400-e29b-41d4-a716-446655440000 --dry-run
  wirehook purge --entity-id 550e8400-e29b-41d4-a716-446655440000 --yes
  wirehook purge --entity-id 42 --entity-type order --discard-waiting
  wirehook purge --entity-id 42 --entity-type order --keep-file --yes
  wirehook purge --rewrite

Deletes the entity's events and all that came of them, then writes the store's file anew, so \
that none of it is left there or in its log. That takes as long as copying the file and twice its \
size of free space, and the host commits nothing meanwhile; --keep-file leaves it out. Nothing is deleted \
while a run or delivery of it waits, unless --discard-waiting gives that up.

The events' keys stay, so that a redelivery is not taken for new; so do dead messages that mention the \
entity, which have no event: discard those yourself. Backups and what plugins keep \
are yours to see to.";

/// How often it is tried again where some of it is worked on.
const TRIES_MAX: usize = 5;

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The entity's id, whole
    #[arg(long, value_name = "ID", required_unless_present = "rewrite")]
    entity_id: Option<String>,
    /// Only of entities of this type
    #[arg(long, value_name = "TYPE")]
    entity_type: Option<String>,
    /// Also what still waits to be run or delivered: it never is; else nothing is deleted while something waits
    #[arg(long)]
    discard_waiting: bool,
    /// Leave the file as it is: what was deleted is overwritten, and copies of it may be left in unused parts of the file
    #[arg(long)]
    keep_file: bool,
    /// Only write the store's file anew, where that failed after a purge
    #[arg(long, conflicts_with_all = ["entity_id", "entity_type", "discard_waiting", "keep_file", "dry_run"])]
    rewrite: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn purge(session: &mut Session<'_>, args: PurgeArgs) -> Result<Exit, Failures> {
    let Some(entity_id) = args.entity_id else { return rewrite(session).await };
    let purge = Purge {
        entity_id,
        entity_type: args.entity_type,
        discard_waiting: args.discard_waiting,
        dry_run: true,
        given_back: Vec::new(),
    };
    let found = ask(session, purge.clone()).await?;
    if args.dry_run {
        tell(session, &found, "would be deleted")?;
        return Ok(Exit::Success);
    }
    if found.events == 0 {
        let failure = Failure::new(format!("no event of `{}` is kept", printable(&purge.entity_id)));
        return Err(failure.help("the id must be whole; `wirehook trace` takes its beginning").into());
    }
    if found.waiting > 0 && !purge.discard_waiting {
        let waiting =
            counted(found.waiting, "run or delivery of it still waits", "runs and deliveries of it still wait");
        let failure = Failure::new(format!("{waiting}: nothing was deleted"));
        return Err(failure.help("wait until it is done, or give it up with --discard-waiting").into());
    }
    if !args.yes && !confirmed(session, &found)? {
        return Err(Failure::new("not confirmed: nothing was deleted").into());
    }
    let purged = delete(session, purge).await?;
    tell(session, &purged, "deleted")?;
    if !purged.done {
        let message = "some of it is being worked on just now, and was not deleted";
        return Err(Failure::new(message).help("do the same again in a moment").into());
    }
    if args.keep_file {
        return Ok(Exit::Success);
    }
    rewrite(session).await
}

async fn rewrite(session: &mut Session<'_>) -> Result<Exit, Failures> {
    session.ask(Request::Rewrite).await?;
    if !session.console.json {
        session.console.line("the store's file was written anew, without what was deleted")?;
    }
    Ok(Exit::Success)
}

async fn delete(session: &mut Session<'_>, purge: Purge) -> Result<Purged, Failures> {
    let purge = Purge { dry_run: false, ..purge };
    let mut total = Purged::default();
    for _ in 0..TRIES_MAX {
        let purged = ask(session, purge.clone()).await?;
        total.events += purged.events;
        total.deliveries += purged.deliveries;
        total.attempts += purged.attempts;
        total.dead_letters += purged.dead_letters;
        total.mentioned_in = purged.mentioned_in;
        total.in_flight = purged.in_flight;
        total.waiting = if purge.discard_waiting { 0 } else { purged.waiting };
        total.done = purged.done;
        if total.done {
            break;
        }
    }
    Ok(total)
}

async fn ask(session: &mut Session<'_>, purge: Purge) -> Result<Purged, Failures> {
    let replies = session.ask(Request::Purge(purge)).await?;
    let purged = replies.into_iter().find_map(|reply| match reply {
        Reply::Purged(purged) => Some(purged),
        _ => None,
    });
    Ok(purged.unwrap_or_default())
}

fn confirmed(session: &mut Session<'_>, found: &Purged) -> Result<bool, Failures> {
    session.may_ask(&format!("{} would be deleted for good", all(found)))?;
    Ok(session.confirm(&format!("Delete {} for good?", all(found)))?)
}

fn all(purged: &Purged) -> String {
    format!(
        "{}, {}, {} and {}",
        counted(purged.events, "event", "events"),
        counted(purged.deliveries, "delivery", "deliveries"),
        counted(purged.attempts, "attempt", "attempts"),
        counted(purged.dead_letters, "dead letter", "dead letters")
    )
}

fn tell(session: &mut Session<'_>, purged: &Purged, done: &str) -> std::io::Result<()> {
    if session.console.json {
        return session.console.object(purged);
    }
    session.console.line(format_args!("{} {done}", all(purged)))?;
    if purged.waiting > 0 {
        let waiting = counted(purged.waiting, "of them still waits", "of them still wait");
        session.console.line(format_args!("{waiting} to be run or delivered"))?;
    }
    if purged.mentioned_in > 0 {
        let mentioned = counted(purged.mentioned_in, "dead message mentions", "dead messages mention");
        let text = format!("{mentioned} it and stay: look at them with `wirehook dead-letters list`, and discard them");
        session.console.line(text)?;
    }
    Ok(())
}
