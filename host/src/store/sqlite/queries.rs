//! What commands list and show. Every list has a bound; history is looked through newest first.

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::dead_letters::{conditions, reason_at};
use super::order::BEHIND;
use super::runs::event_at;
use super::state::{pairs_at, parse_delivery_state, parse_kind, shown_at};
use crate::clock::Timestamp;
use crate::delivery::DeliveryId;
use crate::recorded::RecordedEvent;
use crate::store::{
    AttemptDetail, DeadLetterDetail, DeadLetterFilter, DeadLetterSummary, DeliveryDetail, DeliveryFilter,
    DeliveryState, DeliverySummary, KnownPlugin,
};

/// The most rows a list has.
const LIST_MAX: u32 = 10_000;

/// Attempts shown with a delivery: more than any policy makes within a few redrives.
const ATTEMPTS_SHOWN_MAX: u32 = 1_000;

const DELIVERY_COLUMNS: &str = "d.id, coalesce(e.key, ''), coalesce(e.subject, ''), d.plugin, d.endpoint, d.state,
  d.attempts, d.created_at, d.due_at, d.last_status, d.last_error";

fn limit(asked: Option<u32>) -> Value {
    Value::from(asked.unwrap_or(LIST_MAX).min(LIST_MAX))
}

fn delivery_at(row: &Row<'_>) -> rusqlite::Result<DeliverySummary> {
    let state = parse_delivery_state(row.get_ref(5)?.as_str()?)?;
    let waits = matches!(state, DeliveryState::Pending | DeliveryState::Retrying);
    Ok(DeliverySummary {
        id: DeliveryId::from_stored(row.get::<_, String>(0)?),
        event_key: row.get(1)?,
        subject: row.get(2)?,
        plugin: row.get(3)?,
        endpoint: row.get(4)?,
        state,
        attempts: row.get(6)?,
        created_at: Timestamp(row.get(7)?),
        due_at: Some(Timestamp(row.get(8)?)).filter(|due_at| waits && due_at.0 != BEHIND),
        last_status: row.get(9)?,
        last_error: row.get(10)?,
    })
}

pub(super) fn list_deliveries(
    connection: &Connection,
    filter: &DeliveryFilter,
) -> rusqlite::Result<Vec<DeliverySummary>> {
    let mut sql = format!("SELECT {DELIVERY_COLUMNS} FROM delivery d LEFT JOIN event e ON e.seq = d.event_seq WHERE 1");
    let mut values: Vec<Value> = Vec::new();
    let equal = [
        ("endpoint", filter.endpoint.clone()),
        ("plugin", filter.plugin.clone()),
        ("state", filter.state.map(|state| state.as_str().to_owned())),
    ];
    for (column, value) in equal {
        if let Some(value) = value {
            sql.push_str(&format!(" AND d.{column} = ?"));
            values.push(value.into());
        }
    }
    sql.push_str(" ORDER BY d.seq DESC LIMIT ?");
    values.push(limit(filter.limit));
    connection.prepare(&sql)?.query_map(params_from_iter(values), delivery_at)?.collect()
}

/// Where the delivery `id` is: the newest of that id. Looks through the narrow rows of `delivery`, newest first, since
/// an index of random ids would cost every delivery more than everything else that is written for it.
fn find_delivery(connection: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .query_row("SELECT seq FROM delivery WHERE id = ?1 ORDER BY seq DESC LIMIT 1", [id], |row| row.get(0))
        .optional()
}

pub(super) fn show_delivery(connection: &Connection, id: &DeliveryId) -> rusqlite::Result<Option<DeliveryDetail>> {
    let Some(seq) = find_delivery(connection, id.as_str())? else { return Ok(None) };
    let attempts_made = attempts_of(connection, seq)?;
    let sql = format!(
        "SELECT {DELIVERY_COLUMNS}, coalesce(r.plugin_digest, ''), w.content_type, w.headers, w.body
         FROM delivery d JOIN webhook w ON w.delivery_seq = d.seq LEFT JOIN event e ON e.seq = d.event_seq
           LEFT JOIN run r ON r.event_seq = d.event_seq AND r.plugin = d.plugin
         WHERE d.seq = ?1"
    );
    connection
        .query_row(&sql, [seq], |row| {
            Ok(DeliveryDetail {
                summary: delivery_at(row)?,
                plugin_digest: row.get(11)?,
                content_type: row.get(12)?,
                headers: pairs_at(row, 13)?,
                body: shown_at(row, 14)?.unwrap_or_default(),
                attempts_made,
            })
        })
        .optional()
}

