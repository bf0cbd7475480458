//! Who the host is to an endpoint: fixed credentials, and tokens that are fetched, kept and renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use wirehook::clock::{Clock, ManualClock, Timestamp};
use wirehook::delivery::AttemptResult::{Deferred, Status};
use wirehook::delivery::Outcome;
use wirehook::endpoint::{Endpoint, Network};
use wirehook::secret::Secret;
use wirehook::settings::{AuthSettings, ClientAuth, EgressSettings, EndpointSettings, OAuth2Settings, ProxyKind};
use wirehook_tests::fake_proxy::{FakeProxy, Lead};
use wirehook_tests::inside::Inside;
use wirehook_tests::port;
use wirehook_tests::raw_endpoint::{RawEndpoint, delivery, endpoint, endpoint_by, endpoint_on, settings};

use crate::attempt;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 401 No\r\ncontent-length: 5\r\n\r\nstale";
const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn with_auth(url: &str, auth: AuthSettings) -> EndpointSettings {
    let mut settings = settings(url);
    settings.access.auth = Some(auth);
    settings
}

fn oauth2(token_url: &str) -> AuthSettings {
    AuthSettings::OAuth2(Box::new(OAuth2Settings {
        token_url: token_url.parse().expect("a URL"),
        client_id: "wirehook".to_owned(),
        client_secret: Secret::new("hunter2"),
        client_auth: ClientAuth::Basic,
        scopes: vec!["webhooks".to_owned()],
        audience: None,
    }))
}

