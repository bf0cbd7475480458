//! Answers that are not quite HTTP: the status counts.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use wirehook::delivery::AttemptResult::Status;
use wirehook::endpoint::RESPONSE_HEAD_BYTES_MAX;
use wirehook_tests::raw_endpoint::{DEADLINE, RawEndpoint, delivery, endpoint, settings};

use crate::{attempt, transport};

/// An answer with these lines among its headers counts by its status, each time, over one connection.
async fn check(lines: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 2\r\n\r\nok");
    let server = RawEndpoint::answering(answer).await;
    let endpoint = endpoint(settings(&server.url("/")));
    for _ in 0..3 {
        let outcome = attempt(&endpoint).await;
        assert_eq!(
            (outcome.result, &outcome.response[..]),
            (Status(200), &b"ok"[..]),
            "{:?}",
            &lines[..lines.len().min(80)]
        );
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn odd_headers_are_passed_over() {
    check("Set-Cookie: ___utm=dmo\u{1}OZPF; path=/").await;
    check("Set-Cookie: a=\0b").await;
    check("X-A: a\rb").await;
    check("PHP Warning: Unable to load dynamic library '/x.so'").await;
    check("PHP Warning  Undefined index in /srv/index.php on line 3").await;
    check("X-Folded: a\r\n b\r\n\tc").await;
    check("X-Spaced : a").await;
    check(": nameless").await;
    check("Pr\u{e9}nom: a").await;
    check("X-Many: a\r\n".repeat(101).trim_end()).await;
    check("X-Many: a\r\n".repeat(5_000).trim_end()).await;
    check(&format!("X-Long: {}", "a".repeat(RESPONSE_HEAD_BYTES_MAX - 1024))).await;
    check("Content-Length: 2").await;
}

#[tokio::test]
async fn a_length_that_is_none_leaves_the_status() {
    for lengths in ["Content-Length: two", "Content-Length: 2\r\nContent-Length: 3", "Content-Length: -1"] {
        let server = RawEndpoint::answering(format!("HTTP/1.1 201 Made\r\n{lengths}\r\n\r\nok")).await;
        assert_eq!(attempt(&endpoint(settings(&server.url("/")))).await.result, Status(201), "{lengths}");
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_cut() {
    let heads: [&[u8]; 2] = [b"HTTP/1.1 100 Continue\r\n\r\n", b"x-header: again\r\n"];
    for head in heads {
        let server = RawEndpoint::start(move |mut stream| async move {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\n").await?;
            loop {
                stream.write_all(head).await?;
            }
        })
        .await;
        let outcome = attempt(&endpoint(settings(&server.url("/")))).await;
        assert!(transport(&outcome).contains("256 KiB before its answer began"), "{}", transport(&outcome));
        assert!(outcome.duration < DEADLINE / 2);
    }
}

#[tokio::test]
async fn an_empty_body_has_a_length() {
    let server = RawEndpoint::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let endpoint = endpoint(settings(&server.url("/")));
    let clock = wirehook::clock::SystemClock::shared();
    assert_eq!(endpoint.attempt(&delivery(""), clock.now(), &*clock).await.result, Status(200));
    assert_eq!(server.request().await.header("content-length"), "0");
}

#[tokio::test]
async fn a_body_behind_a_204_is_passed_over() {
    let server = RawEndpoint::answering("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello").await;
    let endpoint = endpoint(settings(&server.url("/")));
    for _ in 0..5 {
        let outcome = attempt(&endpoint).await;
        assert_eq!(outcome.result, Status(204));
        assert!(outcome.duration < Duration::from_secs(5));
    }
}
