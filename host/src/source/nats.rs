//! Core NATS: at most once. The server keeps nothing, so what can't be accepted in time is counted as lost.

pub mod connect;
pub(super) mod api;
pub(super) mod denial;
pub(super) mod link;
pub(super) mod wire;
mod covered;
mod held;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::Sleep;
use url::Url;

use self::api::Api;
use self::covered::covered;
use self::denial::Denial;
use self::held::Held;
pub use self::held::{HELD_BYTES_MAX, HELD_MESSAGES_MAX};
use self::link::{Link, News};
use self::wire::{Closed, Delivery, Feed, Queue, Subscription, Wire};
use super::batches::{Batches, Ended, weight};
use super::{Accept, AcceptError, Backoff, Source, SourceError, SourceState, pending_or};
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
    /// Servers that the last one told of.
    told: Vec<Url>,
    /// What was handed over and is not accepted yet: it goes on whatever becomes of the connection.
    batches: Batches,
    held: Held,
}

/// The subscription of a subject.
type Subscriptions = BTreeMap<String, Subscription>;

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
            let mut history = History {
                backoff: Backoff::new(),
                has_connected: false,
                told: Vec::new(),
                batches: Batches::within(inbox.intake()),
                held: Held::within(inbox.intake()),
            };
            while !drain.is_draining() {
                match self.session(&inbox, &state, &drain, &mut history).await {
                    SessionEnd::Drained => break,
                    SessionEnd::InboxClosed => return Err(SourceError::InboxClosed { name: self.name }),
                    SessionEnd::Failed(error) => {
                        state.cut_off(&error);
                        if !history.backoff.wait(&drain).await {
                            break;
                        }
                    }
                }
            }
            state.disconnected();
            // What a lost connection had left has nowhere else to come from.
            self.finish(None, &mut history.held, &mut history.batches, &inbox, &state).await;
            let _ = history.batches.finish().await;
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
            connected = Link::connect(&self.name, &self.connection, &mut history.told) => connected,
        };
        let mut link = match connected {
            Ok(link) => link,
            Err(error) => return SessionEnd::Failed(error.to_string()),
        };
        let wire = Arc::clone(&link.wire);
        let (feed, mut queue) = wire.queue();
        let mut subscriptions = Subscriptions::default();
        if let Err(error) = self.subscribe(&wire, &feed, &self.subjects, &mut subscriptions).await {
            return SessionEnd::Failed(error.to_string());
        }
        wire.round_trip().await;
        history.backoff.reset();
        if std::mem::replace(&mut history.has_connected, true) {
            state.reconnected();
            tracing::warn!(
                source = %self.name,
                "connected again; what was published meanwhile is lost, since core NATS keeps nothing: a source of the kind \
                 `jetstream` loses nothing"
            );
        }
        let History { batches, held, .. } = history;
        let mut covering = std::pin::pin!(self.warn_where_covered(Api::new(&wire)).fuse());
        // Subjects that the server forbids, when they are tried again, and what tells that it has answered then.
        let mut denied: Vec<String> = Vec::new();
        let mut retry: Option<Pin<Box<Sleep>>> = None;
        let mut retried: Option<BoxFuture<'_, bool>> = None;
        // What the server forbade is known by now, if it forbade anything.
        let mut is_told = false;
        let end = loop {
            while batches.has_room() && !held.is_empty() {
                self.begin(held.take(), batches, inbox, state).await;
            }
            tokio::select! {
                biased;
                () = drain.begun() => break SessionEnd::Drained,
                ended = batches.next() => if let Err(AcceptError::Closed) = ended {
                    break SessionEnd::InboxClosed;
                },
                news = link.changed(state) => match news {
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
                    News::Closed(why) => {
                        let rest = std::iter::from_fn(|| Some(queue.take_ready()).filter(|chunk| !chunk.is_empty()));
                        state.lost(rest.map(|chunk| held.put(chunk)).sum(), &"the inbox is slower than the bus");
                        return SessionEnd::Failed(why);
                    }
                },
                () = pending_or(&mut retry) => {
                    retry = None;
                    let subjects = std::mem::take(&mut denied);
                    if let Err(error) = self.subscribe(&wire, &feed, &subjects, &mut subscriptions).await {
                        break SessionEnd::Failed(error.to_string());
                    }
                    retried = Some(wire.round_trip().boxed());
                }
                _ = pending_or(&mut retried) => {
                    retried = None;
                    is_told = false;
                }
                () = &mut covering => {}
                // Its end is told with the link's.
                Some(chunk) = queue.next() => wire.dropped(held.put(chunk)),
            }
        };
        drop(retried);
        // What was handed over has nowhere else to come from: it is accepted, or counted, whatever ended the session.
        self.finish(Some((&link, subscriptions, queue)), held, batches, inbox, state).await;
        let ended = batches.finish().await;
        state.lost(wire.take_dropped(), &"the inbox is slower than the bus");
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

    async fn warn_where_covered(&self, api: Api) {
        for covered in covered(&api, &self.subjects).await {
            tracing::warn!(source = %self.name, "{covered}");
        }
    }

    /// One subscription a subject, in place of the one that it may have. The server hands a message to one member of a
    /// queue group, whatever subjects its members have: where subjects overlap, it comes once all the same.
    async fn subscribe(
        &self,
        wire: &Wire,
        feed: &Feed,
        subjects: &[String],
        subscriptions: &mut Subscriptions,
    ) -> Result<(), Closed> {
        for subject in subjects {
            let subscription = wire.subscribe(subject, Some(&self.queue_group), feed).await?;
            if let Some(former) = subscriptions.insert(subject.clone(), subscription) {
                wire.unsubscribe(former, false);
            }
        }
        Ok(())
    }

    async fn begin(
        &self,
        deliveries: Vec<Delivery>,
        batches: &mut Batches,
        inbox: &Arc<dyn Accept>,
        state: &SourceState,
    ) {
        let (mut messages, mut set_aside) = (Vec::with_capacity(deliveries.len()), Vec::new());
        let mut headers_dropped = 0;
        for delivery in deliveries {
            let headers = link::headers(&delivery);
            headers_dropped += headers.dropped;
            let (message, is_odd) = link::message(delivery, headers, None);
            if is_odd {
                let what = "has a subject or headers that can't be read";
                set_aside.push(state.set_aside(format!("a message of the subject `{}` {what}", message.subject)));
            }
            messages.push(message);
        }
        state.headers_dropped(headers_dropped);
        let (bytes, batch) = keep(Arc::clone(&self.name), messages, Arc::clone(inbox), state.clone());
        let batch = async move {
            let _set_aside = set_aside;
            batch.await
        };
        batches.begin(bytes, batch).await;
    }

    /// Unsubscribes and accepts what the server had handed over until then; without a connection, what is held.
    async fn finish(
        &self,
        connected: Option<(&Link, Subscriptions, Queue)>,
        held: &mut Held,
        batches: &mut Batches,
        inbox: &Arc<dyn Accept>,
        state: &SourceState,
    ) {
        let rest = async {
            let mut queue = None;
            if let Some((link, subscriptions, all)) = connected {
                subscriptions.into_values().for_each(|subscription| link.wire.unsubscribe(subscription, true));
                // Then all that the server had for these subscriptions is here.
                link.wire.round_trip().await;
                queue = Some(all);
            }
            loop {
                while held.is_empty() {
                    let chunk = queue.as_mut().map(Queue::take_ready).unwrap_or_default();
                    if chunk.is_empty() {
                        return;
                    }
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
            tracing::warn!(source = %self.name, "what the server had handed over was not accepted in time");
            state.lost(held.len(), &"the inbox did not take them before the source had to end");
        }
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
