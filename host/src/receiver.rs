//! A receiver of webhooks that verifies by itself: behind `wirehook receive` and the demo.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::clock::{Clock, Timestamp};
use crate::secret::Secret;
use crate::settings::SignatureScheme;

pub mod raw;
mod script;
mod verify;

pub use script::{SCRIPT_STATUSES_MAX, Script, ScriptError, WEBHOOK_ID_BYTES_MAX, WEBHOOKS_REMEMBERED_MAX};
pub use verify::{HINT_BODY_BYTES_MAX, Hint, TOLERANCE_SECONDS, UnusableSecret, VerifyError, scheme_of, verify};

use script::Seen;

/// Connections open at once; further ones wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 1024;

/// The largest body taken, in bytes; a larger one is answered 413.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a request's headers, and then its body, may take to arrive.
pub const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// The wait after an accept failed, as it does for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a receiver behaves.
#[derive(Clone, Debug)]
pub struct ReceiverSettings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How webhooks are signed.
    pub scheme: SignatureScheme,
    /// A signature by any of them is good. With none, nothing is verified.
    pub secrets: Vec<Secret>,
    /// What it answers to webhooks that are not refused. A bad signature is answered 401, outside the script.
    pub script: Script,
}

/// A webhook that came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// `webhook-id`, where it has one.
    pub webhook_id: Option<String>,
    /// Whether it can be trusted.
    pub verdict: Verdict,
    /// How often a webhook of this id was taken, this time included; 0 where the signature is bad.
    pub attempt: u32,
    /// What was answered.
    pub status: StatusCode,
    /// When it was whole.
    pub received_at: Timestamp,
    /// Every header.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

/// Whether a webhook can be trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Its signature is good and fresh.
    Verified,
    /// It is not.
    Failed(VerifyError),
    /// The receiver has no secret.
    Unchecked,
}

/// What a receiver has seen, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Webhooks with a good signature.
    pub verified: u64,
    /// Webhooks with a bad one.
    pub failed: u64,
    /// Webhooks that nothing could be checked of.
    pub unchecked: u64,
    /// Of those taken, how many were the first of their id.
    pub first: u64,
    /// Webhooks answered 2xx.
    pub accepted: u64,
    /// Requests that were no webhook: another method, too large, broken off.
    pub refused: u64,
}

/// A receiver at work. Dropping it closes its connections.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinSet<()>,
}

/// Why a receiver could not start.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}; choose another with --listen")]
pub struct ReceiverError {
    address: SocketAddr,
    source: io::Error,
}

struct State {
    scheme: SignatureScheme,
    secrets: Vec<Secret>,
    script: Script,
    clock: Arc<dyn Clock>,
    on_received: Box<dyn Fn(Received) + Send + Sync>,
    seen: Mutex<Seen>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    verified: AtomicU64,
    failed: AtomicU64,
    unchecked: AtomicU64,
    first: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Receiver {
    /// Listens, and calls `on_received` for every webhook before it is answered. The callback must not block.
    pub async fn start(
        settings: ReceiverSettings,
        clock: Arc<dyn Clock>,
        on_received: impl Fn(Received) + Send + Sync + 'static,
    ) -> Result<Self, ReceiverError> {
        let failed = |source| ReceiverError { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = Arc::new(State {
            scheme: settings.scheme,
            secrets: settings.secrets,
            script: settings.script,
            clock,
            on_received: Box::new(on_received),
            seen: Mutex::default(),
            counters: Counters::default(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        let counters = &self.state.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            verified: read(&counters.verified),
            failed: read(&counters.failed),
            unchecked: read(&counters.unchecked),
            first: read(&counters.first),
            accepted: read(&counters.accepted),
            refused: read(&counters.refused),
        }
    }

    /// Closes the listener and every connection, and returns when that is done.
    pub async fn stop(mut self) {
        self.serving.shutdown().await;
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    serve(stream, state).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    // Answers are small: waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(state.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ARRIVAL_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A connection that breaks is the sender's affair: it tries again.
    let _ = connection.await;
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return self.refuse(StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent by POST");
        }
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return self.refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
        }
        let body = match tokio::time::timeout(ARRIVAL_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return self.refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
            }
            Ok(Err(_)) => return self.refuse(StatusCode::BAD_REQUEST, "the body broke off"),
            Err(_) => return self.refuse(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        };
        self.receive(parts.headers, body)
    }

    fn receive(&self, headers: HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
        let received_at = self.clock.now();
        let webhook_id = headers.get("webhook-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let verdict = self.verdict(&headers, &body, received_at);
        let (attempt, status, said) = match &verdict {
            Verdict::Failed(error) => (0, StatusCode::UNAUTHORIZED, error.to_string()),
            Verdict::Verified | Verdict::Unchecked => {
                let attempt = webhook_id.as_deref().map_or(1, |id| self.seen().attempt(id));
                (attempt, self.script.answer(attempt), String::new())
            }
        };
        self.counters.count(&verdict, attempt, status);
        (self.on_received)(Received { webhook_id, verdict, attempt, status, received_at, headers, body });
        response(status, said)
    }

    fn verdict(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Verdict {
        if self.secrets.is_empty() {
            return Verdict::Unchecked;
        }
        verify(&self.scheme, headers, body, &self.secrets, now).map_or_else(Verdict::Failed, |()| Verdict::Verified)
    }

    fn refuse(&self, status: StatusCode, why: &str) -> Response<Full<Bytes>> {
        increment(&self.counters.refused);
        response(status, why.to_owned())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn count(&self, verdict: &Verdict, attempt: u32, status: StatusCode) {
        increment(match verdict {
            Verdict::Verified => &self.verified,
            Verdict::Failed(_) => &self.failed,
            Verdict::Unchecked => &self.unchecked,
        });
        if attempt == 1 {
            increment(&self.first);
        }
        if status.is_success() {
            increment(&self.accepted);
        }
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn response(status: StatusCode, said: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(said));
    *response.status_mut() = status;
    response
}
