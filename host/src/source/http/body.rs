//! A request's body: one event, or an array of them.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::EVENTS_IN_REQUEST_MAX;
use super::refusal::Refusal;
use crate::encoding;

/// The events of one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Events {
    /// An object.
    One(Bytes),
    /// An array of objects.
    Many(Vec<Bytes>),
}

/// Splits `body`; what its events say is not looked at.
///
/// # Errors
///
/// 400 or 413, naming the first event that is wrong.
pub(super) fn split(body: &Bytes, event_bytes_max: usize) -> Result<Events, Refusal> {
    let check = |event: &Bytes, index: Option<usize>| {
        if event.first() != Some(&b'{') {
            return Err(Refusal::bad_request("an event is a JSON object, and this is none".to_owned()).at(index));
        }
        within(event, event_bytes_max).map_err(|refusal| refusal.at(index))
    };
    let content = encoding::without_mark(body).trim_ascii();
    if content.is_empty() {
        return Err(Refusal::bad_request("the body is empty; send a JSON object, or an array of them".to_owned()));
    }
    if !matches!(content, [b'{' | b'[', ..]) {
        encoding::text(body).map_err(|error| Refusal::bad_request(format!("the body {error}")))?;
    }
    if content.first() != Some(&b'[') {
        let event = body.slice_ref(content);
        check(&event, None)?;
        return Ok(Events::One(event));
    }
    let text = encoding::text(content).map_err(|error| Refusal::bad_request(format!("the body {error}")))?;
    let events = elements(text)?;
    if events.is_empty() {
        return Err(Refusal::bad_request("the array is empty; send at least one event".to_owned()));
    }
    // Each for itself: the last one that waits would keep the whole body in memory.
    let events: Vec<_> = events.into_iter().map(|event| Bytes::copy_from_slice(event.get().as_bytes())).collect();
    for (index, event) in events.iter().enumerate() {
        check(event, Some(index))?;
    }
    Ok(Events::Many(events))
}

/// One event, whatever it is: the data of a CloudEvent.
///
/// # Errors
///
/// 413 where it is too large.
pub(super) fn whole(body: &Bytes, event_bytes_max: usize) -> Result<Events, Refusal> {
    within(body, event_bytes_max).map(|()| Events::One(body.clone()))
}

fn within(event: &Bytes, bytes_max: usize) -> Result<(), Refusal> {
    if event.len() > bytes_max { Err(Refusal::event_too_large(event.len(), bytes_max)) } else { Ok(()) }
}

fn elements(text: &str) -> Result<Vec<&RawValue>, Refusal> {
    let mut json = serde_json::Deserializer::from_str(text);
    let elements = json.deserialize_seq(Elements).and_then(|elements| json.end().map(|()| elements));
    elements.map_err(|error| Refusal::bad_request(format!("the body is not a JSON array of events: {error}")))
}

/// The elements of an array, up to a bound.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = elements.next_element()? {
            if found.len() == EVENTS_IN_REQUEST_MAX {
                let error =
                    format_args!("it has more than {EVENTS_IN_REQUEST_MAX} events; send them in several requests");
                return Err(serde::de::Error::custom(error));
            }
            found.push(element);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Message, decode};

    fn split_text(text: &str) -> Result<Events, (u16, Option<usize>)> {
        let split = split(&Bytes::copy_from_slice(text.as_bytes()), 60);
        split.map_err(|refusal| (refusal.status.as_u16(), refusal.index))
    }

    #[test]
    fn one_or_many_or_nothing() {
        let many = |events: &[&'static str]| {
            Ok(Events::Many(events.iter().map(|e| Bytes::from_static(e.as_bytes())).collect()))
        };
        let check = |text: &str, expected: Result<Events, (u16, Option<usize>)>| {
            assert_eq!(split_text(text), expected, "{text}");
        };
        check(" {\"a\": 1}\n", Ok(Events::One(Bytes::from_static(b"{\"a\": 1}"))));
        check("[{\"a\": 1} ,{}]", many(&["{\"a\": 1}", "{}"]));
        check("", Err((400, None)));
        check("  ", Err((400, None)));
        check("\u{feff} {\"a\": 1}", Ok(Events::One(Bytes::from_static(b"{\"a\": 1}"))));
        check("\u{feff}[{}]", many(&["{}"]));
        check("[]", Err((400, None)));
        check("7", Err((400, None)));
        check("[{},", Err((400, None)));
        check("[{}] x", Err((400, None)));
        check("[{},7]", Err((400, Some(1))));
        check("[{},{},[]]", Err((400, Some(2))));
        check(&format!("[{{}},{{\"a\":\"{}\"}}]", "x".repeat(60)), Err((413, Some(1))));
        check(&format!("{{\"a\":\"{}\"}}", "x".repeat(60)), Err((413, None)));
        check(&format!("[{}{{}}]", "{},".repeat(EVENTS_IN_REQUEST_MAX)), Err((400, None)));
        assert!(split_text(&format!("[{}{{}}]", "{},".repeat(EVENTS_IN_REQUEST_MAX - 1))).is_ok());
    }

    #[test]
    fn another_encoding_is_named() {
        for text in ["{}", "[{}]"] {
            for unit in [u16::to_le_bytes, u16::to_be_bytes] {
                let body: Bytes = text.encode_utf16().flat_map(unit).collect();
                let said = match split(&body, 60) {
                    Err(refusal) => refusal.error,
                    // What is in an event is looked at afterwards.
                    Ok(Events::One(payload)) => {
                        let message =
                            Message { subject: "/events".into(), payload, headers: Vec::new(), position: None };
                        decode::check(&message, decode::Fields::none()).unwrap_err().to_string()
                    }
                    Ok(Events::Many(events)) => panic!("{events:?}"),
                };
                assert!(said.contains("UTF-16"), "{said}");
            }
        }
    }

    #[test]
    fn the_events_of_an_array_do_not_keep_its_body() {
        let body = Bytes::from_static(b"[{},{\"b\":2}]");
        let Ok(Events::Many(events)) = split(&body, 100) else { panic!() };
        assert!(events.iter().all(|event| !body.as_ptr_range().contains(&event.as_ptr())));
    }
}
