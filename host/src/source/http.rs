//! `POST /events`: one JSON event, or an array of them, taken all or nothing. 202 is sent after the commit.

mod body;
mod content;
mod refusal;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header, request};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::task::JoinSet;

use self::content::Rooms;
use self::refusal::Refusal;
use super::{Accept, AcceptError, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::event::Message;
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
/// Most connections; more wait.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take for the head of a request, or be idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may leave its answers unread, where the system can tell; then its connection is closed.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a drain waits until what is in flight is accepted and its answers are read.
const ANSWERED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The only path; also the subject of other JSON.
pub const PATH: &str = "/events";

/// Headers of a request that become headers of its events; the others may be secrets.
const EVENT_HEADERS: [&str; 4] = ["content-type", "idempotency-key", "traceparent", "tracestate"];

/// A listener.
#[derive(Debug)]
pub struct HttpSource {
    name: Arc<str>,
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Secret>,
    id_field: Option<String>,
    event_bytes_max: usize,
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
        id_field: Option<&str>,
        event_bytes_max: usize,
    ) -> Result<Self, SourceError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let id_field = id_field.map(str::to_owned);
        match bound {
            Ok((address, listener)) => Ok(Self { name, listener, address, token, id_field, event_bytes_max }),
            Err(error) => Err(SourceError::Bind { name, address, error }),
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
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
            let Self { name, listener, address, token, id_field, event_bytes_max } = *self;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| SourceError::Bind {
                name: Arc::clone(&name),
                address,
                error,
            })?;
            let request_bytes_max = REQUEST_BYTES_MAX.max(event_bytes_max);
            let receiver = Arc::new(Receiver {
                name,
                inbox,
                state: state.clone(),
                drain: drain.clone(),
                token_digest: token.map(|token| Sha256::digest(token.expose()).into()),
                id_field,
                event_bytes_max,
                request_bytes_max,
                rooms: Rooms::new(request_bytes_max),
            });
            state.listening(address);
            state.connected();
            serve(listener, &receiver, &state, &drain).await;
            state.disconnected();
            // The client may have gone before its events were accepted: they are waited for all the same.
            receiver.rooms.emptied().await;
            Ok(())
        })
    }
}

/// Serves connections until the drain begins, and then until their requests are answered.
async fn serve(listener: tokio::net::TcpListener, receiver: &Arc<Receiver>, state: &SourceState, drain: &Drain) {
    let method_not_allowed = || async { Refusal::method_not_allowed() };
    let router = Router::new()
        .route(PATH, post(receive))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(|| async { Refusal::not_found() })
        .with_state(Arc::clone(receiver));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = drain.begun() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Mostly too many open files: others must end before it can go on.
                    state.failed(&format_args!("can't accept a connection: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // An error only means slower small answers.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
        let service = TowerToHyperService::new(router.clone());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let begun = drain.begun();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                // An error is the client's: it went away or sent no HTTP.
                _ = connection.as_mut() => return,
                () = begun => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(ANSWERED_TIMEOUT, connection).await;
        });
    }
    // Whoever connects from now on is refused at once, and can go to another host.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What every request needs.
struct Receiver {
    name: Arc<str>,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
    token_digest: Option<[u8; 32]>,
    id_field: Option<String>,
    event_bytes_max: usize,
    request_bytes_max: usize,
    rooms: Rooms,
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let (head, mut content) = request.into_parts();
    match receiver.receive(&head, &mut content).await {
        Ok(summary) => refusal::answer(StatusCode::ACCEPTED, &summary),
        Err(refusal) => {
            // A client that waits to be asked for its body (`Expect: 100-continue`) need not send it.
            if !head.headers.contains_key(header::EXPECT) {
                content::discard(content, receiver.drain.clone());
            }
            refusal.into_response()
        }
    }
}

impl Receiver {
    async fn receive(&self, head: &request::Parts, content: &mut Body) -> Result<Summary, Refusal> {
        if self.drain.is_draining() {
            return Err(Refusal::unavailable("this host is stopping; send it again, to another or later"));
        }
        self.authorize(&head.headers)?;
        refusal::content_type(&head.headers)?;
        let mut room = self.rooms.enter()?;
        let content = content::read(content, self.request_bytes_max, &mut room).await?;
        let events = body::split(&content, self.event_bytes_max, self.id_field.as_deref())?;
        let messages = messages(events, &head.headers);
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

    /// Digests are compared, so that neither content nor length of the token shows in the time it takes.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(expected) = &self.token_digest else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let token = match given.split_at_checked(b"bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => return Err(Refusal::unauthorized()),
        };
        let given: [u8; 32] = Sha256::digest(token).into();
        if bool::from(given.ct_eq(expected)) { Ok(()) } else { Err(Refusal::unauthorized()) }
    }
}

fn messages(events: body::Events, headers: &HeaderMap) -> Vec<Message> {
    let kept: Vec<_> = EVENT_HEADERS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), headers.get(*name)?.to_str().ok()?.to_owned())))
        .collect();
    let message = |payload, headers| Message { subject: PATH.into(), payload, headers, position: None };
    match events {
        body::Events::One(payload) => vec![message(payload, kept)],
        body::Events::Many(payloads) => {
            let each = payloads.into_iter().enumerate().map(|(index, payload)| {
                let mut headers = kept.clone();
                for (name, value) in &mut headers {
                    if name == "idempotency-key" {
                        *value = format!("{value}:{index}");
                    }
                }
                message(payload, headers)
            });
            each.collect()
        }
    }
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
