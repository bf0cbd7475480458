//! Core NATS, in the page's format: the server keeps nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tempfile::TempDir;
use tokio::time::timeout;
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::source_conformance;

/// The server's own default is below the host's limit.
const MAX_PAYLOAD: &str = "max_payload: 4194304\n";

const SUBJECT: &str = "fraiseql.order.created";

/// For what the server answers last.
const ECHO_DEADLINE: Duration = Duration::from_secs(5);

source_conformance!(Nats);

struct Nats {
    server: NatsServer,
    _config: Option<TempDir>,
}

/// A server that takes messages over the host's limit, and the folder of its configuration.
pub(crate) async fn roomy_server() -> Result<(NatsServer, TempDir)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, MAX_PAYLOAD)?;
    let file = file.to_str().context("the path of the configuration")?;
    Ok((NatsServer::start_with(&["--config", file]).await?, folder))
}

impl Bus for Nats {
    const GUARANTEE: Guarantee = Guarantee::AtMostOnce;
    type Publisher = NatsPublisher;

    async fn start() -> Result<Self> {
        let (server, config) = roomy_server().await?;
        Ok(Self { server, _config: Some(config) })
    }

    async fn stopped() -> Result<Self> {
        Ok(Self { server: NatsServer::stopped()?, _config: None })
    }

    fn source_toml(&self, name: &str) -> String {
        let url = self.server.url();
        format!("[[source]]\nname = {name:?}\nkind = \"nats\"\nurl = {url:?}\nsubjects = [\"fraiseql.>\"]\n")
    }

    fn publisher(&self) -> NatsPublisher {
        NatsPublisher { url: self.server.url(), connected: None }
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

struct NatsPublisher {
    url: String,
    connected: Option<Connected>,
}

struct Connected {
    client: Client,
    echo: String,
    echoes: Subscriber,
}

impl Clone for NatsPublisher {
    fn clone(&self) -> Self {
        Self { url: self.url.clone(), connected: None }
    }
}

impl NatsPublisher {
    /// Returns once the server has handed them over: it answers in order.
    async fn send(&mut self, bodies: Vec<Bytes>) -> Result<()> {
        let connected = match &mut self.connected {
            Some(connected) => connected,
            none => none.insert(Connected::to(&self.url).await?),
        };
        for body in bodies {
            connected.client.publish(SUBJECT, body).await?;
        }
        connected.client.publish(connected.echo.clone(), Bytes::new()).await?;
        timeout(ECHO_DEADLINE, connected.echoes.next()).await?.context("the echo")?;
        Ok(())
    }
}

impl Connected {
    async fn to(url: &str) -> Result<Self> {
        let client = async_nats::connect(url).await?;
        let echo = client.new_inbox();
        let echoes = client.subscribe(echo.clone()).await?;
        Ok(Self { client, echo, echoes })
    }
}

impl Publisher for NatsPublisher {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        self.send(orders.iter().map(Order::page).collect()).await
    }

    async fn publish_garbage(&mut self) -> Result<()> {
        self.send(vec![Bytes::from_static(b"\xff is no JSON")]).await
    }
}
