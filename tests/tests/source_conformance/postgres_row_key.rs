//! FraiseQL's trigger: a row of the outbox, and `NOTIFY` with nothing but its key.

use anyhow::Result;
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::source_conformance;

use crate::postgres::{CHANNEL, connected, source_toml};
use crate::postgres_outbox::{RowPublisher, prepare};

source_conformance!(PostgresRowKey);

struct PostgresRowKey {
    server: PostgresServer,
}

impl Bus for PostgresRowKey {
    const GUARANTEE: Guarantee = Guarantee::AtMostOnce;
    type Publisher = KeyPublisher;

    async fn start() -> Result<Self> {
        let mut bus = Self::stopped().await?;
        bus.restart().await?;
        Ok(bus)
    }

    async fn stopped() -> Result<Self> {
        Ok(Self { server: PostgresServer::stopped()? })
    }

    fn source_toml(&self, name: &str) -> String {
        source_toml(&self.server, name)
    }

    fn publisher(&self) -> KeyPublisher {
        KeyPublisher(RowPublisher::new(&self.server))
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.restart().await?;
        prepare(&self.server).await
    }

    async fn unaccepted(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// Adds rows, of which the trigger notifies; garbage is a notification without a row.
#[derive(Clone)]
struct KeyPublisher(RowPublisher);

impl Publisher for KeyPublisher {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        self.0.publish(orders).await
    }

    async fn publish_garbage(&mut self) -> Result<()> {
        let client = connected(&self.0.url, &mut self.0.client).await?;
        client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &"{ is no key"]).await?;
        Ok(())
    }
}
