//! `wirehook receive`'s server against what an endpoint really sends.

use std::sync::{Arc, Mutex};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wirehook::clock::SystemClock;
use wirehook::delivery::{AttemptResult, DeliveryId};
use wirehook::receiver::{Counts, Received, Receiver, ReceiverSettings, Verdict, VerifyError};
use wirehook::secret::Secret;
use wirehook::settings::{SchemeName, SignatureScheme};
use wirehook_tests::raw_endpoint::{delivery, endpoint, settings};

type Log = Arc<Mutex<Vec<Received>>>;

async fn receiver(secrets: &[&str], script: &str) -> (Receiver, Log) {
    receiver_of(SignatureScheme::Fraiseql, secrets, script).await
}

async fn receiver_of(scheme: SignatureScheme, secrets: &[&str], script: &str) -> (Receiver, Log) {
    let log = Log::default();
    let settings = ReceiverSettings {
        listen: "127.0.0.1:0".parse().expect("an address"),
        scheme,
        secrets: secrets.iter().map(Secret::new).collect(),
        script: script.parse().expect("a script"),
    };
    let keep = Arc::clone(&log);
    let on_received = move |received| keep.lock().expect("no test panicked").push(received);
    let receiver = Receiver::start(settings, SystemClock::shared(), on_received).await.expect("a free port");
    (receiver, log)
}

/// The statuses that webhooks of these ids meet, signed with `s`.
async fn statuses(receiver: &Receiver, ids: &[&str]) -> Vec<u16> {
    let endpoint = endpoint(settings(&format!("http://{}/hooks", receiver.address())));
    let clock = SystemClock::shared();
    let mut statuses = Vec::new();
    for id in ids {
        let mut sent = delivery("{\"total\":10}");
        sent.id = DeliveryId::from_stored(*id);
        match endpoint.attempt(&sent, clock.now(), &*clock).await.result {
            AttemptResult::Status(status) => statuses.push(status),
            other => panic!("{other:?}"),
        }
    }
    statuses
}

#[tokio::test]
async fn a_good_signature_is_verified() {
    let (receiver, log) = receiver(&["s"], "200").await;
    assert_eq!(statuses(&receiver, &["msg_1"]).await, [200]);
    let received = log.lock().expect("no panic").pop().expect("it was told");
    assert_eq!(received.verdict, Verdict::Verified);
    assert_eq!(received.webhook_id.as_deref(), Some("msg_1"));
    assert_eq!(received.body, "{\"total\":10}");
    assert_eq!(received.headers["content-type"], "application/json");
    assert_eq!((received.attempt, received.status), (1, StatusCode::OK));
}

/// Signer and verifier share no code but the names of the schemes and the reading of a secret.
#[tokio::test]
async fn every_scheme_is_verified() {
    let whsec = "whsec_bm9ib2R5LW1heS1zZWUtdGhlLW5ldy1zZWNyZXQ=";
    let whsk = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let whpk = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let header = |name: &str| Some(name.parse().expect("a header name"));
    for (scheme, header, secrets, known) in [
        (SchemeName::Fraiseql, None, vec!["s", "old"], vec!["s"]),
        (SchemeName::StandardWebhooks, None, vec![whsk, whsec], vec![whsec, whpk, whsk]),
        (SchemeName::Stripe, None, vec!["s", "old"], vec!["s", "old"]),
        (SchemeName::Stripe, header("x-fraiseql-signature-256"), vec!["s"], vec!["s"]),
        (SchemeName::Github, None, vec!["s", "old"], vec!["s"]),
        (SchemeName::Hmac, None, vec!["s"], vec!["s"]),
        (SchemeName::Hmac, header("x-shop"), vec!["s"], vec!["s"]),
    ] {
        let scheme = scheme.with_header(header).expect("a header that it takes");
        for secret in known {
            let (receiver, log) = receiver_of(scheme.clone(), &[secret], "200").await;
            let mut settings = settings(&format!("http://{}/hooks", receiver.address()));
            settings.signature = scheme.clone();
            settings.secrets = secrets.iter().map(|secret| Secret::new(secret).into()).collect();
            let clock = SystemClock::shared();
            let outcome = endpoint(settings).attempt(&delivery("{\"total\":10}"), clock.now(), &*clock).await;
            assert_eq!(outcome.result, AttemptResult::Status(200), "{scheme:?}");
            let received = log.lock().expect("no panic").pop().expect("it was told");
            assert_eq!(received.verdict, Verdict::Verified, "{scheme:?}");
        }
    }
}

