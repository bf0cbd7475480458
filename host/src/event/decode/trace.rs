//! The trace that a message belongs to.

use serde_json::value::RawValue;

use super::members::string;

/// `trace_context` is the traceparent itself, or an object that has it.
pub(super) fn traceparent_of(trace_context: &RawValue) -> Option<String> {
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
pub(super) fn is_traceparent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    let sound = lengths.iter().all(|length| parts.next().is_some_and(|part| part.len() == *length && hex(part)));
    sound && parts.next().is_none() && !text.starts_with("ff")
}
