//! What came back: a status, a bounded body, and when to come again.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, Uri, header};
use http_body_util::BodyExt as _;

use super::client::Answer;
use crate::clock::Timestamp;

/// How much of a response's body is kept.
pub const RESPONSE_EXCERPT_BYTES_MAX: usize = 4096;

/// How much of a response's body is read. A longer one is cut: its status counts, its connection is not used again.
pub const RESPONSE_READ_BYTES_MAX: usize = 64 * 1024;

/// How much of a redirect's `Location` is kept.
pub const LOCATION_BYTES_MAX: usize = 256;

/// What has arrived so far; whatever happens next, it is not lost.
#[derive(Default)]
pub(super) struct Arrived {
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<Timestamp>,
    /// Where a redirect points.
    pub(super) location: Option<String>,
    excerpt: BytesMut,
}

impl Arrived {
    /// Reads the response to its end, or to the bound.
    pub(super) async fn read(&mut self, response: Response<Answer>, now: Timestamp) -> Result<(), hyper::Error> {
        self.status = Some(response.status().as_u16());
        self.retry_after = retry_after(response.headers(), now);
        self.location = response.status().is_redirection().then(|| location(response.headers())).flatten();
        let mut body = response.into_body();
        let mut read_bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame?.into_data() else { continue };
            read_bytes += chunk.len();
            let room = RESPONSE_EXCERPT_BYTES_MAX - self.excerpt.len();
            // Copied, so that a few bytes do not keep the connection's whole buffer alive.
            self.excerpt.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if read_bytes >= RESPONSE_READ_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn into_excerpt(self) -> Bytes {
        self.excerpt.freeze()
    }
}

/// `Retry-After` as a moment: seconds from `now`, or an HTTP date. Anything else is as if it were not there.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow mean a very long time, not nothing.
        return Some(now.plus(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
    }
    let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(0).plus(since_epoch))
}

/// `Location` as it is shown: without the query and the credentials, which may be secrets, and bounded.
fn location(headers: &HeaderMap) -> Option<String> {
    let written = String::from_utf8_lossy(headers.get(header::LOCATION)?.as_bytes()).into_owned();
    let mut shown = match written.parse::<Uri>() {
        Ok(uri) => {
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            let host = authority.rsplit('@').next().unwrap_or_default();
            let origin = uri.scheme_str().map(|scheme| format!("{scheme}://{host}")).unwrap_or_default();
            format!("{origin}{}", uri.path())
        }
        // Whatever it is, it can't be taken apart.
        Err(_) => written.split(['?', '#', '@']).next().unwrap_or_default().escape_debug().to_string(),
    };
    shown.truncate(shown.floor_char_boundary(LOCATION_BYTES_MAX));
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_767_225_600_000); // 2026-01-01T00:00:00Z

    fn check(value: &str, expected: Option<i64>) {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(retry_after(&headers, NOW).map(|at| at.0 - NOW.0), expected, "{value:?}");
    }

    #[test]
    fn retry_after_in_seconds() {
        check("0", Some(0));
        check("120", Some(120_000));
        check(" 7 ", Some(7_000));
        check("18446744073709551615", Some(i64::MAX - NOW.0));
        check("99999999999999999999999999", Some(i64::MAX - NOW.0));
    }

    #[test]
    fn retry_after_as_a_date() {
        check("Thu, 01 Jan 2026 00:02:00 GMT", Some(120_000));
        check("Thursday, 01-Jan-26 00:02:00 GMT", Some(120_000));
        check("Thu Jan  1 00:02:00 2026", Some(120_000));
        check("Wed, 31 Dec 2025 23:59:00 GMT", Some(-60_000));
    }

    #[test]
    fn nonsense_is_ignored() {
        for value in ["", "soon", "-1", "+5", "1.5", "1e3", "0x10", "5s", "Thu, 99 Jan 2026 00:00:00 GMT"] {
            check(value, None);
        }
        assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
    }

    #[test]
    fn a_location_is_shown_without_what_may_be_secret() {
        let check = |value: &str, expected: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, value.parse().unwrap())]);
            assert_eq!(location(&headers).as_deref(), Some(expected), "{value:?}");
        };
        check("https://a.net/login?token=hush", "https://a.net/login");
        check("https://user:hush@a.net:8443/x", "https://a.net:8443/x");
        check("http://169.254.169.254/latest", "http://169.254.169.254/latest");
        check("/elsewhere?a=hush#b", "/elsewhere");
        check("//a.net/x?hush", "//a.net/x");
        check("http://[::1%eth0]/?hush", "http://[::1%eth0]/");
        assert_eq!(location(&HeaderMap::new()), None);
        let long = HeaderMap::from_iter([(header::LOCATION, format!("/{}", "x".repeat(9_000)).parse().unwrap())]);
        assert_eq!(location(&long).map(|shown| shown.len()), Some(LOCATION_BYTES_MAX));
    }
}
