//! A connection while it is used for one exchange, and the body that arrives over it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::{TrySendError, http1};

use tokio::sync::OwnedMutexGuard;

use super::super::connection::Exchange;
use super::fault::{Failed, Way};
use super::pool::{Body, Pool, Shared};

/// A connection that one exchange holds.
pub(super) struct Held {
    pool: Arc<Pool>,
    /// `None` once it was given back.
    link: Option<Link>,
    /// Since when it had been idle; `None` where it is new.
    idle_since: Option<u64>,
    /// Whoever may share it waits until the first request is on its way.
    opening: Option<OwnedMutexGuard<()>>,
}

/// What requests are sent over.
pub(super) enum Link {
    /// To be used by one at a time.
    Http1(http1::SendRequest<Body>, Arc<Exchange>),
    /// To be shared.
    Http2(Arc<Shared>),
}

impl Held {
    pub(super) fn new(pool: Arc<Pool>, link: Link, idle_since: Option<u64>) -> Self {
        if let Link::Http2(shared) = &link {
            shared.enter();
        }
        Self { pool, link: Some(link), idle_since, opening: None }
    }

    /// As it is, the others waiting.
    pub(super) fn first(mut self, opening: OwnedMutexGuard<()>) -> Self {
        self.opening = Some(opening);
        self
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(mut self, request: Request<Body>) -> Result<Response<Answer>, Failed> {
        let sent = match &mut self.link {
            Some(Link::Http1(sender, exchange)) => {
                self.opening = None;
                exchange.begin();
                sender.try_send_request(in_origin_form(request, &self.pool)).await
            }
            Some(Link::Http2(shared)) => {
                let sending = shared.sender.clone().try_send_request(request);
                if self.idle_since.is_none() {
                    self.pool.share(shared);
                }
                self.opening = None;
                sending.await
            }
            None => unreachable!("it is given back when it has answered"),
        };
        match sent {
            Ok(response) if self.is_farewell(&response) => Err(self.failed(Way::Farewell)),
            Ok(response) => Ok(self.answered(response)),
            Err(error) => Err(self.unanswered(error)),
        }
    }

    /// Whether this answers no request, but says that an idle connection is being closed (RFC 9110, section 15.5.9).
    fn is_farewell(&self, response: &Response<Incoming>) -> bool {
        let closes = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
        response.status() == StatusCode::REQUEST_TIMEOUT
            && self.idle_since.is_some()
            && (response.version() == Version::HTTP_10 || response.headers().get_all(CONNECTION).iter().any(closes))
    }

    fn answered(self, response: Response<Incoming>) -> Response<Answer> {
        self.progressed();
        response.map(|incoming| {
            let mut answer = Answer { incoming, held: Some(self) };
            answer.finish_if_whole();
            answer
        })
    }

    fn unanswered(self, mut error: TrySendError<Request<Body>>) -> Failed {
        let is_unsent = error.take_message().is_some();
        let error = error.into_error();
        let way = match &self.link {
            Some(Link::Http1(_, exchange)) => Way::Http1 { is_unsent, is_unanswered: exchange.is_unanswered(), error },
            _ => Way::Http2(error),
        };
        self.failed(way)
    }

    fn failed(self, way: Way) -> Failed {
        if let Some(link) = &self.link
            && way.ends_connection()
        {
            self.pool.distrust(link, self.idle_since);
        }
        Failed { way, is_new: self.idle_since.is_none() }
    }

    fn progressed(&self) {
        match &self.link {
            Some(Link::Http1(_, exchange)) => exchange.progressed(),
            Some(Link::Http2(shared)) => shared.exchange.progressed(),
            None => {}
        }
    }

    fn give_back(mut self) {
        match self.link.take() {
            Some(Link::Http1(sender, exchange)) => self.pool.keep(sender, exchange),
            Some(Link::Http2(shared)) => shared.leave(),
            None => {}
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Link::Http2(shared)) = &self.link {
            shared.leave();
        }
    }
}

/// In HTTP/1 the host stands in a header.
fn in_origin_form(mut request: Request<Body>, pool: &Pool) -> Request<Body> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().entry(HOST).or_insert_with(|| pool.host().clone());
    request
}

/// The body of an answer. When it has arrived whole, its connection is free for the next request; dropped before, it closes it.
pub(crate) struct Answer {
    incoming: Incoming,
    held: Option<Held>,
}

impl Answer {
    fn finish_if_whole(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(held) = self.held.take()
        {
            held.give_back();
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(context));
        match &frame {
            Some(Ok(_)) => {
                if let Some(held) = &this.held {
                    held.progressed();
                }
                this.finish_if_whole();
            }
            Some(Err(_)) => this.held = None,
            None => {
                if let Some(held) = this.held.take() {
                    held.give_back();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
