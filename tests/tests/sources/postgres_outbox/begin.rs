//! Where a source begins, and where it goes on when the table is another.

use wirehook::clock::Timestamp;
use wirehook::settings::Start;

use super::{accepted, insert, keys, outbox, outbox_source, reading, trickle};
use crate::fake_inbox::{FakeInbox, Mode, Running};

#[tokio::test]
async fn new_rows_are_those_committed_from_now_on() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let (open, client) = (server.client().await?, server.client().await?);
    insert(&client, 50).await?;
    open.batch_execute("BEGIN").await?;
    let late = insert(&open, 2).await?;
    insert(&client, 50).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(outbox_source(&server, Start::New), &inbox);
    source.connected().await;
    inbox.until("the place to begin", |seen| seen.batches == 1).await;
    let mut expected = trickle(&client, &inbox).await?;
    open.batch_execute("COMMIT").await?;
    expected.extend(late);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn the_place_to_begin_is_kept_before_there_is_any_row() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    insert(&client, 5).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(outbox_source(&server, Start::New), &inbox);
    inbox.until("the place to begin", |seen| seen.batches == 1).await;
    source.drained().await?;
    let expected = insert(&client, 5).await?;
    let source = Running::start(outbox_source(&server, Start::New), &inbox);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_time_begins_with_its_first_row() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let (open, client) = (server.client().await?, server.client().await?);
    insert(&client, 10).await?;
    let shift = "UPDATE core.tb_entity_change_log SET created_at = '2020-01-01', commit_time = '2020-01-01T00:00:00Z'";
    client.batch_execute(shift).await?;
    open.batch_execute("BEGIN").await?;
    let late = insert(&open, 1).await?;
    let mut expected = insert(&client, 10).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(outbox_source(&server, Start::At(Timestamp(1_600_000_000_000))), &inbox);
    inbox.until("the rows since", |seen| seen.accepted.len() == 10).await;
    open.batch_execute("COMMIT").await?;
    expected.extend(late);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_table_whose_keys_begin_anew_is_read_anew() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    insert(&client, 3).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    inbox.until("the rows", |seen| seen.accepted.len() == 3).await;
    // There are more rows than before when the source looks, and it may not even read the sequence.
    client.batch_execute("TRUNCATE core.tb_entity_change_log RESTART IDENTITY").await?;
    insert(&client, 5).await?;
    let seen = inbox.until("the rows after", |seen| seen.accepted.len() == 8).await;
    assert_eq!(keys(&seen), [1, 2, 3, 1, 2, 3, 4, 5]);
    assert_eq!(seen.accepted[3].position.as_deref(), Some("core.tb_entity_change_log:1:1"));
    // The source is down meanwhile, and the keys are behind.
    source.drained().await?;
    client
        .batch_execute("GRANT SELECT ON SEQUENCE core.tb_entity_change_log_pk_entity_change_log_seq TO reader")
        .await?;
    let source = reading(&server, &inbox).await;
    insert(&client, 1).await?;
    inbox.until("another row", |seen| seen.accepted.len() == 9).await;
    source.drained().await?;
    client.batch_execute("DELETE FROM core.tb_entity_change_log").await?;
    client.batch_execute("ALTER TABLE core.tb_entity_change_log ALTER pk_entity_change_log RESTART").await?;
    insert(&client, 2).await?;
    let source = reading(&server, &inbox).await;
    let seen = inbox.until("the rows after", |seen| seen.accepted.len() == 11).await;
    assert_eq!(keys(&seen)[9..], [1, 2]);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_set_by_hand_hides_no_row_below() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    client
        .batch_execute("GRANT SELECT ON SEQUENCE core.tb_entity_change_log_pk_entity_change_log_seq TO reader")
        .await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    let by_hand = "INSERT INTO core.tb_entity_change_log (pk_entity_change_log, object_type, modification_type) \
        VALUES (1000000, 'Order', 'UPDATE')";
    client.batch_execute(by_hand).await?;
    inbox.until("the row", |seen| keys(seen) == [1_000_000]).await;
    let mut expected = trickle(&client, &inbox).await?;
    expected.extend(trickle(&client, &inbox).await?);
    expected.push(1_000_000);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}
