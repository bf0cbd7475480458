use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Client;
use wirehook::event::decode::{Undecodable, decode};
use wirehook::event::{Event, Message};
use wirehook::secret::Secret;
use wirehook::settings::{LimitsSettings, PostgresConnection, SourceKind, SourceSettings, TableName, TlsSettings};
use wirehook::source::{self, BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX, Source};
use wirehook_tests::postgres_server::PostgresServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};

const EVENT_BYTES_MAX: usize = 1 << 20;
const INSERT: &str = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data) \
    VALUES ('Order', $1, '33333333-3333-3333-3333-333333333333', $2::text::jsonb) RETURNING pk_entity_change_log";

fn connection(url: &str, password: Option<&str>) -> PostgresConnection {
    let password = password.map(Secret::new);
    PostgresConnection { url: url.parse().unwrap(), password, tls: TlsSettings::default() }
}

fn listening_on(connection: PostgresConnection, channels: &[&str]) -> Box<dyn Source> {
    let table = TableName { schema: Some("core".to_owned()), table: "tb_entity_change_log".to_owned() };
    let channels = channels.iter().map(ToString::to_string).collect();
    let kind = SourceKind::Postgres { connection, channels, table };
    let settings = SourceSettings { name: "bus".into(), kind, id_field: None, raw_subjects: false };
    let limits = LimitsSettings { event_bytes_max: EVENT_BYTES_MAX, drain_deadline: Duration::from_secs(10) };
    source::build(&settings, &limits).unwrap()
}

fn listening(server: &PostgresServer) -> Box<dyn Source> {
    listening_on(connection(&server.url(), None), &["fraiseql_events"])
}

async fn notify(client: &Client, payload: &str) -> anyhow::Result<()> {
    client.execute("SELECT pg_notify('fraiseql_events', $1)", &[&payload]).await?;
    Ok(())
}

/// A row of the outbox; its key.
async fn insert(client: &Client, operation: &str, data: &str) -> anyhow::Result<i64> {
    Ok(client.query_one(INSERT, &[&operation, &data]).await?.get(0))
}

fn bodies(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.payload.to_vec()).unwrap()).collect()
}

fn decoded(message: &Message) -> Result<Event, Undecodable> {
    decode(&Arc::from("bus"), message, None, || "once".to_owned())
}

/// A role that may connect and nothing else.
async fn create_reader(client: &Client) -> anyhow::Result<()> {
    Ok(client.batch_execute("CREATE ROLE reader LOGIN PASSWORD 'open sesame'").await?)
}

