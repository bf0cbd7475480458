//! Core NATS: at most once. The server keeps nothing, so what can't be accepted in time is counted as lost.

pub(crate) mod link;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures::future::BoxFuture;
use futures::stream::{SelectAll, Stream, StreamExt, select_all};

use self::link::Link;
use super::batches::{Batches, Ended, weight};
use super::{Accept, AcceptError, BATCH_MESSAGES_MAX, Backoff, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::settings::NatsConnection;

/// How often a batch is offered to the inbox before it is lost; with the delays between, some six seconds.
pub const ACCEPT_TRIES_MAX: usize = 7;
/// How long the server may take to hand over the rest once the drain has begun.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// A queue subscription, shared with other hosts of the same group.
#[derive(Debug)]
pub struct NatsSource {
    pub(super) name: Arc<str>,
    pub(super) connection: NatsConnection,
    pub(super) subjects: Vec<String>,
    pub(super) queue_group: String,
}

/// Why a session with one connection ended.
enum SessionEnd {
    Drained,
    InboxClosed,
    Failed(String),
}

impl Source for NatsSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let mut backoff = Backoff::new();
            while !drain.is_draining() {
                match self.session(&inbox, &state, &drain, &mut backoff).await {
                    SessionEnd::Drained => break,
                    SessionEnd::InboxClosed => return Err(SourceError::InboxClosed { name: self.name }),
                    SessionEnd::Failed(error) => {
                        state.disconnected();
                        state.failed(&error);
                        if !backoff.wait(&drain).await {
                            break;
                        }
                    }
                }
            }
            state.disconnected();
            Ok(())
        })
    }
}

impl NatsSource {
    async fn session(
        &self,
        inbox: &Arc<dyn Accept>,
        state: &SourceState,
        drain: &Drain,
        backoff: &mut Backoff,
    ) -> SessionEnd {
        let connected = tokio::select! {
            () = drain.begun() => return SessionEnd::Drained,
            connected = Link::connect(&self.name, &self.connection) => connected,
        };
        let mut link = match connected {
            Ok(link) => link,
            Err(error) => return SessionEnd::Failed(error),
        };
        let mut messages = match self.subscribe(&link).await {
            Ok(messages) => messages.ready_chunks(BATCH_MESSAGES_MAX),
            Err(error) => return SessionEnd::Failed(error),
        };
        backoff.reset();
        state.connected();
        let mut batches = Batches::default();
        let end = loop {
            tokio::select! {
                biased;
                () = drain.begun() => break SessionEnd::Drained,
                ended = batches.next() => if let Err(AcceptError::Closed) = ended {
                    break SessionEnd::InboxClosed;
                },
                alive = link.changed(state) => if !alive {
                    break SessionEnd::Failed(format!("the connection to {} was closed", self.connection.url));
                },
                chunk = messages.next(), if batches.has_room() => match chunk {
                    Some(chunk) => self.begin(chunk, &mut batches, inbox, state).await,
                    None => break SessionEnd::Failed("the server ended the subscription".to_owned()),
                },
            }
        };
        // What was handed over has nowhere else to come from: it is accepted, or counted, whatever ended the session.
        self.finish(&link, messages, &mut batches, inbox, state).await;
        let ended = batches.finish().await;
        state.lost(link.take_dropped(), &"the inbox is slower than the bus");
        match ended {
            Err(AcceptError::Closed) if !drain.is_draining() => SessionEnd::InboxClosed,
            _ => end,
        }
    }

    /// One subscription a subject. The server hands a message to one member of a queue group, whatever subjects its
    /// members have: where subjects overlap, it comes once all the same.
    async fn subscribe(&self, link: &Link) -> Result<SelectAll<Subscriber>, String> {
        let mut subscriptions = Vec::with_capacity(self.subjects.len());
        for subject in &self.subjects {
            let subscription = link.client.queue_subscribe(subject.clone(), self.queue_group.clone()).await;
            subscriptions.push(subscription.map_err(|error| format!("can't subscribe to `{subject}`: {error}"))?);
        }
        link.round_trip().await;
        Ok(select_all(subscriptions))
    }

    async fn begin(
        &self,
        messages: Vec<async_nats::Message>,
        batches: &mut Batches,
        inbox: &Arc<dyn Accept>,
        state: &SourceState,
    ) {
        let messages = messages.into_iter().map(|message| link::message(message, None)).collect();
        let (bytes, batch) = keep(Arc::clone(&self.name), messages, Arc::clone(inbox), state.clone());
        batches.begin(bytes, batch).await;
    }

    /// Unsubscribes and accepts what the server had handed over until then. What it sends in the instant between the echo
    /// and the end of the subscriptions is lost: the bus keeps nothing.
    async fn finish(
        &self,
        link: &Link,
        mut messages: impl Stream<Item = Vec<async_nats::Message>> + Unpin,
        batches: &mut Batches,
        inbox: &Arc<dyn Accept>,
        state: &SourceState,
    ) {
        let rest = async {
            link.round_trip().await;
            // An error means that the connection is gone, and what was handed over is here already.
            let _ = link.client.drain().await;
            while let Some(chunk) = messages.next().await {
                while !batches.has_room() {
                    let _ = batches.next().await;
                }
                self.begin(chunk, batches, inbox, state).await;
            }
        };
        if tokio::time::timeout(DRAIN_DEADLINE, rest).await.is_err() {
            tracing::warn!(source = %self.name, "the server did not end the subscriptions in time");
        }
    }
}

/// Offers a batch until it is accepted or its tries are spent; then it is counted as lost.
fn keep(
    name: Arc<str>,
    messages: Vec<crate::event::Message>,
    inbox: Arc<dyn Accept>,
    state: SourceState,
) -> (usize, impl Future<Output = Ended> + Send + 'static) {
    let batch_bytes = weight(&messages);
    let batch = async move {
        let mut backoff = Backoff::new();
        let mut tries_left = ACCEPT_TRIES_MAX;
        loop {
            let error = match inbox.accept(&name, messages.clone()).await {
                Ok(_) => {
                    state.recovered();
                    return Ok(());
                }
                Err(error) => error,
            };
            tries_left -= 1;
            if tries_left == 0 || matches!(error, AcceptError::Closed) {
                state.lost(messages.len(), &error);
                return Err(error);
            }
            state.failed(&error);
            tokio::time::sleep(backoff.after_failure()).await;
        }
    };
    (batch_bytes, batch)
}
