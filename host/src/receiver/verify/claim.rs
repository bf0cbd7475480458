//! What a request says of itself: its signatures, and what they are said to be over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

use super::VerifyError;
use super::key::VerifyKey;
use crate::settings::{SchemeName, SignatureScheme};

/// From here on a timestamp is no longer in seconds: the year 5138.
const SECONDS_MAX: i64 = 100_000_000_000;

/// The most signatures of one request that are looked at.
const SIGNATURES_MAX: usize = 32;

const SHA256_HEX: &str = "`sha256=` and 64 lower-case hex digits";

/// What a request says of itself.
pub(super) struct Claim {
    /// Where the signatures stand.
    pub(super) header: HeaderName,
    pub(super) signatures: Vec<Claimed>,
    pub(super) timestamp: Option<ClaimedTime>,
    /// `webhook-id`, where the scheme signs it.
    pub(super) id: Option<String>,
    /// Timestamps that the scheme does not sign, and a sender may have signed all the same.
    pub(super) loose_times: Vec<String>,
}

/// One signature.
pub(super) struct Claimed {
    pub(super) version: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// A timestamp, as it was written and as it is meant.
pub(super) struct ClaimedTime {
    pub(super) header: HeaderName,
    pub(super) written: String,
    pub(super) seconds: i64,
}

/// The scheme whose headers a request has.
pub fn scheme_of(headers: &HeaderMap) -> Option<SignatureScheme> {
    let has = |name: &str| headers.contains_key(name);
    if has("webhook-signature") {
        return Some(SignatureScheme::StandardWebhooks);
    }
    for header in ["stripe-signature", "x-fraiseql-signature-256"] {
        if has(header) {
            return Some(SignatureScheme::Stripe { header: HeaderName::from_static(header) });
        }
    }
    if has("x-hub-signature-256") {
        return Some(SignatureScheme::Github);
    }
    let signature = headers.get("x-signature")?;
    if has("x-timestamp") || signature.as_bytes().starts_with(b"sha256=") {
        return Some(SignatureScheme::Fraiseql);
    }
    Some(SignatureScheme::Hmac { header: SignatureScheme::HMAC_HEADER })
}

impl Claim {
    pub(super) fn read(scheme: &SignatureScheme, headers: &HeaderMap) -> Result<Self, VerifyError> {
        let name = HeaderName::from_static;
        match scheme {
            SignatureScheme::None => Err(VerifyError::Unsigned),
            SignatureScheme::Fraiseql => {
                let header = name("x-signature");
                let signature = text(scheme, headers, &header)?;
                let timestamp = timestamp(name("x-timestamp"), text(scheme, headers, &name("x-timestamp"))?)?;
                let digest = signature.strip_prefix("sha256=").and_then(digest_of);
                let digest =
                    digest.ok_or_else(|| format_error(SchemeName::Fraiseql, &header, SHA256_HEX, signature))?;
                Ok(Self { timestamp: Some(timestamp), ..Self::of(header, vec![digest]) })
            }
            SignatureScheme::Github => {
                let header = name("x-hub-signature-256");
                let signature = text(scheme, headers, &header)?;
                let digest = signature.strip_prefix("sha256=").and_then(digest_of);
                let digest = digest.ok_or_else(|| format_error(SchemeName::Github, &header, SHA256_HEX, signature))?;
                Ok(Self { loose_times: loose_times(headers), ..Self::of(header, vec![digest]) })
            }
            SignatureScheme::Hmac { header } => {
                let signature = text(scheme, headers, header)?;
                let expected = "64 lower-case hex digits";
                let wrong = || format_error(SchemeName::Hmac, header, expected, signature);
                let digest = digest_of(signature).ok_or_else(wrong)?;
                Ok(Self { loose_times: loose_times(headers), ..Self::of(header.clone(), vec![digest]) })
            }
            SignatureScheme::Stripe { header } => stripe(header, text(scheme, headers, header)?),
            SignatureScheme::StandardWebhooks => {
                let header = name("webhook-signature");
                let signatures = standard_webhooks(&header, text(scheme, headers, &header)?)?;
                let id = text(scheme, headers, &name("webhook-id"))?.to_owned();
                let header_of_time = name("webhook-timestamp");
                let timestamp = timestamp(header_of_time.clone(), text(scheme, headers, &header_of_time)?)?;
                Ok(Self { timestamp: Some(timestamp), id: Some(id), ..Self::of(header, signatures) })
            }
        }
    }

    fn of(header: HeaderName, signatures: Vec<Claimed>) -> Self {
        Self { header, signatures, timestamp: None, id: None, loose_times: Vec::new() }
    }

