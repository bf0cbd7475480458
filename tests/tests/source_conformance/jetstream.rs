//! JetStream, as a `[cdc_outbound]` server publishes: `ChangeEvent` with `Nats-Msg-Id`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use tempfile::TempDir;
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::source_conformance;

use crate::nats::roomy_server;

const STREAM: &str = "fraiseql-cdc";
const SUBJECTS: &str = "fraiseql.>";
const SUBJECT: &str = "fraiseql.acme.tb_order";
const DURABLE: &str = "wirehook-bus";

/// How long what a killed host had been given waits for its ack. The source's own is longer than a test may take.
const ACK_WAIT: Duration = Duration::from_secs(2);

source_conformance!(Jetstream);

struct Jetstream {
    server: NatsServer,
    _config: Option<TempDir>,
}

impl Jetstream {
    async fn context(&self) -> Result<Context> {
        Ok(jetstream::new(self.server.client().await?))
    }
}

impl Bus for Jetstream {
    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;
    type Publisher = StreamPublisher;

    async fn start() -> Result<Self> {
        let (server, config) = roomy_server().await?;
        let stream = server.create_stream(STREAM, &[SUBJECTS]).await?;
        let consumer = pull::Config {
            durable_name: Some(DURABLE.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            ..Default::default()
        };
        stream.create_consumer(consumer).await.context("the consumer")?;
        Ok(Self { server, _config: Some(config) })
    }

    async fn stopped() -> Result<Self> {
        Ok(Self { server: NatsServer::stopped()?, _config: None })
    }

    fn source_toml(&self, name: &str) -> String {
        let url = self.server.url();
        format!(
            "[[source]]\nname = {name:?}\nkind = \"jetstream\"\nurl = {url:?}\nstream = {STREAM:?}\nstart = \"all\"\n"
        )
    }

    fn publisher(&self) -> StreamPublisher {
        StreamPublisher { url: self.server.url(), context: None }
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.restart().await?;
        if self.context().await?.get_stream(STREAM).await.is_err() {
            self.server.create_stream(STREAM, &[SUBJECTS]).await?;
        }
        Ok(())
    }

    async fn unaccepted(&self) -> Result<Option<u64>> {
        let stream = self.context().await?.get_stream(STREAM).await?;
        let info = stream.consumer_info(DURABLE).await?;
        Ok(Some(info.num_pending + info.num_ack_pending as u64))
    }
}

struct StreamPublisher {
    url: String,
    context: Option<Context>,
}

impl Clone for StreamPublisher {
    fn clone(&self) -> Self {
        Self { url: self.url.clone(), context: None }
    }
}

impl StreamPublisher {
    /// Returns once the stream has them; it keeps one id once.
    async fn send(&mut self, messages: Vec<(Option<String>, Bytes)>) -> Result<()> {
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(jetstream::new(async_nats::connect(&self.url).await?)),
        };
        let mut acks = Vec::new();
        for (id, body) in messages {
            let mut headers = HeaderMap::new();
            if let Some(id) = id {
                headers.insert("Nats-Msg-Id", id);
            }
            acks.push(context.publish_with_headers(SUBJECT, headers, body).await?);
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }
}

impl Publisher for StreamPublisher {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        let message = |order: &Order| (Some(format!("Order:{}", order.number + 1)), order.change_event());
        self.send(orders.iter().map(message).collect()).await
    }

    async fn publish_garbage(&mut self) -> Result<()> {
        self.send(vec![(None, Bytes::from_static(b"\xff is no JSON"))]).await
    }
}
