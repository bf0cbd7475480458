//! Notifications that are the key of a row.

use anyhow::Context;
use tokio_postgres::Client;
use wirehook::event::Message;
use wirehook::source::{BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX};
use wirehook_tests::postgres_server::PostgresServer;

use super::{EVENT_BYTES_MAX, bodies, connection, create_reader, decoded, listening, listening_on, notify};
use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};

const INSERT: &str = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data) \
    VALUES ('Order', $1, '33333333-3333-3333-3333-333333333333', $2::text::jsonb) RETURNING pk_entity_change_log";

/// A row of the outbox; its key.
async fn insert(client: &Client, operation: &str, data: &str) -> anyhow::Result<i64> {
    Ok(client.query_one(INSERT, &[&operation, &data]).await?.get(0))
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
async fn rows_named_before_a_kill_are_read_after_it() -> anyhow::Result<()> {
    const ROWS: usize = BATCHES_IN_FLIGHT_MAX * BATCH_MESSAGES_MAX + 900;
    let mut server = PostgresServer::start().await?;
    server.create_outbox().await?;
    server.notify_of_rows().await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let source = Running::start(listening(&server), &inbox);
    source.connected().await;
    let client = server.client().await?;
    let insert = format!(
        "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_data) \
         SELECT 'Order', 'INSERT', to_jsonb(n) FROM generate_series(1, {ROWS}) n"
    );
    client.batch_execute(&insert).await?;
    inbox.until("batches in flight", |seen| seen.batches == BATCHES_IN_FLIGHT_MAX).await;
    let told_all = async || {
        let of_source =
            "SELECT wait_event = 'ClientRead' FROM pg_stat_activity WHERE application_name = 'wirehook-bus'";
        let row = client.query_one(of_source, &[]).await.ok()?;
        row.get::<_, Option<bool>>(0).filter(|told| *told)
    };
    eventually("the server has told all", told_all).await;
    server.kill();
    server.restart().await?;
    inbox.set(Mode::Accept);
    source.until("connected again", |status| status.reconnects == 1).await;
    let seen = inbox.until("all", |seen| seen.accepted.len() == ROWS).await;
    assert_eq!((seen.bodies().len(), source.state.status().messages_lost), (ROWS, 0));
    source.drained().await?;
    Ok(())
}
