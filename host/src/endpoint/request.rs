//! What is sent: the endpoint's own headers, the webhook's, and the signature over the body.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::settings::EndpointSettings;
use crate::store::ClaimedDelivery;

use super::signature::{InvalidSecret, Signer};

/// The delivery's id: the same on every attempt.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");

/// What the host calls itself.
pub(crate) const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("wirehook/", env!("CARGO_PKG_VERSION")));

/// Whatever the response is, it is taken.
pub(crate) const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// Names no plugin may set, beside those that begin with `webhook-` and the endpoint's own: hop-by-hop and framing,
/// credentials, and the signature headers of every scheme; the header that an endpoint chose for its signature is its own.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "stripe-signature",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-signature",
    "x-timestamp",
];

/// Whether `name` belongs to the host on every endpoint. Letter case does not matter.
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("webhook-") || RESERVED.binary_search(&name.as_str()).is_ok()
}

/// What every attempt at one endpoint has in common.
pub(super) struct RequestTemplate {
    uri: Uri,
    own_headers: HeaderMap,
    signer: Signer,
}

/// A header that HTTP can't carry. The value is never told: it may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("header `{name}` can't be sent: its {part} has characters that HTTP does not allow")]
pub struct InvalidHeader {
    name: String,
    part: &'static str,
}

impl RequestTemplate {
    /// Checks the endpoint's own headers once and marks their values as secrets.
    pub(super) fn new(settings: &EndpointSettings, uri: Uri, signer: Signer) -> Result<Self, InvalidHeader> {
        let mut own_headers = HeaderMap::with_capacity(settings.headers.len());
        for (name, secret) in &settings.headers {
            let (name, mut value) = parsed(name, Secret::expose(secret))?;
            value.set_sensitive(true);
            own_headers.append(name, value);
        }
        Ok(Self { uri, own_headers, signer })
    }

    /// Whether a plugin may not set the header `name` here.
    pub(super) fn reserves(&self, name: &str) -> bool {
        is_reserved(name) || self.own_headers.contains_key(name) || self.signer.reserves(name)
    }

    /// Signs with `secret` from the next request on, in place of the one at `index` in the settings.
    pub(super) fn renew_secret(&self, index: usize, secret: &Secret) -> Result<(), InvalidSecret> {
        self.signer.replace(index, secret)
    }

    /// The request of one attempt, signed for `now`. The body is shared, not copied.
    pub(super) fn request(
        &self,
        delivery: &ClaimedDelivery,
        now: Timestamp,
    ) -> Result<Request<Full<Bytes>>, InvalidHeader> {
        let mut request = Request::new(Full::new(delivery.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers(delivery, now)?;
        Ok(request)
    }

    /// The endpoint's own headers win over the plugin's, which may have been stored before the operator set them.
    fn headers(&self, delivery: &ClaimedDelivery, now: Timestamp) -> Result<HeaderMap, InvalidHeader> {
        let mut headers = self.own_headers.clone();
        headers.reserve(delivery.headers.len() + 6);
        for (name, value) in &delivery.headers {
            let (name, value) = parsed(name, value.as_bytes())?;
            if name != header::CONTENT_TYPE && !self.reserves(name.as_str()) {
                headers.append(name, value);
            }
        }
        if !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, parsed_value("content-type", delivery.content_type.as_bytes())?);
        }
        headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
        headers.entry(header::ACCEPT).or_insert(ANYTHING);
        headers.insert(WEBHOOK_ID, parsed_value("webhook-id", delivery.id.as_str().as_bytes())?);
        self.signer.sign(delivery.id.as_str(), now, &delivery.body, &mut headers);
        Ok(headers)
    }
}

/// A header as HTTP has it.
pub(crate) fn parsed(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), InvalidHeader> {
    let parsed_name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| InvalidHeader { name: name.escape_debug().to_string(), part: "name" })?;
    Ok((parsed_name, parsed_value(name, value)?))
}

/// UTF-8 passes as it is: HTTP takes any byte but control characters.
fn parsed_value(name: &str, value: &[u8]) -> Result<HeaderValue, InvalidHeader> {
    HeaderValue::from_bytes(value).map_err(|_| InvalidHeader { name: name.to_owned(), part: "value" })
}

#[cfg(test)]
mod tests;
