//! Servers that go away, and streams and groups that do.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use wirehook::settings::Start;
use wirehook::source::redis_stream::CLAIM_IDLE;
use wirehook_tests::redis_server::RedisServer;

use crate::fake_inbox::{FakeInbox, Mode, Running};
use crate::redis::{connection, told};
use crate::redis_stream::{bodies, pending, settled, stream_source};

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_waited_for() -> anyhow::Result<()> {
    let mut server = RedisServer::stopped()?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
    let down = source.until("an error", |status| status.last_error.is_some()).await;
    assert!(!down.connected && down.last_error.is_some_and(|error| error.contains("can't connect to redis://")));
    server.restart().await?;
    let up = source.connected().await;
    assert_eq!((up.reconnects, up.last_error), (0, None));
    server.add("events", 0..3).await?;
    inbox.until("the events", |seen| seen.accepted.len() == 3).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_is_killed_under_load() -> anyhow::Result<()> {
    const KILLS: u64 = 3;
    let mut server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
    source.connected().await;
    let (url, done) = (server.url(), AtomicBool::new(false));
    let publisher = async {
        let (client, mut confirmed) = (redis::Client::open(url)?, HashSet::new());
        let mut number = 0_u32;
        while !done.load(Ordering::Relaxed) {
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                tokio::task::yield_now().await;
                continue;
            };
            loop {
                let mut pipeline = redis::pipe();
                for body in number..number + 50 {
                    pipeline.cmd("XADD").arg("events").arg("*").arg("payload").arg(body);
                }
                if done.load(Ordering::Relaxed) || pipeline.query_async::<Vec<String>>(&mut connection).await.is_err() {
                    break;
                }
                confirmed.extend((number..number + 50).map(|body| body.to_string()));
                number += 50;
            }
            // What was not confirmed may have been kept all the same, and is another event then.
            number += 50;
        }
        anyhow::Ok(confirmed)
    };
    let killer = async {
        for kill in 1..=KILLS {
            let before = inbox.seen().accepted.len();
            inbox.until("progress", |seen| seen.accepted.len() > before + 500).await;
            server.kill();
            source.until("the loss", |status| !status.connected).await;
            server.restart().await?;
            source.until("the server", |status| status.connected && status.reconnects >= kill).await;
        }
        done.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (confirmed, killed) = tokio::join!(publisher, killer);
    killed?;
    let confirmed = confirmed?;
    inbox.until("all that was confirmed", |seen| confirmed.is_subset(&seen.bodies())).await;
    settled(&server, "events").await;
    assert!(confirmed.len() > 1000, "{}", confirmed.len());
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_held_batch_is_acknowledged_over_the_next_connection() -> anyhow::Result<()> {
    let mut server = RedisServer::start().await?;
    server.add("events", 0..100).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    inbox.until("all", |seen| seen.offered == 100).await;
    source.connected().await;
    server.kill();
    source.until("the loss", |status| !status.connected).await;
    server.restart().await?;
    source.connected().await;
    assert_eq!(pending(&server, "events").await?, 100);
    inbox.set(Mode::Accept);
    settled(&server, "events").await;
    assert_eq!(inbox.seen().offered, 100, "what is in flight is not offered again");
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_group_that_is_lost_is_made_again_and_leaves_nothing_out() -> anyhow::Result<()> {
    let check = async |loss: &str| {
        let server = RedisServer::start().await?;
        server.add("events", 0..10).await?;
        let inbox = FakeInbox::new(Mode::Accept);
        let source = Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
        source.connected().await;
        server.add("events", 10..20).await?;
        inbox.until("the first", |seen| seen.accepted.len() == 10).await;
        settled(&server, "events").await;
        told(&server, loss).await?;
        // At once, before the source can have made the group again.
        server.add("events", 20..30).await?;
        inbox.until("the rest", |seen| bodies(10..30).is_subset(&seen.bodies())).await;
        settled(&server, "events").await;
        let status = source.until("it works again", |status| status.connected && status.last_error.is_none()).await;
        assert_eq!(status.reconnects, 0, "no connection was lost");
        source.drained().await?;
        anyhow::Ok(())
    };
    check("FLUSHALL").await?;
    check("DEL events").await?;
    check("XGROUP DESTROY events wirehook-bus").await
}

#[tokio::test]
async fn a_group_that_was_lost_while_the_host_was_down_is_known() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let start = || Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
    let source = start();
    source.connected().await;
    source.drained().await?;
    told(&server, "FLUSHALL").await?;
    server.add("events", 0..10).await?;
    let source = start();
    let seen = inbox.until("all", |seen| seen.accepted.len() == 10).await;
    assert_eq!(seen.bodies(), bodies(0..10));
    source.drained().await?;
    // A store that never had the group begins where it is told.
    told(&server, "XGROUP DESTROY events wirehook-bus").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
    source.connected().await;
    server.add("events", 10..11).await?;
    inbox.until("the new one", |seen| seen.bodies() == bodies(10..11)).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn entries_that_are_trimmed_while_pending_are_counted() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    server.add("events", 0..5).await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let start = || Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    let source = start();
    inbox.until("a refusal", |seen| seen.offered >= 5).await;
    source.drained().await?;
    assert_eq!(pending(&server, "events").await?, 5);
    told(&server, "XTRIM events MAXLEN = 2").await?;
    inbox.set(Mode::Accept);
    let source = start();
    let status = source.until("the loss", |status| status.messages_lost == 3).await;
    assert_eq!(status.messages_lost, 3);
    inbox.until("the others", |seen| seen.bodies() == bodies(3..5)).await;
    settled(&server, "events").await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn entries_of_a_dead_consumer_that_were_trimmed_are_counted() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let ids = server.add("events", 0..5).await?;
    told(&server, "XGROUP CREATE events wirehook-bus 0").await?;
    told(&server, "XREADGROUP GROUP wirehook-bus dead STREAMS events >").await?;
    let idle = CLAIM_IDLE.as_millis();
    told(&server, &format!("XCLAIM events wirehook-bus dead 0 {} IDLE {idle} JUSTID", ids.join(" "))).await?;
    told(&server, "XTRIM events MAXLEN = 2").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
    source.until("the loss", |status| status.messages_lost == 3).await;
    inbox.until("the others", |seen| seen.bodies() == bodies(3..5)).await;
    settled(&server, "events").await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_no_stream_is_named() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    told(&server, "SET other 1").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events", "other"], Start::All), &inbox);
    let status = source.until("a refusal", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(error.contains("(stream `other`); name streams only in `streams`"), "{error}");
    told(&server, "DEL other").await?;
    source.connected().await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_replica_is_refused_until_it_is_the_primary() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    source.connected().await;
    told(&server, "REPLICAOF 127.0.0.1 1").await?;
    let status = source.until("a refusal", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(["READONLY", "UNBLOCKED"].iter().any(|word| error.contains(word)), "{error}");
    let readonly = |error: &str| error.contains("READONLY") && error.contains("has to lead to the primary");
    source.until("the refusal", |status| status.last_error.as_deref().is_some_and(readonly)).await;
    told(&server, "REPLICAOF NO ONE").await?;
    source.connected().await;
    server.add("events", 0..1).await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}