    /// What the scheme signs.
    pub(super) fn message(&self, scheme: &SignatureScheme, body: &[u8]) -> Vec<u8> {
        let id = self.id.as_deref().map(str::as_bytes);
        let time = self.timestamp.as_ref().map(|timestamp| timestamp.written.as_bytes());
        match scheme {
            SignatureScheme::Fraiseql | SignatureScheme::Stripe { .. } => joined(&[time.unwrap_or_default(), body]),
            SignatureScheme::StandardWebhooks => joined(&[id.unwrap_or_default(), time.unwrap_or_default(), body]),
            SignatureScheme::Github | SignatureScheme::Hmac { .. } | SignatureScheme::None => body.to_vec(),
        }
    }

    /// Whether `key` made one of the signatures over `message`.
    pub(super) fn is_signed(&self, key: &VerifyKey, message: &[u8]) -> bool {
        let of_kind = self.signatures.iter().filter(|signature| signature.version == key.version());
        of_kind.into_iter().any(|signature| key.verifies(message, &signature.bytes))
    }
}

/// Parts with a full stop between them.
pub(super) fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b'.')
}

fn text<'a>(scheme: &SignatureScheme, headers: &'a HeaderMap, header: &HeaderName) -> Result<&'a str, VerifyError> {
    let value = headers.get(header).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| {
        let other = scheme_of(headers).filter(|other| other.name() != scheme.name());
        let other = other.and_then(|other| SchemeName::parse(other.name()).ok());
        VerifyError::Missing { header: header.clone(), other }
    })
}

fn loose_times(headers: &HeaderMap) -> Vec<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    ["x-timestamp", "webhook-timestamp"].into_iter().filter_map(text).collect()
}

fn timestamp(header: HeaderName, written: &str) -> Result<ClaimedTime, VerifyError> {
    let Ok(seconds) = written.parse::<i64>() else { return Err(VerifyError::TimestampFormat { header }) };
    if seconds > SECONDS_MAX {
        return Err(VerifyError::Milliseconds { header });
    }
    Ok(ClaimedTime { header, written: written.to_owned(), seconds })
}

fn digest_of(digits: &str) -> Option<Claimed> {
    let lower = !digits.bytes().any(|digit| digit.is_ascii_uppercase());
    let bytes = hex::decode(digits).ok().filter(|bytes| lower && bytes.len() == 32)?;
    Some(Claimed { version: "v1", bytes })
}

fn stripe(header: &HeaderName, written: &str) -> Result<Claim, VerifyError> {
    let expected = "`t=`, Unix seconds, and `,v1=` with 64 lower-case hex digits, once for each secret";
    let wrong = || format_error(SchemeName::Stripe, header, expected, written);
    let (mut time, mut signatures) = (None, Vec::new());
    for part in written.split(',').take(SIGNATURES_MAX) {
        match part.split_once('=') {
            Some(("t", seconds)) => time = Some(timestamp(header.clone(), seconds)?),
            Some(("v1", digits)) => signatures.push(digest_of(digits).ok_or_else(wrong)?),
            // Stripe adds schemes of its own; who does not know them leaves them out.
            _ => {}
        }
    }
    match (time, signatures.is_empty()) {
        (Some(time), false) => Ok(Claim { timestamp: Some(time), ..Claim::of(header.clone(), signatures) }),
        _ => Err(wrong()),
    }
}

fn standard_webhooks(header: &HeaderName, written: &str) -> Result<Vec<Claimed>, VerifyError> {
    let expected = "`v1,` or `v1a,` with base64, separated by spaces";
    let wrong = || format_error(SchemeName::StandardWebhooks, header, expected, written);
    let mut signatures = Vec::new();
    for one in written.split(' ').take(SIGNATURES_MAX) {
        let (version, text) = one.split_once(',').ok_or_else(wrong)?;
        let version = match version {
            "v1" => "v1",
            "v1a" => "v1a",
            _ => continue,
        };
        signatures.push(Claimed { version, bytes: STANDARD.decode(text).map_err(|_| wrong())? });
    }
    if signatures.is_empty() { Err(wrong()) } else { Ok(signatures) }
}

/// A signature that another scheme writes so is told of.
fn format_error(scheme: SchemeName, header: &HeaderName, expected: &'static str, written: &str) -> VerifyError {
    let other = if written.starts_with("t=") {
        Some(SchemeName::Stripe)
    } else if written.starts_with("v1,") || written.starts_with("v1a,") {
        Some(SchemeName::StandardWebhooks)
    } else if written.strip_prefix("sha256=").is_some_and(|digits| digest_of(digits).is_some()) {
        Some(if header.as_str().starts_with("x-hub") { SchemeName::Github } else { SchemeName::Fraiseql })
    } else {
        digest_of(written).map(|_| SchemeName::Hmac)
    };
    let other = other.filter(|other| *other != scheme);
    VerifyError::SignatureFormat { header: header.clone(), expected, other }
}
