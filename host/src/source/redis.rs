//! Redis pub/sub: at most once, and once to every host that subscribes. Redis keeps nothing of it: what is published while
//! this source is not connected is lost, and what can't be accepted in time is counted as lost.
//!
//! While the inbox is slow nothing is read from the connection, so that memory stays bounded: by the batches in flight and
//! one message, which Redis itself bounds (`proto-max-bulk-len`, 512 MB). Redis buffers what waits, up to
//! `client-output-buffer-limit pubsub` (32 MB, or 8 MB for a minute), and then closes the connection.

pub(super) mod connect;
pub(super) mod failure;
mod glob;
pub(crate) mod publishing;
mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};

use self::failure::Failure;
use self::subscriber::{Received, Subscriber, Subscriptions};
use super::batches::{Batches, Ended};
use super::nats::keep;
use super::{
    Accept, AcceptError, BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MAX, Backoff, Source, SourceError,
    SourceState,
};
use crate::drain::Drain;
use crate::event::Message;
use crate::settings::RedisConnection;

/// Bytes after which a batch takes no more messages.
const BATCH_BYTES_MAX: usize = BYTES_IN_FLIGHT_MAX / BATCHES_IN_FLIGHT_MAX;
/// How long the server may take to hand over the rest once the drain has begun.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// What an ACL has to allow.
const RULES: &str = "+subscribe +psubscribe +unsubscribe +punsubscribe +ping &{channel or pattern}";

/// Redis pub/sub: at most once.
#[derive(Debug)]
pub struct RedisSource {
    pub(super) name: Arc<str>,
    pub(super) connection: RedisConnection,
    /// Those with `*`, `?` or `[` in them are patterns. A message is taken once, however many of them match.
    pub(super) channels: Vec<String>,
}

/// Why a session with one connection ended.
enum SessionEnd {
    Drained,
    InboxClosed,
    Failed(Failure),
}

impl Source for RedisSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        let receiver = Receiver {
            subscriptions: Subscriptions::from(&self.channels[..]),
            source: *self,
            batches: Batches::within(inbox.intake()),
            inbox,
            state,
            drain,
            backoff: Backoff::new(),
            subscribed_before: false,
        };
        Box::pin(receiver.run())
    }
}

/// A running source. Its batches outlive a connection: what was handed over has nowhere else to come from.
struct Receiver {
    source: RedisSource,
    subscriptions: Subscriptions,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
    batches: Batches,
    backoff: Backoff,
    subscribed_before: bool,
}

impl Receiver {
    async fn run(mut self) -> Result<(), SourceError> {
        let mut closed = false;
        while !self.drain.is_draining() {
            match self.session().await {
                SessionEnd::Drained => break,
                SessionEnd::InboxClosed => {
                    closed = true;
                    break;
                }
                SessionEnd::Failed(failure) => {
                    self.state.cut_off(&failure.advised(&connect::rules(RULES, &self.source.connection)));
                    self.backoff.wait(&self.drain).await;
                }
            }
        }
        self.state.disconnected();
        closed |= matches!(self.batches.finish().await, Err(AcceptError::Closed));
        if closed && !self.drain.is_draining() {
            return Err(SourceError::InboxClosed { name: self.source.name });
        }
        Ok(())
    }

    async fn session(&mut self) -> SessionEnd {
        let subscriber = async {
            let wire = connect::connect(&self.source.name, &self.source.connection).await?;
            Subscriber::new(wire, self.subscriptions.clone()).await
        };
        let subscriber = tokio::select! {
            () = self.drain.begun() => return SessionEnd::Drained,
            subscriber = subscriber => subscriber,
        };
        let mut subscriber = match subscriber {
            Ok(subscriber) => subscriber,
            Err(failure) => return SessionEnd::Failed(failure),
        };
        loop {
            tokio::select! {
                biased;
                () = self.drain.begun() => {
                    self.take_rest(&mut subscriber).await;
                    return SessionEnd::Drained;
                }
                ended = self.batches.next() => if is_closed(&ended) {
                    return SessionEnd::InboxClosed;
                },
                received = subscriber.next(), if self.batches.has_room() => {
                    if let Err(failure) = self.take(received, &mut subscriber).await {
                        return SessionEnd::Failed(failure);
                    }
                }
            }
        }
    }

    /// Begins a batch of what came and of what else is there; `false` where nothing comes any more.
    async fn take(
        &mut self,
        received: Result<Received, Failure>,
        subscriber: &mut Subscriber,
    ) -> Result<bool, Failure> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let mut next = Some(received);
        let end = loop {
            match next {
                None => break Ok(true),
                Some(Err(failure)) => break Err(failure),
                Some(Ok(Received::Unsubscribed)) => break Ok(false),
                Some(Ok(Received::Subscribed)) => self.subscribed(),
                Some(Ok(Received::Message(message))) => {
                    bytes += message.payload.len();
                    messages.push(message);
                }
            }
            if messages.len() == BATCH_MESSAGES_MAX || bytes >= BATCH_BYTES_MAX {
                break Ok(true);
            }
            next = subscriber.next().now_or_never();
        };
        self.begin(messages).await;
        end
    }

    async fn begin(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let (name, inbox) = (Arc::clone(&self.source.name), Arc::clone(&self.inbox));
        let (bytes, batch) = keep(name, messages, inbox, self.state.clone());
        self.batches.begin(bytes, batch).await;
    }

    fn subscribed(&mut self) {
        self.backoff.reset();
        self.state.connected();
        if std::mem::replace(&mut self.subscribed_before, true) {
            self.state.reconnected();
            tracing::warn!(
                source = %self.source.name,
                "connected again; what was published meanwhile is lost, since Redis keeps nothing of pub/sub: a source \
                 of the kind `redis-stream` loses nothing"
            );
        }
    }

    /// Ends the subscriptions and accepts what the server had handed over until then.
    async fn take_rest(&mut self, subscriber: &mut Subscriber) {
        let rest = async {
            subscriber.unsubscribe().await?;
            loop {
                while !self.batches.has_room() {
                    // What could not be accepted has been counted.
                    let _ = self.batches.next().await;
                }
                let received = subscriber.next().await;
                if !self.take(received, subscriber).await? {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(DRAIN_DEADLINE, rest).await {
            Ok(Ok(())) => {}
            Ok(Err::<(), Failure>(failure)) => {
                tracing::warn!(source = %self.source.name, error = %failure, "the subscriptions did not end well");
            }
            Err(_) => {
                tracing::warn!(source = %self.source.name, "the server did not end the subscriptions in time");
            }
        }
    }
}

fn is_closed(ended: &Ended) -> bool {
    matches!(ended, Err(AcceptError::Closed))
}
