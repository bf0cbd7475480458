//! Core NATS: at most once. The server keeps nothing, so what can't be accepted in time is counted as lost.

pub mod connect;
pub mod covered;
pub(super) mod denial;
pub(super) mod link;
mod held;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{SelectAll, Stream, StreamExt, select_all};
use tokio::task::unconstrained;
use tokio::time::Sleep;

use self::covered::covered;
use self::denial::Denial;
use self::held::Held;
pub use self::held::{HELD_BYTES_MAX, HELD_MESSAGES_MAX};
use self::link::{Link, News};
use super::batches::{Batches, Ended, weight};
use super::{Accept, AcceptError, BATCH_MESSAGES_MAX, Backoff, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::settings::NatsConnection;

/// How often a batch is offered to the inbox before it is lost; with the delays between, some six seconds.
pub const ACCEPT_TRIES_MAX: usize = 7;
/// How long the server may take to hand over the rest once the drain has begun.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a source that may not subscribe to one of its subjects goes on with the others before it tries again.
const DENIED_RETRY: Duration = Duration::from_secs(5);

/// A queue subscription, shared with other hosts of the same group.
#[derive(Debug)]
pub struct NatsSource {
    pub(super) name: Arc<str>,
    pub(super) connection: NatsConnection,
    pub(super) subjects: Vec<String>,
    pub(super) queue_group: String,
}

/// What was before a session.
struct History {
    backoff: Backoff,
    has_connected: bool,
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
            let mut history = History { backoff: Backoff::new(), has_connected: false };
            while !drain.is_draining() {
                match self.session(&inbox, &state, &drain, &mut history).await {
                    SessionEnd::Drained => break,
                    SessionEnd::InboxClosed => return Err(SourceError::InboxClosed { name: self.name }),
                    SessionEnd::Failed(error) => {
                        state.disconnected();
                        state.failed(&error);
                        if !history.backoff.wait(&drain).await {
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
        history: &mut History,
    ) -> SessionEnd {
        let connected = tokio::select! {
            () = drain.begun() => return SessionEnd::Drained,
            connected = Link::connect(&self.name, &self.connection) => connected,
        };
        let mut link = match connected {
            Ok(link) => link,
            Err(error) => return SessionEnd::Failed(error.to_string()),
        };
        let mut messages = match self.subscribe(&link).await {
            Ok(messages) => messages.ready_chunks(BATCH_MESSAGES_MAX),
            Err(error) => return SessionEnd::Failed(error),
        };
        history.backoff.reset();
        if std::mem::replace(&mut history.has_connected, true) {
            state.reconnected();
        }
        let (mut batches, mut held) = (Batches::default(), Held::default());
        let client = link.client.clone();
        let mut covering = std::pin::pin!(self.warn_where_covered(&client).fuse());
        let mut denied: Option<(String, Pin<Box<Sleep>>)> = None;
        // What the server forbade is known by now, if it forbade anything.
        let mut is_told = false;
        let mut is_open = true;
        let end = loop {
            while batches.has_room() && !held.is_empty() {
                self.begin(held.take(), &mut batches, inbox, state).await;
            }
            tokio::select! {
                biased;
                () = drain.begun() => break SessionEnd::Drained,
                ended = batches.next() => if let Err(AcceptError::Closed) = ended {
                    break SessionEnd::InboxClosed;
                },
                news = link.changed(state) => match news {
                    News::Alive if is_told || denied.is_some() => {}
                    News::Alive => {
                        is_told = true;
                        state.connected();
                    }
                    News::Denied(denial) => if let Some(error) = self.denied(&denial) {
                        state.disconnected();
                        state.failed(&error);
                        denied.get_or_insert_with(|| (error, Box::pin(tokio::time::sleep(DENIED_RETRY))));
                    },
                    News::Closed(error) => {
                        is_open = false;
                        break SessionEnd::Failed(error);
                    }
                },
                error = over(&mut denied) => break SessionEnd::Failed(error),
                () = &mut covering => {}
                chunk = messages.next() => match chunk {
                    Some(chunk) => link.dropped(held.put(chunk)),
                    None => break SessionEnd::Failed("the server ended the subscription".to_owned()),
                },
            }
        };
        // What was handed over has nowhere else to come from: it is accepted, or counted, whatever ended the session.
        self.finish(is_open.then_some(&link), held, messages, &mut batches, inbox, state).await;
        let ended = batches.finish().await;
        state.lost(link.take_dropped(), &"the inbox is slower than the bus");
        match ended {
            Err(AcceptError::Closed) if !drain.is_draining() => SessionEnd::InboxClosed,
            _ => end,
        }
    }

    /// What it means that the server forbids something; nothing where the source does without.
    fn denied(&self, denial: &Denial) -> Option<String> {
        let is_wanted = !denial.is_publish && self.subjects.contains(&denial.subject);
        is_wanted.then(|| denial.describe())
    }

    async fn warn_where_covered(&self, client: &Client) {
        for covered in covered(client, &self.subjects).await {
            tracing::warn!(source = %self.name, "{covered}");
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
        // The client tells what the server forbids in a task of its own, which has had its turn after a second echo.
        let _ = link.round_trip().await && link.round_trip().await;
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
    /// and the end of the subscriptions is lost: the bus keeps nothing. Where `link` is not open any more, only what is
    /// here already.
    async fn finish(
        &self,
        link: Option<&Link>,
        mut held: Held,
        mut messages: impl Stream<Item = Vec<async_nats::Message>> + Unpin,
        batches: &mut Batches,
        inbox: &Arc<dyn Accept>,
        state: &SourceState,
    ) {
        let rest = async {
            if let Some(link) = link {
                link.round_trip().await;
                // An error means that the connection is gone, and what was handed over is here already.
                let _ = link.client.drain().await;
            }
            loop {
                while held.is_empty() {
                    let chunk = match link {
                        Some(_) => messages.next().await,
                        None => unconstrained(messages.next()).now_or_never().flatten(),
                    };
                    let Some(chunk) = chunk else { return };
                    let dropped = held.put(chunk);
                    state.lost(dropped, &"the inbox is slower than the bus");
                }
                while !batches.has_room() {
                    let _ = batches.next().await;
                }
                self.begin(held.take(), batches, inbox, state).await;
            }
        };
        if tokio::time::timeout(DRAIN_DEADLINE, rest).await.is_err() {
            tracing::warn!(source = %self.name, "the server did not end the subscriptions in time");
            state.lost(held.len(), &"the inbox did not take them before the source had to end");
        }
    }
}

/// Resolves with its reason when the pause is over; never where there is none.
async fn over(pause: &mut Option<(String, Pin<Box<Sleep>>)>) -> String {
    match pause {
        Some((reason, pause)) => {
            pause.await;
            std::mem::take(reason)
        }
        None => std::future::pending().await,
    }
}

/// Offers a batch until it is accepted or its tries are spent; then it is counted as lost.
pub(super) fn keep(
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
