//! Core NATS: at most once. The server keeps nothing, so what can't be accepted in time is counted as lost.

pub mod connect;
pub mod covered;
pub(super) mod denial;
pub(super) mod link;
mod held;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures::future::{AbortHandle, BoxFuture, FutureExt};
use futures::stream::{Abortable, SelectAll, Stream, StreamExt};
use tokio::task::unconstrained;
use tokio::time::Sleep;

use self::covered::covered;
use self::denial::Denial;
use self::held::Held;
pub use self::held::{HELD_BYTES_MAX, HELD_MESSAGES_MAX};
use self::link::{Link, News};
use super::batches::{Batches, Ended, weight};
use super::{Accept, AcceptError, BATCH_MESSAGES_MAX, Backoff, Source, SourceError, SourceState, pending_or};
use crate::drain::Drain;
use crate::settings::NatsConnection;

/// How often a batch is offered to the inbox before it is lost; with the delays between, some six seconds.
pub const ACCEPT_TRIES_MAX: usize = 7;
/// How long the server may take to hand over the rest once the drain has begun.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a source that may not subscribe to some of its subjects goes on with the others before it tries those again.
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

/// What ends the subscription of a subject.
type Subscriptions = BTreeMap<String, AbortHandle>;

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
        let mut subscriptions = Subscriptions::default();
        let mut messages = SelectAll::new();
        if let Err(error) = self.subscribe(&link.client, &self.subjects, &mut subscriptions, &mut messages).await {
            return SessionEnd::Failed(error);
        }
        told(link.client.clone()).await;
        let mut messages = messages.ready_chunks(BATCH_MESSAGES_MAX);
        history.backoff.reset();
        if std::mem::replace(&mut history.has_connected, true) {
            state.reconnected();
        }
        let (mut batches, mut held) = (Batches::default(), Held::default());
        let client = link.client.clone();
        let mut covering = std::pin::pin!(self.warn_where_covered(&client).fuse());
        // Subjects that the server forbids, when they are tried again, and what tells that it has answered then.
        let mut denied: Vec<String> = Vec::new();
        let mut retry: Option<Pin<Box<Sleep>>> = None;
        let mut retried: Option<BoxFuture<'static, ()>> = None;
        let mut connects = link.connects();
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
                    News::Alive if !link.is_up() => {}
                    News::Alive if link.connects() != connects => {
                        // The client has subscribed to all subjects again, and the server says again what it forbids.
                        connects = link.connects();
                        denied.clear();
                        retry = None;
                        retried = Some(told(client.clone()).boxed());
                    }
                    News::Alive if is_told || !denied.is_empty() || retried.is_some() => {}
                    News::Alive => {
                        is_told = true;
                        state.connected();
                    }
                    News::Denied(denial) => if let Some(error) = self.denied(&denial) {
                        state.disconnected();
                        state.failed(&error);
                        denied.push(denial.subject);
                        retry.get_or_insert_with(|| Box::pin(tokio::time::sleep(DENIED_RETRY)));
                    },
                    News::Closed(error) => {
                        is_open = false;
                        break SessionEnd::Failed(error);
                    }
                },
                () = pending_or(&mut retry) => {
                    retry = None;
                    let subjects = std::mem::take(&mut denied);
                    let all = messages.get_mut();
                    if let Err(error) = self.subscribe(&client, &subjects, &mut subscriptions, all).await {
                        break SessionEnd::Failed(error);
                    }
                    retried = Some(told(client.clone()).boxed());
                }
                () = pending_or(&mut retried) => {
                    retried = None;
                    is_told = false;
                }
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

    /// One subscription a subject, in place of the one that it may have. The server hands a message to one member of a
    /// queue group, whatever subjects its members have: where subjects overlap, it comes once all the same.
    async fn subscribe(
        &self,
        client: &Client,
        subjects: &[String],
        subscriptions: &mut Subscriptions,
        messages: &mut SelectAll<Abortable<Subscriber>>,
    ) -> Result<(), String> {
        for subject in subjects {
            let subscription = client.queue_subscribe(subject.clone(), self.queue_group.clone()).await;
            let subscription = subscription.map_err(|error| format!("can't subscribe to `{subject}`: {error}"))?;
            let (handle, registration) = AbortHandle::new_pair();
            messages.push(Abortable::new(subscription, registration));
            if let Some(former) = subscriptions.insert(subject.clone(), handle) {
                former.abort();
            }
        }
        Ok(())
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

/// Returns once it is known what the server forbids. The client tells that in a task of its own, which has had its turn
/// after a second echo.
async fn told(client: Client) {
    let _ = link::round_trip(&client).await && link::round_trip(&client).await;
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
