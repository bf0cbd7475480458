//! A source is a connection to a bus. It pushes messages into the inbox, and acknowledges them to its bus only after
//! [`Accept::accept`] has returned, which is after the commit: so no ack can precede it.

pub mod http;
pub mod jetstream;
pub mod redis;
pub mod redis_stream;
pub mod postgres;
pub mod postgres_outbox;
pub mod nats;
pub mod pausable;
pub mod state;
pub mod stdin;
mod batches;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

pub use self::state::{SourceState, SourceStatus};
use crate::budget::{Account, Budget, Kind};
use crate::drain::Drain;
use crate::event::Message;
use crate::settings::{LimitsSettings, SourceKind, SourceSettings};
use crate::store::{Acceptance, StoreError};

/// Most messages that a source hands over at once.
pub const BATCH_MESSAGES_MAX: usize = 256;
/// Most bytes of messages of one source on their way into the store; a batch that passes it is the last until one ends.
pub const BYTES_IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;
/// Most batches of one source on their way into the store: enough that decoding one overlaps the fsync of another.
pub const BATCHES_IN_FLIGHT_MAX: usize = 8;

/// Where sources put messages: the inbox.
pub trait Accept: Send + Sync + 'static {
    /// Makes `messages` durable, all or none, and returns after the commit, with one result for each, in order. What
    /// can't be decoded is kept as a dead letter, which is no error.
    ///
    /// Batches are committed in the order in which their futures were first polled. A future that was polled must be
    /// polled to its end: what follows the commit is part of it.
    fn accept(&self, source: &Arc<str>, messages: Vec<Message>) -> BoxFuture<'_, Result<Vec<Acceptance>, AcceptError>> {
        self.accept_at(source, messages, None)
    }

    /// As [`Accept::accept`], and keeps `cursor` in the same commit, in place of the one before: where the source stands at
    /// its bus once `messages` are accepted. For buses that don't keep that themselves. There may be no messages. At most
    /// [`crate::store::CURSOR_BYTES_MAX`] bytes.
    fn accept_at(
        &self,
        source: &Arc<str>,
        messages: Vec<Message>,
        cursor: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Vec<Acceptance>, AcceptError>>;

    /// What one source may hold in memory of what it has received, until it is accepted.
    fn intake(&self) -> Arc<Account> {
        Budget::unbounded().account(Kind::Intake)
    }

    /// The cursor last kept for `source`, by this start of the host or an earlier one.
    fn cursor(&self, source: &Arc<str>) -> BoxFuture<'_, Result<Option<Bytes>, AcceptError>>;
}

/// Why messages were not accepted. Nothing of them was kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AcceptError {
    /// The store failed. Try again later.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's own bound is reached. Try again later.
    #[error("the inbox is full: {bound}; events wait at the bus until there is room")]
    Full {
        /// Which bound.
        bound: String,
    },
    /// The batch ended without saying whether it was kept. Try again later; what was kept is a duplicate then.
    #[error("a batch ended before it was accepted: {0}; its messages are handed over again")]
    Failed(String),
    /// The inbox takes nothing any more. Give up.
    #[error("the inbox is closed")]
    Closed,
}

/// A connection to a bus.
pub trait Source: Send {
    /// Pushes what the bus has into `inbox` until `drain` begins or the bus has no more, ever; then finishes what is in
    /// flight. A bus that is down is tried again for ever, and `state` tells.
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>>;
}

/// Why a source can't be, or had to stop. Trying the same again can't help.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address can't be listened on.
    #[error("source `{name}` can't listen on {address}: {error}; is another process listening there? set `listen`")]
    Bind {
        /// The source's name.
        name: Arc<str>,
        /// The setting.
        address: SocketAddr,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Its input broke.
    #[error("source `{name}` can't read its input: {error}")]
    Read {
        /// The source's name.
        name: Arc<str>,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The inbox closed while the source was not told to drain.
    #[error("source `{name}` stopped: the inbox is closed")]
    InboxClosed {
        /// The source's name.
        name: Arc<str>,
    },
}

/// The source that `settings` describe. An `http` source listens from here on, and answers once it runs.
///
/// # Errors
///
/// When an address can't be listened on.
pub fn build(settings: &SourceSettings, limits: &LimitsSettings) -> Result<Box<dyn Source>, SourceError> {
    crate::tls::install_provider();
    let name = Arc::clone(&settings.name);
    Ok(match &settings.kind {
        SourceKind::Nats { connection, subjects, queue_group } => Box::new(nats::NatsSource {
            name,
            connection: connection.clone(),
            subjects: subjects.clone(),
            queue_group: queue_group.clone(),
        }),
        SourceKind::Jetstream { connection, streams, create_stream, durable, subjects, start, ephemeral } => {
            Box::new(jetstream::JetstreamSource {
                name,
                connection: connection.clone(),
                streams: streams.clone(),
                create_stream: *create_stream,
                durable: durable.clone(),
                subjects: subjects.clone(),
                start: *start,
                ephemeral: *ephemeral,
            })
        }
        SourceKind::Redis { connection, channels } => {
            Box::new(redis::RedisSource { name, connection: connection.clone(), channels: channels.clone() })
        }
        SourceKind::RedisStream { connection, streams, group, field, start, ephemeral } => {
            Box::new(redis_stream::RedisStreamSource {
                name,
                connection: connection.clone(),
                streams: streams.clone(),
                group: group.clone(),
                field: field.clone(),
                start: *start,
                ephemeral: *ephemeral,
                new_consumer: format!("wirehook-{:032x}", fastrand::u128(..)),
            })
        }
        SourceKind::Postgres { connection, channels, table } => Box::new(postgres::PostgresSource {
            name,
            connection: connection.clone(),
            channels: channels.clone(),
            table: table.clone(),
            event_bytes_max: limits.event_bytes_max,
        }),
        SourceKind::PostgresOutbox { connection, table, channel, start } => {
            Box::new(postgres_outbox::PostgresOutboxSource {
                name,
                connection: connection.clone(),
                table: table.clone(),
                channel: channel.clone(),
                start: *start,
                event_bytes_max: limits.event_bytes_max,
            })
        }
        SourceKind::Http { listen, token, hosts } => {
            let (token, fields) = (token.clone(), settings.fields.clone());
            let source = http::HttpSource::bind(name, *listen, token, fields, limits.event_bytes_max)?;
            Box::new(source.answering_to(hosts.clone()))
        }
        SourceKind::Stdin => Box::new(stdin::StdinSource::new(name, Box::new(io::stdin()), limits.event_bytes_max)),
    })
}

/// The future's output; pending for ever where there is none.
async fn pending_or<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Delays that double with every failure in a row.
#[derive(Clone, Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    fn new() -> Self {
        Self { next: Self::FIRST }
    }

    fn after_failure(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(Self::MAX);
        delay
    }

    fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// Sleeps for the next delay; `false` where the drain began meanwhile.
    async fn wait(&mut self, drain: &Drain) -> bool {
        let delay = self.after_failure();
        tokio::select! {
            () = drain.begun() => false,
            () = tokio::time::sleep(delay) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let delays: Vec<_> = (0..8).map(|_| backoff.after_failure().as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.after_failure(), Backoff::FIRST);
    }
}
