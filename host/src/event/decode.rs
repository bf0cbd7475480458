//! The one decoder: the four formats that FraiseQL publishes, and any other JSON, become an [`Event`].
//!
//! Large bodies are not copied: `entity` and `previous` are slices of the message's payload, unless they are small, or
//! would keep a payload in memory that is much larger than they are.

mod format;
mod identity;
mod digest;
mod members;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use self::digest::body_digest;
use self::digest::change_digest;
pub use self::format::{ENTITY_TYPE_BYTES_MAX, TEXT_BYTES_MAX};
use self::format::{Origin, Reading};
pub use self::identity::{KEY_VALUE_BYTES_MAX, fallback_key};
use self::members::{Member, Members, string};
use crate::encoding::{self, NotText};
use crate::event::{Event, EventKey, Message};

/// Most headers that become attributes; the rest is left out.
pub const HEADER_ATTRIBUTES_MAX: usize = 32;
/// Most bytes of headers, names and values, that become attributes; what would pass it is left out.
pub const HEADER_ATTRIBUTES_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of any other attribute that a body gives; a longer one is left out.
pub const ATTRIBUTE_BYTES_MAX: usize = 512;

/// Headers whose values may be secrets, which no plugin sees.
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// What a message is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// As FraiseQL's page describes it: `event`, `entity_type`, `operation`.
    Page,
    /// FraiseQL's `EntityEvent`: `event_type`, `entity_type`, `entity_id`.
    EntityEvent,
    /// FraiseQL's `ChangeEvent`: `object_type`, `op`, `seq`.
    ChangeEvent,
    /// A row of `core.tb_entity_change_log`: `object_type`, `modification_type`.
    Outbox,
    /// Any other JSON.
    Json,
}

