//! One order to several endpoints, each given what it wants: the CRM hears of every order, the warehouse of each line that
//! has to be packed, billing of what becomes paid in the currencies it keeps.
//!
//! A line's webhook has the line's id as its key, so that it stays the same delivery where the lines change places between
//! two tries.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wirehook_sdk::{Event, Failure, Webhook, config, log, reject};

const ORDER_CREATED: &str = "fraiseql.order.created";
const ORDER_UPDATED: &str = "fraiseql.order.updated";

/// The endpoints, by the operator's names for them. The sidecar asks for each.
const CRM: &str = "crm";
const WAREHOUSE: &str = "warehouse";
const BILLING: &str = "billing";

/// The status from which on an order is billed.
const PAID: &str = "paid";
/// What billing keeps where the sidecar's `[config]` says nothing.
const BILLING_CURRENCIES: &str = "EUR";
/// The host takes 64 webhooks of one event; two of an order's are not a line's.
const LINES_MAX: usize = 62;

/// What the endpoints need of an order. Amounts stay as the publisher wrote them.
#[derive(Deserialize)]
struct Order {
    status: Option<String>,
    currency: Option<String>,
    customer_email: Option<String>,
    total: Option<Box<RawValue>>,
    #[serde(default)]
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    sku: String,
    quantity: u32,
    /// A download or a voucher: there is nothing to pack.
    #[serde(default)]
    digital: bool,
}

#[derive(Serialize)]
struct Contact<'a> {
    event: &'a str,
    order_id: &'a str,
    customer_email: Option<&'a str>,
    status: Option<&'a str>,
}

#[derive(Serialize)]
struct Packing<'a> {
    order_id: &'a str,
    line_id: &'a str,
    sku: &'a str,
    quantity: u32,
}

#[derive(Serialize)]
struct Bill<'a> {
    order_id: &'a str,
    currency: &'a str,
    total: &'a RawValue,
}

/// Turns an order that was created or updated into what its endpoints want; anything else is not for this plugin.
fn on_event(event: Event<Order>) -> Result<Vec<Webhook>, Failure> {
    if ![ORDER_CREATED, ORDER_UPDATED].contains(&event.subject.as_str()) {
        return Ok(vec![]);
    }
    let order_id = event.entity_id.as_deref().ok_or_else(|| reject("the order has no id"))?;
    let order = event.entity()?;
    let mut webhooks = vec![contact(&event, order_id, &order)?];
    if event.subject == ORDER_CREATED {
        webhooks.extend(packings(order_id, &order)?);
    }
    if becomes_paid(&order, event.previous()?.as_ref()) {
        webhooks.extend(bill(order_id, &order)?);
    }
    Ok(webhooks)
}

fn contact(event: &Event<Order>, order_id: &str, order: &Order) -> Result<Webhook, Failure> {
    let contact = Contact {
        event: event.subject.trim_start_matches("fraiseql."),
        order_id,
        customer_email: order.customer_email.as_deref(),
        status: order.status.as_deref(),
    };
    Ok(Webhook::json(&contact)?.endpoint(CRM))
}

/// One webhook for each line with something to pack.
fn packings(order_id: &str, order: &Order) -> Result<Vec<Webhook>, Failure> {
    let physical: Vec<_> = order.lines.iter().filter(|line| !line.digital && line.quantity > 0).collect();
    if physical.len() > LINES_MAX {
        return Err(reject(format!("the order has {} lines to pack; {LINES_MAX} are possible", physical.len())));
    }
    log::debug!("{} of {} lines are to be packed", physical.len(), order.lines.len());
    let packing = |line: &Line| {
        let packing = Packing { order_id, line_id: &line.id, sku: &line.sku, quantity: line.quantity };
        Ok(Webhook::json(&packing)?.endpoint(WAREHOUSE).key(&line.id))
    };
    physical.into_iter().map(packing).collect()
}

/// An order without a previous state was not paid before.
fn becomes_paid(order: &Order, previous: Option<&Order>) -> bool {
    let is_paid = |order: &Order| order.status.as_deref() == Some(PAID);
    is_paid(order) && !previous.is_some_and(is_paid)
}

/// Nothing where billing does not keep the order's currency.
fn bill(order_id: &str, order: &Order) -> Result<Option<Webhook>, Failure> {
    let kept = config::get("billing_currencies").unwrap_or_else(|| BILLING_CURRENCIES.to_owned());
    let currency = order.currency.as_deref().ok_or_else(|| reject("the paid order has no currency"))?;
    if !kept.split(',').any(|kept| kept.trim() == currency) {
        return Ok(None);
    }
    let total = order.total.as_deref().ok_or_else(|| reject("the paid order has no total"))?;
    Ok(Some(Webhook::json(&Bill { order_id, currency, total })?.endpoint(BILLING)))
}

