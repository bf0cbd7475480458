//! JetStream: a durable pull consumer. A message is acknowledged after the commit that keeps it, never before.

mod attach;
mod delivered;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{ReadyChunks, StreamExt};
use tokio::time::Sleep;

pub use self::attach::{ACK_PENDING_MAX, ACK_WAIT};
use self::attach::{Attached, Resume};
use self::delivered::Delivered;
use super::batches::{Batches, Ended};
use super::nats::link::Link;
use super::{Accept, AcceptError, BATCH_MESSAGES_MAX, Backoff, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::settings::{NatsConnection, Start};

/// How long the last acks may take to reach the server; what does not is delivered again, and is a duplicate.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// A durable pull consumer, shared with other hosts of the same name.
#[derive(Debug)]
pub struct JetstreamSource {
    pub(super) name: Arc<str>,
    pub(super) connection: NatsConnection,
    pub(super) stream: String,
    pub(super) durable: String,
    pub(super) subjects: Vec<String>,
    pub(super) start: Start,
}

type Messages = ReadyChunks<pull::Stream>;

/// Why the pulling ended.
enum SessionEnd {
    Drained,
    InboxClosed,
    /// The connection came back: everything is looked up anew.
    Reconnected,
    /// The client has given up.
    LinkClosed(String),
    Failed(String),
}

impl Source for JetstreamSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        let puller = Puller {
            source: *self,
            inbox,
            state,
            drain,
            batches: Batches::default(),
            backoff: Backoff::new(),
            accept_backoff: Backoff::new(),
            resume: Resume::default(),
        };
        Box::pin(puller.run())
    }
}

/// A running source.
struct Puller {
    source: JetstreamSource,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
    batches: Batches,
    backoff: Backoff,
    /// Between refusals of the inbox, during which nothing is fetched.
    accept_backoff: Backoff,
    resume: Resume,
}

impl Puller {
    async fn run(mut self) -> Result<(), SourceError> {
        let mut closed = false;
        while !self.drain.is_draining() && !closed {
            let connected = tokio::select! {
                () = self.drain.begun() => break,
                connected = Link::connect(&self.source.name, &self.source.connection) => connected,
            };
            let error = match connected {
                Ok(link) => match self.serve(link).await {
                    SessionEnd::InboxClosed => {
                        closed = true;
                        continue;
                    }
                    SessionEnd::LinkClosed(error) => error,
                    _ => break,
                },
                Err(error) => error,
            };
            self.state.disconnected();
            self.state.failed(&error);
            self.backoff.wait(&self.drain).await;
        }
        self.state.disconnected();
        if let Err(AcceptError::Closed) = self.batches.finish().await {
            closed = true;
        }
        if closed && !self.drain.is_draining() {
            return Err(SourceError::InboxClosed { name: self.source.name });
        }
        Ok(())
    }

    /// Sessions over one client, until it has given up or the source ends.
    async fn serve(&mut self, mut link: Link) -> SessionEnd {
        loop {
            let end = self.session(&mut link).await;
            self.state.disconnected();
            match end {
                SessionEnd::Reconnected => {}
                SessionEnd::Failed(error) => {
                    self.state.failed(&error);
                    if !self.backoff.wait(&self.drain).await {
                        return self.flush(&link, SessionEnd::Drained).await;
                    }
                }
                SessionEnd::Drained | SessionEnd::InboxClosed => return self.flush(&link, end).await,
                SessionEnd::LinkClosed(_) => return end,
            }
        }
    }

    /// Finishes what is in flight while the client is there to carry its acks.
    async fn flush(&mut self, link: &Link, end: SessionEnd) -> SessionEnd {
        let ended = self.batches.finish().await;
        if !matches!(tokio::time::timeout(FLUSH_DEADLINE, link.client.flush()).await, Ok(Ok(()))) {
            tracing::warn!(source = %self.source.name, "the last acks may not have reached the server; it delivers those messages again");
        }
        if matches!(ended, Err(AcceptError::Closed)) { SessionEnd::InboxClosed } else { end }
    }

    async fn session(&mut self, link: &mut Link) -> SessionEnd {
        while !link.is_up() {
            tokio::select! {
                () = self.drain.begun() => return SessionEnd::Drained,
                alive = link.changed(&self.state) => if !alive { return self.link_closed() },
            }
        }
        let attached = tokio::select! {
            () = self.drain.begun() => return SessionEnd::Drained,
            attached = Attached::to(&self.source, &link.client, &self.resume) => attached,
        };
        let attached = match attached {
            Ok(attached) => attached,
            // A client that has given up fails every request: only then does asking it settle the matter.
            Err(error) => match link.changed(&self.state).now_or_never() {
                Some(false) => return self.link_closed(),
                _ => return SessionEnd::Failed(error),
            },
        };
        match attached.messages().await {
            Ok(messages) => {
                self.state.connected();
                self.pull(link, &attached, messages.ready_chunks(BATCH_MESSAGES_MAX)).await
            }
            Err(error) => SessionEnd::Failed(error),
        }
    }

