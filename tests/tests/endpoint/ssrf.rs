//! Nothing leads inside: a listener there counts connections and bytes, and none may get through.
//!
//! `127.0.0.2` plays the world outside, where the guard lets everything pass; `127.0.0.1` and `::1` are inside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, join_all};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use wirehook::delivery::AttemptResult::{EgressDenied, Status};
use wirehook::endpoint::{Lookup, Network};
use wirehook::settings::{self, EgressSettings, Environment, ProxyKind};
use wirehook_tests::fake_proxy::{FakeProxy, Lead};
use wirehook_tests::inside::Inside;
use wirehook_tests::raw_endpoint::{RawEndpoint, endpoint_by, endpoint_on, settings as endpoint_settings};

use crate::{attempt, denied};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OPEN: &[&str] = &["127.0.0.2/32"];
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// The connection is not used again, so that the next attempt looks the name up anew.
const OK_ONCE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A server outside and listeners inside, all on one port: whoever is led astray arrives somewhere.
struct Scene {
    outside: RawEndpoint,
    inside: Vec<Inside>,
}

impl Scene {
    async fn new(answer: &'static str) -> Self {
        loop {
            let outside = RawEndpoint::answering_on((OUTSIDE, 0).into(), answer).await;
            let port = outside.address.port();
            let v4 = Inside::listen((Ipv4Addr::LOCALHOST.into(), port)).await;
            let v6 = Inside::listen((Ipv6Addr::LOCALHOST.into(), port)).await;
            // Taken by somebody else on one of them: another port is not.
            if let (Some(v4), Some(v6)) = (v4, v6) {
                return Self { outside, inside: vec![v4, v6] };
            }
        }
    }

    fn port(&self) -> u16 {
        self.outside.address.port()
    }

    fn expect_untouched(&self) {
        self.inside.iter().for_each(Inside::expect_untouched);
    }
}

/// Answers one after the other, then the last one for ever.
struct Rebinding {
    answers: Vec<Vec<IpAddr>>,
    asked: Mutex<usize>,
}

impl Rebinding {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parsed =
            |addresses: &&[&str]| addresses.iter().map(|address| address.parse().expect("an address")).collect();
        Arc::new(Self { answers: answers.iter().map(parsed).collect(), asked: Mutex::default() })
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup for Rebinding {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = self.answers[(*asked).min(self.answers.len() - 1)].clone();
        *asked += 1;
        Box::pin(async move { Ok(answer) })
    }
}

fn network(names: &Arc<Rebinding>) -> Network {
    Network { lookup: Arc::<Rebinding>::clone(names), tls: None }
}

/// What else the suite says of `expect_untouched` would be worth nothing.
#[tokio::test]
async fn the_listener_inside_counts() {
    let scene = Scene::new(OK).await;
    for inside in &scene.inside {
        let mut stream = TcpStream::connect(inside.address).await.expect("it listens");
        stream.write_all(b"12345").await.expect("it reads");
        drop(stream);
        while inside.bytes() < 5 {
            tokio::task::yield_now().await;
        }
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inside.expect_untouched())).is_err());
    }
}

#[tokio::test]
async fn no_notation_of_an_address_leads_inside() {
    let scene = Scene::new(OK).await;
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "017700000001",
        "0x7f.1",
        "0x7f.0.0x0.1",
        "0177.0.0.1",
        "0177.0.0.01",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "127%2e0%2e0%2e1",
        "１２７.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000::0001]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::FFFF:7F00:0001]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001::80ff:fffe]",
        "[2a00::5efe:127.0.0.1]",
        "user@127.0.0.1",
        "127.0.0.2@127.0.0.1",
        "127.0.0.2:80@[::1]",
        "169.254.169.254",
        "0xa9fea9fe",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ] {
        let url = format!("http://{host}:{}/", scene.port());
        let outcome = attempt(&endpoint_on(Network::default(), endpoint_settings(&url), OPEN)).await;
        assert!(denied(&outcome).contains("`[egress] allow`"), "{host}: {}", denied(&outcome));
    }
    scene.expect_untouched();
    let url = format!("http://0x7f.2:{}/", scene.port());
    assert_eq!(attempt(&endpoint_on(Network::default(), endpoint_settings(&url), OPEN)).await.result, Status(200));
}

