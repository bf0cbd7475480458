//! `POST /events`: one JSON event, or an array of them, taken all or nothing. 202 is sent after the commit.

mod body;
mod content;
mod key;
mod refusal;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header, request};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::content::Rooms;
use self::refusal::Refusal;
use super::{Accept, AcceptError, Source, SourceError, SourceState};
use crate::clock::{Clock, SystemClock};
use crate::door::{self, Door, Hold, check_host, is_cross_site};
use crate::drain::Drain;
use crate::event::Message;
use crate::event::decode::{self, Fields, cloudevents};
use crate::secret::Secret;
use crate::store::Acceptance;

/// Most events in one request.
pub const EVENTS_IN_REQUEST_MAX: usize = 1000;
/// Largest body, in bytes, unless one event alone may be larger.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most requests being read or accepted; more are answered 429.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// Most bytes of bodies being read or accepted, unless one request alone may have more; more are answered 429.
pub const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 128 * 1024 * 1024;
/// Connections from which on the one that has waited longest for its client gives way to the next; 128 more are open at most.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long a drain waits until what is in flight is accepted and its answers are read.
const ANSWERED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take for the next part of a body.
pub const BODY_PART_TIMEOUT: Duration = Duration::from_secs(5);
/// The only path; also the subject of other JSON.
pub const PATH: &str = "/events";

/// Headers of a request that become headers of its events, besides its key and the attributes of a CloudEvent; the others may
/// be secrets.
const EVENT_HEADERS: [&str; 3] = ["content-type", "traceparent", "tracestate"];

/// A listener.
pub struct HttpSource {
    name: Arc<str>,
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Secret>,
    fields: Fields,
    event_bytes_max: usize,
    hosts: Vec<String>,
    clock: Arc<dyn Clock>,
}

impl HttpSource {
    /// Listens on `address`, where port 0 means any.
    ///
    /// # Errors
    ///
    /// When the address can't be listened on.
    pub fn bind(
        name: Arc<str>,
        address: SocketAddr,
        token: Option<Secret>,
        fields: Fields,
        event_bytes_max: usize,
    ) -> Result<Self, SourceError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            door::widen(&listener)?;
            Ok((listener.local_addr()?, listener))
        });
        match bound {
            Ok((address, listener)) => {
                let (hosts, clock) = (Vec::new(), SystemClock::shared());
                Ok(Self { name, listener, address, token, fields, event_bytes_max, hosts, clock })
            }
            Err(error) => Err(SourceError::Bind { name, address, error }),
        }
    }

    /// Takes requests without a token for these names too, besides those for addresses and `localhost`.
    #[must_use]
    pub fn answering_to(self, hosts: Vec<String>) -> Self {
        Self { hosts, ..self }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Source for HttpSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let Self { name, listener, address, token, fields, event_bytes_max, hosts, clock } = *self;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| SourceError::Bind {
                name: Arc::clone(&name),
                address,
                error,
            })?;
            let request_bytes_max = REQUEST_BYTES_MAX.max(event_bytes_max);
            let receiver = Arc::new(Receiver {
                name,
                rooms: Rooms::new(request_bytes_max, inbox.intake()),
                inbox,
                state: state.clone(),
                drain,
                hosts,
                token_digest: token.map(|token| Sha256::digest(token.expose()).into()),
                fields,
                event_bytes_max,
                request_bytes_max,
            });
            state.listening(address);
            state.connected();
            serve(listener, &receiver, clock).await;
            state.disconnected();
            // The client may have gone before its events were accepted: they are waited for all the same.
            receiver.rooms.emptied().await;
            Ok(())
        })
    }
}

/// Serves connections until the drain begins, and then until their requests are answered.
async fn serve(listener: tokio::net::TcpListener, receiver: &Arc<Receiver>, clock: Arc<dyn Clock>) {
    let router = Router::new()
        .route(PATH, post(receive))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(Arc::clone(receiver));
    let door = Door {
        name: format!("source {}", receiver.name),
        connections_max: CONNECTIONS_MAX,
        close_deadline: ANSWERED_TIMEOUT,
        clock,
        metrics: receiver.state.door().cloned(),
    };
    let failed = |error: io::Error| receiver.state.failed(&format_args!("can't accept a connection: {error}"));
    door.serve(listener, router, receiver.drain.begun(), failed).await;
}

async fn not_found(State(receiver): State<Arc<Receiver>>) -> Response {
    receiver.refuse(Refusal::not_found())
}

async fn method_not_allowed(State(receiver): State<Arc<Receiver>>) -> Response {
    receiver.refuse(Refusal::method_not_allowed())
}

/// What every request needs.
struct Receiver {
    name: Arc<str>,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
    hosts: Vec<String>,
    token_digest: Option<[u8; 32]>,
    fields: Fields,
    event_bytes_max: usize,
    request_bytes_max: usize,
    rooms: Rooms,
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    Extension(hold): Extension<Hold>,
    request: Request,
) -> Response {
    let (head, mut content) = request.into_parts();
    match receiver.receive(&head, &mut content, &hold).await {
        Ok(summary) => refusal::answer(StatusCode::ACCEPTED, &summary),
        Err(refusal) => {
            // A client that waits to be asked for its body (`Expect: 100-continue`) need not send it.
            if !head.headers.contains_key(header::EXPECT) {
                content::discard(content, receiver.drain.clone());
            }
            receiver.refuse(refusal)
        }
    }
}

