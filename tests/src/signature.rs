//! The page's signature scheme, written a second time: it shares no code with the host.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// `sha256=` and the hex HMAC-SHA256 of `{timestamp}.{body}`.
pub fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn openssl_agrees() {
        // printf '1772460000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret of thirty-two characters'
        let expected = "sha256=ae5fab89a45653b78708bf4850b1a4b1eff67ab6fadbf9bce67d0c1fd9789f27";
        assert_eq!(super::sign("a secret of thirty-two characters", "1772460000", br#"{"a":1}"#), expected);
    }
}
