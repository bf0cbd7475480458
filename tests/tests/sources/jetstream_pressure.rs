//! An inbox that takes nothing for long: what waits stays at the broker, and what was delivered is not delivered again.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use wirehook::settings::{SourceKind, Start};
use wirehook::source::jetstream::{ACK_PENDING_MAX, HOST_MESSAGES_MAX};
use wirehook::source::{BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX};
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{DEADLINE, FakeInbox, Mode, Running, eventually};
use crate::jetstream::{build, consumer_with, info, jetstream_source, kind, publish, settled};

const EVENTS: u32 = 6000;
/// Less than the 5 s for which the last acks are waited for where there is a server.
const DRAIN_DEADLINE: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_held_inbox_leaves_the_backlog_at_the_broker() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..EVENTS).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::All), &inbox);
    inbox.until("all batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    let held = info(&stream).await.context("the consumer")?;
    assert!(held.num_ack_pending <= HOST_MESSAGES_MAX, "{held:?}");
    assert_eq!(held.num_ack_pending as u64 + held.num_pending, u64::from(EVENTS));
    assert_eq!(held.config.max_ack_pending, ACK_PENDING_MAX as i64);
    assert!(inbox.seen().offered <= BATCHES_IN_FLIGHT_MAX * BATCH_MESSAGES_MAX);
    inbox.set(Mode::Accept);
    settled(&stream, u64::from(EVENTS)).await;
    source.drained().await?;
    Ok(())
}

/// Longer than a test may take, were messages delivered again only after the default.
const ACK_WAIT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_waits_is_not_delivered_again() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    consumer_with(&stream, |config| {
        config.ack_wait = ACK_WAIT;
        config.max_ack_pending = ACK_PENDING_MAX as i64;
    })
    .await?;
    publish(&server, "e.a", 0..EVENTS).await?;
    let mut acks = server.client().await?.subscribe("$JS.ACK.>").await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(jetstream_source(&server, &[], Start::All), &inbox);
    // Nine reports are three times `ack_wait`. Those that came last wait here, without a place among the batches.
    let mut reports: HashMap<String, u32> = HashMap::new();
    while reports.is_empty() || reports.values().any(|count| *count < 9) {
        let ack = tokio::time::timeout(DEADLINE, acks.next()).await.context("no report of progress")?;
        let ack = ack.context("an ack")?;
        assert_eq!(ack.payload, "+WPI");
        *reports.entry(ack.subject.to_string()).or_default() += 1;
    }
    let held = info(&stream).await.context("the consumer")?;
    assert_eq!((held.num_redelivered, held.num_ack_pending), (0, reports.len()));
    // How many, hangs on how many came with each batch.
    let offered = inbox.seen().offered;
    assert!(reports.len() > offered, "{offered} of {} are offered: none waits without a place", reports.len());
    inbox.set(Mode::Accept);
    settled(&stream, u64::from(EVENTS)).await;
    assert_eq!(inbox.seen().offered, EVENTS as usize);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_source_that_was_held_for_long_goes_on() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    consumer_with(&stream, |config| {
        config.ack_wait = ACK_WAIT;
        // The shortest that a request may wait, so that all of them run out while the inbox is held.
        config.max_expires = Duration::from_secs(1);
    })
    .await?;
    publish(&server, "e.a", 0..10).await?;
    let mut notices = server.client().await?.subscribe("_INBOX.>").await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(jetstream_source(&server, &[], Start::All), &inbox);
    inbox.until("the events", |seen| seen.offered == 10).await;
    while tokio::time::timeout(DEADLINE, notices.next()).await?.context("a notice")?.status.is_none_or(|it| it != 408) {
    }
    inbox.set(Mode::Accept);
    publish(&server, "e.a", 10..20).await?;
    settled(&stream, 20).await;
    let status = source.state.status();
    assert_eq!((status.connected, status.last_error), (true, None));
    assert_eq!(inbox.seen().offered, 20);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_held_source_still_learns_that_its_server_is_gone() -> anyhow::Result<()> {
    let mut server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    consumer_with(&stream, |config| config.ack_wait = ACK_WAIT).await?;
    publish(&server, "e.a", 0..EVENTS).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(jetstream_source(&server, &[], Start::All), &inbox);
    inbox.until("events", |seen| seen.offered > 0).await;
    server.kill();
    source.until("disconnected", |status| !status.connected).await;
    server.restart().await?;
    source.until("connected again", |status| status.connected && status.reconnects == 1).await;
    inbox.set(Mode::Accept);
    inbox.until("every event", |seen| seen.bodies().len() == EVENTS as usize).await;
    let all_is_settled = || async { info(&stream).await.filter(|info| info.num_ack_pending == 0) };
    eventually("acks", all_is_settled).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_message_larger_than_the_consumer_lets_through_is_told() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    consumer_with(&stream, |config| config.max_bytes = 1024).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &[], Start::All), &inbox);
    source.connected().await;
    publish(&server, "e.a", 0..50).await?;
    settled(&stream, 50).await;
    assert_eq!(source.state.status().last_error, None, "many small messages are no large one");
    let client = server.client().await?;
    client.publish("e.a", "x".repeat(2000).into()).await?;
    client.flush().await?;
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(error.contains("a message is larger than the consumer's max_bytes of 1024; raise it"), "{error}");
    assert!(!status.connected);
    consumer_with(&stream, |config| config.max_bytes = 4096).await?;
    settled(&stream, 51).await;
    assert_eq!(source.connected().await.last_error, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_drain_without_a_server_ends_soon() -> anyhow::Result<()> {
    let mut server = NatsServer::start().await?;
    let mut kind = kind(&server, &[], Start::All);
    let SourceKind::Jetstream { streams, .. } = &mut kind else { unreachable!("it is one of JetStream") };
    *streams = (0..6).map(|number| format!("events{number}")).collect();
    for stream in streams {
        server.create_stream(stream, &[&format!("{stream}.>")]).await?;
        publish(&server, &format!("{stream}.a"), 0..EVENTS / 2).await?;
    }
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(build(kind), &inbox);
    inbox.until("all batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    server.kill();
    source.until("disconnected", |status| !status.connected).await;
    inbox.set(Mode::Accept);
    tokio::time::timeout(DRAIN_DEADLINE, source.drained()).await.context("the drain waited for the server")??;
    Ok(())
}
