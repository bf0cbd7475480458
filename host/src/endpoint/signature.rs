//! What a receiver checks: the endpoint's signature over the exact bytes sent. Each scheme: `docs/signatures.md`.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::settings::{SignatureScheme, SigningSecret};
use crate::sync::lock;

mod key;

pub use key::{InvalidSecret, check_secret, public_key};

use key::{Key, Signed};

/// `fraiseql` and `hmac`: the signature.
pub const X_SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
/// `fraiseql`: the Unix seconds of this attempt, as signed.
pub const X_TIMESTAMP: HeaderName = HeaderName::from_static("x-timestamp");
/// `github`: the signature.
pub const X_HUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
/// `standard-webhooks`: the Unix seconds of this attempt, as signed.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// `standard-webhooks`: the signatures, separated by spaces.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Signs the attempts of one endpoint.
pub(super) struct Signer {
    scheme: SignatureScheme,
    // Replaced whole when a secret's file changes; an attempt that is under way signs with what it took.
    keys: Mutex<Arc<[SigningKey]>>,
}

/// A secret, ready to sign.
#[derive(Clone)]
struct SigningKey {
    key: Key,
    expires_at: Option<Timestamp>,
}

/// Why an endpoint can't sign.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A scheme that signs has nothing to sign with.
    #[error("it has no secret to sign with; set `secret`, or `signature = \"none\"`")]
    NoSecret,
    /// A secret that the scheme can't use.
    #[error("its secret number {number} {source}; {}", source.help())]
    Invalid {
        /// From 1, in the order of the settings.
        number: usize,
        /// What is wrong with it.
        source: InvalidSecret,
    },
}

/// Whether a header belongs to a signature of any scheme, so that an endpoint may choose it for its own signature.
pub fn is_signature_header(name: &str) -> bool {
    ["x-signature", "x-hub-signature", "x-hub-signature-256", "stripe-signature"].contains(&name)
}

impl Signer {
    /// A signer for `scheme` with `secrets`, the newest first.
    pub(super) fn new(scheme: SignatureScheme, secrets: &[SigningSecret]) -> Result<Self, SignerError> {
        let key = |(number, secret): (usize, &SigningSecret)| {
            let key = Key::new(&scheme, &secret.secret).map_err(|source| SignerError::Invalid { number, source })?;
            Ok(SigningKey { key, expires_at: secret.expires_at })
        };
        let keys: Arc<[_]> = match scheme {
            SignatureScheme::None => Arc::from([]),
            _ => (1..).zip(secrets).map(key).collect::<Result<_, _>>()?,
        };
        if keys.is_empty() && scheme != SignatureScheme::None {
            return Err(SignerError::NoSecret);
        }
        Ok(Self { scheme, keys: Mutex::new(keys) })
    }

    /// Signs with `secret` from the next attempt on, in place of the one that is at `index` in the settings.
    pub(super) fn replace(&self, index: usize, secret: &Secret) -> Result<(), InvalidSecret> {
        let key = Key::new(&self.scheme, secret)?;
        let mut keys = lock(&self.keys);
        let mut changed = keys.to_vec();
        if let Some(place) = changed.get_mut(index) {
            place.key = key;
        }
        *keys = changed.into();
        Ok(())
    }

    /// Whether `name` is the header that the operator chose for the signature.
    pub(super) fn reserves(&self, name: &str) -> bool {
        self.scheme.chosen_header().is_some_and(|header| header.as_str().eq_ignore_ascii_case(name))
    }

    /// Adds the scheme's headers for an attempt at the webhook `id` that is made at `now`.
    ///
    /// Every secret that has not expired signs, the newest first, where the scheme carries several signatures; else the
    /// newest alone.
    pub(super) fn sign(&self, id: &str, now: Timestamp, body: &[u8], headers: &mut HeaderMap) {
        let keys = Arc::clone(&lock(&self.keys));
        let mut active = keys.iter().filter(|key| key.signs_at(now)).map(|key| &key.key);
        let time = now.unix_seconds().to_string();
        let timed: [&[u8]; 3] = [time.as_bytes(), b".", body];
        match &self.scheme {
            SignatureScheme::None => {}
            SignatureScheme::Fraiseql => {
                let Some(newest) = active.next() else { return };
                headers.insert(X_SIGNATURE, value(&format!("sha256={}", hex(&newest.sign(&timed)))));
                headers.insert(X_TIMESTAMP, value(&time));
            }
            SignatureScheme::StandardWebhooks => {
                let message: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
                let list: Vec<_> = active.map(|key| versioned(&key.sign(&message))).collect();
                headers.insert(WEBHOOK_TIMESTAMP, value(&time));
                headers.insert(WEBHOOK_SIGNATURE, value(&list.join(" ")));
            }
            SignatureScheme::Stripe { header } => {
                let list: String = active.map(|key| format!(",v1={}", hex(&key.sign(&timed)))).collect();
                headers.insert(header.clone(), value(&format!("t={time}{list}")));
            }
            SignatureScheme::Github => {
                let Some(newest) = active.next() else { return };
                headers.insert(X_HUB_SIGNATURE, value(&format!("sha256={}", hex(&newest.sign(&[body])))));
            }
            SignatureScheme::Hmac { header } => {
                let Some(newest) = active.next() else { return };
                headers.insert(header.clone(), value(&hex(&newest.sign(&[body]))));
            }
        }
    }
}

impl SigningKey {
    fn signs_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

fn hex(signed: &Signed) -> String {
    hex::encode(signed.bytes())
}

fn versioned(signed: &Signed) -> String {
    format!("{},{}", signed.version(), STANDARD.encode(signed.bytes()))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits, hex and base64 are a valid header value")
}

#[cfg(test)]
mod tests;
