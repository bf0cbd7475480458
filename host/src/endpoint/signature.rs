//! What a receiver checks: the endpoint's signature over the exact bytes sent.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::settings::SignatureProfile;

/// FraiseQL's page: `sha256=` and the lower-case hex of HMAC-SHA256 over `{timestamp}.{body}`.
pub const X_SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
/// FraiseQL's page: the Unix seconds of this attempt, as signed.
pub const X_TIMESTAMP: HeaderName = HeaderName::from_static("x-timestamp");

const PREFIX: &[u8] = b"sha256=";
const HEX_BYTES: usize = 64;

/// Signs the attempts of one endpoint.
pub(super) struct Signer {
    // Keyed once: an attempt clones the state and never touches the secret.
    keyed: Option<Hmac<Sha256>>,
}

/// A profile that signs has nothing to sign with.
#[derive(Debug, thiserror::Error)]
#[error("it has no secret to sign with; set `secret`, or `signature = \"none\"`")]
pub struct NoSecret;

impl Signer {
    /// A signer for `profile`.
    ///
    /// The profile `fraiseql` carries one signature: of several secrets the newest, which is the first, signs. A receiver
    /// takes the new secret beside the old one before the operator puts it first.
    pub(super) fn new(profile: SignatureProfile, secrets: &[Secret]) -> Result<Self, NoSecret> {
        let keyed = match profile {
            SignatureProfile::None => None,
            SignatureProfile::Fraiseql => {
                let newest = secrets.first().filter(|secret| !secret.is_empty()).ok_or(NoSecret)?;
                Some(Hmac::new_from_slice(newest.expose()).map_err(|_| NoSecret)?)
            }
        };
        Ok(Self { keyed })
    }

    /// Adds the profile's headers for an attempt made at `now`.
    pub(super) fn sign(&self, now: Timestamp, body: &[u8], headers: &mut HeaderMap) {
        let Some(keyed) = &self.keyed else { return };
        let timestamp = HeaderValue::from(now.unix_seconds());
        let mut mac = keyed.clone();
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        headers.insert(X_SIGNATURE, signature_value(&mac.finalize().into_bytes()));
        headers.insert(X_TIMESTAMP, timestamp);
    }
}

fn signature_value(digest: &[u8]) -> HeaderValue {
    let mut text = [0; PREFIX.len() + HEX_BYTES];
    text[..PREFIX.len()].copy_from_slice(PREFIX);
    hex::encode_to_slice(digest, &mut text[PREFIX.len()..]).expect("a SHA-256 is 32 bytes");
    HeaderValue::from_bytes(&text).expect("hex is a valid header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(secrets: &[&str], seconds: i64, body: &str) -> HeaderMap {
        let secrets: Vec<_> = secrets.iter().map(Secret::new).collect();
        let mut headers = HeaderMap::new();
        let signer = Signer::new(SignatureProfile::Fraiseql, &secrets).unwrap();
        signer.sign(Timestamp(seconds * 1000 + 999), body.as_bytes(), &mut headers);
        headers
    }

    #[test]
    fn signs_as_the_page_does() {
        // hmac.new(b"whsec", b"1767225600." + body, hashlib.sha256).hexdigest()
        let headers = signed(&["whsec"], 1_767_225_600, r#"{"event":"order.created"}"#);
        assert_eq!(headers[X_SIGNATURE], "sha256=f92006a5fc1185ea8f1c3abb0324fc43b64b380c25979f2b53ca26863e4fd4bc",);
        assert_eq!(headers[X_TIMESTAMP], "1767225600");
    }

    #[test]
    fn the_newest_secret_signs() {
        assert_eq!(signed(&["new", "old"], 1, "{}"), signed(&["new"], 1, "{}"));
        assert_ne!(signed(&["new", "old"], 1, "{}"), signed(&["old"], 1, "{}"));
    }

    #[test]
    fn each_attempt_signs_its_own_time() {
        assert_ne!(signed(&["s"], 1, "{}")[X_SIGNATURE], signed(&["s"], 2, "{}")[X_SIGNATURE]);
    }

    #[test]
    fn without_a_secret_only_the_profile_none_is_built() {
        assert!(Signer::new(SignatureProfile::Fraiseql, &[]).is_err());
        assert!(Signer::new(SignatureProfile::Fraiseql, &[Secret::new("")]).is_err());
        let mut headers = HeaderMap::new();
        Signer::new(SignatureProfile::None, &[]).unwrap().sign(Timestamp(0), b"{}", &mut headers);
        assert!(headers.is_empty());
    }
}
