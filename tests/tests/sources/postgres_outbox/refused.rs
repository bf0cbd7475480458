//! Tables that can't be read, until they can.

use wirehook::settings::Start;

use super::{accepted, insert, outbox, outbox_source, outbox_source_of};
use crate::fake_inbox::{FakeInbox, Mode, Running};
use wirehook_tests::postgres_server::PostgresServer;

/// Waits for an error that contains all of `words`.
async fn refused(source: &Running, words: &[&str]) {
    let has_words = |error: &str| words.iter().all(|word| error.contains(word));
    let what = format!("an error with {words:?}");
    let refused =
        source.until(&what, |status| status.last_error.as_deref().is_some_and(has_words) && !status.connected);
    refused.await;
}

#[tokio::test]
async fn what_is_missing_is_named_until_it_is_there() -> anyhow::Result<()> {
    let mut server = PostgresServer::stopped()?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(outbox_source(&server, Start::All), &inbox);
    refused(&source, &["can't connect to postgres://reader@"]).await;
    server.restart().await?;
    refused(&source, &["authentication failed", "password"]).await;
    let client = server.client().await?;
    client.batch_execute("CREATE ROLE reader LOGIN PASSWORD 'open sesame'").await?;
    refused(&source, &["there is no table `core.tb_entity_change_log`"]).await;
    server.create_outbox().await?;
    let grant =
        "GRANT USAGE ON SCHEMA \"core\" TO \"reader\"; GRANT SELECT ON \"core\".\"tb_entity_change_log\" TO \"reader\"";
    refused(&source, &["may not read", grant]).await;
    client.batch_execute(grant).await?;
    let mut expected = insert(&client, 3).await?;
    accepted(&inbox, &expected).await;
    source.connected().await;
    client.batch_execute("REVOKE SELECT ON core.tb_entity_change_log FROM reader").await?;
    refused(&source, &["may not read", grant]).await;
    client.batch_execute(grant).await?;
    expected.extend(insert(&client, 3).await?);
    accepted(&inbox, &expected).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn row_security_that_hides_every_row_is_named() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    client.batch_execute("ALTER TABLE core.tb_entity_change_log ENABLE ROW LEVEL SECURITY").await?;
    let inbox = FakeInbox::new(Mode::Accept);
    // Nothing is hidden yet: there is nothing.
    let source = Running::start(outbox_source(&server, Start::New), &inbox);
    source.connected().await;
    let expected = insert(&client, 3).await?;
    refused(
        &source,
        &["row-level security", "hides every row from the role `reader`", "ALTER ROLE \"reader\" BYPASSRLS"],
    )
    .await;
    client.batch_execute("ALTER ROLE reader BYPASSRLS").await?;
    accepted(&inbox, &expected).await;
    source.connected().await;
    source.drained().await?;
    client.batch_execute("ALTER ROLE reader NOBYPASSRLS").await?;
    let policy = "CREATE POLICY wirehook ON \"core\".\"tb_entity_change_log\" FOR SELECT TO \"reader\" USING (true)";
    let source = Running::start(outbox_source(&server, Start::New), &inbox);
    refused(&source, &[policy]).await;
    client.batch_execute(policy).await?;
    source.connected().await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_table_that_can_not_be_read_in_order_is_refused() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let client = server.client().await?;
    let check = async |table: &str, make: &str, words: &[&str]| -> anyhow::Result<()> {
        client.batch_execute(make).await?;
        client.batch_execute(&format!("GRANT SELECT ON core.{table} TO reader")).await?;
        let source = Running::start(outbox_source_of(&server, Start::All, table), &FakeInbox::new(Mode::Accept));
        refused(&source, words).await;
        source.drained().await?;
        Ok(())
    };
    check("seen", "CREATE VIEW core.seen AS SELECT * FROM core.tb_entity_change_log", &["is a view"]).await?;
    let like =
        |more: &str| format!("CREATE TABLE core.other (LIKE core.tb_entity_change_log INCLUDING IDENTITY); {more}");
    check("other", &like(""), &["no index on `pk_entity_change_log`", "CREATE UNIQUE INDEX"]).await?;
    let down = "ALTER TABLE core.other ADD PRIMARY KEY (pk_entity_change_log); \
        ALTER SEQUENCE core.other_pk_entity_change_log_seq INCREMENT -1";
    check("other", down, &["counts down"]).await?;
    let mut keyless = String::from("CREATE TABLE core.keyless AS SELECT * FROM core.tb_entity_change_log; ");
    keyless.push_str("ALTER TABLE core.keyless DROP COLUMN pk_entity_change_log");
    check("keyless", &keyless, &["no column `pk_entity_change_log`"]).await?;
    Ok(())
}
