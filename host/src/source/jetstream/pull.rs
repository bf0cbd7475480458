//! Pull requests over one subscription, written here rather than with the client's stream so that a drain can stop
//! asking and still take what was sent: what the server has sent and nobody takes is delivered again only after
//! `ack_wait`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer;
use tokio::time::Sleep;

use super::acks::ADDRESS_PREFIX;
use crate::source::nats::wire::headers::{Headers, status};
use crate::source::nats::wire::{Delivery, Queue, Subscription, Wire, new_inbox, publish};

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
    wire: Arc<Wire>,
    /// Where requests go.
    subject: String,
    inbox: String,
    subscription: Subscription,
    delivered: Queue,
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
    pub(super) async fn new(wire: &Arc<Wire>, consumer: &consumer::Info, streams: usize) -> Result<Self, String> {
        let config = &consumer.config;
        let inbox = new_inbox();
        let (feed, delivered) = wire.queue();
        let subscription = wire.subscribe(&inbox, None, &feed).await;
        let subscription = subscription.map_err(|error| format!("can't subscribe to be delivered to: {error}"))?;
        let expires = if config.max_expires.is_zero() { PULL_EXPIRES } else { PULL_EXPIRES.min(config.max_expires) };
        // The server asks for a heartbeat of at most half the expiry.
        let heartbeat = PULL_HEARTBEAT.min(expires / 3);
        let messages_max = share_of_messages(streams);
        let bytes_bound = positive(config.max_bytes).map_or(PULL_BYTES_MAX, |max| PULL_BYTES_MAX.min(max as u64));
        Ok(Self {
            wire: Arc::clone(wire),
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", consumer.stream_name, consumer.name),
            inbox,
            subscription,
            delivered,
            messages_max,
            batch_max: positive(config.max_batch).map_or(messages_max, |max| messages_max.min(max)),
            bytes_max: share_of_bytes(streams, wire.info().max_payload as u64).min(bytes_bound),
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
    pub(super) async fn next(&mut self) -> Result<Vec<Delivery>, String> {
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
    pub(super) fn take_ready(&mut self) -> Vec<Delivery> {
        loop {
            let chunk = self.delivered.take_ready();
            if chunk.is_empty() {
                return chunk;
            }
            self.heard();
            let messages = self.sort_out(Some(chunk));
            if !messages.is_empty() {
                return messages;
            }
        }
    }

    /// Whether it ended for a message that is larger than may be asked for.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Whether everything asked for has come.
    pub(super) fn is_fulfilled(&self) -> bool {
        self.outstanding == 0
    }

    /// Has the server send nothing more. Once this returns, all that it had sent is in [`Pull::take_ready`]; what it was
    /// about to send finds no subscription, and a server that leads the consumer gives that to another request without
    /// waiting for `ack_wait` (`didNotDeliver` in its `consumer.go`). In a cluster, what another server has sent to this one
    /// is not known to have found none, so as much as possible is to be taken before.
    pub(super) async fn stop(&mut self) {
        self.wire.unsubscribe(self.subscription, true);
        self.wire.round_trip().await;
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
        let (request, inbox) = (request.to_string(), self.inbox.as_bytes());
        let sent =
            self.wire.outgoing().send(|bytes| publish(bytes, self.subject.as_bytes(), Some(inbox), request.as_bytes()));
        sent.await.map_err(|error| format!("can't ask for messages: {error}"))?;
        self.outstanding += batch;
        self.heard();
        Ok(())
    }

    /// Keeps the messages of a chunk and follows what the server says between them.
    fn sort_out(&mut self, chunk: Option<Vec<Delivery>>) -> Vec<Delivery> {
        let Some(chunk) = chunk else {
            self.end.get_or_insert_with(|| "the connection ended the subscription".to_owned());
            return Vec::new();
        };
        let mut messages = Vec::with_capacity(chunk.len());
        for message in chunk {
            match meaning(&message, &self.inbox) {
                Meaning::Delivered => {
                    self.outstanding = self.outstanding.saturating_sub(1);
                    messages.push(message);
                }
                Meaning::Heartbeat | Meaning::Nothing => {}
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
    /// It is neither of the consumer's nor the server's.
    Nothing,
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

/// A message of the stream has where its ack goes, and the server's own words have not: what a publisher has written
/// says nothing of that.
fn meaning(message: &Delivery, inbox: &str) -> Meaning {
    if message.reply.as_ref().is_some_and(|reply| reply.starts_with(ADDRESS_PREFIX)) {
        return Meaning::Delivered;
    }
    let block = message.headers.as_deref().unwrap_or_default();
    let Some((status, words)) = status(block).filter(|_| message.subject == inbox.as_bytes()) else {
        return Meaning::Nothing;
    };
    let number = |name: &str| Headers::read(block).first(name).and_then(|value| value.parse::<u64>().ok());
    let unfulfilled = || number("Nats-Pending-Messages").and_then(|count| usize::try_from(count).ok());
    match status {
        100 => Meaning::Heartbeat,
        404 | 408 => Meaning::RequestOver { unfulfilled: unfulfilled() },
        // These end one request and say nothing against the next.
        409 if words == "Batch Completed" => Meaning::RequestOver { unfulfilled: unfulfilled() },
        409 if words == "Message Size Exceeds MaxBytes" => {
            Meaning::TooLarge { bytes_left: number("Nats-Pending-Bytes").unwrap_or(0), unfulfilled: unfulfilled() }
        }
        503 => Meaning::End("nobody answers for the consumer".to_owned()),
        status => Meaning::End(format!("the server says: {status} {words}")),
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.wire.unsubscribe(self.subscription, false);
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
    use bytes::Bytes;

    use super::*;

    fn control(status: &str, more: &str) -> Delivery {
        let block = format!("NATS/1.0 {status}\r\n{more}\r\n");
        Delivery {
            subject: Bytes::from_static(b"inbox"),
            reply: None,
            headers: Some(block.into()),
            payload: Bytes::new(),
        }
    }

    #[test]
    fn statuses_are_understood() {
        let check = |status: &str, more: &str, expected: Meaning| {
            assert_eq!(meaning(&control(status, more), "inbox"), expected, "{status}");
        };
        check("100 Idle Heartbeat", "", Meaning::Heartbeat);
        let pending = "Nats-Pending-Messages: 7\r\nNats-Pending-Bytes: 9\r\n";
        check("408 Request Timeout", pending, Meaning::RequestOver { unfulfilled: Some(7) });
        check("404 No Messages", "", Meaning::RequestOver { unfulfilled: None });
        let too_large = Meaning::TooLarge { bytes_left: 9, unfulfilled: Some(7) };
        check("409 Message Size Exceeds MaxBytes", pending, too_large);
        check("409 Consumer Deleted", "", Meaning::End("the server says: 409 Consumer Deleted".to_owned()));
        check("503", "", Meaning::End("nobody answers for the consumer".to_owned()));
    }

    #[test]
    fn what_a_publisher_wrote_is_never_the_servers_word() {
        let check = |change: fn(&mut Delivery), expected: Meaning| {
            let mut message = control("409 Consumer Deleted", "");
            change(&mut message);
            assert_eq!(meaning(&message, "inbox"), expected);
        };
        let ack = Bytes::from_static(b"$JS.ACK.s.c.1.1.1.1.0");
        check(|it| it.reply = Some(Bytes::from_static(b"$JS.ACK.s.c.1.1.1.1.0")), Meaning::Delivered);
        check(|it| it.subject = Bytes::from_static(b"e.a"), Meaning::Nothing);
        check(|it| it.headers = None, Meaning::Nothing);
        check(|it| it.headers = Some(Bytes::from_static(b"\xff")), Meaning::Nothing);
        let plain = Delivery { reply: Some(ack), headers: None, ..control("", "") };
        assert_eq!(meaning(&plain, "inbox"), Meaning::Delivered);
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