wirehook_sdk::export!(on_event);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wirehook_sdk::{Event, Failure, Webhook, reject, test};

    use super::{LINES_MAX, Order, on_event};

    fn event(subject: &str, entity: &Value) -> Event<Order> {
        test::event(subject).entity_id("7").entity(entity).build()
    }

    fn created(entity: &Value) -> Result<Vec<Webhook>, Failure> {
        on_event(event("fraiseql.order.created", entity))
    }

    /// The endpoint, the key and the body of each.
    fn check(webhooks: &[Webhook], expected: &[(&str, Option<&str>, &str)]) {
        let found: Vec<_> = webhooks
            .iter()
            .map(|webhook| {
                let body = std::str::from_utf8(webhook.body()).expect("UTF-8");
                (webhook.endpoint_name().expect("an endpoint"), webhook.key_text(), body)
            })
            .collect();
        assert_eq!(found, expected);
    }

    const CREATED: &str =
        r#"{"event":"order.created","order_id":"7","customer_email":"ada@example.com","status":"new"}"#;

    #[test]
    fn each_line_with_something_to_pack_is_a_webhook_of_its_own() {
        let order = json!({"customer_email": "ada@example.com", "status": "new", "lines": [
            {"id": "l1", "sku": "chair", "quantity": 2},
            {"id": "l2", "sku": "e-book", "quantity": 1, "digital": true},
            {"id": "l3", "sku": "table", "quantity": 1},
            {"id": "l4", "sku": "lamp", "quantity": 0},
        ]});
        check(
            &created(&order).expect("webhooks"),
            &[
                ("crm", None, CREATED),
                ("warehouse", Some("l1"), r#"{"order_id":"7","line_id":"l1","sku":"chair","quantity":2}"#),
                ("warehouse", Some("l3"), r#"{"order_id":"7","line_id":"l3","sku":"table","quantity":1}"#),
            ],
        );
        assert_eq!(test::logs()[0].1, "2 of 4 lines are to be packed");
    }

    #[test]
    fn an_order_without_lines_is_the_crms_alone() {
        let order = json!({"customer_email": "ada@example.com", "status": "new"});
        check(&created(&order).expect("webhooks"), &[("crm", None, CREATED)]);
    }

    #[test]
    fn an_update_packs_nothing_again() {
        let order = json!({"lines": [{"id": "l1", "sku": "chair", "quantity": 2}]});
        let webhooks = on_event(event("fraiseql.order.updated", &order)).expect("webhooks");
        check(
            &webhooks,
            &[("crm", None, r#"{"event":"order.updated","order_id":"7","customer_email":null,"status":null}"#)],
        );
    }

    fn bills(currency: &str, before: Option<&str>) -> Vec<String> {
        let total = r#""total":1234567890123456789.10"#;
        let entity = format!(r#"{{"status":"paid","currency":"{currency}",{total}}}"#);
        let mut event = test::event("fraiseql.order.updated").entity_id("7").entity_bytes(entity);
        if let Some(status) = before {
            event = event.previous(&json!({"status": status}));
        }
        let webhooks = on_event(event.build()).expect("webhooks");
        let bills = webhooks.iter().filter(|webhook| webhook.endpoint_name() == Some("billing"));
        bills.map(|bill| String::from_utf8_lossy(bill.body()).into_owned()).collect()
    }

    #[test]
    fn what_becomes_paid_is_billed_once_and_to_the_digit() {
        let bill = r#"{"order_id":"7","currency":"EUR","total":1234567890123456789.10}"#;
        assert_eq!(bills("EUR", Some("new")), [bill]);
        assert_eq!(bills("EUR", None), [bill]);
        assert_eq!(bills("EUR", Some("paid")), [""; 0]);
    }

    #[test]
    fn billing_is_told_of_its_currencies_only() {
        assert_eq!(bills("CHF", None), [""; 0]);
        test::config("billing_currencies", "EUR, CHF");
        assert_eq!(bills("CHF", None).len(), 1);
        assert_eq!(bills("USD", None), [""; 0]);
    }

    #[test]
    fn other_events_are_filtered_whatever_their_shape() {
        for subject in ["fraiseql.order.deleted", "fraiseql.user.created", "shop.orders"] {
            let event = test::event(subject).entity_bytes("not json").build();
            assert_eq!(on_event(event), Ok(vec![]), "{subject}");
        }
    }

    #[test]
    fn an_order_that_can_t_be_dealt_out_is_rejected_whole() {
        let line = |n: usize| json!({"id": n.to_string(), "sku": "chair", "quantity": 1});
        let lines = |count: usize| json!({"lines": (0..count).map(line).collect::<Vec<_>>()});
        assert_eq!(created(&lines(LINES_MAX)).expect("webhooks").len(), LINES_MAX + 1);
        assert_eq!(created(&lines(LINES_MAX + 1)), Err(reject("the order has 63 lines to pack; 62 are possible")));
        assert_eq!(created(&json!({"status": "paid"})), Err(reject("the paid order has no currency")));
        assert_eq!(created(&json!({"status": "paid", "currency": "EUR"})), Err(reject("the paid order has no total")));
        let nameless = test::event("fraiseql.order.created").entity(&json!({})).build();
        assert_eq!(on_event(nameless), Err(reject("the order has no id")));
    }
}
