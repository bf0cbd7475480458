//! The proxy of `[egress]`: what it is told, and whose fault it is when it leads nowhere.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use wirehook::delivery::AttemptResult::{Deferred, Status, Transport};
use wirehook::delivery::Outcome;
use wirehook::endpoint::{Endpoint, Endpoints, Lookup, Network};
use wirehook::secret::Secret;
use wirehook::settings::{EgressSettings, ProxyKind, ProxySettings};
use wirehook_tests::fake_proxy::{Asked, FakeProxy, Lead};
use wirehook_tests::port;
use wirehook_tests::raw_endpoint::{RawEndpoint, endpoint_by, settings};

use crate::attempt;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const KINDS: [ProxyKind; 2] = [ProxyKind::Http, ProxyKind::Socks5];

/// Names of the test.
struct Names;

impl Lookup for Names {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let addresses = match name.as_str() {
            "hooks.example" => vec![[127, 0, 0, 1].into()],
            "two.example" => vec![[127, 0, 0, 3].into(), [127, 0, 0, 1].into()],
            "proxy.example" => vec![[127, 0, 0, 1].into()],
            _ => Vec::new(),
        };
        Box::pin(
            async move { if addresses.is_empty() { Err(io::Error::other("no such host")) } else { Ok(addresses) } },
        )
    }
}

fn network() -> Network {
    Network { lookup: Arc::new(Names), tls: None }
}

fn egress(proxy: ProxySettings) -> EgressSettings {
    EgressSettings { allow: vec!["127.0.0.0/8".parse().expect("a network")], proxy: Some(proxy) }
}

fn through(proxy: ProxySettings, url: &str) -> Arc<Endpoint> {
    endpoint_by(network(), settings(url), &egress(proxy))
}

/// Why nothing is charged to the endpoint; panics where something is.
fn deferred(outcome: &Outcome) -> &str {
    match &outcome.result {
        Deferred(text) => text,
        other => panic!("it is charged: {other:?}"),
    }
}

#[tokio::test]
async fn the_proxy_is_told_the_vetted_address_and_leads_to_the_endpoint() {
    let server = RawEndpoint::answering(OK).await;
    let host = format!("hooks.example:{}", server.address.port());
    for (kind, connections) in KINDS.into_iter().zip(1..) {
        let proxy = FakeProxy::start(kind, Lead::There).await;
        let endpoint = through(proxy.settings(), &format!("http://{host}/hook"));
        for _ in 0..5 {
            assert_eq!(attempt(&endpoint).await.result, Status(200));
            let request = server.request().await;
            // The tunnel is the endpoint's own: no absolute form, no header for the proxy.
            assert_eq!((request.line.as_str(), request.header("host")), ("POST /hook HTTP/1.1", host.as_str()));
            assert!(!request.headers.iter().any(|(name, _)| name.starts_with("proxy-")), "{request:?}");
        }
        assert_eq!(proxy.targets(), [server.address.to_string()]);
        assert_eq!((proxy.connections(), server.connections()), (1, connections), "the tunnel is used again");
    }
}

#[tokio::test]
async fn the_proxy_itself_may_have_a_name_and_stand_inside() {
    let server = RawEndpoint::answering(OK).await;
    let proxy = FakeProxy::start(ProxyKind::Http, Lead::To(server.address)).await;
    let named = ProxySettings { host: "proxy.example".to_owned(), ..proxy.settings() };
    // Nothing is allowed but where the endpoint is.
    let egress = EgressSettings { allow: Vec::new(), proxy: Some(named) };
    let endpoint = endpoint_by(network(), settings("http://93.184.215.14/"), &egress);
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    assert_eq!(proxy.targets(), ["93.184.215.14:80"]);
}

#[tokio::test]
async fn the_host_logs_in_where_it_can() {
    let server = RawEndpoint::answering(OK).await;
    for (kind, expected) in KINDS.into_iter().zip(["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin:open sesame"]) {
        let proxy = FakeProxy::with_login(kind, Lead::There).await;
        let login = |password: &str| ProxySettings {
            user: Some("Aladdin".to_owned()),
            password: Some(Secret::new(password)),
            ..proxy.settings()
        };
        assert_eq!(attempt(&through(login("open sesame"), &server.url("/"))).await.result, Status(200));
        let asked = Asked { target: server.address.to_string(), credentials: Some(expected.to_owned()) };
        assert_eq!(proxy.asked(), [asked]);
    }
    let proxy = FakeProxy::with_login(ProxyKind::Socks5, Lead::There).await;
    let wrong =
        ProxySettings { user: Some("Aladdin".to_owned()), password: Some(Secret::new("hunter2")), ..proxy.settings() };
    let outcome = attempt(&through(wrong, &server.url("/"))).await;
    assert!(deferred(&outcome).contains("refuses `proxy_user` and `proxy_password`"), "{outcome:?}");
    assert!(!deferred(&outcome).contains("hunter2"));
    let outcome = attempt(&through(proxy.settings(), &server.url("/"))).await;
    assert!(deferred(&outcome).contains("another way to log in"), "{outcome:?}");
}

