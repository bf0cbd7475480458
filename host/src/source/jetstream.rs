//! JetStream: durable pull consumers, one a stream. A message is acknowledged after the commit that keeps it, never
//! before.

mod acks;
mod attach;
mod consumer;
mod delivered;
mod filters;
mod pull;
mod reader;
mod resume;
mod stream;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::time::Sleep;
use url::Url;

use self::acks::Acks;
pub use self::consumer::{ACK_PENDING_MAX, ACK_WAIT, HOST_MESSAGES_MAX, HOSTS_MAX, INACTIVE_MAX};
use self::delivered::Delivered;
use self::reader::{News, Reader};
use self::resume::Floors;
use super::batches::{Batches, Ended};
use super::nats::api::Api;
use super::nats::denial::Denial;
use super::nats::link::{self, Link};
use super::{Accept, AcceptError, BATCH_MESSAGES_MAX, Backoff, Source, SourceError, SourceState, pending_or};
use crate::drain::Drain;
use crate::settings::{NatsConnection, Start};

/// Pull consumers of one name, one in each stream, shared with other hosts of the same name.
#[derive(Debug)]
pub struct JetstreamSource {
    pub(super) name: Arc<str>,
    pub(super) connection: NatsConnection,
    pub(super) streams: Vec<String>,
    pub(super) create_stream: bool,
    pub(super) durable: String,
    pub(super) subjects: Vec<String>,
    pub(super) start: Start,
    pub(super) ephemeral: bool,
}

/// Why the pulling ended.
enum SessionEnd {
    Drained,
    InboxClosed,
    /// The connection is gone, for this reason.
    LinkClosed(String),
}

impl Source for JetstreamSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        let puller = Puller {
            source: Arc::new(*self),
            batches: Batches::within(inbox.intake()),
            inbox,
            state,
            drain,
            readers: Vec::new(),
            turn: 0,
            leftover: VecDeque::new(),
            backoff: Backoff::new(),
            refused: None,
            accept_backoff: Backoff::new(),
            kept: Arc::default(),
            acks: Acks::new(),
            told: Vec::new(),
        };
        Box::pin(puller.run())
    }
}

/// A running source.
struct Puller {
    source: Arc<JetstreamSource>,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
    /// One a stream.
    readers: Vec<Reader>,
    /// Which reader comes first.
    turn: usize,
    /// What had come to readers that stopped.
    leftover: VecDeque<Delivered>,
    batches: Batches,
    /// Between tries to connect, or to reach the inbox at the start.
    backoff: Backoff,
    /// Nothing is fetched until this has passed: the inbox has refused a batch.
    refused: Option<Pin<Box<Sleep>>>,
    /// Between refusals; is at its first delay again once a batch is accepted.
    accept_backoff: Backoff,
    /// What the inbox keeps of the readers' floors.
    kept: Arc<Mutex<Floors>>,
    acks: Acks,
    /// Servers that the last one told of.
    told: Vec<Url>,
}

impl Puller {
    async fn run(mut self) -> Result<(), SourceError> {
        let mut closed = !self.begin().await;
        let mut has_connected = false;
        while !self.drain.is_draining() && !closed {
            let connected = tokio::select! {
                () = self.drain.begun() => break,
                connected = Link::connect(&self.source.name, &self.source.connection, &mut self.told) => connected,
            };
            let error = match connected {
                Ok(link) => {
                    self.backoff.reset();
                    if std::mem::replace(&mut has_connected, true) {
                        self.state.reconnected();
                    }
                    match self.serve(link).await {
                        SessionEnd::InboxClosed => {
                            closed = true;
                            continue;
                        }
                        SessionEnd::LinkClosed(error) => error,
                        SessionEnd::Drained => break,
                    }
                }
                Err(error) => error.to_string(),
            };
            self.state.disconnected();
            self.state.failed(&error);
            self.backoff.wait(&self.drain).await;
        }
        self.state.disconnected();
        self.acks.gone();
        if let Err(AcceptError::Closed) = self.batches.finish().await {
            closed = true;
        }
        if closed && !self.drain.is_draining() {
            return Err(SourceError::InboxClosed { name: Arc::clone(&self.source.name) });
        }
        Ok(())
    }

