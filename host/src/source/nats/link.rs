//! One connection to a NATS server, which comes back by itself for as long as its client lives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ClientError, ConnectErrorKind, Event, ServerError};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Interval;
use url::Url;

use super::connect::{self, ConnectError};
use super::denial::Denial;
use crate::event::Message;
use crate::settings::NatsConnection;
use crate::source::SourceState;

/// Between two pings: two that stay unanswered mean that the server is dead.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The client may drop its own events when there are many, so the state is looked at this often, too.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that a subscription may hold before the client drops what comes.
const SUBSCRIPTION_MESSAGES_MAX: usize = 64 * 1024;
/// Errors of the server that wait to be looked at; more of them say nothing new.
const SERVER_ERRORS_MAX: usize = 16;
/// How often the client tries to come back by itself, half a minute in all. After that a new one is made, which says in
/// full why it can't connect; acks of the old one would no longer be of use.
const RECONNECT_TRIES_MAX: usize = 20;
/// How long an echo may take. Where the user may not publish to its own inbox there is none, ever.
const ROUND_TRIP_DEADLINE: Duration = Duration::from_secs(2);

/// A connection, and news of it.
#[derive(Debug)]
pub(in crate::source) struct Link {
    pub(in crate::source) client: Client,
    /// Its sender lives in the client's own task: gone when the client has given up.
    changes: watch::Receiver<()>,
    look: Interval,
    said: Arc<Said>,
    url: Url,
    up: bool,
    connects: u64,
}

/// What the client's task has told.
#[derive(Debug, Default)]
struct Said {
    dropped: AtomicUsize,
    /// In the server's words, that the credentials are of no use any more.
    refusal: Mutex<Option<String>>,
    errors: Mutex<VecDeque<String>>,
}

/// What a look at a connection shows.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::source) enum News {
    /// It may be up or down, and comes back by itself.
    Alive,
    /// It is up, and the server forbids something.
    Denied(Denial),
    /// It does not come back, for this reason: a new one is needed, with credentials read anew.
    Closed(String),
}

impl Said {
    fn note(&self, event: &Event) {
        match event {
            Event::SlowConsumer(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(error) => {
                let words = match error {
                    ServerError::Other(words) => words.clone(),
                    error => error.to_string(),
                };
                // The client would come back with the same credentials, to be sent away at once.
                if words.contains("Authentication Expired") || words.contains("Authentication Revoked") {
                    self.refuse(words);
                    return;
                }
                let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
                if errors.len() < SERVER_ERRORS_MAX && !errors.contains(&words) {
                    errors.push_back(words);
                }
            }
            // The client passes on the kind of the error as text, and nothing else.
            Event::ClientError(ClientError::Other(kind))
                if *kind == ConnectErrorKind::AuthorizationViolation.to_string() =>
            {
                self.refuse(kind.clone());
            }
            _ => {}
        }
    }

    fn refuse(&self, words: String) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }

    fn next_error(&self) -> Option<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Link {
    /// Connects once.
    ///
    /// # Errors
    ///
    /// When the server is down or refuses, or a file of the settings can't be used.
    pub(in crate::source) async fn connect(source: &str, connection: &NatsConnection) -> Result<Self, ConnectError> {
        let (sender, changes) = watch::channel(());
        let said = Arc::new(Said::default());
        let noted = Arc::clone(&said);
        let options = connect::options(connection)
            .await?
            .name(format!("wirehook-{source}"))
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
            .max_reconnects(RECONNECT_TRIES_MAX)
            .event_callback(move |event| {
                noted.note(&event);
                // A slow consumer says so with every message: the next look counts them.
                if !matches!(event, Event::SlowConsumer(_)) {
                    let _ = sender.send(());
                }
                std::future::ready(())
            });
        let client = connect::connect(connection, options).await?;
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        let look = tokio::time::interval(LOOK_INTERVAL);
        Ok(Self { client, changes, look, said, url: connection.url.clone(), up: true, connects })
    }

    /// Waits for a change of the connection, or [`LOOK_INTERVAL`], and notes it in `state`.
    pub(in crate::source) async fn changed(&mut self, state: &SourceState) -> News {
        tokio::select! {
            changed = self.changes.changed() => if changed.is_err() {
                return News::Closed(format!("the connection to {} was given up", self.url));
            },
            _ = self.look.tick() => {}
        }
        state.lost(self.take_dropped(), &"the inbox is slower than the bus");
        self.look(state);
        if let Some(words) = self.said.refusal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return News::Closed(format!("the connection to {} has ended; the server says: {words}", self.url));
        }
        while let Some(words) = self.said.next_error() {
            match Denial::read(&words) {
                Some(denial) => {
                    // There may be more of them.
                    self.changes.mark_changed();
                    return News::Denied(denial);
                }
                None => state.failed(&format_args!("the server says: {words}")),
            }
        }
        News::Alive
    }

    /// As [`round_trip`].
    pub(in crate::source) async fn round_trip(&self) -> bool {
        round_trip(&self.client).await
    }

    /// How often it has connected, the first time included.
    pub(in crate::source) fn connects(&self) -> u64 {
        self.connects
    }

    /// Whether it is up now.
    pub(in crate::source) fn is_up_now(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Whether it was up at the last look.
    pub(in crate::source) fn is_up(&self) -> bool {
        self.up
    }

    /// Notes messages that were dropped after the client had handed them over.
    pub(in crate::source) fn dropped(&self, messages: usize) {
        self.said.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    /// Messages that were dropped since the last call.
    pub(in crate::source) fn take_dropped(&self) -> usize {
        self.said.dropped.swap(0, Ordering::Relaxed)
    }

    fn look(&mut self, state: &SourceState) {
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        let up = self.client.connection_state() == State::Connected;
        if connects != self.connects {
            self.connects = connects;
            state.reconnected();
        }
        if up != self.up {
            self.up = up;
            if up {
                // Whether events can come is for the source to say, once it is subscribed or attached.
                tracing::info!(source = %state.name(), "connected again");
            } else {
                state.disconnected();
                state.failed(&"the connection was lost");
            }
        }
    }
}

/// Waits for an echo: then the server has done all it was told before, and what it had sent before is here. Without an
/// echo, `false`, the source works all the same; only the instants after its start and before its end are less sharp.
pub(in crate::source) async fn round_trip(client: &Client) -> bool {
    let echo = async {
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await.ok()?;
        client.publish(inbox, bytes::Bytes::new()).await.ok()?;
        echo.next().await
    };
    let has_come = matches!(tokio::time::timeout(ROUND_TRIP_DEADLINE, echo).await, Ok(Some(_)));
    if !has_come {
        tracing::debug!("the server sent no echo");
    }
    has_come
}

/// A message of the bus as the inbox takes it. Headers are sorted by name: the client keeps no order.
pub(in crate::source) fn message(message: async_nats::Message, position: Option<String>) -> Message {
    let mut headers = Vec::new();
    for (name, values) in message.headers.iter().flat_map(async_nats::HeaderMap::iter) {
        headers.extend(values.iter().map(|value| (name.to_string(), value.as_str().to_owned())));
    }
    headers.sort();
    Message { subject: message.subject.as_str().into(), payload: message.payload, headers, position }
}
