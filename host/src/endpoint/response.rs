//! What came back: a status, a bounded body, and when to come again.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, Uri, header};
use http_body_util::BodyExt as _;

use super::client::Answer;
use super::redact::Redactor;
use crate::clock::Timestamp;

mod decode;

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
    coding: String,
    excerpt: BytesMut,
}

impl Arrived {
    /// Reads the response to its end, or to the bound, and keeps `kept_max` bytes of it.
    pub(super) async fn read(
        &mut self,
        response: Response<Answer>,
        now: Timestamp,
        kept_max: usize,
    ) -> Result<(), hyper::Error> {
        self.status = Some(response.status().as_u16());
        self.retry_after = retry_after(response.headers(), now);
        self.coding = coding(response.headers());
        self.location = response.status().is_redirection().then(|| location(response.headers())).flatten();
        let mut body = response.into_body();
        let mut read_bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame?.into_data() else { continue };
            read_bytes += chunk.len();
            let room = kept_max.saturating_sub(self.excerpt.len());
            // Copied, so that a few bytes do not keep the connection's whole buffer alive.
            self.excerpt.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if read_bytes >= RESPONSE_READ_BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    /// The beginning of the body, decoded and without secrets.
    pub(super) fn into_excerpt(self, redactor: &Redactor) -> Bytes {
        let read_max = RESPONSE_EXCERPT_BYTES_MAX + redactor.longest();
        let decoded = decode::decoded(&self.coding, &self.excerpt.freeze(), read_max);
        cut(redactor.cut(decoded))
    }
}

/// The beginning that is kept, not ending within a character where it is text.
fn cut(mut excerpt: Bytes) -> Bytes {
    if excerpt.len() > RESPONSE_EXCERPT_BYTES_MAX {
        excerpt.truncate(RESPONSE_EXCERPT_BYTES_MAX);
        if let Err(error) = std::str::from_utf8(&excerpt)
            && error.error_len().is_none()
        {
            excerpt.truncate(error.valid_up_to());
        }
    }
    excerpt
}

/// How the body is compressed; empty where it is not.
fn coding(headers: &HeaderMap) -> String {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(",")
}

/// `Retry-After` as a moment: seconds from `now`, or an HTTP date. Anything else is as if it were not there. Of several the latest
/// counts, whether they are several headers or were joined to one.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let values = headers.get_all(header::RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
    let moments = values.filter_map(|text| {
        // A date has a comma of its own.
        let joined = || {
            let parts: Option<Vec<_>> = text.split(',').map(|part| moment(part.trim(), now)).collect();
            parts?.into_iter().max_by_key(|moment| moment.0)
        };
        moment(text.trim(), now).or_else(joined)
    });
    moments.max_by_key(|moment| moment.0)
}

fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(after) = seconds(text) {
        return Some(now.plus(after));
    }
    let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(0).plus(since_epoch))
}

/// Whole seconds as HTTP has them, or with a fraction as some servers write them.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    // Digits that overflow mean a very long time, not nothing.
    let whole = Duration::from_secs(whole.parse().unwrap_or(u64::MAX));
    let fraction = format!("0.{fraction}").parse().ok().and_then(|part| Duration::try_from_secs_f64(part).ok());
    Some(whole.saturating_add(fraction.unwrap_or_default()))
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
    fn retry_after_with_a_fraction() {
        check("7.5", Some(7_500));
        check("0.25", Some(250));
        check("18446744073709551615.9", Some(i64::MAX - NOW.0));
    }

    #[test]
    fn of_several_the_latest_counts() {
        let check = |values: &[&str], expected| {
            let headers = values.iter().map(|value| (header::RETRY_AFTER, value.parse().unwrap()));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(retry_after(&headers, NOW).map(|at| at.0 - NOW.0), expected, "{values:?}");
        };
        check(&["5", "60"], Some(60_000));
        check(&["60", "soon"], Some(60_000));
        check(&["soon", "Thu, 01 Jan 2026 00:02:00 GMT"], Some(120_000));
        check(&["5, 60"], Some(60_000));
        check(&["soon", "later"], None);
    }

    #[test]
    fn an_excerpt_ends_with_a_character() {
        let text = "ä".repeat(RESPONSE_EXCERPT_BYTES_MAX);
        let kept = cut(format!("x{text}").into());
        assert_eq!(kept.len(), RESPONSE_EXCERPT_BYTES_MAX - 1);
        assert_eq!(cut(vec![0xff; 9_000].into()).len(), RESPONSE_EXCERPT_BYTES_MAX);
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
        for value in
            ["", "soon", "-1", "+5", "1.", ".5", "1.5.2", "1,5s", "1e3", "0x10", "5s", "Thu, 99 Jan 2026 00:00:00 GMT"]
        {
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
