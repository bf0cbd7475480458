//! An order that was created becomes a webhook.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wirehook_sdk::{Event, Failure, Webhook, reject};

/// What is passed on, as the publisher wrote it: an amount never goes through a float.
#[derive(Deserialize)]
struct Order {
    customer_email: Option<Box<RawValue>>,
    total: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct OrderCreated<'a> {
    event: &'static str,
    order_id: &'a str,
    customer_email: Option<Box<RawValue>>,
    total: Option<Box<RawValue>>,
}

/// Called once for each event. An empty list: the event is not for this plugin.
fn on_event(event: Event<Order>) -> Result<Vec<Webhook>, Failure> {
    if event.subject != "fraiseql.order.created" {
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
    use wirehook_sdk::{Webhook, reject, test};

    use super::on_event;

    #[test]
    fn a_created_order_becomes_a_webhook() {
        let webhooks = test::call(on_event, include_str!("../events/order_created.json"));
        let expected = r#"{"event":"order.created","order_id":"550e8400-e29b-41d4-a716-446655440000","customer_email":"ada@example.com","total":129.5}"#;
        assert_eq!(webhooks, Ok(vec![Webhook::bytes(expected)]));
    }

    #[test]
    fn other_events_are_not_for_this_plugin() {
        assert_eq!(on_event(test::event("fraiseql.order.deleted").build()), Ok(vec![]));
    }

    #[test]
    fn an_order_without_an_id_is_a_dead_letter() {
        let event = test::event("fraiseql.order.created").entity(&json!({})).build();
        assert_eq!(on_event(event), Err(reject("the order has no id")));
    }
}
