//! What went wrong, in words an operator can act on: one line, bounded, without the URL, headers or body.

use std::error::Error;
use std::io;

use crate::delivery::AttemptResult;

use super::lookup::LookupError;

/// The longest description of a failed attempt, in bytes.
pub const FAILURE_TEXT_BYTES_MAX: usize = 512;

/// What an attempt came to that failed with `error`.
pub(crate) fn result_of(error: &reqwest::Error, status: Option<u16>) -> AttemptResult {
    if let Some(denied @ LookupError::Denied { .. }) = find(error) {
        return AttemptResult::EgressDenied(denied.to_string());
    }
    let mut text = described(error);
    if let Some(status) = status {
        text.push_str(&format!(" while reading the response body after status {status}"));
    }
    AttemptResult::Transport(bounded(text))
}

fn described(error: &reqwest::Error) -> String {
    if let Some(failed) = find::<LookupError>(error) {
        return failed.to_string();
    }
    if error.is_timeout() && error.is_connect() {
        return "timed out while connecting".to_owned();
    }
    if let Some(failed) = find::<rustls::Error>(error) {
        return format!("TLS failed: {failed}");
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset) => "connection reset by the endpoint".to_owned(),
        Some(io::ErrorKind::BrokenPipe) => "connection closed by the endpoint".to_owned(),
        Some(io::ErrorKind::HostUnreachable) => "no route to the endpoint's host".to_owned(),
        Some(io::ErrorKind::NetworkUnreachable) => "no route to the endpoint's network".to_owned(),
        Some(io::ErrorKind::UnexpectedEof) if error.is_connect() => "TLS failed: the endpoint hung up".to_owned(),
        _ => flattened(error),
    }
}

/// The chain of causes on one line. The outermost is left out: reqwest's own line holds the URL, which may hold a token.
fn flattened(error: &reqwest::Error) -> String {
    let mut text = String::new();
    for cause in causes(error).skip(1) {
        let line = cause.to_string();
        // Many wrappers repeat their cause, and the client's own only says `client error (Connect)`.
        if !text.contains(&line) && !line.starts_with("client error") {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&line);
        }
    }
    if text.is_empty() { "the exchange failed".to_owned() } else { text }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause_of(*error))
}

/// An `io::Error` hides what it wraps: its `source` is the wrapped error's source.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
}

fn find<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    causes(error).find_map(<dyn Error>::downcast_ref)
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded("é".repeat(FAILURE_TEXT_BYTES_MAX)).len(), FAILURE_TEXT_BYTES_MAX);
        assert_eq!(bounded(format!("x{}", "é".repeat(FAILURE_TEXT_BYTES_MAX))).len(), FAILURE_TEXT_BYTES_MAX - 1);
    }
}
