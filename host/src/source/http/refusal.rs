//! Why a request is refused: a status, and a reason in JSON.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{BODY_PART_TIMEOUT, BODY_TIMEOUT, PATH};
use crate::door::WrongHost;
use crate::foreign;
use crate::metrics::Refused;

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A refused request. Nothing of it was accepted.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: String,
    /// Which event of an array, from 0.
    pub(super) index: Option<usize>,
    pub(super) reason: Refused,
}

impl Refusal {
    fn new(status: StatusCode, reason: Refused, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), index: None, reason }
    }

    pub(super) fn at(mut self, index: Option<usize>) -> Self {
        self.index = index;
        self
    }

    pub(super) fn bad_request(error: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Refused::Invalid, error)
    }

    pub(super) fn wrong_host(wrong: WrongHost) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, Refused::Host, wrong.to_string())
    }

    pub(super) fn cross_site() -> Self {
        let error = "a web page can't send events to a source without a token: leave out Origin and Sec-Fetch-Site, or give the source a token";
        Self::new(StatusCode::FORBIDDEN, Refused::CrossSite, error)
    }

    pub(super) fn idempotency_key(what: &str) -> Self {
        let error = format!("the Idempotency-Key {what}; send one of 1 to 256 printable ASCII characters");
        Self::new(StatusCode::BAD_REQUEST, Refused::IdempotencyKey, error)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Refused::Token, "send `Authorization: Bearer` with the source's token")
    }

    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Refused::NotFound,
            format!("there is nothing here; send events to POST {PATH}"),
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Refused::NotFound, format!("send events with POST {PATH}"))
    }

    pub(super) fn timeout() -> Self {
        let (whole, part) = (BODY_TIMEOUT.as_secs(), BODY_PART_TIMEOUT.as_secs());
        let error = format!("the body did not arrive within {whole} s, or nothing of it for {part} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, Refused::Timeout, error)
    }

    pub(super) fn event_too_large(bytes: usize, bytes_max: usize) -> Self {
        let error = format!("the event has {bytes} bytes; the limit is {bytes_max} (`[limits] event`)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Refused::TooLarge, error)
    }

    pub(super) fn body_too_large(bytes_max: usize) -> Self {
        let error = format!("the body has more than {bytes_max} bytes; send it in several requests");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Refused::TooLarge, error)
    }

    pub(super) fn too_many_requests() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            Refused::Busy,
            "too many requests are in flight; send it again in a moment",
        )
    }

    pub(super) fn unavailable(error: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Refused::Unavailable, error)
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
    let mut body = Vec::new();
    match foreign::write_json(&mut body, said) {
        Ok(()) => {
            body.push(b'\n');
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// JSON; no type at all only where it need not be `required`. Not compressed. What a CloudEvent with its attributes in
/// headers has for data may be of any type: no form sends such headers.
///
/// A page of another site can make a browser send what a form has, text, or nothing that says its type, without asking
/// (the Fetch standard's safelist). It can't make it send JSON.
pub(super) fn content_type(headers: &HeaderMap, required: bool, is_cloud_event: bool) -> Result<(), Refusal> {
    const JSON: &str =
        "send JSON, with the header `Content-Type: application/json` (curl: -H 'content-type: application/json')";
    let refused = |error: &str| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Refused::ContentType, error));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return refused("send the body without Content-Encoding");
    }
    if is_cloud_event {
        return Ok(());
    }
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) if !required => return Ok(()),
        _ => return refused(JSON),
    };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json { Ok(()) } else { refused(JSON) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_json_is_taken() {
        let check = |name: header::HeaderName, value: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert_eq!(content_type(&headers, true, false).is_ok(), expected, "{value}");
        };
        assert!(content_type(&HeaderMap::new(), false, false).is_ok());
        assert!(content_type(&HeaderMap::new(), true, false).is_err());
        let mut twice = HeaderMap::new();
        for value in ["application/json", "text/plain"] {
            twice.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
        }
        assert!(content_type(&twice, false, false).is_err());
        check(header::CONTENT_TYPE, "application/json", true);
        check(header::CONTENT_TYPE, "Application/JSON; charset=utf-8", true);
        check(header::CONTENT_TYPE, "application/cloudevents+json", true);
        check(header::CONTENT_TYPE, "application/cloudevents-batch+json", true);
        check(header::CONTENT_TYPE, "text/plain", false);
        check(header::CONTENT_TYPE, "multipart/form-data; boundary=x", false);
        check(header::CONTENT_TYPE, "text/plain; application/json", false);
        check(header::CONTENT_TYPE, "application/x-www-form-urlencoded", false);
        check(header::CONTENT_TYPE, "", false);
        let text = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        assert!(content_type(&text, true, true).is_ok());
        for (encoding, expected) in [("gzip", false), ("identity", true)] {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
            assert_eq!(content_type(&headers, false, false).is_ok(), expected, "{encoding}");
        }
    }
}
