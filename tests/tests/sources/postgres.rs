mod access;
mod pooled;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use wirehook::event::decode::Fields;
use wirehook::event::decode::{Undecodable, decode};
use wirehook::event::{Event, Message};
use wirehook::secret::Secret;
use wirehook::settings::{LimitsSettings, PostgresConnection, SourceKind, SourceSettings, TableName, TlsSettings};
use wirehook::source::{self, BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX, Source};
use wirehook_tests::postgres_server::PostgresServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};

const EVENT_BYTES_MAX: usize = 1 << 20;
pub(crate) fn connection(url: &str, password: Option<&str>) -> PostgresConnection {
    let password = password.map(Secret::new);
    PostgresConnection { url: url.parse().unwrap(), password, tls: TlsSettings::default() }
}

pub(crate) fn listening_on(connection: PostgresConnection, channels: &[&str]) -> Box<dyn Source> {
    let table = TableName { schema: Some("core".to_owned()), table: "tb_entity_change_log".to_owned() };
    let channels = channels.iter().map(ToString::to_string).collect();
    let kind = SourceKind::Postgres { connection, channels, table };
    let settings = SourceSettings { name: "bus".into(), kind, fields: Fields::default(), raw_subjects: false };
    let limits = LimitsSettings { event_bytes_max: EVENT_BYTES_MAX, drain_deadline: Duration::from_secs(10) };
    source::build(&settings, &limits).unwrap()
}

fn listening(server: &PostgresServer) -> Box<dyn Source> {
    listening_on(connection(&server.url(), None), &["fraiseql_events"])
}

pub(crate) async fn notify(client: &Client, payload: &str) -> anyhow::Result<()> {
    client.execute("SELECT pg_notify('fraiseql_events', $1)", &[&payload]).await?;
    Ok(())
}

fn bodies(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.payload.to_vec()).unwrap()).collect()
}

fn decoded(message: &Message) -> Result<Event, Undecodable> {
    decode(&Arc::from("bus"), message, Fields::none(), || "once".to_owned())
}

/// A role that may connect and nothing else.
async fn create_reader(client: &Client) -> anyhow::Result<()> {
    Ok(client.batch_execute("CREATE ROLE reader LOGIN PASSWORD 'open sesame'").await?)
}

