//! JetStream: a durable pull consumer. A message is acknowledged after the commit that keeps it, never before.

mod attach;
mod delivered;
mod pull;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::Sleep;

pub use self::attach::{ACK_PENDING_MAX, ACK_WAIT};
use self::attach::{Attached, Resume};
use self::delivered::Delivered;
use self::pull::Pull;
use super::batches::{Batches, Ended};
use super::nats::link::Link;
use super::{Accept, AcceptError, Backoff, Source, SourceError, SourceState};
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
        match attached.pull().await {
            Ok(pull) => {
                self.state.connected();
                self.pull(link, &attached, pull).await
            }
            Err(error) => SessionEnd::Failed(error),
        }
    }

    fn link_closed(&self) -> SessionEnd {
        SessionEnd::LinkClosed(format!("the connection to {} was closed", self.source.connection.url))
    }

    async fn pull(&mut self, link: &mut Link, attached: &Attached, mut pull: Pull) -> SessionEnd {
        let connects = link.connects();
        let mut watch = Box::pin(attached.watch(self.resume.clone()));
        let mut refused: Option<Pin<Box<Sleep>>> = None;
        let end = loop {
            let fetching = self.batches.has_room() && refused.is_none();
            tokio::select! {
                biased;
                () = self.drain.begun() => {
                    hand_back(link, attached, &mut pull).await;
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
                messages = pull.next(), if fetching => match messages {
                    Ok(messages) => self.begin(attached, messages).await,
                    Err(error) => break SessionEnd::Failed(attached.describe(&error)),
                },
            }
        };
        self.take_rest(attached, &mut pull).await;
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

    async fn begin(&mut self, attached: &Attached, messages: Vec<async_nats::Message>) {
        self.backoff.reset();
        let delivered = Delivered::new(messages, attached);
        let (name, inbox) = (Arc::clone(&self.source.name), Arc::clone(&self.inbox));
        let (bytes, batch) = delivered.keep(name, inbox, self.accept_backoff.clone());
        self.batches.begin(bytes, batch).await;
    }

    /// Accepts what has come over a subscription that ends: else it would wait for `ack_wait` to pass.
    async fn take_rest(&mut self, attached: &Attached, pull: &mut Pull) {
        loop {
            let messages = pull.take_ready();
            if messages.is_empty() {
                return;
            }
            while !self.batches.has_room() {
                // What is refused now is delivered again.
                if let Err(error) = self.batches.next().await {
                    self.state.failed(&error);
                }
            }
            self.begin(attached, messages).await;
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

/// Tells the server to deliver at once, to another host or to this one later, what nobody has begun: what has come, and
/// what is on its way.
async fn hand_back(link: &Link, attached: &Attached, pull: &mut Pull) {
    loop {
        let messages = pull.take_ready();
        let quiet = messages.is_empty();
        Delivered::new(messages, attached).hand_back().await;
        if !quiet {
            continue;
        }
        if pull.is_fulfilled() {
            return;
        }
        link.round_trip().await;
        let messages = pull.take_ready();
        let quiet = messages.is_empty();
        Delivered::new(messages, attached).hand_back().await;
        if quiet {
            return;
        }
    }
}
