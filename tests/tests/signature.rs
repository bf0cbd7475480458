//! What is really sent, checked by a verifier that shares no code with the signer: the page's, in Python.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use http::{HeaderMap, HeaderValue};
use serde_json::json;
use wirehook::clock::{SystemClock, Timestamp};
use wirehook::delivery::AttemptResult::Status;
use wirehook::receiver::verify;
use wirehook::secret::Secret;
use wirehook::settings::SignatureScheme;
use wirehook_tests::raw_endpoint::{RawEndpoint, RawRequest, delivery, endpoint, settings};

const VERIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/verify_webhook.py");

/// Runs the page's verifier over requests, at `now` where it is given and else at the machine's time.
fn page_verify(requests: &[RawRequest], secret: &str, now: Option<i64>) -> Output {
    let mut python = Command::new("python3")
        .arg(VERIFIER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs; install it to verify signatures with the page's own code");
    let mut stdin = python.stdin.take().expect("it is piped");
    for request in requests {
        let mut line = json!({
            "body_hex": hex::encode(&request.body),
            "signature": request.header("x-signature"),
            "timestamp": request.header("x-timestamp"),
            "secret": secret,
        });
        if let Some(now) = now {
            line["now"] = now.into();
        }
        writeln!(stdin, "{line}").expect("it reads");
    }
    drop(stdin);
    python.wait_with_output().expect("it ends")
}

fn headers(request: &RawRequest) -> HeaderMap {
    let header = |(name, value): &(String, Vec<u8>)| Some((name.parse().ok()?, HeaderValue::from_bytes(value).ok()?));
    request.headers.iter().filter_map(header).collect()
}

fn check(requests: &[RawRequest], secret: &str, now: Option<i64>, expected: &str) {
    let output = page_verify(requests, secret, now);
    let verdicts: Vec<_> = std::str::from_utf8(&output.stdout).expect("text").lines().collect();
    assert_eq!(verdicts, vec![expected; requests.len()]);
    assert_eq!(output.status.code(), Some(if expected == "ok" { 0 } else { 1 }));
}

/// The requests in which these bodies were sent, signed for `now` with the first secret.
async fn sent(bodies: &[&[u8]], secrets: &[&str], now: Timestamp) -> Vec<RawRequest> {
    let server = RawEndpoint::answering("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
    let mut settings = settings(&server.url("/"));
    settings.secrets = secrets.iter().map(|secret| Secret::new(secret).into()).collect();
    let endpoint = endpoint(settings);
    let clock = SystemClock::shared();
    let mut requests = Vec::new();
    for body in bodies {
        let outcome = endpoint.attempt(&delivery(body.to_vec()), now, &*clock).await;
        assert_eq!(outcome.result, Status(503));
        requests.push(server.request().await);
    }
    requests
}

#[tokio::test]
async fn the_page_accepts_every_body() {
    let large = vec![b'x'; 1 << 20];
    let every_byte: Vec<u8> = (0..=255).collect();
    let bodies: &[&[u8]] =
        &[b"{}", b"", b"{ \"spaced\" : 1 }\n", "{\"name\":\"Zoë 🦀\"}".as_bytes(), &every_byte, &large];
    let requests = sent(bodies, &["wörd"], SystemClock::shared().now()).await;
    for (request, body) in requests.iter().zip(bodies) {
        assert_eq!(&request.body, body);
    }
    check(&requests, "wörd", None, "ok");
    check(&requests, "other", None, "fail");
}

#[tokio::test]
async fn each_attempt_is_signed_for_its_own_time() {
    let first = Timestamp(1_767_225_600_000);
    let mut requests = sent(&[b"{}"], &["s"], first).await;
    requests.extend(sent(&[b"{}"], &["s"], Timestamp(first.0 + 299_000)).await);
    check(&requests, "s", Some(first.unix_seconds()), "ok");
    check(&requests[..1], "s", Some(first.unix_seconds() + 301), "fail");
    check(&requests[1..], "s", Some(first.unix_seconds() + 301), "ok");
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
}

#[tokio::test]
async fn of_several_secrets_the_newest_signs() {
    let requests = sent(&[b"{}"], &["new", "old"], SystemClock::shared().now()).await;
    check(&requests, "new", None, "ok");
    check(&requests, "old", None, "fail");
}

#[tokio::test]
async fn a_body_that_was_touched_is_found_out() {
    let mut requests = sent(&[b"{\"total\":10}"], &["s"], SystemClock::shared().now()).await;
    requests[0].body = b"{\"total\":99}".to_vec();
    check(&requests, "s", None, "fail");
}

#[tokio::test]
async fn our_receiver_agrees_with_the_page() {
    let now = Timestamp(1_767_225_600_000);
    let requests = sent(&[b"{}"], &["s"], now).await;
    for (seconds, secret) in [(0, "s"), (300, "s"), (-300, "s"), (301, "s"), (-301, "s"), (0, "t")] {
        let at = Timestamp(now.0 + seconds * 1000);
        let request = &requests[0];
        let ours = verify(&SignatureScheme::Fraiseql, &headers(request), &request.body, &[Secret::new(secret)], at);
        check(&requests, secret, Some(at.unix_seconds()), if ours.is_ok() { "ok" } else { "fail" });
    }
}