/// Whatever a proxy does but lead is its own fault, and names it.
#[tokio::test]
async fn what_the_proxy_fails_at_is_not_charged() {
    let server = RawEndpoint::answering(OK).await;
    let check = async |kind, lead, expected: &str| {
        let proxy = FakeProxy::start(kind, lead).await;
        let mut settings = settings(&server.url("/?token=hush"));
        settings.timeout = Duration::from_secs(3);
        let outcome = attempt(&endpoint_by(network(), settings, &egress(proxy.settings()))).await;
        let text = deferred(&outcome);
        assert!(text.starts_with("the proxy ") && text.contains(&proxy.address.to_string()), "{text}");
        assert!(text.contains(expected) && !text.contains("hush"), "{text}");
    };
    let say = |text: &str| Lead::Say(Bytes::copy_from_slice(text.as_bytes()));
    for status in [400, 403, 404, 407, 429, 500, 502, 503, 504] {
        let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 3\r\n\r\nno!");
        check(ProxyKind::Http, say(&answer), &format!("answered {status} to CONNECT")).await;
    }
    check(ProxyKind::Http, say("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "does not speak HTTP").await;
    check(ProxyKind::Http, say("HTTP/1.1 200 OK\r\n\r\nSMTP"), "said more").await;
    check(ProxyKind::Http, say(&"x".repeat(10_000)), "more than 8192 bytes").await;
    for reply in [1, 2, 7, 8, 9] {
        let answer = Bytes::copy_from_slice(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]);
        check(ProxyKind::Socks5, Lead::Say(answer), "").await;
    }
    for kind in KINDS {
        check(kind, Lead::HangUp, "broke the connection").await;
        check(kind, Lead::Hang, "took too long").await;
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_not_charged_to_the_endpoint() {
    let closed = port::free().expect("a free port");
    let nobody = ProxySettings {
        kind: ProxyKind::Http,
        host: "127.0.0.1".to_owned(),
        port: closed,
        user: None,
        password: None,
        resolves_names: false,
    };
    let outcome = attempt(&through(nobody.clone(), "http://hooks.example/")).await;
    assert_eq!(deferred(&outcome), format!("the proxy http://127.0.0.1:{closed} can't be reached: connection refused"));
    let unknown = ProxySettings { host: "nowhere.example".to_owned(), ..nobody };
    let outcome = attempt(&through(unknown, "http://hooks.example/")).await;
    assert!(deferred(&outcome).contains("can't be reached: name lookup of `nowhere.example` failed"), "{outcome:?}");
}

/// A proxy that says that it is the endpoint who does not answer is believed.
#[tokio::test]
async fn what_the_proxy_says_of_the_endpoint_is_charged_to_the_endpoint() {
    let check = async |kind, answer: Bytes, expected: &str| {
        let proxy = FakeProxy::start(kind, Lead::Say(answer)).await;
        let outcome = attempt(&through(proxy.settings(), "http://hooks.example/")).await;
        assert_eq!(outcome.result, Transport(format!("the proxy says: {expected}")));
    };
    let squid = "HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n";
    check(ProxyKind::Http, squid.into(), "the endpoint can't be reached").await;
    let envoy = "HTTP/1.1 502 Bad Gateway\r\nProxy-Status: envoy; error=connection_timeout\r\n\r\n";
    check(ProxyKind::Http, envoy.into(), "the endpoint does not answer in time").await;
    let refused = Bytes::from_static(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    check(ProxyKind::Socks5, refused, "the endpoint refuses the connection").await;
}

/// The host's own lookup is the endpoint's affair, with a proxy or without.
#[tokio::test]
async fn a_name_that_leads_nowhere_is_charged_to_the_endpoint() {
    let proxy = FakeProxy::start(ProxyKind::Http, Lead::There).await;
    let outcome = attempt(&through(proxy.settings(), "http://unknown.example/")).await;
    assert_eq!(outcome.result, Transport("name lookup of `unknown.example` failed: no such host".to_owned()));
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn an_address_that_the_proxy_does_not_reach_leaves_the_next() {
    let server = RawEndpoint::answering(OK).await;
    let port = server.address.port();
    for (kind, answer) in KINDS
        .into_iter()
        .zip([Bytes::from_static(b"HTTP/1.1 503 No\r\n\r\n"), Bytes::from_static(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0])])
    {
        let proxy = FakeProxy::start(kind, Lead::SayOf(format!("127.0.0.3:{port}"), answer)).await;
        let endpoint = through(proxy.settings(), &format!("http://two.example:{port}/"));
        assert_eq!(attempt(&endpoint).await.result, Status(200));
        assert_eq!(proxy.targets(), [format!("127.0.0.3:{port}"), format!("127.0.0.1:{port}")]);
    }
}

/// A proxy is down from the first failure to the first success; what a receiver answers says nothing of it.
#[tokio::test]
async fn the_proxy_s_state_is_known() {
    let server = RawEndpoint::answering("HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let proxy = FakeProxy::start(ProxyKind::Http, Lead::There).await;
    let endpoints = Endpoints::on(network(), &[settings(&server.url("/"))], &egress(proxy.settings())).expect("valid");
    let endpoint = endpoints.get("orders").expect("it is configured");
    assert_eq!(endpoints.proxy_fault().as_deref(), Some(""));
    proxy.lead(Lead::HangUp);
    deferred(&attempt(endpoint).await);
    let fault = endpoints.proxy_fault().expect("there is a proxy");
    assert!(fault.contains("broke the connection"), "{fault}");
    proxy.lead(Lead::There);
    assert_eq!(attempt(endpoint).await.result, Status(503));
    assert_eq!(endpoints.proxy_fault().as_deref(), Some(""));
    assert_eq!(Endpoints::new(&[], &EgressSettings::default()).expect("valid").proxy_fault(), None);
}
