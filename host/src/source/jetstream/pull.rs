//! Pull requests over one subscription, written here rather than with the client's stream so that a drain can stop
//! asking and still take what comes: what reaches a subscription that is gone is delivered again only after `ack_wait`.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{ReadyChunks, StreamExt};
use tokio::task::unconstrained;
use tokio::time::Sleep;

use crate::source::BATCH_MESSAGES_MAX;

/// Messages of a source asked for and not yet come, shared by its streams; asked for again when half of them have come.
pub(super) const PULL_MESSAGES_MAX: usize = 1024;
/// Messages that each of many streams asks for all the same.
const PULL_MESSAGES_MIN: usize = 16;
/// Bytes of a source asked for at once, shared by its streams. NATS allows no larger message.
const PULL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What the server counts of a message beyond its payload and headers: its subject and where its ack goes.
const MESSAGE_OVERHEAD_BYTES: u64 = 64 * 1024;
/// How long a pull request waits at the server.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How often an idle server says that it is alive.
const PULL_HEARTBEAT: Duration = Duration::from_secs(5);
/// How many heartbeats may be missing until the server, the stream or the consumer is thought to be gone.
const HEARTBEATS_MISSING_MAX: u32 = 3;

/// A subscription that pulls.
pub(super) struct Pull {
    client: Client,
    /// Where requests go.
    subject: String,
    inbox: String,
    delivered: ReadyChunks<Subscriber>,
    messages_max: usize,
    batch_max: usize,
    bytes_max: u64,
    /// What `bytes_max` is raised to when a message needs it.
    bytes_bound: u64,
    /// Whether a message is larger than the consumer lets anyone ask for.
    is_stuck: bool,
    expires: Duration,
    heartbeat: Duration,
    /// Messages asked for that have not come.
    outstanding: usize,
    silence: Pin<Box<Sleep>>,
    /// Why there will be no more, noted while messages before it are handed out.
    end: Option<String>,
}

impl Pull {
    /// Subscribes; asks for nothing yet. `streams` is how many the source has.
    pub(super) async fn new(client: &Client, consumer: &consumer::Info, streams: usize) -> Result<Self, String> {
        let config = &consumer.config;
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(inbox.clone()).await;
        let subscriber = subscriber.map_err(|error| format!("can't subscribe to be delivered to: {error}"))?;
        let expires = if config.max_expires.is_zero() { PULL_EXPIRES } else { PULL_EXPIRES.min(config.max_expires) };
        // The server asks for a heartbeat of at most half the expiry.
        let heartbeat = PULL_HEARTBEAT.min(expires / 3);
        let messages_max = share_of_messages(streams);
        let bytes_bound = positive(config.max_bytes).map_or(PULL_BYTES_MAX, |max| PULL_BYTES_MAX.min(max as u64));
        Ok(Self {
            client: client.clone(),
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", consumer.stream_name, consumer.name),
            inbox,
            delivered: subscriber.ready_chunks(BATCH_MESSAGES_MAX),
            messages_max,
            batch_max: positive(config.max_batch).map_or(messages_max, |max| messages_max.min(max)),
            bytes_max: share_of_bytes(streams, client.server_info().max_payload as u64).min(bytes_bound),
            bytes_bound,
            is_stuck: false,
            expires,
            heartbeat,
            outstanding: 0,
            silence: Box::pin(tokio::time::sleep(heartbeat * HEARTBEATS_MISSING_MAX)),
            end: None,
        })
    }