#[tokio::test]
async fn events_and_keys_of_rows_arrive_in_order() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    server.notify_of_rows().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    let page = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created","entity_id":"1","entity":{"n":1}}"#;
    // One transaction: all of it comes at once.
    client.batch_execute("BEGIN").await?;
    notify(&client, page).await?;
    let key = insert(&client, "INSERT", r#"{"total":129.5}"#).await?;
    insert(&client, "UPDATE", r#"{"total":130}"#).await?;
    notify(&client, "{\"last\":true}").await?;
    client.batch_execute("COMMIT").await?;
    let seen = inbox.until("four events", |seen| seen.accepted.len() == 4).await.accepted;
    assert!(seen.iter().all(|message| &*message.subject == "fraiseql_events" && message.position.is_none()));
    assert_eq!((&bodies(&seen)[0][..], &bodies(&seen)[3][..]), (page, "{\"last\":true}"));
    let events = seen.iter().map(decoded).collect::<Result<Vec<_>, _>>()?;
    let subjects: Vec<_> = events.iter().map(|event| &event.subject[..]).collect();
    assert_eq!(
        subjects,
        ["fraiseql.order.created", "fraiseql.order.created", "fraiseql.order.updated", "fraiseql_events"]
    );
    assert_eq!(events[1].key.as_str(), "bus/seq/Order:1");
    assert_eq!(events[1].entity_id.as_deref(), Some("33333333-3333-3333-3333-333333333333"));
    assert_eq!(events[1].entity.as_deref(), Some(&br#"{"total": 129.5}"#[..]));
    let timestamp = events[1].timestamp.as_deref().context("a timestamp")?;
    assert!(timestamp.ends_with("+00:00") && timestamp.contains('T'), "{timestamp}");

    // Bookkeeping and columns that a release adds change no text, and neither do the database's settings.
    client
        .batch_execute(
            "UPDATE core.tb_entity_change_log SET nats_published_at = now(), nats_event_id = gen_random_uuid(); \
             ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; ALTER DATABASE postgres SET datestyle = 'German'",
        )
        .await?;
    source.drained().await?;
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    notify(&client, &key.to_string()).await?;
    let again = inbox.until("the row again", |seen| seen.accepted.len() == 5).await.accepted;
    assert_eq!(again[4].payload, again[1].payload);
    source.drained().await?;
    Ok(())
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
async fn a_server_that_comes_up_later_is_joined() -> anyhow::Result<()> {
    let mut server = PostgresServer::stopped()?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening(&server), &inbox);
    let down = source.until("an error", |status| status.last_error.is_some()).await.last_error.unwrap();
    assert!(down.contains(&format!("can't connect to {}", server.url())) && down.contains("refused"), "{down}");
    server.restart().await?;
    source.connected().await;
    assert_eq!(source.state.status().reconnects, 0);
    notify(&server.client().await?, "{}").await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
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
async fn a_refused_login_says_what_to_change() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let client = server.client().await?;
    create_reader(&client).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let check = async |url: String, password: Option<&str>, expected: &[&str]| {
        let source = Running::start(listening_on(connection(&url, password), &["fraiseql_events"]), &inbox);
        let status = source.until("an error", |status| status.last_error.is_some()).await;
        let error = status.last_error.unwrap();
        for expected in expected {
            assert!(error.contains(expected), "{expected:?} is not in: {error}");
        }
        assert!(!status.connected && !error.contains("sesame"), "{error}");
        source.drained().await
    };
    let reader = server.url_as("reader");
    let refused = ["password authentication failed for user \"reader\"", "28P01", "set the role's `password`", &reader];
    check(reader.clone(), Some("close sesame"), &refused).await?;
    check(reader.clone(), None, &["asks for a password", "set `password`"]).await?;
    let unknown = format!("{}/nowhere", server.url().trim_end_matches("/postgres"));
    check(unknown, None, &["database \"nowhere\" does not exist", "3D000", "set the database in `url`"]).await?;
    check(format!("{}?sslmode=require", server.url()), None, &["does not support TLS", "sslmode=disable"]).await?;
    check(format!("{}?nonsense=1", server.url()), None, &["`url`", "unknown option `nonsense`"]).await?;

    let source = Running::start(listening_on(connection(&reader, Some("new")), &["fraiseql_events"]), &inbox);
    source.until("an error", |status| status.last_error.is_some()).await;
    client.batch_execute("ALTER ROLE reader PASSWORD 'new'").await?;
    assert_eq!(source.connected().await.last_error, None);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_full_server_is_joined_when_others_go() -> anyhow::Result<()> {
    let server = PostgresServer::start_with(&["-c", "max_connections=6"]).await?;
    create_reader(&server.client().await?).await?;
    let mut config: tokio_postgres::Config = server.url_as("reader").parse()?;
    let mut others = Vec::new();
    while let Ok((client, connection)) = config.password("open sesame").connect(tokio_postgres::NoTls).await {
        tokio::spawn(connection);
        others.push(client);
    }
    let inbox = FakeInbox::new(Mode::Accept);
    let reader = connection(&server.url_as("reader"), Some("open sesame"));
    let source = Running::start(listening_on(reader, &["fraiseql_events"]), &inbox);
    let full = |error: &str| error.contains("53300") && error.contains("max_connections");
    source.until("it is full", |status| status.last_error.as_deref().is_some_and(full)).await;
    drop(others);
    source.connected().await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_table_that_may_not_be_read_costs_its_rows_and_no_other_event() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let client = server.client().await?;
    create_reader(&client).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let reader = connection(&server.url_as("reader"), Some("open sesame"));
    let source = Running::start(listening_on(reader, &["fraiseql_events"]), &inbox);
    source.connected().await;
    let (mut lost, mut events) = (0, 0);
    let mut check = async |setup: &str, expected: &[&str]| -> anyhow::Result<()> {
        client.batch_execute(setup).await?;
        client.batch_execute("SELECT pg_notify('fraiseql_events', p) FROM unnest(ARRAY['7', '{}']) p").await?;
        (lost, events) = (lost + 1, events + 1);
        let status = source.until("a lost row", |status| status.messages_lost == lost).await;
        inbox.until("the event", |seen| seen.accepted.len() == events).await;
        let error = status.last_error.context("an error")?;
        for expected in expected {
            assert!(error.contains(expected), "{expected:?} is not in: {error}");
        }
        assert!(source.state.status().connected);
        Ok(())
    };
    check("", &["there is no table `core.tb_entity_change_log`", "set `table`"]).await?;
    let other = "CREATE SCHEMA core; CREATE TABLE core.tb_entity_change_log (pk_entity_change_log bigint, n int)";
    check(other, &["has no column `object_type`"]).await?;
    client.batch_execute("DROP SCHEMA core CASCADE").await?;
    server.create_outbox().await?;
    let grant_usage = "GRANT USAGE ON SCHEMA \"core\" TO \"reader\"";
    let grant_select = "GRANT SELECT ON \"core\".\"tb_entity_change_log\" TO \"reader\"";
    check("", &["role `reader` may not read", grant_usage, grant_select]).await?;
    check(grant_usage, &["role `reader` may not read", grant_select]).await?;
    check(grant_select, &["they are not in `core.tb_entity_change_log`"]).await?;

    client.batch_execute("ALTER TABLE core.tb_entity_change_log ENABLE ROW LEVEL SECURITY").await?;
    let key = insert(&client, "INSERT", "{}").await?;
    notify(&client, &key.to_string()).await?;
    let hidden = |error: &str| error.contains("row-level security") && error.contains("\"reader\" BYPASSRLS");
    source.until("hidden", |status| status.last_error.as_deref().is_some_and(hidden)).await;
    client.batch_execute("ALTER ROLE reader BYPASSRLS").await?;
    notify(&client, &key.to_string()).await?;
    let seen = inbox.until("the row", |seen| seen.accepted.len() == 6).await.accepted;
    assert_eq!(decoded(&seen[5])?.subject, "fraiseql.order.created");
    let status = source.until("no error", |status| status.last_error.is_none()).await;
    assert_eq!((status.messages_lost, status.reconnects), (6, 0));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_row_over_the_limit_comes_cut_off_and_still_over_it() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    server.notify_of_rows().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    let sizes = [1_000_000, 20_000_000, 1_000_000, 10];
    for size in sizes {
        insert(&client, "INSERT", &format!("\"{}\"", "x".repeat(size))).await?;
    }
    let seen = inbox.until("all", |seen| seen.accepted.len() == sizes.len()).await.accepted;
    let lengths: Vec<_> = seen.iter().map(|message| message.payload.len()).collect();
    assert_eq!(lengths[1], EVENT_BYTES_MAX + 1);
    let whole = |message: &Message| decoded(message).is_ok_and(|event| event.entity.is_some());
    let are_whole: Vec<_> = seen.iter().map(whole).collect();
    assert_eq!(are_whole, [true, false, true, true]);
    assert!(lengths[0] > 1_000_000 && lengths[2] > 1_000_000);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_burst_of_rows_is_read_in_order() -> anyhow::Result<()> {
    const ROWS: usize = 1500;
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    server.notify_of_rows().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    // One in ten has 600 KB: a read brings fewer rows than a batch has keys.
    let insert = format!(
        "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_data) \
         SELECT 'Order', 'INSERT', to_jsonb(repeat('x', CASE WHEN n % 10 = 0 THEN 600000 ELSE 10 END)) \
         FROM generate_series(1, {ROWS}) n"
    );
    server.client().await?.batch_execute(&insert).await?;
    let seen = inbox.until("all", |seen| seen.accepted.len() == ROWS).await;
    let keys: Vec<_> = seen.accepted.iter().map(|message| decoded(message).unwrap().key.to_string()).collect();
    let expected: Vec<_> = (1..=ROWS).map(|seq| format!("bus/seq/Order:{seq}")).collect();
    assert_eq!(keys, expected);
    assert!(seen.batches > ROWS / BATCH_MESSAGES_MAX + 4, "{} batches", seen.batches);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_inbox_leaves_notifications_at_the_server() -> anyhow::Result<()> {
    const EVENTS: usize = 30_000;
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

#[tokio::test]
async fn a_unix_socket_is_a_way_in() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    create_reader(&server.client().await?).await?;
    let url = format!("{}?host={}", server.url_as("reader"), server.folder().display());
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(listening_on(connection(&url, None), &["fraiseql_events"]), &inbox);
    source.connected().await;
    notify(&server.client().await?, "{}").await?;
    inbox.until("the event", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn tls_is_verified() -> anyhow::Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let server = PostgresServer::start().await?;
    server.put_file("server.crt", &std::fs::read(fixtures.join("server.pem"))?)?;
    server.put_file("server.key", &std::fs::read(fixtures.join("server.key"))?)?;
    let client = server.client().await?;
    client.batch_execute("ALTER SYSTEM SET ssl = on").await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let at = |host: &str, query: &str| {
        format!("postgres://postgres@{host}:{}/postgres?hostaddr=127.0.0.1{query}", server.port())
    };
    let source = |url: &str, ca: bool| {
        let mut connection = connection(url, None);
        connection.tls.ca = ca.then(|| fixtures.join("ca.pem"));
        Running::start(listening_on(connection, &["fraiseql_events"]), &inbox)
    };
    let encrypted = async || -> anyhow::Result<bool> {
        let row = client
            .query_one(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'wirehook-bus'",
                &[],
            )
            .await?;
        Ok(row.get(0))
    };
    let gone = async || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wirehook-bus'";
        (client.query_one(count, &[]).await.ok()?.get::<_, i64>(0) == 0).then_some(())
    };
    for (query, ca, expected) in
        [("&sslmode=verify-full", true, true), ("", true, true), ("&sslmode=disable", false, false)]
    {
        let source = source(&at("hooks.test", query), ca);
        source.connected().await;
        assert_eq!(encrypted().await?, expected, "{query}");
        source.drained().await?;
        eventually("the session is gone", gone).await;
    }
    for (host, ca) in [("hooks.test", false), ("other.test", true)] {
        let source = source(&at(host, "&sslmode=require"), ca);
        let status = source.until("an error", |status| status.last_error.is_some()).await;
        let error = status.last_error.unwrap();
        assert!(!status.connected && error.contains("certificate") && error.contains("`tls.ca`"), "{error}");
        source.drained().await?;
    }
    Ok(())
}

/// What this process takes of memory.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
