//! What an endpoint repeats of the secrets that it was sent: nothing of it is kept.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use wirehook::clock::SystemClock;
use wirehook::delivery::AttemptResult::Status;
use wirehook::endpoint::RESPONSE_EXCERPT_BYTES_MAX;
use wirehook::secret::Secret;
use wirehook::settings::{AuthSettings, ClientAuth, EndpointSettings, OAuth2Settings, SignatureScheme};
use wirehook_tests::raw_endpoint::{RawEndpoint, RawRequest, endpoint, settings};

use crate::attempt;

const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A page that shows the request's line and headers, as debug pages do.
fn page(request: &RawRequest) -> String {
    let headers = request.headers.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)));
    format!("{}\n{}", request.line, headers.collect::<String>())
}

fn answer(body: &str) -> Bytes {
    format!("HTTP/1.1 500 Oops\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

/// The endpoint is sent all of `secrets`, shows them, and none of them is kept, whatever comes before.
async fn check(change: impl Fn(&mut EndpointSettings, &str), secrets: &[&str]) {
    for before in
        [0, RESPONSE_EXCERPT_BYTES_MAX - 300, RESPONSE_EXCERPT_BYTES_MAX - 100, RESPONSE_EXCERPT_BYTES_MAX - 60]
    {
        let shown: Vec<_> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let server = RawEndpoint::judging(move |request| {
            let token = br#"{"access_token":"t0ken-of-0auth","token_type":"bearer","expires_in":3600}"#;
            if request.line.starts_with("POST /token") {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", token.len());
                return [head.as_bytes(), token].concat().into();
            }
            answer(&format!("{}\n{}{}", "x".repeat(before), page(request), shown.join("\n")))
        })
        .await;
        let mut settings = settings(&server.url("/hooks?key=k3y-in-the-query&n=1"));
        settings.signature = SignatureScheme::StandardWebhooks;
        settings.secrets = vec![Secret::new(SIGNING).into()];
        change(&mut settings, &server.url("/token"));
        let outcome = attempt(&endpoint(settings)).await;
        assert_eq!(outcome.result, Status(500));
        assert!(outcome.response.len() <= RESPONSE_EXCERPT_BYTES_MAX);
        let kept = String::from_utf8(outcome.response.to_vec()).expect("text");
        for secret in secrets.iter().chain(&["k3y-in-the-query", SIGNING, &SIGNING["whsec_".len()..]]) {
            for part in [secret, &secret[..secret.len().min(8)]] {
                assert!(!kept.contains(part), "{part} with {before} bytes before it in {}", &kept[before..]);
            }
        }
        assert!(before > 0 || kept.contains("webhook-id") && kept.contains("<redacted>"), "{kept}");
    }
}

#[tokio::test]
async fn a_bearer_token() {
    let change = |settings: &mut EndpointSettings, _: &str| {
        settings.access.auth = Some(AuthSettings::Bearer { token: Secret::new("t0ken/with+all") });
    };
    check(change, &["t0ken/with+all", "t0ken%2Fwith%2Ball", "t0ken\\/with+all"]).await;
}

#[tokio::test]
async fn a_user_and_a_password() {
    let change = |settings: &mut EndpointSettings, _: &str| {
        settings.access.auth =
            Some(AuthSettings::Basic { user: "shop".to_owned(), password: Secret::new("hunter22!") });
    };
    let encoded = STANDARD.encode("shop:hunter22!");
    check(change, &["hunter22!", "shop:hunter22!", &encoded, encoded.trim_end_matches('=')]).await;
}

#[tokio::test]
async fn a_header_of_the_endpoint() {
    let change = |settings: &mut EndpointSettings, _: &str| {
        settings.headers = vec![
            ("x-api-key".to_owned(), Secret::new("k3y-of-the-header")),
            ("authorization".to_owned(), Secret::new("Bearer t0ken-of-the-header")),
        ];
    };
    check(change, &["k3y-of-the-header", "t0ken-of-the-header"]).await;
}

#[tokio::test]
async fn a_token_that_was_fetched() {
    let change = |settings: &mut EndpointSettings, token_url: &str| {
        settings.access.auth = Some(AuthSettings::OAuth2(Box::new(OAuth2Settings {
            token_url: token_url.parse().expect("a URL"),
            client_id: "shop".to_owned(),
            client_secret: Secret::new("s3cret-of-the-client"),
            client_auth: ClientAuth::Basic,
            scopes: Vec::new(),
            audience: None,
        })));
    };
    check(change, &["t0ken-of-0auth", "s3cret-of-the-client"]).await;
}

#[tokio::test]
async fn what_is_compressed_is_shown_without_secrets() {
    let server = RawEndpoint::judging(|request| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(page(request).as_bytes()).expect("it is written");
        let body = encoder.finish().expect("it is compressed");
        let head = format!("HTTP/1.1 500 X\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body].concat().into()
    })
    .await;
    let mut settings = settings(&server.url("/"));
    settings.access.auth = Some(AuthSettings::Bearer { token: Secret::new("t0ken-t0ken") });
    let kept = String::from_utf8(attempt(&endpoint(settings)).await.response.to_vec()).expect("text");
    assert!(kept.contains("authorization: <redacted>") || kept.contains("authorization: Bearer <redacted>"), "{kept}");
    assert!(!kept.contains("t0ken"));
}

#[tokio::test]
async fn a_redirect_and_a_test() {
    let server = RawEndpoint::judging(|_| {
        "HTTP/1.1 302 Found\r\nlocation: /login/t0ken-t0ken\r\ncontent-length: 11\r\n\r\nt0ken-t0ken".into()
    })
    .await;
    let mut settings = settings(&server.url("/"));
    settings.access.auth = Some(AuthSettings::Bearer { token: Secret::new("t0ken-t0ken") });
    let endpoint = endpoint(settings);
    let outcome = attempt(&endpoint).await;
    assert_eq!(outcome.location.as_deref(), Some("/login/<redacted>"));
    let report = endpoint.test(&*SystemClock::shared()).await;
    assert_eq!(report.response, "<redacted>");
    assert!(!format!("{report:?}").contains("t0ken"), "{report:?}");
}
