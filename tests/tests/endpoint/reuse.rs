//! Connections that the endpoint closes, or whose requests it says it never processed, cost a delivery no attempt.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use h2::Reason;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wirehook::delivery::AttemptResult::Status;
use wirehook::endpoint::{IDLE_AGE_MAX, REFUSALS_MAX};
use wirehook_tests::raw_endpoint::{RawEndpoint, endpoint, endpoint_on, settings};

use crate::tls::{CA, server_config, trusting};
use crate::{attempt, transport};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What a server does with one request.
enum Deed {
    /// Answers these bytes and keeps the connection.
    Answer(&'static [u8]),
    /// Answers these bytes, then resets the connection.
    Break(&'static [u8]),
}

/// A server that does to the request `nth` of a connection, both counted from 1, what `judge` says; and how many requests it got.
async fn serving(judge: impl Fn(usize) -> Deed + Send + Sync + 'static) -> (RawEndpoint, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let (counted, judge) = (Arc::clone(&requests), Arc::new(judge));
    let known: Arc<Mutex<HashMap<SocketAddr, usize>>> = Arc::default();
    let server = RawEndpoint::start(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (known, judge) = (Arc::clone(&known), Arc::clone(&judge));
        async move {
            let nth = *known
                .lock()
                .expect("nobody panicked")
                .entry(stream.peer_addr()?)
                .and_modify(|nth| *nth += 1)
                .or_insert(1);
            match judge(nth) {
                Deed::Answer(bytes) => stream.write_all(bytes).await.map(|()| Some(stream)),
                Deed::Break(bytes) => {
                    stream.write_all(bytes).await?;
                    if bytes.is_empty() {
                        stream.set_zero_linger()?;
                    }
                    Ok(None)
                }
            }
        }
    })
    .await;
    (server, requests)
}

#[tokio::test]
async fn a_reset_on_reuse_costs_nothing() {
    let (server, _) = serving(|nth| if nth == 1 { Deed::Answer(OK) } else { Deed::Break(b"") }).await;
    let endpoint = endpoint(settings(&server.url("/")));
    for _ in 0..60 {
        assert_eq!(attempt(&endpoint).await.result, Status(200));
    }
    assert_eq!(server.connections(), 60);
}

#[tokio::test]
async fn a_close_on_reuse_costs_nothing() {
    const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (server, _) = serving(|nth| if nth == 1 { Deed::Answer(OK) } else { Deed::Break(TIMED_OUT) }).await;
    let endpoint = endpoint(settings(&server.url("/")));
    for _ in 0..10 {
        assert_eq!(attempt(&endpoint).await.result, Status(200));
    }
}

#[tokio::test]
async fn a_request_is_repeated_once_and_on_a_new_connection_alone() {
    let answers = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&answers);
    let judge = move |_| if still.swap(false, Ordering::SeqCst) { Deed::Answer(OK) } else { Deed::Break(b"") };
    let (server, requests) = serving(judge).await;
    let endpoint = endpoint(settings(&server.url("/")));
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    transport(&attempt(&endpoint).await);
    assert_eq!(requests.load(Ordering::SeqCst), 3, "once over the old connection and once over a new one");
    transport(&attempt(&endpoint).await);
    assert_eq!(requests.load(Ordering::SeqCst), 4, "a new connection has no second try");
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    let (server, requests) = serving(|nth| if nth == 1 { Deed::Answer(OK) } else { Deed::Break(b"HTTP/1.1 20") }).await;
    let endpoint = endpoint(settings(&server.url("/")));
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    transport(&attempt(&endpoint).await);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn one_stale_connection_tells_of_the_others() {
    const BURST: usize = 8;
    let (gone, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_gone, met) = (Arc::clone(&gone), Arc::new(AtomicUsize::new(0)));
    let stale = Arc::clone(&met);
    let server = RawEndpoint::start(move |mut stream| {
        let (is_gone, arrived, stale) = (Arc::clone(&is_gone), Arc::clone(&arrived), Arc::clone(&stale));
        async move {
            let is_old = arrived.fetch_add(1, Ordering::SeqCst) < BURST;
            // All of the burst are answered together, so that each has a connection of its own.
            while is_old && arrived.load(Ordering::SeqCst) < BURST {
                tokio::task::yield_now().await;
            }
            stream.write_all(OK).await?;
            if is_old {
                let bytes = stream.peek(&mut [0]).await?;
                if bytes > 0 && is_gone.load(Ordering::SeqCst) {
                    stale.fetch_add(1, Ordering::SeqCst);
                    stream.set_zero_linger()?;
                    return Ok(None);
                }
            }
            Ok(Some(stream))
        }
    })
    .await;
    let endpoint = endpoint(settings(&server.url("/")));
    let burst = join_all((0..BURST).map(|_| attempt(&endpoint))).await;
    assert!(burst.iter().all(|outcome| outcome.result == Status(200)));
    assert_eq!(server.connections(), BURST);
    gone.store(true, Ordering::SeqCst);
    for _ in 0..BURST {
        assert_eq!(attempt(&endpoint).await.result, Status(200));
    }
    assert_eq!(met.load(Ordering::SeqCst), 1, "the others were not tried");
}

#[tokio::test]
async fn idle_connections_are_closed_before_servers_close_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut read = Vec::new();
        while !read.ends_with(b"{}") {
            stream.read_buf(&mut read).await?;
        }
        stream.write_all(OK).await?;
        let answered_at = tokio::time::Instant::now();
        stream.read_buf(&mut read).await?;
        io::Result::Ok(answered_at.elapsed())
    });
    let endpoint = endpoint(settings(&url));
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    // From here on nothing happens but that time passes.
    tokio::time::pause();
    let idle = serving.await.expect("it ran").expect("the connection was closed");
    let about = IDLE_AGE_MAX - Duration::from_secs(1)..IDLE_AGE_MAX + Duration::from_millis(500);
    assert!(about.contains(&idle), "{idle:?}");
}

