//! A secret as a receiver takes it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::Sha256;

use super::hint::Hint;
use crate::settings::SignatureScheme;

const ED25519_BYTES: usize = 32;

/// Padding may be missing, as the libraries of Standard Webhooks allow.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a signature is checked with.
pub(super) enum VerifyKey {
    Hmac(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a scheme can't verify with a secret, as a predicate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnusableSecret {
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// Of no kind that Standard Webhooks knows.
    #[error("is neither `whsec_`, `whpk_` nor `whsk_` with base64 behind it")]
    NotStandard,
    /// Of the wrong length.
    #[error("is no ed25519 key")]
    NotEd25519,
}

impl VerifyKey {
    pub(super) fn new(scheme: &SignatureScheme, written: &[u8]) -> Result<Self, UnusableSecret> {
        if written.is_empty() {
            return Err(UnusableSecret::Empty);
        }
        if *scheme != SignatureScheme::StandardWebhooks {
            return Ok(Self::Hmac(written.to_vec()));
        }
        if let Some(text) = written.strip_prefix(b"whpk_") {
            let key = decode(text).filter(|key| key.len() == ED25519_BYTES);
            return key.map(Self::Ed25519).ok_or(UnusableSecret::NotEd25519);
        }
        if let Some(text) = written.strip_prefix(b"whsk_") {
            return decode(text).and_then(|key| public(&key)).map(Self::Ed25519).ok_or(UnusableSecret::NotEd25519);
        }
        let text = written.strip_prefix(b"whsec_").unwrap_or(written);
        decode(text).filter(|key| !key.is_empty()).map(Self::Hmac).ok_or(UnusableSecret::NotStandard)
    }

    /// What a sender may have made of the secret instead.
    pub(super) fn misread(scheme: &SignatureScheme, written: &[u8]) -> Vec<(Hint, Self)> {
        let mut read = Vec::new();
        let trimmed = written.trim_ascii();
        if trimmed.len() < written.len() {
            read.extend(Self::new(scheme, trimmed).map(|key| (Hint::SecretTrimmed, key)));
        }
        let stripped = trimmed.strip_prefix(b"whsec_");
        if *scheme == SignatureScheme::StandardWebhooks {
            read.push((Hint::SecretVerbatim, Self::Hmac(written.to_vec())));
            read.extend(stripped.map(|text| (Hint::SecretNotDecoded, Self::Hmac(text.to_vec()))));
        } else {
            read.push((Hint::SecretNewline, Self::Hmac([written, b"\n"].concat())));
            read.extend(stripped.map(|text| (Hint::SecretUnprefixed, Self::Hmac(text.to_vec()))));
            read.extend(stripped.and_then(decode).map(|key| (Hint::SecretDecoded, Self::Hmac(key))));
        }
        read
    }

    /// The kind of signature that it verifies, as Standard Webhooks calls it.
    pub(super) fn version(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "v1",
            Self::Ed25519(_) => "v1a",
        }
    }

    /// Takes the same time wherever digests differ.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => Hmac::<Sha256>::new_from_slice(key).is_ok_and(|mut mac| {
                mac.update(message);
                mac.verify_slice(signature).is_ok()
            }),
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
        }
    }
}

/// The public key of a secret one, which is its seed, perhaps with the public key behind it.
fn public(key: &[u8]) -> Option<Vec<u8>> {
    let seed = key.get(..ED25519_BYTES)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let public = pair.public_key().as_ref().to_vec();
    (key.len() == ED25519_BYTES || key[ED25519_BYTES..] == public).then_some(public)
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}
