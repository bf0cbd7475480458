//! `NOTIFY` with the page's JSON: the server keeps nothing for those who don't listen.

use anyhow::Result;
use tokio_postgres::{Client, NoTls};
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::source_conformance;

pub(crate) const CHANNEL: &str = "fraiseql_events";

source_conformance!(Postgres);

struct Postgres {
    server: PostgresServer,
}

impl Bus for Postgres {
    const GUARANTEE: Guarantee = Guarantee::AtMostOnce;
    /// A payload is shorter than 8000 bytes.
    const MESSAGE_BYTES_MAX: usize = 7999;
    type Publisher = NotifyPublisher;

    async fn start() -> Result<Self> {
        Ok(Self { server: PostgresServer::start().await? })
    }

    async fn stopped() -> Result<Self> {
        Ok(Self { server: PostgresServer::stopped()? })
    }

    fn source_toml(&self, name: &str) -> String {
        source_toml(&self.server, name)
    }

    fn publisher(&self) -> NotifyPublisher {
        NotifyPublisher { url: self.server.url(), client: None }
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }

    async fn unaccepted(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

pub(crate) fn source_toml(server: &PostgresServer, name: &str) -> String {
    let url = server.url();
    format!("[[source]]\nname = {name:?}\nkind = \"postgres\"\nurl = {url:?}\nchannel = {CHANNEL:?}\n")
}

/// A connection that is made when it is needed.
pub(crate) async fn connected<'a>(url: &str, client: &'a mut Option<Client>) -> Result<&'a mut Client> {
    Ok(match client {
        Some(client) => client,
        none => {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            // The client says what is wrong when it is used next.
            tokio::spawn(async move { drop(connection.await) });
            none.insert(client)
        }
    })
}

struct NotifyPublisher {
    url: String,
    client: Option<Client>,
}

impl Clone for NotifyPublisher {
    fn clone(&self) -> Self {
        Self { url: self.url.clone(), client: None }
    }
}

impl NotifyPublisher {
    /// One transaction: all of them, in order, or none.
    async fn notify(&mut self, payloads: Vec<String>) -> Result<()> {
        let client = connected(&self.url, &mut self.client).await?;
        let notify = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload";
        client.execute(notify, &[&CHANNEL, &payloads]).await?;
        Ok(())
    }
}

impl Publisher for NotifyPublisher {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        let text = |order: &Order| String::from_utf8_lossy(&order.page()).into_owned();
        self.notify(orders.iter().map(text).collect()).await
    }

    async fn publish_garbage(&mut self) -> Result<()> {
        self.notify(vec!["{ is no JSON".to_owned()]).await
    }
}