#[test]
fn settings_refuse_what_is_no_address_for_webhooks() {
    for url in [
        "http://127.0.0.2@127.0.0.1/",
        "http://user:password@a.net/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://127.0.0.1.1.1/",
        "http://256.0.0.1/",
        "http://0x100000000/",
        "http://08.0.0.1/",
        "http://a.net:99999/",
        "http:///etc/passwd",
        "http://",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
        "ftp://a.net/",
        "unix:/run/docker.sock",
        "javascript:alert(1)",
        "//a.net/",
        "http://a.net/#http://b.net",
    ] {
        let text = format!("[[endpoint]]\nname = \"orders\"\nsignature = \"none\"\nurl = \"{url}\"\n");
        let environment = Environment::of(&[], "/nowhere");
        let parsed = settings::parse(Path::new("wirehook.toml"), &text, &environment);
        let url_host = parsed.as_ref().map(|loaded| loaded.settings.endpoints[0].url.host_str().map(str::to_owned));
        // What the parser makes a host of, the guard sees as that host.
        assert!(parsed.is_err() || url == "http:///etc/passwd", "{url} was taken: {url_host:?}");
    }
}

#[tokio::test]
async fn one_bad_address_refuses_a_name_whole() {
    let scene = Scene::new(OK).await;
    let url = format!("http://hooks.example:{}/", scene.port());
    for addresses in [
        &["127.0.0.1"][..],
        &["127.0.0.2", "127.0.0.1"],
        &["127.0.0.1", "127.0.0.2"],
        &["127.0.0.2", "127.0.0.2", "127.0.0.2", "::1"],
        &["127.0.0.2", "::ffff:127.0.0.1"],
        &["127.0.0.2", "64:ff9b::7f00:1"],
        &["127.0.0.2", "2002:7f00:1::"],
        &["127.0.0.2", "10.0.0.1"],
        &["127.0.0.2", "0.0.0.0"],
        &["::", "127.0.0.2"],
    ] {
        let endpoint = endpoint_on(network(&Rebinding::new(&[addresses])), endpoint_settings(&url), OPEN);
        let outcome = attempt(&endpoint).await;
        assert!(denied(&outcome).starts_with("`hooks.example` leads inside: "), "{addresses:?}: {}", denied(&outcome));
    }
    assert_eq!(scene.outside.connections(), 0, "not even the good address is to be trusted");
    scene.expect_untouched();
}

/// The address that was vetted is the one that is connected to: a second look would find another.
#[tokio::test]
async fn a_name_that_changes_between_vetting_and_connecting_leads_where_it_was_vetted() {
    let scene = Scene::new(OK_ONCE).await;
    let names = Rebinding::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let url = format!("http://hooks.example:{}/", scene.port());
    let endpoint = endpoint_on(network(&names), endpoint_settings(&url), OPEN);
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    assert_eq!((names.asked(), scene.outside.connections()), (1, 1), "one look for one connection");
    assert!(denied(&attempt(&endpoint).await).contains("127.0.0.1"), "and another for the next");
    scene.expect_untouched();
}

