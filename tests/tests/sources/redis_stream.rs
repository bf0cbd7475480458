use std::collections::HashSet;

use anyhow::Context;
use wirehook::clock::Timestamp;
use wirehook::event::Message;
use wirehook::settings::{RedisConnection, SourceKind, Start};
use wirehook::source::redis_stream::CLAIM_IDLE;
use wirehook::source::{BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX, Source};
use wirehook_tests::redis_server::RedisServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};
use crate::jetstream::build;
use crate::redis::{connection, connection_as, told};

const GROUP: &str = "wirehook-bus";

pub(crate) fn stream_source(connection: RedisConnection, streams: &[&str], start: Start) -> Box<dyn Source> {
    build(kind(connection, streams, start, false))
}

fn kind(connection: RedisConnection, streams: &[&str], start: Start, ephemeral: bool) -> SourceKind {
    SourceKind::RedisStream {
        connection,
        streams: streams.iter().map(ToString::to_string).collect(),
        group: GROUP.to_owned(),
        field: "payload".to_owned(),
        start,
        ephemeral,
    }
}

/// Entries that the group has delivered and nobody has acknowledged.
pub(crate) async fn pending(server: &RedisServer, stream: &str) -> anyhow::Result<u64> {
    match told(server, &format!("XPENDING {stream} {GROUP}")).await? {
        redis::Value::Array(parts) => Ok(redis::from_redis_value(parts.into_iter().next().context("a count")?)?),
        other => anyhow::bail!("no summary: {other:?}"),
    }
}

/// Waits until nothing of the stream is pending.
pub(crate) async fn settled(server: &RedisServer, stream: &str) {
    eventually("acks", || async { pending(server, stream).await.ok().filter(|pending| *pending == 0) }).await;
}

pub(crate) fn bodies(range: std::ops::Range<u32>) -> HashSet<String> {
    range.map(|body| body.to_string()).collect()
}

