//! Ways to authenticate, and what a user may not do.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use wirehook::secret::Secret;
use wirehook::settings::{NatsConnection, SourceKind, Start};
use wirehook::source::nats::connect;
use wirehook::source::{Source, SourceStatus};
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running};
use crate::jetstream::{build, connection};

fn nats_source(connection: &NatsConnection, subjects: &[&str]) -> Box<dyn Source> {
    build(SourceKind::Nats {
        connection: connection.clone(),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        queue_group: "wirehook-bus".to_owned(),
    })
}

fn jetstream_source(connection: &NatsConnection) -> Box<dyn Source> {
    build(SourceKind::Jetstream {
        connection: connection.clone(),
        streams: vec!["events".to_owned()],
        create_stream: false,
        ephemeral: false,
        durable: "wirehook-bus".to_owned(),
        subjects: Vec::new(),
        start: Start::All,
    })
}

/// A client as a source of these settings has it.
async fn client(connection: &NatsConnection) -> anyhow::Result<async_nats::Client> {
    Ok(connect::connect(connection, connect::options(connection).await?).await?)
}

/// Checks that a source of these settings gets events.
async fn check_taken(connection: &NatsConnection) -> anyhow::Result<()> {
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(connection, &["e.>"]), &inbox);
    source.connected().await;
    let client = client(connection).await?;
    client.publish("e.a", "1".into()).await?;
    client.flush().await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}

/// The error of a source of these settings, which is not connected.
async fn refusal(connection: &NatsConnection) -> anyhow::Result<String> {
    let source = Running::start(nats_source(connection, &["e.>"]), &FakeInbox::new(Mode::Accept));
    let error = failure(&source).await?;
    source.drained().await?;
    Ok(error)
}

async fn failure(source: &Running) -> anyhow::Result<String> {
    let failed = |status: &SourceStatus| !status.connected && status.last_error.is_some();
    Ok(source.until("an error", failed).await.last_error.context("an error")?.to_string())
}

#[tokio::test]
async fn every_way_to_authenticate_is_known_and_a_refusal_names_what_to_change() -> anyhow::Result<()> {
    let check = |config: String,
                 right: fn(&mut NatsConnection, &str),
                 secret: String,
                 wrong: String,
                 advice: &'static str| async move {
        let server = NatsServer::start_configured(&config).await?;
        let without = connection(&server);
        let mut with_right = without.clone();
        right(&mut with_right, &secret);
        check_taken(&with_right).await?;
        let mut with_wrong = without.clone();
        right(&mut with_wrong, &wrong);
        let error = refusal(&with_wrong).await?;
        let expected = format!("can't connect to {}: the server says: authorization violation; {advice}", without.url);
        assert_eq!(error, expected);
        assert!(!error.contains(&wrong));
        let error = refusal(&without).await?;
        assert!(error.contains("; set `user` and `password`, `token`, `nkey`, `credentials`, or"), "{error}");
        anyhow::Ok(())
    };
    check(
        "authorization { users = [{ user: wire, password: right }] }".to_owned(),
        |connection, secret| {
            (connection.user, connection.password) = (Some("wire".to_owned()), Some(Secret::new(secret)));
        },
        "right".to_owned(),
        "mistaken".to_owned(),
        "check `user` and `password`",
    )
    .await?;
    check(
        "authorization { token: right }".to_owned(),
        |connection, secret| connection.token = Some(Secret::new(secret)),
        "right".to_owned(),
        "mistaken".to_owned(),
        "check `token`",
    )
    .await?;
    let user = KeyPair::new_user();
    check(
        format!("authorization {{ users = [{{ nkey: {} }}] }}", user.public_key()),
        // A file's last line ends.
        |connection, seed| connection.nkey = Some(Secret::new(format!("{seed}\n"))),
        user.seed()?,
        KeyPair::new_user().seed()?,
        "check `nkey`: the server has to know its public key as a user's",
    )
    .await
}

#[tokio::test]
async fn a_seed_that_is_none_is_named_and_not_shown() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let connection = NatsConnection { nkey: Some(Secret::new("SUNOSEED")), ..connection(&server) };
    let error = refusal(&connection).await?;
    assert!(error.ends_with("; `nkey` is to be the seed of a user's nkey (`SU…`)"), "{error}");
    assert!(!error.contains("NOSEED"));
    Ok(())
}

