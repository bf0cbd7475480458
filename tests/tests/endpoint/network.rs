use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use wirehook::delivery::AttemptResult::Status;
use wirehook::endpoint::{EndpointError, Endpoints, LOOKUPS_MAX, Lookup, Network};
use wirehook::settings::EgressSettings;
use wirehook_tests::raw_endpoint::{RawEndpoint, endpoint_on, settings};

use crate::{attempt, denied, transport};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Answers every name alike, and counts how often it was asked.
#[derive(Default)]
struct Names {
    /// Empty means that there is no such name.
    addresses: Vec<IpAddr>,
    hangs: bool,
    asked: AtomicUsize,
}

impl Lookup for Names {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (addresses, hangs) = (self.addresses.clone(), self.hangs);
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            if addresses.is_empty() { Err(io::Error::other("no such host is known")) } else { Ok(addresses) }
        })
    }
}

fn names(addresses: &[&str]) -> Arc<Names> {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    Arc::new(Names { addresses, ..Names::default() })
}

fn network(names: &Arc<Names>) -> Network {
    Network { lookup: Arc::<Names>::clone(names), tls: None }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused() {
    let server = RawEndpoint::answering(OK).await;
    let url = format!("http://hooks.example:{}/", server.address.port());
    for addresses in [&["127.0.0.1"][..], &["8.8.8.8", "127.0.0.1"], &["::ffff:127.0.0.1"], &["64:ff9b::127.0.0.1"]] {
        let outcome = attempt(&endpoint_on(network(&names(addresses)), settings(&url), &[])).await;
        for part in ["`hooks.example`", "127.0.0.0/8", "`[egress] allow`"] {
            assert!(denied(&outcome).contains(part), "{addresses:?}: {}", denied(&outcome));
        }
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn localhost_is_looked_up_and_refused() {
    let server = RawEndpoint::answering(OK).await;
    let url = format!("http://localhost:{}/", server.address.port());
    let outcome = attempt(&endpoint_on(Network::default(), settings(&url), &[])).await;
    assert!(denied(&outcome).starts_with("`localhost` leads inside: "), "{}", denied(&outcome));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_address_in_the_url_is_refused_however_it_is_written() {
    let server = RawEndpoint::answering(OK).await;
    let port = server.address.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "[::1]",
        "0",
        "[::]",
    ] {
        let outcome = attempt(&endpoint_on(Network::default(), settings(&format!("http://{host}:{port}/")), &[])).await;
        assert!(denied(&outcome).contains("`[egress] allow`"), "{host}: {}", denied(&outcome));
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_allowed_name_is_reached_under_its_own_name_and_looked_up_once_a_connection() {
    let server = RawEndpoint::answering(OK).await;
    let host = format!("hooks.example:{}", server.address.port());
    let names = names(&["127.0.0.1"]);
    let endpoint = endpoint_on(network(&names), settings(&format!("http://{host}/")), &["127.0.0.0/8"]);
    for _ in 0..3 {
        assert_eq!(attempt(&endpoint).await.result, Status(200));
        assert_eq!(server.request().await.header("host"), host);
    }
    assert_eq!((server.connections(), names.asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_dead_address_leaves_time_for_the_next() {
    let server = RawEndpoint::answering(OK).await;
    let url = format!("http://hooks.example:{}/", server.address.port());
    // Nobody listens on the first.
    let endpoint = endpoint_on(network(&names(&["127.0.0.2", "127.0.0.1"])), settings(&url), &["127.0.0.0/8"]);
    assert_eq!(attempt(&endpoint).await.result, Status(200));
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_tried_again() {
    let names = names(&[]);
    let endpoint = endpoint_on(network(&names), settings("http://hooks.example/?token=hush"), &[]);
    // More often than there are places: a lookup that ended has given its own back.
    for _ in 0..=LOOKUPS_MAX {
        let outcome = attempt(&endpoint).await;
        assert_eq!(transport(&outcome), "name lookup of `hooks.example` failed: no such host is known");
    }
    assert_eq!(names.asked.load(Ordering::SeqCst), LOOKUPS_MAX + 1);
}

#[tokio::test]
async fn lookups_that_hang_are_bounded_and_end_with_the_attempt() {
    let names = Arc::new(Names { hangs: true, ..Names::default() });
    let mut settings = settings("http://hooks.example/");
    settings.timeout = Duration::from_millis(200);
    let endpoint = endpoint_on(network(&names), settings, &[]);
    for outcome in join_all((0..4 * LOOKUPS_MAX).map(|_| attempt(&endpoint))).await {
        assert_eq!(transport(&outcome), "timed out while connecting");
    }
    attempt(&endpoint).await;
    assert_eq!(names.asked.load(Ordering::SeqCst), LOOKUPS_MAX);
}

/// Set for the child of `proxies_are_not_used`: the port that it is to reach past the proxy.
const PORT_PAST_PROXY: &str = "WIREHOOK_TEST_PORT_PAST_PROXY";

#[tokio::test]
async fn proxies_are_not_used() {
    if let Ok(port) = std::env::var(PORT_PAST_PROXY) {
        let settings = settings(&format!("http://hooks.example:{port}/"));
        let endpoint = endpoint_on(network(&names(&["127.0.0.1"])), settings, &["127.0.0.0/8"]);
        assert_eq!(attempt(&endpoint).await.result, Status(200));
        return;
    }
    // A proxy would look the name up by itself, beyond the guard. The environment is read once, so a child has its own.
    let (server, proxy) = (RawEndpoint::answering(OK).await, RawEndpoint::answering(OK).await);
    let child = tokio::process::Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "network::proxies_are_not_used"])
        .env(PORT_PAST_PROXY, server.address.port().to_string())
        .env("http_proxy", proxy.url("/"))
        .env("ALL_PROXY", proxy.url("/"))
        .env_remove("no_proxy")
        .output();
    let output = child.await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((server.connections(), proxy.connections()), (1, 0));
}

#[test]
fn settings_that_cannot_work_are_named() {
    let check = |url: &str, expected: &str| {
        let error = Endpoints::new(&[settings(url)], &EgressSettings::default()).expect_err(url);
        assert_eq!(error.to_string(), expected);
    };
    check("ftp://example.com/", "endpoint `orders`: a webhook can't be sent to a `ftp` URL; use `https` or `http`");
    let mut unsigned = settings("http://example.com/");
    unsigned.secrets = Vec::new();
    let error = Endpoints::new(&[unsigned], &EgressSettings::default()).expect_err("it can't sign");
    assert!(matches!(error, EndpointError::Secret { .. }), "{error}");
}

#[tokio::test]
async fn endpoints_are_found_by_name() {
    let endpoints = Endpoints::new(&[settings("http://example.com/")], &EgressSettings::default()).expect("valid");
    assert_eq!(&**endpoints.get("orders").expect("it is configured").name(), "orders");
    assert!(endpoints.get("other").is_none());
}
