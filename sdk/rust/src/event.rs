//! What a plugin is given.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::wirehook::plugin::types;
use crate::by_name::ByName;

/// Levels of arrays and objects within each other that an entity may have: what `serde_json` reads, and so what the
/// SDKs of the other languages read too (wit/README.md).
const DEPTH_MAX: usize = 127;
/// How `serde_json` begins to say that there are more.
const TOO_DEEP: &str = "recursion limit exceeded";

/// One message from a bus, normalised; its entity is read as `T`.
///
/// The entity is parsed when it is asked for, so an event that is passed by costs no parsing and may have any shape.
#[non_exhaustive]
pub struct Event<T = serde_json::Value> {
    /// What makes two messages the same event: the same at every redelivery, retry and redrive. Opaque.
    pub key: String,
    /// `fraiseql.{entity_type}.{operation}` for FraiseQL's formats, else the bus's own subject.
    pub subject: String,
    /// In snake_case; empty where the format was not recognised.
    pub entity_type: String,
    /// `created`, `updated`, `deleted` or `custom`; `custom` too where the format was not recognised. Pass by other words.
    pub operation: String,
    /// The entity's id, where the message has one.
    pub entity_id: Option<String>,
    /// The tenant's id, where the message has one.
    pub tenant_id: Option<String>,
    /// When the change was made or published, as the publisher wrote it; RFC 3339 in FraiseQL's formats.
    pub timestamp: Option<String>,
    /// Everything else: see [`Event::attribute`].
    pub attributes: Vec<(String, String)>,
    /// Which try of this run this is, from 1.
    pub attempt: u32,
    entity: Option<Vec<u8>>,
    previous: Option<Vec<u8>>,
    shape: PhantomData<fn() -> T>,
}

impl<T> Event<T> {
    /// The entity after the change. A struct is read by its fields' names: an array is none.
    ///
    /// # Errors
    /// The event has none, as after a deletion, or its JSON is not a `T`, or nested deeper than 127 levels. Through `?` either rejects the event.
    pub fn entity(&self) -> Result<T, EntityError>
    where
        T: DeserializeOwned,
    {
        let json = self.entity.as_deref().ok_or(EntityError::Absent)?;
        parse("entity", json)
    }

    /// The entity before the change; `None` where the publisher did not send it.
    ///
    /// # Errors
    /// Its JSON is not a `T`. Through `?` that rejects the event.
    pub fn previous(&self) -> Result<Option<T>, EntityError>
    where
        T: DeserializeOwned,
    {
        self.previous.as_deref().map(|json| parse("previous", json)).transpose()
    }

    /// The entity's JSON as it came; the whole message where the format was not recognised.
    pub fn entity_json(&self) -> Option<&[u8]> {
        self.entity.as_deref()
    }

    /// The previous entity's JSON as it came.
    pub fn previous_json(&self) -> Option<&[u8]> {
        self.previous.as_deref()
    }

    /// An attribute: `source`, `format`, `raw_subject`, and where the message has them `seq`, `traceparent`, `actor`
    /// and `header.{name}`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A header of the bus, whatever its capitals.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(known, _)| known.strip_prefix("header.").is_some_and(|header| header.eq_ignore_ascii_case(name)))
            .map(|(_, value)| value.as_str())
    }

    /// The same event with its entity read as `U`: for a plugin that tells entity types apart.
    pub fn with_shape<U>(self) -> Event<U> {
        Event {
            key: self.key,
            subject: self.subject,
            entity_type: self.entity_type,
            operation: self.operation,
            entity_id: self.entity_id,
            tenant_id: self.tenant_id,
            timestamp: self.timestamp,
            attributes: self.attributes,
            attempt: self.attempt,
            entity: self.entity,
            previous: self.previous,
            shape: PhantomData,
        }
    }

    #[doc(hidden)]
    pub fn from_contract(event: types::Event) -> Self {
        Self {
            key: event.key,
            subject: event.subject,
            entity_type: event.entity_type,
            operation: event.operation,
            entity_id: event.entity_id,
            tenant_id: event.tenant_id,
            timestamp: event.timestamp,
            attributes: event.attributes,
            attempt: event.attempt,
            entity: event.entity,
            previous: event.previous,
            shape: PhantomData,
        }
    }
}

