//! One webhook for each endpoint that the config's `endpoints` names, comma between them.

use wirehook_sdk::{Event, Failure, Webhook, config};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    let endpoints = config::get("endpoints").unwrap_or_default();
    let body = event.entity_json().unwrap_or_default();
    Ok(endpoints.split(',').filter(|name| !name.is_empty()).map(|name| Webhook::bytes(body).endpoint(name)).collect())
}

wirehook_sdk::export!(on_event);
