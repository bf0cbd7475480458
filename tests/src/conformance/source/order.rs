//! The event that every scenario publishes, in each format that a bus carries.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::events::{entity_id, page_event};

/// What a message is filled up to, in bytes, where a scenario does not say.
pub const ORDER_BYTES: usize = crate::events::ORDER_BYTES;

/// Order `number` was created. The same number is the same event on every bus.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// By which its webhook is recognised.
    pub number: usize,
    /// What its message is filled up to.
    pub message_bytes: usize,
}

impl Order {
    /// An order of the usual size.
    pub fn new(number: usize) -> Self {
        Self { number, message_bytes: ORDER_BYTES }
    }

    /// An order whose message has a size of its own.
    pub fn sized(number: usize, message_bytes: usize) -> Self {
        Self { number, message_bytes }
    }

    /// A UUID.
    pub fn entity_id(&self) -> String {
        entity_id(self.number)
    }

    /// As the page has it: `event`, `entity_type`, `operation`, `entity_id`, `entity`, and no id.
    pub fn page(&self) -> Bytes {
        self.filled(|order| page_event("order", "created", self.number, order).body)
    }

    /// As a `[cdc_outbound]` server has it: `ChangeEvent`, whose identity is its type and `seq`.
    pub fn change_event(&self) -> Bytes {
        self.filled(|order| {
            let event = json!({
                "seq": self.number + 1, "object_type": "Order", "op": "insert", "tenant_id": null,
                "object_id": self.entity_id(), "after": order, "before": null, "commit_time": "2026-03-02T14:00:00Z",
            });
            event.to_string().into()
        })
    }

    /// As FraiseQL's `NatsTransport` has it: `EntityEvent`, which has an id.
    pub fn entity_event(&self) -> Bytes {
        self.filled(|order| {
            let event = json!({
                "id": format!("22222222-2222-2222-2222-{:012x}", self.number), "event_type": "INSERT",
                "entity_type": "Order", "entity_id": self.entity_id(), "data": order, "changes": null,
                "user_id": null, "timestamp": "2026-03-02T14:00:00Z",
            });
            event.to_string().into()
        })
    }

    /// The order itself, filled up to about the message's size: for a bus that makes the message of parts.
    pub fn entity(&self) -> Value {
        self.entity_with_note(self.message_bytes.saturating_sub(self.page_bytes()))
    }

    /// The body of the webhook that the `orders` plugin makes of it.
    pub fn webhook(&self) -> Value {
        let entity = self.entity_with_note(0);
        json!({
            "event": "order.created",
            "order_id": self.entity_id(),
            "customer_email": entity["customer_email"],
            "total": entity["total"],
        })
    }

    /// The note is put into the text, which costs a fraction of writing it as JSON.
    fn filled(&self, message: impl Fn(&Value) -> Bytes) -> Bytes {
        let bare = message(&self.entity_with_note(0));
        let note = b"\"note\":\"";
        let inside = bare.windows(note.len()).position(|window| window == note).map_or(0, |found| found + note.len());
        let filling = vec![b'-'; self.message_bytes.saturating_sub(bare.len())];
        [&bare[..inside], &filling, &bare[inside..]].concat().into()
    }

    fn page_bytes(&self) -> usize {
        page_event("order", "created", self.number, &self.entity_with_note(0)).body.len()
    }

    fn entity_with_note(&self, note_bytes: usize) -> Value {
        json!({
            "id": self.entity_id(),
            "customer_email": format!("customer-{}@example.com", self.number),
            "total": 129.5,
            "status": "pending",
            "note": "-".repeat(note_bytes),
        })
    }
}

/// The number of the order that a webhook of the `orders` plugin is about.
pub(super) fn number_of(webhook_body: &[u8]) -> Option<usize> {
    let id = crate::events::order_id(webhook_body)?;
    usize::from_str_radix(id.rsplit_once('-')?.1, 16).ok()
}

/// The number of the order that a message in any format is about.
pub(super) fn number_in(message: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(message).ok()?;
    let zero = entity_id(0);
    let (prefix, _) = zero.rsplit_once('-')?;
    let (_, rest) = text.split_once(&format!("{prefix}-"))?;
    usize::from_str_radix(rest.get(..12)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_the_size_and_the_order_that_it_should() {
        for order in [Order::new(7), Order::sized(19_999, 1 << 20)] {
            for message in [order.page(), order.change_event(), order.entity_event()] {
                assert_eq!(message.len(), order.message_bytes);
                assert_eq!(number_in(&message), Some(order.number));
            }
            assert_eq!(number_of(order.webhook().to_string().as_bytes()), Some(order.number));
        }
    }
}
