//! What waits: the counts that are kept, and one look into an index for each endpoint.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::order::BEHIND;
use super::state::unsigned;
use crate::clock::Timestamp;
use crate::store::{EndpointBacklog, RunCount, StoreSize, Waiting};

pub(super) fn waiting(connection: &Connection, endpoints: &[Arc<str>]) -> rusqlite::Result<Waiting> {
    let runs = connection
        .prepare_cached(
            "SELECT name, state, count FROM tally
             WHERE kind = 'run' AND state IN ('pending', 'retrying', 'parked') AND count > 0",
        )?
        .query_map((), |row| Ok(RunCount { plugin: row.get(0)?, state: row.get(1)?, count: unsigned(row.get(2)?) }))?
        .collect::<Result<_, _>>()?;
    let endpoints = endpoints.iter().map(|endpoint| backlog(connection, endpoint)).collect::<Result<_, _>>()?;
    Ok(Waiting { runs, endpoints, size: StoreSize::default() })
}

/// Every endpoint for which something waits, configured or not.
pub(super) fn backlogs(connection: &Connection) -> rusqlite::Result<Vec<EndpointBacklog>> {
    let names: Vec<String> = connection
        .prepare_cached(
            "SELECT DISTINCT name FROM tally
             WHERE kind = 'delivery' AND state IN ('pending', 'retrying') AND count > 0 ORDER BY name",
        )?
        .query_map((), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    names.iter().map(|name| backlog(connection, name)).collect()
}

fn backlog(connection: &Connection, endpoint: &str) -> rusqlite::Result<EndpointBacklog> {
    let count = connection
        .prepare_cached(
            "SELECT coalesce(sum(count), 0) FROM tally
             WHERE kind = 'delivery' AND name = ?1 AND state IN ('pending', 'retrying')",
        )?
        .query_row([endpoint], |row| row.get(0))?;
    // What a host holds in memory is not in this index; the host knows it. What something precedes is due at no time.
    let oldest_due = connection
        .prepare_cached(
            "SELECT due_at FROM delivery INDEXED BY delivery_claimable
             WHERE endpoint = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying') AND due_at < ?2
             ORDER BY due_at LIMIT 1",
        )?
        .query_row((endpoint, BEHIND), |row| row.get(0))
        .optional()?;
    Ok(EndpointBacklog { endpoint: endpoint.to_owned(), count: unsigned(count), oldest_due: oldest_due.map(Timestamp) })
}
