//! Events as people have them in files: JSON lines, an array, or objects written over several lines.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Outgoing;
use crate::encoding::{self, NotText};
use crate::event::Message;
use crate::event::decode::{self, Fields, Undecodable, literal_subject};

/// The largest input, in bytes: it is checked whole before anything goes out.
pub const INPUT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The most mistakes told of one input; the rest is counted.
pub const MISTAKES_TOLD_MAX: usize = 10;

/// What is asked of every event.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Whether lines are sent as they are, whatever they are.
    pub raw: bool,
    /// Where the source finds what an event needs.
    pub fields: &'a Fields,
    /// The host's `[limits] event`, in bytes.
    pub event_bytes_max: usize,
    /// The subject of every event, instead of its own.
    pub subject: Option<&'a str>,
}

/// What is wrong with one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The line of the input, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// The events of an input, all of them, or every mistake in it.
///
/// # Errors
/// With one mistake at least, in the order of the input.
pub fn read(input: &Bytes, rules: Rules<'_>) -> Result<Vec<Outgoing>, Vec<Mistake>> {
    let (mut events, mut mistakes) = (Vec::new(), Vec::new());
    // What a byte order mark stands before is the input's, whatever its first event is.
    let input = if rules.raw { input.clone() } else { input.slice_ref(encoding::without_mark(input)) };
    for (line, payload) in split(&input, rules.raw)? {
        match outgoing(line, payload, rules) {
            Ok(event) => events.push(event),
            Err(problem) => mistakes.push(Mistake { line, problem }),
        }
    }
    if mistakes.is_empty() { Ok(events) } else { Err(mistakes) }
}

fn outgoing(line: usize, payload: Bytes, rules: Rules<'_>) -> Result<Outgoing, String> {
    let named = || rules.subject.map(str::to_owned);
    if rules.raw {
        let subject = named().or_else(|| subject(&payload, rules.fields).ok().flatten());
        return Ok(Outgoing { line, payload, subject });
    }
    if payload.len() > rules.event_bytes_max {
        let (size, most) = (payload.len(), rules.event_bytes_max);
        return Err(format!("the event has {size} bytes, and the host takes {most} ([limits] event)"));
    }
    let own = subject(&payload, rules.fields).map_err(|error| error.to_string())?;
    Ok(Outgoing { line, payload, subject: named().or(own) })
}

/// The subject of a message that names its type; other JSON has none of its own.
fn subject(payload: &Bytes, fields: &Fields) -> Result<Option<String>, Undecodable> {
    let message = Message { subject: "".into(), payload: payload.clone(), headers: Vec::new(), position: None };
    let event = decode::decode(&"publish".into(), &message, fields, String::new)?;
    Ok((event.subject != literal_subject(&message.subject)).then_some(event.subject))
}

type Located = (usize, Bytes);

/// Where each event is. Raw input is lines and nothing else.
fn split(input: &Bytes, raw: bool) -> Result<Vec<Located>, Vec<Mistake>> {
    let lines = || lines(input).collect::<Vec<_>>();
    if raw {
        return Ok(lines());
    }
    let text = encoding::text(input).map_err(|error| {
        vec![match error {
            NotText::NotUtf8(at) => {
                Mistake { line: line_of(input, at), problem: "the input is not UTF-8 text here".to_owned() }
            }
            other => Mistake { line: 1, problem: format!("the input {other}") },
        }]
    })?;
    let array = text.trim_ascii_start().starts_with('[');
    match lines().first() {
        None => Ok(Vec::new()),
        Some(_) if array => elements(input, text),
        Some((_, first)) if serde_json::from_slice::<&RawValue>(first).is_err() => documents(input, text),
        Some(_) => Ok(lines()),
    }
}

/// The lines that have something in them.
fn lines(input: &Bytes) -> impl Iterator<Item = Located> {
    let mut begin = 0;
    let mut number = 0;
    std::iter::from_fn(move || {
        while begin < input.len() {
            let rest = &input[begin..];
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let line = input.slice_ref(rest[..end].trim_ascii());
            begin += end + 1;
            number += 1;
            if !line.is_empty() {
                return Some((number, line));
            }
        }
        None
    })
}

/// The elements of the one array that the input is.
fn elements(input: &Bytes, text: &str) -> Result<Vec<Located>, Vec<Mistake>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| vec![mistake(&error)])?;
    Ok(located(input, text, elements))
}