#[tokio::test]
async fn acks_follow_the_commit() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let ids = server.add("events", 0..1000).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    inbox.until("a full batch", |seen| seen.offered >= BATCH_MESSAGES_MAX).await;
    assert!(pending(&server, "events").await? >= BATCH_MESSAGES_MAX as u64);
    inbox.set(Mode::Accept);
    let seen = inbox.until("all", |seen| seen.accepted.len() >= 1000).await;
    settled(&server, "events").await;
    assert_eq!((seen.accepted.len(), seen.bodies().len()), (1000, 1000));
    let expected: Vec<_> = ids.iter().map(|id| Some(format!("events:{id}"))).collect();
    assert_eq!(seen.positions, expected, "in the stream's order");
    assert!(seen.accepted.iter().all(|message| &*message.subject == "events" && message.headers.is_empty()));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn what_was_refused_is_offered_again() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    server.add("events", 0..600).await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    inbox.until("refusals", |seen| seen.refused > 3).await;
    let status = source.until("the refusal", |status| status.last_error.is_some()).await;
    assert!(status.last_error.is_some_and(|error| error.contains("the disk is full")));
    assert!(inbox.seen().accepted.is_empty() && pending(&server, "events").await? > 0);
    inbox.set(Mode::Accept);
    inbox.until("all", |seen| seen.bodies().len() == 600).await;
    settled(&server, "events").await;
    assert_eq!(source.connected().await.messages_lost, 0);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_inbox_leaves_entries_in_the_stream() -> anyhow::Result<()> {
    const ENTRIES: usize = 6000;
    let server = RedisServer::start().await?;
    server.add("events", 0..ENTRIES).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    inbox.until("all batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    // Round trips in which it could read more, if it did.
    for _ in 0..100 {
        told(&server, "PING").await?;
    }
    let most = BATCHES_IN_FLIGHT_MAX * BATCH_MESSAGES_MAX;
    assert!(inbox.seen().offered <= most && pending(&server, "events").await? <= (most + BATCH_MESSAGES_MAX) as u64);
    inbox.set(Mode::Accept);
    inbox.until("all", |seen| seen.bodies().len() == ENTRIES).await;
    settled(&server, "events").await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn entries_that_wait_in_a_slow_inbox_are_not_taken_over() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    server.add("events", 0..2).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    inbox.until("both in flight", |seen| seen.offered == 2).await;
    let idle = || async {
        let pending = told(&server, &format!("XPENDING events {GROUP} - + 10")).await.ok()?;
        let pending: Vec<(String, String, u64, u64)> = redis::from_redis_value(pending).ok()?;
        pending.iter().map(|(_, _, idle, _)| *idle).max()
    };
    let third = u64::try_from(CLAIM_IDLE.as_millis() / 3)?;
    eventually("entries that are idle", || async { idle().await.filter(|idle| *idle > third / 2) }).await;
    eventually("entries that are not idle any more", || async { idle().await.filter(|idle| *idle < third / 2) }).await;
    inbox.set(Mode::Accept);
    settled(&server, "events").await;
    assert_eq!(inbox.seen().accepted.len(), 2);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn what_a_dead_consumer_left_is_taken_over_and_what_a_living_one_has_is_not() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let ids = server.add("events", 0..600).await?;
    told(&server, &format!("XGROUP CREATE events {GROUP} 0")).await?;
    told(&server, &format!("XREADGROUP GROUP {GROUP} dead COUNT 500 STREAMS events >")).await?;
    told(&server, &format!("XREADGROUP GROUP {GROUP} living COUNT 40 STREAMS events >")).await?;
    let mut claim = redis::cmd("XCLAIM");
    claim.arg("events").arg(GROUP).arg("dead").arg(0).arg(&ids[..500]);
    claim.arg("IDLE").arg(CLAIM_IDLE.as_millis() as u64).arg("JUSTID");
    server.run::<redis::Value>([claim]).await?;

    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
    let seen = inbox.until("what nobody works on", |seen| seen.accepted.len() == 560).await;
    let expected: HashSet<_> = bodies(0..500).union(&bodies(540..600)).cloned().collect();
    assert_eq!(seen.bodies(), expected);
    eventually("acks", || async { pending(&server, "events").await.ok().filter(|pending| *pending == 40) }).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_comes_back_has_its_name_and_its_entries() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    server.add("events", 0..1).await?;
    inbox.until("the first", |seen| seen.accepted.len() == 1).await;
    inbox.set(Mode::Closed);
    server.add("events", 1..300).await?;
    source.ended().await.unwrap_err();
    assert!(pending(&server, "events").await? > 0, "nothing was acknowledged that was not accepted");
    inbox.set(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::New), &inbox);
    inbox.until("all", |seen| seen.bodies().len() == 300).await;
    settled(&server, "events").await;
    source.drained().await?;
    let consumers = told(&server, &format!("XINFO CONSUMERS events {GROUP}")).await?;
    assert_eq!(redis::from_redis_value::<Vec<redis::Value>>(consumers)?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_drain_hands_back_what_was_not_begun() -> anyhow::Result<()> {
    const ENTRIES: u32 = 4000;
    let server = RedisServer::start().await?;
    server.add("events", 0..ENTRIES).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    inbox.until("all batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    source.drain.begin();
    let begun = inbox.seen().offered as u64;
    let other_inbox = FakeInbox::new(Mode::Accept);
    let other = Running::start(stream_source(connection(&server), &["events"], Start::All), &other_inbox);
    let rest = ENTRIES as usize - inbox.seen().offered;
    let come = other_inbox.until("the rest", |seen| seen.bodies().len() >= rest);
    tokio::time::timeout(CLAIM_IDLE, come).await.context("the rest was not handed back")?;
    eventually("acks", || async { pending(&server, "events").await.ok().filter(|pending| *pending == begun) }).await;
    assert!(!source.is_finished(), "the batches in flight are not settled");
    inbox.set(Mode::Accept);
    source.ended().await?;
    settled(&server, "events").await;
    let (first, second) = (inbox.seen().bodies(), other_inbox.seen().bodies());
    assert_eq!((first.len() + second.len(), first.is_disjoint(&second)), (ENTRIES as usize, true));
    other.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_drain_hands_back_what_was_refused() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    server.add("events", 0..10).await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    inbox.until("a refusal", |seen| seen.offered >= 10).await;
    source.drained().await?;
    assert_eq!(pending(&server, "events").await?, 10);
    let other_inbox = FakeInbox::new(Mode::Accept);
    let other = Running::start(stream_source(connection(&server), &["events"], Start::All), &other_inbox);
    let come = other_inbox.until("all", |seen| seen.accepted.len() == 10);
    tokio::time::timeout(CLAIM_IDLE / 2, come).await.context("they were not handed back")?;
    settled(&server, "events").await;
    other.drained().await?;
    Ok(())
}

#[tokio::test]
async fn hosts_share_a_group() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let inboxes = [FakeInbox::new(Mode::Accept), FakeInbox::new(Mode::Accept)];
    let sources = inboxes
        .each_ref()
        .map(|inbox| Running::start(stream_source(connection(&server), &["a", "b"], Start::All), inbox));
    for source in &sources {
        source.connected().await;
    }
    for round in 0..50 {
        server.add("a", round * 10..round * 10 + 5).await?;
        server.add("b", round * 10 + 5..round * 10 + 10).await?;
    }
    let come = || async {
        let [first, second] = inboxes.each_ref().map(|inbox| inbox.seen());
        (first.accepted.len() + second.accepted.len() == 500).then_some((first, second))
    };
    let (first, second) = eventually("all", come).await;
    assert_eq!(first.bodies().union(&second.bodies()).count(), 500);
    let subject = |message: &Message| message.subject.to_string();
    let subjects: HashSet<_> = first.accepted.iter().chain(&second.accepted).map(subject).collect();
    assert_eq!(subjects, HashSet::from(["a".to_owned(), "b".to_owned()]));
    for source in sources {
        source.drained().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_new_group_begins_where_it_is_told() -> anyhow::Result<()> {
    let check = async |start: Start, expected: &[&str]| {
        let server = RedisServer::start().await?;
        for (id, body) in [("1000-0", "0"), ("2000-0", "1"), ("2000-1", "2")] {
            told(&server, &format!("XADD events {id} payload {body}")).await?;
        }
        let inbox = FakeInbox::new(Mode::Accept);
        let source = Running::start(stream_source(connection(&server), &["events"], start), &inbox);
        source.connected().await;
        server.add("events", [3]).await?;
        let seen = inbox.until("the last", |seen| seen.bodies().contains("3")).await;
        let mut bodies: Vec<_> = seen.bodies().into_iter().collect();
        bodies.sort();
        assert_eq!(bodies, expected);
        source.drained().await?;
        anyhow::Ok(())
    };
    check(Start::New, &["3"]).await?;
    check(Start::All, &["0", "1", "2", "3"]).await?;
    check(Start::At(Timestamp(2000)), &["1", "2", "3"]).await
}

#[tokio::test]
async fn an_entry_without_the_field_is_told_and_settled_among_good_ones() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    told(&server, "XADD events 1-1 payload 1").await?;
    told(&server, "XADD events 1-2 data {}").await?;
    told(&server, "XADD events 1-3 traceparent t payload 2").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    let seen = inbox.until("all", |seen| seen.accepted.len() == 3).await;
    let body = String::from_utf8_lossy(&seen.accepted[1].payload);
    assert!(body.starts_with("the entry 1-2 of the stream `events` has no field `payload`"), "{body}");
    assert_eq!(seen.accepted[2].headers, [("traceparent".to_owned(), "t".to_owned())]);
    settled(&server, "events").await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn refusals_are_told_and_joined_once_mended() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    server.add("events", 0..1).await?;
    told(&server, "SET text 1").await?;
    told(&server, "ACL SETUSER wire on >right ~events ~text +xreadgroup +xclaim +xautoclaim +xgroup").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let refusal = async |password: &str, stream: &str| {
        let connection = connection_as(&server, Some("wire"), password);
        let source = Running::start(stream_source(connection, &[stream], Start::All), &inbox);
        let status = source.until("a refusal", |status| status.last_error.is_some()).await;
        assert!(!status.connected);
        anyhow::Ok((source, status.last_error.context("an error")?))
    };
    let (source, error) = refusal("wrong", "events").await?;
    assert!(error.contains("WRONGPASS") && !error.contains("wrong"), "{error}");
    source.drained().await?;
    let (source, error) = refusal("right", "text").await?;
    assert!(error.contains("WRONGTYPE") && error.contains("`streams`"), "{error}");
    source.drained().await?;
    let (source, error) = refusal("right", "events").await?;
    assert!(
        error.contains("NOPERM") && error.contains("xack") && error.contains("ACL SETUSER … +xreadgroup"),
        "{error}"
    );
    assert_eq!(inbox.seen().offered, 0, "nothing is taken that could not be acknowledged");
    told(&server, "ACL SETUSER wire +xack").await?;
    assert_eq!(source.connected().await.last_error, None);
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    settled(&server, "events").await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn an_old_server_is_told_to_be_too_old() -> anyhow::Result<()> {
    let server = RedisServer::start_with(&["--rename-command", "XAUTOCLAIM", ""]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(stream_source(connection(&server), &["events"], Start::All), &inbox);
    let status = source.until("a refusal", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(error.contains("unknown command") && error.ends_with("Redis has to be 6.2 or later"), "{error}");
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn an_ephemeral_group_goes_with_its_source_and_another_stays() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    server.add("events", 0..3).await?;
    let groups = async || -> anyhow::Result<usize> {
        let groups = told(&server, "XINFO GROUPS events").await?;
        Ok(redis::from_redis_value::<Vec<redis::Value>>(groups)?.len())
    };
    for (ephemeral, expected) in [(true, 0), (false, 1), (true, 1)] {
        let inbox = FakeInbox::new(Mode::Accept);
        let source = Running::start(build(kind(connection(&server), &["events"], Start::All, ephemeral)), &inbox);
        source.connected().await;
        assert_eq!(groups().await?, 1);
        source.drained().await?;
        assert_eq!(groups().await?, expected);
    }
    assert_eq!(redis::from_redis_value::<u64>(told(&server, "XLEN events").await?)?, 3);
    Ok(())
}

#[tokio::test]
async fn a_closed_inbox_ends_the_source() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    server.add("events", 0..1).await?;
    let source = stream_source(connection(&server), &["events"], Start::All);
    let source = Running::start(source, &FakeInbox::new(Mode::Closed));
    assert_eq!(source.ended().await.unwrap_err().to_string(), "source `bus` stopped: the inbox is closed");
    Ok(())
}