fn attempts_of(connection: &Connection, delivery: i64) -> rusqlite::Result<Vec<AttemptDetail>> {
    connection
        .prepare(
            "SELECT number, started_at, duration_us, status, error, response FROM attempt
             WHERE delivery_seq = ?1 ORDER BY number LIMIT ?2",
        )?
        .query_map((delivery, ATTEMPTS_SHOWN_MAX), |row| {
            Ok(AttemptDetail {
                number: row.get(0)?,
                started_at: Timestamp(row.get(1)?),
                duration_s: row.get::<_, f64>(2)? / 1e6,
                status: row.get(3)?,
                error: row.get(4)?,
                response: shown_at(row, 5)?.unwrap_or_default(),
            })
        })?
        .collect()
}

const LETTER_COLUMNS: &str =
    "l.id, l.kind, l.reason, l.detail, l.died_at, l.event_key, l.subject, l.plugin, l.endpoint,
  d.id, coalesce(d.attempts, r.attempts, 0), d.last_status,
  (SELECT a.response FROM attempt a WHERE a.delivery_seq = d.seq ORDER BY a.number DESC LIMIT 1)";

/// `l` is what to take dead letters from.
fn letters_from(letters: &str) -> String {
    format!(
        "{letters} l LEFT JOIN delivery d ON d.seq = l.delivery_seq
         LEFT JOIN run r ON l.kind = 'run' AND r.event_seq = l.event_seq AND r.plugin = l.plugin"
    )
}

fn letter_at(row: &Row<'_>) -> rusqlite::Result<DeadLetterSummary> {
    Ok(DeadLetterSummary {
        id: row.get(0)?,
        kind: parse_kind(row.get_ref(1)?.as_str()?)?,
        reason: reason_at(row, 2)?,
        detail: row.get(3)?,
        died_at: Timestamp(row.get(4)?),
        event_key: row.get(5)?,
        subject: row.get(6)?,
        plugin: row.get(7)?,
        endpoint: row.get(8)?,
        delivery_id: row.get::<_, Option<String>>(9)?.map(DeliveryId::from_stored),
        attempts: row.get(10)?,
        last_status: row.get(11)?,
        last_response: shown_at(row, 12)?,
    })
}

pub(super) fn list_dead_letters(
    connection: &Connection,
    filter: &DeadLetterFilter,
) -> rusqlite::Result<Vec<DeadLetterSummary>> {
    let (conditions, mut values) = conditions(filter);
    values.push(limit(filter.limit));
    let from = letters_from(&format!("(SELECT * FROM dead_letter WHERE {conditions} ORDER BY id DESC LIMIT ?)"));
    let sql = format!("SELECT {LETTER_COLUMNS} FROM {from} ORDER BY l.id DESC");
    connection.prepare(&sql)?.query_map(params_from_iter(values), letter_at)?.collect()
}

pub(super) fn show_dead_letter(connection: &Connection, id: i64) -> rusqlite::Result<Option<DeadLetterDetail>> {
    let from = letters_from("dead_letter");
    let sql = format!(
        "SELECT {LETTER_COLUMNS},
           CASE l.kind WHEN 'message' THEN l.payload
                       WHEN 'run' THEN (SELECT entity FROM event WHERE seq = l.event_seq)
                       ELSE (SELECT body FROM webhook WHERE delivery_seq = l.delivery_seq) END,
           l.event_seq
         FROM {from} WHERE l.id = ?1"
    );
    connection
        .query_row(&sql, [id], |row| {
            let payload = shown_at(row, 13)?.unwrap_or_default();
            let event = event_of(connection, row.get(14)?)?;
            Ok(DeadLetterDetail { summary: letter_at(row)?, payload, event })
        })
        .optional()
}

/// The event that a dead letter is about; none of a message.
fn event_of(connection: &Connection, seq: Option<i64>) -> rusqlite::Result<Option<RecordedEvent>> {
    let Some(seq) = seq else { return Ok(None) };
    let sql = "SELECT seq, run_count, key, source, subject, entity_type, operation, entity_id, tenant_id, timestamp,
                 body_digest, attributes, entity, previous
               FROM event WHERE seq = ?1";
    connection.query_row(sql, [seq], |row| Ok(RecordedEvent::from(&event_at(row)?))).optional()
}

pub(super) fn cursor(connection: &Connection, source: &str) -> rusqlite::Result<Option<Bytes>> {
    let value: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM source_cursor WHERE source = ?1")?
        .query_row([source], |row| row.get(0))
        .optional()?;
    Ok(value.map(Bytes::from))
}

pub(super) fn known_plugins(connection: &Connection) -> rusqlite::Result<Vec<KnownPlugin>> {
    connection
        .prepare("SELECT name, subjects, digest FROM plugin ORDER BY name")?
        .query_map((), |row| {
            let subjects = serde_json::from_str(row.get_ref(1)?.as_str()?).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
            })?;
            Ok(KnownPlugin { name: row.get(0)?, subjects, digest: row.get(2)? })
        })?
        .collect()
}
