//! The tables of `wirehook status`: what was counted, laid out.

use std::collections::BTreeMap;

use crate::cli::console::Look;
use crate::cli::table::{Table, maybe, plain, printable};
use crate::cli::words::{short, span};
use crate::clock::Timestamp;
use crate::ops::{PluginLook, SourceLook, Status};
use crate::store::{DeliveryState, PauseKind, StoreStatus};

type Cell = (String, Look);

/// Sources, plugins, endpoints, dead letters; those with nothing in them too.
pub(super) fn all(status: &Status, now: Timestamp) -> [Table; 4] {
    let (sources, plugins) = match &status.host {
        Some(host) => (&host.sources[..], &host.plugins[..]),
        None => (&[][..], &[][..]),
    };
    [
        of_sources(sources, &status.store, now),
        of_plugins(plugins, &status.store),
        of_endpoints(&status.store, now),
        of_dead_letters(&status.store),
    ]
}

fn of_sources(sources: &[SourceLook], store: &StoreStatus, now: Timestamp) -> Table {
    let mut table = Table::new(&["source", "kind", "state", "accepted", "lost", "error"]).numbers(&[3, 4]);
    for source in sources {
        let since = paused_since(store, PauseKind::Source, &source.name).filter(|_| source.state == "paused");
        let state = since.map_or_else(|| source.state.clone(), |since| format!("paused {}", span(now.since(since))));
        table.row(vec![
            plain(&source.name),
            plain(&source.kind),
            (state, source_look(&source.state)),
            plain(source.accepted),
            (source.lost.to_string(), if source.lost > 0 { Look::Bad } else { Look::Plain }),
            maybe(source.error.as_deref()),
        ]);
    }
    table
}

/// How a source in that state looks.
pub(in crate::cli) fn source_look(state: &str) -> Look {
    match state {
        "connected" => Look::Good,
        "disconnected" => Look::Bad,
        "paused" => Look::Uneasy,
        _ => Look::Plain,
    }
}

fn paused_since(store: &StoreStatus, kind: PauseKind, name: &str) -> Option<Timestamp> {
    store.pauses.iter().find(|pause| pause.kind == kind && *pause.name == *name).map(|pause| pause.since)
}

/// Those of the host, and those that only the store remembers.
fn of_plugins(plugins: &[PluginLook], store: &StoreStatus) -> Table {
    const STATES: [&str; 6] = ["pending", "retrying", "parked", "produced", "filtered", "dead"];
    let mut names: BTreeMap<&str, Option<&PluginLook>> = store.runs.iter().map(|run| (&*run.plugin, None)).collect();
    names.extend(plugins.iter().map(|plugin| (&*plugin.name, Some(plugin))));
    let mut table =
        Table::new(&["plugin", "state", "pending", "retrying", "parked", "produced", "filtered", "dead", "p50"])
            .numbers(&[2, 3, 4, 5, 6, 7, 8]);
    for (name, look) in names {
        let count = |state: &str| {
            store.runs.iter().filter(|run| run.plugin == name && run.state == state).map(|run| run.count).sum::<u64>()
        };
        let mut row = vec![plain(name), plugin_state(look, store, name)];
        row.extend(STATES.map(|state| number(count(state), run_look(state))));
        row.push(maybe(look.and_then(|look| look.duration_p50_s).map(short)));
        table.row(row);
    }
    table
}

fn plugin_state(look: Option<&PluginLook>, store: &StoreStatus, name: &str) -> Cell {
    match look.map(|look| look.state.as_str()) {
        Some("serving") => ("serving".to_owned(), Look::Good),
        Some("last_good") => ("last good build".to_owned(), Look::Uneasy),
        Some(state @ ("paused" | "compiling")) => (state.to_owned(), Look::Uneasy),
        Some(state) => (printable(state), Look::Bad),
        None if paused_since(store, PauseKind::Plugin, name).is_some() => ("paused".to_owned(), Look::Uneasy),
        None => plain("-"),
    }
}

fn run_look(state: &str) -> Look {
    match state {
        "dead" => Look::Bad,
        "parked" | "retrying" => Look::Uneasy,
        _ => Look::Plain,
    }
}

fn of_endpoints(store: &StoreStatus, now: Timestamp) -> Table {
    let mut names: Vec<&str> = store.deliveries.iter().map(|row| &*row.endpoint).collect();
    names.dedup();
    let mut table = Table::new(&["endpoint", "backlog", "oldest due", "retrying", "delivered", "dead", "discarded"])
        .numbers(&[1, 3, 4, 5, 6]);
    for name in names {
        let count = |state| {
            let rows = store.deliveries.iter().filter(|row| row.endpoint == name && row.state == state);
            rows.map(|row| row.count).sum::<u64>()
        };
        let backlog = store.backlog.iter().find(|backlog| backlog.endpoint == name);
        table.row(vec![
            plain(name),
            plain(backlog.map_or(0, |backlog| backlog.count)),
            backlog.and_then(|backlog| backlog.oldest_due).map_or_else(|| plain("-"), |due_at| due(due_at, now)),
            number(count(DeliveryState::Retrying), Look::Uneasy),
            plain(count(DeliveryState::Delivered)),
            number(count(DeliveryState::Dead), Look::Bad),
            plain(count(DeliveryState::Discarded)),
        ]);
    }
    table
}

/// How long ago, or in how long.
fn due(due_at: Timestamp, now: Timestamp) -> Cell {
    match due_at <= now {
        true => plain(format!("{} ago", span(now.since(due_at)))),
        false => plain(format!("in {}", span(due_at.since(now)))),
    }
}

fn of_dead_letters(store: &StoreStatus) -> Table {
    let mut table = Table::new(&["dead letters", "last 24 h", "kept"]).numbers(&[1, 2]);
    for kept in &store.dead_letters {
        let lately = store.dead_letters_lately.iter().find(|lately| lately.reason == kept.reason);
        let lately = lately.map_or(0, |lately| lately.count);
        table.row(vec![plain(kept.reason), number(lately, Look::Bad), plain(kept.count)]);
    }
    table
}

/// A count that looks so where it is not 0.
fn number(count: u64, look: Look) -> Cell {
    (count.to_string(), if count > 0 { look } else { Look::Plain })
}