impl Format {
    /// The value of the attribute `format`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::EntityEvent => "entity_event",
            Self::ChangeEvent => "change_event",
            Self::Outbox => "outbox",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a message is no event. Trying again can't help; the publisher has to mend it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Undecodable {
    /// No bytes.
    #[error("the body is empty; an event is JSON")]
    Empty,
    /// Not text.
    #[error("the body is not JSON: it {0}")]
    NotText(NotText),
    /// Text, but not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// A member that the format needs is absent or null.
    #[error("the body is in the format `{format}`, but its `{member}` is missing")]
    Missing {
        /// The format, by its other members.
        format: Format,
        /// The member's name.
        member: &'static str,
    },
    /// A member has a value that the format doesn't know.
    #[error("the body is in the format `{format}`, but its `{member}` {problem}")]
    Invalid {
        /// The format, by its other members.
        format: Format,
        /// The member's name.
        member: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A member appears twice.
    #[error("the body is in the format `{format}`, but its `{member}` appears more than once")]
    Twice {
        /// The format.
        format: Format,
        /// The member's name.
        member: &'static str,
    },
    /// The bus's subject, channel or stream has a longer name than an event may carry; its length in bytes.
    #[error("its subject has {0} bytes; the limit is {TEXT_BYTES_MAX}: publish it under a shorter one")]
    LongSubject(usize),
    /// What the source's `id_field` names can't be an id.
    #[error("the source's id_field `{field}` {problem}")]
    IdField {
        /// The setting.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

/// Decodes one message of `source`. `id_field` is a top-level member or a JSON pointer; `once` yields a value that no
/// other message has, and is called only for a message without any identity.
///
/// # Errors
///
/// When the body is not JSON, or is in a recognised format and lacks what that needs, or a text of the event is longer
/// than [`TEXT_BYTES_MAX`].
pub fn decode(
    source: &Arc<str>,
    message: &Message,
    id_field: Option<&str>,
    once: impl FnOnce() -> String,
) -> Result<Event, Undecodable> {
    if message.subject.len() > TEXT_BYTES_MAX {
        return Err(Undecodable::LongSubject(message.subject.len()));
    }
    let text = text(&message.payload)?;
    let parsed = Parsed::of(text, id_field)?;
    let key = match &parsed.identity {
        Some((kind, value)) => EventKey::new(source, kind, value),
        None => fallback_key(source, message, once),
    };
    let attributes = attributes(source, message, &parsed);
    let kept = parsed.reading.as_ref().map_or(text.len(), Reading::content_bytes);
    let slice = |json: &str| part(&message.payload, json, kept);
    let body_digest = match &parsed.reading {
        Some(reading) if reading.seq.is_some() || reading.id.is_some() => change_digest(reading),
        _ => body_digest(&message.payload),
    };
    let Some(reading) = parsed.reading else {
        return Ok(Event {
            key,
            source: Arc::clone(source),
            subject: literal_subject(&message.subject),
            entity_type: String::new(),
            operation: "custom".to_owned(),
            entity_id: None,
            tenant_id: None,
            timestamp: None,
            entity: Some(slice(text.trim_ascii())),
            previous: None,
            attributes,
            body_digest,
        });
    };
    Ok(Event {
        key,
        source: Arc::clone(source),
        subject: format!("fraiseql.{}.{}", reading.entity_type, reading.operation),
        entity_type: reading.entity_type,
        operation: reading.operation.to_owned(),
        entity_id: reading.entity_id.map(Into::into),
        tenant_id: reading.tenant_id.map(Into::into),
        timestamp: reading.timestamp.map(Into::into),
        entity: reading.entity.map(|json| slice(json.get())),
        previous: reading.previous.map(|json| slice(json.get())),
        attributes,
        body_digest,
    })
}

/// A part of a payload of which `kept` bytes are kept in all: by itself where it is small, or most of the payload is not
/// kept. What it weighs is what it holds in memory, then; a bus's client may have put many messages into one buffer.
fn part(payload: &Bytes, json: &str, kept: usize) -> Bytes {
    if kept < SLICED_BYTES_MIN || kept < payload.len() / 2 {
        return Bytes::copy_from_slice(json.as_bytes());
    }
    payload.slice_ref(json.as_bytes())
}

/// Content of fewer bytes is copied.
const SLICED_BYTES_MIN: usize = 16 * 1024;

/// Whether [`decode`] would succeed, the subject apart, at less cost: for sources that can refuse a message at once.
///
/// # Errors
///
/// As [`decode`].
pub fn check(payload: &Bytes, id_field: Option<&str>) -> Result<(), Undecodable> {
    Parsed::of(text(payload)?, id_field).map(drop)
}

/// A body that is JSON and, where its format is recognised, complete.
struct Parsed<'a> {
    members: Members<'a>,
    reading: Option<Reading<'a>>,
    identity: Option<(&'static str, String)>,
}

impl<'a> Parsed<'a> {
    fn of(text: &'a str, id_field: Option<&str>) -> Result<Self, Undecodable> {
        let members = Members::read(text).map_err(|error| Undecodable::NotJson(error.to_string()))?;
        let reading = Reading::of(&members)?;
        let identity = identity::own_identity(text, reading.as_ref(), id_field)?;
        Ok(Self { members, reading, identity })
    }
}

fn text(payload: &Bytes) -> Result<&str, Undecodable> {
    let text = encoding::text(payload).map_err(Undecodable::NotText)?;
    if text.trim_ascii().is_empty() { Err(Undecodable::Empty) } else { Ok(text) }
}

/// The bus's own subject as one that patterns can meet: what would be a wildcard, a space or a control character there
/// becomes `_`, and no token is empty.
pub fn literal_subject(subject: &str) -> String {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    if !subject.contains(odd) && subject.split('.').all(|token| !token.is_empty()) {
        return subject.to_owned();
    }
    let tokens =
        subject.split('.').map(|token| if token.is_empty() { "_".to_owned() } else { token.replace(odd, "_") });
    tokens.collect::<Vec<_>>().join(".")
}

fn attributes(source: &str, message: &Message, parsed: &Parsed<'_>) -> Vec<(String, String)> {
    let format = parsed.reading.as_ref().map_or(Format::Json, |reading| reading.format);
    let mut attributes = Vec::with_capacity(6 + message.headers.len().min(HEADER_ATTRIBUTES_MAX));
    let mut add = |name: &str, value: &str| attributes.push((name.to_owned(), value.to_owned()));
    add("source", source);
    add("format", format.as_str());
    add("raw_subject", &message.subject);
    let mut body_traceparent = None;
    if let Some(reading) = &parsed.reading {
        if let Some(seq) = &reading.seq {
            add("seq", seq);
        }
        let Origin { user_id, actor_type, acting_for, trace_id } = &reading.origin;
        let actor = [user_id, actor_type].into_iter().find(|it| it.as_ref().is_some_and(|actor| !actor.is_empty()));
        let texts = [
            ("actor", actor.unwrap_or(&None)),
            (Member::ActorType.name(), actor_type),
            (Member::ActingFor.name(), acting_for),
            (Member::TraceId.name(), trace_id),
        ];
        for (name, value) in texts {
            if let Some(value) =
                value.as_deref().filter(|value| !value.is_empty() && value.len() <= ATTRIBUTE_BYTES_MAX)
            {
                add(name, value);
            }
        }
        body_traceparent = parsed.members.json(Member::TraceContext).and_then(traceparent_of);
    }
    let header = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let header = header.map(|(_, value)| value.clone()).filter(|value| is_traceparent(value));
    if let Some(traceparent) = body_traceparent.or(header) {
        add("traceparent", &traceparent);
    }
    header_attributes(&message.headers, &mut attributes);
    attributes
}

fn header_attributes(headers: &[(String, String)], attributes: &mut Vec<(String, String)>) {
    let mut bytes_left = HEADER_ATTRIBUTES_BYTES_MAX;
    let open =
        headers.iter().filter(|(name, _)| !SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret)));
    for (name, value) in open.take(HEADER_ATTRIBUTES_MAX) {
        if let Some(left) = bytes_left.checked_sub(name.len() + value.len()) {
            bytes_left = left;
            attributes.push((format!("header.{}", name.to_ascii_lowercase()), value.clone()));
        }
    }
}

/// `trace_context` is the traceparent itself, or an object that has it.
fn traceparent_of(trace_context: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Carrier {
        traceparent: String,
    }
    let traceparent = match string(trace_context) {
        Some(text) => text.into_owned(),
        // An array would fill the struct by position.
        None if !trace_context.get().starts_with('{') => return None,
        None => serde_json::from_str::<Carrier>(trace_context.get()).ok()?.traceparent,
    };
    is_traceparent(&traceparent).then_some(traceparent)
}

/// W3C Trace Context, version 00: `00-{32 hex}-{16 hex}-{2 hex}`.
fn is_traceparent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    let sound = lengths.iter().all(|length| parts.next().is_some_and(|part| part.len() == *length && hex(part)));
    sound && parts.next().is_none() && !text.starts_with("ff")
}

#[cfg(test)]
mod tests;
