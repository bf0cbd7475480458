//! How a fake endpoint answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Response;
use hyper::body::Frame;

use super::{Never, Received};

/// The pieces of [`Answer::Huge`].
const CHUNK: Bytes = Bytes::from_static(&[b'x'; 16 * 1024]);

pub(super) type AnswerBody = BoxBody<Bytes, Never>;

/// One answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, headers and a whole body.
    Whole {
        /// The status.
        status: u16,
        /// The headers, in order.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// Nothing, ever; the connection stays open.
    Hang,
    /// 200 and one byte of body at each interval, without an end.
    Drip(Duration),
    /// 200 and a body of this many bytes.
    Huge(usize),
    /// The connection is closed without an answer.
    HangUp,
    /// Another answer, later.
    After(Duration, Box<Answer>),
}

impl Answer {
    /// 200 with an empty body.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// A status with an empty body.
    pub fn status(status: u16) -> Self {
        Self::text(status, "")
    }

    /// A status with a body.
    pub fn text(status: u16, body: &str) -> Self {
        Self::Whole { status, headers: Vec::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    /// 302 to `url`.
    pub fn redirect(url: &str) -> Self {
        Self::status(302).with_header("location", url)
    }

    /// The same with one header more; only a whole answer has headers.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same, later.
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    pub(super) async fn into_response(self) -> Result<Response<AnswerBody>, HangUp> {
        match self {
            Self::Whole { status, headers, body } => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(Full::new(body).boxed()).map_err(|_| HangUp)
            }
            Self::Hang => std::future::pending().await,
            Self::Drip(interval) => {
                let bytes = stream::repeat(()).then(move |()| async move {
                    tokio::time::sleep(interval).await;
                    Ok(Frame::data(Bytes::from_static(b".")))
                });
                Ok(Response::new(BodyExt::boxed(StreamBody::new(bytes))))
            }
            Self::Huge(size) => {
                let chunks = stream::iter(0..size.div_ceil(CHUNK.len())).map(|_| Ok(Frame::data(CHUNK)));
                Ok(Response::new(BodyExt::boxed(StreamBody::new(chunks))))
            }
            Self::HangUp => Err(HangUp),
            Self::After(delay, answer) => {
                tokio::time::sleep(delay).await;
                Box::pin(answer.into_response()).await
            }
        }
    }
}

/// What the answer is decided by.
#[derive(Debug)]
pub struct Call<'a> {
    /// The request.
    pub request: &'a Received,
    /// How many requests with its webhook id arrived, this one included.
    pub number: usize,
}

/// Decides the answer to each request.
#[derive(Clone)]
pub struct Script(Arc<dyn Fn(&Call<'_>) -> Answer + Send + Sync>);

impl Script {
    /// The same answer every time.
    pub fn always(answer: Answer) -> Self {
        Self::by(move |_| answer.clone())
    }

    /// 200 every time.
    pub fn ok() -> Self {
        Self::always(Answer::ok())
    }

    /// For each webhook id these statuses in turn; the last one from then on.
    pub fn statuses(statuses: &[u16]) -> Self {
        let statuses = statuses.to_vec();
        Self::by(move |call| {
            let status = statuses.get(call.number - 1).or(statuses.last()).copied();
            Answer::status(status.unwrap_or(200))
        })
    }

    /// Whatever `decide` says.
    pub fn by(decide: impl Fn(&Call<'_>) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    pub(super) fn answer(&self, call: &Call<'_>) -> Answer {
        (self.0)(call)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

/// The connection is closed without an answer.
#[derive(Debug)]
pub(super) struct HangUp;

impl fmt::Display for HangUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script closes the connection")
    }
}

impl std::error::Error for HangUp {}
