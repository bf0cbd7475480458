//! Where acks go: to the connection that is there now. An ack is addressed to a message, whatever connection brought it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::source::nats::wire::{Outgoing, publish};

/// How long sending the acks of one batch may take. While the connection is down they wait; what is not sent in time is
/// delivered again, and is a duplicate.
const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// How a message is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ack {
    Done,
    /// Delivery again, after a while or at once.
    Again(Option<Duration>),
    /// It still waits.
    Progress,
}

impl Ack {
    fn body(self) -> String {
        match self {
            Self::Done => "+ACK".to_owned(),
            Self::Again(None) => "-NAK".to_owned(),
            Self::Again(Some(delay)) => format!("-NAK {{\"delay\":{}}}", delay.as_nanos()),
            Self::Progress => "+WPI".to_owned(),
        }
    }
}

/// The way that acks take.
#[derive(Clone, Debug)]
enum Way {
    Open(Arc<Outgoing>),
    /// There is no connection, and will be one.
    Down,
    /// There will be none.
    Gone,
}

/// What sends acks. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Acks(Arc<watch::Sender<Way>>);

impl Acks {
    /// Without a connection yet.
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Way::Down)))
    }

    /// They go this way from now on.
    pub(super) fn open(&self, outgoing: &Arc<Outgoing>) {
        self.0.send_replace(Way::Open(Arc::clone(outgoing)));
    }

    /// The connection is lost: they wait for another.
    pub(super) fn down(&self) {
        self.0.send_replace(Way::Down);
    }

    /// There is no other: none waits any more.
    pub(super) fn gone(&self) {
        self.0.send_replace(Way::Gone);
    }

    /// Sends one kind of ack for all, without a round trip. What can't be sent is delivered again.
    pub(super) async fn settle(&self, replies: &[Bytes], ack: Ack) {
        if replies.is_empty() || (ack == Ack::Progress && matches!(*self.0.borrow(), Way::Down)) {
            return;
        }
        if tokio::time::timeout(ACK_DEADLINE, self.send(replies, &ack.body())).await.is_err() {
            tracing::debug!(messages = replies.len(), "acks could not be sent in time");
        }
    }

    async fn send(&self, replies: &[Bytes], body: &str) {
        let mut changes = self.0.subscribe();
        loop {
            let way = changes.borrow_and_update().clone();
            match way {
                Way::Gone => return,
                Way::Open(outgoing) => {
                    let all = outgoing.send(|bytes| {
                        replies.iter().for_each(|reply| publish(bytes, reply, None, body.as_bytes()));
                    });
                    if all.await.is_ok() {
                        return;
                    }
                }
                Way::Down => {}
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What the address of an ack says of its message:
/// `$JS.ACK.{stream}.{consumer}.{deliveries}.{sequence}.{consumer sequence}.{time}.{pending}`, where newer servers have a
/// domain and an account before the stream, and may have more behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address<'a> {
    pub(super) stream: &'a str,
    pub(super) sequence: u64,
}

/// How the addresses of acks begin.
pub(super) const ADDRESS_PREFIX: &[u8] = b"$JS.ACK.";

impl<'a> Address<'a> {
    /// None where it is none.
    pub(super) fn read(reply: &'a [u8]) -> Option<Self> {
        let rest = std::str::from_utf8(reply.strip_prefix(ADDRESS_PREFIX)?).ok()?;
        let tokens: Vec<&str> = rest.split('.').collect();
        let first = match tokens.len() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        Some(Self { stream: tokens[first], sequence: tokens[first + 3].parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_address_names_its_message() {
        let check = |reply: &[u8], expected: Option<(&str, u64)>| {
            let expected = expected.map(|(stream, sequence)| Address { stream, sequence });
            assert_eq!(Address::read(reply), expected, "{}", reply.escape_ascii());
        };
        check(b"$JS.ACK.events.wirehook-bus.1.42.7.1700000000000000000.0", Some(("events", 42)));
        check(b"$JS.ACK.hub.ABC.events.wirehook-bus.1.42.7.1700000000000000000.0", Some(("events", 42)));
        check(b"$JS.ACK._.ABC.events.wirehook-bus.1.42.7.1700000000000000000.0.x", Some(("events", 42)));
        check(b"$JS.ACK.events.wirehook-bus.1.x.7.1.0", None);
        check(b"$JS.ACK.events", None);
        check(b"$JS.ACK.\xff.a.1.1.1.1.1", None);
        check(b"reply", None);
    }

    #[tokio::test]
    async fn acks_wait_for_a_connection_and_for_none_that_does_not_come() {
        let acks = Acks::new();
        let replies = [Bytes::from_static(b"$JS.ACK.1"), Bytes::from_static(b"$JS.ACK.2")];
        let mut settled = Box::pin(acks.settle(&replies, Ack::Again(Some(Duration::from_millis(3)))));
        assert_eq!((&mut settled).now_or_never(), None);
        let outgoing = Arc::<Outgoing>::default();
        acks.open(&outgoing);
        settled.await;
        let expected =
            "PUB $JS.ACK.1 22\r\n-NAK {\"delay\":3000000}\r\nPUB $JS.ACK.2 22\r\n-NAK {\"delay\":3000000}\r\n";
        assert_eq!(&outgoing.take().await[..], expected.as_bytes());
        acks.down();
        let mut settled = Box::pin(acks.settle(&replies, Ack::Done));
        assert_eq!((&mut settled).now_or_never(), None);
        acks.gone();
        settled.await;
    }
}
