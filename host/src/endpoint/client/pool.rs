//! The connections to one origin: which are idle, and which may take one more request.
//!
//! In HTTP/1 a connection belongs to one request at a time, and waits in between. In HTTP/2 it is shared; the one with the least
//! under way takes the next. Idle ones are closed after [`IDLE_AGE_MAX`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::super::connect::{Connector, Protocols};
use super::super::connection::{Connection, Exchange, RESPONSE_HEAD_BYTES_MAX};
use super::SendError;
use super::held::{Held, Link};
use crate::sync::lock;

/// How long a connection stays open between requests. Many servers close theirs after 5 s, and a request that meets one that is being
/// closed has to be made twice.
pub const IDLE_AGE_MAX: Duration = Duration::from_secs(4);

/// What idle ages are counted in.
const TICK: Duration = Duration::from_millis(500);

/// [`IDLE_AGE_MAX`] in ticks.
const IDLE_TICKS_MAX: u64 = 8;

/// How long a connection of HTTP/1 may take to be ready for the next request when an answer has arrived whole.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// The buffer that every connection of HTTP/1 reads into at most.
const READ_BUFFER_BYTES_MAX: usize = 2 * RESPONSE_HEAD_BYTES_MAX;

/// An HTTP/2 connection with requests under way is asked this often whether it is still there.
const HTTP_2_PING_INTERVAL: Duration = Duration::from_secs(10);

/// Streams of a connection of HTTP/2 that are sent before the server has said how many it takes.
const STREAMS_AT_FIRST: usize = 100;

/// Streams of a connection of HTTP/2 that are left free of those that the server takes at once.
const STREAMS_LEFT_FREE: usize = 2;

/// What a server may send of one body, and of all of a connection, before it was taken.
const HTTP_2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP_2_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

pub(super) type Body = Full<Bytes>;

/// The connections to one origin.
pub(super) struct Pool {
    scheme: Scheme,
    authority: Authority,
    /// The value of `Host`.
    host: HeaderValue,
    connector: Connector,
    idle_max: usize,
    state: Mutex<State>,
    /// Held while a connection is made that others may share.
    opening: Arc<tokio::sync::Mutex<()>>,
    failed_openings: AtomicUsize,
    /// HTTP/2 is not to be spoken here.
    http_1_only: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The one used last is the last.
    idle: Vec<Idle>,
    shared: Vec<Arc<Shared>>,
    /// What was agreed on when a connection was last made; `None` as long as none was.
    speaks_http_2: Option<bool>,
    now: u64,
    is_ticking: bool,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    exchange: Arc<Exchange>,
    since: u64,
}

/// A connection of HTTP/2.
pub(super) struct Shared {
    pub(super) sender: http2::SendRequest<Body>,
    pub(super) exchange: Arc<Exchange>,
    under_way: AtomicUsize,
    /// As many as the server takes at once, when that was last looked at.
    streams_max: Arc<AtomicUsize>,
    /// The last tick at which something was under way.
    used: AtomicU64,
}

impl Pool {
    pub(super) fn new(uri: &Uri, connector: Connector, idle_max: usize) -> Option<Self> {
        let (scheme, authority) = (uri.scheme()?.clone(), uri.authority()?.clone());
        // Without the credentials that an authority may begin with.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let default_port = if scheme == Scheme::HTTPS { ":443" } else { ":80" };
        let host = HeaderValue::from_str(host.strip_suffix(default_port).unwrap_or(host)).ok()?;
        Some(Self {
            scheme,
            authority,
            host,
            connector,
            idle_max,
            state: Mutex::default(),
            opening: Arc::default(),
            failed_openings: AtomicUsize::new(0),
            http_1_only: AtomicBool::new(false),
        })
    }

