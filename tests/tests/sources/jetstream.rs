use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::consumer::{self, AckPolicy, pull};
use async_nats::jetstream::{self, stream::Stream};
use wirehook::clock::Timestamp;
use wirehook::event::decode::Fields;
use wirehook::settings::{LimitsSettings, NatsConnection, SourceKind, SourceSettings, Start, TlsSettings};
use wirehook::source::jetstream::ACK_WAIT;
use wirehook::source::{self, BATCHES_IN_FLIGHT_MAX, Source};
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};

pub(crate) fn connection(server: &NatsServer) -> NatsConnection {
    NatsConnection {
        url: server.url().parse().unwrap(),
        others: Vec::new(),
        user: None,
        password: None,
        token: None,
        nkey: None,
        credentials: None,
        tls: TlsSettings::default(),
    }
}

pub(crate) fn build(kind: SourceKind) -> Box<dyn Source> {
    let settings = SourceSettings { name: "bus".into(), kind, fields: Fields::default(), raw_subjects: false };
    let limits = LimitsSettings { event_bytes_max: 1 << 20, drain_deadline: Duration::from_secs(10) };
    source::build(&settings, &limits).unwrap()
}

/// A source of one stream, `events`.
pub(crate) fn kind(server: &NatsServer, subjects: &[&str], start: Start) -> SourceKind {
    SourceKind::Jetstream {
        connection: connection(server),
        streams: vec!["events".to_owned()],
        create_stream: false,
        ephemeral: false,
        durable: "wirehook-bus".to_owned(),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        start,
    }
}

pub(crate) fn jetstream_source(server: &NatsServer, subjects: &[&str], start: Start) -> Box<dyn Source> {
    build(kind(server, subjects, start))
}

/// The client itself waits for ever when there are 5,000.
const PUBLISHES_IN_FLIGHT_MAX: usize = 1000;

pub(crate) async fn publish(
    server: &NatsServer,
    subject: &str,
    bodies: impl IntoIterator<Item = u32>,
) -> anyhow::Result<()> {
    let context = jetstream::new(server.client().await?);
    let mut acks = VecDeque::new();
    for body in bodies {
        acks.push_back(context.publish(subject.to_owned(), body.to_string().into()).await?);
        if acks.len() == PUBLISHES_IN_FLIGHT_MAX {
            acks.pop_front().context("an ack")?.await?;
        }
    }
    for ack in acks {
        ack.await?;
    }
    Ok(())
}

pub(crate) async fn info(stream: &Stream) -> Option<consumer::Info> {
    stream.consumer_info("wirehook-bus").await.ok()
}

/// Waits until the server has settled everything up to `sequence` and nothing else is pending.
pub(crate) async fn settled(stream: &Stream, sequence: u64) -> consumer::Info {
    let look = || async {
        info(stream).await.filter(|info| info.ack_floor.stream_sequence == sequence && info.num_ack_pending == 0)
    };
    eventually(&format!("acks up to {sequence}"), look).await
}

