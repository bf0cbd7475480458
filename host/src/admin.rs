//! `/healthz`, `/readyz` and `/metrics`, for those who look after the process. Nothing here changes anything.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// Connections at once; more wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 32;
/// How long one connection may last.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
/// How long open connections may take to end once the listener is told to.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// One part of the host that must be there for it to be ready.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// `store`, `plugins`, `source bus`.
    pub name: String,
    /// Whether it is there.
    pub ready: bool,
    /// How it is, in a word or two: `open`, `connected`, `2 serving, 1 paused`.
    #[serde(default)]
    pub state: String,
    /// What is missing, or the last error; empty where there is nothing to say.
    pub detail: String,
}

/// Who knows whether the host is ready.
pub trait Readiness: Send + Sync + 'static {
    /// Every part: the store, the plugins, each source.
    fn parts(&self) -> Vec<Part>;
}

/// The address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "`listen` in [admin] is {address}, where wirehook can't listen: {source}; stop what listens there, or set another address"
)]
pub struct AdminBindError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct AdminListener(TcpListener);

/// Takes the address of `[admin] listen`, so that a failure is seen before anything starts.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> Result<AdminListener, AdminBindError> {
    TcpListener::bind(address).await.map(AdminListener).map_err(|source| AdminBindError { address, source })
}

impl AdminListener {
    /// The address it listens on; the port is the real one where the settings say 0.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until `ended` is done, then for [`CLOSE_DEADLINE`] at most.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(
        self,
        readiness: Arc<dyn Readiness>,
        metrics: Arc<Metrics>,
        ended: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (closing, closed) = tokio::sync::oneshot::channel();
        let listener = BoundedListener { listener: self.0, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        let serve = axum::serve(listener, router(readiness, metrics)).with_graceful_shutdown(async move {
            ended.await;
            // The receiver is gone only when nobody waits any more.
            let _ = closing.send(());
        });
        let overdue = async {
            match closed.await {
                Ok(()) => tokio::time::sleep(CLOSE_DEADLINE).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            served = serve => served,
            () = overdue => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Arc<dyn Readiness>,
    metrics: Arc<Metrics>,
}

fn router(readiness: Arc<dyn Readiness>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(export))
        .with_state(Shared { readiness, metrics })
}

/// 200 for as long as the process answers at all.
async fn healthz() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    parts: Vec<Part>,
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let parts = shared.readiness.parts();
    let ready = parts.iter().all(|part| part.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, parts })).into_response()
}

async fn export(State(shared): State<Shared>) -> Response {
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// A listener that accepts no more than [`CONNECTIONS_MAX`] connections at once.
struct BoundedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl axum::serve::Listener for BoundedListener {
    type Io = BoundedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; without a permit the connection would merely not be counted.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let overdue = Box::pin(tokio::time::sleep(CONNECTION_LIFETIME));
        (BoundedConnection { stream, overdue, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after [`CONNECTION_LIFETIME`], whatever its peer does or leaves undone.
struct BoundedConnection {
    stream: TcpStream,
    overdue: Pin<Box<tokio::time::Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl BoundedConnection {
    fn poll_lifetime(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.overdue.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for BoundedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_lifetime(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for BoundedConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_lifetime(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Parts(AtomicBool);

    impl Readiness for Parts {
        fn parts(&self) -> Vec<Part> {
            let ready = self.0.load(Ordering::SeqCst);
            let detail = if ready { "" } else { "connection refused" };
            vec![
                Part { name: "store".to_owned(), ready: true, state: "open".to_owned(), detail: String::new() },
                Part {
                    name: "source bus".to_owned(),
                    ready,
                    state: "disconnected".to_owned(),
                    detail: detail.to_owned(),
                },
            ]
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.address().unwrap();
        let parts = Arc::new(Parts(AtomicBool::new(false)));
        let metrics = Arc::new(Metrics::new("0").unwrap());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(listener.serve(parts.clone(), metrics, async { drop(ended.await) }));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let response = get(address, "/readyz").await;
        assert!(response.starts_with("HTTP/1.1 503"), "{response}");
        assert!(
            response.contains(
                r#"{"name":"source bus","ready":false,"state":"disconnected","detail":"connection refused"}"#
            ),
            "{response}"
        );
        parts.0.store(true, Ordering::SeqCst);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("wirehook_build_info{version=\"0\"} 1"));
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));

        end.send(()).unwrap();
        served.await.unwrap().unwrap();
        TcpStream::connect(address).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_setting() {
        let taken = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = taken.address().unwrap();
        let error = bind(address).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("`listen` in [admin] is {address}, where wirehook can't listen")),
            "{error}"
        );
    }
}
