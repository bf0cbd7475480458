//! What stands behind each HTTP listener of the host: connections within a bound, none of which waits for its client for
//! long, and of which the one that has waited longest gives way to a new one. So whoever opens connections and sends
//! nothing can't keep others out.

mod host;
mod life;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Sleep;

pub use self::host::{WrongHost, check as check_host, is_cross_site};
use self::life::{GRACE, Life, Phase, victim};
use crate::clock::Clock;
use crate::metrics::DoorMetrics;

/// How long a client may take for the head of a request, from its first byte or from the connection on.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle between two requests, or its client leave an answer unread.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may leave answers unacknowledged, where the system can tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 4096;
/// Connections beyond the bound, while those within it are too young to give way or not gone yet: whoever opens many can't
/// have the next one wait until each of them is gone. They go when the next one comes.
const AHEAD_MAX: usize = 128;
/// How long to wait where no connection can be accepted, mostly for want of open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often connections that gave way are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How a listener is served.
pub struct Door {
    /// As in logs and metrics: `admin`, `source orders`.
    pub name: String,
    /// Connections from which on one gives way to the next; [`AHEAD_MAX`] more are open at most.
    pub connections_max: usize,
    /// How long open connections have to end once the listener is told to.
    pub close_deadline: Duration,
    /// Measures who waits longest.
    pub clock: Arc<dyn Clock>,
    /// Where connections that are closed are counted.
    pub metrics: Option<DoorMetrics>,
}

/// Why a connection was closed, as `wirehook_http_connections_closed_total` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// It gave way to a new one.
    GaveWay,
    /// Its request's head did not arrive in time.
    HeadTimeout,
    /// It was idle for too long.
    IdleTimeout,
}

impl Closed {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::GaveWay, Self::HeadTimeout, Self::IdleTimeout];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GaveWay => "gave_way",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}

/// A request's hold on its connection.
#[derive(Clone)]
pub struct Hold(Arc<Watched>);

impl Hold {
    /// The client has sent all of its request: from now on until the answer, the connection doesn't give way.
    pub fn works(&self) {
        self.0.enter(Phase::Host);
    }
}

/// A connection's life and the clock that it is measured with.
struct Watched {
    life: Life,
    clock: Arc<dyn Clock>,
}

impl Watched {
    fn enter(&self, phase: Phase) -> bool {
        self.life.enter(phase, self.clock.monotonic())
    }
}

/// Lets the system hold a burst of new connections.
///
/// # Errors
/// When the system refuses.
pub fn widen(listener: &impl AsFd) -> io::Result<()> {
    socket2::SockRef::from(listener).listen(BACKLOG)
}

/// The connections that are open.
struct Connections {
    tasks: JoinSet<()>,
    known: HashMap<Id, (AbortHandle, Arc<Watched>)>,
    /// Those that gave way and are not gone yet.
    leaving: usize,
    /// Those that gave way since that was logged.
    gave_way: u64,
    logged_at: Option<Duration>,
}

