//! One webhook for each of the entity's `lines`, told apart by key, not by position.
//!
//! Odd attempts return them backwards: their ids must not change.

use serde::Deserialize;
use serde_json::json;
use wirehook_sdk::{Event, Failure, Webhook};

#[derive(Deserialize)]
struct Order {
    lines: Vec<String>,
}

fn on_event(event: Event<Order>) -> Result<Vec<Webhook>, Failure> {
    let order = event.entity()?;
    let mut webhooks = order
        .lines
        .iter()
        .map(|line| Ok(Webhook::json(&json!({"line": line}))?.key(line)))
        .collect::<Result<Vec<_>, Failure>>()?;
    if event.attempt % 2 == 1 {
        webhooks.reverse();
    }
    Ok(webhooks)
}

wirehook_sdk::export!(on_event);
