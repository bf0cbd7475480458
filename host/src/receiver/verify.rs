//! What a receiver is to check, written from the schemes' specifications and not from our own signer.

use http::{HeaderMap, HeaderName};

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::settings::{SchemeName, SignatureScheme};

mod claim;
mod key;
mod json;
mod hint;

pub use claim::scheme_of;
pub use hint::{HINT_BODY_BYTES_MAX, Hint};
pub use key::UnusableSecret;

use claim::Claim;
use key::VerifyKey;

/// How far a request's timestamp may be from the receiver's clock, either way.
pub const TOLERANCE_SECONDS: i64 = 300;

/// Why a request is not to be trusted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// The scheme signs nothing.
    #[error("the scheme none signs nothing")]
    Unsigned,
    /// A header that the scheme sends is not there, or is not text.
    #[error("the header `{header}` is missing{}", other_scheme(*.other))]
    Missing {
        /// Which.
        header: HeaderName,
        /// The scheme whose headers are there.
        other: Option<SchemeName>,
    },
    /// The timestamp is no whole number.
    #[error("`{header}` is not Unix seconds in decimal digits")]
    TimestampFormat {
        /// Where it stands.
        header: HeaderName,
    },
    /// The timestamp is a thousand times too large.
    #[error("`{header}` is in milliseconds, and has to be in seconds")]
    Milliseconds {
        /// Where it stands.
        header: HeaderName,
    },
    /// The signature is something else than the scheme writes.
    #[error("`{header}` is not {expected}{}", other_scheme(*.other))]
    SignatureFormat {
        /// Where it stands.
        header: HeaderName,
        /// What it should be.
        expected: &'static str,
        /// The scheme that writes it so.
        other: Option<SchemeName>,
    },
    /// No signature of the kind that the secret verifies.
    #[error("`{header}` has no `{version}` signature, which is what a secret of this kind verifies")]
    Version {
        /// Where it stands.
        header: HeaderName,
        /// Which is missing.
        version: &'static str,
    },
    /// The scheme can't verify with the secret.
    #[error("the secret {0}")]
    Secret(UnusableSecret),
    /// The clocks are apart, or the request is replayed.
    #[error(
        "`{header}` is {seconds} s {direction} this clock, more than {TOLERANCE_SECONDS} s; {rest}",
        direction = if *.seconds > 0 { "behind" } else { "ahead of" },
        seconds = seconds.abs(),
        rest = signature_besides(.mismatch.as_deref())
    )]
    Stale {
        /// Where the timestamp stands.
        header: HeaderName,
        /// How old it is; negative where it lies ahead.
        seconds: i64,
        /// `None` where the signature itself is right.
        mismatch: Option<Vec<Hint>>,
    },
    /// Another secret, or other bytes.
    #[error("the signature does not match{}", hint::text(.0))]
    Mismatch(Vec<Hint>),
}

impl VerifyError {
    /// What went wrong, as one word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Missing { .. } => "header_missing",
            Self::TimestampFormat { .. } => "timestamp_format",
            Self::Milliseconds { .. } => "timestamp_milliseconds",
            Self::SignatureFormat { .. } => "signature_format",
            Self::Version { .. } => "signature_version",
            Self::Secret(_) => "secret_unusable",
            Self::Stale { .. } => "stale",
            Self::Mismatch(_) => "mismatch",
        }
    }

    /// What was signed instead, where one can tell.
    pub fn hints(&self) -> &[Hint] {
        match self {
            Self::Mismatch(hints) | Self::Stale { mismatch: Some(hints), .. } => hints,
            _ => &[],
        }
    }
}

fn signature_besides(mismatch: Option<&[Hint]>) -> String {
    match mismatch {
        None => "the signature itself is right: the clocks are apart, or the request is an old one".to_owned(),
        Some(hints) => format!("nor does the signature match{}", hint::text(hints)),
    }
}

fn other_scheme(other: Option<SchemeName>) -> String {
    other.map(|scheme| format!("; the request looks like one of the scheme {scheme}")).unwrap_or_default()
}

/// Checks a request as `scheme` tells receivers to, at `now`. A signature by any of `secrets` is good; what is said where none
/// is, is about the first.
///
/// # Errors
/// What a receiver would refuse it for, and where one can tell, what was signed instead.
pub fn verify(
    scheme: &SignatureScheme,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Secret],
    now: Timestamp,
) -> Result<(), VerifyError> {
    let claim = Claim::read(scheme, headers)?;
    let mut first = None;
    for secret in secrets {
        match judge(scheme, &claim, body, secret) {
            Ok(()) => return stale(&claim, now, None).map_or(Ok(()), Err),
            Err(error) => {
                first.get_or_insert((error, secret));
            }
        }
    }
    match first {
        Some((VerifyError::Mismatch(_), secret)) => {
            let hints = hint::explain(scheme, &claim, body, secret);
            Err(stale(&claim, now, Some(&hints)).unwrap_or(VerifyError::Mismatch(hints)))
        }
        Some((error, _)) => Err(error),
        None => Err(VerifyError::Secret(UnusableSecret::Empty)),
    }
}

fn judge(scheme: &SignatureScheme, claim: &Claim, body: &[u8], secret: &Secret) -> Result<(), VerifyError> {
    let key = VerifyKey::new(scheme, secret.expose()).map_err(VerifyError::Secret)?;
    let version = key.version();
    if !claim.signatures.iter().any(|signature| signature.version == version) {
        return Err(VerifyError::Version { header: claim.header.clone(), version });
    }
    let message = claim.message(scheme, body);
    if claim.is_signed(&key, &message) { Ok(()) } else { Err(VerifyError::Mismatch(Vec::new())) }
}

fn stale(claim: &Claim, now: Timestamp, mismatch: Option<&[Hint]>) -> Option<VerifyError> {
    let timestamp = claim.timestamp.as_ref()?;
    let age_ms = now.0.saturating_sub(timestamp.seconds.saturating_mul(1000));
    (age_ms.saturating_abs() > TOLERANCE_SECONDS * 1000).then(|| VerifyError::Stale {
        header: timestamp.header.clone(),
        seconds: age_ms / 1000,
        mismatch: mismatch.map(<[Hint]>::to_vec),
    })
}

#[cfg(test)]
mod tests;
