//! `/healthz`, `/readyz` and `/metrics`, for those who look after the process. Nothing here changes anything.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::door::{self, Door, check_host};
use crate::foreign;
use crate::metrics::{DoorMetrics, Metrics, Refused};

/// Connections at once; for one more, the one gives way that has waited longest for its client.
pub const CONNECTIONS_MAX: usize = 256;
/// As in metrics and logs.
const NAME: &str = "admin";
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
pub struct AdminListener {
    listener: TcpListener,
    hosts: Vec<String>,
}

/// Takes the address of `[admin] listen`, so that a failure is seen before anything starts. Requests are answered that are
/// for an address, for `localhost` or for one of `hosts`.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn bind(address: SocketAddr, hosts: Vec<String>) -> Result<AdminListener, AdminBindError> {
    let bound = TcpListener::bind(address).await.and_then(|listener| door::widen(&listener).map(|()| listener));
    bound.map(|listener| AdminListener { listener, hosts }).map_err(|source| AdminBindError { address, source })
}

impl AdminListener {
    /// The address it listens on; the port is the real one where the settings say 0.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `ended` is done, then for [`CLOSE_DEADLINE`] at most.
    pub async fn serve(
        self,
        readiness: Arc<dyn Readiness>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        ended: impl Future<Output = ()> + Send + 'static,
    ) {
        let door = Door {
            name: NAME.to_owned(),
            connections_max: CONNECTIONS_MAX,
            close_deadline: CLOSE_DEADLINE,
            clock,
            metrics: Some(metrics.door(NAME)),
        };
        let router = router(readiness, metrics, self.hosts);
        let failed = |error| tracing::warn!(%error, "the admin listener can't accept a connection and tries again");
        door.serve(self.listener, router, ended, failed).await;
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Arc<dyn Readiness>,
    export: Arc<Export>,
}

/// The metrics as text: written once for all who ask meanwhile, so that many at once cost no more than one.
struct Export {
    metrics: Arc<Metrics>,
    /// Texts begun so far.
    begun: AtomicU64,
    /// The last text, and which it is; held by who writes the next.
    last: tokio::sync::Mutex<(u64, Bytes)>,
}

impl Export {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, begun: AtomicU64::new(0), last: tokio::sync::Mutex::default() }
    }

    /// A text that was begun after this was called.
    async fn text(&self) -> Result<Bytes, prometheus::Error> {
        let before = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if last.0 <= before {
            let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
            *last = (number, self.metrics.encode()?.into());
        }
        Ok(last.1.clone())
    }
}

/// What a request is checked with before anything is answered.
#[derive(Clone)]
struct Guard {
    hosts: Arc<[String]>,
    metrics: DoorMetrics,
}

fn router(readiness: Arc<dyn Readiness>, metrics: Arc<Metrics>, hosts: Vec<String>) -> Router {
    let guard = Guard { hosts: hosts.into(), metrics: metrics.door(NAME) };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(export))
        .with_state(Shared { readiness, export: Arc::new(Export::new(metrics)) })
        // Around whatever else: what a route answers, and whether there is one, is for those alone who may ask.
        .layer(from_fn_with_state(guard, guarded))
}

async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match check_host(&head, &guard.hosts) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(wrong) => {
            guard.metrics.refused(Refused::Host);
            (StatusCode::MISDIRECTED_REQUEST, format!("{wrong}\n")).into_response()
        }
    }
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
    let mut body = Vec::new();
    match foreign::write_json(&mut body, &Ready { ready, parts }) {
        Ok(()) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn export(State(shared): State<Shared>) -> Response {
    match shared.export.text().await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::sync::atomic::AtomicBool;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use crate::clock::SystemClock;

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
        get_for("localhost", address, path).await
    }

    async fn get_for(host: &str, address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing() {
        let listener = bind(([127, 0, 0, 1], 0).into(), vec!["h".to_owned()]).await.unwrap();
        let address = listener.address().unwrap();
        let parts = Arc::new(Parts(AtomicBool::new(false)));
        let metrics = Arc::new(Metrics::new("0").unwrap());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let served =
            tokio::spawn(listener.serve(parts.clone(), metrics, SystemClock::shared(), async { drop(ended.await) }));

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
        assert!(get_for("h:1", address, "/healthz").await.starts_with("HTTP/1.1 200"));
        for path in ["/healthz", "/readyz", "/metrics", "/other", "http://evil.example/metrics"] {
            let response = get_for("evil.example", address, path).await;
            assert!(response.starts_with("HTTP/1.1 421"), "{response}");
            assert!(!response.contains("wirehook_build_info") && response.contains("`hosts`"), "{response}");
        }
        let counted = r#"wirehook_http_requests_refused_total{listener="admin",reason="host"} 5"#;
        assert!(get(address, "/metrics").await.contains(counted));

        end.send(()).unwrap();
        served.await.unwrap();
        TcpStream::connect(address).await.unwrap_err();
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_a_text_that_began_after_them() {
        let export = Export::new(Arc::new(Metrics::new("0").unwrap()));
        let has = |text: &Bytes, count: u64| {
            let line = format!("wirehook_event_conflicts_total {count}\n");
            assert!(String::from_utf8_lossy(text).contains(&line), "{line}");
        };
        let writing = export.last.lock().await;
        let mut asked: Vec<_> = (0..100).map(|_| Box::pin(export.text())).collect();
        for one in &mut asked {
            assert!(poll!(one).is_pending());
        }
        export.metrics.event_conflicts.inc();
        drop(writing);
        for one in asked {
            has(&one.await.unwrap(), 1);
        }
        assert_eq!(export.begun.load(Ordering::SeqCst), 1);
        export.metrics.event_conflicts.inc();
        has(&export.text().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_setting() {
        let taken = bind(([127, 0, 0, 1], 0).into(), Vec::new()).await.unwrap();
        let address = taken.address().unwrap();
        let error = bind(address, Vec::new()).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("`listen` in [admin] is {address}, where wirehook can't listen")),
            "{error}"
        );
    }
}
