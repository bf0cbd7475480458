//! One connection to a NATS server, which comes back by itself for as long as its client lives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Interval;

use crate::event::Message;
use crate::settings::NatsConnection;
use crate::source::SourceState;

/// Between two pings: two that stay unanswered mean that the server is dead.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The client may drop its own events when there are many, so the state is looked at this often, too.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that a subscription may hold before the client drops what comes.
const SUBSCRIPTION_MESSAGES_MAX: usize = 64 * 1024;

/// How long an echo may take. Where the user may not publish to its own inbox there is none, ever.
const ROUND_TRIP_DEADLINE: Duration = Duration::from_secs(2);

/// A connection, and news of it.
#[derive(Debug)]
pub(in crate::source) struct Link {
    pub(in crate::source) client: Client,
    /// Its sender lives in the client's own task: gone when the client has given up.
    news: watch::Receiver<()>,
    look: Interval,
    dropped: Arc<AtomicUsize>,
    server_error: Arc<Mutex<Option<String>>>,
    up: bool,
    connects: u64,
}

impl Link {
    /// Connects once.
    ///
    /// # Errors
    ///
    /// In words: the server is down, or refuses.
    pub(in crate::source) async fn connect(source: &str, connection: &NatsConnection) -> Result<Self, String> {
        let (sender, news) = watch::channel(());
        let dropped = Arc::new(AtomicUsize::new(0));
        let server_error = Arc::new(Mutex::new(None));
        let (counter, said) = (Arc::clone(&dropped), Arc::clone(&server_error));
        let options = credentials(ConnectOptions::new(), connection)
            .name(format!("wirehook-{source}"))
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
            .event_callback(move |event| {
                if let Event::SlowConsumer(_) = event {
                    counter.fetch_add(1, Ordering::Relaxed);
                } else {
                    if let Event::ServerError(error) = event {
                        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    }
                    let _ = sender.send(());
                }
                std::future::ready(())
            });
        let connected = options.connect(connection.url.as_str()).await;
        let client = connected.map_err(|error| format!("can't connect to {}: {error}", connection.url))?;
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        let look = tokio::time::interval(LOOK_INTERVAL);
        Ok(Self { client, news, look, dropped, server_error, up: true, connects })
    }

    /// Waits for a change of the connection, or [`LOOK_INTERVAL`], and notes it in `state`. `false` where the client has
    /// given up, so that a new one is needed.
    pub(in crate::source) async fn changed(&mut self, state: &SourceState) -> bool {
        tokio::select! {
            changed = self.news.changed() => if changed.is_err() {
                return false;
            },
            _ = self.look.tick() => {}
        }
        state.lost(self.take_dropped(), &"the inbox is slower than the bus");
        self.look(state);
        true
    }

    /// Waits for an echo: then the server has done all it was told before, and what it had sent before is here. Without
    /// an echo the source works all the same; only the instants after its start and before its end are less sharp.
    pub(in crate::source) async fn round_trip(&self) {
        let echo = async {
            let inbox = self.client.new_inbox();
            let mut echo = self.client.subscribe(inbox.clone()).await.ok()?;
            self.client.publish(inbox, bytes::Bytes::new()).await.ok()?;
            echo.next().await
        };
        if !matches!(tokio::time::timeout(ROUND_TRIP_DEADLINE, echo).await, Ok(Some(_))) {
            tracing::debug!("the server sent no echo");
        }
    }

    /// How often it has connected, the first time included.
    pub(in crate::source) fn connects(&self) -> u64 {
        self.connects
    }

    /// Whether it was up at the last look.
    pub(in crate::source) fn is_up(&self) -> bool {
        self.up
    }

    /// Messages that the client dropped since the last call.
    pub(in crate::source) fn take_dropped(&self) -> usize {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    fn look(&mut self, state: &SourceState) {
        let connects = self.client.statistics().connects.load(Ordering::Relaxed);
        let up = self.client.connection_state() == State::Connected;
        if let Some(error) = self.server_error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            state.failed(&format_args!("the server says: {error}"));
        }
        if connects != self.connects {
            self.connects = connects;
            state.reconnected();
        }
        if up != self.up {
            self.up = up;
            if up {
                tracing::info!(source = %state.name(), "connected again");
                state.connected();
            } else {
                state.disconnected();
                state.failed(&"the connection was lost");
            }
        }
    }
}

/// Adds who the client is, as every connection to this server says.
pub(crate) fn credentials(options: ConnectOptions, connection: &NatsConnection) -> ConnectOptions {
    let text = |secret: &crate::secret::Secret| String::from_utf8_lossy(secret.expose()).into_owned();
    match (&connection.user, &connection.password, &connection.token) {
        (Some(user), password, _) => {
            options.user_and_password(user.clone(), password.as_ref().map(text).unwrap_or_default())
        }
        (None, _, Some(token)) => options.token(text(token)),
        (None, _, None) => options,
    }
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