    /// The messages that are there, waiting for the first, and asking for more when they run short. Dropping the future
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Result<Vec<Message>, String> {
        loop {
            if let Some(end) = self.end.take() {
                return Err(end);
            }
            self.ask().await?;
            let chunk = tokio::select! {
                biased;
                chunk = self.delivered.next() => chunk,
                () = &mut self.silence => return Err("the server sends no heartbeats".to_owned()),
            };
            self.heard();
            let messages = self.sort_out(chunk);
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }

    /// The messages that are there, without waiting or asking for more; empty when there are none.
    pub(super) fn take_ready(&mut self) -> Vec<Message> {
        // The runtime's budget for one turn is smaller than what may be ready, and would pass for its end.
        while let Some(chunk) = unconstrained(self.delivered.next()).now_or_never() {
            self.heard();
            let ended = chunk.is_none();
            let messages = self.sort_out(chunk);
            if !messages.is_empty() || ended {
                return messages;
            }
        }
        Vec::new()
    }

    /// Whether it ended for a message that is larger than may be asked for.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Whether everything asked for has come.
    pub(super) fn is_fulfilled(&self) -> bool {
        self.outstanding == 0
    }

    fn heard(&mut self) {
        self.silence.set(tokio::time::sleep(self.heartbeat * HEARTBEATS_MISSING_MAX));
    }

    async fn ask(&mut self) -> Result<(), String> {
        if self.outstanding > self.messages_max / 2 {
            return Ok(());
        }
        let batch = self.batch_max.min(self.messages_max - self.outstanding);
        let request = serde_json::json!({
            "batch": batch,
            "max_bytes": self.bytes_max,
            "expires": u64::try_from(self.expires.as_nanos()).unwrap_or(u64::MAX),
            "idle_heartbeat": u64::try_from(self.heartbeat.as_nanos()).unwrap_or(u64::MAX),
        });
        let sent =
            self.client.publish_with_reply(self.subject.clone(), self.inbox.clone(), Bytes::from(request.to_string()));
        sent.await.map_err(|error| format!("can't ask for messages: {error}"))?;
        self.outstanding += batch;
        self.heard();
        Ok(())
    }

    /// Keeps the messages of a chunk and follows what the server says between them.
    fn sort_out(&mut self, chunk: Option<Vec<Message>>) -> Vec<Message> {
        let Some(chunk) = chunk else {
            self.end.get_or_insert_with(|| "the connection ended the subscription".to_owned());
            return Vec::new();
        };
        let mut messages = Vec::with_capacity(chunk.len());
        for message in chunk {
            match meaning(&message) {
                Meaning::Delivered => {
                    self.outstanding = self.outstanding.saturating_sub(1);
                    messages.push(message);
                }
                Meaning::Heartbeat => {}
                Meaning::TooLarge { bytes_left, .. } if bytes_left >= self.bytes_bound => {
                    self.is_stuck = true;
                    let bound = self.bytes_bound;
                    let error = format!("a message is larger than the consumer's max_bytes of {bound}; raise it");
                    self.end.get_or_insert(error);
                }
                Meaning::TooLarge { bytes_left, unfulfilled } => {
                    if bytes_left >= self.bytes_max {
                        self.bytes_max = self.bytes_bound;
                    }
                    self.outstanding = unfulfilled.map_or(0, |count| self.outstanding.saturating_sub(count));
                }
                Meaning::RequestOver { unfulfilled } => {
                    self.outstanding = unfulfilled.map_or(0, |count| self.outstanding.saturating_sub(count));
                }
                Meaning::End(error) => drop(self.end.get_or_insert(error)),
            }
        }
        messages
    }
}

/// What the server says with one message.
#[derive(PartialEq, Eq, Debug)]
enum Meaning {
    Delivered,
    Heartbeat,
    /// A request is over; so many messages of it will not come, where the server says.
    RequestOver {
        unfulfilled: Option<usize>,
    },
    /// The next message has more bytes than the request had left.
    TooLarge {
        bytes_left: u64,
        unfulfilled: Option<usize>,
    },
    /// Asking again is in vain.
    End(String),
}

fn meaning(message: &Message) -> Meaning {
    let description = message.description.as_deref().unwrap_or_default();
    let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str());
    let unfulfilled = header("Nats-Pending-Messages").and_then(|pending| pending.parse().ok());
    match message.status.unwrap_or(StatusCode::OK).as_u16() {
        200 => Meaning::Delivered,
        100 => Meaning::Heartbeat,
        404 | 408 => Meaning::RequestOver { unfulfilled },
        // These end one request and say nothing against the next.
        409 if description == "Batch Completed" => Meaning::RequestOver { unfulfilled },
        409 if description == "Message Size Exceeds MaxBytes" => {
            let bytes_left = header("Nats-Pending-Bytes").and_then(|pending| pending.parse().ok());
            Meaning::TooLarge { bytes_left: bytes_left.unwrap_or(0), unfulfilled }
        }
        503 => Meaning::End("nobody answers for the consumer".to_owned()),
        status => Meaning::End(format!("the server says: {status} {description}")),
    }
}

/// Of [`PULL_MESSAGES_MAX`], for each of so many streams.
fn share_of_messages(streams: usize) -> usize {
    (PULL_MESSAGES_MAX / streams.max(1)).max(PULL_MESSAGES_MIN)
}

/// Of [`PULL_BYTES_MAX`], for each of so many streams; at least the largest message that the server takes.
fn share_of_bytes(streams: usize, payload_max: u64) -> u64 {
    (PULL_BYTES_MAX / (streams.max(1) as u64))
        .max(payload_max.saturating_add(MESSAGE_OVERHEAD_BYTES))
        .min(PULL_BYTES_MAX)
}

/// A bound of the consumer's, where it has one.
fn positive(bound: i64) -> Option<usize> {
    usize::try_from(bound).ok().filter(|bound| *bound > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_understood() {
        let check = |status: Option<u16>, description: &str, pending: Option<&str>, expected: Meaning| {
            let headers = pending.map(|pending| {
                async_nats::HeaderMap::from_iter([(
                    "Nats-Pending-Messages".parse::<async_nats::HeaderName>().unwrap(),
                    pending.parse::<async_nats::HeaderValue>().unwrap(),
                )])
            });
            let message = Message {
                subject: "s".into(),
                reply: None,
                payload: Bytes::new(),
                headers,
                status: status.map(|status| StatusCode::from_u16(status).unwrap()),
                description: Some(description.to_owned()),
                length: 0,
            };
            assert_eq!(meaning(&message), expected);
        };
        check(None, "", None, Meaning::Delivered);
        check(Some(100), "Idle Heartbeat", None, Meaning::Heartbeat);
        check(Some(408), "Request Timeout", Some("7"), Meaning::RequestOver { unfulfilled: Some(7) });
        check(Some(404), "No Messages", None, Meaning::RequestOver { unfulfilled: None });
        let too_large = Meaning::TooLarge { bytes_left: 0, unfulfilled: Some(3) };
        check(Some(409), "Message Size Exceeds MaxBytes", Some("3"), too_large);
        check(Some(409), "Consumer Deleted", None, Meaning::End("the server says: 409 Consumer Deleted".to_owned()));
        check(Some(503), "", None, Meaning::End("nobody answers for the consumer".to_owned()));
    }
    #[test]
    fn streams_share_what_a_source_asks_for() {
        let check = |streams: usize, messages: usize, bytes: u64| {
            assert_eq!((share_of_messages(streams), share_of_bytes(streams, 1 << 20)), (messages, bytes), "{streams}");
        };
        check(1, 1024, 64 << 20);
        check(8, 128, 8 << 20);
        check(1024, 16, (1 << 20) + (64 << 10));
        assert_eq!(share_of_bytes(8, 64 << 20), PULL_BYTES_MAX);
    }
}
