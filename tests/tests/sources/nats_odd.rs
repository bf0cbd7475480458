//! Messages that no client library would send, and that a server hands on: none of them holds up those behind it.

use std::collections::HashSet;
use std::time::Duration;

use wirehook::settings::{SourceKind, Start};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::raw_nats::RawNats;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};
use crate::jetstream::{build, connection, info, kind, publish};

/// How long the good messages may wait behind the odd ones.
const SOON: Duration = Duration::from_secs(5);
/// Messages of each kind.
const REPEATS: usize = 20;
const GOOD: usize = 100;

/// A subject below `e.`, and a header block.
const ODD: [(&[u8], &[u8]); 17] = [
    (b"a", b"NATS/1.0\r\nuser id: 42\r\n\r\n"),
    (b"a", b"NATS/1.0\r\nX-Note: a\rb\r\n\r\n"),
    (b"a", b"NATS/1.0\r\nGr\xc3\xb6\xc3\x9fe: 1\r\n\r\n"),
    (b"a", b"NATS/1.0\r\nX-Note: \xff\xfe\r\n\r\n"),
    (b"a.\xff", b"NATS/1.0\r\nX-Note: a\r\n\r\n"),
    (b"a.\rb", b"NATS/1.0\r\nX-Note: a\r\n\r\n"),
    (b"a", b"NATS/1.0\r\nno colon\r\n\r\n"),
    (b"a", b"NATS/1.0 409 Consumer Deleted\r\n\r\n"),
    (b"a", b"NATS/1.0 404 No Messages\r\n\r\n"),
    (b"a", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"),
    (b"a", b"NATS/1.0 503\r\n\r\n"),
    (b"a", b"NATS/1.0 4x9 No Digits\r\n\r\n"),
    (b"a", b"NATS/1.0\r\n: empty\r\n\r\n"),
    (b"a", b"X-Note: without a version\r\n\r\n"),
    (b"a", b"NATS/1.0\r\nX-Note: cut off"),
    (b"a", b"NATS/1.0\r\nX-\0Note: a\0b\r\n\r\n"),
    (b"a", b"\0\xff\r\n\n\r"),
];

/// Publishes odd messages of every kind, and good ones behind them; returns all bodies.
async fn publish_odd(server: &NatsServer) -> anyhow::Result<HashSet<String>> {
    let mut raw = RawNats::connect(server.port()).await?;
    let mut bodies = HashSet::new();
    for repeat in 0..REPEATS {
        for (kind, (subject, block)) in ODD.iter().enumerate() {
            let body = format!("odd {kind} {repeat}");
            raw.publish(&[b"e.", *subject].concat(), Some(block), body.as_bytes()).await?;
            bodies.insert(body);
        }
    }
    // A stream takes 64 KiB of headers at most.
    let many: String = (0..3_000).map(|number| format!("X-{number}: {number}\r\n")).collect();
    raw.publish(b"e.a", Some(format!("NATS/1.0\r\n{many}\r\n").as_bytes()), b"many headers").await?;
    bodies.insert("many headers".to_owned());
    for number in 0..GOOD {
        raw.publish(b"e.a", None, format!("good {number}").as_bytes()).await?;
        bodies.insert(format!("good {number}"));
    }
    raw.flush().await?;
    Ok(bodies)
}

async fn all_come_soon(inbox: &FakeInbox, bodies: &HashSet<String>) -> anyhow::Result<()> {
    let all = inbox.until("every message", |seen| seen.bodies().is_superset(bodies));
    if tokio::time::timeout(SOON, all).await.is_err() {
        let seen = inbox.seen().bodies();
        anyhow::bail!("these have not come: {:?}", bodies.difference(&seen).collect::<Vec<_>>());
    }
    Ok(())
}

#[tokio::test]
async fn odd_messages_of_a_stream_hold_up_nobody() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(build(kind(&server, &[], Start::All)), &inbox);
    source.connected().await;
    let bodies = publish_odd(&server).await?;
    all_come_soon(&inbox, &bodies).await?;
    let settled = || async { info(&stream).await.filter(|info| info.num_pending == 0 && info.num_ack_pending == 0) };
    eventually("acks", settled).await;
    assert_eq!(inbox.seen().accepted.len(), bodies.len(), "each came once");
    let status = source.state.status();
    assert_eq!((status.connected, status.reconnects, status.last_error), (true, 0, None));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn odd_messages_of_core_nats_hold_up_nobody() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(core(&server), &inbox);
    source.connected().await;
    let bodies = publish_odd(&server).await?;
    all_come_soon(&inbox, &bodies).await?;
    let status = source.state.status();
    assert_eq!((status.connected, status.reconnects, status.messages_lost), (true, 0, 0));
    source.drained().await?;
    Ok(())
}

