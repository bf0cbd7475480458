//! What commands list and show. Every list has a bound; history is looked through newest first.

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::dead_letters::reason_at;
use super::order::BEHIND;
use super::runs::event_at;
use super::select::{self, Selection};
use super::state::{pairs_at, parse_delivery_state, parse_kind, shown_at};
use crate::clock::Timestamp;
use crate::delivery::DeliveryId;
use crate::recorded::RecordedEvent;
use crate::store::{
    AttemptDetail, DeadLetterDetail, DeadLetterFilter, DeadLetterSummary, DeliveryDetail, DeliveryFilter, DeliverySeq,
    DeliveryState, DeliverySummary, KnownPlugin,
};

/// The most rows a list has.
const LIST_MAX: u32 = 10_000;

/// Dead letters in one part of an export, by count and by the bytes of their bodies.
pub(super) const EXPORT_LETTERS_MAX: usize = 200;
pub(super) const EXPORT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Attempts shown with a delivery: more than any policy makes within a few redrives.
const ATTEMPTS_SHOWN_MAX: u32 = 1_000;

/// Of `delivery x` with its `event e`.
pub(super) const DELIVERY_COLUMNS: &str = "x.id, coalesce(e.key, ''), coalesce(e.subject, ''), x.plugin, x.endpoint,
  x.state, x.attempts, x.created_at, x.due_at, x.last_status, x.last_error, x.seq";

pub(super) fn list_limit(asked: Option<u32>) -> usize {
    asked.unwrap_or(LIST_MAX).min(LIST_MAX) as usize
}