/// Gives `token-1`, `token-2` and so on, each valid for an hour.
struct Tokens {
    server: RawEndpoint,
    given: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Tokens {
    async fn start() -> Self {
        Self::answering(|number| {
            (200, format!(r#"{{"access_token":"token-{number}","token_type":"bearer","expires_in":3600}}"#))
        })
        .await
    }

    async fn answering(answer: impl Fn(usize) -> (u16, String) + Clone + Send + Sync + 'static) -> Self {
        let (given, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let (counted, waited) = (Arc::clone(&given), Arc::clone(&gate));
        let server = RawEndpoint::start(move |stream| {
            let (counted, waited, answer) = (Arc::clone(&counted), Arc::clone(&waited), answer.clone());
            async move {
                waited.acquire().await.expect("it is never closed").forget();
                let (status, body) = answer(counted.fetch_add(1, Ordering::SeqCst) + 1);
                respond(stream, status, &body).await
            }
        });
        Self { server: server.await, given, gate }
    }

    fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }
}

async fn respond(mut stream: TcpStream, status: u16, body: &str) -> std::io::Result<Option<TcpStream>> {
    let head = format!("HTTP/1.1 {status} Answer\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    Ok(Some(stream))
}

async fn attempt_at(endpoint: &Arc<Endpoint>, clock: &Arc<ManualClock>) -> Outcome {
    endpoint.attempt(&delivery("{}"), clock.now(), &**clock).await
}

/// Why nothing is charged to the endpoint; panics where something is.
fn deferred(outcome: &Outcome) -> &str {
    match &outcome.result {
        Deferred(text) => text,
        other => panic!("it is charged: {other:?}"),
    }
}

#[tokio::test]
async fn fixed_credentials_go_with_every_request_and_no_plugin_has_a_say() {
    let bearer = AuthSettings::Bearer { token: Secret::new("t0ken") };
    let basic = AuthSettings::Basic { user: "Aladdin".to_owned(), password: Secret::new("open sesame") };
    for (auth, expected) in [(bearer, "Bearer t0ken"), (basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")] {
        let server = RawEndpoint::answering(OK).await;
        let endpoint = endpoint(with_auth(&server.url("/"), auth));
        assert!(endpoint.reserves("Authorization"));
        let mut sent = delivery("{}");
        sent.headers = vec![("Authorization".to_owned(), "Bearer of-the-plugin".to_owned())];
        let clock = ManualClock::starting_at(NOW);
        assert_eq!(endpoint.attempt(&sent, NOW, &*clock).await.result, Status(200));
        assert_eq!(server.request().await.header("authorization"), expected);
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_kept() {
    let (tokens, server) = (Tokens::start().await, RawEndpoint::answering(OK).await);
    let endpoint = endpoint(with_auth(&server.url("/"), oauth2(&tokens.server.url("/token"))));
    let clock = ManualClock::starting_at(NOW);
    for _ in 0..3 {
        assert_eq!(attempt_at(&endpoint, &clock).await.result, Status(200));
        assert_eq!(server.request().await.header("authorization"), "Bearer token-1");
    }
    let request = tokens.server.request().await;
    assert_eq!(request.line, "POST /token HTTP/1.1");
    assert_eq!(request.header("authorization"), "Basic d2lyZWhvb2s6aHVudGVyMg==");
    assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(request.body, b"grant_type=client_credentials&scope=webhooks");
    assert_eq!(tokens.given(), 1);
}

#[tokio::test]
async fn those_who_need_a_token_at_once_wait_for_the_same() {
    let (tokens, server) = (Tokens::start().await, RawEndpoint::answering(OK).await);
    tokens.gate.forget_permits(Semaphore::MAX_PERMITS);
    let endpoint = endpoint(with_auth(&server.url("/"), oauth2(&tokens.server.url("/token"))));
    let clock = ManualClock::starting_at(NOW);
    let attempts = join_all((0..20).map(|_| attempt_at(&endpoint, &clock)));
    let opened = async {
        tokens.server.request().await;
        tokens.gate.add_permits(100);
    };
    let (outcomes, ()) = futures::join!(attempts, opened);
    assert!(outcomes.iter().all(|outcome| outcome.result == Status(200)), "{outcomes:?}");
    assert_eq!(tokens.given(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_shortly_before_it_expires() {
    let (tokens, server) = (Tokens::start().await, RawEndpoint::answering(OK).await);
    let endpoint = endpoint(with_auth(&server.url("/"), oauth2(&tokens.server.url("/token"))));
    let clock = ManualClock::starting_at(NOW);
    for (later, expected) in [(0, "token-1"), (3539, "token-1"), (2, "token-2"), (3539, "token-2"), (7200, "token-3")] {
        clock.advance(Duration::from_secs(later));
        assert_eq!(attempt_at(&endpoint, &clock).await.result, Status(200));
        assert_eq!(server.request().await.header("authorization"), format!("Bearer {expected}"));
    }
}

/// Answers 401 to all but the token of that number.
async fn accepting(number: usize) -> RawEndpoint {
    let expected = format!("Bearer token-{number}");
    RawEndpoint::judging(move |request| {
        let shown =
            request.headers.iter().any(|(name, value)| name == "authorization" && *value == expected.as_bytes());
        if shown { OK.into() } else { REFUSED.into() }
    })
    .await
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_within_the_attempt() {
    let (tokens, server) = (Tokens::start().await, accepting(2).await);
    let endpoint = endpoint(with_auth(&server.url("/"), oauth2(&tokens.server.url("/token"))));
    let clock = ManualClock::starting_at(NOW);
    // Fresh from the source, and refused: another would fare no better.
    let outcome = attempt_at(&endpoint, &clock).await;
    assert_eq!((outcome.result, &outcome.response[..], tokens.given()), (Status(401), &b"stale"[..], 1));
    clock.advance(Duration::from_secs(60));
    let outcome = attempt_at(&endpoint, &clock).await;
    assert_eq!((outcome.result, &outcome.response[..], tokens.given()), (Status(200), &b""[..], 2));
    assert_eq!(attempt_at(&endpoint, &clock).await.result, Status(200));
    assert_eq!(tokens.given(), 2);
}

/// An endpoint that refuses everything costs one token now and then, and not one an attempt.
#[tokio::test]
async fn an_endpoint_that_refuses_every_token_overruns_nobody() {
    let (tokens, server) = (Tokens::start().await, RawEndpoint::answering(REFUSED).await);
    let endpoint = endpoint(with_auth(&server.url("/"), oauth2(&tokens.server.url("/token"))));
    let clock = ManualClock::starting_at(NOW);
    attempt_at(&endpoint, &clock).await;
    clock.advance(Duration::from_secs(60));
    for outcome in join_all((0..50).map(|_| attempt_at(&endpoint, &clock))).await {
        assert_eq!(outcome.result, Status(401));
    }
    assert_eq!(tokens.given(), 2);
}

/// What fails at the source of tokens is not charged to the endpoint, which sees nothing of it.
#[tokio::test]
async fn without_a_token_nothing_is_sent_and_nothing_is_charged() {
    let server = RawEndpoint::answering(OK).await;
    let clock = ManualClock::starting_at(NOW);
    let check = async |status, body: &'static str, expected: &str| {
        let tokens = Tokens::answering(move |_| (status, body.to_owned())).await;
        let endpoint = endpoint(with_auth(&server.url("/"), oauth2(&tokens.server.url("/token"))));
        let outcome = attempt_at(&endpoint, &clock).await;
        let text = deferred(&outcome);
        assert!(text.starts_with("no token from 127.0.0.1: ") && text.contains(expected), "{text}");
        assert!(!text.contains("hunter2") && outcome.response.is_empty(), "{text}");
    };
    check(500, "oops", "it answered 500").await;
    check(401, r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#, "with `invalid_client`").await;
    check(400, r#"{"error":"the secret hunter2 is wrong"}"#, "it answered 400").await;
    check(302, "", "it answered 302").await;
    check(204, "", "it answered 204").await;
    check(200, "<html>hunter2</html>", "its answer has no `access_token`").await;
    check(200, r#"{"access_token":""}"#, "its token is none that HTTP can carry").await;
    check(200, "{\"access_token\":\"a\\nb: c\"}", "its token is none that HTTP can carry").await;
    check(200, r#"{"access_token":"x","token_type":"mac"}"#, "another type than `Bearer`").await;
    let gone = format!("http://127.0.0.1:{}/token", port::free().expect("a free port"));
    let outcome = attempt_at(&endpoint(with_auth(&server.url("/"), oauth2(&gone))), &clock).await;
    assert_eq!(deferred(&outcome), "no token from 127.0.0.1: connection refused");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_answer_without_an_end_is_no_token() {
    let endless = RawEndpoint::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await?;
        loop {
            stream.write_all(&[b' '; 4096]).await?;
        }
    })
    .await;
    let endpoint = endpoint(with_auth("http://127.0.0.1:1/", oauth2(&endless.url("/token"))));
    assert!(deferred(&attempt(&endpoint).await).contains("longer than 65536 bytes"));
}

/// A renewal that fails after a 401 says nothing about the delivery; the next attempt fetches anew.
#[tokio::test]
async fn a_renewal_that_fails_is_not_charged() {
    let tokens = Tokens::answering(|number| match number {
        2 => (503, String::new()),
        _ => (200, format!(r#"{{"access_token":"token-{number}","expires_in":3600}}"#)),
    })
    .await;
    let server = accepting(3).await;
    let endpoint = endpoint(with_auth(&server.url("/"), oauth2(&tokens.server.url("/token"))));
    let clock = ManualClock::starting_at(NOW);
    assert_eq!(attempt_at(&endpoint, &clock).await.result, Status(401));
    clock.advance(Duration::from_secs(60));
    let outcome = attempt_at(&endpoint, &clock).await;
    assert!(deferred(&outcome).contains("it answered 503"), "{outcome:?}");
    // Those that come at once are told the same without asking.
    deferred(&attempt_at(&endpoint, &clock).await);
    assert_eq!(tokens.given(), 2);
    clock.advance(Duration::from_secs(1));
    assert_eq!(attempt_at(&endpoint, &clock).await.result, Status(200));
}

#[tokio::test]
async fn the_source_of_tokens_is_behind_the_guard_too() {
    let inside = Inside::listen(([127, 0, 0, 1].into(), 0)).await.expect("a free port");
    let server = RawEndpoint::answering_on(([127, 0, 0, 2], 0).into(), OK).await;
    let token_url = format!("http://{}/token", inside.address);
    let endpoint = endpoint_on(Network::default(), with_auth(&server.url("/"), oauth2(&token_url)), &["127.0.0.2/32"]);
    let outcome = attempt(&endpoint).await;
    assert!(deferred(&outcome).contains("`[egress] allow`"), "{outcome:?}");
    inside.expect_untouched();
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn the_source_of_tokens_is_reached_through_the_proxy_too() {
    let (tokens, server) = (Tokens::start().await, RawEndpoint::answering(OK).await);
    let proxy = FakeProxy::start(ProxyKind::Socks5, Lead::There).await;
    let allow = vec!["127.0.0.0/8".parse().expect("a network")];
    let egress = EgressSettings { allow, proxy: Some(proxy.settings()) };
    let settings = with_auth(&server.url("/"), oauth2(&tokens.server.url("/token")));
    let endpoint = endpoint_by(Network::default(), settings, &egress);
    assert_eq!(attempt(&endpoint).await.result, Status(200));
    assert_eq!(proxy.targets(), [tokens.server.address.to_string(), server.address.to_string()]);
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?}", with_auth("https://hooks.test/", oauth2("https://id.test/token")));
    assert!(shown.contains("client_secret: <redacted>") && !shown.contains("hunter2"), "{shown}");
    let shown = format!("{:?}", endpoint(with_auth("http://a.test/", oauth2("http://id.test/token"))));
    assert!(!shown.contains("hunter2") && !shown.contains("id.test"), "{shown}");
}
