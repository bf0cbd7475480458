//! `wirehook status`

use super::Session;
use super::console::Look;
use super::deliveries::state_look;
use super::failure::{Exit, Failures};
use super::table::{Table, counted, plain, printable};
use crate::ops::{HostStatus, Reply, Request, Status};
use crate::store::{EndpointRecord, EndpointState, StoreStatus};

pub(super) const EXAMPLE: &str = "\
Example:
  wirehook status --json";

pub(super) async fn status(session: &mut Session<'_>) -> Result<Exit, Failures> {
    for reply in session.ask(Request::Status).await? {
        let Reply::Status(mut status) = reply else { continue };
        if status.host.is_none() {
            status.park_beside(&session.endpoint_names()?);
        }
        if session.console.json { session.console.object(&status)? } else { print(session, &status)? }
    }
    Ok(Exit::Success)
}

fn print(session: &mut Session<'_>, status: &Status) -> std::io::Result<()> {
    match &status.host {
        Some(host) => print_host(session, host)?,
        None => session.console.line("no host runs on this store")?,
    }
    print_store(session, &status.store)?;
    for parked in &status.parked {
        let waits = counted(parked.count, "delivery waits", "deliveries wait");
        let text = format!("{waits} for the endpoint `{}`, which is not configured", printable(&parked.endpoint));
        let text = Look::Uneasy.paint(&text, session.console.coloured());
        session.console.line(format_args!("\n{text}\n  wirehook deliveries list --state parked"))?;
    }
    Ok(())
}

fn print_host(session: &mut Session<'_>, host: &HostStatus) -> std::io::Result<()> {
    session.console.line(format_args!("wirehook {}, process {}, since {}", host.version, host.pid, host.started_at))?;
    for part in &host.parts {
        let (word, look) = match (part.ready, part.detail.is_empty()) {
            (true, true) => ("ready", Look::Good),
            (true, false) => ("ready", Look::Uneasy),
            (false, _) => ("not ready", Look::Bad),
        };
        let word = look.paint(word, session.console.coloured());
        let separator = if part.detail.is_empty() { "" } else { "; " };
        session.console.line(format_args!("  {}: {word}{separator}{}", part.name, printable(&part.detail)))?;
    }
    Ok(())
}

fn print_store(session: &mut Session<'_>, store: &StoreStatus) -> std::io::Result<()> {
    let console = &mut *session.console;
    console.line(format_args!("\n{} kept, {} unrouted", counted(store.events, "event", "events"), store.unrouted))?;
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
    let mut runs = Table::new(&["plugin", "runs", "count"]);
    for run in &store.runs {
        let look = match run.state.as_str() {
            "dead" => Look::Bad,
            "parked" | "retrying" => Look::Uneasy,
            _ => Look::Plain,
        };
        runs.row(vec![plain(&run.plugin), (run.state.clone(), look), plain(run.count)]);
    }
    let mut deliveries = Table::new(&["endpoint", "deliveries", "count"]);
    for delivery in &store.deliveries {
        deliveries.row(vec![plain(&delivery.endpoint), state_look(delivery.state), plain(delivery.count)]);
    }
    let mut dead = Table::new(&["dead letters", "count"]);
    for reason in &store.dead_letters {
        dead.row(vec![plain(reason.reason), plain(reason.count)]);
    }
    for (table, any) in
        [(runs, store.runs.len()), (deliveries, store.deliveries.len()), (dead, store.dead_letters.len())]
    {
        if any > 0 {
            console.line("")?;
            table.print(console)?;
        }
    }
    Ok(())
}