    /// Reads where the consumers were, and makes the readers. `false` where the inbox is closed.
    async fn begin(&mut self) -> bool {
        let cursor = loop {
            match self.inbox.cursor(&self.source.name).await {
                Ok(cursor) => break cursor,
                Err(AcceptError::Closed) => return false,
                Err(error) => {
                    self.state.failed(&error);
                    if !self.backoff.wait(&self.drain).await {
                        return true;
                    }
                }
            }
        };
        let floors = match cursor.map(|cursor| Floors::read(&cursor, &self.source.durable)).transpose() {
            Ok(floors) => floors.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(
                    source = %self.source.name, error,
                    "what was kept of this source's place can't be read; a consumer that is missing begins at `start`"
                );
                Floors::default()
            }
        };
        let streams = self.source.streams.iter();
        let reader = |stream: &String| {
            let floor = floors.get(stream);
            Reader::new(Arc::clone(&self.source), stream.clone(), floor, self.state.clone(), self.acks.clone())
        };
        self.readers = streams.map(reader).collect();
        self.kept = Arc::new(Mutex::new(floors));
        true
    }

    /// One connection, until it or the source ends.
    async fn serve(&mut self, mut link: Link) -> SessionEnd {
        self.acks.open(link.wire.outgoing());
        let end = self.session(&mut link).await;
        self.state.disconnected();
        match end {
            SessionEnd::LinkClosed(_) => {
                self.acks.down();
                self.stop_readers();
                end
            }
            SessionEnd::Drained | SessionEnd::InboxClosed => self.finish(&link, end).await,
        }
    }

    fn stop_readers(&mut self) {
        self.leftover.extend(self.readers.iter_mut().filter_map(Reader::stop));
    }

    /// Finishes what is in flight while the client is there to carry its acks, and hands back the rest.
    async fn finish(&mut self, link: &Link, end: SessionEnd) -> SessionEnd {
        if !link.is_up() {
            return self.finish_alone(end).await;
        }
        reader::hand_back(&mut self.readers, &link.wire).await;
        while let Some(delivered) = self.leftover.pop_front() {
            delivered.hand_back().await;
            if !link.is_up() {
                return self.finish_alone(end).await;
            }
        }
        let ended = self.batches.finish().await;
        let end = if matches!(ended, Err(AcceptError::Closed)) { SessionEnd::InboxClosed } else { end };
        if !link.is_up() {
            return self.finish_alone(end).await;
        }
        if !link.wire.round_trip().await {
            tracing::warn!(source = %self.source.name, "the last acks may not have reached the server; it delivers those messages again");
        }
        if self.source.ephemeral {
            for reader in &mut self.readers {
                if let Err(error) = reader.delete_consumer().await {
                    tracing::warn!(source = %self.source.name, stream = reader.stream(), "{error}");
                }
            }
        }
        end
    }

    /// Finishes what is in flight without a server: it delivers the rest again by itself.
    async fn finish_alone(&mut self, end: SessionEnd) -> SessionEnd {
        self.leftover.clear();
        self.acks.gone();
        let ended = self.batches.finish().await;
        tracing::warn!(
            source = %self.source.name,
            "the server is gone: what was not acknowledged is delivered again, and what was accepted is a duplicate then"
        );
        if matches!(ended, Err(AcceptError::Closed)) { SessionEnd::InboxClosed } else { end }
    }

    /// Reads all streams for as long as the connection is there.
    async fn session(&mut self, link: &mut Link) -> SessionEnd {
        let api = Api::new(&link.wire);
        self.readers.iter_mut().for_each(|reader| reader.attach(&api));
        loop {
            self.begin_leftover().await;
            let fetching = self.is_fetching();
            tokio::select! {
                biased;
                () = self.drain.begun() => return SessionEnd::Drained,
                ended = self.batches.next() => if self.batch_ended(ended) { return SessionEnd::InboxClosed },
                () = pending_or(&mut self.refused) => self.refused = None,
                news = link.changed(&self.state) => match news {
                    link::News::Alive => {}
                    link::News::Denied(denial) => self.denied(&denial),
                    link::News::Closed(why) => return SessionEnd::LinkClosed(why),
                },
                (_, news) = reader::next(&mut self.readers, &mut self.turn, fetching) => self.heard(news).await,
            }
        }
    }

    fn is_fetching(&self) -> bool {
        self.batches.has_room() && self.refused.is_none()
    }

    async fn heard(&mut self, news: News) {
        match news {
            News::Delivered(delivered) => {
                if !self.state.is_ready() {
                    self.report();
                }
                self.begin_batch(delivered).await;
            }
            News::Attached => {
                self.report();
                self.keep_floors().await;
            }
            News::FloorNoted => self.keep_floors().await,
            News::Failed(rest) => {
                self.leftover.extend(rest);
                self.report();
            }
        }
    }

    /// Tells whether all streams are read, and why not.
    fn report(&self) {
        let errors: Vec<_> = self.readers.iter().filter_map(Reader::error).collect();
        if !errors.is_empty() {
            self.state.disconnected();
            self.state.failed(&errors.join("; "));
        } else if self.readers.iter().all(Reader::is_up) {
            self.state.connected();
        }
    }

    fn denied(&mut self, denial: &Denial) {
        for news in self.readers.iter_mut().filter_map(|reader| reader.denied(denial)) {
            if let News::Failed(rest) = news {
                self.leftover.extend(rest);
            }
        }
        self.report();
    }

    /// Notes what became of a batch: after a refusal, nothing is fetched for a while. `true` where the inbox is closed.
    fn batch_ended(&mut self, ended: Ended) -> bool {
        match ended {
            Ok(()) => {
                self.accept_backoff.reset();
                // What a stream lacks does not come with a batch of another.
                match self.readers.iter().all(|reader| reader.error().is_none()) {
                    true => self.state.recovered(),
                    false => self.report(),
                }
            }
            Err(AcceptError::Closed) => return true,
            Err(error) => {
                self.state.failed(&error);
                self.refused = Some(Box::pin(tokio::time::sleep(self.accept_backoff.after_failure())));
            }
        }
        false
    }

    async fn begin_batch(&mut self, delivered: Delivered) {
        let (name, inbox) = (Arc::clone(&self.source.name), Arc::clone(&self.inbox));
        let (bytes, batch) = delivered.keep(name, inbox, self.accept_backoff.clone());
        self.batches.begin(bytes, batch).await;
    }

    async fn begin_leftover(&mut self) {
        while self.is_fetching()
            && let Some(mut delivered) = self.leftover.pop_front()
        {
            let first = delivered.take_first(BATCH_MESSAGES_MAX);
            if !delivered.is_empty() {
                self.leftover.push_front(delivered);
            }
            self.begin_batch(first).await;
        }
    }

    /// Has the inbox keep the readers' floors where they have risen: a commit of a few bytes now and then.
    async fn keep_floors(&mut self) {
        if self.source.ephemeral || !self.is_fetching() {
            return;
        }
        let floors = self.readers.iter().filter_map(|reader| Some((reader.stream(), reader.floor()?)));
        let floors = Floors::new(&self.source.durable, floors);
        if *self.kept.lock().unwrap_or_else(PoisonError::into_inner) == floors {
            return;
        }
        let (name, inbox, kept) = (Arc::clone(&self.source.name), Arc::clone(&self.inbox), Arc::clone(&self.kept));
        let batch = async move {
            inbox.accept_at(&name, Vec::new(), Some(floors.cursor())).await?;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = floors;
            Ok(())
        };
        self.batches.begin(0, batch).await;
    }
}
