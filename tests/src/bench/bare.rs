//! The yardstick: what the page's subscriber does, in Rust, without a store, a sandbox or a retry.
//!
//! It parses the event, builds the page's webhook, signs it and posts it over kept connections, with
//! [`super::IN_FLIGHT`] under way at once on every core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use async_nats::jetstream;
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::IN_FLIGHT;
use super::child::{self, READY};
use crate::fake_endpoint::SECRET;
use crate::{artifacts, http_client, signature};

const SUBJECT: &str = "fraiseql.order.created";
const SECRET_VARIABLE: &str = "BARE_SUBSCRIBER_SECRET";

/// Starts the subscriber as a process of its own and waits until it has subscribed: to `stream` with acks, or without
/// one to core NATS.
pub async fn start(nats: &str, receiver: &str, stream: Option<&str>) -> Result<Child> {
    let mut command = Command::new(artifacts::own_binary("bare-subscriber")?);
    command.arg(nats).arg(receiver).args(stream).env(SECRET_VARIABLE, SECRET);
    child::start(command).await
}

/// The subscriber itself: `bare-subscriber NATS RECEIVER [STREAM]`. Runs until it is killed; fails on any refusal.
pub async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let nats = arguments.next().context("the server's URL is missing")?;
    let receiver = arguments.next().context("the receiver's URL is missing")?;
    let sender = Arc::new(Sender {
        client: http_client::new()?,
        receiver,
        secret: std::env::var(SECRET_VARIABLE).context(SECRET_VARIABLE)?,
        room: Arc::new(Semaphore::new(IN_FLIGHT)),
    });
    let client = async_nats::connect(nats).await?;
    match arguments.next() {
        None => core(&client, sender).await,
        Some(stream) => with_acks(client, &stream, sender).await,
    }
}

struct Sender {
    client: reqwest::Client,
    receiver: String,
    secret: String,
    room: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Event<'a> {
    entity_id: &'a str,
    entity: Order<'a>,
}

#[derive(Deserialize)]
struct Order<'a> {
    customer_email: Option<&'a str>,
    total: Option<f64>,
}

#[derive(Serialize)]
struct OrderCreated<'a> {
    event: &'static str,
    order_id: &'a str,
    customer_email: Option<&'a str>,
    total: Option<f64>,
}

async fn core(client: &async_nats::Client, sender: Arc<Sender>) -> Result<()> {
    let mut messages = client.subscribe(SUBJECT).await?;
    heard(client).await?;
    println!("{READY}");
    let number = AtomicU64::new(0);
    while let Some(message) = messages.next().await {
        let permit = sender.room.clone().acquire_owned().await?;
        let (sender, number) = (sender.clone(), number.fetch_add(1, Ordering::Relaxed));
        tokio::spawn(async move {
            exit_on_failure(sender.send(number, &message.payload).await);
            drop(permit);
        });
    }
    Ok(())
}

/// Returns once the server has done all that `client` asked for so far: a message to oneself comes after it. A flush
/// only says that the socket took it, and whoever publishes on another connection might be first.
async fn heard(client: &async_nats::Client) -> Result<()> {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    echo.next().await.context("the connection was closed")?;
    Ok(())
}

async fn with_acks(client: async_nats::Client, stream: &str, sender: Arc<Sender>) -> Result<()> {
    let stream = jetstream::new(client).get_stream(stream).await?;
    let config = jetstream::consumer::pull::Config { durable_name: Some("bare".to_owned()), ..Default::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    println!("{READY}");
    while let Some(message) = messages.next().await {
        let message = message?;
        let permit = sender.room.clone().acquire_owned().await?;
        let sender = sender.clone();
        tokio::spawn(async move {
            exit_on_failure(sender.send_and_ack(&message).await);
            drop(permit);
        });
    }
    Ok(())
}

impl Sender {
    async fn send_and_ack(&self, message: &jetstream::Message) -> Result<()> {
        let number = message.info().map_err(|error| anyhow::anyhow!("{error}"))?.stream_sequence;
        self.send(number, &message.payload).await?;
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))
    }

    async fn send(&self, number: u64, event: &[u8]) -> Result<()> {
        let event: Event<'_> = serde_json::from_slice(event)?;
        let body = serde_json::to_vec(&OrderCreated {
            event: "order.created",
            order_id: event.entity_id,
            customer_email: event.entity.customer_email,
            total: event.entity.total,
        })?;
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().to_string();
        let request = self
            .client
            .post(&self.receiver)
            .header("content-type", "application/json")
            .header("webhook-id", format!("msg_{number:032x}"))
            .header("x-signature", signature::sign(&self.secret, &timestamp, &body))
            .header("x-timestamp", timestamp);
        request.body(body).send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }
}

/// A yardstick that loses events measures nothing.
fn exit_on_failure(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("bare-subscriber: {error:#}");
        std::process::exit(1);
    }
}