#[tokio::test]
async fn a_bad_signature_is_refused_outside_the_script() {
    let (receiver, log) = receiver(&["other"], "503,200").await;
    assert_eq!(statuses(&receiver, &["msg_1", "msg_1"]).await, [401, 401]);
    let received = log.lock().expect("no panic").pop().expect("it was told");
    assert_eq!(received.verdict, Verdict::Failed(VerifyError::Mismatch(Vec::new())));
    assert_eq!(receiver.counts(), Counts { failed: 2, ..Counts::default() });
}

#[tokio::test]
async fn any_secret_will_do_and_none_checks_nothing() {
    let (rotating, _) = receiver(&["new", "s"], "200").await;
    assert_eq!(statuses(&rotating, &["msg_1"]).await, [200]);
    assert_eq!(rotating.counts(), Counts { verified: 1, first: 1, accepted: 1, ..Counts::default() });
    let (open, _) = receiver(&[], "200").await;
    assert_eq!(statuses(&open, &["msg_1"]).await, [200]);
    assert_eq!(open.counts(), Counts { unchecked: 1, first: 1, accepted: 1, ..Counts::default() });
}

#[tokio::test]
async fn each_webhook_meets_the_script_from_its_beginning() {
    let (receiver, _) = receiver(&["s"], "503,503,200").await;
    let ids = ["a", "a", "b", "a", "b", "b", "a"];
    assert_eq!(statuses(&receiver, &ids).await, [503, 503, 503, 200, 503, 200, 200]);
    assert_eq!(receiver.counts(), Counts { verified: 7, first: 2, accepted: 3, ..Counts::default() });
}

/// The status line that this request meets.
async fn raw(receiver: &Receiver, request: &str) -> String {
    let mut stream = TcpStream::connect(receiver.address()).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.expect("it answers"));
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

#[tokio::test]
async fn what_is_no_webhook_is_refused() {
    let (receiver, log) = receiver(&["s"], "200").await;
    assert_eq!(raw(&receiver, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await, "HTTP/1.1 405 Method Not Allowed");
    let large = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n";
    assert_eq!(raw(&receiver, large).await, "HTTP/1.1 413 Payload Too Large");
    assert_eq!(receiver.counts(), Counts { refused: 2, ..Counts::default() });
    let unsigned = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(raw(&receiver, unsigned).await, "HTTP/1.1 401 Unauthorized");
    let received = log.lock().expect("no panic").pop().expect("it was told");
    assert!(matches!(received.verdict, Verdict::Failed(VerifyError::Missing { .. })), "{:?}", received.verdict);
}

#[tokio::test]
async fn a_taken_port_is_named_and_a_stopped_receiver_frees_it() {
    let (first, _) = receiver(&[], "200").await;
    let address = first.address();
    let (scheme, script) = (SignatureScheme::Fraiseql, "200".parse().expect("a script"));
    let settings = ReceiverSettings { listen: address, scheme, secrets: Vec::new(), script };
    let second = Receiver::start(settings.clone(), SystemClock::shared(), |_| {}).await;
    assert!(second.expect_err("it is taken").to_string().starts_with(&format!("can't listen on {address}")));
    first.stop().await;
    Receiver::start(settings, SystemClock::shared(), |_| {}).await.expect("it is free again");
}
