//! `LISTEN`: at most once. The server keeps notifications for those who listen at that moment and for nobody else, so
//! those sent while the source is away are lost by the bus; `postgres-outbox` loses none.
//!
//! A slow inbox loses nothing: notifications wait at the server, which keeps 8 GB of them for all who listen. Once that is
//! full it refuses to commit what notifies (`pg_notification_queue_usage()` tells how full it is).
//!
//! A pooler that gives each transaction another session (PgBouncer with `pool_mode = transaction`) takes LISTEN and
//! delivers nothing, without a word. So it is looked for before anything is set, and a notification to itself has to come
//! back, at the start and from time to time (`pulse`).

pub(crate) mod connection;
mod lookup;
mod payload;
mod pulse;
pub(crate) mod row;
pub(crate) mod transaction;
pub(crate) mod words;

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio_postgres::Notification;

use self::connection::{Overflow, Session, answer};
use self::lookup::Lookup;
pub use self::lookup::READ_TRIES_MAX;
use self::payload::Said;
use super::batches::{Batches, Ended, weight};
use super::nats::ACCEPT_TRIES_MAX;
use super::{Accept, AcceptError, BATCH_MESSAGES_MAX, Backoff, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::event::Message;
use crate::settings::{PostgresConnection, TableName};

/// A session that listens on channels.
#[derive(Debug)]
pub struct PostgresSource {
    pub(super) name: Arc<str>,
    pub(super) connection: PostgresConnection,
    pub(super) channels: Vec<String>,
    pub(super) table: TableName,
    pub(super) event_bytes_max: usize,
}

/// Why a session ended.
enum SessionEnd {
    Drained,
    InboxClosed,
    Failed(String),
}

impl Source for PostgresSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let mut backoff = Backoff::new();
            let mut has_listened = false;
            while !drain.is_draining() {
                let listening = tokio::select! {
                    () = drain.begun() => break,
                    listening = self.listen() => listening,
                };
                let end = match listening {
                    Ok(listening) => {
                        backoff.reset();
                        listens(&state, has_listened);
                        has_listened = true;
                        Intake::new(&self, &inbox, &state, &drain).run(listening).await
                    }
                    Err(error) => SessionEnd::Failed(error),
                };
                match end {
                    SessionEnd::Drained => break,
                    SessionEnd::InboxClosed => return Err(SourceError::InboxClosed { name: self.name }),
                    SessionEnd::Failed(error) => {
                        state.cut_off(&error);
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

impl PostgresSource {
    /// A session that hears itself.
    async fn listen(&self) -> Result<Listening, String> {
        let name = format!("wirehook-{}", self.name);
        let session = Session::connect(&self.connection, &name, Overflow::Wait).await?;
        // Only what comes to an idle session shows that it is not shared: so another one notifies it.
        let other = match session.direct {
            true => None,
            false => {
                let other = Session::connect(&self.connection, &name, Overflow::Drop).await;
                let other =
                    other.map_err(|error| format!("can't tell whether the pooler keeps sessions apart: {error}"))?;
                if !answer(pulse::are_kept_apart(&session.client, &other.client)).await? {
                    return Err(pulse::SHARED.to_owned());
                }
                Some(other)
            }
        };
        let process = answer(pulse::listen(&session.client, &session.hearing, &self.channels)).await;
        let process = process.map_err(|error| format!("can't listen on {}: {error}", self.channels.join(", ")))?;
        let heard = match &other {
            Some(other) => pulse::beat(&other.client, &session.hearing, None).await,
            None => pulse::beat(&session.client, &session.hearing, Some(&process)).await,
        };
        if let Err(error) = heard {
            // An error here is no other than the one that is told.
            let _ = answer(pulse::unlisten(&session.client, &session.hearing, &self.channels, &process)).await;
            return Err(if other.is_some() { format!("{error}; {}", pulse::SHARED) } else { error });
        }
        Ok(Listening { session, process })
    }
}

/// A session that listens, and the server process that does so for it.
struct Listening {
    session: Session,
    process: String,
}

fn listens(state: &SourceState, has_listened: bool) {
    state.connected();
    if has_listened {
        state.reconnected();
        tracing::warn!(
            source = %state.name(),
            "listening again; notifications sent meanwhile were lost by the bus, which keeps none \
             (a source of kind postgres-outbox loses none)"
        );
    }
}

/// What a session's notifications go through.
struct Intake<'s> {
    name: &'s Arc<str>,
    inbox: &'s Arc<dyn Accept>,
    state: &'s SourceState,
    drain: &'s Drain,
    channels: HashMap<&'s str, Arc<str>>,
    lookup: Lookup<'s>,
    /// Whether the last error is of the rows.
    rows_failed: bool,
    batches: Batches,
}

impl<'s> Intake<'s> {
    fn new(source: &'s PostgresSource, inbox: &'s Arc<dyn Accept>, state: &'s SourceState, drain: &'s Drain) -> Self {
        let channels = source.channels.iter().map(|channel| (channel.as_str(), channel.as_str().into())).collect();
        let lookup = Lookup::new(&source.name, &source.connection, &source.table, source.event_bytes_max);
        Self {
            name: &source.name,
            inbox,
            state,
            drain,
            channels,
            lookup,
            rows_failed: false,
            batches: Batches::within(inbox.intake()),
        }
    }

    async fn run(mut self, listening: Listening) -> SessionEnd {
        let Listening { session, process } = listening;
        let Session { client, mut notifications, hearing, mut end, .. } = session;
        let (state, mut received) = (self.state, Vec::with_capacity(BATCH_MESSAGES_MAX));
        let mut lost = pin!(pulse::lost(&client, &hearing, &process));
        let ended = loop {
            tokio::select! {
                biased;
                () = self.drain.begun() => break SessionEnd::Drained,
                why = &mut lost => break SessionEnd::Failed(why),
                ended = self.batches.next() => if let Err(AcceptError::Closed) = ended {
                    break SessionEnd::InboxClosed;
                },
                count = notifications.recv_many(&mut received, BATCH_MESSAGES_MAX), if self.batches.has_room() => {
                    if count == 0 {
                        break SessionEnd::Failed(format!("the connection was lost: {}", end.why().await));
                    }
                    let (took, why) = beside(self.take(&mut received), &mut lost, state).await;
                    if let Err(AcceptError::Closed) = took {
                        break SessionEnd::InboxClosed;
                    }
                    if let Some(why) = why {
                        break SessionEnd::Failed(why);
                    }
                },
            }
        };
        if let SessionEnd::Failed(error) = &ended {
            state.cut_off(error);
        }
        // What is here has nowhere else to come from: it is accepted, or counted, whatever ended the session.
        notifications.close();
        while notifications.recv_many(&mut received, BATCH_MESSAGES_MAX).await > 0 {
            // That the inbox is closed was counted where it happened.
            let _ = self.take(&mut received).await;
        }
        match self.batches.finish().await {
            Err(AcceptError::Closed) if !self.drain.is_draining() => SessionEnd::InboxClosed,
            _ => ended,
        }
    }

    /// Hands notifications over in their order, with the rows that they name.
    async fn take(&mut self, received: &mut Vec<Notification>) -> Ended {
        let mut waiting: VecDeque<Said> = received.drain(..).map(|notification| self.said(&notification)).collect();
        let mut all = Ok(());
        while !waiting.is_empty() {
            let keys = payload::keys(&waiting);
            let rows = if keys.is_empty() { Vec::new() } else { self.rows(&keys).await };
            let messages = payload::take(&mut waiting, rows);
            while !self.batches.has_room() {
                all = all.and(self.batches.next().await);
            }
            if !messages.is_empty() {
                let (inbox, state, drain) = (Arc::clone(self.inbox), self.state.clone(), self.drain.clone());
                let bytes = weight(&messages);
                self.batches.begin(bytes, keep(Arc::clone(self.name), messages, inbox, state, drain)).await;
            }
        }
        all
    }

    /// The rows of the first of `keys`. Those that are not to be had are counted as lost.
    async fn rows(&mut self, keys: &[i64]) -> Vec<Option<Bytes>> {
        let (rows, why) = match self.lookup.read(keys, self.drain).await {
            Ok(rows) => (rows, None),
            Err(error) => (vec![None; keys.len()], Some(error.to_string())),
        };
        let unseen: Vec<i64> = keys.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(key, _)| *key).collect();
        if unseen.len() < rows.len() && std::mem::take(&mut self.rows_failed) {
            self.state.recovered();
        }
        if let Some(first) = unseen.first() {
            let why = why.unwrap_or_else(|| self.lookup.why_unseen());
            self.state.lost(unseen.len(), &format_args!("no row for its key, such as {first}: {why}"));
            if unseen.len() == rows.len() {
                self.rows_failed = true;
                self.state.failed(&format_args!("rows that notifications name are not to be had: {why}"));
            }
        }
        rows
    }

    fn said(&self, notification: &Notification) -> Said {
        let channel = notification.channel();
        let subject = self.channels.get(channel).map_or_else(|| channel.into(), Arc::clone);
        Said::of(subject, notification.payload().to_owned())
    }
}

/// Takes what has come to its end, however long that takes, and tells meanwhile that the session is lost: with the reason,
/// where it is.
async fn beside<T>(
    take: impl Future<Output = T>,
    lost: &mut (impl Future<Output = String> + Unpin),
    state: &SourceState,
) -> (T, Option<String>) {
    let mut take = pin!(take);
    tokio::select! {
        biased;
        took = &mut take => (took, None),
        why = lost => {
            state.cut_off(&why);
            (take.await, Some(why))
        }
    }
}

/// Offers a batch until it is accepted. Meanwhile what follows waits at the server. Once the host drains, the tries are
/// counted, and when they are spent the batch is lost.
async fn keep(
    name: Arc<str>,
    messages: Vec<Message>,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
) -> Ended {
    let mut backoff = Backoff::new();
    let mut tries_left = ACCEPT_TRIES_MAX;
    let mut has_failed = false;
    loop {
        let error = match inbox.accept(&name, messages.clone()).await {
            Ok(_) if has_failed => {
                state.recovered();
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if drain.is_draining() {
            tries_left -= 1;
        }
        if tries_left == 0 || matches!(error, AcceptError::Closed) {
            state.lost(messages.len(), &error);
            return Err(error);
        }
        has_failed = true;
        state.failed(&error);
        tokio::time::sleep(backoff.after_failure()).await;
    }
}
