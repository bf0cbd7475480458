//! One connection of a source to a NATS server, and what happens to it. It does not come back: the source makes another,
//! with credentials read anew.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Interval;
use url::Url;

use super::connect::{self, ConnectError};
use super::denial::Denial;
use super::wire::headers::Headers;
use super::wire::{Delivery, Wire};
use crate::event::Message;
use crate::settings::NatsConnection;
use crate::source::SourceState;

/// How often it is looked at what was dropped, which is told with no message.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A connection, and news of it.
#[derive(Debug)]
pub(in crate::source) struct Link {
    pub(in crate::source) wire: Arc<Wire>,
    changes: watch::Receiver<u64>,
    look: Interval,
}

/// What a look at a connection shows.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::source) enum News {
    /// It is up.
    Alive,
    /// It is up, and the server forbids something.
    Denied(Denial),
    /// It has ended, for this reason: a new one is needed.
    Closed(String),
}

impl Link {
    /// Connects once, to the first server that can be had. `told` are servers that an earlier one told of.
    ///
    /// # Errors
    ///
    /// When all servers are down or refuse, or a file of the settings can't be used.
    pub(in crate::source) async fn connect(
        source: &str,
        connection: &NatsConnection,
        told: &mut Vec<Url>,
    ) -> Result<Self, ConnectError> {
        let wire = Arc::new(connect::wire(connection, &format!("wirehook-{source}"), told).await?);
        tracing::debug!(source, address = %wire.url(), "connected to a server");
        let changes = wire.changes();
        Ok(Self { wire, changes, look: tokio::time::interval(LOOK_INTERVAL) })
    }

    /// Waits for a change of the connection, or [`LOOK_INTERVAL`], and notes it in `state`.
    pub(in crate::source) async fn changed(&mut self, state: &SourceState) -> News {
        tokio::select! {
            // Its sender lives as long as the wire.
            _ = self.changes.changed() => {}
            _ = self.look.tick() => {}
        }
        state.lost(self.wire.take_dropped(), &"the inbox is slower than the bus");
        if let Some(why) = self.wire.end() {
            return News::Closed(why.to_owned());
        }
        while let Some(words) = self.wire.next_error() {
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

    /// Whether it is up now.
    pub(in crate::source) fn is_up(&self) -> bool {
        self.wire.end().is_none()
    }
}

/// A message's headers, as far as they can be read.
pub(in crate::source) fn headers(delivery: &Delivery) -> Headers {
    delivery.headers.as_deref().map(Headers::read).unwrap_or_default()
}

/// A message of the bus as the inbox takes it, and whether something of it could not be read: then its subject has
/// replacement characters, or headers are left out.
pub(in crate::source) fn message(delivery: Delivery, headers: Headers, position: Option<String>) -> (Message, bool) {
    let lossy = String::from_utf8_lossy(&delivery.subject);
    let is_text = matches!(lossy, Cow::Borrowed(_)) && !lossy.contains(char::is_control);
    let subject: Arc<str> = match is_text {
        true => lossy.as_ref().into(),
        false => lossy.replace(char::is_control, "\u{fffd}").into(),
    };
    let is_odd = !is_text || headers.dropped > 0;
    (Message { subject, payload: delivery.payload, headers: headers.kept, position }, is_odd)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_can_be_read_of_a_message_is_taken() {
        let check = |subject: &[u8], block: Option<&[u8]>, expected: (&str, usize, bool)| {
            let bytes = Bytes::copy_from_slice;
            let delivery =
                Delivery { subject: bytes(subject), reply: None, headers: block.map(bytes), payload: bytes(b"{}") };
            let headers = headers(&delivery);
            let (message, is_odd) = message(delivery, headers, None);
            assert_eq!((&*message.subject, message.headers.len(), is_odd), expected);
        };
        check(b"e.a", None, ("e.a", 0, false));
        check(b"e.a", Some(b"NATS/1.0\r\nA: 1\r\n\r\n"), ("e.a", 1, false));
        check(b"e.a", Some(b"NATS/1.0\r\nA: 1\r\nb c: 1\r\n\r\n"), ("e.a", 1, true));
        check(b"e.\xff\r", None, ("e.\u{fffd}\u{fffd}", 0, true));
    }
}