/// A server of HTTP/2, and of HTTP/1.1 for who asks for nothing else.
struct Http2 {
    url: String,
    /// Connections of each protocol.
    http_2: Arc<AtomicUsize>,
    http_1: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Http2 {
    /// `serve` deals with each connection of HTTP/2; over HTTP/1.1 everything is answered.
    async fn start<F, S>(serve: F) -> Self
    where
        F: Fn(TlsStream<TcpStream>) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://hooks.test:{}/", listener.local_addr().expect("it is bound").port());
        let mut config = server_config("h2");
        config.alpn_protocols.push(b"http/1.1".to_vec());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (http_2, http_1) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&http_2), Arc::clone(&http_1));
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    counts.0.fetch_add(1, Ordering::SeqCst);
                    serving.spawn(serve(stream));
                } else {
                    counts.1.fetch_add(1, Ordering::SeqCst);
                    serving.spawn(http_1_server(stream));
                }
            }
        });
        Self { url, http_2, http_1, _serving: accepting }
    }

    fn counts(&self) -> (usize, usize) {
        (self.http_2.load(Ordering::SeqCst), self.http_1.load(Ordering::SeqCst))
    }

    fn endpoint(&self) -> Arc<wirehook::endpoint::Endpoint> {
        endpoint_on(trusting(&[CA]), settings(&self.url), &["127.0.0.0/8"])
    }
}

async fn http_1_server(mut stream: TlsStream<TcpStream>) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
        if read.ends_with(b"{}") {
            read.clear();
            if stream.write_all(OK).await.is_err() {
                return;
            }
        }
    }
}

/// Answers each request, or resets its stream with what `judge` says of its number, counted from 1 over all connections.
async fn http_2_server(stream: TlsStream<TcpStream>, judge: impl Fn() -> Option<Reason>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        match judge() {
            Some(reason) => respond.send_reset(reason),
            None => {
                let _ = respond.send_response(Response::new(()), true);
            }
        }
    }
}

/// A server that resets the first `refused` requests with `reason`, and how many it got.
async fn refusing(refused: usize, reason: Reason) -> (Http2, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let server = Http2::start(move |stream| {
        let counted = Arc::clone(&counted);
        http_2_server(stream, move || (counted.fetch_add(1, Ordering::SeqCst) < refused).then_some(reason))
    })
    .await;
    (server, requests)
}

#[tokio::test]
async fn a_refused_stream_is_made_again() {
    for refused in 1..=REFUSALS_MAX as usize {
        let (server, requests) = refusing(refused, Reason::REFUSED_STREAM).await;
        assert_eq!(attempt(&server.endpoint()).await.result, Status(200), "{refused}");
        assert_eq!(requests.load(Ordering::SeqCst), refused + 1);
    }
}

#[tokio::test]
async fn a_stream_that_is_always_refused_fails_in_words() {
    let (server, requests) = refusing(usize::MAX, Reason::REFUSED_STREAM).await;
    let outcome = attempt(&server.endpoint()).await;
    let expected = "the endpoint refused the HTTP/2 request without processing it (REFUSED_STREAM), 4 times";
    assert!(transport(&outcome).starts_with(expected), "{}", transport(&outcome));
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn other_resets_are_an_answer() {
    let (server, requests) = refusing(1, Reason::INTERNAL_ERROR).await;
    transport(&attempt(&server.endpoint()).await);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn http_1_is_spoken_where_it_is_required() {
    let (server, _) = refusing(usize::MAX, Reason::HTTP_1_1_REQUIRED).await;
    let endpoint = server.endpoint();
    for _ in 0..3 {
        assert_eq!(attempt(&endpoint).await.result, Status(200));
    }
    assert_eq!(server.counts(), (1, 1), "from the first answer on");
}

#[tokio::test]
async fn http_1_is_spoken_where_http_2_is_broken() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEADERS_OF_NO_STREAM: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 0, 0x88];
    let server = Http2::start(|mut stream| async move {
        let _ = stream.write_all(SETTINGS).await;
        let _ = stream.read_buf(&mut Vec::new()).await;
        let _ = stream.write_all(HEADERS_OF_NO_STREAM).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let endpoint = server.endpoint();
    for _ in 0..3 {
        assert_eq!(attempt(&endpoint).await.result, Status(200));
    }
    assert_eq!(server.counts(), (1, 1));
}

#[tokio::test]
async fn a_connection_of_http_2_that_is_gone_costs_nothing() {
    let server = Http2::start(|stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        if let Some(Ok((_, mut respond))) = connection.accept().await {
            let _ = respond.send_response(Response::new(()), true);
        }
        // The next request ends it without a word.
        let _ = connection.accept().await;
    })
    .await;
    let endpoint = server.endpoint();
    for _ in 0..5 {
        assert_eq!(attempt(&endpoint).await.result, Status(200));
    }
    assert_eq!(server.counts(), (5, 0));
}

#[tokio::test]
async fn one_connection_of_http_2_serves_all_at_once() {
    let (server, requests) = refusing(0, Reason::NO_ERROR).await;
    let endpoint = server.endpoint();
    let outcomes = join_all((0..50).map(|_| attempt(&endpoint))).await;
    assert!(outcomes.iter().all(|outcome| outcome.result == Status(200)));
    assert_eq!((server.counts(), requests.load(Ordering::SeqCst)), ((1, 0), 50));
}