pub(crate) async fn consumer_with(stream: &Stream, change: impl FnOnce(&mut pull::Config)) -> anyhow::Result<()> {
    let mut config = pull::Config {
        durable_name: Some("wirehook-bus".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_deliver: -1,
        ..Default::default()
    };
    change(&mut config);
    stream.create_consumer(config).await.context("the consumer")?;
    Ok(())
}

#[tokio::test]
async fn acks_follow_the_commit() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..1000).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::All), &inbox);
    inbox.until("a batch", |seen| seen.offered > 0).await;
    // The server delivers what was asked for, however many batches that becomes here.
    let delivered = || async { info(&stream).await.filter(|info| info.num_ack_pending == 1000) };
    let held = eventually("what was asked for, delivered", delivered).await;
    assert_eq!((held.ack_floor.stream_sequence, held.config.max_deliver), (0, -1));
    inbox.set(Mode::Accept);
    settled(&stream, 1000).await;
    let seen = inbox.seen();
    assert_eq!((seen.accepted.len(), seen.bodies().len()), (1000, 1000));
    let created = stream.cached_info().created.unix_timestamp_nanos();
    let expected: Vec<_> = (1..=1000).map(|sequence| Some(format!("events:{created}:{sequence}"))).collect();
    assert_eq!(seen.positions, expected, "in the stream's order");
    assert!(seen.accepted.iter().all(|message| &*message.subject == "e.a"));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn what_was_refused_is_delivered_again() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..600).await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::All), &inbox);
    inbox.until("three refusals", |seen| seen.refused >= 3).await;
    let status = source.state.status();
    assert!(status.connected && status.last_error.is_some_and(|error| error.contains("the disk is full")));
    assert_eq!(info(&stream).await.context("the consumer")?.ack_floor.stream_sequence, 0);
    inbox.set(Mode::Accept);
    settled(&stream, 600).await;
    assert_eq!(inbox.seen().bodies().len(), 600);
    source.until("forgotten errors", |status| status.last_error.is_none()).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_killed_under_load_loses_nothing() -> anyhow::Result<()> {
    const EVENTS: u32 = 3000;
    let mut server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    consumer_with(&stream, |config| config.ack_wait = Duration::from_secs(1)).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &[], Start::All), &inbox);
    source.connected().await;
    let publisher = tokio::spawn(publish_through_outages(server.url(), EVENTS));
    for share in 1..=2 {
        let enough = (EVENTS / 4 * share) as usize;
        inbox.until("a share of the events", |seen| seen.bodies().len() >= enough).await;
        server.kill();
        source.until("disconnected", |status| !status.connected).await;
        server.restart().await?;
        source.until("reconnected", |status| status.connected && status.reconnects == u64::from(share)).await;
    }
    publisher.await??;
    let seen = inbox.until("every event", |seen| seen.bodies().len() == EVENTS as usize).await;
    assert!(seen.bodies().contains(&(EVENTS - 1).to_string()));
    source.drained().await?;
    Ok(())
}

