//! Requests to other services, for what an event lacks. Needs the grant `http`: the sidecar asks for it with
//! `grants = ["http"]`, and the operator gives it together with the URLs that may be called. The operator's credentials are
//! added by the host; the plugin never holds them. Webhooks are not sent this way: they are returned.
//!
//! ```no_run
//! # use wirehook_sdk::{Failure, http::Request};
//! # fn rate() -> Result<f64, Failure> {
//! #[derive(serde::Deserialize)]
//! struct Rate {
//!     eur: f64,
//! }
//! let rate: Rate = Request::get("https://rates.example.com/v1/usd").header("Accept", "application/json").send()?.json()?;
//! # Ok(rate.eur)
//! # }
//! ```
//!
//! With `?`, what may work later ([`Error::is_temporary`]) becomes [`retry`](crate::retry), everything else
//! [`reject`](crate::reject). Waiting counts as the call's time: its deadline's ten-fold is the most that all requests of a
//! call may take together.
//!
//! Under `cargo test` no request is made: [`crate::test::answer_http`] says what comes back.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

/// A request to be made. At most 32 headers of 8 KiB and a body of 256 KiB; 16 requests in one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// `GET` and so on, in capitals.
    pub method: String,
    /// The whole URL, without credentials.
    pub url: String,
    /// In the order in which they were added.
    pub headers: Vec<(String, String)>,
    /// None for none.
    pub body: Option<Vec<u8>>,
}

/// What came back, whatever its status; redirects are not followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// 200 and so on.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// 1 MiB at most.
    pub body: Vec<u8>,
}

/// Why there is no answer. The texts are for the operator.
///
/// It is no [`std::error::Error`], so that `?` can tell what is temporary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The operator does not allow this request.
    Denied(String),
    /// It is no valid request, or over a bound.
    Invalid(String),
    /// No whole answer in time.
    Timeout,
    /// The answer has more than 1 MiB.
    TooLarge,
    /// It could not be made.
    Failed(String),
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: None }
    }

    /// `GET`
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// `POST`
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets the body to `value` as JSON, and says so in `Content-Type`.
    ///
    /// # Errors
    /// Where `value` has no JSON, as a map whose keys are no strings.
    pub fn json(self, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_vec(value)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Makes it and waits for the answer.
    ///
    /// # Errors
    /// See [`Error`]. A status is none: an answer of 404 is an answer.
    pub fn send(self) -> Result<Response, Error> {
        #[cfg(target_arch = "wasm32")]
        return send_to_host(self);
        #[cfg(not(target_arch = "wasm32"))]
        return crate::test::http_answer(&self);
    }
}

#[cfg(target_arch = "wasm32")]
fn send_to_host(request: Request) -> Result<Response, Error> {
    use crate::bindings::wirehook::plugin::http;
    let Request { method, url, headers, body } = request;
    match http::send(&http::Request { method, url, headers, body }) {
        Ok(http::Response { status, headers, body }) => Ok(Response { status, headers, body }),
        Err(http::Error::Denied(why)) => Err(Error::Denied(why)),
        Err(http::Error::Invalid(why)) => Err(Error::Invalid(why)),
        Err(http::Error::Timeout) => Err(Error::Timeout),
        Err(http::Error::TooLarge) => Err(Error::TooLarge),
        Err(http::Error::Failed(why)) => Err(Error::Failed(why)),
    }
}

impl Response {
    /// An answer of a test.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Whether the status is one of 2xx.
    pub fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// The first header of that name, which is compared without its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body of a successful answer, read as JSON.
    ///
    /// # Errors
    /// Ready for `?`: an answer that may be better later (429, 5xx) is to be tried again, another without success is not, nor
    /// is a body that is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        match self.status {
            200..=299 => serde_json::from_slice(&self.body).map_err(Failure::from),
            429 | 500..=599 => Err(crate::retry(format!("the service answered {}", self.status))),
            status => Err(crate::reject(format!("the service answered {status}"))),
        }
    }
}

impl Error {
    /// Whether the same request may work later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Timeout | Self::Failed(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "the request was denied: {why}"),
            Self::Invalid(why) => write!(f, "the request is not valid: {why}"),
            Self::Timeout => f.write_str("the request timed out"),
            Self::TooLarge => f.write_str("the answer has more than 1 MiB"),
            Self::Failed(why) => write!(f, "the request failed: {why}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_temporary() { Self::Retry(error.to_string()) } else { Self::Reject(error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test;

    #[test]
    fn without_an_answer_a_test_is_told_what_to_do() {
        let Err(Error::Denied(why)) = Request::get("https://a.net").send() else { panic!() };
        assert!(why.contains("answer_http"), "{why}");
    }

    #[test]
    fn a_test_answers_and_sees_the_request() -> Result<(), Failure> {
        test::answer_http(|request| {
            assert_eq!((&*request.method, &*request.url), ("POST", "https://a.net/rates"));
            assert_eq!(request.headers, [("content-type".to_owned(), "application/json".to_owned())]);
            assert_eq!(request.body.as_deref(), Some(&b"[1]"[..]));
            Ok(Response::new(200, "[2]"))
        });
        let answer = Request::post("https://a.net/rates").json(&[1])?.send()?;
        assert_eq!(answer.json::<Vec<u8>>()?, [2]);
        Ok(())
    }

    #[test]
    fn what_may_work_later_is_tried_again() {
        let check = |error: Error, temporary: bool| {
            assert_eq!(matches!(Failure::from(error.clone()), Failure::Retry(_)), temporary, "{error}");
        };
        check(Error::Timeout, true);
        check(Error::Failed("connection refused".to_owned()), true);
        check(Error::Denied("no".to_owned()), false);
        check(Error::Invalid("no".to_owned()), false);
        check(Error::TooLarge, false);
        let status = |status| Response::new(status, "1").json::<u8>();
        assert_eq!(status(200), Ok(1));
        assert!(matches!(status(503), Err(Failure::Retry(_))));
        assert!(matches!(status(404), Err(Failure::Reject(_))));
        assert!(matches!(Response::new(200, "no").json::<u8>(), Err(Failure::Reject(_))));
    }
}
