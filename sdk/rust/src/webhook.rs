//! What a plugin returns.

use serde::Serialize;

use crate::bindings::wirehook::plugin::types;

/// One request for the host to sign, deliver and retry.
///
/// ```
/// # fn build() -> Result<wirehook_sdk::Webhook, serde_json::Error> {
/// # use wirehook_sdk::Webhook;
/// let webhook = Webhook::json(&["anything", "that", "serializes"])?
///     .endpoint("warehouse")        // default: the plugin's first endpoint
///     .key("line-1")                // default: the position in the result
///     .header("X-Shop", "berlin");
/// # Ok(webhook) }
/// # build().unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "a webhook is sent only when the plugin returns it"]
pub struct Webhook {
    endpoint: Option<String>,
    key: Option<String>,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Webhook {
    /// A webhook whose body is `value` as compact JSON.
    ///
    /// # Errors
    /// `value` does not serialize, such as a map whose keys are no strings. Through `?` that rejects the event.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(Self::bytes)
    }

    /// A webhook with this body. The content type is `application/json` unless [`Webhook::content_type`] says
    /// otherwise.
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self { endpoint: None, key: None, content_type: None, headers: Vec::new(), body: body.into() }
    }

    /// Sends it to the endpoint of this name in the host's settings, instead of the plugin's first. A name that the
    /// plugin was not given is a dead letter `endpoint_unknown`.
    pub fn endpoint(mut self, name: impl Into<String>) -> Self {
        self.endpoint = Some(name.into());
        self
    }

    /// Tells it from the event's other webhooks for the same endpoint, instead of its position: for results whose order
    /// may change from try to try. At most 256 bytes, and unique for its endpoint.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header. Those of the connection, of identity and of the signature belong to the host: a webhook that
    /// names one is a dead letter `header_reserved`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the content type, instead of `application/json`.
    pub fn content_type(mut self, value: impl Into<String>) -> Self {
        self.content_type = Some(value.into());
        self
    }

    /// The body, for tests.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON, for tests.
    ///
    /// # Panics
    /// The body is not JSON.
    #[cfg(not(target_arch = "wasm32"))]
    #[track_caller]
    pub fn body_json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is not JSON: {error}: {}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// The endpoint's name, for tests.
    pub fn endpoint_name(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The key, for tests.
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The headers in order, for tests.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    pub(crate) fn into_contract(self) -> types::Webhook {
        types::Webhook {
            endpoint: self.endpoint,
            key: self.key,
            content_type: self.content_type,
            headers: self.headers,
            body: self.body,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::Webhook;

    #[test]
    fn a_bare_webhook_leaves_the_rest_to_the_host() {
        let webhook = Webhook::json(&json!({"a": 1})).unwrap().into_contract();
        assert_eq!(webhook.body, br#"{"a":1}"#);
        assert_eq!((webhook.endpoint, webhook.key, webhook.content_type), (None, None, None));
        assert!(webhook.headers.is_empty());
    }

    #[test]
    fn everything_set_reaches_the_contract() {
        let webhook = Webhook::bytes("<a/>")
            .endpoint("warehouse")
            .key("line-1")
            .content_type("application/xml")
            .header("X-Shop", "berlin")
            .header("X-Shop", "paris")
            .into_contract();
        assert_eq!(webhook.body, b"<a/>");
        assert_eq!(webhook.endpoint.as_deref(), Some("warehouse"));
        assert_eq!(webhook.key.as_deref(), Some("line-1"));
        assert_eq!(webhook.content_type.as_deref(), Some("application/xml"));
        assert_eq!(
            webhook.headers,
            [("X-Shop".to_owned(), "berlin".to_owned()), ("X-Shop".to_owned(), "paris".to_owned())]
        );
    }
}
