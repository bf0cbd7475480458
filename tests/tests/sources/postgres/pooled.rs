//! Through PgBouncer.

use tokio_postgres::SimpleQueryMessage;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::postgres_server::pgbouncer::PgBouncer;

use super::{connection, listening_on, notify};
use crate::fake_inbox::{FakeInbox, Mode, Running};

#[tokio::test]
async fn a_pooler_that_gives_each_transaction_another_session_is_refused() -> anyhow::Result<()> {
    for (pool_mode, more) in [
        ("transaction", ""),
        ("transaction", "ignore_startup_parameters = options"),
        ("transaction", "server_round_robin = 1"),
        ("statement", ""),
    ] {
        let server = PostgresServer::start().await?;
        let pooler = PgBouncer::start(&server, pool_mode, &[], &[more]).await?;
        let inbox = FakeInbox::new(Mode::Accept);
        // The pool has both of its connections.
        let (one, other) = (pooler.client_as("postgres").await?, pooler.client_as("postgres").await?);
        tokio::try_join!(one.simple_query("SELECT pg_sleep(0.1)"), other.simple_query("SELECT pg_sleep(0.1)"))?;
        let source =
            Running::start(listening_on(connection(&pooler.url_as("postgres"), None), &["fraiseql_events"]), &inbox);
        let is_named = |error: &str| error.contains("pooler") && error.contains("postgres-outbox");
        let status = source.until("a reason", |status| status.last_error.as_deref().is_some_and(is_named)).await;
        assert!(!status.connected, "{pool_mode} {more}");
        source.drained().await?;
        for _ in 0..8 {
            let left = "SELECT count(*) FROM pg_listening_channels()";
            let said = one.simple_query(left).await?;
            let count = said.iter().find_map(|said| match said {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            assert_eq!(count, Some("0"), "{pool_mode} {more}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn notifications_come_through_a_pooler_that_keeps_sessions_apart() -> anyhow::Result<()> {
    let server = PostgresServer::start().await?;
    let pooler = PgBouncer::start(&server, "session", &[], &[]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source =
        Running::start(listening_on(connection(&pooler.url_as("postgres"), None), &["fraiseql_events"]), &inbox);
    source.connected().await;
    notify(&server.client().await?, "{}").await?;
    inbox.until("an event", |seen| seen.accepted.len() == 1).await;
    source.drained().await?;
    Ok(())
}
