//! The words of the schema's text columns, and how values are put into and taken out of it.

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::{ToSqlOutput, Type, ValueRef};

use crate::store::{DeadLetterKind, DeliveryState, EndpointState};

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RunState {
    Pending,
    Retrying,
    Parked,
    Produced,
    Filtered,
    Dead,
    Discarded,
}

impl RunState {
    pub(super) const ALL: [Self; 7] =
        [Self::Pending, Self::Retrying, Self::Parked, Self::Produced, Self::Filtered, Self::Dead, Self::Discarded];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Produced => "produced",
            Self::Filtered => "filtered",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }

    /// Whether it counts as its plugin's backlog: it has not ended.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Retrying | Self::Parked)
    }

    pub(super) fn parse(name: &str) -> rusqlite::Result<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| unknown("run state", name))
    }
}

pub(super) fn parse_delivery_state(name: &str) -> rusqlite::Result<DeliveryState> {
    DeliveryState::ALL
        .iter()
        .copied()
        .find(|state| state.as_str() == name)
        .ok_or_else(|| unknown("delivery state", name))
}

pub(super) fn parse_kind(name: &str) -> rusqlite::Result<DeadLetterKind> {
    DeadLetterKind::ALL
        .iter()
        .copied()
        .find(|kind| kind.as_str() == name)
        .ok_or_else(|| unknown("dead letter kind", name))
}

pub(super) fn parse_endpoint_state(name: &str) -> rusqlite::Result<EndpointState> {
    EndpointState::ALL
        .iter()
        .copied()
        .find(|state| state.as_str() == name)
        .ok_or_else(|| unknown("endpoint state", name))
}

/// A word that this program does not know: somebody else wrote the row.
pub(super) fn unknown(what: &str, name: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("unknown {what} `{name}`").into())
}

/// Bytes as text where they are UTF-8, which an operator can read, else as a blob.
pub(super) fn readable(bytes: &[u8]) -> ToSqlOutput<'_> {
    let value = if std::str::from_utf8(bytes).is_ok() { ValueRef::Text(bytes) } else { ValueRef::Blob(bytes) };
    ToSqlOutput::Borrowed(value)
}

/// The bytes of a column written by [`readable`]; `None` for null.
pub(super) fn bytes_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Bytes>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        value => Some(Bytes::copy_from_slice(value.as_bytes()?)),
    })
}

/// The bytes of a column as a command shows them: text where UTF-8, else hex after `hex:`.
pub(super) fn shown_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        value => Some(shown(value.as_bytes()?)),
    })
}

pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("hex:{}", hex::encode(bytes)),
    }
}

/// Pairs as a JSON array of `[name, value]`: their order and repetitions are kept.
pub(super) fn pairs_to_json(pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return "[]".to_owned();
    }
    serde_json::to_string(pairs).unwrap_or_else(|_| "[]".to_owned())
}

pub(super) fn pairs_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<(String, String)>> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A duration in whole microseconds, for storage.
pub(super) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A count from SQLite, which has no unsigned integers.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
