//! What an event type of somebody else's means here: `order.created` is an order's creation.

use super::format::{ENTITY_TYPE_BYTES_MAX, HAS_NUL, TEXT_BYTES_MAX, TOO_LONG, operation};
use super::literal_subject;
use crate::event::subject::snake_case;

/// An event's type, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// The type as patterns can meet it; `None` where there is none.
    pub(super) subject: Option<String>,
    /// The token before the last, in snake_case; empty where the type has one token.
    pub(super) entity_type: String,
    /// By the last token, where that names one.
    pub(super) operation: &'static str,
}

impl Default for Kind {
    fn default() -> Self {
        Self { subject: None, entity_type: String::new(), operation: "custom" }
    }
}

impl Kind {
    /// Takes `event_type` apart, which has dots between its tokens; a version at its end (`.v2`) is passed over.
    ///
    /// # Errors
    /// With what is wrong: a NUL, or more than [`TEXT_BYTES_MAX`] bytes.
    pub(super) fn of(event_type: &str) -> Result<Self, &'static str> {
        if event_type.contains('\0') {
            return Err(HAS_NUL);
        }
        if event_type.len() > TEXT_BYTES_MAX {
            return Err(TOO_LONG);
        }
        let mut tokens: Vec<&str> = event_type.split('.').collect();
        if tokens.len() > 2 && tokens.last().is_some_and(|last| is_version(last)) {
            tokens.pop();
        }
        let last = tokens.pop().unwrap_or_default();
        let entity_type = tokens.pop().and_then(snake_case).unwrap_or_default();
        if entity_type.len() > ENTITY_TYPE_BYTES_MAX {
            return Err("names an entity in more than 255 bytes");
        }
        let operation = if entity_type.is_empty() { None } else { operation(last) };
        Ok(Self { subject: Some(literal_subject(event_type)), entity_type, operation: operation.unwrap_or("custom") })
    }
}

fn is_version(token: &str) -> bool {
    token
        .strip_prefix(['v', 'V'])
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_a_subject_an_entity_and_an_operation() {
        let check = |event_type: &str, subject: &str, entity_type: &str, operation: &str| {
            let kind = Kind::of(event_type).unwrap();
            let found = (kind.subject.as_deref(), kind.entity_type.as_str(), kind.operation);
            assert_eq!(found, (Some(subject), entity_type, operation), "{event_type}");
        };
        check("order.created", "order.created", "order", "created");
        check("fraiseql.order_line.deleted", "fraiseql.order_line.deleted", "order_line", "deleted");
        check("com.example.OrderLine.updated.v2", "com.example.OrderLine.updated.v2", "order_line", "updated");
        check("invoice.paid", "invoice.paid", "invoice", "custom");
        check("invoice.v2", "invoice.v2", "invoice", "custom");
        check("created", "created", "", "custom");
        check("ping", "ping", "", "custom");
        check("user signed up", "user_signed_up", "", "custom");
        check("order..created", "order._.created", "", "custom");
        check("*.created", "_.created", "", "custom");
        check(">", "_", "", "custom");
    }

    #[test]
    fn a_type_has_bounds() {
        assert!(Kind::of(&"t".repeat(TEXT_BYTES_MAX)).is_ok());
        assert_eq!(Kind::of(&"t".repeat(TEXT_BYTES_MAX + 1)), Err(TOO_LONG));
        assert_eq!(Kind::of("a\0b"), Err(HAS_NUL));
        assert!(Kind::of(&format!("{}.created", "e".repeat(255))).is_ok());
        assert!(Kind::of(&format!("{}.created", "e".repeat(256))).is_err());
    }
}
