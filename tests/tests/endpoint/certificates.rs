//! Whom an endpoint is trusted to be, and who the host is to it: by certificates of the test's own authority.

use futures::future::join_all;
use wirehook::delivery::AttemptResult::Status;
use wirehook::endpoint::{EndpointError, Endpoints, Network};
use wirehook::settings::{EgressSettings, EndpointSettings, ProxyKind, TlsSettings};
use wirehook_tests::fake_proxy::{FakeProxy, Lead};
use wirehook_tests::raw_endpoint::{endpoint_by, endpoint_on, settings};
use wirehook_tests::wait;

use crate::authority::{Authority, Issued, Says, Server, trusting_nobody};
use crate::{attempt, transport};

/// Longer than a busy machine needs.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

const OPEN: &[&str] = &["127.0.0.0/8"];

fn with_tls(url: &str, tls: TlsSettings) -> EndpointSettings {
    let mut settings = settings(url);
    settings.access.tls = tls;
    settings
}

/// What an attempt says of a server that must not be trusted; nothing may have been sent to it.
async fn check_refused(network: Network, issued: &Issued, host: &str, expected: &str) {
    let server = Server::start(issued, "http/1.1", None).await;
    let outcome = attempt(&endpoint_on(network, settings(&server.url(host)), OPEN)).await;
    let text = transport(&outcome);
    assert!(text.starts_with("TLS failed: invalid peer certificate"), "{text}");
    assert!(text.contains(expected) && !text.contains("hush"), "{text}");
    assert_eq!((server.connections(), server.requests()), (1, 0));
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_trusted() {
    let authority = Authority::new();
    for protocol in ["http/1.1", "h2"] {
        let server = Server::start(&authority.issue(Says::default()), protocol, None).await;
        let endpoint = endpoint_on(authority.network(), settings(&server.url("hooks.test")), OPEN);
        let outcome = attempt(&endpoint).await;
        assert_eq!((outcome.result, &outcome.response[..]), (Status(200), &b"nobody"[..]));
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let expired = authority.issue(Says { until_year: 2020, ..Says::default() });
    check_refused(authority.network(), &expired, "hooks.test", "expired").await;
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused() {
    let authority = Authority::new();
    let early = authority.issue(Says { from_year: 2090, ..Says::default() });
    check_refused(authority.network(), &early, "hooks.test", "not valid yet").await;
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused() {
    let authority = Authority::new();
    let issued = authority.issue(Says::default());
    check_refused(authority.network(), &issued, "other.test", "not valid for name").await;
    check_refused(authority.network(), &issued, "127.0.0.1", "not valid for name").await;
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let authority = Authority::new();
    check_refused(authority.network(), &Says::default().self_signed(), "hooks.test", "UnknownIssuer").await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    check_refused(authority.network(), &other.issue(Says::default()), "hooks.test", "UnknownIssuer").await;
}

#[tokio::test]
async fn an_authority_of_its_own_is_trusted_by_that_endpoint_alone() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue(Says::default()), "h2", None).await;
    let url = server.url("hooks.test");
    let tls = TlsSettings { ca: Some(authority.path("ca.pem")), ..TlsSettings::default() };
    assert_eq!(attempt(&endpoint_on(trusting_nobody(), with_tls(&url, tls), OPEN)).await.result, Status(200));
    let outcome = attempt(&endpoint_on(trusting_nobody(), settings(&url), OPEN)).await;
    assert!(transport(&outcome).contains("UnknownIssuer"), "{}", transport(&outcome));
}

fn client(authority: &Authority, name: &'static str) -> TlsSettings {
    authority.write_client(&authority.issue(Says { name, ..Says::default() }));
    TlsSettings { ca: None, cert: Some(authority.path("client.pem")), key: Some(authority.path("client.key")) }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_there_is_one() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue(Says::default()), "http/1.1", Some(&authority)).await;
    let url = server.url("hooks.test");
    let shown = with_tls(&url, client(&authority, "first.client"));
    let outcome = attempt(&endpoint_on(authority.network(), shown, OPEN)).await;
    assert_eq!((outcome.result, &outcome.response[..]), (Status(200), &b"first.client"[..]));
    let outcome = attempt(&endpoint_on(authority.network(), settings(&url), OPEN)).await;
    assert!(transport(&outcome).contains("CertificateRequired"), "{}", transport(&outcome));
    assert_eq!(server.requests(), 1);
}

/// A certificate is renewed by writing its files anew. One of both, or nonsense, leaves the one before in force.
#[tokio::test]
async fn a_client_certificate_is_read_again_when_its_files_change() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue(Says::default()), "http/1.1", Some(&authority)).await;
    let mut settings = with_tls(&server.url("hooks.test"), client(&authority, "first.client"));
    // No connection is kept, so that each attempt begins with a handshake.
    settings.headers = vec![("connection".to_owned(), wirehook::secret::Secret::new("close"))];
    let endpoint = endpoint_on(authority.network(), settings, OPEN);
    let says = async || String::from_utf8(attempt(&endpoint).await.response.to_vec()).expect("text");
    assert_eq!(says().await, "first.client");
    let second = authority.issue(Says { name: "second.client", ..Says::default() });
    std::fs::write(authority.path("client.pem"), &second.certificate).expect("it can be written");
    assert_eq!(says().await, "first.client", "a certificate without its key");
    std::fs::write(authority.path("client.key"), &second.key).expect("it can be written");
    let read_again = async || Ok((says().await == "second.client").then_some(()));
    wait::until("the certificate to be read again", DEADLINE, read_again).await.expect("it is read again");
    std::fs::write(authority.path("client.key"), "nonsense").expect("it can be written");
    assert_eq!(says().await, "second.client");
    std::fs::remove_file(authority.path("client.pem")).expect("it is there");
    assert_eq!(says().await, "second.client");
}

