//! Does what the event's entity asks: to be run again so often (`retries`), or to return so many webhooks (`webhooks`), each
//! with the entity's own `step` and its number.

use serde_json::{Value, json};
use wirehook_sdk::{Event, Failure, Webhook, retry};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    let entity: Value = event.entity()?;
    let asked = |name: &str| entity[name].as_u64().unwrap_or_default();
    if u64::from(event.attempt) <= asked("retries") {
        return Err(retry(format!("attempt {} is too early", event.attempt)));
    }
    let webhook = |number| Webhook::json(&json!({"id": event.entity_id, "step": entity["step"], "number": number}));
    Ok((0..asked("webhooks")).map(webhook).collect::<Result<_, _>>()?)
}

wirehook_sdk::export!(on_event);
