//! What FraiseQL's page tells a receiver to check, written from the page and not from our own signer.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::secret::Secret;

/// How far `X-Timestamp` may be from the receiver's clock, either way.
pub const TOLERANCE_SECONDS: i64 = 300;

/// Why a request is not to be trusted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// No `X-Signature`, or one that is not text.
    #[error("the header X-Signature is missing")]
    SignatureMissing,
    /// No `X-Timestamp`, or one that is not text.
    #[error("the header X-Timestamp is missing")]
    TimestampMissing,
    /// `X-Timestamp` is no whole number.
    #[error("X-Timestamp is not Unix seconds in decimal digits")]
    TimestampFormat,
    /// `X-Signature` is something else than `sha256=` and 64 digits.
    #[error("X-Signature is not `sha256=` and 64 lower-case hex digits")]
    SignatureFormat,
    /// The clocks are apart, or the request is replayed.
    #[error("X-Timestamp is {seconds} s {direction} this clock, more than {TOLERANCE_SECONDS} s", direction = if *.seconds > 0 { "behind" } else { "ahead of" }, seconds = seconds.abs())]
    Stale {
        /// How old it is; negative where it lies ahead.
        seconds: i64,
    },
    /// Another secret, or other bytes.
    #[error("the signature does not match the body{}", .0.map_or("", Hint::text))]
    Mismatch(Option<Hint>),
}

/// What was signed instead, where one can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// The timestamp was left out.
    BodyAlone,
    /// The JSON was parsed and written again between signing and verifying.
    Reserialised,
    /// White space at the end of the body came or went.
    BodyTrimmed,
    /// White space around the secret, usually the newline at a file's end.
    SecretTrimmed,
}

impl Hint {
    fn text(self) -> &'static str {
        match self {
            Self::BodyAlone => ": it was made over the body alone, without `{timestamp}.` before it",
            Self::Reserialised => {
                ": it was made over the same JSON spaced differently; use the body's bytes as they came"
            }
            Self::BodyTrimmed => ": it was made over the body without the white space at its end",
            Self::SecretTrimmed => ": it was made with this secret without the white space around it",
        }
    }
}

/// Checks a request as the page's `verify_webhook` does, and says what is wrong where it would say `False`.
pub fn verify_fraiseql(
    body: &[u8],
    signature: Option<&str>,
    timestamp: Option<&str>,
    secret: &Secret,
    now: Timestamp,
) -> Result<(), VerifyError> {
    let signature = signature.ok_or(VerifyError::SignatureMissing)?;
    let timestamp = timestamp.ok_or(VerifyError::TimestampMissing)?;
    let seconds: i64 = timestamp.parse().map_err(|_| VerifyError::TimestampFormat)?;
    let digest = digest_of(signature).ok_or(VerifyError::SignatureFormat)?;
    let age_ms = now.0.saturating_sub(seconds.saturating_mul(1000));
    if age_ms.saturating_abs() > TOLERANCE_SECONDS * 1000 {
        return Err(VerifyError::Stale { seconds: age_ms / 1000 });
    }
    if matches(&digest, secret.expose(), &[timestamp.as_bytes(), b".", body]) {
        return Ok(());
    }
    Err(VerifyError::Mismatch(hint(&digest, secret.expose(), timestamp.as_bytes(), body)))
}

fn digest_of(signature: &str) -> Option<[u8; 32]> {
    let digits = signature.strip_prefix("sha256=")?;
    let mut digest = [0; 32];
    let lower = !digits.bytes().any(|digit| digit.is_ascii_uppercase());
    (lower && hex::decode_to_slice(digits, &mut digest).is_ok()).then_some(digest)
}

/// Takes the same time wherever the digests differ.
fn matches(digest: &[u8], secret: &[u8], message: &[&[u8]]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
    message.iter().for_each(|part| mac.update(part));
    mac.verify_slice(digest).is_ok()
}

fn hint(digest: &[u8], secret: &[u8], timestamp: &[u8], body: &[u8]) -> Option<Hint> {
    let over = |body: &[u8]| matches(digest, secret, &[timestamp, b".", body]);
    if matches(digest, secret, &[body]) {
        Some(Hint::BodyAlone)
    } else if matches(digest, secret.trim_ascii(), &[timestamp, b".", body]) {
        Some(Hint::SecretTrimmed)
    } else if over(body.trim_ascii_end()) {
        Some(Hint::BodyTrimmed)
    } else if over(&respaced(body, b"")) || over(&respaced(body, b" ")) {
        Some(Hint::Reserialised)
    } else {
        None
    }
}

