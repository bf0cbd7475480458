//! Streams and consumers: several, missing, made, made again, and gone with the source.

use anyhow::Context;
use async_nats::jetstream;
use wirehook::settings::{SourceKind, Start};
use wirehook::source::jetstream::INACTIVE_MAX;
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};
use crate::jetstream::{build, consumer_with, info, jetstream_source, kind, publish, settled};

/// A source that differs from that of one stream.
fn changed(mut kind: SourceKind, change: impl FnOnce(&mut Vec<String>, &mut bool, &mut bool)) -> SourceKind {
    if let SourceKind::Jetstream { streams, create_stream, ephemeral, .. } = &mut kind {
        change(streams, create_stream, ephemeral);
    }
    kind
}

fn two_streams(server: &NatsServer, subjects: &[&str]) -> SourceKind {
    changed(kind(server, subjects, Start::All), |streams, _, _| streams.push("others".to_owned()))
}

#[tokio::test]
async fn several_streams_are_one_source() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let events = server.create_stream("events", &["e.>"]).await?;
    let others = server.create_stream("others", &["o.>"]).await?;
    publish(&server, "e.a", 0..600).await?;
    publish(&server, "o.a", 600..1200).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    // Each stream is asked for its own subject: nats-server 2.9 knows one for a consumer.
    let source = Running::start(build(two_streams(&server, &["e.>", "o.>"])), &inbox);
    source.connected().await;
    let (events, others) = tokio::join!(settled(&events, 600), settled(&others, 600));
    assert_eq!((&*events.config.filter_subject, &*others.config.filter_subject), ("e.>", "o.>"));
    let seen = inbox.seen();
    assert_eq!((seen.accepted.len(), seen.bodies().len()), (1200, 1200));
    let of = |stream: &str| {
        let prefix = format!("{stream}:");
        seen.positions.iter().flatten().filter(|position| position.starts_with(&prefix)).count()
    };
    assert_eq!((of("events"), of("others")), (600, 600));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_stream_does_not_stop_the_others() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let events = server.create_stream("events", &["e.>"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(build(two_streams(&server, &[])), &inbox);
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    let error = "the stream `others` doesn't exist; the server says: stream not found (code 404, error code 10059); set \
                 `create_stream = true`, or create it: `nats stream add others`";
    assert_eq!((status.connected, status.last_error.as_deref()), (false, Some(error)));
    publish(&server, "e.a", 0..10).await?;
    settled(&events, 10).await;
    let status = source.state.status();
    assert_eq!((status.connected, status.last_error.as_deref()), (false, Some(error)), "an event forgets no error");
    server.create_stream("others", &["o.>"]).await?;
    publish(&server, "o.a", 10..20).await?;
    inbox.until("events of both", |seen| seen.bodies().len() == 20).await;
    assert_eq!(source.connected().await.last_error, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_is_created_only_when_told() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let context = jetstream::new(server.client().await?);
    let inbox = FakeInbox::new(Mode::Accept);
    let told =
        || build(changed(kind(&server, &["e.>", "f.a"], Start::New), |_, create_stream, _| *create_stream = true));
    let source = Running::start(told(), &inbox);
    source.connected().await;
    let stream = context.get_stream("events").await?;
    let config = &stream.cached_info().config;
    assert_eq!(config.subjects, ["e.>", "f.a"]);
    assert_eq!((config.max_age.as_secs(), config.max_messages, config.max_bytes), (0, -1, -1));
    publish(&server, "f.a", 0..1).await?;
    settled(&stream, 1).await;
    source.drained().await?;
    // One that exists stays as it is.
    let mut config = config.clone();
    config.subjects = vec!["e.>".to_owned()];
    config.max_messages = 7;
    let before = context.update_stream(config).await?.config;
    let source = Running::start(told(), &inbox);
    source.connected().await;
    assert_eq!(context.get_stream("events").await?.cached_info().config, before);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_cannot_be_created_is_told_in_the_servers_words() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    server.create_stream("taken", &["e.>"]).await?;
    let told = changed(kind(&server, &["e.a"], Start::New), |_, create_stream, _| *create_stream = true);
    let source = Running::start(build(told), &FakeInbox::new(Mode::Accept));
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(error.starts_with("can't create the stream `events` with the subjects [\"e.a\"]"), "{error}");
    assert!(error.contains("subjects overlap with an existing stream"), "{error}");
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn an_ephemeral_consumer_goes_with_its_source() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let ephemeral = changed(kind(&server, &[], Start::New), |_, _, ephemeral| *ephemeral = true);
    let source = Running::start(build(ephemeral), &inbox);
    source.connected().await;
    let config = info(&stream).await.context("the consumer")?.config;
    // What goes when a killed host no longer asks, and does not outlive the server.
    assert_eq!((config.durable_name, config.inactive_threshold), (None, INACTIVE_MAX));
    publish(&server, "e.a", 0..10).await?;
    settled(&stream, 10).await;
    source.drained().await?;
    assert!(info(&stream).await.is_none());
    assert_eq!(inbox.seen().accepted.len(), 10);
    Ok(())
}

#[tokio::test]
async fn a_durable_consumer_stays() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    let source = Running::start(jetstream_source(&server, &[], Start::New), &FakeInbox::new(Mode::Accept));
    source.connected().await;
    source.drained().await?;
    let config = info(&stream).await.context("the consumer")?.config;
    assert_eq!((config.durable_name.as_deref(), config.inactive_threshold.as_secs()), (Some("wirehook-bus"), 0));
    Ok(())
}

#[tokio::test]
async fn a_consumer_deleted_while_the_host_was_down_leaves_nothing_out() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..10).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &[], Start::New), &inbox);
    source.connected().await;
    publish(&server, "e.a", 10..20).await?;
    settled(&stream, 20).await;
    source.drained().await?;
    // The second start finds the consumer, and keeps how far it has come by now.
    let source = Running::start(jetstream_source(&server, &[], Start::New), &inbox);
    source.connected().await;
    source.drained().await?;
    stream.delete_consumer("wirehook-bus").await?;
    publish(&server, "e.a", 20..30).await?;
    let source = Running::start(jetstream_source(&server, &[], Start::New), &inbox);
    let seen = inbox.until("the later events", |seen| seen.bodies().contains("29")).await;
    let expected: Vec<_> = (10..30).map(|body: u32| body.to_string()).collect();
    let accepted: Vec<_> = seen.accepted.iter().map(|it| String::from_utf8_lossy(&it.payload).into_owned()).collect();
    assert_eq!(accepted, expected, "all since the first start, none before it, and none twice");
    source.drained().await?;
    // A consumer of another name is another: `start` holds for it.
    let mut other = kind(&server, &[], Start::New);
    if let SourceKind::Jetstream { durable, .. } = &mut other {
        *durable = "another".to_owned();
    }
    let source = Running::start(build(other), &inbox);
    source.connected().await;
    let look = || async { stream.consumer_info("another").await.ok().filter(|info| info.num_pending == 0) };
    assert_eq!(eventually("the other consumer", look).await.num_ack_pending, 0);
    source.drained().await?;
    assert_eq!(inbox.seen().accepted.len(), 20);
    Ok(())
}

