//! A NATS connection for receiving: it takes whatever bytes a publisher has written, which a client library refuses by
//! ending the connection. Lengths stand before every message, so that no content of one can hide the next.

mod connection;
mod greeting;
mod handshake;
pub(in crate::source) mod headers;
mod outgoing;
mod parse;

use bytes::Bytes;

pub(in crate::source) use self::connection::{Feed, Queue, RequestError, Subscription, Wire, new_inbox};
pub(in crate::source) use self::greeting::Identity;
pub(in crate::source) use self::handshake::{HandshakeError, Terms};
pub(in crate::source) use self::outgoing::{Closed, Outgoing, publish};

/// A message as the server handed it over: bytes that a publisher may have chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) struct Delivery {
    /// Without blanks and line feeds; nothing else is sure.
    pub(in crate::source) subject: Bytes,
    /// Where an answer or an ack goes.
    pub(in crate::source) reply: Option<Bytes>,
    /// The header block, its version line included.
    pub(in crate::source) headers: Option<Bytes>,
    /// The body.
    pub(in crate::source) payload: Bytes,
}

impl Delivery {
    /// Bytes that it holds.
    pub(in crate::source) fn len(&self) -> usize {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        self.subject.len() + optional(&self.reply) + optional(&self.headers) + self.payload.len()
    }
}