/// Names that change at random, under attempts at once: each is led outside or refused, and nothing arrives inside.
#[tokio::test]
async fn whatever_a_name_does_nothing_arrives_inside() {
    let scene = Scene::new(OK_ONCE).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let all = ["127.0.0.2", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"];
    let mut answers: Vec<Vec<&str>> = Vec::new();
    for _ in 0..400 {
        let good = rng.bool();
        answers.push((0..rng.usize(1..4)).map(|_| if good { all[0] } else { all[rng.usize(..all.len())] }).collect());
    }
    let answers: Vec<&[&str]> = answers.iter().map(Vec::as_slice).collect();
    let good = answers.iter().filter(|answer| answer.iter().all(|address| *address == all[0])).count();
    let names = Rebinding::new(&answers);
    let url = format!("http://hooks.example:{}/", scene.port());
    let endpoint = endpoint_on(network(&names), endpoint_settings(&url), OPEN);
    let mut delivered = 0;
    while names.asked() < answers.len() {
        let left = (answers.len() - names.asked()).min(4);
        for outcome in join_all((0..left).map(|_| attempt(&endpoint))).await {
            match outcome.result {
                Status(200) => delivered += 1,
                EgressDenied(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(delivered, good, "seed {seed}");
    scene.expect_untouched();
}

#[tokio::test]
async fn redirects_inside_are_recorded_and_not_followed() {
    let inside = Scene::new(OK).await;
    for status in [300, 301, 302, 303, 304, 307, 308] {
        for location in [
            format!("http://127.0.0.1:{}/latest", inside.port()),
            format!("http://[::1]:{}/latest", inside.port()),
            format!("//127.0.0.1:{}/latest", inside.port()),
        ] {
            let answer =
                format!("HTTP/1.1 {status} Go\r\nlocation: {location}?token=hush\r\ncontent-length: 0\r\n\r\n");
            let server = RawEndpoint::answering_on((OUTSIDE, 0).into(), answer).await;
            let outcome = attempt(&endpoint_on(Network::default(), endpoint_settings(&server.url("/")), OPEN)).await;
            assert_eq!((outcome.result, outcome.location), (Status(status), Some(location)));
        }
    }
    inside.expect_untouched();
}

/// A proxy that stands inside, as proxies do, is told only what was vetted, and is no way to anywhere else.
#[tokio::test]
async fn a_proxy_is_no_way_in() {
    for kind in [ProxyKind::Http, ProxyKind::Socks5] {
        let scene = Scene::new(OK_ONCE).await;
        let proxy = FakeProxy::start(kind, Lead::There).await;
        let egress = || EgressSettings {
            allow: OPEN.iter().map(|net| net.parse().expect("a network")).collect(),
            proxy: Some(proxy.settings()),
        };
        let port = scene.port();
        for host in ["127.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost"] {
            let url = format!("http://{host}:{port}/");
            let outcome = attempt(&endpoint_by(Network::default(), endpoint_settings(&url), &egress())).await;
            assert!(denied(&outcome).contains("`[egress] allow`"), "{host}: {}", denied(&outcome));
        }
        for addresses in [&["127.0.0.1"][..], &["127.0.0.2", "127.0.0.1"], &["127.0.0.2", "::1"]] {
            let url = format!("http://hooks.example:{port}/");
            let names = Rebinding::new(&[addresses]);
            denied(&attempt(&endpoint_by(network(&names), endpoint_settings(&url), &egress())).await);
        }
        assert_eq!(proxy.connections(), 0, "{kind:?}: nothing of it reached the proxy");

        let names = Rebinding::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
        let url = format!("http://hooks.example:{port}/");
        let endpoint = endpoint_by(network(&names), endpoint_settings(&url), &egress());
        assert_eq!(attempt(&endpoint).await.result, Status(200));
        denied(&attempt(&endpoint).await);
        assert_eq!(proxy.targets(), [format!("127.0.0.2:{port}")], "{kind:?}: it was told the vetted address");
        scene.expect_untouched();
    }
}

/// Where the proxy looks names up, only what stands in the URL can be vetted, and is.
#[tokio::test]
async fn a_proxy_that_looks_names_up_is_told_no_address_inside() {
    let scene = Scene::new(OK).await;
    for kind in [ProxyKind::Http, ProxyKind::Socks5] {
        let proxy = FakeProxy::start(kind, Lead::To(scene.outside.address)).await;
        let mut through = proxy.settings();
        through.resolves_names = true;
        let egress = || EgressSettings { allow: Vec::new(), proxy: Some(through.clone()) };
        for host in ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST.", "a.localhost"] {
            let url = format!("http://{host}:{}/", scene.port());
            let outcome = attempt(&endpoint_by(Network::default(), endpoint_settings(&url), &egress())).await;
            assert!(denied(&outcome).contains("`[egress] allow`"), "{host}: {}", denied(&outcome));
        }
        assert_eq!(proxy.connections(), 0);
        let names = Rebinding::new(&[&["127.0.0.1"]]);
        let url = format!("http://hooks.example:{}/", scene.port());
        let outcome = attempt(&endpoint_by(network(&names), endpoint_settings(&url), &egress())).await;
        assert_eq!((outcome.result, names.asked()), (Status(200), 0));
        assert_eq!(proxy.targets(), [format!("hooks.example:{}", scene.port())]);
    }
    scene.expect_untouched();
}

/// What stands beside the guard in a server's answers: an address to come back to, in whatever header, is only kept.
#[tokio::test]
async fn other_headers_that_point_inside_lead_nowhere() {
    let scene = Scene::new(OK).await;
    let inside = format!("http://127.0.0.1:{}/", scene.port());
    let answer = format!(
        "HTTP/1.1 200 OK\r\nlocation: {inside}\r\nrefresh: 0; url={inside}\r\nlink: <{inside}>; rel=preload\r\nalt-svc: \
         h2=\"127.0.0.1:{}\"\r\ncontent-location: {inside}\r\ncontent-length: 0\r\n\r\n",
        scene.port()
    );
    let server = RawEndpoint::answering_on((OUTSIDE, 0).into(), answer).await;
    let endpoint = endpoint_on(Network::default(), endpoint_settings(&server.url("/")), OPEN);
    for _ in 0..3 {
        let outcome = attempt(&endpoint).await;
        assert_eq!((outcome.result, outcome.location), (Status(200), None));
    }
    scene.expect_untouched();
}

/// The guard stands before the connection, so not even a closed port inside can be told from an open one.
#[tokio::test]
async fn a_closed_port_inside_looks_like_an_open_one() {
    let open = Scene::new(OK).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("it is bound");
    let said = async |port: u16| {
        let url = format!("http://127.0.0.1:{port}/");
        denied(&attempt(&endpoint_on(Network::default(), endpoint_settings(&url), OPEN)).await).to_owned()
    };
    assert_eq!(said(open.port()).await, said(closed.port()).await);
    open.expect_untouched();
}
