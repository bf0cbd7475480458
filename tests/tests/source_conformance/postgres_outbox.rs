//! FraiseQL's outbox: one row an event, written in a transaction.

use anyhow::Result;
use tokio_postgres::Client;
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::postgres_server::{OUTBOX_TABLE, PostgresServer};
use wirehook_tests::source_conformance;

use crate::postgres::connected;

/// What the row's other columns add to its entity at most.
const ROW_BYTES: usize = 4 << 10;

source_conformance!(PostgresOutbox);

struct PostgresOutbox {
    server: PostgresServer,
}

impl Bus for PostgresOutbox {
    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;
    type Publisher = RowPublisher;

    async fn start() -> Result<Self> {
        let mut bus = Self::stopped().await?;
        bus.restart().await?;
        Ok(bus)
    }

    async fn stopped() -> Result<Self> {
        Ok(Self { server: PostgresServer::stopped()? })
    }

    fn source_toml(&self, name: &str) -> String {
        let url = self.server.url();
        format!("[[source]]\nname = {name:?}\nkind = \"postgres-outbox\"\nurl = {url:?}\nstart = \"all\"\n")
    }

    fn publisher(&self) -> RowPublisher {
        RowPublisher::new(&self.server)
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.restart().await?;
        prepare(&self.server).await
    }

    /// Rows stay; how far they were read is kept with the events.
    async fn unaccepted(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// Makes the outbox and its trigger where they are missing.
pub(crate) async fn prepare(server: &PostgresServer) -> Result<()> {
    let client = server.client().await?;
    let missing = client.query_one("SELECT to_regclass($1::text) IS NULL", &[&OUTBOX_TABLE]).await?;
    if missing.get(0) {
        server.create_outbox().await?;
        server.notify_of_rows().await?;
    }
    Ok(())
}

pub(crate) struct RowPublisher {
    pub(crate) url: String,
    pub(crate) client: Option<Client>,
    /// The last `seq` of an order that the outbox has.
    last: Option<i64>,
}

impl RowPublisher {
    pub(crate) fn new(server: &PostgresServer) -> Self {
        Self { url: server.url(), client: None, last: None }
    }

    /// Inserts rows with rising `seq`, without those that the outbox has; returns once they are committed.
    async fn insert(&mut self, rows: &[(i64, Order)]) -> Result<()> {
        let client = connected(&self.url, &mut self.client).await?;
        let last = match self.last {
            Some(last) => last,
            None => {
                let last = "SELECT coalesce(max(seq), 0) FROM core.tb_entity_change_log WHERE object_type = 'Order'";
                client.query_one(last, &[]).await?.get(0)
            }
        };
        let transaction = client.transaction().await?;
        let insert =
            "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data, seq)
            VALUES ('Order', 'INSERT', $1::text::uuid, $2::text::jsonb, $3)";
        let insert = transaction.prepare(insert).await?;
        let mut newest = last;
        for (seq, order) in rows.iter().filter(|(seq, _)| *seq > last) {
            let entity = Order::sized(order.number, order.message_bytes.saturating_sub(row_bytes(order))).entity();
            transaction.execute(&insert, &[&order.entity_id(), &entity.to_string(), seq]).await?;
            newest = *seq;
        }
        transaction.commit().await?;
        self.last = Some(newest);
        Ok(())
    }
}

/// What the rest of the row takes of a message that must not pass its size.
fn row_bytes(order: &Order) -> usize {
    if order.message_bytes > ROW_BYTES { ROW_BYTES } else { 0 }
}

impl Clone for RowPublisher {
    fn clone(&self) -> Self {
        Self { url: self.url.clone(), client: None, last: None }
    }
}

impl Publisher for RowPublisher {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        let mut rows = Vec::with_capacity(orders.len());
        for order in orders {
            rows.push((i64::try_from(order.number)? + 1, *order));
        }
        self.insert(&rows).await
    }

    /// A row whose verb nobody knows: any other column is of a type that the server checks.
    async fn publish_garbage(&mut self) -> Result<()> {
        let client = connected(&self.url, &mut self.client).await?;
        let insert = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_data)
            VALUES ('Nonsense', 'EXPLODED', '{}')";
        client.execute(insert, &[]).await?;
        Ok(())
    }
}
