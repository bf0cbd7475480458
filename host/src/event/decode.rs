//! The one decoder: the four formats that FraiseQL publishes, CloudEvents, and any other JSON become an [`Event`].
//!
//! Large bodies are not copied: `entity` and `previous` are slices of the message's payload, unless they are small, or
//! would keep a payload in memory that is much larger than they are.

mod format;
pub mod cloudevents;
pub mod batch;
mod fields;
mod kind;
mod identity;
mod digest;
mod attributes;
mod trace;
mod members;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use self::attributes::attributes;
pub use self::attributes::{ATTRIBUTE_BYTES_MAX, HEADER_ATTRIBUTES_BYTES_MAX, HEADER_ATTRIBUTES_MAX};
pub use self::digest::body_digest;
use self::digest::change_digest;
pub use self::fields::Fields;
use self::format::Reading;
pub use self::format::{ENTITY_TYPE_BYTES_MAX, TEXT_BYTES_MAX};
pub use self::identity::{KEY_VALUE_BYTES_MAX, fallback_key};
use self::members::Members;
use crate::encoding::{self, NotText};
use crate::event::{Event, EventKey, Message};

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
    /// CloudEvents 1.0, in JSON or with its attributes in headers.
    CloudEvents,
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
            Self::CloudEvents => "cloudevents",
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
    /// The content type is that of CloudEvents in JSON, and the body is another JSON than an object.
    #[error("the content type says that the body is a CloudEvent, but it is no JSON object")]
    NotCloudEvent,
    /// What the source's `id_field`, `type_field` or the like names can't be that.
    #[error("the source's {setting} `{field}` {problem}")]
    Field {
        /// The setting.
        setting: &'static str,
        /// Its value.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

/// Decodes one message of `source`, whose settings name `fields`. `once` yields a value that no other message has, and is
/// called only for a message without any identity.
///
/// # Errors
///
/// When the body is not JSON, or is in a recognised format and lacks what that needs, or a text of the event is longer
/// than [`TEXT_BYTES_MAX`].
pub fn decode(
    source: &Arc<str>,
    message: &Message,
    fields: &Fields,
    once: impl FnOnce() -> String,
) -> Result<Event, Undecodable> {
    if message.subject.len() > TEXT_BYTES_MAX {
        return Err(Undecodable::LongSubject(message.subject.len()));
    }
    let Parsed { mut reading, identity } = Parsed::of(message, fields)?;
    let key = match identity {
        Some((kind, value)) => EventKey::new(source, kind, value),
        None => fallback_key(source, message, once),
    };
    let subject = reading.subject.take().unwrap_or_else(|| literal_subject(&message.subject));
    let attributes = attributes(source, message, &subject, &mut reading);
    let body_digest = match reading.seq.is_some() || reading.id.is_some() {
        true => change_digest(&reading),
        false => body_digest(&message.payload),
    };
    let kept = reading.content_bytes();
    let slice = |json: &str| part(&message.payload, json, kept);
    Ok(Event {
        key,
        source: Arc::clone(source),
        subject,
        entity_type: reading.entity_type,
        operation: reading.operation.to_owned(),
        entity_id: reading.entity_id.map(Into::into),
        tenant_id: reading.tenant_id.map(Into::into),
        timestamp: reading.timestamp.map(Into::into),
        entity: reading.entity.map(|json| match json {
            Cow::Borrowed(json) => slice(json),
            Cow::Owned(json) => Bytes::from(json),
        }),
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
pub fn check(message: &Message, fields: &Fields) -> Result<(), Undecodable> {
    Parsed::of(message, fields).map(drop)
}

/// What a message says, and which event it says it is.
struct Parsed<'a> {
    reading: Reading<'a>,
    identity: Option<(&'static str, String)>,
}

impl<'a> Parsed<'a> {
    fn of(message: &'a Message, fields: &Fields) -> Result<Self, Undecodable> {
        if cloudevents::is_binary(&message.headers) {
            return Self::by(cloudevents::binary(message, fields.tenant())?, "", fields);
        }
        let text = text(&message.payload)?;
        if cloudevents::is_structured(&message.headers) {
            return Self::by(cloudevents::structured(text, fields.tenant())?, text, fields);
        }
        let members = Members::read(text).map_err(|error| Undecodable::NotJson(error.to_string()))?;
        let reading = match Reading::of(&members)? {
            Some(reading) => reading,
            None if cloudevents::is_one(&members) => cloudevents::structured(text, fields.tenant())?,
            None => fields.read(text)?,
        };
        Self::by(reading, text, fields)
    }

    fn by(reading: Reading<'a>, text: &str, fields: &Fields) -> Result<Self, Undecodable> {
        let identity = identity::own_identity(text, &reading, fields.id())?;
        Ok(Self { reading, identity })
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

#[cfg(test)]
mod tests;
