//! One event in the format of FraiseQL's page, made of what a user says on the command line.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Outgoing;
use crate::clock::Timestamp;
use crate::event::decode::ENTITY_TYPE_BYTES_MAX;
use crate::event::subject::snake_case;

/// The operations of the page's format.
pub const OPERATIONS: [&str; 4] = ["created", "updated", "deleted", "custom"];

/// What an event is of: `order.created`, or `fraiseql.order.created`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// In snake_case.
    pub entity_type: String,
    /// One of [`OPERATIONS`].
    pub operation: &'static str,
}

impl Happening {
    /// Reads `order.created`; `None` where it is none.
    pub fn of(text: &str) -> Option<Self> {
        let (entity_type, operation) = text.strip_prefix("fraiseql.").unwrap_or(text).rsplit_once('.')?;
        let operation = OPERATIONS.into_iter().find(|known| *known == operation)?;
        let fits = entity_type.len() <= ENTITY_TYPE_BYTES_MAX && !entity_type.contains(['.', '/']);
        let entity_type = snake_case(entity_type).filter(|_| fits)?;
        Some(Self { entity_type, operation })
    }

    /// Where an application publishes it on NATS.
    pub fn subject(&self) -> String {
        format!("fraiseql.{}.{}", self.entity_type, self.operation)
    }
}

/// What is said of the entity.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its JSON.
    pub entity: Option<Value>,
    /// Its id; else the entity's own `id`, else a new one for each event.
    pub entity_id: Option<String>,
    /// Whose it is.
    pub tenant: Option<String>,
}

/// `count` events at `now`. `rng` makes the ids that nobody said.
pub fn compose(
    happening: &Happening,
    said: &Said,
    count: u64,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) -> Vec<Outgoing> {
    (0..count).map(|_| one(happening, said, now, rng)).collect()
}

fn one(happening: &Happening, said: &Said, now: Timestamp, rng: &mut fastrand::Rng) -> Outgoing {
    let own_id = said.entity.as_ref().and_then(|entity| match entity.get("id")? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    });
    let id = said.entity_id.clone().or(own_id).unwrap_or_else(|| uuid(rng));
    // What is deleted has no record any more, unless somebody says one.
    let nothing_said = || if happening.operation == "deleted" { Value::Null } else { json!({ "id": id }) };
    let entity = said.entity.clone().unwrap_or_else(nothing_said);
    let subject = happening.subject();
    let mut event = Map::new();
    event.insert("event".to_owned(), subject.clone().into());
    event.insert("entity_type".to_owned(), happening.entity_type.clone().into());
    event.insert("operation".to_owned(), happening.operation.into());
    event.insert("entity_id".to_owned(), id.into());
    if let Some(tenant) = &said.tenant {
        event.insert("tenant_id".to_owned(), tenant.clone().into());
    }
    event.insert("entity".to_owned(), entity);
    event.insert("timestamp".to_owned(), now.to_string().into());
    let payload = Bytes::from(Value::Object(event).to_string());
    Outgoing { line: 1, payload, subject: Some(subject) }
}

/// A UUID of version 4.
pub fn uuid(rng: &mut fastrand::Rng) -> String {
    let bits = rng.u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_by_type_and_operation() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Happening::of(text).map(|happening| happening.subject()).as_deref(), expected, "{text}");
        };
        check("order.created", Some("fraiseql.order.created"));
        check("fraiseql.order.deleted", Some("fraiseql.order.deleted"));
        check("OrderLine.updated", Some("fraiseql.order_line.updated"));
        check("fraiseql.custom", None);
        check("order.shipped", None);
        check("shop.order.created", None);
        check(".created", None);
        check("./order.created", None);
        check("order", None);
        check("events.jsonl", None);
    }

    #[test]
    fn events_are_in_the_pages_format_and_each_has_its_entity() {
        let happening = Happening::of("order.created").unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut compose = |said: &Said, count| -> Vec<Value> {
            let events = compose(&happening, said, count, Timestamp(0), &mut rng);
            events.iter().map(|event| serde_json::from_slice(&event.payload).unwrap()).collect()
        };
        let events = compose(&Said::default(), 2);
        assert_eq!(events[0]["event"], "fraiseql.order.created");
        assert_eq!(events[0]["entity"]["id"], events[0]["entity_id"]);
        assert_eq!(events[0]["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_ne!(events[0]["entity_id"], events[1]["entity_id"]);
        assert_eq!(events[0].get("tenant_id"), None);
        let said = Said { entity: Some(json!({"id": 7, "total": 1})), tenant: Some("t1".to_owned()), entity_id: None };
        let event = &compose(&said, 1)[0];
        assert_eq!(
            (&event["entity_id"], &event["entity"]["total"], &event["tenant_id"]),
            (&json!("7"), &json!(1), &json!("t1"))
        );
        let said = Said { entity_id: Some("x".to_owned()), ..said };
        assert_eq!(compose(&said, 1)[0]["entity_id"], "x");
    }

    #[test]
    fn what_is_deleted_has_no_record() {
        let happening = Happening::of("order.deleted").unwrap();
        let events = compose(&happening, &Said::default(), 1, Timestamp(0), &mut fastrand::Rng::with_seed(1));
        let event: Value = serde_json::from_slice(&events[0].payload).unwrap();
        assert_eq!(event["entity"], Value::Null);
    }

    #[test]
    fn ids_are_uuids_of_version_4() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let id = uuid(&mut rng);
            assert_eq!((id.len(), &id[14..15]), (36, "4"));
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        }
    }
}
