//! Webhooks to a real nginx, which shuts connections down as it likes: every attempt is answered, and nginx sees each once.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use wirehook::clock::SystemClock;
use wirehook::delivery::AttemptResult::Status;
use wirehook::delivery::DeliveryId;
use wirehook::endpoint::Endpoint;
use wirehook_tests::full::is_full;
use wirehook_tests::nginx::{Nginx, NginxOptions};
use wirehook_tests::raw_endpoint::{DEADLINE, delivery, endpoint_on, settings};
use wirehook_tests::wait::until;

use crate::tls::{CA, trusting};

/// As many as a loaded endpoint has under way.
const AT_ONCE: usize = 64;

async fn check(options: NginxOptions<'_>) {
    let count = if is_full() { 10_000 } else { 1_000 };
    let nginx = Nginx::start(options).await.expect("nginx starts");
    let mut settings = settings(&nginx.url("hooks.test", "/hooks"));
    settings.concurrency = AT_ONCE;
    let endpoint = endpoint_on(trusting(&[CA]), settings, &["127.0.0.0/8"]);
    let failed = stream::iter(0..count).map(|number| attempt(&endpoint, number)).buffer_unordered(AT_ONCE);
    let failed: Vec<_> = failed.filter_map(async |failed| failed).collect().await;
    assert!(failed.is_empty(), "{options:?}: {} of {count} attempts failed, such as {}", failed.len(), failed[0]);
    // A line is written after its answer was sent.
    let complete = async || Ok(nginx.access_log().ok().filter(|lines| lines.len() >= count));
    let lines = until("a line for each", DEADLINE, complete).await.expect("nginx saw all of them");
    assert_eq!(lines.len(), count, "{options:?}: as many requests as attempts");
    let ids: HashSet<_> = lines.iter().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(ids.len(), count, "each once");
}

async fn attempt(endpoint: &Arc<Endpoint>, number: usize) -> Option<String> {
    let clock = SystemClock::shared();
    let mut sent = delivery("{\"total\":17}");
    sent.id = DeliveryId::from_stored(format!("msg_{number:032x}"));
    let outcome = endpoint.attempt(&sent, clock.now(), &*clock).await;
    (outcome.result != Status(200)).then(|| format!("{:?}", outcome.result))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_with_defaults() {
    check(NginxOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_with_ten_requests_a_connection() {
    check(NginxOptions { more: "keepalive_requests 10;", ..NginxOptions::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_1_with_ten_requests_a_connection() {
    check(NginxOptions { is_secure: true, more: "keepalive_requests 10;", ..NginxOptions::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_with_defaults() {
    check(NginxOptions { is_secure: true, http_2: true, ..NginxOptions::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_with_ten_requests_a_connection() {
    check(NginxOptions { is_secure: true, http_2: true, more: "keepalive_requests 10;" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_with_four_streams_at_once() {
    check(NginxOptions { is_secure: true, http_2: true, more: "http2_max_concurrent_streams 4;" }).await;
}
