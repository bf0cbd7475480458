//! The states of endpoints, how they fare, and what waits for them.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::claims::Release;
use super::group::Group;
use super::order::BEHIND;
use super::state::{parse_endpoint_state, unsigned};
use super::writer::Outcome;
use crate::clock::Timestamp;
use crate::store::{
    DeliverySeq, EndpointChange, EndpointChanged, EndpointHealth, EndpointRecord, EndpointState, EndpointSummary,
};

const COLUMNS: &str = "name, state, since, reason, failing_ms, last_success_at, last_failure_at";

impl Outcome for EndpointChanged {
    fn unwanted(self) -> Release {
        Release::default()
    }
}

impl Outcome for Vec<EndpointRecord> {
    fn unwanted(self) -> Release {
        Release::default()
    }
}

impl Group<'_> {
    /// Endpoints that are new begin as active; what is known of others stays.
    pub(super) fn enter_endpoints(
        &mut self,
        names: &[Arc<str>],
        now: Timestamp,
    ) -> rusqlite::Result<Vec<EndpointRecord>> {
        let mut insert = self.cached(
            "INSERT INTO endpoint_state (name, state, since, reason) VALUES (?1, ?2, ?3, 'new in the settings')
             ON CONFLICT DO NOTHING",
        )?;
        for name in names {
            insert.execute((name, EndpointState::Active.as_str(), now.0))?;
        }
        records(self.connection())
    }

    pub(super) fn change_endpoint(
        &mut self,
        change: &EndpointChange,
        now: Timestamp,
    ) -> rusqlite::Result<EndpointChanged> {
        let Some(record) = record(self.connection(), &change.name)? else {
            let known = records(self.connection())?.into_iter().map(|record| record.name).collect();
            return Ok(EndpointChanged::Unknown { known });
        };
        let state = match change.verb.apply(record.state) {
            Err(meant) => return Ok(EndpointChanged::Refused { record, meant }),
            Ok(state) if state == record.state => return Ok(EndpointChanged::Already(record)),
            Ok(state) => state,
        };
        // One that is enabled begins anew: its failures until here are forgiven.
        self.cached(
            "UPDATE endpoint_state SET state = ?2, since = ?3, reason = ?4,
               failing_ms = CASE WHEN state = 'disabled' THEN 0 ELSE failing_ms END
             WHERE name = ?1",
        )?
        .execute((&change.name, state.as_str(), now.0, &change.reason))?;
        record_or_unknown(self.connection(), &change.name)
    }

    pub(super) fn keep_endpoint_health(&mut self, healths: &[(Arc<str>, EndpointHealth)]) -> rusqlite::Result<()> {
        let mut update = self.cached(
            "UPDATE endpoint_state SET failing_ms = ?2, last_success_at = ?3, last_failure_at = ?4 WHERE name = ?1",
        )?;
        for (name, health) in healths {
            let failing_ms = i64::try_from(health.failing_for.as_millis()).unwrap_or(i64::MAX);
            let at = |moment: Option<Timestamp>| moment.map(|moment| moment.0);
            update.execute(params![name, failing_ms, at(health.last_success_at), at(health.last_failure_at)])?;
        }
        Ok(())
    }
}

fn record_or_unknown(connection: &Connection, name: &str) -> rusqlite::Result<EndpointChanged> {
    Ok(record(connection, name)?.map_or(EndpointChanged::Unknown { known: Vec::new() }, EndpointChanged::Done))
}

fn record(connection: &Connection, name: &str) -> rusqlite::Result<Option<EndpointRecord>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM endpoint_state WHERE name = ?1"))?
        .query_row([name], record_at)
        .optional()
}

pub(super) fn records(connection: &Connection) -> rusqlite::Result<Vec<EndpointRecord>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM endpoint_state ORDER BY name"))?
        .query_map((), record_at)?
        .collect()
}

fn record_at(row: &Row<'_>) -> rusqlite::Result<EndpointRecord> {
    let failing_ms = unsigned(row.get(4)?);
    Ok(EndpointRecord {
        name: row.get(0)?,
        state: parse_endpoint_state(row.get_ref(1)?.as_str()?)?,
        since: Timestamp(row.get(2)?),
        reason: row.get(3)?,
        health: EndpointHealth {
            failing_for: Duration::from_millis(failing_ms),
            last_success_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
            last_failure_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        },
    })
}

/// Every endpoint that is known, or that something waits for. `held` are deliveries that hosts hold in memory, which the index of
/// unclaimed work does not have.
pub(super) fn summaries(
    connection: &Connection,
    held: &[(Arc<str>, DeliverySeq)],
    now: Timestamp,
) -> rusqlite::Result<Vec<EndpointSummary>> {
    let mut summaries: Vec<EndpointSummary> = records(connection)?
        .into_iter()
        .map(|record| EndpointSummary { record, backlog: 0, oldest_due_at: None })
        .collect();
    let mut select = connection.prepare_cached(
        "SELECT name, sum(count) FROM tally WHERE kind = 'delivery' AND state IN ('pending', 'retrying')
         GROUP BY name HAVING sum(count) > 0",
    )?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        let (name, backlog) = (row.get::<_, String>(0)?, unsigned(row.get(1)?));
        match summaries.iter_mut().find(|summary| summary.record.name == name) {
            Some(summary) => summary.backlog = backlog,
            None => summaries.push(EndpointSummary { record: strange(name, now), backlog, oldest_due_at: None }),
        }
    }
    for summary in &mut summaries {
        summary.oldest_due_at = oldest_due(connection, &summary.record.name, held)?;
    }
    summaries.sort_by(|left, right| left.record.name.cmp(&right.record.name));
    Ok(summaries)
}

/// What waits for an endpoint that no host ever had in its settings since their states are kept.
fn strange(name: String, now: Timestamp) -> EndpointRecord {
    let (state, health) = (EndpointState::Active, EndpointHealth::default());
    EndpointRecord { name, state, since: now, reason: "never in the settings".to_owned(), health }
}

fn oldest_due(
    connection: &Connection,
    endpoint: &str,
    held: &[(Arc<str>, DeliverySeq)],
) -> rusqlite::Result<Option<Timestamp>> {
    let unclaimed: Option<i64> = connection
        .prepare_cached(
            "SELECT due_at FROM delivery INDEXED BY delivery_claimable
             WHERE endpoint = ?1 AND claimed_by IS NULL AND state IN ('pending', 'retrying') AND due_at < ?2
             ORDER BY due_at LIMIT 1",
        )?
        .query_row((endpoint, BEHIND), |row| row.get(0))
        .optional()?;
    let mut oldest = unclaimed;
    let mut due =
        connection.prepare_cached("SELECT due_at FROM delivery WHERE seq = ?1 AND state IN ('pending', 'retrying')")?;
    for (_, seq) in held.iter().filter(|(name, _)| **name == *endpoint) {
        let due_at: Option<i64> = due.query_row([seq.0], |row| row.get(0)).optional()?;
        oldest = match (oldest, due_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    Ok(oldest.map(Timestamp))
}