impl Receiver {
    fn refuse(&self, refusal: Refusal) -> Response {
        if let Some(door) = self.state.door() {
            door.refused(refusal.reason);
        }
        refusal.into_response()
    }

    async fn receive(&self, head: &request::Parts, content: &mut Body, hold: &Hold) -> Result<Summary, Refusal> {
        if self.drain.is_draining() {
            return Err(Refusal::unavailable("this host is stopping; send it again, to another or later"));
        }
        self.authorize(head)?;
        let headers = kept_headers(&head.headers);
        let is_cloud_event = cloudevents::is_binary(&headers);
        refusal::content_type(&head.headers, self.token_digest.is_none(), is_cloud_event)?;
        let key = key::of(&head.headers)?;
        let mut room = self.rooms.enter()?;
        let content = content::read(content, self.request_bytes_max, &mut room).await?;
        hold.works();
        let room = room.begin()?;
        let events = match is_cloud_event {
            true => body::whole(&content, self.event_bytes_max)?,
            false if cloudevents::is_batch(&headers) && content.trim_ascii() == b"[]" => return Ok(Summary::default()),
            false => body::split(&content, self.event_bytes_max)?,
        };
        let messages = self.messages(events, &headers, key)?;
        // A task of its own: the client's going away must not stop what follows the commit.
        let (name, inbox) = (Arc::clone(&self.name), Arc::clone(&self.inbox));
        let accepted = tokio::spawn(async move {
            let _room = room;
            inbox.accept(&name, messages).await
        });
        let accepted = accepted.await.unwrap_or_else(|panic| Err(AcceptError::Failed(panic.to_string())));
        match accepted {
            Ok(acceptances) => {
                self.state.recovered();
                Ok(Summary::of(&acceptances))
            }
            Err(error) => {
                self.state.failed(&error);
                Err(Refusal::unavailable(&format!("{error}; nothing of this request was kept, send it again")))
            }
        }
    }

    /// The events as messages, each checked: the client can mend what is wrong, so nothing is accepted then.
    fn messages(
        &self,
        events: body::Events,
        headers: &[(String, String)],
        key: Option<&str>,
    ) -> Result<Vec<Message>, Refusal> {
        let message = |payload, key: Option<String>| {
            let mut headers = headers.to_vec();
            headers.extend(key.map(|key| (key::NAME.to_owned(), key)));
            Message { subject: PATH.into(), payload, headers, position: None }
        };
        let checked = |message: Message, index: Option<usize>| match decode::check(&message, &self.fields) {
            Ok(()) => Ok(message),
            Err(error) => Err(Refusal::bad_request(error.to_string()).at(index)),
        };
        match events {
            body::Events::One(payload) => Ok(vec![checked(message(payload, key.map(str::to_owned)), None)?]),
            body::Events::Many(payloads) => {
                let each = payloads.into_iter().enumerate();
                let each = each.map(|(index, payload)| {
                    let key = key.map(|key| key::of_element(key, index));
                    checked(message(payload, key), Some(index))
                });
                each.collect()
            }
        }
    }

    /// A browser has no token to send. Without one to ask for, what a page of another site can make it send is refused.
    ///
    /// Digests are compared, so that neither content nor length of the token shows in the time it takes.
    fn authorize(&self, head: &request::Parts) -> Result<(), Refusal> {
        let Some(expected) = &self.token_digest else {
            check_host(head, &self.hosts).map_err(Refusal::wrong_host)?;
            return if is_cross_site(&head.headers) { Err(Refusal::cross_site()) } else { Ok(()) };
        };
        let given = head.headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let token = match given.split_at_checked(b"bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => return Err(Refusal::unauthorized()),
        };
        let given: [u8; 32] = Sha256::digest(token).into();
        if bool::from(given.ct_eq(expected)) { Ok(()) } else { Err(Refusal::unauthorized()) }
    }
}

/// The headers that events have, in lower case.
fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let is_kept = |name: &str| EVENT_HEADERS.contains(&name) || name.starts_with(cloudevents::HEADER_PREFIX);
    let kept = headers.iter().filter(|(name, _)| is_kept(name.as_str()));
    kept.filter_map(|(name, value)| Some((name.to_string(), std::str::from_utf8(value.as_bytes()).ok()?.to_owned())))
        .collect()
}

/// The answer: what became of the events.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    /// New ones.
    accepted: usize,
    /// Those accepted before.
    duplicates: usize,
    /// Those whose key was accepted before with another body; kept as dead letters.
    #[serde(skip_serializing_if = "is_zero")]
    conflicts: usize,
}

impl Summary {
    fn of(acceptances: &[Acceptance]) -> Self {
        let mut summary = Self::default();
        for acceptance in acceptances {
            match acceptance {
                Acceptance::Fresh(_) | Acceptance::Dead => summary.accepted += 1,
                Acceptance::Duplicate => summary.duplicates += 1,
                Acceptance::Conflict => summary.conflicts += 1,
            }
        }
        summary
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