// Derived, these two would ask the same of `T`, which the event does not hold.

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            subject: self.subject.clone(),
            entity_type: self.entity_type.clone(),
            operation: self.operation.clone(),
            entity_id: self.entity_id.clone(),
            tenant_id: self.tenant_id.clone(),
            timestamp: self.timestamp.clone(),
            attributes: self.attributes.clone(),
            attempt: self.attempt,
            entity: self.entity.clone(),
            previous: self.previous.clone(),
            shape: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("key", &self.key)
            .field("subject", &self.subject)
            .field("entity_type", &self.entity_type)
            .field("operation", &self.operation)
            .field("entity_id", &self.entity_id)
            .field("tenant_id", &self.tenant_id)
            .field("timestamp", &self.timestamp)
            .field("attributes", &self.attributes)
            .field("attempt", &self.attempt)
            .field("entity", &self.entity.as_deref().map(String::from_utf8_lossy))
            .field("previous", &self.previous.as_deref().map(String::from_utf8_lossy))
            .finish_non_exhaustive()
    }
}

fn parse<T: DeserializeOwned>(part: &'static str, json: &[u8]) -> Result<T, EntityError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = T::deserialize(ByName::new(&mut reader)).and_then(|value| reader.end().map(|()| value));
    read.map_err(|cause| match cause.to_string().starts_with(TOO_DEEP) {
        true => EntityError::Depth { part },
        false => EntityError::Shape { part, cause },
    })
}

/// Why an entity could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum EntityError {
    /// The event has no entity.
    Absent,
    /// The JSON has more than 127 levels of arrays and objects within each other.
    Depth {
        /// `entity` or `previous`.
        part: &'static str,
    },
    /// The JSON has another shape.
    Shape {
        /// `entity` or `previous`.
        part: &'static str,
        /// Where and how.
        cause: serde_json::Error,
    },
}

impl fmt::Display for EntityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the event has no entity"),
            Self::Depth { part } => write!(f, "the event's `{part}` is nested deeper than {DEPTH_MAX} levels"),
            Self::Shape { part, .. } => write!(f, "the event's `{part}` does not have the shape this plugin reads"),
        }
    }
}

impl std::error::Error for EntityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Absent | Self::Depth { .. } => None,
            Self::Shape { cause, .. } => Some(cause),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use crate::{EntityError, Event, Failure, test};

    #[derive(Deserialize, PartialEq, Debug)]
    struct Order {
        total: u32,
    }

    #[test]
    fn entities_are_read_as_the_plugins_type() {
        let event: Event<Order> =
            test::event("fraiseql.order.updated").entity(&json!({"total": 2})).previous(&json!({"total": 1})).build();
        assert_eq!(event.entity().unwrap(), Order { total: 2 });
        assert_eq!(event.previous().unwrap(), Some(Order { total: 1 }));
    }

    #[test]
    fn an_absent_entity_is_told_from_one_of_another_shape() {
        let event: Event<Order> = test::event("fraiseql.order.deleted").build();
        assert!(matches!(event.entity(), Err(EntityError::Absent)));
        assert_eq!(event.previous().unwrap(), None);

        let event: Event<Order> = test::event("fraiseql.order.created").entity(&json!({"total": "x"})).build();
        let failure = Failure::from(event.entity().unwrap_err());
        assert_eq!(
            failure,
            crate::reject(
                "the event's `entity` does not have the shape this plugin reads: \
                 invalid type: string \"x\", expected u32 at line 1 column 12"
            )
        );
    }

    #[test]
    fn another_shape_costs_nothing_until_it_is_read() {
        let event: Event<Order> = test::event("a.b").entity_bytes("not json").build();
        assert_eq!(event.entity_json(), Some(&b"not json"[..]));
        assert!(event.entity().is_err());
        assert!(event.with_shape::<serde_json::Value>().entity().is_err());
    }

    #[test]
    fn an_entity_that_is_too_deep_is_named() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let read = |levels| test::event("a.b").entity_bytes(nested(levels)).build::<serde_json::Value>().entity();
        assert!(read(super::DEPTH_MAX).is_ok());
        let failure = Failure::from(read(super::DEPTH_MAX + 1).unwrap_err());
        assert_eq!(failure, crate::reject("the event's `entity` is nested deeper than 127 levels"));
    }

    #[test]
    fn attributes_and_headers_are_found_by_name() {
        let event: Event = test::event("a").attribute("seq", "7").attribute("header.x-trace", "t").build();
        assert_eq!(event.attribute("seq"), Some("7"));
        assert_eq!(event.attribute("nothing"), None);
        assert_eq!(event.header("X-Trace"), Some("t"));
        assert_eq!(event.header("seq"), None);
    }
}