/// Publishes numbers, each until the server has confirmed it, with an id by which the server keeps it once.
async fn publish_through_outages(url: String, events: u32) -> anyhow::Result<()> {
    let client = async_nats::ConnectOptions::new()
        .request_timeout(Some(Duration::from_secs(1)))
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(url)
        .await?;
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_secs(1));
    for event in 0..events {
        let send = || async {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", event.to_string());
            context.publish_with_headers("e.a", headers, event.to_string().into()).await.ok()?.await.ok()
        };
        eventually("a confirmed event", send).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_waited_for() -> anyhow::Result<()> {
    let mut server = NatsServer::stopped()?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::All), &inbox);
    let down = source.until("an error", |status| status.last_error.is_some()).await;
    assert!(!down.connected && down.last_error.is_some_and(|error| error.contains("can't connect to nats://")));
    server.restart().await?;
    let absent = |error: &str| error.contains("the stream `events` doesn't exist");
    source.until("no stream", |status| status.last_error.as_deref().is_some_and(absent)).await;
    server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..3).await?;
    inbox.until("the events", |seen| seen.accepted.len() == 3).await;
    let status = source.connected().await;
    assert_eq!(status.last_error, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_deleted_consumer_is_made_again_and_leaves_nothing_out() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..10).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::New), &inbox);
    source.connected().await;
    publish(&server, "e.a", 10..20).await?;
    settled(&stream, 20).await;
    stream.delete_consumer("wirehook-bus").await?;
    source.until("the deletion", |status| !status.connected).await;
    publish(&server, "e.a", 20..30).await?;
    let seen = inbox.until("the later events", |seen| seen.bodies().contains("29")).await;
    let expected = (10..30).map(|body: u32| body.to_string()).collect();
    assert_eq!(seen.bodies(), expected, "all since the first start, and none before it");
    source.connected().await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_made_anew_has_positions_of_its_own() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::New), &inbox);
    source.connected().await;
    publish(&server, "e.a", 0..1).await?;
    settled(&stream, 1).await;
    jetstream::new(server.client().await?).delete_stream("events").await?;
    source.until("the deletion", |status| !status.connected && status.last_error.is_some()).await;
    server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 1..2).await?;
    let seen = inbox.until("the new event", |seen| seen.accepted.len() == 2).await;
    assert!(seen.accepted.iter().all(|message| message.position.as_deref().unwrap().ends_with(":1")));
    assert_ne!(seen.accepted[0].position, seen.accepted[1].position);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_hands_back_the_rest() -> anyhow::Result<()> {
    const EVENTS: u32 = 4000;
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..EVENTS).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::All), &inbox);
    inbox.until("all batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    source.drain.begin();
    // What nobody has begun comes to another at once, though `ack_wait` is 30 s and the first has not ended.
    let other_inbox = FakeInbox::new(Mode::Accept);
    let other = Running::start(jetstream_source(&server, &["e.>"], Start::All), &other_inbox);
    let rest = EVENTS as usize - inbox.seen().offered;
    let rest_has_come = other_inbox.until("the rest", |seen| seen.bodies().len() >= rest);
    tokio::time::timeout(ACK_WAIT / 2, rest_has_come).await.context("the rest waited for `ack_wait`")?;
    assert!(!source.is_finished(), "the batches in flight are not settled");
    inbox.set(Mode::Accept);
    source.ended().await?;
    settled(&stream, u64::from(EVENTS)).await;
    let (first, second) = (inbox.seen().bodies(), other_inbox.seen().bodies());
    assert_eq!((first.len() + second.len(), first.is_disjoint(&second)), (EVENTS as usize, true));
    other.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_new_consumer_begins_where_it_is_told() -> anyhow::Result<()> {
    let check = |start: fn(Timestamp) -> Start, expected: &'static [&'static str]| async move {
        let server = NatsServer::start().await?;
        let stream = server.create_stream("events", &["e.>", "f.>"]).await?;
        publish(&server, "e.a", 0..1).await?;
        publish(&server, "f.a", 1..2).await?;
        let between = stream.get_raw_message(2).await?.time.unix_timestamp_nanos() / 1_000_000 + 1;
        // The clock that stamps messages is the server's: publish until it has moved on.
        let mut last = 2;
        while stream.get_raw_message(last).await?.time.unix_timestamp_nanos() / 1_000_000 <= between {
            publish(&server, "e.a", 2..3).await?;
            last += 1;
        }
        let inbox = FakeInbox::new(Mode::Accept);
        let start = start(Timestamp(i64::try_from(between)?));
        let source = Running::start(jetstream_source(&server, &["e.>"], start), &inbox);
        source.connected().await;
        publish(&server, "e.a", 3..4).await?;
        let seen = inbox.until("the last", |seen| seen.bodies().contains("3")).await;
        let mut bodies: Vec<_> = seen.bodies().into_iter().collect();
        bodies.sort();
        assert_eq!(bodies, expected);
        source.drained().await?;
        anyhow::Ok(())
    };
    check(|_| Start::New, &["3"]).await?;
    check(|_| Start::All, &["0", "2", "3"]).await?;
    check(Start::At, &["2", "3"]).await
}

#[tokio::test]
async fn a_consumer_whose_acks_settle_others_is_refused() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    consumer_with(&stream, |config| config.ack_policy = AckPolicy::All).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &[], Start::All), &inbox);
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    assert!(!status.connected && status.last_error.is_some_and(|error| error.contains("ack policy `all`")));
    stream.delete_consumer("wirehook-bus").await?;
    source.connected().await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_closed_inbox_ends_the_source() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..1).await?;
    let source = Running::start(jetstream_source(&server, &[], Start::All), &FakeInbox::new(Mode::Closed));
    assert_eq!(source.ended().await.unwrap_err().to_string(), "source `bus` stopped: the inbox is closed");
    Ok(())
}
