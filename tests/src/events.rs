//! Events in the page's format, numbered: the same number is the same event in every run.

use bytes::Bytes;
use serde_json::{Value, json};

/// What the body of [`order_created`] is filled up to, in bytes.
pub const ORDER_BYTES: usize = 512;

/// A message ready to publish.
#[derive(Clone, Debug)]
pub struct PublishedEvent {
    /// `fraiseql.{entity_type}.{operation}`.
    pub subject: String,
    /// The entity's id, by which its webhook is recognised.
    pub entity_id: String,
    /// JSON.
    pub body: Bytes,
}

/// The page's example of 0.5 KB: order `number` was created.
pub fn order_created(number: usize) -> PublishedEvent {
    order_of(number, ORDER_BYTES, 0)
}

/// The same, filled up to `bytes` and with `lines` things to pack, of each of which the `fanout` plugin makes a webhook
/// beside that of the order.
pub fn order_of(number: usize, bytes: usize, lines: usize) -> PublishedEvent {
    let bare = page_event("order", "created", number, &order_entity(number, "", lines));
    let note = "-".repeat(bytes.saturating_sub(bare.body.len()));
    page_event("order", "created", number, &order_entity(number, &note, lines))
}

/// Any event in the page's format, with `entity` as its entity.
pub fn page_event(entity_type: &str, operation: &str, number: usize, entity: &Value) -> PublishedEvent {
    let subject = format!("fraiseql.{entity_type}.{operation}");
    let entity_id = entity_id(number);
    let body = json!({
        "event": subject,
        "entity_type": entity_type,
        "operation": operation,
        "entity_id": entity_id,
        "entity": entity,
        "timestamp": "2026-03-02T14:00:00Z",
    });
    PublishedEvent { subject, entity_id, body: Bytes::from(body.to_string()) }
}

/// A JSON array of events.
pub fn array(events: impl IntoIterator<Item = PublishedEvent>) -> Vec<u8> {
    let bodies: Vec<Bytes> = events.into_iter().map(|event| event.body).collect();
    [b"[", bodies.join(&b","[..]).as_slice(), b"]"].concat()
}

/// The id of entity `number`: a UUID of version 4 in shape.
pub fn entity_id(number: usize) -> String {
    format!("550e8400-e29b-41d4-a716-{number:012x}")
}

/// The order's id in the body of a webhook that the `orders` plugin made; `None` in any other.
pub fn order_id(webhook_body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(webhook_body).ok()?;
    Some(body.get("order_id")?.as_str()?.to_owned())
}

fn order_entity(number: usize, note: &str, lines: usize) -> Value {
    let mut order = json!({
        "id": entity_id(number),
        "customer_email": format!("customer-{number}@example.com"),
        "total": 129.5,
        "status": "pending",
        "note": note,
    });
    if lines > 0 {
        let line = |line| json!({"id": format!("{number}-{line}"), "sku": "chair", "quantity": 1});
        order["lines"] = (0..lines).map(line).collect();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_json() {
        let array: Value = serde_json::from_slice(&array((0..3).map(order_created))).unwrap();
        assert_eq!(array[2]["entity_id"], entity_id(2));
    }

    #[test]
    fn an_order_has_its_size_and_its_number_in_it() {
        for number in [0, 7, 19_999] {
            let event = order_created(number);
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            assert_eq!(event.body.len(), ORDER_BYTES);
            assert_eq!(body["entity_id"], entity_id(number));
            assert_eq!(body["event"], "fraiseql.order.created");
        }
        assert_ne!(entity_id(1), entity_id(2));
        let event = order_of(7, 4_096, 4);
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!((event.body.len(), body["entity"]["lines"].as_array().map(Vec::len)), (4_096, Some(4)));
    }
}
