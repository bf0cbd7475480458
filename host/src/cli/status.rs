//! `wirehook status`: the operator's one look.

mod tables;

pub(super) use self::tables::source_look;

use super::Session;
use super::console::Look;
use super::failure::{Exit, Failures};
use super::table::{counted, printable};
use super::words::{size, span};
use crate::clock::Timestamp;
use crate::ops::{HostStatus, MemoryKindLook, MemoryLook, Reply, Request, Status};
use crate::store::{EndpointRecord, EndpointState, StoreStatus};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook status
  wirehook status --json";

pub(super) async fn status(session: &mut Session<'_>) -> Result<Exit, Failures> {
    let now = session.parts.clock().now();
    for reply in session.ask(Request::Status).await? {
        let Reply::Status(mut status) = reply else { continue };
        if status.host.is_none() {
            status.park_beside(&session.endpoint_names()?);
        }
        if session.console.json { session.console.object(&status)? } else { print(session, &status, now)? }
    }
    Ok(Exit::Success)
}

fn print(session: &mut Session<'_>, status: &Status, now: Timestamp) -> std::io::Result<()> {
    match &status.host {
        Some(host) => print_host(session, host, now)?,
        None => session.console.line("no host runs on this store")?,
    }
    print_store(session, &status.store)?;
    for table in tables::all(status, now) {
        if !table.is_empty() {
            session.console.line("")?;
            table.print(session.console)?;
        }
    }
    for parked in &status.parked {
        let waits = counted(parked.count, "delivery waits", "deliveries wait");
        let text = format!("{waits} for the endpoint `{}`, which is not configured", printable(&parked.endpoint));
        let text = Look::Uneasy.paint(&text, session.console.coloured());
        session.console.line("")?;
        session.console.line(text)?;
        session.console.line("  wirehook deliveries list --state parked")?;
    }
    Ok(())
}

fn print_host(session: &mut Session<'_>, host: &HostStatus, now: Timestamp) -> std::io::Result<()> {
    let (version, pid, since) = (&host.version, host.pid, host.started_at);
    let up = span(now.since(since));
    session.console.line(format_args!("wirehook {version}, process {pid}, up {up}, since {since}"))?;
    print_memory(session, &host.memory)?;
    if !host.cleaning.is_empty() {
        session.console.line(format_args!("memory reset between events: {}", printable(&host.cleaning)))?;
    }
    // Sources have a table of their own.
    for part in host.parts.iter().filter(|part| !part.name.starts_with("source ")) {
        if part.ready && part.detail.is_empty() {
            continue;
        }
        let look = if part.ready { Look::Uneasy } else { Look::Bad };
        let text = format!("{}: {}; {}", part.name, printable(&part.state), printable(&part.detail));
        let text = look.paint(&text, session.console.coloured());
        session.console.line(text)?;
    }
    Ok(())
}

/// How full the memory is; a kind that had to wait or was refused is named.
fn print_memory(session: &mut Session<'_>, memory: &MemoryLook) -> std::io::Result<()> {
    // A host of an earlier version says nothing of it.
    if memory.budget_bytes == 0 {
        return Ok(());
    }
    let used = memory.kinds.iter().map(|kind| kind.used_bytes).sum();
    let mut text = format!("{} of {} in memory", size(used), size(memory.budget_bytes));
    for kind in memory.kinds.iter().filter(|kind| kind.waits + kind.refusals > 0) {
        let MemoryKindLook { kind, waits, refusals, .. } = kind;
        let refused = if *refusals > 0 { format!(", refused {refusals} times") } else { String::new() };
        text.push_str(&format!("; {kind} waited {waits} times{refused}"));
    }
    session.console.line(text)
}

fn print_store(session: &mut Session<'_>, store: &StoreStatus) -> std::io::Result<()> {
    let console = &mut *session.console;
    let free = store.size.free_bytes.map(|free| format!(", {} free on its disk", size(free))).unwrap_or_default();
    console.line(format_args!(
        "store of {}, its log {}{free}; {} kept, {} unrouted",
        size(store.size.bytes),
        size(store.size.wal_bytes),
        counted(store.events, "event", "events"),
        store.unrouted
    ))?;
    if store.events_unaccounted > 0 {
        let events = counted(store.events_unaccounted, "event is", "events are");
        let text = format!("{events} unaccounted for: please report this");
        let text = Look::Bad.paint(&text, console.coloured());
        console.line(text)?;
    }
    for endpoint in store.endpoints.iter().filter(|endpoint| endpoint.state != EndpointState::Active) {
        let EndpointRecord { name, state, since, reason, .. } = endpoint;
        let text = format!("endpoint {name} is {} since {since}: {}", state.as_str(), printable(reason));
        let text = Look::Bad.paint(&text, console.coloured());
        console.line(text)?;
    }
    Ok(())
}