fn core(server: &NatsServer) -> Box<dyn wirehook::source::Source> {
    let subjects = vec!["e.>".to_owned()];
    build(SourceKind::Nats { connection: connection(server), subjects, queue_group: "wirehook-bus".to_owned() })
}

#[tokio::test]
async fn what_can_be_read_of_odd_headers_comes_along() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(core(&server), &inbox);
    source.connected().await;
    let mut raw = RawNats::connect(server.port()).await?;
    let block =
        b"NATS/1.0 409 Consumer Deleted\r\nuser id: 42\r\nNats-Msg-Id: order-1\r\nX-Note: a\rb\r\nx-a:  1 \r\n\r\n";
    raw.publish(b"e.\xffa", Some(block), b"{}").await?;
    raw.flush().await?;
    let seen = inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    let headers: Vec<_> = seen.accepted[0].headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(headers, [("Nats-Msg-Id", "order-1"), ("x-a", "1")]);
    assert_eq!(&*seen.accepted[0].subject, "e.\u{fffd}a");
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_message_of_a_stream_is_never_the_servers_own_word() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    // The subject of an inbox, too, is one that a stream may keep.
    let stream = server.create_stream("events", &["e.>", "_INBOX.kept.>"]).await?;
    let mut raw = RawNats::connect(server.port()).await?;
    for (number, status) in
        ["408 Request Timeout", "409 Message Size Exceeds MaxBytes", "100 Idle Heartbeat"].iter().enumerate()
    {
        let block =
            format!("NATS/1.0 {status}\r\nNats-Pending-Messages: 1000\r\nNats-Pending-Bytes: 99999999999\r\n\r\n");
        raw.publish(b"_INBOX.kept.a", Some(block.as_bytes()), number.to_string().as_bytes()).await?;
    }
    raw.flush().await?;
    publish(&server, "e.a", 3..6).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(build(kind(&server, &[], Start::All)), &inbox);
    inbox.until("every message", |seen| seen.bodies().len() == 6).await;
    eventually("acks", || async { info(&stream).await.filter(|info| info.num_ack_pending == 0) }).await;
    assert_eq!(source.state.status().last_error, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn an_odd_message_is_named_until_it_is_kept() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(build(kind(&server, &[], Start::All)), &inbox);
    source.connected().await;
    publish(&server, "e.a", 0..1).await?;
    let mut raw = RawNats::connect(server.port()).await?;
    raw.publish(b"e.a", Some(b"NATS/1.0\r\nuser id: 42\r\n\r\n"), b"1").await?;
    raw.flush().await?;
    let status = source.until("the message", |status| status.set_aside.is_some()).await;
    let words = "message 2 of the stream `events`, subject `e.a`, has a subject or headers that can't be read";
    assert_eq!((status.is_ready(), status.trouble().map(|trouble| &**trouble)), (false, Some(words)));
    inbox.set(Mode::Accept);
    let status = source.until("nothing set aside", |status| status.set_aside.is_none()).await;
    assert!(status.is_ready() && status.headers_dropped == 1, "{status:?}");
    eventually("acks", || async { info(&stream).await.filter(|info| info.num_ack_pending == 0) }).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn delete_markers_are_no_events() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    let mut raw = RawNats::connect(server.port()).await?;
    for reason in ["MaxAge", "Purge", "Remove"] {
        // As nats-server 2.11 writes them.
        let block = format!("NATS/1.0\r\nNats-Marker-Reason: {reason}\r\nNats-TTL: 3600s\r\n\r\n");
        raw.publish(b"e.a", Some(block.as_bytes()), b"").await?;
    }
    // A publisher's own message is none, whatever its headers say.
    raw.publish(b"e.a", Some(b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n"), b"{}").await?;
    raw.flush().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(build(kind(&server, &[], Start::All)), &inbox);
    eventually("acks", || async { info(&stream).await.filter(|info| info.ack_floor.stream_sequence == 4) }).await;
    let bodies: Vec<_> = inbox.seen().accepted.iter().map(|message| message.payload.clone()).collect();
    assert_eq!(bodies, ["{}"]);
    assert_eq!(source.state.status().delete_markers, 3);
    source.drained().await?;
    Ok(())
}
