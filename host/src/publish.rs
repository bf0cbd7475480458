//! Publishing as an application would, to the bus of a configured source: a way to try any set-up without another tool.
//!
//! Everything that can be wrong with the events is found before the first one goes out: [`input`] reads them, [`route`]
//! says where each goes. What the bus then refuses ends the command; nothing is sent twice by itself.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::clock::Clock;
use crate::settings::{SourceKind, SourceSettings};

pub mod compose;
pub mod input;
pub mod route;
mod http;
mod nats;
mod postgres;
mod redis;

/// Events handed to a bus at once at most; the next ones wait until it has them.
pub const BATCH_EVENTS_MAX: usize = 256;
/// Bytes of events after which a batch is full.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How long a bus may take until it can be talked to.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a bus may take for one batch.
pub const BATCH_DEADLINE: Duration = Duration::from_secs(30);

/// An event on its way to a bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// The line of the input that it began on, from 1.
    pub line: usize,
    /// What is sent.
    pub payload: Bytes,
    /// `fraiseql.{entity_type}.{operation}`, or what the user named; other JSON has none by itself.
    pub subject: Option<String>,
}

/// An event and where it goes: a subject, a channel, a stream's key, a table, an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Routed {
    /// The event.
    pub event: Outgoing,
    /// Where on the bus.
    pub destination: Arc<str>,
}

/// What a bus says of a batch that it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    /// Events that nobody was there to receive, where the bus counts receivers.
    pub unheard: Option<u64>,
    /// Events that the bus, or the host behind it, knew already.
    pub duplicates: u64,
}

/// What came of a publication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Events that the bus took.
    pub published: u64,
    /// Their bytes.
    pub bytes: u64,
    /// As in [`Taken::unheard`].
    pub unheard: Option<u64>,
    /// As in [`Taken::duplicates`].
    pub duplicates: u64,
    /// Where they went, each once, in the order of the first event.
    pub destinations: Vec<Arc<str>>,
}

/// Why a bus did not take events. Each names the bus.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is nothing to publish to.
    #[error("source `{0}` reads standard input, which nobody else can publish to")]
    Stdin(Arc<str>),
    /// The bus could not be talked to.
    #[error("{bus} can't be reached: {error}")]
    Unreachable {
        /// Its kind and address.
        bus: String,
        /// What the client or the server said.
        error: String,
        /// What to do.
        help: String,
    },
    /// The bus said no.
    #[error("{bus} did not take the event of line {line}: {error}")]
    Refused {
        /// Its kind and address.
        bus: String,
        /// The event, or the first of those refused together.
        line: usize,
        /// What it said.
        error: String,
        /// What to do; empty where its words say it.
        help: String,
    },
    /// The bus did not answer.
    #[error("{bus} did not answer within {} s", after.as_secs())]
    Silent {
        /// Its kind and address.
        bus: String,
        /// How long was waited.
        after: Duration,
    },
}

impl PublishError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Stdin(_) => Some("pipe the events into the host: wirehook run < events.jsonl".to_owned()),
            Self::Unreachable { help, .. } | Self::Refused { help, .. } => Some(help.clone()),
            Self::Silent { .. } => Some("the last events may have reached it or not; publish them again".to_owned()),
        }
        .filter(|help| !help.is_empty())
    }
}

/// A connection that events are published over.
pub trait Publish: Send {
    /// Publishes a batch in order, and returns once the bus has all of it.
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>>;
}

/// Connects to the bus of `source`.
///
/// # Errors
/// When it can't be published to, is down, or refuses.
pub async fn connect(source: &SourceSettings, clock: &Arc<dyn Clock>) -> Result<Box<dyn Publish>, PublishError> {
    crate::tls::install_provider();
    let bus = bus(source);
    let connecting = async {
        Ok::<Box<dyn Publish>, PublishError>(match &source.kind {
            SourceKind::Nats { connection, .. } => {
                Box::new(nats::NatsPublisher::connect(bus.clone(), connection).await?)
            }
            SourceKind::Jetstream { connection, streams, .. } => {
                Box::new(nats::JetstreamPublisher::connect(bus.clone(), connection, streams.clone(), clock).await?)
            }
            SourceKind::Http { listen, token, .. } => {
                Box::new(http::HttpPublisher::new(bus.clone(), *listen, token.as_ref())?)
            }
            SourceKind::Redis { connection, .. } => {
                Box::new(redis::ChannelPublisher::connect(bus.clone(), connection).await?)
            }
            SourceKind::RedisStream { connection, field, .. } => {
                Box::new(redis::StreamPublisher::connect(bus.clone(), connection, field).await?)
            }
            SourceKind::Postgres { connection, .. } => {
                Box::new(postgres::NotifyPublisher::connect(bus.clone(), connection).await?)
            }
            SourceKind::PostgresOutbox { connection, table, .. } => {
                Box::new(postgres::OutboxPublisher::connect(bus.clone(), connection, table.clone()).await?)
            }
            SourceKind::Stdin => return Err(PublishError::Stdin(Arc::clone(&source.name))),
        })
    };
    let connected = tokio::time::timeout(CONNECT_DEADLINE, connecting).await;
    connected.unwrap_or(Err(PublishError::Silent { bus, after: CONNECT_DEADLINE }))
}