/// Values one after another, each over as many lines as it likes.
fn documents(input: &Bytes, text: &str) -> Result<Vec<Located>, Vec<Mistake>> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let values = values.collect::<Result<Vec<_>, _>>().map_err(|error| vec![mistake(&error)])?;
    Ok(located(input, text, values))
}

fn located(input: &Bytes, text: &str, values: Vec<&RawValue>) -> Vec<Located> {
    let (mut line, mut counted) = (1, 0);
    let locate = |value: &RawValue| {
        let offset = value.get().as_ptr() as usize - text.as_ptr() as usize;
        line += text.as_bytes()[counted..offset].iter().filter(|byte| **byte == b'\n').count();
        counted = offset;
        (line, input.slice_ref(value.get().as_bytes()))
    };
    values.into_iter().map(locate).collect()
}

fn line_of(input: &[u8], offset: usize) -> usize {
    input[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn mistake(error: &serde_json::Error) -> Mistake {
    // The position stands before it already.
    let text = error.to_string();
    let said = text.split(" at line ").next().unwrap_or_default();
    Mistake { line: error.line().max(1), problem: format!("this is not JSON: {said}, at column {}", error.column()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created","entity":{}}"#;

    fn rules() -> Rules<'static> {
        Rules { raw: false, fields: Fields::none(), event_bytes_max: 200, subject: None }
    }

    fn check(input: &str, expected: &[(usize, &str, Option<&str>)]) {
        let events = read(&Bytes::copy_from_slice(input.as_bytes()), rules()).unwrap();
        let found: Vec<_> = events
            .iter()
            .map(|event| (event.line, std::str::from_utf8(&event.payload).unwrap(), event.subject.as_deref()))
            .collect();
        assert_eq!(found, expected, "{input}");
    }

    fn wrong(input: &[u8], rules: Rules<'_>) -> Vec<String> {
        read(&Bytes::copy_from_slice(input), rules).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_arrays_and_documents_are_events() {
        let order = Some("fraiseql.order.created");
        check("", &[]);
        check(" \n\n", &[]);
        check(&format!("{ORDER}\n\n{{\"a\":1}}\r\n"), &[(1, ORDER, order), (3, "{\"a\":1}", None)]);
        check(&format!("\n[ {ORDER},\n\n {{\"a\":1}}]"), &[(2, ORDER, order), (4, "{\"a\":1}", None)]);
        check("{\n\"a\": 1\n}\n{\"b\":\n2}", &[(1, "{\n\"a\": 1\n}", None), (4, "{\"b\":\n2}", None)]);
        check("[]", &[]);
        check(&format!("\u{feff}[{ORDER}]"), &[(1, ORDER, order)]);
        check(&format!("\u{feff}{ORDER}\n{ORDER}"), &[(1, ORDER, order), (2, ORDER, order)]);
        let wide: Vec<u8> = ORDER.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(wrong(&wide, rules())[0].contains("UTF-16"));
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let lines = format!("{ORDER}\nnonsense\n{{\"event\":\"fraiseql.a.b\",\"entity_type\":\"a\"}}\n{ORDER}\n{{");
        let told = wrong(lines.as_bytes(), rules());
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("line 2: the body is not JSON"), "{told:?}");
        assert!(told[1].starts_with("line 3: ") && told[1].contains("`operation` is missing"), "{told:?}");
        assert!(told[2].starts_with("line 5: the body is not JSON"), "{told:?}");
        let told = wrong(b"[{\"a\":1},\n{\"a\":}]", rules());
        assert_eq!(told, ["line 2: this is not JSON: expected value, at column 6"]);
        let told = wrong(b"{\n\"a\":1\n", rules());
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(wrong(b"{}\n\xff", rules()), ["line 2: the input is not UTF-8 text here"]);
        let told = wrong(format!("{{\"a\":\"{}\"}}", "x".repeat(200)).as_bytes(), rules());
        assert_eq!(told, ["line 1: the event has 208 bytes, and the host takes 200 ([limits] event)"]);
    }

    #[test]
    fn raw_lines_are_sent_as_they_are() {
        let raw = Rules { raw: true, subject: Some("a.b"), ..rules() };
        let events = read(&Bytes::from_static(b"\xff\n[1,\n"), raw).unwrap();
        let payloads: Vec<&[u8]> = events.iter().map(|event| &event.payload[..]).collect();
        assert_eq!(payloads, [&b"\xff"[..], b"[1,"]);
        assert_eq!(events[0].subject.as_deref(), Some("a.b"));
    }
}
