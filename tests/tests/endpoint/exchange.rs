use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use wirehook::clock::{ManualClock, SystemClock, Timestamp};
use wirehook::delivery::AttemptResult::Status;
use wirehook::endpoint::{RESPONSE_EXCERPT_BYTES_MAX, RESPONSE_READ_BYTES_MAX};
use wirehook::secret::Secret;
use wirehook::settings::SignatureScheme;
use wirehook_tests::raw_endpoint::{DEADLINE, RawEndpoint, delivery, endpoint, settings};

use crate::{attempt, transport};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn the_request_on_the_wire() {
    let server = RawEndpoint::answering(OK).await;
    let mut settings = settings(&server.url("/hooks/ä?tenant=1"));
    settings.headers = vec![("authorization".to_owned(), Secret::new("Bearer t0ken"))];
    let mut sent = delivery("{\"name\":\"Zoë 🦀\"}");
    sent.headers = vec![("x-name".to_owned(), "Zoë".to_owned()), ("Authorization".to_owned(), "mine".to_owned())];
    let clock = SystemClock::shared();
    let outcome = endpoint(settings).attempt(&sent, Timestamp(1_767_225_600_999), &*clock).await;
    assert_eq!(outcome.result, Status(200));

    let request = server.request().await;
    assert_eq!(request.line, "POST /hooks/%C3%A4?tenant=1 HTTP/1.1");
    assert_eq!(request.body, "{\"name\":\"Zoë 🦀\"}".as_bytes());
    let expected = [
        ("content-type", "application/json"),
        ("content-length", "20"),
        ("webhook-id", "msg_0123456789abcdef0123456789abcdef"),
        ("x-timestamp", "1767225600"),
        ("x-signature", "sha256=40510f2199e081b022c025c9a828177e7da589c6c9b015bfe686abc422af527d"),
        ("authorization", "Bearer t0ken"),
        ("user-agent", concat!("wirehook/", env!("CARGO_PKG_VERSION"))),
        ("x-name", "Zoë"),
        ("host", &server.address.to_string()),
    ];
    for (name, value) in expected {
        assert_eq!(request.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn the_scheme_none_signs_nothing() {
    let server = RawEndpoint::answering(OK).await;
    let mut settings = settings(&server.url("/"));
    (settings.signature, settings.secrets) = (SignatureScheme::None, Vec::new());
    assert_eq!(attempt(&endpoint(settings)).await.result, Status(200));
    let request = server.request().await;
    request.header("webhook-id");
    assert!(!request.headers.iter().any(|(name, _)| name == "x-signature" || name == "x-timestamp"));
}

#[tokio::test]
async fn the_beginning_of_the_response_is_kept() {
    let body = "x".repeat(RESPONSE_EXCERPT_BYTES_MAX + 1);
    let server =
        RawEndpoint::answering(format!("HTTP/1.1 422 No\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let outcome = attempt(&endpoint(settings(&server.url("/")))).await;
    assert_eq!(outcome.result, Status(422));
    assert_eq!(outcome.response, body[..RESPONSE_EXCERPT_BYTES_MAX]);
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = RawEndpoint::answering("HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy").await;
    let endpoint = endpoint(settings(&server.url("/")));
    for _ in 0..10 {
        assert_eq!(attempt(&endpoint).await.result, Status(503));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn informational_responses_are_no_answer() {
    let server = RawEndpoint::answering(format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}")).await;
    assert_eq!(attempt(&endpoint(settings(&server.url("/")))).await.result, Status(200));
}

#[tokio::test]
async fn redirects_are_recorded_and_not_followed() {
    let elsewhere = RawEndpoint::answering(OK).await;
    for status in [301, 302, 303, 307, 308] {
        let location = elsewhere.url("/");
        let response = format!("HTTP/1.1 {status} Go\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let server = RawEndpoint::answering(response).await;
        assert_eq!(attempt(&endpoint(settings(&server.url("/")))).await.result, Status(status));
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn retry_after_becomes_a_moment() {
    let response = |value: &str| format!("HTTP/1.1 429 Slow\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
    let now = Timestamp(1_767_225_600_000);
    let clock = ManualClock::starting_at(now);
    for (value, expected) in [("7", Some(7_000)), ("Thu, 01 Jan 2026 00:01:00 GMT", Some(60_000)), ("in a while", None)]
    {
        let server = RawEndpoint::answering(response(value)).await;
        let outcome = endpoint(settings(&server.url("/"))).attempt(&delivery("{}"), now, &*clock).await;
        assert_eq!(outcome.result, Status(429));
        assert_eq!(outcome.retry_after.map(|at| at.0 - now.0), expected, "{value}");
    }
}

#[tokio::test]
async fn a_refused_connection() {
    let address = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    // The listener is gone, its port closed.
    let outcome = attempt(&endpoint(settings(&format!("http://{address}/?token=hush")))).await;
    assert_eq!(transport(&outcome), "connection refused");
    assert_eq!(outcome.retry_after, None);
}

#[tokio::test]
async fn a_connection_closed_without_an_answer() {
    let server = RawEndpoint::start(|_| async { Ok(None) }).await;
    let outcome = attempt(&endpoint(settings(&server.url("/?token=hush")))).await;
    assert_eq!(transport(&outcome), "connection closed before message completed");
}

#[tokio::test]
async fn something_that_is_no_http() {
    let server = RawEndpoint::answering("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    let outcome = attempt(&endpoint(settings(&server.url("/?token=hush")))).await;
    assert!(transport(&outcome).contains("invalid HTTP"), "{}", transport(&outcome));
    assert!(!transport(&outcome).contains("hush"));
}

#[tokio::test]
async fn a_reset_within_the_body() {
    let server = RawEndpoint::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\nretry-after: 5\r\n\r\npart").await?;
        // Wait until it was read: a reset throws away what was not.
        while stream.try_read(&mut [0]).is_ok() {}
        stream.set_zero_linger()?;
        Ok(None)
    })
    .await;
    let outcome = attempt(&endpoint(settings(&server.url("/")))).await;
    assert_ne!(outcome.result, Status(200), "no whole response arrived");
    transport(&outcome);
}

#[tokio::test]
async fn a_body_that_ends_too_soon() {
    let server = RawEndpoint::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\npart").await?;
        stream.shutdown().await?;
        Ok(None)
    })
    .await;
    let outcome = attempt(&endpoint(settings(&server.url("/")))).await;
    let text = transport(&outcome);
    assert!(text.ends_with("while reading the response body after status 200"), "{text}");
    assert_eq!(outcome.response, "part");
}

#[tokio::test]
async fn a_body_that_drips_is_cut_at_the_timeout() {
    let server = RawEndpoint::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
        let mut drip = tokio::time::interval(Duration::from_millis(10));
        loop {
            drip.tick().await;
            stream.write_all(b".").await?;
        }
    })
    .await;
    let mut settings = settings(&server.url("/"));
    settings.timeout = Duration::from_millis(300);
    let outcome = attempt(&endpoint(settings)).await;
    assert_eq!(transport(&outcome), "timed out after 300ms while reading the response body after status 200");
    assert!((Duration::from_millis(299)..DEADLINE / 2).contains(&outcome.duration), "{:?}", outcome.duration);
    assert!(outcome.response.starts_with(b"."));
}

#[tokio::test]
async fn headers_that_drip_are_cut_at_the_timeout() {
    let server = RawEndpoint::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-drip: ").await?;
        let mut drip = tokio::time::interval(Duration::from_millis(10));
        loop {
            drip.tick().await;
            stream.write_all(b".").await?;
        }
    })
    .await;
    let mut settings = settings(&server.url("/"));
    settings.timeout = Duration::from_millis(300);
    let outcome = attempt(&endpoint(settings)).await;
    assert_eq!(transport(&outcome), "timed out after 300ms waiting for a response");
}

#[tokio::test]
async fn a_body_past_the_bound_is_not_read() {
    const BODY_BYTES: usize = 100_000_000;
    let written = Arc::new(AtomicUsize::new(0));
    let server = RawEndpoint::start({
        let written = Arc::clone(&written);
        move |mut stream| {
            let written = Arc::clone(&written);
            async move {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                let block = vec![b'x'; 64 * 1024];
                for _ in 0..BODY_BYTES / block.len() {
                    stream.write_all(&block).await?;
                    written.fetch_add(block.len(), Ordering::SeqCst);
                }
                Ok(None)
            }
        }
    })
    .await;
    let endpoint = endpoint(settings(&server.url("/")));
    let outcome = attempt(&endpoint).await;
    assert_eq!(outcome.result, Status(200));
    assert_eq!(outcome.response.len(), RESPONSE_EXCERPT_BYTES_MAX);
    assert!(outcome.duration < DEADLINE / 2);
    // The sockets' buffers hold a few megabytes; the rest was never taken.
    assert!(written.load(Ordering::SeqCst) < BODY_BYTES / 2);
    // What was cut is not used again.
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_status_counts_once_the_bound_is_read() {
    let server = RawEndpoint::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 100000000\r\n\r\n").await?;
        stream.write_all(&vec![b'x'; RESPONSE_READ_BYTES_MAX]).await?;
        // And nothing more, for ever.
        std::future::pending().await
    })
    .await;
    let outcome = attempt(&endpoint(settings(&server.url("/")))).await;
    assert_eq!(outcome.result, Status(500));
    assert!(outcome.duration < DEADLINE / 2);
}
