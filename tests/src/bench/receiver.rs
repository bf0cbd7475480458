//! The receiver of every scenario: it counts, looks for a signature on each request and verifies a sample.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::fake_endpoint::SECRET;
use crate::{events, signature};

/// One request in so many is verified whole.
const VERIFIED_OF: usize = 64;

/// Waiters are told of progress once in so many requests, and of the last one.
const TOLD_OF: usize = 64;

/// A receiver on a thread and a runtime of its own, which end with the process.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    round: Mutex<Round>,
    progress: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Round {
    expected: usize,
    ids: HashSet<u128>,
    requests: usize,
    refusal: Option<String>,
    first_at: Option<Instant>,
    finished_at: Option<Instant>,
    /// When the first webhook of each order arrived, by its number; empty unless that is asked for.
    arrivals: Vec<Option<Instant>>,
}

impl Receiver {
    /// Starts to listen on a port that the system picks.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { round: Mutex::default(), progress: watch::Sender::new(0) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = shared.clone();
        std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            runtime.block_on(async move {
                if let Ok(listener) = TcpListener::from_std(listener) {
                    serve(listener, serving).await;
                }
            });
        })?;
        Ok(Self { address, shared })
    }

    /// Where webhooks go.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Forgets everything and expects so many different webhooks.
    pub fn expect(&self, expected: usize) {
        *self.shared.lock() = Round { expected, ..Round::default() };
        self.shared.progress.send_replace(0);
    }

    /// The same, of the orders from number 0 on, and keeps when each arrived.
    pub fn expect_timed(&self, expected: usize) {
        self.expect(expected);
        self.shared.lock().arrivals = vec![None; expected];
    }

    /// When the webhook of each order arrived first, since [`expect_timed`](Self::expect_timed).
    pub fn arrivals(&self) -> Vec<Option<Instant>> {
        std::mem::take(&mut self.shared.lock().arrivals)
    }

    /// When the first request arrived.
    pub fn first_at(&self) -> Option<Instant> {
        self.shared.lock().first_at
    }

    /// How many different webhooks arrived, as it changes; not told of each one.
    pub fn progress(&self) -> watch::Receiver<usize> {
        self.shared.progress.subscribe()
    }

    /// Waits for the last webhook expected. Returns when it arrived, and how many requests there were.
    pub async fn finished(&self, deadline: Duration) -> Result<(Instant, usize)> {
        let mut progress = self.progress();
        let wait = async {
            loop {
                {
                    let round = self.shared.lock();
                    ensure!(round.refusal.is_none(), "a webhook was refused: {:?}", round.refusal);
                    if let Some(at) = round.finished_at {
                        return Ok((at, round.requests));
                    }
                }
                progress.changed().await.context("the receiver is gone")?;
            }
        };
        match tokio::time::timeout(deadline, wait).await {
            Ok(finished) => finished,
            Err(_) => {
                let round = self.shared.lock();
                bail!("LOST: {} of {} webhooks arrived within {deadline:?}", round.ids.len(), round.expected)
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, head: &http::request::Parts, body: &[u8]) {
        let mut round = self.lock();
        round.requests += 1;
        round.first_at.get_or_insert_with(Instant::now);
        if !round.arrivals.is_empty()
            && let Some(number) = order_number(body)
            && let Some(arrival) = round.arrivals.get_mut(number)
        {
            arrival.get_or_insert_with(Instant::now);
        }
        let whole = round.requests % VERIFIED_OF == 1;
        match inspect(head, body, whole) {
            Ok(id) => round.ids.insert(id),
            Err(refusal) => round.refusal.replace(refusal).is_none(),
        };
        let arrived = round.ids.len();
        if arrived == round.expected && round.finished_at.is_none() {
            round.finished_at = Some(Instant::now());
        }
        let told = arrived.is_multiple_of(TOLD_OF) || round.finished_at.is_some() || round.refusal.is_some();
        drop(round);
        if told {
            self.progress.send_replace(arrived);
        }
    }
}

/// The webhook's id; a refusal where a header is missing, or the signature is wrong and looked at.
fn inspect(head: &http::request::Parts, body: &[u8], whole: bool) -> Result<u128, String> {
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| format!("{name} is missing"))
    };
    let (id, signature, timestamp) = (header("webhook-id")?, header("x-signature")?, header("x-timestamp")?);
    if whole && signature != signature::sign(SECRET, timestamp, body) {
        return Err(format!("the signature of {id} is wrong"));
    }
    let digits = id.strip_prefix("msg_").and_then(|digits| u128::from_str_radix(digits, 16).ok());
    digits.ok_or_else(|| format!("{id} is not a webhook-id"))
}

/// The number of the order that a webhook is about.
fn order_number(body: &[u8]) -> Option<usize> {
    let order_id = events::order_id(body)?;
    usize::from_str_radix(order_id.rsplit('-').next()?, 16).ok()
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        // Small answers must not wait for Nagle's timer.
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| respond(request, &shared));
            // A sender that was stopped hangs up.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A body that breaks off is no webhook: it is not counted, and the sender must send it again.
    if let Ok(body) = body.collect().await {
        shared.count(&head, &body.to_bytes());
    }
    Ok(Response::new(Empty::new()))
}
