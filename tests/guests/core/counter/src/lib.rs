//! Counts its events in its state, and says in a webhook which one each was.

use serde_json::json;
use wirehook_sdk::{Event, Failure, Webhook, reject, state};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    let counted = match state::get("count") {
        Some(bytes) => String::from_utf8(bytes).ok().and_then(|text| text.parse::<u64>().ok()),
        None => Some(0),
    };
    let Some(counted) = counted else { return Err(reject("the count is not a number")) };
    state::set("count", (counted + 1).to_string()).map_err(|refused| reject(refused.to_string()))?;
    Ok(vec![Webhook::json(&json!({"order_id": event.entity_id, "number": counted + 1}))?])
}

wirehook_sdk::export!(on_event);
