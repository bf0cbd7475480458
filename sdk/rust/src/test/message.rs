//! From a message in one of FraiseQL's formats to the event that a plugin sees.

use serde_json::{Map, Value};

use super::{EventBuilder, event};
use crate::Event;

/// The event that the host makes of a message: FraiseQL's page format, `EntityEvent`, `ChangeEvent` and outbox rows by
/// their members, other JSON as the whole message under the subject `test`.
///
/// It is meant for fixtures. Where a message is odd (half of a format, a member of the wrong type), the host is
/// stricter: it makes a dead letter of it.
///
/// # Panics
/// The message is not JSON.
#[track_caller]
pub fn from_message<T>(message: impl AsRef<[u8]>) -> Event<T> {
    let message = message.as_ref();
    let value: Value = match serde_json::from_slice(message) {
        Ok(value) => value,
        Err(error) => panic!("the message is not JSON: {error}: {}", String::from_utf8_lossy(message)),
    };
    let Some((format, members)) = value.as_object().and_then(|members| Some((Format::of(members)?, members))) else {
        return event("test").entity_bytes(message).build();
    };
    format.read(members).build()
}

/// Which members hold what.
struct Format {
    name: &'static str,
    entity_type: &'static str,
    operation: &'static str,
    entity_id: &'static str,
    entity: &'static str,
    previous: &'static str,
    timestamp: &'static str,
}

const FORMATS: [Format; 4] = [
    Format {
        name: "page",
        entity_type: "entity_type",
        operation: "operation",
        entity_id: "entity_id",
        entity: "entity",
        previous: "previous",
        timestamp: "timestamp",
    },
    Format {
        name: "entity_event",
        entity_type: "entity_type",
        operation: "event_type",
        entity_id: "entity_id",
        entity: "data",
        previous: "before",
        timestamp: "timestamp",
    },
    Format {
        name: "change_event",
        entity_type: "object_type",
        operation: "op",
        entity_id: "object_id",
        entity: "after",
        previous: "before",
        timestamp: "commit_time",
    },
    Format {
        name: "outbox",
        entity_type: "object_type",
        operation: "modification_type",
        entity_id: "object_id",
        entity: "object_data",
        previous: "object_data_before",
        timestamp: "commit_time",
    },
];