#[tokio::test]
async fn it_listens_again_after_the_server_under_load() -> anyhow::Result<()> {
    let mut server = PostgresServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    let publisher = tokio::spawn(async move {
        let mut committed = 0_u32;
        while notify(&client, &format!("{{\"n\":{committed}}}")).await.is_ok() {
            committed += 1;
        }
        committed
    });
    inbox.until("events", |seen| seen.accepted.len() >= 500).await;
    server.kill();
    let committed = publisher.await?;
    let down = source.until("disconnected", |status| !status.connected && status.last_error.is_some()).await;
    let error = down.last_error.unwrap();
    assert!(error.contains("the connection was lost") || error.contains("can't connect"), "{error}");
    let before = bodies(&inbox.seen().accepted);
    assert!(before.len() >= 500 && before.len() <= committed as usize + 1);
    let expected: Vec<_> = (0..before.len()).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(before, expected, "what came is what was sent, in order and without holes, up to the kill");

    server.restart().await?;
    let up = source.until("connected again", |status| status.connected && status.reconnects == 1).await;
    assert_eq!((up.last_error, up.messages_lost), (None, 0));
    let client = server.client().await?;
    for n in 0..100 {
        notify(&client, &format!("{{\"after\":{n}}}")).await?;
    }
    let seen = inbox.until("the events after", |seen| seen.accepted.len() == before.len() + 100).await;
    assert_eq!(bodies(&seen.accepted)[before.len()], "{\"after\":0}");
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn garbage_holds_up_nothing() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    let longest = "x".repeat(7999);
    let payloads = ["{\"n\":1}", "no JSON", "", "42.", "{\"n\":2}", &longest, "{\"n\":3}"];
    for payload in payloads {
        notify(&client, payload).await?;
    }
    let seen = inbox.until("all", |seen| seen.accepted.len() == payloads.len()).await.accepted;
    assert_eq!(bodies(&seen), payloads);
    let sound: Vec<_> = seen.iter().map(|message| decoded(message).is_ok()).collect();
    assert_eq!(sound, [true, false, false, false, true, false, true]);
    assert_eq!(source.state.status().messages_lost, 0);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn channels_are_named_exactly() -> anyhow::Result<()> {
    const ODD: &str = "Odd \"channel\"; it's";
    let server = PostgresServer::start().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening_on(connection(&server.url(), None), &["plain", ODD]), &inbox);
    source.connected().await;
    let client = server.client().await?;
    for channel in ["other", "PLAIN", "plain", ODD] {
        client.execute("SELECT pg_notify($1, '{}')", &[&channel]).await?;
    }
    let seen = inbox.until("two events", |seen| seen.accepted.len() == 2).await.accepted;
    let subjects: Vec<_> = seen.iter().map(|message| &*message.subject).collect();
    assert_eq!(subjects, ["plain", ODD]);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_inbox_leaves_notifications_at_the_server() -> anyhow::Result<()> {
    const EVENTS: usize = 15_000;
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let resident = resident_bytes();
    let client = server.client().await?;
    let notify = format!(
        "SELECT count(pg_notify('fraiseql_events', '{{\"n\":' || n || ',\"x\":\"' || repeat('x', 7000) || '\"}}')) \
         FROM generate_series(0, {}) n",
        EVENTS - 1
    );
    client.batch_execute(&notify).await?;
    let taken = BATCHES_IN_FLIGHT_MAX * BATCH_MESSAGES_MAX;
    inbox.until("batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    // The server stands still, too: it can write no more.
    let blocked = async || {
        let of_source =
            "SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE application_name = 'wirehook-bus'";
        let row = client.query_one(of_source, &[]).await.ok()?;
        row.get::<_, Option<bool>>(0).filter(|blocked| *blocked)
    };
    eventually("the server waits", blocked).await;
    let grown = resident_bytes().saturating_sub(resident);
    assert!(inbox.seen().offered <= taken && grown < 64 << 20, "{} offered, {grown} bytes", inbox.seen().offered);
    assert!(source.state.status().connected);
    inbox.set(Mode::Accept);
    let seen = inbox.until("all", |seen| seen.accepted.len() == EVENTS).await;
    assert_eq!(seen.bodies().len(), EVENTS);
    assert_eq!(source.state.status().messages_lost, 0);
    source.drained().await?;
    Ok(())
}

/// Nothing answers behind notifications that the inbox has no room for; that is this host's own doing.
#[tokio::test]
async fn a_session_that_is_held_up_is_not_taken_for_lost() -> anyhow::Result<()> {
    /// Longer than it takes to find a session that is lost.
    const HELD_UP: Duration = Duration::from_secs(25);
    const EVENTS: usize = 6_000;
    let server = PostgresServer::start().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    client
        .batch_execute(&format!(
            "SELECT pg_notify('fraiseql_events', n::text || '.') FROM generate_series(1, {EVENTS}) n"
        ))
        .await?;
    inbox.until("batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    let lost =
        tokio::time::timeout(HELD_UP, source.until("lost", |status| !status.connected || status.last_error.is_some()));
    assert!(lost.await.is_err(), "{:?}", source.state.status());
    inbox.set(Mode::Accept);
    inbox.until("all", |seen| seen.accepted.len() == EVENTS).await;
    assert_eq!(source.state.status().interruptions, 0);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_batch_is_offered_again_and_what_nobody_takes_is_counted() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    notify(&client, "{}").await?;
    inbox.until("two refusals", |seen| seen.refused >= 2).await;
    assert!(source.state.status().last_error.is_some_and(|error| error.contains("the disk is full")));
    inbox.set(Mode::Accept);
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    source.until("no error", |status| status.last_error.is_none()).await;
    assert_eq!(source.state.status().messages_lost, 0);
    inbox.set(Mode::Closed);
    let state = source.state.clone();
    notify(&client, "{}").await?;
    assert_eq!(source.ended().await.unwrap_err().to_string(), "source `bus` stopped: the inbox is closed");
    assert_eq!(state.status().messages_lost, 1);
    Ok(())
}

#[tokio::test]
async fn a_drain_hands_over_what_has_come() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    client.batch_execute("SELECT pg_notify('fraiseql_events', n::text || '.') FROM generate_series(1, 100) n").await?;
    inbox.until("the batch", |seen| seen.offered >= 1).await;
    source.drain.begin();
    inbox.set(Mode::Accept);
    source.ended().await?;
    let seen = inbox.seen();
    assert_eq!((seen.accepted.len(), seen.refused), (seen.offered, 0));
    // The server lets go of it, which is what makes it stop keeping notifications for it.
    let gone = async || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'wirehook-%'";
        (client.query_one(count, &[]).await.ok()?.get::<_, i64>(0) == 0).then_some(())
    };
    eventually("the session is gone", gone).await;
    Ok(())
}

/// What this process takes of memory.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