impl Door {
    /// Answers with `router` until `ended` is done, then for the close deadline at most. A failure to accept is told to
    /// `failed`, and tried again.
    pub async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        ended: impl Future<Output = ()>,
        mut failed: impl FnMut(io::Error),
    ) {
        let (closing, closed) = watch::channel(false);
        let mut connections =
            Connections { tasks: JoinSet::new(), known: HashMap::new(), leaving: 0, gave_way: 0, logged_at: None };
        let mut ended = std::pin::pin!(ended);
        loop {
            let accepted = tokio::select! {
                biased;
                () = ended.as_mut() => break,
                () = connections.reap(), if !connections.tasks.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => tokio::select! {
                    biased;
                    () = ended.as_mut() => break,
                    () = self.make_room(&mut connections, listener.local_addr().ok()) =>
                        connections.begin(self.connection(stream, router.clone(), closed.clone())),
                },
                Err(error) => {
                    // Mostly too many open files: another must end before it can go on.
                    failed(error);
                    self.close_one(&mut connections, listener.local_addr().ok());
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        // Whoever connects from now on is refused at once, and can go to another host.
        drop(listener);
        // The receivers are gone where nothing is open any more.
        let _ = closing.send(true);
        while connections.tasks.join_next().await.is_some() {}
    }

    /// Returns once there is room for one connection more: at once, as long as those beyond the bound are few.
    async fn make_room(&self, connections: &mut Connections, address: Option<SocketAddr>) {
        loop {
            while connections.staying() >= self.connections_max && self.close_one(connections, address) {}
            if connections.tasks.len() < self.connections_max + AHEAD_MAX {
                return;
            }
            tokio::select! {
                () = connections.reap() => {}
                () = tokio::time::sleep(GRACE) => {}
            }
        }
    }

    /// Closes the connection that waits longest for its client; `false` where none may be closed.
    fn close_one(&self, connections: &mut Connections, address: Option<SocketAddr>) -> bool {
        let now = self.clock.monotonic();
        let lives = connections.known.iter().map(|(id, (_, watched))| (*id, watched.life.look()));
        let Some((id, seen)) = victim(lives, now) else { return false };
        let Some((task, watched)) = connections.known.get(&id) else { return false };
        if !watched.life.give_way(seen) {
            return false;
        }
        task.abort();
        connections.leaving += 1;
        self.gave_way(connections, address, now);
        true
    }

    fn gave_way(&self, connections: &mut Connections, address: Option<SocketAddr>, now: Duration) {
        if let Some(metrics) = &self.metrics {
            metrics.closed(Closed::GaveWay);
        }
        connections.gave_way += 1;
        if connections.logged_at.is_some_and(|at| now.saturating_sub(at) < LOG_INTERVAL) {
            return;
        }
        connections.logged_at = Some(now);
        let count = std::mem::take(&mut connections.gave_way);
        let address = address.map_or_else(String::new, |address| address.to_string());
        tracing::warn!(
            %address, bound = self.connections_max,
            "{}: connections that waited for their client gave way to new ones ({count} since this was last said)", self.name
        );
    }

    /// One connection to its end.
    fn connection(
        &self,
        stream: TcpStream,
        router: Router,
        mut closed: watch::Receiver<bool>,
    ) -> (impl Future<Output = ()> + Send + 'static, Arc<Watched>) {
        // An error only means slower small answers.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
        let watched = Arc::new(Watched { life: Life::new(self.clock.monotonic()), clock: Arc::clone(&self.clock) });
        let service = Service { router, watched: Arc::clone(&watched) };
        let io = TokioIo::new(WatchedStream { stream, watched: Arc::clone(&watched) });
        let http = http1::Builder::new().serve_connection(io, service);
        let (deadline, metrics, begun) = (self.close_deadline, self.metrics.clone(), Arc::clone(&watched));
        let task = async move {
            let mut http = std::pin::pin!(http);
            let timely = Timely { http: http.as_mut(), watched: &begun, seen: None, sleep: None };
            let closing = async move { drop(closed.wait_for(|closing| *closing).await) };
            let ended = tokio::select! {
                ended = timely => Some(ended),
                () = closing => None,
            };
            match (ended, metrics) {
                (None, _) => {
                    http.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(deadline, http).await;
                }
                (Some(Some(reason)), Some(metrics)) => metrics.closed(reason),
                (Some(_), _) => {}
            }
        };
        (task, watched)
    }
}

impl Connections {
    fn begin(&mut self, (task, watched): (impl Future<Output = ()> + Send + 'static, Arc<Watched>)) {
        let handle = self.tasks.spawn(task);
        self.known.insert(handle.id(), (handle, watched));
    }

    /// Waits for the end of one, where there is one.
    async fn reap(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return,
        };
        if let Some((_, watched)) = self.known.remove(&id)
            && watched.life.look().phase() == Phase::Gone
        {
            self.leaving -= 1;
        }
    }

    /// Those that have not given way.
    fn staying(&self) -> usize {
        self.tasks.len() - self.leaving
    }
}

/// A connection that ends when its client lets it wait too long. Its phases change only while it is polled, in this task.
struct Timely<'a, H> {
    http: Pin<&'a mut H>,
    watched: &'a Watched,
    seen: Option<life::Seen>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<H: Future> Future for Timely<'_, H> {
    type Output = Option<Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Closed>> {
        // An error is the client's: it went away or sent no HTTP.
        if self.http.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let seen = self.watched.life.look();
        let (timeout, closed) = match seen.phase() {
            Phase::Head => (HEAD_TIMEOUT, Closed::HeadTimeout),
            Phase::Idle => (IDLE_TIMEOUT, Closed::IdleTimeout),
            // Those who read a body bound it, and what the host does is bounded there.
            Phase::Body | Phase::Host | Phase::Gone => {
                (self.seen, self.sleep) = (None, None);
                return Poll::Pending;
            }
        };
        if self.seen != Some(seen) {
            self.seen = Some(seen);
            let sleep = tokio::time::sleep(timeout);
            match &mut self.sleep {
                Some(old) => old.set(sleep),
                None => self.sleep = Some(Box::pin(sleep)),
            }
        }
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(context));
        }
        Poll::Ready(Some(closed))
    }
}

/// The router, which says when a request begins and when its answer is there.
struct Service {
    router: Router,
    watched: Arc<Watched>,
}

/// The connection has given way: its request was never begun.
#[derive(Debug, thiserror::Error)]
#[error("the connection gave way to a new one")]
struct GaveWay;

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = GaveWay;
    type Future = BoxFuture<'static, Result<Response<Body>, GaveWay>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (mut router, watched) = (self.router.clone(), Arc::clone(&self.watched));
        Box::pin(async move {
            if !watched.enter(Phase::Body) {
                return Err(GaveWay);
            }
            request.extensions_mut().insert(Hold(Arc::clone(&watched)));
            let answered: Result<_, Infallible> =
                tower_service::Service::call(&mut router, request.map(Body::new)).await;
            watched.enter(Phase::Idle);
            let Ok(response) = answered;
            Ok(response)
        })
    }
}

/// A stream that says when the first byte of a request has come.
struct WatchedStream {
    stream: TcpStream,
    watched: Arc<Watched>,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before && self.watched.life.look().phase() == Phase::Idle {
            self.watched.enter(Phase::Head);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
