//! One message from a bus, normalised.

pub mod decode;
pub mod order;
pub mod subject;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use order::OrderKey;

/// A message as a source received it: nothing decided yet.
#[derive(Clone, Debug)]
pub struct Message {
    /// The bus's own subject, channel or path.
    pub subject: Arc<str>,
    /// The body, as it came.
    pub payload: Bytes,
    /// Headers of the bus, in order; none where the bus has none.
    pub headers: Vec<(String, String)>,
    /// Where the bus keeps it, where the bus keeps anything: unique within the source, the same at every redelivery
    /// (JetStream: `{stream}:{created}:{sequence}`).
    pub position: Option<String>,
}

/// What makes two messages the same event: `{source}/{kind}/{value}`. Kinds: `seq`, `ce`, `id`, `msg-id`, `position`,
/// `once`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EventKey(Arc<str>);

impl EventKey {
    /// The key of `value` within `kind` within `source`.
    pub fn new(source: &str, kind: &str, value: impl fmt::Display) -> Self {
        Self(format!("{source}/{kind}/{value}").into())
    }

    /// A key as the store keeps it.
    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message from a bus, normalised; what a plugin is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Identity: the same at every redelivery.
    pub key: EventKey,
    /// The source's name.
    pub source: Arc<str>,
    /// `fraiseql.{entity_type}.{operation}` for a recognised format, else the bus's own subject.
    pub subject: String,
    /// In snake_case; empty where the format is not recognised.
    pub entity_type: String,
    /// `created`, `updated`, `deleted` or `custom`.
    pub operation: String,
    /// The entity's id, where the message has one.
    pub entity_id: Option<String>,
    /// The tenant, where the message has one.
    pub tenant_id: Option<String>,
    /// As the message has it; RFC 3339 in every recognised format.
    pub timestamp: Option<String>,
    /// JSON of the entity (after the change); the whole message where the format is not recognised.
    pub entity: Option<Bytes>,
    /// JSON of the entity before the change.
    pub previous: Option<Bytes>,
    /// What may grow: `source`, `format`, `raw_subject`, `seq`, `traceparent`, `actor`, `header.{name}`.
    pub attributes: Vec<(String, String)>,
    /// The first 16 bytes of a SHA-256, which tell a redelivery from a conflict: of the change where the message's own
    /// `seq` or id names it (type, operation, entity id, tenant, entity, previous), else of its whole body.
    pub body_digest: [u8; 16],
}

impl Event {
    /// Bytes of its entity, before and after the change, and of its texts: what it takes in memory and on disk, but for a
    /// bounded rest.
    pub fn content_bytes(&self) -> usize {
        let json = [&self.entity, &self.previous].into_iter().flatten().map(Bytes::len).sum::<usize>();
        let texts = [&self.entity_id, &self.tenant_id, &self.timestamp].into_iter().flatten().map(String::len);
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + value.len());
        let named = self.key.as_str().len() + self.subject.len() + self.entity_type.len();
        json + named + texts.sum::<usize>() + attributes.sum::<usize>()
    }
}
