//! What makes two messages the same event.
//!
//! In this order: `(type, seq)`; a CloudEvent's `source` and `id`; the id of a recognised format; the member that `id_field`
//! names; the header `Nats-Msg-Id`, then `Idempotency-Key`; the bus's position; else the message is an event of its own. `id_field` stands
//! before the headers because the operator has said what names an event, and the headers are whatever a publisher's
//! library sets. Never from the content alone.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::Undecodable;
use super::fields::Field;
use super::format::Reading;
use crate::event::{EventKey, Message};

/// Longest value kept in a key as it is, in bytes; a longer one is replaced by its hash.
pub const KEY_VALUE_BYTES_MAX: usize = 256;

/// What the hash of a value begins with.
const HASHED: &str = "sha256-";

/// Headers that carry an identity, in lower case, the stronger first.
pub(super) const IDENTITY_HEADERS: [&str; 2] = ["nats-msg-id", "idempotency-key"];

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
    reading: &Reading<'_>,
    id_field: Option<Field<'_>>,
) -> Result<Option<(&'static str, String)>, Undecodable> {
    if let Some(seq) = &reading.seq {
        return Ok(Some(("seq", format!("{}:{seq}", bounded(&reading.raw_type)))));
    }
    if let Some(id) = &reading.id {
        let Some(producer) = &reading.producer else { return Ok(Some(("id", bounded(id).into_owned()))) };
        // The id's length first: no other pair of texts is the same key.
        return Ok(Some(("ce", bounded(&format!("{}:{id}@{producer}", id.len())).into_owned())));
    }
    let Some(field) = id_field else { return Ok(None) };
    Ok(field.text(text)?.map(|id| ("id", bounded(&id).into_owned())))
}

/// Keeps keys short and on one line: they are printed, indexed and typed.
fn bounded(value: &str) -> Cow<'_, str> {
    // What looks like a hash is hashed as well, so that nobody can write the key of somebody else's long value.
    if value.len() <= KEY_VALUE_BYTES_MAX && !value.contains(char::is_control) && !value.starts_with(HASHED) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{HASHED}{}", hex::encode(Sha256::digest(value))))
}
