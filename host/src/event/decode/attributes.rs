//! What of a message becomes attributes of its event.

use super::cloudevents;
use super::format::{Origin, Reading};
use super::members::Member;
use super::trace::is_traceparent;
use crate::event::Message;

/// Most headers that become attributes; the rest is left out.
pub const HEADER_ATTRIBUTES_MAX: usize = 32;
/// Most bytes of headers, names and values, that become attributes; what would pass it is left out.
pub const HEADER_ATTRIBUTES_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of any other attribute that a body gives; a longer one is left out.
pub const ATTRIBUTE_BYTES_MAX: usize = 512;

/// What the subjects of FraiseQL's formats begin with.
const FRAISEQL: &str = "fraiseql.";
/// Headers whose values may be secrets, which no plugin sees.
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// The attributes of an event with `subject`; takes from `reading` what nobody else needs.
pub(super) fn attributes(
    source: &str,
    message: &Message,
    subject: &str,
    reading: &mut Reading<'_>,
) -> Vec<(String, String)> {
    let context = std::mem::take(&mut reading.context);
    let headers = message.headers.len().min(HEADER_ATTRIBUTES_MAX);
    let mut attributes = Vec::with_capacity(7 + context.len() + headers);
    let mut add = |name: &str, value: &str| attributes.push((name.to_owned(), value.to_owned()));
    add("source", source);
    add("format", reading.format.as_str());
    add("raw_subject", &message.subject);
    add("type", subject.strip_prefix(FRAISEQL).unwrap_or(subject));
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
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty() && value.len() <= ATTRIBUTE_BYTES_MAX) {
            add(name, value);
        }
    }
    let header = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let header = header.map(|(_, value)| value.clone()).filter(|value| is_traceparent(value));
    if let Some(traceparent) = reading.traceparent.take().or(header) {
        add("traceparent", &traceparent);
    }
    attributes.extend(context);
    header_attributes(&message.headers, &mut attributes);
    attributes
}

fn header_attributes(headers: &[(String, String)], attributes: &mut Vec<(String, String)>) {
    let mut bytes_left = HEADER_ATTRIBUTES_BYTES_MAX;
    // A CloudEvent's attributes are the event's already.
    let is_context = cloudevents::is_binary(headers);
    let open = headers.iter().filter(|(name, _)| {
        let secret = SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret));
        !(secret || is_context && cloudevents::attribute_name(name).is_some())
    });
    for (name, value) in open.take(HEADER_ATTRIBUTES_MAX) {
        if let Some(left) = bytes_left.checked_sub(name.len() + value.len()) {
            bytes_left = left;
            attributes.push((format!("header.{}", name.to_ascii_lowercase()), value.clone()));
        }
    }
}