    fn link_closed(&self) -> SessionEnd {
        SessionEnd::LinkClosed(format!("the connection to {} was closed", self.source.connection.url))
    }

    async fn pull(&mut self, link: &mut Link, attached: &Attached, mut messages: Messages) -> SessionEnd {
        let connects = link.connects();
        let mut watch = Box::pin(attached.watch(self.resume.clone()));
        let mut refused: Option<Pin<Box<Sleep>>> = None;
        let end = loop {
            let fetching = self.batches.has_room() && refused.is_none();
            tokio::select! {
                biased;
                () = self.drain.begun() => {
                    hand_back(&mut messages).await;
                    return SessionEnd::Drained;
                }
                ended = self.batches.next() => match self.batch_ended(ended) {
                    Ok(None) => {}
                    Ok(Some(delay)) => refused = Some(Box::pin(tokio::time::sleep(delay))),
                    Err(end) => return end,
                },
                () = over(&mut refused) => refused = None,
                alive = link.changed(&self.state) => match alive {
                    true if link.is_up() && link.connects() == connects => {}
                    true => break SessionEnd::Reconnected,
                    false => break self.link_closed(),
                },
                error = &mut watch => break SessionEnd::Failed(error),
                chunk = messages.next(), if fetching => if let Err(error) = self.begin(attached, chunk).await {
                    break SessionEnd::Failed(error);
                },
            }
        };
        self.take_rest(attached, &mut messages).await;
        end
    }

    /// Notes what became of a batch: how long to fetch nothing after a refusal.
    fn batch_ended(&mut self, ended: Ended) -> Result<Option<Duration>, SessionEnd> {
        match ended {
            Ok(()) => {
                self.accept_backoff.reset();
                self.state.recovered();
                Ok(None)
            }
            Err(AcceptError::Closed) => Err(SessionEnd::InboxClosed),
            Err(error) => {
                self.state.failed(&error);
                Ok(Some(self.accept_backoff.after_failure()))
            }
        }
    }

    /// Begins a batch with the messages before the first error, which it returns.
    async fn begin(
        &mut self,
        attached: &Attached,
        chunk: Option<Vec<Result<jetstream::Message, pull::MessagesError>>>,
    ) -> Result<(), String> {
        let Some(chunk) = chunk else { return Err("the server ended the subscription".to_owned()) };
        let mut error = None;
        let mut delivered = Delivered::with_capacity(chunk.len());
        for message in chunk {
            match message {
                Ok(message) => delivered.push(message, attached),
                Err(found) => error = error.or(Some(attached.describe(&found))),
            }
        }
        if !delivered.is_empty() {
            self.backoff.reset();
            let batch =
                delivered.keep(Arc::clone(&self.source.name), Arc::clone(&self.inbox), self.accept_backoff.clone());
            self.batches.begin(batch.0, batch.1).await;
        }
        error.map_or(Ok(()), Err)
    }

    /// Accepts what has come over a subscription that ends: else it would wait for `ack_wait` to pass.
    async fn take_rest(&mut self, attached: &Attached, messages: &mut Messages) {
        for _ in 0..attach::PULL_MESSAGES_MAX {
            let Some(chunk) = messages.next().now_or_never() else { return };
            while !self.batches.has_room() {
                // A refusal is noted by the batch that comes next; these are delivered again all the same.
                if let Err(error) = self.batches.next().await {
                    self.state.failed(&error);
                }
            }
            if self.begin(attached, chunk).await.is_err() {
                return;
            }
        }
    }
}

/// Resolves when the pause is over; never where there is none.
async fn over(pause: &mut Option<Pin<Box<Sleep>>>) {
    match pause {
        Some(pause) => pause.await,
        None => std::future::pending().await,
    }
}

/// Tells the server to deliver at once, to another host or to this one later, what nobody has begun.
async fn hand_back(messages: &mut Messages) {
    for _ in 0..attach::PULL_MESSAGES_MAX {
        let Some(Some(chunk)) = messages.next().now_or_never() else { return };
        for message in chunk.into_iter().flatten() {
            // An error means that the client is gone: then the server delivers it when `ack_wait` has passed.
            let _ = message.ack_with(jetstream::AckKind::Nak(None)).await;
        }
    }
}
