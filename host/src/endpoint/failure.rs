//! What went wrong, in words an operator can act on: one line, bounded, without the URL, headers or body.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use crate::delivery::AttemptResult;

use super::client::SendError;
use super::connect::ConnectError;
use super::lookup::LookupError;
use super::proxy::ProxyError;

/// The longest description of a failed attempt, in bytes.
pub const FAILURE_TEXT_BYTES_MAX: usize = 512;

/// What an attempt came to that failed with `error`.
pub(crate) fn result_of(error: &(dyn Error + 'static), status: Option<u16>) -> AttemptResult {
    match find::<LookupError>(error) {
        Some(denied @ (LookupError::Denied { .. } | LookupError::DeniedLiteral(_))) => {
            return AttemptResult::EgressDenied(denied.to_string());
        }
        Some(LookupError::Failed { .. }) | None => {}
    }
    if let Some(own @ ProxyError::Own(_)) = find(error) {
        return AttemptResult::Deferred(bounded(own.to_string()));
    }
    if status.is_none()
        && let Some(own) = shortage(error)
    {
        return AttemptResult::Deferred(bounded(format!("{SHORTAGE}{own}")));
    }
    let mut text = described(error);
    if let Some(status) = status {
        text.push_str(&format!(" while reading the response body after status {status}"));
    }
    AttemptResult::Transport(bounded(text))
}

/// How the description of a failure begins that is this host's own.
pub(crate) const SHORTAGE: &str = "this host has no resources left for a connection: ";

/// What the system refused this process before anything was sent, for want of files, memory or ports: no fault of whoever was
/// to be reached, and no attempt.
fn shortage<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    let is_own = |error: &&io::Error| {
        let refused = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL];
        error.raw_os_error().is_some_and(|code| refused.contains(&code))
    };
    causes(error).filter_map(<dyn Error>::downcast_ref::<io::Error>).find(is_own)
}

fn described(error: &(dyn Error + 'static)) -> String {
    if let Some(failed) = find::<LookupError>(error) {
        return failed.to_string();
    }
    if let Some(failed) = find::<ProxyError>(error) {
        return failed.to_string();
    }
    if let Some(refused @ (SendError::Refused(_) | SendError::Closed)) = find(error) {
        return refused.to_string();
    }
    let connecting = find::<ConnectError>(error);
    let broken = find::<io::Error>(error).map(io::Error::kind);
    let timed_out = broken == Some(io::ErrorKind::TimedOut);
    if connecting.is_some_and(|connecting| timed_out || matches!(connecting, ConnectError::TimedOut)) {
        return "timed out while connecting".to_owned();
    }
    if let Some(failed) = find::<rustls::Error>(error) {
        return format!("TLS failed: {failed}{}", certificate_help(failed));
    }
    match broken {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset) => "connection reset by the endpoint".to_owned(),
        Some(io::ErrorKind::BrokenPipe) => "connection closed by the endpoint".to_owned(),
        Some(io::ErrorKind::HostUnreachable) => "no route to the endpoint's host".to_owned(),
        Some(io::ErrorKind::NetworkUnreachable) => "no route to the endpoint's network".to_owned(),
        Some(io::ErrorKind::UnexpectedEof) if connecting.is_some() => "TLS failed: the endpoint hung up".to_owned(),
        Some(io::ErrorKind::UnexpectedEof) => "connection closed by the endpoint".to_owned(),
        _ => flattened(error),
    }
}

/// What the library says of a certificate is the name of an error; this says what to do.
fn certificate_help(failed: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(wrong) = failed else { return "" };
    match wrong {
        CertificateError::UnknownIssuer => {
            " (nobody trusted here vouches for the certificate; if its authority is your own, name its file as `tls.ca`)"
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            " (the endpoint shows the certificate of an authority as its own; give it one that the authority issued for its \
             name, and name the authority's file as `tls.ca`)"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            " (the endpoint's certificate has to be renewed)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            " (the certificate is for another host than the one in the endpoint's `url`)"
        }
        _ => "",
    }
}

/// The chain of causes on one line. The outermost is left out: it says no more than that the client failed.
fn flattened(error: &(dyn Error + 'static)) -> String {
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

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
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
    fn what_the_host_lacks_is_no_attempt() {
        let failed = |code| result_of(&io::Error::other(io::Error::from_raw_os_error(code)), None);
        assert!(matches!(failed(libc::EMFILE), AttemptResult::Deferred(text) if text.starts_with(SHORTAGE)));
        assert!(matches!(failed(libc::ENOBUFS), AttemptResult::Deferred(_)));
        assert!(matches!(failed(libc::ECONNREFUSED), AttemptResult::Transport(_)));
        let late = result_of(&io::Error::from_raw_os_error(libc::ENOMEM), Some(200));
        assert!(matches!(late, AttemptResult::Transport(_)), "the endpoint has answered");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded("é".repeat(FAILURE_TEXT_BYTES_MAX)).len(), FAILURE_TEXT_BYTES_MAX);
        assert_eq!(bounded(format!("x{}", "é".repeat(FAILURE_TEXT_BYTES_MAX))).len(), FAILURE_TEXT_BYTES_MAX - 1);
    }
}
