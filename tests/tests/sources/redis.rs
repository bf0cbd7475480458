use std::collections::BTreeSet;

use anyhow::Context;
use wirehook::secret::Secret;
use wirehook::settings::{RedisConnection, SourceKind, TlsSettings};
use wirehook::source::{BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX, Source};
use wirehook_tests::redis_server::RedisServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};
use crate::jetstream::build;

/// The server's answer to a command, whatever it is.
pub(crate) async fn told(server: &RedisServer, command: &str) -> anyhow::Result<redis::Value> {
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().context("a command")?);
    words.for_each(|word| {
        command.arg(word);
    });
    server.run([command]).await?.pop().context("an answer")
}

pub(crate) fn connection(server: &RedisServer) -> RedisConnection {
    RedisConnection { url: server.url().parse().unwrap(), user: None, password: None, tls: TlsSettings::default() }
}

/// A connection with credentials.
pub(crate) fn connection_as(server: &RedisServer, user: Option<&str>, password: &str) -> RedisConnection {
    RedisConnection { user: user.map(str::to_owned), password: Some(Secret::new(password)), ..connection(server) }
}

pub(crate) fn redis_source(connection: RedisConnection, channels: &[&str]) -> Box<dyn Source> {
    let channels = channels.iter().map(ToString::to_string).collect();
    build(SourceKind::Redis { connection, channels })
}

#[tokio::test]
async fn messages_arrive_in_order_and_a_drain_takes_what_was_published() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(redis_source(connection(&server), &["e.*"]), &inbox);
    source.connected().await;
    server.publish("e.a", 0..2000).await?;
    source.drained().await?;
    let accepted = inbox.seen().accepted;
    assert_eq!(accepted.iter().map(|message| message.payload.to_vec()).collect::<Vec<_>>(), {
        (0..2000).map(|body: u32| body.to_string().into_bytes()).collect::<Vec<_>>()
    });
    let has_no_place = |message: &wirehook::event::Message| message.position.is_none() && message.headers.is_empty();
    assert!(accepted.iter().all(|message| &*message.subject == "e.a" && has_no_place(message)));
    Ok(())
}

