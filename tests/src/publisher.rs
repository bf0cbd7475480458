//! Publishing events as a FraiseQL server does.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, Context};
use futures::{StreamExt, TryStreamExt, stream};

use crate::events::{self, PublishedEvent};
use crate::nats_server::NatsServer;
use crate::{http_client, port};

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
        self.publish_all(numbers.into_iter().map(events::order_created)).await
    }

    /// Publishes these events, in any order; returns once the stream has them all.
    pub async fn publish_all(&self, events: impl IntoIterator<Item = PublishedEvent>) -> Result<()> {
        let publications = stream::iter(events).map(|event| self.publish(event));
        publications.buffer_unordered(IN_FLIGHT).try_collect().await
    }

    /// Publishes these events in this order; returns once the stream has them all.
    pub async fn publish_in_order(&self, events: impl IntoIterator<Item = PublishedEvent>) -> Result<()> {
        let mut acks: VecDeque<jetstream::context::PublishAckFuture> = VecDeque::with_capacity(IN_FLIGHT);
        for event in events {
            if acks.len() == IN_FLIGHT
                && let Some(ack) = acks.pop_front()
            {
                ack.await.context("publishing to the stream")?;
            }
            acks.push_back(self.context.publish(event.subject, event.body).await?);
        }
        for ack in acks {
            ack.await.context("publishing to the stream")?;
        }
        Ok(())
    }

    /// Messages that a durable consumer of `stream` has not acked yet.
    pub async fn unacked(&self, stream: &str, durable: &str) -> Result<u64> {
        let stream = self.context.get_stream(stream).await?;
        let mut consumer = stream
            .get_consumer::<jetstream::consumer::pull::Config>(durable)
            .await
            .map_err(|error| anyhow::anyhow!("the consumer {durable}: {error}"))?;
        let info = consumer.info().await?;
        Ok(info.num_pending + info.num_ack_pending as u64)
    }
}

/// Posts events to an `http` source.
#[derive(Clone, Debug)]
pub struct HttpPublisher {
    /// The source's port.
    pub port: u16,
    client: reqwest::Client,
}

impl HttpPublisher {
    /// For a source that is to listen on a port of its own.
    pub fn new() -> Result<Self> {
        Ok(Self { port: port::free()?, client: http_client::new()? })
    }

    /// `POST /events`, to be completed and sent.
    pub fn request(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let url = format!("http://127.0.0.1:{}/events", self.port);
        self.client.post(url).header("content-type", "application/json").body(body)
    }

    /// Posts `body` and returns the answer's status and text.
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> Result<(u16, String)> {
        answer(self.request(body)).await
    }

    /// Posts orders as one array, and expects 202.
    pub async fn publish_orders(&self, numbers: impl IntoIterator<Item = usize>) -> Result<()> {
        let (status, text) = self.post(events::array(numbers.into_iter().map(events::order_created))).await?;
        ensure!(status == 202, "the orders were answered {status}: {text}");
        Ok(())
    }
}

/// Sends a request and returns the answer's status and text.
pub async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, String)> {
    let response = request.send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}
