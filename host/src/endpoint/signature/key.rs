//! A secret as a scheme takes it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::Sha256;

use crate::secret::Secret;
use crate::secret::standard::{self, HMAC_KEY_BYTES_MIN, Standard, Unreadable};
use crate::settings::SignatureScheme;

/// An ed25519 key's seed, and its public key, which some write behind it.
const ED25519_PART_BYTES: usize = 32;

/// What signs.
#[derive(Clone)]
pub(super) enum Key {
    // Keyed once: an attempt clones the state and never touches the secret.
    Hmac(Hmac<Sha256>),
    Ed25519(Arc<Ed25519KeyPair>),
}

/// A signature, not yet written as its scheme does.
pub(super) enum Signed {
    Hmac([u8; 32]),
    Ed25519(ring::signature::Signature),
}

/// Why a scheme can't use a secret, as a predicate. The secret is never told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidSecret {
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// The scheme standard-webhooks takes its own secrets only.
    #[error(
        "is not a secret of standard-webhooks: it has no `whsec_` or `whsk_` before it, and is not base64 of at least {HMAC_KEY_BYTES_MIN} bytes"
    )]
    Prefix,
    /// What a receiver is given.
    #[error("is a public key, `whpk_`, which signs nothing")]
    PublicKey,
    /// After the prefix.
    #[error("is not base64 after its prefix")]
    Base64,
    /// Neither a seed, nor a seed and the public key that belongs to it.
    #[error("is not an ed25519 key when decoded: 32 bytes, or 64 with the public key behind them")]
    Ed25519,
}

impl InvalidSecret {
    /// What to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::Empty => "put the secret there",
            Self::PublicKey => "put the `whsk_` key there; the receiver verifies with this one",
            Self::Prefix | Self::Base64 => {
                "copy it whole, as the receiver has it, or make one with: echo \"whsec_$(openssl rand -base64 32)\""
            }
            Self::Ed25519 => "make one with: echo \"whsk_$(openssl rand -base64 32)\"",
        }
    }
}

/// Whether `scheme` can sign with `secret`.
///
/// # Errors
/// What is wrong with it.
pub fn check_secret(scheme: &SignatureScheme, secret: &Secret) -> Result<(), InvalidSecret> {
    Key::new(scheme, secret).map(drop)
}

/// What receivers verify with, where `secret` is one that only signs: `whpk_` and base64.
pub fn public_key(scheme: &SignatureScheme, secret: &Secret) -> Option<String> {
    match Key::new(scheme, secret) {
        Ok(Key::Ed25519(pair)) => Some(format!("whpk_{}", STANDARD.encode(pair.public_key()))),
        _ => None,
    }
}

impl Key {
    /// `secret` as `scheme` takes it: standard-webhooks decodes what stands behind the prefix, every other scheme takes the
    /// bytes as they are written, whatever they look like, as Stripe's own `whsec_` is taken.
    pub(super) fn new(scheme: &SignatureScheme, secret: &Secret) -> Result<Self, InvalidSecret> {
        let written = secret.expose();
        if written.is_empty() {
            return Err(InvalidSecret::Empty);
        }
        if *scheme != SignatureScheme::StandardWebhooks {
            return Self::hmac(written);
        }
        match standard::read(written) {
            Ok(Standard::Hmac(key)) => Self::hmac(&key),
            Ok(Standard::Signing(key)) => Self::ed25519(&key),
            Ok(Standard::Public(_)) => Err(InvalidSecret::PublicKey),
            Err(Unreadable::Empty) => Err(InvalidSecret::Empty),
            Err(Unreadable::Prefix) => Err(InvalidSecret::Prefix),
            Err(Unreadable::Base64) => Err(InvalidSecret::Base64),
        }
    }

    fn hmac(key: &[u8]) -> Result<Self, InvalidSecret> {
        Hmac::new_from_slice(key).map(Self::Hmac).map_err(|_| InvalidSecret::Empty)
    }

    fn ed25519(key: &[u8]) -> Result<Self, InvalidSecret> {
        let pair = match key.split_at_checked(ED25519_PART_BYTES) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err(InvalidSecret::Ed25519),
        };
        pair.map(|pair| Self::Ed25519(Arc::new(pair))).map_err(|_| InvalidSecret::Ed25519)
    }

    /// Signs the parts as if they were one.
    pub(super) fn sign(&self, message: &[&[u8]]) -> Signed {
        match self {
            Self::Hmac(keyed) => {
                let mut mac = keyed.clone();
                message.iter().for_each(|part| mac.update(part));
                Signed::Hmac(mac.finalize().into_bytes().into())
            }
            // Ed25519 hashes its message twice, so that the parts have to stand together once.
            Self::Ed25519(pair) => Signed::Ed25519(pair.sign(&message.concat())),
        }
    }
}

impl Signed {
    /// As Standard Webhooks calls it.
    pub(super) fn version(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "v1",
            Self::Ed25519(_) => "v1a",
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Hmac(digest) => digest,
            Self::Ed25519(signature) => signature.as_ref(),
        }
    }
}