    pub(super) fn is_of(&self, uri: &Uri) -> bool {
        uri.authority() == Some(&self.authority) && uri.scheme() == Some(&self.scheme)
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// HTTP/1.1 from now on. Whether that is new.
    pub(super) fn leave_http_2(&self) -> bool {
        let before = self.http_1_only.swap(true, Ordering::Relaxed);
        lock(&self.state).shared.clear();
        !before
    }

    /// A connection that may take a request: one that is open, or a new one.
    pub(super) async fn any(self: &Arc<Self>, uri: &Uri) -> Result<Held, SendError> {
        if let Some(held) = self.open() {
            return Ok(held);
        }
        if !self.may_share() {
            return self.new_connection(uri).await;
        }
        let failed = self.failed_openings.load(Ordering::Relaxed);
        let opening = Arc::clone(&self.opening).lock_owned().await;
        if let Some(held) = self.open() {
            return Ok(held);
        }
        if failed != self.failed_openings.load(Ordering::Relaxed) || !self.may_share() {
            // Nothing came of what was waited for that could be shared: nobody waits for anybody.
            drop(opening);
            return self.new_connection(uri).await;
        }
        match self.new_connection(uri).await {
            Ok(held) => Ok(held.first(opening)),
            Err(error) => {
                self.failed_openings.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// A connection of its own for a request, shared with others only once it has taken that.
    pub(super) async fn new_connection(self: &Arc<Self>, uri: &Uri) -> Result<Held, SendError> {
        let protocols = if self.http_1_only.load(Ordering::Relaxed) { Protocols::Http1 } else { Protocols::Any };
        let connection = self.connector.connect(uri, protocols).await?;
        let (is_http_2, exchange) = (connection.is_http_2(), connection.exchange());
        lock(&self.state).speaks_http_2 = Some(is_http_2);
        let link = if is_http_2 {
            let (sender, driver) = http_2().handshake(TokioIo::new(connection)).await?;
            let shared = Arc::new(Shared::new(sender, exchange));
            tokio::spawn(drive(driver, Arc::clone(&shared.streams_max)));
            Link::Http2(shared)
        } else {
            let mut http_1 = http1::Builder::new();
            let (sender, driver) =
                http_1.max_buf_size(READ_BUFFER_BYTES_MAX).handshake(TokioIo::new(connection)).await?;
            tokio::spawn(driver);
            Link::Http1(sender, exchange)
        };
        Ok(Held::new(Arc::clone(self), link, None))
    }

    /// Whether a connection that is being made may serve others too, as far as one knows.
    fn may_share(&self) -> bool {
        self.scheme == Scheme::HTTPS
            && !self.http_1_only.load(Ordering::Relaxed)
            && lock(&self.state).speaks_http_2 != Some(false)
    }

    fn open(self: &Arc<Self>) -> Option<Held> {
        let mut state = lock(&self.state);
        while let Some(Idle { sender, exchange, since }) = state.idle.pop() {
            if sender.is_ready() {
                return Some(Held::new(Arc::clone(self), Link::Http1(sender, exchange), Some(since)));
            }
        }
        state.shared.retain(|shared| !shared.sender.is_closed());
        let with_room = state.shared.iter().filter(|shared| shared.has_room());
        let shared = with_room.min_by_key(|shared| shared.under_way.load(Ordering::Relaxed))?;
        Some(Held::new(Arc::clone(self), Link::Http2(Arc::clone(shared)), Some(state.now)))
    }

    /// Takes back what an answer has arrived over whole.
    pub(super) fn keep(self: &Arc<Self>, mut sender: http1::SendRequest<Body>, exchange: Arc<Exchange>) {
        if sender.is_ready() {
            self.keep_ready(sender, exchange);
        } else if !sender.is_closed() {
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(READY_TIMEOUT, sender.ready()).await {
                    pool.keep_ready(sender, exchange);
                }
            });
        }
    }

    fn keep_ready(self: &Arc<Self>, sender: http1::SendRequest<Body>, exchange: Arc<Exchange>) {
        let mut state = lock(&self.state);
        if state.idle.len() < self.idle_max {
            let since = state.now;
            state.idle.push(Idle { sender, exchange, since });
            self.tick_on(&mut state);
        }
    }

    /// Lets others use a connection of HTTP/2.
    pub(super) fn share(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut state = lock(&self.state);
        if !self.http_1_only.load(Ordering::Relaxed) && !state.shared.iter().any(|known| Arc::ptr_eq(known, shared)) {
            shared.used.store(state.now, Ordering::Relaxed);
            state.shared.push(Arc::clone(shared));
            self.tick_on(&mut state);
        }
    }

    /// Gives nobody a connection that is no more, nor one that has been idle for as long as it was.
    pub(super) fn distrust(&self, link: &Link, idle_since: Option<u64>) {
        let mut state = lock(&self.state);
        match link {
            Link::Http2(gone) => state.shared.retain(|shared| !Arc::ptr_eq(shared, gone)),
            Link::Http1(..) => state.idle.retain(|idle| idle_since.is_none_or(|since| idle.since > since)),
        }
    }

    /// Counts the ages of what is idle, as long as there is something.
    fn tick_on(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_ticking, true) {
            tokio::spawn(tick(Arc::downgrade(self)));
        }
    }

    /// Whether there is still something that gets older.
    fn grow_older(&self) -> bool {
        let mut state = lock(&self.state);
        state.now += 1;
        let now = state.now;
        state.idle.retain(|idle| now - idle.since < IDLE_TICKS_MAX && !idle.sender.is_closed());
        state.shared.retain(|shared| !shared.sender.is_closed() && shared.idle_ticks(now) < IDLE_TICKS_MAX);
        state.is_ticking = !(state.idle.is_empty() && state.shared.is_empty());
        state.is_ticking
    }
}

/// Drives a connection of HTTP/2 to its end, which those learn whose requests are under way.
async fn drive(mut driver: http2::Connection<TokioIo<Connection>, Body, TokioExecutor>, streams_max: Arc<AtomicUsize>) {
    let _ = std::future::poll_fn(|context| {
        let polled = Pin::new(&mut driver).poll(context);
        streams_max.store(driver.current_max_send_streams(), Ordering::Relaxed);
        polled
    })
    .await;
}

async fn tick(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(TICK).await;
        match pool.upgrade() {
            Some(pool) if pool.grow_older() => {}
            _ => return,
        }
    }
}

impl Shared {
    fn new(sender: http2::SendRequest<Body>, exchange: Arc<Exchange>) -> Self {
        Self {
            sender,
            exchange,
            under_way: AtomicUsize::new(0),
            streams_max: Arc::new(AtomicUsize::new(STREAMS_AT_FIRST)),
            used: AtomicU64::new(0),
        }
    }

    /// Whether one more request can be sent at once. One that the library holds back until another has ended is lost where the server
    /// shuts the connection down meanwhile, and nobody knows whether it was sent: so no connection is ever filled.
    fn has_room(&self) -> bool {
        let under_way = self.under_way.load(Ordering::Relaxed);
        under_way == 0 || under_way + STREAMS_LEFT_FREE <= self.streams_max.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// For how long nothing was under way at any tick.
    fn idle_ticks(&self, now: u64) -> u64 {
        if self.under_way.load(Ordering::Relaxed) > 0 {
            self.used.store(now, Ordering::Relaxed);
        }
        now - self.used.load(Ordering::Relaxed)
    }
}

fn http_2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP_2_PING_INTERVAL)
        .keep_alive_timeout(HTTP_2_PING_INTERVAL)
        .initial_stream_window_size(HTTP_2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP_2_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(RESPONSE_HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    builder
}
