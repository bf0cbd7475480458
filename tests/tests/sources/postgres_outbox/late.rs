//! Rows that become visible after others with higher keys.

use wirehook::source::Accept;

use super::{accepted, insert, keys, outbox, reading, trickle};
use crate::fake_inbox::{FakeInbox, Mode, Running};
use crate::postgres_outbox::outbox_source;
use wirehook::settings::Start;

#[tokio::test]
async fn a_transaction_that_stays_open_holds_up_nobody_and_loses_nothing() -> anyhow::Result<()> {
    let server = outbox(&["-c", "max_prepared_transactions=5"]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    let (open, drawn, prepared) = (server.client().await?, server.client().await?, server.client().await?);
    let (rolled_back, client) = (server.client().await?, server.client().await?);
    open.batch_execute("BEGIN").await?;
    let mut late = insert(&open, 3).await?;
    // A key that is drawn while the transaction has no id, nor a lock on the table.
    let draw = "SELECT nextval(pg_get_serial_sequence('core.tb_entity_change_log', 'pk_entity_change_log'))";
    drawn.batch_execute("BEGIN").await?;
    let key: i64 = drawn.query_one(draw, &[]).await?.get(0);
    late.push(key);
    prepared.batch_execute("BEGIN").await?;
    late.extend(insert(&prepared, 2).await?);
    rolled_back.batch_execute("BEGIN").await?;
    insert(&rolled_back, 4).await?;
    let mut expected = trickle(&client, &inbox).await?;
    prepared.batch_execute("PREPARE TRANSACTION 'late'").await?;
    drop(prepared);
    rolled_back.batch_execute("ROLLBACK").await?;
    expected.extend(trickle(&client, &inbox).await?);
    accepted(&inbox, &expected).await;
    // The last of them to end had no id until now.
    client.batch_execute("COMMIT PREPARED 'late'").await?;
    inbox.until("the prepared rows", |seen| seen.accepted.len() == expected.len() + 2).await;
    open.batch_execute("COMMIT").await?;
    inbox.until("the open rows", |seen| seen.accepted.len() == expected.len() + 5).await;
    expected.extend(trickle(&client, &inbox).await?);
    let with_key = "INSERT INTO core.tb_entity_change_log (pk_entity_change_log, object_type, modification_type) \
        VALUES ($1, 'Order', 'DELETE')";
    drawn.execute(with_key, &[&key]).await?;
    drawn.batch_execute("COMMIT").await?;
    expected.extend(late);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn keys_that_nobody_uses_are_forgotten() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    let client = server.client().await?;
    let mut expected = Vec::new();
    for _ in 0..200 {
        client.batch_execute("BEGIN").await?;
        insert(&client, 1).await?;
        client.batch_execute("ROLLBACK").await?;
        expected.extend(insert(&client, 1).await?);
    }
    accepted(&inbox, &expected).await;
    let cursor_bytes = || async { inbox.cursor(&"bus".into()).await.unwrap().unwrap().len() };
    let with_gaps = cursor_bytes().await;
    assert!(with_gaps > 200, "a gap takes a byte at least: {with_gaps}");
    // The cursor goes with rows.
    expected.extend(trickle(&client, &inbox).await?);
    assert!(cursor_bytes().await < 100, "{} bytes", cursor_bytes().await);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_neither_replays_nor_misses() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    let (early, late, client) = (server.client().await?, server.client().await?, server.client().await?);
    early.batch_execute("BEGIN").await?;
    late.batch_execute("BEGIN").await?;
    let mut expected = insert(&early, 2).await?;
    expected.extend(insert(&late, 2).await?);
    let above = insert(&client, 300).await?;
    accepted(&inbox, &above).await;
    expected.extend(above);
    source.drained().await?;
    early.batch_execute("COMMIT").await?;
    expected.extend(insert(&client, 10).await?);
    // Where the source is told to begin does not matter any more.
    let source = Running::start(outbox_source(&server, Start::New), &inbox);
    source.connected().await;
    inbox.until("what came meanwhile", |seen| seen.accepted.len() == 312).await;
    late.batch_execute("COMMIT").await?;
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_batch_that_fails_is_handed_over_again_before_any_other() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let inbox = FakeInbox::new(Mode::Fail);
    let source = reading(&server, &inbox).await;
    let client = server.client().await?;
    let inserted = insert(&client, 700).await?;
    inbox.until("three refusals", |seen| seen.refused >= 3).await;
    let status = source.until("the error", |status| status.last_error.is_some()).await;
    assert!(status.last_error.unwrap().contains("the disk is full"));
    assert!(inbox.cursor(&"bus".into()).await?.is_none());
    inbox.set(Mode::Accept);
    let seen = accepted(&inbox, &inserted).await;
    assert_eq!(keys(&seen), inserted);
    source.until("no error", |status| status.last_error.is_none()).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_inbox_stops_the_reading() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let inbox = FakeInbox::new(Mode::Hold);
    let client = server.client().await?;
    let inserted = insert(&client, 2000).await?;
    let source = reading(&server, &inbox).await;
    inbox.until("the place to begin", |seen| seen.batches == 1).await;
    inbox.set(Mode::Accept);
    accepted(&inbox, &inserted).await;
    inbox.set(Mode::Hold);
    let more = insert(&client, 2000).await?;
    let seen = inbox.until("a batch", |seen| seen.offered > 2000).await;
    assert!(seen.offered <= 2000 + 256, "one batch at a time: {}", seen.offered - 2000);
    // The source ends only when what it has handed over has ended.
    source.drain.begin();
    assert!(!source.is_finished());
    inbox.set(Mode::Accept);
    source.ended().await?;
    assert_eq!(inbox.seen().accepted.len(), seen.offered);
    let source = reading(&server, &inbox).await;
    accepted(&inbox, &[inserted, more].concat()).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_killed_is_joined_again() -> anyhow::Result<()> {
    let mut server = outbox(&[]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    let mut expected = insert(&server.client().await?, 500).await?;
    inbox.until("some rows", |seen| !seen.accepted.is_empty()).await;
    server.kill();
    source.until("disconnected", |status| !status.connected && status.last_error.is_some()).await;
    server.restart().await?;
    expected.extend(insert(&server.client().await?, 500).await?);
    accepted(&inbox, &expected).await;
    let status = source.connected().await;
    assert_eq!((status.reconnects, status.messages_lost), (1, 0));
    source.drained().await?;
    Ok(())
}