#[tokio::test]
async fn tls_is_the_endpoint_s_own_through_a_proxy_too() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start(&authority.issue(Says::default()), "h2", Some(&authority)).await;
    let url = server.url("hooks.test");
    for kind in [ProxyKind::Http, ProxyKind::Socks5] {
        let proxy = FakeProxy::start(kind, Lead::There).await;
        let allow = vec!["127.0.0.0/8".parse().expect("a network")];
        let egress = || EgressSettings { allow: allow.clone(), proxy: Some(proxy.settings()) };
        let shown = with_tls(&url, client(&authority, "first.client"));
        let endpoint = endpoint_by(authority.network(), shown.clone(), &egress());
        for _ in 0..3 {
            let outcome = attempt(&endpoint).await;
            assert_eq!((outcome.result, &outcome.response[..]), (Status(200), &b"first.client"[..]));
        }
        assert_eq!(proxy.connections(), 1, "the tunnel is kept as any connection");
        let outcome = attempt(&endpoint_by(other.network(), shown, &egress())).await;
        assert!(transport(&outcome).contains("UnknownIssuer"), "{}", transport(&outcome));
    }
}

/// HTTP/2 carries attempts at once over few connections, and one after another over one.
#[tokio::test]
async fn http_2_shares_a_connection() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue(Says::default()), "h2", None).await;
    let endpoint = endpoint_on(authority.network(), settings(&server.url("hooks.test")), OPEN);
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    for outcome in join_all((0..50).map(|_| attempt(&endpoint))).await {
        assert_eq!(outcome.result, Status(200));
    }
    assert_eq!((server.connections(), server.requests()), (1, 51));
}

#[test]
fn files_that_can_not_be_used_are_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = client(&authority, "first.client");
    let stranger = other.issue(Says::default());
    std::fs::write(authority.path("other.key"), stranger.key).expect("it can be written");
    std::fs::write(authority.path("empty.pem"), "").expect("it can be written");
    let check = |tls: TlsSettings, parts: &[&str]| {
        let settings = with_tls("https://hooks.test/", tls);
        let error = Endpoints::on(authority.network(), &[settings], &EgressSettings::default()).expect_err("refused");
        assert!(matches!(error, EndpointError::Tls { .. }), "{error}");
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)) && text.starts_with("endpoint `orders`: "), "{text}");
    };
    let ca = |name: &str| TlsSettings { ca: Some(authority.path(name)), ..TlsSettings::default() };
    check(ca("missing.pem"), &["`tls.ca`", "missing.pem"]);
    check(ca("empty.pem"), &["`tls.ca`", "no certificate"]);
    check(TlsSettings { cert: Some(authority.path("empty.pem")), ..good.clone() }, &["`tls.cert`", "no certificate"]);
    check(TlsSettings { key: Some(authority.path("client.pem")), ..good.clone() }, &["`tls.key`", "client.pem"]);
    check(TlsSettings { key: Some(authority.path("other.key")), ..good }, &["`tls.cert` and `tls.key`"]);
}
