//! Asks the service at `[config] url`, with `[config] method`, and puts its answer into the webhook.

use serde_json::{Value, json};
use wirehook_sdk::http::Request;
use wirehook_sdk::{Event, Failure, Webhook, config};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    let method = config::get("method").unwrap_or_else(|| "GET".to_owned());
    let url = format!("{}/{}", config::get("url").unwrap_or_default(), event.entity_id.as_deref().unwrap_or("none"));
    let answer: Value = Request::new(method, url).header("x-event", event.key.as_str()).send()?.json()?;
    Ok(vec![Webhook::json(&json!({"order_id": event.entity_id, "customer": answer}))?])
}

wirehook_sdk::export!(on_event);
