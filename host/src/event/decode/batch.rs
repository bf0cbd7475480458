//! One message that holds several CloudEvents: their batch format (JSON event format, §4), on any bus.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::members::Members;
use super::{cloudevents, text};
use crate::event::Message;

/// Most events of one message; a longer array is one event, or none.
pub const EVENTS_IN_BATCH_MAX: usize = 1000;

/// What stands between what names a message and the place of an event in it.
const ELEMENT_MARK: char = '§';

/// The events of a message that is a batch of CloudEvents; `None` for every other message. It is a batch where its headers
/// say so, and where they say nothing, an array in which each element looks like a CloudEvent.
pub fn split(message: &Message) -> Option<Vec<Message>> {
    let says_so = cloudevents::is_batch(&message.headers);
    if !says_so
        && (message.payload.trim_ascii_start().first() != Some(&b'[') || cloudevents::is_binary(&message.headers))
    {
        return None;
    }
    let mut json = serde_json::Deserializer::from_str(text(&message.payload).ok()?);
    let elements = json.deserialize_seq(Elements { says_so }).ok()?;
    json.end().ok()?;
    if elements.is_empty() && !says_so {
        return None;
    }
    // Each for itself: the last one that waits would keep the whole batch in memory.
    let one = |(index, element): (usize, &RawValue)| Message {
        subject: message.subject.clone(),
        payload: Bytes::copy_from_slice(element.get().as_bytes()),
        headers: message.headers.iter().map(|header| header_of(header, index)).collect(),
        position: message.position.as_ref().map(|position| format!("{position}{ELEMENT_MARK}{index}")),
    };
    Some(elements.into_iter().enumerate().map(one).collect())
}

/// What names the message names each of its events by its place.
fn header_of((name, value): &(String, String), index: usize) -> (String, String) {
    let names_message = super::identity::IDENTITY_HEADERS.iter().any(|header| name.eq_ignore_ascii_case(header));
    let value =
        if names_message && !value.is_empty() { format!("{value}{ELEMENT_MARK}{index}") } else { value.clone() };
    (name.clone(), value)
}

/// The elements of an array of CloudEvents, up to a bound.
struct Elements {
    says_so: bool,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of CloudEvents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found: Vec<&RawValue> = Vec::new();
        while let Some(element) = elements.next_element()? {
            if found.len() == EVENTS_IN_BATCH_MAX || !(self.says_so || is_one(element)) {
                return Err(A::Error::custom("no batch"));
            }
            found.push(element);
        }
        Ok(found)
    }
}

fn is_one(element: &RawValue) -> bool {
    Members::read(element.get()).is_ok_and(|members| cloudevents::is_one(&members))
}