/// An operator with one account, as `nsc` makes them.
struct Operator {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    fn new() -> Self {
        Self { operator: KeyPair::new_operator(), account: KeyPair::new_account(), system: KeyPair::new_account() }
    }

    fn config(&self) -> anyhow::Result<String> {
        let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1});
        let account = |key: &KeyPair, name: &str| {
            jwt(&self.operator, key, name, None, json!({"type": "account", "limits": unlimited}))
        };
        Ok(format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}: {}\n{}: {}\n}}\n",
            jwt(&self.operator, &self.operator, "operator", None, json!({"type": "operator"}))?,
            self.system.public_key(),
            self.system.public_key(),
            account(&self.system, "system")?,
            self.account.public_key(),
            account(&self.account, "account")?,
        ))
    }

    /// The credentials file of a new user, and the user's seed.
    fn credentials(&self, expires: Option<u64>) -> anyhow::Result<(String, String)> {
        let user = KeyPair::new_user();
        let rights = json!({"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}});
        let jwt = jwt(&self.account, &user, "user", expires, rights)?;
        let seed = user.seed()?;
        let file = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        Ok((file, seed))
    }
}

/// What `issuer` says of `subject`, signed.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, expires: Option<u64>, nats: Value) -> anyhow::Result<String> {
    let mut nats = nats;
    nats["version"] = json!(2);
    let mut claims = json!({"jti": "1", "iat": 1, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name,
        "nats": nats});
    if let Some(expires) = expires {
        claims["exp"] = json!(expires);
    }
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes())?)))
}

fn now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

fn with_credentials(server: &NatsServer, path: &Path) -> NatsConnection {
    NatsConnection { credentials: Some(path.to_owned()), ..connection(server) }
}

#[tokio::test]
async fn a_credentials_file_is_read_again_until_it_will_do() -> anyhow::Result<()> {
    let operator = Operator::new();
    let server = NatsServer::start_configured(&operator.config()?).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("user.creds");
    let connection = with_credentials(&server, &path);
    let source = Running::start(nats_source(&connection, &["e.>"]), &FakeInbox::new(Mode::Accept));
    let failed_with = |words: String| {
        let source = &source;
        async move {
            let said = |status: &SourceStatus| status.last_error.as_ref().is_some_and(|error| error.contains(&words));
            source.until(&words, said).await.last_error.unwrap()
        }
    };
    let file = path.display();
    failed_with(format!("`credentials`: {file} can't be read: No such file")).await;
    std::fs::write(&path, "nothing of use")?;
    failed_with(format!("`credentials`: {file} is no credentials file: cannot parse user JWT")).await;
    let (expired, seed) = operator.credentials(Some(1))?;
    std::fs::write(&path, expired)?;
    let error =
        failed_with(format!("the server says: authorization violation; check `credentials`: the user in {file}")).await;
    assert!(!error.contains(&seed));
    std::fs::write(&path, operator.credentials(None)?.0)?;
    source.connected().await;
    source.drained().await?;
    check_taken(&connection).await
}

#[tokio::test]
async fn credentials_that_expire_are_read_anew() -> anyhow::Result<()> {
    let operator = Operator::new();
    let server = NatsServer::start_configured(&operator.config()?).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("user.creds");
    std::fs::write(&path, operator.credentials(Some(now()? + 3))?.0)?;
    let connection = with_credentials(&server, &path);
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(&connection, &["e.>"]), &inbox);
    source.connected().await;
    std::fs::write(&path, operator.credentials(None)?.0)?;
    source.until("the end", |status| !status.connected).await;
    source.until("another connection", |status| status.connected && status.reconnects == 1).await;
    let client = client(&connection).await?;
    client.publish("e.a", "1".into()).await?;
    client.flush().await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}

/// A user `wire` with `permissions`, and one who may do all.
fn users(permissions: &str) -> String {
    format!(
        "authorization {{ users = [\n{{ user: wire, password: right, permissions: {{ {permissions} }} }},\n\
         {{ user: all, password: right }}\n] }}"
    )
}

fn user(server: &NatsServer, user: &str) -> NatsConnection {
    NatsConnection { user: Some(user.to_owned()), password: Some(Secret::new("right")), ..connection(server) }
}

