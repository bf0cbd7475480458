//! Rows of any size and content.

use wirehook::settings::Start;

use super::{EVENT_BYTES_MAX, accepted, insert, keys, outbox, outbox_source, reading};
use crate::fake_inbox::{FakeInbox, Mode, Running};

#[tokio::test]
async fn large_rows_come_in_small_batches_and_larger_ones_cut_off() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    let sized = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_data) \
        SELECT 'Order', 'INSERT', to_jsonb(repeat('x', $2::int)) FROM generate_series(1, $1::int) RETURNING pk_entity_change_log";
    let mut expected = Vec::new();
    for (rows, bytes) in [(40, 1_000_000), (1, EVENT_BYTES_MAX as i32), (1, 60_000_000), (10, 10)] {
        let inserted = client.query(sized, &[&rows, &bytes]).await?;
        expected.extend(inserted.iter().map(|row| row.get::<_, i64>(0)));
    }
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    let seen = accepted(&inbox, &expected).await;
    let sizes: Vec<_> = seen.accepted.iter().map(|message| message.payload.len()).collect();
    assert!(sizes[..40].iter().all(|size| (1_000_000..=EVENT_BYTES_MAX).contains(size)));
    assert_eq!(sizes[40..42], [EVENT_BYTES_MAX + 1; 2], "over the limit, so that the inbox says so");
    assert!(sizes[42..].iter().all(|size| *size < 1000));
    assert!(seen.batches >= 5, "{} batches", seen.batches);
    source.drained().await?;
    Ok(())
}

/// A value that can't be turned into JSON stands for all that the server can't give: damaged, or too large for one text.
#[tokio::test]
async fn a_row_that_can_not_be_read_holds_up_no_other() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    client
        .batch_execute(
            "CREATE TYPE core.actor AS ENUM ('sound', 'broken'); \
             CREATE FUNCTION core.actor_json(actor core.actor) RETURNS json LANGUAGE plpgsql AS $$ BEGIN \
                 IF actor = 'broken' THEN RAISE 'missing chunk' USING ERRCODE = 'data_corrupted'; END IF; \
                 RETURN to_json(actor::text); END $$; \
             CREATE CAST (core.actor AS json) WITH FUNCTION core.actor_json; \
             ALTER TABLE core.tb_entity_change_log ALTER actor_type TYPE core.actor USING actor_type::core.actor",
        )
        .await?;
    let inserted = insert(&client, 600).await?;
    let broken = "UPDATE core.tb_entity_change_log SET actor_type = 'broken' WHERE pk_entity_change_log IN (7, 300)";
    client.batch_execute(broken).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(outbox_source(&server, Start::All), &inbox);
    let seen = accepted(&inbox, &inserted).await;
    let text = |key: i64| {
        let index = keys(&seen).iter().position(|other| *other == key).unwrap();
        String::from_utf8_lossy(&seen.accepted[index].payload).into_owned()
    };
    for key in [7, 300] {
        assert!(text(key).contains("can't be read: the server says: missing chunk (SQLSTATE XX001)"), "{}", text(key));
    }
    assert!(text(8).starts_with('{'));
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn rows_may_be_deleted_before_they_are_read() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    let inserted = insert(&client, 1000).await?;
    client.batch_execute("DELETE FROM core.tb_entity_change_log WHERE pk_entity_change_log % 2 = 0").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = reading(&server, &inbox).await;
    let mut expected: Vec<_> = inserted.into_iter().filter(|key| key % 2 == 1).collect();
    accepted(&inbox, &expected).await;
    client.batch_execute("DELETE FROM core.tb_entity_change_log").await?;
    expected.extend(insert(&client, 3).await?);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}
