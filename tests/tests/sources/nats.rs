use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use futures::StreamExt;
use wirehook::secret::Secret;
use wirehook::settings::SourceKind;
use wirehook::source::Source;
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};
use crate::jetstream::{build, connection};

fn nats_source(server: &NatsServer, subjects: &[&str]) -> Box<dyn Source> {
    build(SourceKind::Nats {
        connection: connection(server),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        queue_group: "wirehook-bus".to_owned(),
    })
}

/// Publishes, and waits for an echo: then the server has handed everything over.
async fn publish(server: &NatsServer, subject: &str, bodies: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
    let client = server.client().await?;
    for body in bodies {
        client.publish(subject.to_owned(), body.to_string().into()).await?;
    }
    let mut echo = client.subscribe("echo").await?;
    client.publish("echo", "".into()).await?;
    echo.next().await.context("the echo")?;
    Ok(())
}

#[tokio::test]
async fn hosts_of_one_group_share_and_overlapping_subjects_count_once() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let inboxes = [FakeInbox::new(Mode::Accept), FakeInbox::new(Mode::Accept)];
    let subjects = &["e.*", "e.>", "e.a"];
    let sources = inboxes.each_ref().map(|inbox| Running::start(nats_source(&server, subjects), inbox));
    for source in &sources {
        source.connected().await;
    }
    publish(&server, "e.a", 0..500).await?;
    publish(&server, "e.a.b", 500..600).await?;
    for source in sources {
        source.drained().await?;
    }
    let [first, second] = inboxes.map(|inbox| inbox.seen());
    assert_eq!(first.accepted.len() + second.accepted.len(), 600);
    assert_eq!(first.bodies().union(&second.bodies()).collect::<HashSet<_>>().len(), 600);
    assert!(!first.accepted.is_empty() && !second.accepted.is_empty());
    Ok(())
}

#[tokio::test]
async fn headers_come_along() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(&server, &["e.>"]), &inbox);
    source.connected().await;
    let mut headers = async_nats::HeaderMap::new();
    headers.append("X-B", "2");
    headers.append("X-A", "1");
    headers.append("X-B", "3");
    let client = server.client().await?;
    client.publish_with_headers("e.a", headers, "{}".into()).await?;
    client.flush().await?;
    let seen = inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    let headers: Vec<_> = seen.accepted[0].headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(headers, [("X-A", "1"), ("X-B", "2"), ("X-B", "3")]);
    assert_eq!(seen.accepted[0].position, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn it_comes_back_after_the_server() -> anyhow::Result<()> {
    let mut server = NatsServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(&server, &["e.>"]), &inbox);
    source.connected().await;
    server.kill();
    let down = source.until("disconnected", |status| !status.connected).await;
    assert_eq!(down.last_error.as_deref(), Some("the connection was lost"));
    server.restart().await?;
    let up = source.until("connected again", |status| status.connected && status.reconnects == 1).await;
    assert_eq!(up.last_error, None);
    publish(&server, "e.a", 0..10).await?;
    inbox.until("the events", |seen| seen.accepted.len() == 10).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_batch_is_offered_again() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = Running::start(nats_source(&server, &["e.>"]), &inbox);
    source.connected().await;
    publish(&server, "e.a", 0..10).await?;
    inbox.until("two refusals", |seen| seen.refused >= 2).await;
    inbox.set(Mode::Accept);
    inbox.until("the events", |seen| seen.accepted.len() == 10).await;
    assert_eq!(source.state.status().messages_lost, 0);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn what_no_inbox_takes_is_counted() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(nats_source(&server, &["e.>"]), &inbox);
    source.connected().await;
    publish(&server, "e.a", 0..10).await?;
    inbox.until("the events", |seen| seen.offered == 10).await;
    let state = source.state.clone();
    inbox.set(Mode::Closed);
    assert_eq!(source.ended().await.unwrap_err().to_string(), "source `bus` stopped: the inbox is closed");
    assert_eq!(state.status().messages_lost, 10);
    Ok(())
}

#[tokio::test]
async fn an_inbox_slower_than_the_bus_is_told() -> anyhow::Result<()> {
    const EVENTS: u32 = 80_000;
    let server = NatsServer::start().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(nats_source(&server, &["e.>"]), &inbox);
    source.connected().await;
    publish(&server, "e.a", 0..EVENTS).await?;
    source.until("lost messages", |status| status.messages_lost > 0).await;
    inbox.set(Mode::Accept);
    let state = source.state.clone();
    source.drained().await?;
    let (accepted, lost) = (inbox.seen().accepted.len() as u64, state.status().messages_lost);
    assert!(accepted >= 64 * 1024 && accepted + lost <= u64::from(EVENTS), "{accepted} accepted, {lost} lost");
    Ok(())
}

/// What is logged in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().filter(|line| line.contains(words)).count()
    }
}

#[tokio::test]
async fn subjects_that_a_stream_keeps_are_told_once() -> anyhow::Result<()> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let server = NatsServer::start().await?;
    server.create_stream("orders", &["e.order.*"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(nats_source(&server, &["e.>", "f.>"]), &inbox);
    let words = "the stream `orders` keeps events of `e.>`";
    eventually("the warning", || async { (log.lines(words) > 0).then_some(()) }).await;
    assert_eq!((log.lines(words), log.lines("`kind = \"jetstream\"` and `stream = \"orders\"`")), (1, 1));
    assert_eq!(log.lines("`f.>`"), 0);
    assert!(source.state.status().connected);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_says_nothing_of_streams_is_silently_fine() -> anyhow::Result<()> {
    let check = |config: String| async move {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let server = NatsServer::start_configured(&config).await?;
        let mut kind = SourceKind::Nats {
            connection: connection(&server),
            subjects: vec!["e.>".to_owned(), "f.>".to_owned()],
            queue_group: "wirehook-bus".to_owned(),
        };
        if let SourceKind::Nats { connection, .. } = &mut kind {
            connection.user = Some("wire".to_owned());
            connection.password = Some(Secret::new("right"));
        }
        let source = Running::start(build(kind), &FakeInbox::new(Mode::Accept));
        source.connected().await;
        source.drained().await?;
        assert_eq!(log.lines("WARN"), 0);
        anyhow::Ok(())
    };
    let user = "{ user: wire, password: right";
    check(format!("authorization {{ users = [{user}, permissions: {{ publish: {{ deny: \"$JS.>\" }} }} }}] }}"))
        .await?;
    check(format!("accounts {{ A {{ users = [{user} }}] }}, B {{ jetstream: enabled }} }}")).await
}