#[tokio::test]
async fn a_subject_that_is_forbidden_is_named_and_the_others_come() -> anyhow::Result<()> {
    let mut server = NatsServer::start_configured(&users("subscribe: { deny: \"secret.>\" }")).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(&user(&server, "wire"), &["e.>", "secret.>"]), &inbox);
    assert_eq!(
        failure(&source).await?,
        "the server says: Permissions Violation for Subscription to \"secret.>\"; let this source's user subscribe to \
         `secret.>`, or give the source another user"
    );
    let client = client(&user(&server, "all")).await?;
    client.publish("e.a", "1".into()).await?;
    client.flush().await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    assert!(!source.state.status().connected);
    server.configure(&users("subscribe: { deny: \"another.>\" }"))?;
    server.restart().await?;
    source.connected().await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn trying_a_forbidden_subject_again_loses_nothing_of_the_others() -> anyhow::Result<()> {
    let server = NatsServer::start_configured(&users("subscribe: { deny: \"secret.>\" }")).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(&user(&server, "wire"), &["e.>", "secret.>"]), &inbox);
    failure(&source).await?;
    let client = client(&user(&server, "all")).await?;
    let mut sent = 0;
    let tries = || server.log().lines().filter(|line| line.contains("Subscription Violation")).count();
    while tries() < 3 {
        for _ in 0..50 {
            client.publish("e.a", sent.to_string().into()).await?;
            sent += 1;
        }
        client.flush().await?;
        inbox.until("what was sent", |seen| seen.accepted.len() >= sent).await;
    }
    let status = source.state.status();
    assert_eq!((status.connected, status.reconnects, inbox.seen().accepted.len()), (false, 0, sent));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_user_without_an_inbox_gets_core_nats_all_the_same() -> anyhow::Result<()> {
    let server =
        NatsServer::start_configured(&users("subscribe: { allow: \"e.>\" }, publish: { deny: \">\" }")).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(&user(&server, "wire"), &["e.>"]), &inbox);
    source.connected().await;
    let client = client(&user(&server, "all")).await?;
    client.publish("e.a", "1".into()).await?;
    client.flush().await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    let status = source.state.status();
    assert!(status.connected && status.last_error.is_none(), "{status:?}");
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn what_jetstream_forbids_is_named() -> anyhow::Result<()> {
    let check = |permissions: &'static str, operation: &'static str, subject: &'static str| async move {
        let mut server = NatsServer::start_configured(&users(permissions)).await?;
        let context = async_nats::jetstream::new(client(&user(&server, "all")).await?);
        let config = async_nats::jetstream::stream::Config {
            name: "events".to_owned(),
            subjects: vec!["e.>".to_owned()],
            ..Default::default()
        };
        context.create_stream(config).await?;
        context.publish("e.a", "1".into()).await?.await?;
        let inbox = FakeInbox::new(Mode::Accept);
        let source = Running::start(jetstream_source(&user(&server, "wire")), &inbox);
        let error = failure(&source).await?;
        let words =
            format!("the server says: Permissions Violation for {operation} to \"{subject}\"; let this source's");
        assert!(error.contains(&words), "{error}");
        server.configure(&users("publish: { deny: \"another.>\" }"))?;
        server.restart().await?;
        source.connected().await;
        inbox.until("the event", |seen| seen.bodies().contains("1")).await;
        source.drained().await?;
        anyhow::Ok(())
    };
    let look_up = "$JS.API.STREAM.INFO.events";
    check("publish: { deny: \"$JS.API.STREAM.INFO.>\" }", "Publish", look_up).await?;
    let next = "$JS.API.CONSUMER.MSG.NEXT.events.wirehook-bus";
    check("publish: { deny: \"$JS.API.CONSUMER.MSG.>\" }", "Publish", next).await?;
    check("publish: { deny: \"$JS.ACK.>\" }", "Publish", "$JS.ACK.events.wirehook-bus.>").await?;
    check("subscribe: { deny: \"_INBOX.>\" }", "Subscription", "_INBOX.>").await
}

#[tokio::test]
async fn an_address_with_no_server_is_named() -> anyhow::Result<()> {
    let check = |url: String, words: &'static str, advice: &'static str| async move {
        let server = NatsServer::stopped()?;
        let connection = NatsConnection { url: url.parse()?, ..connection(&server) };
        let error = refusal(&connection).await?;
        assert!(error.starts_with(&format!("can't connect to {url}: ")), "{error}");
        assert!(error.contains(words) && error.ends_with(advice), "{error}");
        anyhow::Ok(())
    };
    check(NatsServer::stopped()?.url(), "Connection refused", "; check `url`, and whether nats-server runs there")
        .await?;
    check("nats://nats.invalid:4222".to_owned(), "", "; check the host in `url`").await
}
