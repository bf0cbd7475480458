//! A connection that a proxy keeps open though nothing answers behind it any more. TCP notices nothing.

use std::time::Duration;

use tokio::sync::Mutex;
use wirehook::settings::Start;
use wirehook::source::{Source, SourceStatus};
use wirehook_tests::freeze_proxy::FreezeProxy;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::redis_server::RedisServer;

use crate::fake_inbox::{FakeInbox, Mode, Running};

/// From the last byte of the server until the source says that it is gone.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

async fn found(source: &Running, what: &str, condition: impl FnMut(&SourceStatus) -> bool) -> SourceStatus {
    let found = tokio::time::timeout(FOUND_WITHIN, source.until(what, condition)).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {FOUND_WITHIN:?}; {:?}", source.state.status()))
}

/// A frozen connection to a server that lives is replaced in time, and one to a server that is gone is told of.
async fn check(
    proxy: &FreezeProxy,
    source: Box<dyn Source>,
    kill: impl AsyncFnOnce(),
    restart: impl AsyncFnOnce() -> anyhow::Result<()>,
    publish: impl AsyncFn() -> anyhow::Result<()>,
    loses: bool,
) -> anyhow::Result<()> {
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(source, &inbox);
    source.connected().await;
    publish().await?;
    inbox.until("an event", |seen| !seen.accepted.is_empty()).await;

    assert!(proxy.freeze() > 0);
    found(&source, "another connection", |status| status.connected && status.reconnects >= 1).await;
    let before = inbox.seen().accepted.len();
    publish().await?;
    inbox.until("an event of the other connection", |seen| seen.accepted.len() > before).await;

    assert!(proxy.freeze() > 0);
    kill().await;
    let status = found(&source, "disconnected", |status| !status.connected).await;
    let status = match status.last_error {
        Some(_) => status,
        None => found(&source, "an error", |status| status.last_error.is_some()).await,
    };
    println!("found: {:?}", status.last_error);
    restart().await?;
    let status = source.until("connected again", |status| status.connected && status.reconnects >= 2).await;
    assert_eq!(status.interruptions, if loses { 2 } else { 0 });
    let before = inbox.seen().accepted.len();
    publish().await?;
    inbox.until("an event of the third connection", |seen| seen.accepted.len() > before).await;
    source.drained().await?;
    Ok(())
}

fn through(url: &str, port: u16, proxy: &FreezeProxy) -> url::Url {
    url.replace(&port.to_string(), &proxy.port().to_string()).parse().unwrap()
}

#[tokio::test]
async fn notifications_are_not_awaited_for_ever() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let proxy = FreezeProxy::start(server.port()).await?;
    let url = through(&server.url(), server.port(), &proxy);
    let server = Mutex::new(server);
    let source = crate::postgres::listening_on(crate::postgres::connection(url.as_str(), None), &["fraiseql_events"]);
    let publish = async || {
        let client = server.lock().await.client().await?;
        crate::postgres::notify(&client, "{}").await
    };
    let restart = async || server.lock().await.restart().await;
    check(&proxy, source, async || server.lock().await.kill(), restart, publish, true).await
}

#[tokio::test]
async fn rows_are_not_awaited_for_ever() -> anyhow::Result<()> {
    let server = crate::postgres_outbox::outbox(&[]).await?;
    let proxy = FreezeProxy::start(server.port()).await?;
    let url = through(&server.url_as("reader"), server.port(), &proxy);
    let server = Mutex::new(server);
    let source = crate::postgres_outbox::outbox_source_at(&url, Start::All, "tb_entity_change_log");
    let publish = async || {
        let client = server.lock().await.client().await?;
        crate::postgres_outbox::insert(&client, 1).await.map(drop)
    };
    let restart = async || server.lock().await.restart().await;
    check(&proxy, source, async || server.lock().await.kill(), restart, publish, false).await
}

#[tokio::test]
async fn what_is_published_is_not_awaited_for_ever() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let proxy = FreezeProxy::start(server.port()).await?;
    let mut connection = crate::redis::connection(&server);
    connection.url = through(connection.url.as_str(), server.port(), &proxy);
    let server = Mutex::new(server);
    let source = crate::redis::redis_source(connection, &["e.*"]);
    let publish = async || server.lock().await.publish("e.a", ["{}"]).await.map(drop);
    let restart = async || server.lock().await.restart().await;
    check(&proxy, source, async || server.lock().await.kill(), restart, publish, true).await
}

/// Each of the connections of a stream's source, the one that waits for entries among them.
#[tokio::test]
async fn one_connection_of_several_is_not_awaited_for_ever() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    for number in [1, 2] {
        let proxy = FreezeProxy::start(server.port()).await?;
        let mut connection = crate::redis::connection(&server);
        connection.url = through(connection.url.as_str(), server.port(), &proxy);
        let inbox = FakeInbox::new(Mode::Accept);
        let stream = format!("events{number}");
        let source = Running::start(crate::redis_stream::stream_source(connection, &[&stream], Start::All), &inbox);
        source.connected().await;
        proxy.freeze_one(number);
        found(&source, "another connection", |status| status.connected && status.reconnects >= 1).await;
        server.add(&stream, ["{}"]).await?;
        inbox.until("an event", |seen| seen.accepted.len() == 1).await;
        source.drained().await?;
    }
    Ok(())
}

#[tokio::test]
async fn entries_are_not_awaited_for_ever() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let proxy = FreezeProxy::start(server.port()).await?;
    let mut connection = crate::redis::connection(&server);
    connection.url = through(connection.url.as_str(), server.port(), &proxy);
    let server = Mutex::new(server);
    let source = crate::redis_stream::stream_source(connection, &["events"], Start::All);
    let publish = async || server.lock().await.add("events", ["{}"]).await.map(drop);
    let restart = async || server.lock().await.restart().await;
    check(&proxy, source, async || server.lock().await.kill(), restart, publish, false).await
}
