//! To NATS: core subjects, and streams with their acks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::context::{PublishError as JetstreamError, PublishErrorKind};
use async_nats::jetstream::{self, message::PublishMessage};
use async_nats::{Client, Event};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::sync::watch;

use super::compose::uuid;
use super::{Publish, PublishError, Routed, Taken};
use crate::clock::Clock;
use crate::settings::NatsConnection;
use crate::source::nats::connect::{self, ConnectError};
use crate::sync::lock;

/// How long an echo may take.
const ECHO_DEADLINE: Duration = Duration::from_secs(2);
/// Messages of an echo: one more than a subscription holds.
const ECHOES: usize = 2;
/// How the subjects of inboxes begin.
const INBOXES: &str = "_INBOX.";

/// Core NATS: the server has an event once the echo after it is here.
pub(super) struct NatsPublisher {
    bus: Bus,
}

/// JetStream: the stream has an event once it has acknowledged it.
pub(super) struct JetstreamPublisher {
    bus: Bus,
    context: jetstream::Context,
    streams: Vec<String>,
    rng: fastrand::Rng,
}

/// A server, and what it said of what it was told: that is all the answer it gives to a publication.
struct Bus {
    name: String,
    client: Client,
    said: Arc<Said>,
}

/// What the client's task has told, in the order in which the server said it.
#[derive(Default)]
struct Said {
    /// The last word against a publication.
    refusal: Mutex<Option<String>>,
    /// Where the echo comes that is waited for.
    inbox: Mutex<String>,
    /// The last inbox whose echo was here.
    echoed: watch::Sender<String>,
}

impl Said {
    fn note(&self, event: &Event) {
        let inbox = lock(&self.inbox).clone();
        match event {
            Event::SlowConsumer(_) => drop(self.echoed.send_replace(inbox)),
            Event::ServerError(error) => {
                let words = error.to_string();
                if !words.contains(INBOXES) {
                    *lock(&self.refusal) = Some(words);
                } else if words.contains(&inbox) {
                    // No echo will come, but this came in its place.
                    self.echoed.send_replace(inbox);
                }
            }
            _ => {}
        }
    }
}

impl NatsPublisher {
    pub(super) async fn connect(name: String, connection: &NatsConnection) -> Result<Self, PublishError> {
        Ok(Self { bus: Bus::connect(name, connection).await? })
    }
}

impl Publish for NatsPublisher {
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>> {
        Box::pin(async move {
            for routed in batch {
                let Routed { event, destination } = routed;
                let published = self.bus.client.publish(destination.to_string(), event.payload.clone()).await;
                published.map_err(|error| self.bus.refused(routed, &error, ""))?;
            }
            if let Some(last) = batch.last() {
                self.bus.client.flush().await.map_err(|error| self.bus.refused(last, &error, ""))?;
                self.bus.echo().await;
            }
            match self.bus.take_refusal() {
                // Its words name the subject.
                Some(said) => {
                    let meant = batch.iter().find(|routed| said.contains(&*routed.destination));
                    Err(self.bus.refused(meant.unwrap_or(&batch[0]), &said, PERMISSION))
                }
                None => Ok(Taken::default()),
            }
        })
    }
}

const PERMISSION: &str = "let the source's user publish there, or publish as another user";

impl JetstreamPublisher {
    pub(super) async fn connect(
        name: String,
        connection: &NatsConnection,
        streams: Vec<String>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, PublishError> {
        let bus = Bus::connect(name, connection).await?;
        let context = jetstream::new(bus.client.clone());
        // By its id the stream would tell a publication that it has already: no two are to be taken for one.
        let seed = clock.now().0.unsigned_abs() ^ (u64::from(std::process::id()) << 32);
        Ok(Self { bus, context, streams, rng: fastrand::Rng::with_seed(seed) })
    }

    fn not_taken(&self, routed: &Routed, error: &JetstreamError) -> PublishError {
        if let Some(said) = self.bus.take_refusal() {
            return self.bus.refused(routed, &said, PERMISSION);
        }
        let streams = self.streams.join("`, `");
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                let error = format!("no stream keeps the subject `{}`", routed.destination);
                let help = format!("add the subject to the stream `{streams}`, or name another with --subject");
                self.bus.refused(routed, &error, &help)
            }
            _ => self.bus.refused(routed, error, ""),
        }
    }
}

impl Publish for JetstreamPublisher {
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>> {
        Box::pin(async move {
            let mut acks = Vec::with_capacity(batch.len());
            for routed in batch {
                let id = uuid(&mut self.rng);
                let message = PublishMessage::build().message_id(id).payload(routed.event.payload.clone());
                let sent = self.context.send_publish(routed.destination.to_string(), message).await;
                acks.push(sent.map_err(|error| self.not_taken(routed, &error))?.into_future());
            }
            let mut taken = Taken::default();
            for (routed, ack) in batch.iter().zip(join_all(acks).await) {
                let ack = ack.map_err(|error| self.not_taken(routed, &error))?;
                taken.duplicates += u64::from(ack.duplicate);
                if !self.streams.contains(&ack.stream) {
                    let error = format!("the stream `{}` keeps `{}`", ack.stream, routed.destination);
                    let help = format!("the source reads `{}`: it will not get the event", self.streams.join("`, `"));
                    return Err(self.bus.refused(routed, &error, &help));
                }
            }
            Ok(taken)
        })
    }
}

impl Bus {
    async fn connect(name: String, connection: &NatsConnection) -> Result<Self, PublishError> {
        let said = Arc::<Said>::default();
        let heard = Arc::clone(&said);
        let connecting = async {
            let options = connect::options(connection).await?.name("wirehook-publish");
            let options = options.subscription_capacity(ECHOES - 1).event_callback(move |event| {
                heard.note(&event);
                std::future::ready(())
            });
            connect::connect(connection, options).await
        };
        match connecting.await {
            Ok(client) => Ok(Self { name, client, said }),
            Err(error) => Err(unreachable(name, error)),
        }
    }

    /// Waits for an echo: then the server has done all it was told before, and what it has against it is noted.
    ///
    /// Its words come by another task than messages do. So the echo is one that nobody takes, of which the client tells
    /// as it does of the server's words, and after them.
    async fn echo(&self) {
        let echo = async {
            let inbox = self.client.new_inbox();
            lock(&self.said.inbox).clone_from(&inbox);
            let mut echoed = self.said.echoed.subscribe();
            let _untaken = self.client.subscribe(inbox.clone()).await.ok()?;
            for _ in 0..ECHOES {
                self.client.publish(inbox.clone(), Bytes::new()).await.ok()?;
            }
            echoed.wait_for(|echoed| *echoed == inbox).await.ok().map(drop)
        };
        if !matches!(tokio::time::timeout(ECHO_DEADLINE, echo).await, Ok(Some(()))) {
            tracing::debug!("the server sent no echo");
        }
    }

    fn take_refusal(&self) -> Option<String> {
        lock(&self.said.refusal).take()
    }

    fn refused(&self, routed: &Routed, error: &dyn std::fmt::Display, help: &str) -> PublishError {
        PublishError::Refused {
            bus: self.name.clone(),
            line: routed.event.line,
            error: error.to_string(),
            help: help.to_owned(),
        }
    }
}

fn unreachable(bus: String, error: ConnectError) -> PublishError {
    let (error, help) = match error {
        // The bus is named before.
        ConnectError::Refused { words, advice, .. } => (words, advice.trim_start_matches("; ").to_owned()),
        error => (error.to_string(), String::new()),
    };
    PublishError::Unreachable { bus, error, help }
}