/// The bus is named before: what a client says of it need not name it again.
fn unreachable(bus: &str, url: &url::Url, error: &str, help: &str) -> PublishError {
    let error = error.strip_prefix(&format!("can't connect to {url}: ")).unwrap_or(error).to_owned();
    PublishError::Unreachable { bus: bus.to_owned(), error, help: help.to_owned() }
}

/// Publishes everything, batch after batch, and tells `progress` how many events the bus has.
///
/// # Errors
/// At the first batch that the bus does not take; what came before is there.
pub async fn publish_all(
    source: &SourceSettings,
    events: &[Routed],
    clock: &Arc<dyn Clock>,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<Report, PublishError> {
    let mut report = Report::default();
    let mut publisher = connect(source, clock).await?;
    for range in batches(events.iter().map(|routed| routed.event.payload.len())) {
        let batch = &events[range];
        let sending = tokio::time::timeout(BATCH_DEADLINE, publisher.publish(batch));
        let taken = sending.await.unwrap_or(Err(PublishError::Silent { bus: bus(source), after: BATCH_DEADLINE }))?;
        report.add(batch, taken);
        progress(&report);
    }
    Ok(report)
}

/// A bus for messages: its kind and where it is, never a password.
pub fn bus(source: &SourceSettings) -> String {
    let kind = source.kind.name();
    match &source.kind {
        SourceKind::Nats { connection, .. } | SourceKind::Jetstream { connection, .. } => {
            format!("{kind} at {}", connection.url)
        }
        SourceKind::Redis { connection, .. } | SourceKind::RedisStream { connection, .. } => {
            format!("{kind} at {}", connection.url)
        }
        SourceKind::Postgres { connection, .. } | SourceKind::PostgresOutbox { connection, .. } => {
            format!("{kind} at {}", connection.url)
        }
        SourceKind::Http { listen, .. } => format!("{kind} at {listen}"),
        SourceKind::Stdin => kind.to_owned(),
    }
}

/// Events by their sizes, in batches within their bounds; one that is larger than a batch is a batch of its own.
fn batches(sizes: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, size) in sizes.enumerate() {
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_EVENTS_MAX && bytes + size <= BATCH_BYTES_MAX => {
                batch.end = index + 1;
                bytes += size;
            }
            _ => {
                batches.push(index..index + 1);
                bytes = size;
            }
        }
    }
    batches
}

impl Report {
    fn add(&mut self, batch: &[Routed], taken: Taken) {
        self.published += batch.len() as u64;
        self.bytes += batch.iter().map(|routed| routed.event.payload.len() as u64).sum::<u64>();
        self.duplicates += taken.duplicates;
        if let Some(unheard) = taken.unheard {
            *self.unheard.get_or_insert(0) += unheard;
        }
        for routed in batch {
            if !self.destinations.contains(&routed.destination) {
                self.destinations.push(Arc::clone(&routed.destination));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_count_and_bytes() {
        let check = |sizes: &[usize], expected: &[Range<usize>]| assert_eq!(batches(sizes.iter().copied()), expected);
        check(&[], &[]);
        check(&[1, 2, 3], std::slice::from_ref(&(0..3)));
        check(&[1; 300], &[0..256, 256..300]);
        check(&[BATCH_BYTES_MAX, 1, BATCH_BYTES_MAX * 2, 1], &[0..1, 1..2, 2..3, 3..4]);
        check(&[BATCH_BYTES_MAX - 1, 1, 1], &[0..2, 2..3]);
    }
}
