//! What came back: a status, a bounded body, and when to come again.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};

use crate::clock::Timestamp;

/// How much of a response's body is kept.
pub const RESPONSE_EXCERPT_BYTES_MAX: usize = 4096;

/// How much of a response's body is read. A longer one is cut: its status counts, its connection is not used again.
pub const RESPONSE_READ_BYTES_MAX: usize = 64 * 1024;

/// What has arrived so far; whatever happens next, it is not lost.
#[derive(Default)]
pub(super) struct Arrived {
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<Timestamp>,
    excerpt: BytesMut,
}

impl Arrived {
    /// Reads the response to its end, or to the bound.
    pub(super) async fn read(&mut self, mut response: reqwest::Response, now: Timestamp) -> Result<(), reqwest::Error> {
        self.status = Some(response.status().as_u16());
        self.retry_after = retry_after(response.headers(), now);
        let mut read_bytes = 0;
        while let Some(chunk) = response.chunk().await? {
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
}
