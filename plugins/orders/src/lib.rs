//! The example of FraiseQL's webhooks page: an order that was created becomes a webhook for the shop's notifications.
//!
//! What the page's subscriber does in thirty lines of Python with a bus client, an HTTP client and a secret is this
//! function; the rest is the host's.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wirehook_sdk::{Event, Failure, Webhook, reject};

const ORDER_CREATED: &str = "fraiseql.order.created";

/// The members that are passed on, as the publisher wrote them: an amount never goes through a float here.
#[derive(Deserialize)]
struct Order {
    customer_email: Option<Box<RawValue>>,
    total: Option<Box<RawValue>>,
}

/// The body, in the page's order. What the order lacks is null, as with Python's `dict.get`.
#[derive(Serialize)]
struct OrderCreated<'a> {
    event: &'static str,
    order_id: &'a str,
    customer_email: Option<Box<RawValue>>,
    total: Option<Box<RawValue>>,
}

/// Turns `fraiseql.order.created` into one webhook for the default endpoint; anything else is not for this plugin.
fn on_event(event: Event<Order>) -> Result<Vec<Webhook>, Failure> {
    if event.subject != ORDER_CREATED {
        return Ok(vec![]);
    }
    let order_id = event.entity_id.as_deref().ok_or_else(|| reject("the order has no id"))?;
    let order = event.entity()?;
    Ok(vec![Webhook::json(&OrderCreated {
        event: "order.created",
        order_id,
        customer_email: order.customer_email,
        total: order.total,
    })?])
}

wirehook_sdk::export!(on_event);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wirehook_sdk::{Failure, Webhook, reject, test};

    use super::on_event;

    fn check(entity: &str, expected: &str) {
        let event = test::event("fraiseql.order.created").entity_id("550e8400").entity_bytes(entity).build();
        let webhooks = on_event(event).expect("a webhook");
        assert_eq!(webhooks, [Webhook::bytes(expected)]);
    }

    #[test]
    fn the_body_is_the_pages() {
        check(
            r#"{"id":"550e8400","customer_email":"ada@example.com","total":129.5,"status":"pending"}"#,
            r#"{"event":"order.created","order_id":"550e8400","customer_email":"ada@example.com","total":129.5}"#,
        );
    }

    #[test]
    fn what_the_order_lacks_is_null() {
        check("{}", r#"{"event":"order.created","order_id":"550e8400","customer_email":null,"total":null}"#);
        check(
            r#"{"customer_email":null}"#,
            r#"{"event":"order.created","order_id":"550e8400","customer_email":null,"total":null}"#,
        );
    }

    #[test]
    fn an_amount_keeps_its_digits() {
        check(
            r#"{"total":12345678901234567890.10}"#,
            r#"{"event":"order.created","order_id":"550e8400","customer_email":null,"total":12345678901234567890.10}"#,
        );
    }

    #[test]
    fn every_format_gives_the_same_webhook() {
        let expected =
            [Webhook::bytes(r#"{"event":"order.created","order_id":"3333","customer_email":"a@b.c","total":100}"#)];
        let entity = json!({"customer_email": "a@b.c", "total": 100});
        for message in [
            json!({"event": "fraiseql.order.created", "entity_type": "order", "operation": "created",
                "entity_id": "3333", "entity": entity, "timestamp": "2026-03-02T14:00:00Z"}),
            json!({"id": "2222", "event_type": "INSERT", "entity_type": "Order", "entity_id": "3333", "data": entity,
                "changes": null, "user_id": null, "timestamp": "2026-01-22T10:00:00Z"}),
            json!({"seq": 7, "object_type": "Order", "op": "insert", "tenant_id": null, "object_id": "3333",
                "after": entity, "before": null, "commit_time": "2026-01-22T10:00:00Z"}),
        ] {
            assert_eq!(test::call(on_event, message.to_string()).as_deref(), Ok(&expected[..]), "{message}");
        }
    }

    #[test]
    fn other_events_are_filtered_whatever_their_shape() {
        for subject in ["fraiseql.order.updated", "fraiseql.user.created", "shop.orders"] {
            assert_eq!(on_event(test::event(subject).entity_bytes("not json").build()), Ok(vec![]), "{subject}");
        }
    }

    #[test]
    fn an_order_without_what_makes_it_one_is_rejected() {
        let event = test::event("fraiseql.order.created").entity(&json!({})).build();
        assert_eq!(on_event(event), Err(reject("the order has no id")));

        let event = test::event("fraiseql.order.created").entity_id("550e8400").build();
        assert_eq!(on_event(event), Err(reject("the event has no entity")));

        let event = test::event("fraiseql.order.created").entity_id("550e8400").entity(&json!("text")).build();
        assert!(matches!(on_event(event), Err(Failure::Reject(reason)) if reason.contains("expected struct Order")));
    }
}
