//! Connections that write orders into the outbox: late, not at all, or at a rate.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, Statement};

use crate::events::{self, PublishedEvent};
use crate::postgres_server::PostgresServer;

/// Commits a second of each writer that is measured.
pub const RATE: u64 = 25;

/// One transaction in so many rolls back.
const ROLLBACK_ONE_IN: usize = 8;
const ROWS_OF_TRANSACTION_MAX: usize = 8;
/// The longest wait of a transaction between its rows and its commit.
const COMMIT_DELAY_US_MAX: u64 = 20_000;
/// Entities of one writer.
const NUMBERS: usize = 10_000_000;

const INSERT: &str = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data) \
    VALUES ('Order', 'INSERT', $1::text::uuid, \
        jsonb_build_object('id', $1::text, 'customer_email', 'ada@example.com', 'total', 129.5))";

/// Rows of one statement of [`write_all`].
const ROWS_OF_STATEMENT: usize = 500;

const INSERT_MANY: &str = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data) \
    SELECT 'Order', 'INSERT', id::uuid, entity::jsonb FROM unnest($1::text[], $2::text[]) AS row (id, entity)";

/// The part of an event that is a row's own.
#[derive(Deserialize)]
struct Entity<'a> {
    #[serde(borrow)]
    entity: &'a RawValue,
}

/// Writes orders as rows of the outbox, in order; returns once the last is committed.
pub async fn write_all(server: &PostgresServer, orders: &[PublishedEvent]) -> Result<()> {
    let client = server.client().await?;
    let insert = client.prepare(INSERT_MANY).await?;
    for orders in orders.chunks(ROWS_OF_STATEMENT) {
        let ids: Vec<&str> = orders.iter().map(|order| order.entity_id.as_str()).collect();
        let entity = |order: &'_ PublishedEvent| {
            Ok::<_, serde_json::Error>(serde_json::from_slice::<Entity<'_>>(&order.body)?.entity.get().to_owned())
        };
        let entities = orders.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
        client.execute(&insert, &[&ids, &entities]).await?;
    }
    Ok(())
}

/// One connection that writes orders of its own.
#[derive(Debug)]
pub struct OutboxWriter {
    client: Client,
    insert: Statement,
    next: usize,
}

impl OutboxWriter {
    /// Connects; `index` is unique among the writers of a table.
    pub async fn new(server: &PostgresServer, index: usize) -> Result<Self> {
        let client = server.client().await?;
        let insert = client.prepare(INSERT).await?;
        Ok(Self { client, insert, next: index * NUMBERS })
    }

    /// Writes `rows` rows in transactions of a few that last a while, some of which roll back; the orders that were committed.
    pub async fn write_late(mut self, rows: usize, mut rng: fastrand::Rng) -> Result<Vec<String>> {
        let mut committed = Vec::with_capacity(rows);
        while committed.len() < rows {
            self.client.batch_execute("BEGIN").await?;
            let mut orders = Vec::new();
            for _ in 0..rng.usize(1..=ROWS_OF_TRANSACTION_MAX).min(rows - committed.len()) {
                orders.push(self.insert().await?);
            }
            tokio::time::sleep(Duration::from_micros(rng.u64(0..COMMIT_DELAY_US_MAX))).await;
            if rng.usize(0..ROLLBACK_ONE_IN) == 0 {
                self.client.batch_execute("ROLLBACK").await?;
            } else {
                self.client.batch_execute("COMMIT").await?;
                committed.extend(orders);
            }
        }
        Ok(committed)
    }

    async fn insert(&mut self) -> Result<String> {
        let order = events::entity_id(self.next);
        self.next += 1;
        self.client.execute(&self.insert, &[&order]).await?;
        Ok(order)
    }

    /// Commits row after row at [`RATE`]; how long each took.
    async fn measure(mut self, duration: Duration) -> Result<(Self, Vec<Duration>)> {
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (begun, mut latencies) = (Instant::now(), Vec::new());
        while begun.elapsed() < duration {
            ticks.tick().await;
            let sent = Instant::now();
            self.insert().await?;
            latencies.push(sent.elapsed());
        }
        Ok((self, latencies))
    }
}

/// All `writers` at once commit row after row, each at [`RATE`], for `duration`; how long every commit took.
pub async fn measure(writers: &mut Vec<OutboxWriter>, duration: Duration) -> Result<Vec<Duration>> {
    let mut round: JoinSet<_> = writers.drain(..).map(|writer| writer.measure(duration)).collect();
    let mut all = Vec::new();
    while let Some(measured) = round.join_next().await {
        let (writer, latencies) = measured??;
        writers.push(writer);
        all.extend(latencies);
    }
    Ok(all)
}

/// Of some latencies, at least one.
pub fn median(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() / 2]
}