pub(super) fn delivery_at(row: &Row<'_>) -> rusqlite::Result<DeliverySummary> {
    let state = parse_delivery_state(row.get_ref(5)?.as_str()?)?;
    let waits = matches!(state, DeliveryState::Pending | DeliveryState::Retrying);
    Ok(DeliverySummary {
        seq: DeliverySeq(row.get(11)?),
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

/// Some of a list, and the position below which it goes on; none at the end.
pub(super) struct Part<T> {
    pub(super) rows: Vec<T>,
    pub(super) next: Option<i64>,
}

/// The newest deliveries of a bounded part of the history.
pub(super) fn list_deliveries(
    connection: &Connection,
    filter: &DeliveryFilter,
    limit: usize,
) -> rusqlite::Result<Part<DeliverySummary>> {
    let selection = select::deliveries(connection, filter)?;
    let from = "delivery x LEFT JOIN event e ON e.seq = x.event_seq";
    let sql = format!("SELECT {DELIVERY_COLUMNS} FROM {from} WHERE {}", selection.conditions);
    list_part(connection, selection, &sql, "x.seq", limit, delivery_at)
}

fn list_part<T>(
    connection: &Connection,
    selection: Selection,
    select: &str,
    position: &str,
    limit: usize,
    at: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Part<T>> {
    if selection.range.is_empty() {
        return Ok(Part { rows: Vec::new(), next: None });
    }
    let (end, is_last) = selection.part(connection, true)?;
    let mut values = selection.values;
    values.extend([end, *selection.range.end(), i64::try_from(limit).unwrap_or(i64::MAX)].map(Value::from));
    let sql = format!("{select} AND {position} BETWEEN ? AND ? ORDER BY {position} DESC LIMIT ?");
    let rows: Vec<T> =
        connection.prepare_cached(&sql)?.query_map(params_from_iter(values), at)?.collect::<Result<_, _>>()?;
    Ok(Part { rows, next: Some(end).filter(|_| !is_last) })
}

pub(super) fn show_delivery(connection: &Connection, id: &DeliveryId) -> rusqlite::Result<Option<DeliveryDetail>> {
    let Some(seq) = select::delivery_named(connection, id.as_str())? else { return Ok(None) };
    let attempts_made = attempts_of(connection, seq)?;
    let sql = format!(
        "SELECT {DELIVERY_COLUMNS}, coalesce(r.plugin_digest, ''), w.content_type, w.headers, w.body
         FROM delivery x JOIN webhook w ON w.delivery_seq = x.seq LEFT JOIN event e ON e.seq = x.event_seq
           LEFT JOIN run r ON r.event_seq = x.event_seq AND r.plugin = x.plugin
         WHERE x.seq = ?1"
    );
    connection
        .query_row(&sql, [seq], |row| {
            Ok(DeliveryDetail {
                summary: delivery_at(row)?,
                plugin_digest: row.get(12)?,
                content_type: row.get(13)?,
                headers: pairs_at(row, 14)?,
                body: shown_at(row, 15)?.unwrap_or_default(),
                attempts_made,
            })
        })
        .optional()
}

fn attempts_of(connection: &Connection, delivery: i64) -> rusqlite::Result<Vec<AttemptDetail>> {
    last_attempts(connection, delivery, ATTEMPTS_SHOWN_MAX)
}

/// The last attempts of a delivery, first to last.
pub(super) fn last_attempts(
    connection: &Connection,
    delivery: i64,
    count_max: u32,
) -> rusqlite::Result<Vec<AttemptDetail>> {
    let mut select = connection.prepare_cached(
        "SELECT number, started_at, duration_us, status, error, response FROM attempt
         WHERE delivery_seq = ?1 ORDER BY number DESC LIMIT ?2",
    )?;
    let rows = select.query_map((delivery, count_max), |row| {
        Ok(AttemptDetail {
            number: row.get(0)?,
            started_at: Timestamp(row.get(1)?),
            duration_s: row.get::<_, f64>(2)? / 1e6,
            status: row.get(3)?,
            error: row.get(4)?,
            response: shown_at(row, 5)?.unwrap_or_default(),
        })
    })?;
    let mut attempts: Vec<AttemptDetail> = rows.collect::<Result<_, _>>()?;
    attempts.reverse();
    Ok(attempts)
}

const LETTER_COLUMNS: &str =
    "x.id, x.kind, x.reason, x.detail, x.died_at, x.event_key, x.subject, x.plugin, x.endpoint,
  d.id, coalesce(d.attempts, r.attempts, 0), d.last_status,
  (SELECT a.response FROM attempt a WHERE a.delivery_seq = d.seq ORDER BY a.number DESC LIMIT 1)";

/// Dead letters as `x`, with what they belong to.
const LETTERS_FROM: &str = "dead_letter x LEFT JOIN delivery d ON d.seq = x.delivery_seq
  LEFT JOIN run r ON x.kind = 'run' AND r.event_seq = x.event_seq AND r.plugin = x.plugin";

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

/// The newest dead letters of a bounded part of all.
pub(super) fn list_dead_letters(
    connection: &Connection,
    filter: &DeadLetterFilter,
    limit: usize,
) -> rusqlite::Result<Part<DeadLetterSummary>> {
    let selection = select::letters(connection, filter)?;
    let sql = format!("SELECT {LETTER_COLUMNS} FROM {LETTERS_FROM} WHERE {}", selection.conditions);
    list_part(connection, selection, &sql, "x.id", limit, letter_at)
}

/// Dead letters whole, until they are `bytes_max` together; one at least.
pub(super) fn show_dead_letters(
    connection: &Connection,
    ids: &[i64],
    bytes_max: usize,
) -> rusqlite::Result<Vec<DeadLetterDetail>> {
    let mut letters = Vec::new();
    let mut bytes = 0;
    for id in ids {
        let Some(letter) = show_dead_letter(connection, *id)? else { continue };
        bytes +=
            letter.payload.len() + letter.event.as_ref().and_then(|event| event.entity.as_ref()).map_or(0, String::len);
        letters.push(letter);
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(letters)
}

pub(super) fn show_dead_letter(connection: &Connection, id: i64) -> rusqlite::Result<Option<DeadLetterDetail>> {
    let sql = format!(
        "SELECT {LETTER_COLUMNS},
           CASE x.kind WHEN 'message' THEN x.payload
                       WHEN 'run' THEN (SELECT entity FROM event WHERE seq = x.event_seq)
                       ELSE (SELECT body FROM webhook WHERE delivery_seq = x.delivery_seq) END,
           x.event_seq, x.delivery_seq,
           (SELECT plugin_digest FROM run WHERE event_seq = x.event_seq AND plugin = x.plugin)
         FROM {LETTERS_FROM} WHERE x.id = ?1"
    );
    connection
        .prepare_cached(&sql)?
        .query_row([id], |row| {
            let delivery: Option<i64> = row.get(15)?;
            Ok(DeadLetterDetail {
                summary: letter_at(row)?,
                payload: shown_at(row, 13)?.unwrap_or_default(),
                event: event_of(connection, row.get(14)?)?,
                plugin_digest: row.get(16)?,
                attempts_made: delivery.map_or(Ok(Vec::new()), |seq| attempts_of(connection, seq))?,
            })
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
