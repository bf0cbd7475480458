//! Publishing events as a FraiseQL server does.

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, Context};
use futures::{StreamExt, TryStreamExt, stream};

use crate::events::{self, PublishedEvent};
use crate::nats_server::NatsServer;

/// The subjects of every event.
pub const SUBJECTS: &str = "fraiseql.>";

/// Publications whose ack is waited for at once.
const IN_FLIGHT: usize = 128;

/// Publishes to a stream and waits for its acks.
#[derive(Clone, Debug)]
pub struct StreamPublisher {
    context: Context,
}

impl StreamPublisher {
    /// Creates `stream` for every event, on a connection of its own.
    pub async fn create(server: &NatsServer, stream: &str) -> Result<Self> {
        server.create_stream(stream, &[SUBJECTS]).await?;
        Ok(Self { context: jetstream::new(server.client().await?) })
    }

    /// Publishes one event; returns once the stream has it.
    pub async fn publish(&self, event: PublishedEvent) -> Result<()> {
        let subject = event.subject;
        let ack = self.context.publish(subject.clone(), event.body).await?;
        ack.await.with_context(|| format!("publishing to {subject}"))?;
        Ok(())
    }

    /// Publishes the orders with these numbers; returns once the stream has them all.
    pub async fn publish_orders(&self, numbers: impl IntoIterator<Item = usize>) -> Result<()> {
        let publications = stream::iter(numbers).map(|number| self.publish(events::order_created(number)));
        publications.buffer_unordered(IN_FLIGHT).try_collect().await
    }

    /// Messages that a durable consumer of `stream` has not acked yet.
    pub async fn unacked(&self, stream: &str, durable: &str) -> Result<u64> {
        let stream = self.context.get_stream(stream).await?;
        let mut consumer = stream.get_consumer::<jetstream::consumer::pull::Config>(durable).await.map_err(|error| {
            anyhow::anyhow!("the consumer {durable}: {error}")
        })?;
        let info = consumer.info().await?;
        Ok(info.num_pending + info.num_ack_pending as u64)
    }
}
