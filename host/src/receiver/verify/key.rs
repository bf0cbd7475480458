//! A secret as a receiver takes it.

use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::Sha256;

use super::hint::Hint;
use crate::secret::standard::{self, Standard, Unreadable};
use crate::settings::SignatureScheme;

const ED25519_BYTES: usize = 32;

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
        match standard::read(written) {
            Ok(Standard::Hmac(key)) => Ok(Self::Hmac(key)),
            Ok(Standard::Public(key)) if key.len() == ED25519_BYTES => Ok(Self::Ed25519(key)),
            Ok(Standard::Signing(key)) => public(&key).map(Self::Ed25519).ok_or(UnusableSecret::NotEd25519),
            Ok(Standard::Public(_)) => Err(UnusableSecret::NotEd25519),
            Err(Unreadable::Empty) => Err(UnusableSecret::Empty),
            Err(Unreadable::Prefix | Unreadable::Base64) => Err(UnusableSecret::NotStandard),
        }
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
            let decoded = stripped.and_then(|_| standard::read(trimmed).ok());
            if let Some(Standard::Hmac(key)) = decoded {
                read.push((Hint::SecretDecoded, Self::Hmac(key)));
            }
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
