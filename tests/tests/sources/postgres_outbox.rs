//! The outbox as FraiseQL writes it: transactions that commit in another order than they drew their keys.

mod begin;
mod late;
mod pooled;
mod refused;
mod remade;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Client;
use wirehook::event::decode::Fields;
use wirehook::secret::Secret;
use wirehook::settings::{
    LimitsSettings, PostgresConnection, SourceKind, SourceSettings, Start, TableName, TlsSettings,
};
use wirehook::source::{self, Source};
use wirehook_tests::postgres_server::PostgresServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, Seen};

const EVENT_BYTES_MAX: usize = 1 << 20;
const PASSWORD: &str = "open sesame";
/// What a role needs, and no more.
const READER: &str = "CREATE ROLE reader LOGIN PASSWORD 'open sesame'; GRANT USAGE ON SCHEMA core TO reader; \
    GRANT SELECT ON core.tb_entity_change_log TO reader";
const INSERT: &str = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_data) \
    SELECT 'Order', 'INSERT', jsonb_build_object('n', n) FROM generate_series(1, $1::int) AS n RETURNING pk_entity_change_log";

/// A server with an outbox that the role `reader` may read.
pub(crate) async fn outbox(arguments: &[&str]) -> anyhow::Result<PostgresServer> {
    let server = PostgresServer::start_with(arguments).await?;
    server.create_outbox().await?;
    server.client().await?.batch_execute(READER).await?;
    Ok(server)
}

fn outbox_source(server: &PostgresServer, start: Start) -> Box<dyn Source> {
    outbox_source_of(server, start, "tb_entity_change_log")
}

fn outbox_source_of(server: &PostgresServer, start: Start, table: &str) -> Box<dyn Source> {
    outbox_source_at(&server.url_as("reader").parse().unwrap(), start, table)
}

/// The same by another way to the server.
pub(crate) fn outbox_source_at(url: &url::Url, start: Start, table: &str) -> Box<dyn Source> {
    let url = url.clone();
    let connection = PostgresConnection { url, password: Some(Secret::new(PASSWORD)), tls: TlsSettings::default() };
    let table = TableName { schema: Some("core".to_owned()), table: table.to_owned() };
    let kind = SourceKind::PostgresOutbox { connection, table, channel: "fraiseql_events".to_owned(), start };
    let settings = SourceSettings { name: "bus".into(), kind, fields: Fields::default(), raw_subjects: false };
    let limits = LimitsSettings { event_bytes_max: EVENT_BYTES_MAX, drain_deadline: Duration::from_secs(10) };
    source::build(&settings, &limits).unwrap()
}

/// A source that reads everything, connected.
async fn reading(server: &PostgresServer, inbox: &Arc<FakeInbox>) -> Running {
    let source = Running::start(outbox_source(server, Start::All), inbox);
    source.connected().await;
    source
}

/// Inserts rows in one statement, and so in the transaction that is open, if one is. Their keys.
pub(crate) async fn insert(client: &Client, rows: i32) -> anyhow::Result<Vec<i64>> {
    let inserted = client.query(INSERT, &[&rows]).await.context("inserting rows")?;
    Ok(inserted.iter().map(|row| row.get(0)).collect())
}

/// The keys of all rows that were accepted, in order, as often as they were.
fn keys(seen: &Seen) -> Vec<i64> {
    let key = |position: &str| position.rsplit_once(':').and_then(|(_, key)| key.parse().ok()).unwrap();
    seen.accepted.iter().map(|message| key(message.position.as_deref().unwrap())).collect()
}

fn sorted(mut keys: Vec<i64>) -> Vec<i64> {
    keys.sort_unstable();
    keys
}

/// Waits until `expected` are accepted, each once, and nothing else.
async fn accepted(inbox: &FakeInbox, expected: &[i64]) -> Seen {
    let seen = inbox.until("every row", |seen| seen.accepted.len() >= expected.len()).await;
    assert_eq!(sorted(keys(&seen)), sorted(expected.to_vec()));
    seen
}

/// Inserts row after row, each once the one before has been accepted: the source reads between them, so that it has
/// looked several times at who is about to commit when this returns.
async fn trickle(client: &Client, inbox: &FakeInbox) -> anyhow::Result<Vec<i64>> {
    const ROWS: usize = 100;
    let mut trickled = Vec::with_capacity(ROWS);
    for _ in 0..ROWS {
        let key = insert(client, 1).await?[0];
        inbox.until("a row", |seen| keys(seen).last() == Some(&key)).await;
        trickled.push(key);
    }
    Ok(trickled)
}

#[tokio::test]
async fn rows_arrive_in_the_decoders_format() -> anyhow::Result<()> {
    let server = outbox(&[]).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let client = server.client().await?;
    let inserted = insert(&client, 600).await?;
    let source = reading(&server, &inbox).await;
    let seen = accepted(&inbox, &inserted).await;
    assert_eq!(keys(&seen), inserted, "in the order of keys");
    let first = &seen.accepted[0];
    assert_eq!(first.position.as_deref(), Some("core.tb_entity_change_log:0:1"));
    assert_eq!(&*first.subject, "core.tb_entity_change_log");
    let event = wirehook::event::decode::decode(&"bus".into(), first, Fields::none(), || unreachable!())?;
    assert_eq!((event.key.as_str(), &event.subject[..]), ("bus/seq/Order:1", "fraiseql.order.created"));
    assert_eq!(event.entity.as_deref(), Some(&br#"{"n": 1}"#[..]));
    source.drained().await?;
    Ok(())
}
