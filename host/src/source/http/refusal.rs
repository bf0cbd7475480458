//! Why a request is refused: a status, and a reason in JSON.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{BODY_TIMEOUT, PATH};

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A refused request. Nothing of it was accepted.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: String,
    /// Which event of an array, from 0.
    pub(super) index: Option<usize>,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), index: None }
    }

    pub(super) fn at(mut self, index: Option<usize>) -> Self {
        self.index = index;
        self
    }

    pub(super) fn bad_request(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer` with the source's token")
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is nothing here; send events to POST {PATH}"))
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("send events with POST {PATH}"))
    }

    pub(super) fn timeout() -> Self {
        let seconds = BODY_TIMEOUT.as_secs();
        Self::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {seconds} s"))
    }

    pub(super) fn event_too_large(bytes: usize, bytes_max: usize) -> Self {
        let error = format!("the event has {bytes} bytes; the limit is {bytes_max} (`[limits] event`)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    pub(super) fn body_too_large(bytes_max: usize) -> Self {
        let error = format!("the body has more than {bytes_max} bytes; send it in several requests");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    pub(super) fn too_many_requests() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests are in flight; send it again in a moment")
    }

    pub(super) fn unavailable(error: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "error": self.error });
        if let Some(index) = self.index {
            body["index"] = index.into();
        }
        let mut response = answer(self.status, &body);
        let extra = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, HeaderValue::from_static("POST"))),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, RETRY_AFTER)),
            _ => None,
        };
        response.headers_mut().extend(extra);
        response
    }
}

/// An answer in JSON, with a newline at its end for whoever reads it on a terminal.
pub(super) fn answer(status: StatusCode, said: &impl serde::Serialize) -> Response {
    match serde_json::to_string(said) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// JSON, or no type at all; not compressed.
pub(super) fn content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |error: &str| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return refused("send the body without Content-Encoding");
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json { Ok(()) } else { refused("send JSON, with `Content-Type: application/json`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_json_is_taken() {
        let check = |name: header::HeaderName, value: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert_eq!(content_type(&headers).is_ok(), expected, "{value}");
        };
        assert!(content_type(&HeaderMap::new()).is_ok());
        check(header::CONTENT_TYPE, "application/json", true);
        check(header::CONTENT_TYPE, "Application/JSON; charset=utf-8", true);
        check(header::CONTENT_TYPE, "application/cloudevents+json", true);
        check(header::CONTENT_TYPE, "text/plain", false);
        check(header::CONTENT_TYPE, "application/x-www-form-urlencoded", false);
        check(header::CONTENT_TYPE, "", false);
        check(header::CONTENT_ENCODING, "gzip", false);
        check(header::CONTENT_ENCODING, "identity", true);
    }
}