impl Format {
    fn of(members: &Map<String, Value>) -> Option<&'static Self> {
        let text = |name| members.get(name).is_some_and(Value::is_string);
        FORMATS.iter().find(|format| text(format.entity_type) && text(format.operation))
    }

    fn read(&self, members: &Map<String, Value>) -> EventBuilder {
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let present = |name: &str| members.get(name).filter(|value| !value.is_null());

        let entity_type = snake_case(text(self.entity_type).unwrap_or_default());
        let operation = operation(text(self.operation).unwrap_or_default());
        let mut event = event(format!("fraiseql.{entity_type}.{operation}")).attribute("format", self.name);
        if let Some(seq) = present("seq").and_then(scalar) {
            event = event.key(format!("test/seq/{entity_type}:{seq}"));
        } else if let Some(id) = present("id").and_then(scalar) {
            event = event.key(format!("test/id/{id}"));
        }
        if let Some(id) = present(self.entity_id).and_then(scalar) {
            event = event.entity_id(id);
        }
        if let Some(id) = present("tenant_id").and_then(scalar) {
            event = event.tenant_id(id);
        }
        if let Some(timestamp) = text(self.timestamp) {
            event = event.timestamp(timestamp);
        }
        if let Some(entity) = present(self.entity) {
            event = event.entity(entity);
        }
        if let Some(previous) = present(self.previous) {
            event = event.previous(previous);
        }
        for (name, member) in [("seq", "seq"), ("traceparent", "trace_context"), ("actor", "actor_type")] {
            if let Some(value) = present(member).and_then(scalar) {
                event = event.attribute(name, value);
            }
        }
        event
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The contract's word for a publisher's verb; other verbs as they are, in lower case.
fn operation(verb: &str) -> String {
    match verb.to_ascii_lowercase().as_str() {
        "insert" => "created".to_owned(),
        "update" => "updated".to_owned(),
        "delete" => "deleted".to_owned(),
        other => other.to_owned(),
    }
}

/// `OrderLine`, `orderLine` and `order_line` are all `order_line`; `HTTPRoute` is `http_route`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (index, &letter) in letters.iter().enumerate() {
        if letter.is_uppercase() {
            let before = index.checked_sub(1).map(|before| letters[before]);
            let begins_word = before.is_some_and(|before| before.is_lowercase() || before.is_ascii_digit())
                || (before.is_some_and(char::is_uppercase)
                    && letters.get(index + 1).is_some_and(|next| next.is_lowercase()));
            if begins_word {
                snake.push('_');
            }
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::{from_message, snake_case};
    use crate::Event;

    fn check(message: &serde_json::Value, subject: &str, key: &str, format: &str, entity: Option<&str>) {
        let event: Event = from_message(message.to_string());
        assert_eq!(event.subject, subject);
        assert_eq!(event.key, key);
        assert_eq!(event.attribute("format"), Some(format));
        assert_eq!(event.entity_json().map(|json| String::from_utf8_lossy(json).into_owned()).as_deref(), entity);
    }

    #[test]
    fn the_page() {
        let message = json!({"event": "fraiseql.order.created", "entity_type": "order", "operation": "created",
            "entity_id": "550e8400", "entity": {"total": 129.5}, "timestamp": "2026-03-02T14:00:00Z"});
        check(&message, "fraiseql.order.created", "test/once/1", "page", Some(r#"{"total":129.5}"#));
        let event: Event = from_message(message.to_string());
        assert_eq!(event.entity_id.as_deref(), Some("550e8400"));
        assert_eq!(event.timestamp.as_deref(), Some("2026-03-02T14:00:00Z"));
        assert_eq!((event.entity_type.as_str(), event.operation.as_str()), ("order", "created"));
        assert_eq!(event.attempt, 1);
    }

    #[test]
    fn an_entity_event() {
        let message = json!({"id": "2222", "event_type": "INSERT", "entity_type": "OrderLine", "entity_id": "3333",
            "data": {"total": 100}, "changes": null, "user_id": null, "timestamp": "2026-01-22T10:00:00Z"});
        check(&message, "fraiseql.order_line.created", "test/id/2222", "entity_event", Some(r#"{"total":100}"#));
    }

    #[test]
    fn a_change_event() {
        let message = json!({"seq": 7, "object_type": "Order", "op": "update", "tenant_id": "t", "object_id": "3333",
            "after": {"v": 2}, "before": {"v": 1}, "commit_time": null});
        check(&message, "fraiseql.order.updated", "test/seq/order:7", "change_event", Some(r#"{"v":2}"#));
        let event: Event = from_message(message.to_string());
        assert_eq!(event.previous_json(), Some(&br#"{"v":1}"#[..]));
        assert_eq!(event.tenant_id.as_deref(), Some("t"));
        assert_eq!(event.attribute("seq"), Some("7"));
        assert_eq!(event.timestamp, None);
    }

    #[test]
    fn an_outbox_row() {
        let message = json!({"id": "4444", "object_type": "Order", "modification_type": "DELETE", "object_id": "3333",
            "object_data": null});
        check(&message, "fraiseql.order.deleted", "test/id/4444", "outbox", None);
    }

    #[test]
    fn other_json() {
        check(&json!([1, 2]), "test", "test/once/1", "json", Some("[1,2]"));
    }

    #[test]
    fn names_become_snake_case() {
        for (name, expected) in [
            ("order", "order"),
            ("Order", "order"),
            ("OrderLine", "order_line"),
            ("orderLine", "order_line"),
            ("order_line", "order_line"),
            ("HTTPRoute", "http_route"),
            ("V2Order", "v2_order"),
        ] {
            assert_eq!(snake_case(name), expected, "{name}");
        }
    }
}
