//! What makes two messages the same event.
//!
//! In this order: `(type, seq)`; the id of a recognised format; the member that `id_field` names; the header
//! `Nats-Msg-Id`, then `Idempotency-Key`; the bus's position; else the message is an event of its own. `id_field` stands
//! before the headers because the operator has said what names an event, and the headers are whatever a publisher's
//! library sets. Never from the content alone.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::Undecodable;
use super::format::{HAS_NUL, NOT_SCALAR, Reading, scalar};
use crate::event::{EventKey, Message};

/// Longest value kept in a key as it is, in bytes; a longer one is replaced by its hash.
pub const KEY_VALUE_BYTES_MAX: usize = 256;

/// What the hash of a value begins with.
const HASHED: &str = "sha256-";

/// Headers that carry an identity, in lower case, the stronger first.
const IDENTITY_HEADERS: [&str; 2] = ["nats-msg-id", "idempotency-key"];

/// The key of a message whose body says nothing about its identity, or can't be read: header, position, else `once`.
pub fn fallback_key(source: &str, message: &Message, once: impl FnOnce() -> String) -> EventKey {
    for name in IDENTITY_HEADERS {
        let header =
            message.headers.iter().find(|(header, value)| header.eq_ignore_ascii_case(name) && !value.is_empty());
        if let Some((_, value)) = header {
            return EventKey::new(source, "msg-id", bounded(value));
        }
    }
    match &message.position {
        Some(position) => EventKey::new(source, "position", position),
        None => EventKey::new(source, "once", once()),
    }
}

/// The identity that the body carries: its kind and value.
pub(super) fn own_identity(
    text: &str,
    reading: Option<&Reading<'_>>,
    id_field: Option<&str>,
) -> Result<Option<(&'static str, String)>, Undecodable> {
    if let Some(reading) = reading {
        if let Some(seq) = &reading.seq {
            return Ok(Some(("seq", format!("{}:{seq}", bounded(&reading.raw_type)))));
        }
        if let Some(id) = &reading.id {
            return Ok(Some(("id", bounded(id).into_owned())));
        }
    }
    let Some(field) = id_field else { return Ok(None) };
    Ok(field_value(text, field)?.map(|id| ("id", id)))
}

/// What `field` names in `text`; `None` where it is absent, null or an empty string.
fn field_value(text: &str, field: &str) -> Result<Option<String>, Undecodable> {
    let mut found: &RawValue = match serde_json::from_str(text) {
        Ok(json) => json,
        Err(error) => return Err(Undecodable::NotJson(error.to_string())),
    };
    let path: Vec<_> = match field.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(unescape).collect(),
        None => vec![Cow::Borrowed(field)],
    };
    for token in &path {
        let picked = Pick(token).deserialize(&mut serde_json::Deserializer::from_str(found.get()));
        match picked.map_err(|error| Undecodable::IdField { field: field.to_owned(), problem: error.to_string() })? {
            Some(json) => found = json,
            None => return Ok(None),
        }
    }
    if found.get() == "null" {
        return Ok(None);
    }
    let invalid = |problem: &str| Undecodable::IdField { field: field.to_owned(), problem: problem.to_owned() };
    match scalar(found) {
        Some(id) if id.contains('\0') => Err(invalid(HAS_NUL)),
        Some(id) => Ok(Some(bounded(&id).into_owned()).filter(|id| !id.is_empty())),
        None => Err(invalid(NOT_SCALAR)),
    }
}

/// A token of a JSON pointer (RFC 6901).
fn unescape(token: &str) -> Cow<'_, str> {
    if token.contains('~') { Cow::Owned(token.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(token) }
}

/// Keeps keys short and on one line: they are printed, indexed and typed.
fn bounded(value: &str) -> Cow<'_, str> {
    // What looks like a hash is hashed as well, so that nobody can write the key of somebody else's long value.
    if value.len() <= KEY_VALUE_BYTES_MAX && !value.contains(char::is_control) && !value.starts_with(HASHED) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{HASHED}{}", hex::encode(Sha256::digest(value))))
}

/// Finds one member of an object, or one element of an array by its index, and skips the rest.
struct Pick<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<CowName<'de>>()? {
            if name.0 != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("appears more than once"));
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let Ok(index) = self.0.parse::<usize>() else {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        let mut found = None;
        let mut position = 0;
        while let Some(json) = elements.next_element()? {
            if position == index {
                found = Some(json);
            }
            position += 1;
        }
        Ok(found)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A member's name, copied only where it has escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct CowName<'a>(#[serde(borrow)] Cow<'a, str>);