/// The JSON in `body` on one line, with `space` after every comma and colon: none as most libraries write it, one as
/// Python's does.
fn respaced(body: &[u8], space: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(body.len() * 2);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in body {
        if in_string {
            written.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if !byte.is_ascii_whitespace() {
            written.push(byte);
            in_string = byte == b'"';
            if matches!(byte, b',' | b':') {
                written.extend_from_slice(space);
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: i64 = 1_767_225_600;
    const BODY: &[u8] = br#"{"a": [1, 2], "b": "x, \"y\": z"}"#;

    fn signature(secret: &[u8], message: &[&[u8]]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        message.iter().for_each(|part| mac.update(part));
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }

    fn signed(body: &[u8]) -> String {
        signature(b"s", &[SECONDS.to_string().as_bytes(), b".", body])
    }

    fn check_at(now_ms: i64, signature: Option<&str>, timestamp: Option<&str>, expected: &Result<(), VerifyError>) {
        let found = verify_fraiseql(BODY, signature, timestamp, &Secret::new("s"), Timestamp(now_ms));
        assert_eq!(&found, expected, "{signature:?} {timestamp:?}");
    }

    fn check(signature: Option<&str>, timestamp: Option<&str>, expected: &Result<(), VerifyError>) {
        check_at(SECONDS * 1000, signature, timestamp, expected);
    }

    const TIMESTAMP: Option<&str> = Some("1767225600");

    #[test]
    fn the_pages_own_signature_verifies() {
        // Made with the page's send_signed_webhook.
        let now = Timestamp(SECONDS * 1000);
        let known = "sha256=f92006a5fc1185ea8f1c3abb0324fc43b64b380c25979f2b53ca26863e4fd4bc";
        let body = br#"{"event":"order.created"}"#;
        assert_eq!(verify_fraiseql(body, Some(known), TIMESTAMP, &Secret::new("whsec"), now), Ok(()));
    }

    #[test]
    fn missing_and_malformed_headers() {
        let good = signed(BODY);
        check(Some(&good), TIMESTAMP, &Ok(()));
        check(None, TIMESTAMP, &Err(VerifyError::SignatureMissing));
        check(Some(&good), None, &Err(VerifyError::TimestampMissing));
        for timestamp in ["", "now", "1767225600.5", " 1767225600", "99999999999999999999"] {
            check(Some(&good), Some(timestamp), &Err(VerifyError::TimestampFormat));
        }
        let upper = format!("sha256={}", good["sha256=".len()..].to_uppercase());
        for signature in ["", "sha256=", "sha256=00", &good["sha256=".len()..], &upper, &format!("{good}00")] {
            check(Some(signature), TIMESTAMP, &Err(VerifyError::SignatureFormat));
        }
    }

    #[test]
    fn five_minutes_either_way() {
        let good = signed(BODY);
        let stale = |seconds| Err(VerifyError::Stale { seconds });
        check_at((SECONDS + 300) * 1000, Some(&good), TIMESTAMP, &Ok(()));
        check_at((SECONDS + 300) * 1000 + 1, Some(&good), TIMESTAMP, &stale(300));
        check_at((SECONDS - 300) * 1000, Some(&good), TIMESTAMP, &Ok(()));
        check_at((SECONDS - 301) * 1000, Some(&good), TIMESTAMP, &stale(-301));
        check_at(SECONDS * 1000, Some(&good), Some("-9223372036854775808"), &stale(i64::MAX / 1000));
        assert_eq!(
            VerifyError::Stale { seconds: -301 }.to_string(),
            "X-Timestamp is 301 s ahead of this clock, more than 300 s"
        );
    }

    #[test]
    fn a_mismatch_is_explained_where_it_can_be() {
        let timestamp = SECONDS.to_string();
        let mismatch = |hint| Err(VerifyError::Mismatch(hint));
        check(Some(&signature(b"other", &[timestamp.as_bytes(), b".", BODY])), TIMESTAMP, &mismatch(None));
        check(Some(&signature(b"s", &[BODY])), TIMESTAMP, &mismatch(Some(Hint::BodyAlone)));
        let compact = br#"{"a":[1,2],"b":"x, \"y\": z"}"#;
        check(Some(&signed(compact)), TIMESTAMP, &mismatch(Some(Hint::Reserialised)));
        let now = Timestamp(SECONDS * 1000);
        let newline = [BODY, b"\n"].concat();
        assert_eq!(
            verify_fraiseql(&newline, Some(&signed(BODY)), TIMESTAMP, &Secret::new("s"), now),
            mismatch(Some(Hint::BodyTrimmed))
        );
        assert_eq!(
            verify_fraiseql(BODY, Some(&signed(BODY)), TIMESTAMP, &Secret::new("s\n"), now),
            mismatch(Some(Hint::SecretTrimmed))
        );
        assert_eq!(
            verify_fraiseql(compact, Some(&signed(BODY)), TIMESTAMP, &Secret::new("s"), now),
            mismatch(Some(Hint::Reserialised))
        );
    }
}
