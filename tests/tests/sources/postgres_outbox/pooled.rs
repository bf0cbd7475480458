//! Through PgBouncer, with the application's own role and two connections for both.

use anyhow::Context;
use tokio_postgres::{Client, SimpleQueryMessage};
use wirehook::settings::Start;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::postgres_server::pgbouncer::PgBouncer;

use super::{PASSWORD, accepted, keys, outbox, outbox_source_at, sorted};
use crate::fake_inbox::{FakeInbox, Mode, Running};

const GRANT: &str =
    "GRANT INSERT ON core.tb_entity_change_log TO reader; GRANT USAGE ON ALL SEQUENCES IN SCHEMA core TO reader";
const INSERT: &str = "INSERT INTO core.tb_entity_change_log (object_type, modification_type) VALUES ('Order', 'INSERT') RETURNING pk_entity_change_log";
/// What a session may have that its next user would meet.
const LEFT_BEHIND: &str = "\
    SELECT name || ' = ' || setting FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding') \
    UNION ALL SELECT 'listens to ' || pg_listening_channels() \
    UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements WHERE name <> '' \
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> '' \
    UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
    UNION ALL SELECT 'temporary objects' WHERE pg_my_temp_schema() <> 0";

async fn pooled(pool_mode: &str, more: &[&str]) -> anyhow::Result<(PostgresServer, PgBouncer)> {
    let server = outbox(&[]).await?;
    server.client().await?.batch_execute(GRANT).await?;
    let pooler = PgBouncer::start(&server, pool_mode, &[("reader", PASSWORD)], more).await?;
    Ok((server, pooler))
}

fn source_at(pooler: &PgBouncer, more: &str) -> Box<dyn wirehook::source::Source> {
    let url = format!("{}{more}", pooler.url_as("reader")).parse().unwrap();
    outbox_source_at(&url, Start::All, "tb_entity_change_log")
}

/// The texts of the first column.
async fn texts(client: &Client, sql: &str) -> anyhow::Result<Vec<String>> {
    let said = client.simple_query(sql).await.with_context(|| sql.to_owned())?;
    let rows = said.iter().filter_map(|said| if let SimpleQueryMessage::Row(row) = said { row.get(0) } else { None });
    Ok(rows.map(str::to_owned).collect())
}

/// One row of the application's; its key.
async fn insert(client: &Client) -> anyhow::Result<i64> {
    Ok(texts(client, INSERT).await?.pop().context("a key")?.parse()?)
}

/// What is left behind in both connections of the pool, held at the same time so that they are two.
async fn left_behind(pooler: &PgBouncer) -> anyhow::Result<Vec<String>> {
    let (one, other) = (pooler.client_as("reader").await?, pooler.client_as("reader").await?);
    let mut left = Vec::new();
    for client in [&one, &other] {
        client.batch_execute("BEGIN").await?;
    }
    for client in [&one, &other] {
        left.extend(texts(client, LEFT_BEHIND).await?);
        let shown = texts(client, "SHOW default_transaction_read_only").await?;
        anyhow::ensure!(shown == ["off"], "{shown:?}");
    }
    for client in [&one, &other] {
        client.batch_execute("COMMIT").await?;
    }
    Ok(left)
}

#[tokio::test]
async fn the_application_writes_on_beside_a_source_of_the_same_pool() -> anyhow::Result<()> {
    const INSERTS: usize = 400;
    for more in ["", "ignore_startup_parameters = options"] {
        let (_server, pooler) = pooled("transaction", &[more]).await?;
        let inbox = FakeInbox::new(Mode::Accept);
        let client = pooler.client_as("reader").await?;
        let mut inserted = Vec::new();
        let mut source = None;
        for insert_no in 0..INSERTS {
            match insert_no {
                20 => source = Some(Running::start(source_at(&pooler, ""), &inbox)),
                200 => source.take().context("a source")?.killed().await,
                250 => source = Some(Running::start(source_at(&pooler, ""), &inbox)),
                350 => source.take().context("a source")?.drained().await?,
                _ => {}
            }
            let key = insert(&client).await.with_context(|| format!("insert {insert_no}, {more:?}"))?;
            inserted.push(key);
            if insert_no % 50 == 40 && source.is_some() {
                inbox.until("the row", |seen| keys(seen).contains(&key)).await;
            }
        }
        assert_eq!(left_behind(&pooler).await?, Vec::<String>::new(), "{more:?}");
        let source = Running::start(source_at(&pooler, ""), &inbox);
        let all = |keys: Vec<i64>| std::collections::BTreeSet::from_iter(keys);
        inbox.until("every row", |seen| all(keys(seen)) == all(inserted.clone())).await;
        source.drained().await?;
        assert_eq!(left_behind(&pooler).await?, Vec::<String>::new(), "{more:?}");
    }
    Ok(())
}

#[tokio::test]
async fn rows_that_commit_late_arrive_through_a_pooler() -> anyhow::Result<()> {
    for pool_mode in ["transaction", "session"] {
        let (server, pooler) = pooled(pool_mode, &[]).await?;
        let inbox = FakeInbox::new(Mode::Accept);
        let source = Running::start(source_at(&pooler, ""), &inbox);
        source.connected().await;
        let (late, client) = (server.client().await?, server.client().await?);
        late.batch_execute("BEGIN").await?;
        let mut expected = vec![insert(&late).await?];
        for _ in 0..60 {
            let key = insert(&client).await?;
            inbox.until("a row", |seen| keys(seen).contains(&key)).await;
            expected.push(key);
        }
        late.batch_execute("COMMIT").await?;
        let seen = accepted(&inbox, &expected).await;
        assert_eq!(sorted(keys(&seen)), sorted(expected), "{pool_mode}");
        source.drained().await?;
    }
    Ok(())
}

#[tokio::test]
async fn pooling_by_statement_and_options_that_a_pooler_refuses_are_named() -> anyhow::Result<()> {
    let (_server, pooler) = pooled("statement", &[]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let refused = async |source: Running, words: &[&str]| {
        let says = |error: &str| words.iter().all(|word| error.contains(word));
        let status = source.until(&format!("{words:?}"), |status| status.last_error.as_deref().is_some_and(says)).await;
        assert!(!status.connected);
        anyhow::Ok(source.drained().await?)
    };
    refused(Running::start(source_at(&pooler, ""), &inbox), &["pool_mode = transaction"]).await?;
    assert_eq!(left_behind_of_statements(&pooler).await?, Vec::<String>::new());
    let (_server, pooler) = pooled("transaction", &[]).await?;
    let source = Running::start(source_at(&pooler, "?options=-csearch_path%3Dcore"), &inbox);
    refused(source, &["unsupported startup parameter: options", "leave `options` out of `url`"]).await
}

async fn left_behind_of_statements(pooler: &PgBouncer) -> anyhow::Result<Vec<String>> {
    texts(&pooler.client_as("reader").await?, LEFT_BEHIND).await
}