/// Each message comes exactly once where Redis sends at least one copy, which it does exactly where a name or a pattern
/// matches: so the patterns match here as they do there.
#[tokio::test]
async fn overlapping_patterns_yield_one_message_for_every_channel_that_redis_says_matches() -> anyhow::Result<()> {
    const CHARACTERS: &[u8] = b"aabbcc..*?[]^-\\";
    let mut rng = fastrand::Rng::with_seed(7);
    let mut word = |characters: &[u8], length| -> String {
        (0..rng.usize(1..length)).map(|_| char::from(characters[rng.usize(..characters.len())])).collect()
    };
    let mut names: BTreeSet<String> = (0..60).map(|_| word(CHARACTERS, 9)).collect();
    names.extend(["a.*", "a.b", "[a-"].map(str::to_owned));
    names.retain(|name| name.contains(|character| !"*?".contains(character)));
    let channels: Vec<_> = (0..1500).map(|_| word(b"aabbcc.*]^-\\", 7)).collect();

    let server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let source = Running::start(redis_source(connection(&server), &names), &inbox);
    source.connected().await;
    let publications = channels.iter().enumerate().map(|(number, channel)| {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(number);
        command
    });
    let copies: Vec<usize> = server.run(publications).await?;
    source.drained().await?;
    let accepted = inbox.seen().accepted;
    let came: Vec<usize> =
        accepted.iter().map(|message| String::from_utf8_lossy(&message.payload).parse()).collect::<Result<_, _>>()?;
    let expected: Vec<_> = (0..channels.len()).filter(|number| copies[*number] > 0).collect();
    let overlapping = copies.iter().filter(|copies| **copies > 1).count();
    assert_eq!(came, expected);
    assert!(overlapping > 100 && expected.len() < channels.len(), "{overlapping} overlapping of {}", expected.len());
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_is_subscribed_again_and_that_is_counted() -> anyhow::Result<()> {
    let mut server = RedisServer::stopped()?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(redis_source(connection(&server), &["e.a"]), &inbox);
    let down = source.until("an error", |status| status.last_error.is_some()).await;
    assert!(!down.connected && down.last_error.is_some_and(|error| error.contains("can't connect to redis://")));
    server.restart().await?;
    let up = source.connected().await;
    assert_eq!((up.reconnects, up.last_error), (0, None));
    server.publish("e.a", 0..1).await?;
    inbox.until("the first", |seen| seen.accepted.len() == 1).await;
    server.kill();
    source.until("the loss", |status| !status.connected).await;
    server.restart().await?;
    let up = source.connected().await;
    assert_eq!((up.reconnects, up.last_error), (1, None));
    server.publish("e.a", 1..2).await?;
    inbox.until("the second", |seen| seen.accepted.len() == 2).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_inbox_leaves_messages_with_the_server() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(redis_source(connection(&server), &["e.a"]), &inbox);
    source.connected().await;
    const MESSAGES: usize = 10_000;
    let body = "x".repeat(2000);
    server.publish("e.a", (0..MESSAGES).map(|number| format!("{number}{body}"))).await?;
    inbox.until("all batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    // What the server still holds for its subscriber has left neither its memory nor the sockets.
    let held = eventually("messages held by the server", || async {
        let clients = format!("{:?}", told(&server, "CLIENT LIST TYPE pubsub").await.ok()?);
        let held: usize = clients.split("omem=").nth(1)?.split(' ').next()?.parse().ok()?;
        (held > 0).then_some(held)
    });
    assert!(held.await > MESSAGES * body.len() / 4);
    let seen = inbox.seen();
    assert!(seen.offered <= BATCHES_IN_FLIGHT_MAX * BATCH_MESSAGES_MAX && seen.batches == BATCHES_IN_FLIGHT_MAX);
    inbox.set(Mode::Accept);
    let seen = inbox.until("all messages", |seen| seen.accepted.len() == MESSAGES).await;
    assert_eq!(seen.bodies().len(), MESSAGES);
    assert_eq!(source.state.status().reconnects, 0);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_loses_patience_with_a_slow_subscriber_is_joined_again() -> anyhow::Result<()> {
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 1mb 1"];
    let server = RedisServer::start_with(&limit).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(redis_source(connection(&server), &["e.a"]), &inbox);
    source.connected().await;
    let body = "x".repeat(10_000);
    let counts = server.publish("e.a", (0..5000).map(|_| &body)).await?;
    assert_eq!(counts.last(), Some(&0), "the server has closed the connection");
    inbox.set(Mode::Accept);
    let cut = source.until("the cut", |status| status.reconnects == 1).await;
    assert!(cut.connected);
    server.publish("e.a", ["last"]).await?;
    inbox.until("the last", |seen| seen.bodies().contains("last")).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn what_the_inbox_refuses_too_often_is_counted() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = Running::start(redis_source(connection(&server), &["e.a"]), &inbox);
    source.connected().await;
    server.publish("e.a", 0..3).await?;
    let status = source.until("the loss", |status| status.messages_lost == 3).await;
    assert!(status.last_error.is_some_and(|error| error.contains("the disk is full")));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn refusals_are_told_and_joined_once_mended() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    told(&server, "ACL SETUSER wire on >right -@all +subscribe +psubscribe resetchannels &e.a").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let refusal = async |password: &str, channel: &str| {
        let source = Running::start(redis_source(connection_as(&server, Some("wire"), password), &[channel]), &inbox);
        let status = source.until("a refusal", |status| status.last_error.is_some()).await;
        assert!(!status.connected);
        anyhow::Ok((source, status.last_error.context("an error")?))
    };
    let (source, error) = refusal("wrong", "e.a").await?;
    assert!(error.contains("WRONGPASS") && error.contains("set `user` and `password`"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    source.drained().await?;
    let (source, error) = refusal("right", "e.b").await?;
    assert!(error.contains("NOPERM") && error.contains("ACL SETUSER … +subscribe"), "{error}");
    told(&server, "ACL SETUSER wire &e.b").await?;
    assert_eq!(source.connected().await.last_error, None);
    // This user may neither unsubscribe nor ping.
    server.publish("e.b", ["1"]).await?;
    inbox.until("the message", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}

/// With the rights that the README names, and no more.
#[tokio::test]
async fn documented_rights_are_enough_and_leave_no_entry_in_the_log_of_refusals() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    told(
        &server,
        "ACL SETUSER wire on >right -@all +subscribe +psubscribe +unsubscribe +punsubscribe +ping resetchannels &e.a",
    )
    .await?;
    let stream = "+xreadgroup +xack +xclaim +xautoclaim +xpending +xgroup +xlen ~events";
    told(&server, &format!("ACL SETUSER reader on >right -@all {stream}")).await?;
    for database in ["", "/3"] {
        let inbox = FakeInbox::new(Mode::Accept);
        let at = |user: &str| {
            let mut connection = connection_as(&server, Some(user), "right");
            connection.url = format!("{}{database}", server.url()).parse().unwrap();
            connection
        };
        let of_stream = crate::redis_stream::stream_source(at("reader"), &["events"], wirehook::settings::Start::All);
        let sources = [Running::start(redis_source(at("wire"), &["e.a"]), &inbox), Running::start(of_stream, &inbox)];
        if !database.is_empty() {
            for source in &sources {
                let named = |error: &str| error.contains("NOPERM") && error.contains("`ACL SETUSER … +select ");
                source.until("+select", |status| status.last_error.as_deref().is_some_and(named)).await;
            }
            told(&server, "ACL SETUSER wire +select").await?;
            told(&server, "ACL SETUSER reader +select").await?;
            told(&server, "ACL LOG RESET").await?;
        }
        for source in &sources {
            source.connected().await;
        }
        let named = format!("{:?}", told(&server, "CLIENT LIST").await?);
        assert_eq!(named.matches("name=wirehook-bus").count(), 3, "{named}");
        server.publish("e.a", ["1"]).await?;
        inbox.until("the message", |seen| seen.accepted.len() == 1).await;
        for source in sources {
            source.drained().await?;
        }
        assert_eq!(told(&server, "ACL LOG").await?, redis::Value::Array(Vec::new()), "{database:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_asks_for_a_password_says_so() -> anyhow::Result<()> {
    let server = RedisServer::start_with(&["--requirepass", "right"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let without = Running::start(redis_source(connection(&server), &["e.a"]), &inbox);
    let status = without.until("a refusal", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(error.contains("NOAUTH") && error.contains("set `password`"), "{error}");
    without.drained().await?;
    let with = Running::start(redis_source(connection_as(&server, None, "right"), &["e.a"]), &inbox);
    with.connected().await;
    with.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_closed_inbox_ends_the_source() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let source = Running::start(redis_source(connection(&server), &["e.a"]), &FakeInbox::new(Mode::Closed));
    source.connected().await;
    server.publish("e.a", 0..1).await?;
    assert_eq!(source.ended().await.unwrap_err().to_string(), "source `bus` stopped: the inbox is closed");
    Ok(())
}