#[tokio::test]
async fn several_subjects_of_one_stream_are_read_and_others_passed_over() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["e.a", "e.b.*", "e.b.c"], Start::All), &inbox);
    source.connected().await;
    publish(&server, "e.a", 0..300).await?;
    publish(&server, "e.x", 300..600).await?;
    publish(&server, "e.b.c", 600..900).await?;
    publish(&server, "e.b", 900..910).await?;
    let all_is_settled =
        || async { info(&stream).await.filter(|info| info.num_pending == 0 && info.num_ack_pending == 0) };
    eventually("acks", all_is_settled).await;
    let expected = (0..300).chain(600..900).map(|body: u32| body.to_string()).collect();
    assert_eq!(inbox.seen().bodies(), expected);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_subject_that_a_consumer_leaves_out_is_told_and_the_others_come() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    consumer_with(&stream, |config| config.filter_subject = "e.a".to_owned()).await?;
    publish(&server, "e.a", 0..3).await?;
    publish(&server, "e.b", 3..6).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["e.a", "e.b"], Start::All), &inbox);
    inbox.until("what comes", |seen| seen.accepted.len() == 3).await;
    let status = source.until("what does not", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(!status.connected && error.contains("leaves out [\"e.b\"] of `subjects`"), "{error}");
    stream.delete_consumer("wirehook-bus").await?;
    inbox.until("the rest", |seen| seen.bodies().len() == 6).await;
    assert_eq!(source.connected().await.last_error, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_subject_that_a_stream_comes_to_have_is_read() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>", "g.>"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["e.>", "f.>", "g.>"], Start::All), &inbox);
    source.connected().await;
    let mut config = stream.cached_info().config.clone();
    config.subjects.push("f.>".to_owned());
    jetstream::new(server.client().await?).update_stream(config).await?;
    publish(&server, "f.a", 0..5).await?;
    publish(&server, "e.a", 5..6).await?;
    settled(&stream, 6).await;
    assert_eq!(inbox.seen().bodies().len(), 6);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_filter_that_can_match_nothing_is_told_until_the_stream_has_its_subject() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>", "f.>"]).await?;
    let context = jetstream::new(server.client().await?);
    consumer_with(&stream, |config| config.filter_subject = "f.>".to_owned()).await?;
    let mut config = stream.cached_info().config.clone();
    config.subjects = vec!["e.>".to_owned()];
    context.update_stream(config.clone()).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["f.>"], Start::New), &inbox);
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    let words = "nothing can come of the stream `events`: it keeps [\"e.>\"], and the filter of the consumer";
    assert!(!status.connected && error.starts_with(words), "{error}");
    config.subjects.push("f.>".to_owned());
    context.update_stream(config).await?;
    // Though the source looks only now and then, nothing is left out.
    publish(&server, "f.a", 0..3).await?;
    inbox.until("the events", |seen| seen.bodies().len() == 3).await;
    assert_eq!(source.connected().await.last_error, None);
    source.drained().await?;
    Ok(())
}
