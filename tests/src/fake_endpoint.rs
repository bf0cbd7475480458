//! A receiver of webhooks that records everything, answers as told and verifies signatures by itself.

mod answer;
mod received;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use self::answer::{Answer, Call, Script};
pub use self::received::{Received, RequestLog};
use self::answer::AnswerBody;
use crate::port;

/// What every fake endpoint verifies signatures with.
pub const SECRET: &str = "a secret of thirty-two characters";

/// A receiver on loopback; dropping it closes its port and every connection.
#[derive(Debug)]
pub struct FakeEndpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    script: Script,
    log: RequestLog,
    connections: usize,
}

impl FakeEndpoint {
    /// Listens on a free port and answers by `script`.
    pub async fn start(script: Script) -> Result<Self> {
        let mut endpoint = Self::down(script)?;
        endpoint.listen().await?;
        Ok(endpoint)
    }

    /// Has an address, and refuses connections until [`Self::listen`].
    pub fn down(script: Script) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port::free()?));
        let state = State { script, log: RequestLog::default(), connections: 0 };
        let shared = Shared { state: Mutex::new(state), arrived: watch::Sender::new(()) };
        Ok(Self { address, shared: Arc::new(shared), server: None })
    }

    /// Starts to listen, at first or after [`Self::hang_up`].
    pub async fn listen(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await.with_context(|| format!("listening on {}", self.address))?;
        self.server = Some(tokio::spawn(serve(listener, self.shared.clone())));
        Ok(())
    }

    /// Closes the port and every connection; what was recorded stays.
    pub async fn hang_up(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Where webhooks go.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers by `script` from the next request on; the count of requests for each id goes on.
    pub fn set_script(&self, script: Script) {
        self.shared.lock().script = script;
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.lock().log.all().to_vec()
    }

    /// Looks at what was recorded, without a copy.
    pub fn look<T>(&self, look: impl FnOnce(&RequestLog) -> T) -> T {
        look(&self.shared.lock().log)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Waits until `condition` holds; it is looked at once, and then after arrivals. Fails after `deadline` with what
    /// arrived.
    pub async fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&RequestLog) -> bool,
    ) -> Result<()> {
        let mut arrived = self.shared.arrived.subscribe();
        let wait = async {
            while !condition(&self.shared.lock().log) {
                arrived.changed().await.context("the fake endpoint is gone")?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(deadline, wait).await {
            Ok(done) => done,
            Err(_) => {
                let (requests, ids) = self.look(|log| (log.all().len(), log.ids()));
                bail!("gave up after {deadline:?} waiting for {what}; {requests} requests with {ids} ids arrived")
            }
        }
    }

    /// Fails unless every request so far carries a signature that [`SECRET`] made.
    pub fn expect_all_signed(&self) -> Result<()> {
        let refused = self.look(|log| log.all().iter().find(|request| request.verdict.is_err()).cloned());
        match refused {
            None => Ok(()),
            Some(request) => bail!("a request without a valid signature arrived: {request:?}"),
        }
    }
}

impl Drop for FakeEndpoint {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request and decides its answer, in one step.
    fn record(&self, request: Received) -> Answer {
        let mut state = self.lock();
        let number = state.log.push(request);
        let request = state.log.all().last();
        let answer = request.map_or_else(Answer::ok, |request| state.script.answer(&Call { request, number }));
        drop(state);
        self.arrived.send_replace(());
        answer
    }
}

/// Accepts until it is aborted; its connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Small answers must not wait for Nagle's timer.
        let _ = stream.set_nodelay(true);
        let connection = {
            let mut state = shared.lock();
            state.connections += 1;
            state.connections
        };
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| respond(request, connection, shared.clone()));
            // A client that hangs up is part of what is tested.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn respond(
    request: Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
) -> Result<Response<AnswerBody>, answer::HangUp> {
    let arrived_at = Instant::now();
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Err(answer::HangUp) };
    let received = Received::new(&head, body.to_bytes(), connection, arrived_at, SECRET);
    shared.record(received).into_response().await
}

/// The error of a body that can't fail.
type Never = Infallible;
