//! Returns everything that a plugin is given, as JSON, to the default endpoint: the event and the config.

use std::collections::BTreeMap;

use serde_json::json;
use wirehook_sdk::{Event, Failure, Webhook, config};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    let map = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    Ok(vec![Webhook::json(&json!({
        "key": event.key,
        "subject": event.subject,
        "entity_type": event.entity_type,
        "operation": event.operation,
        "entity_id": event.entity_id,
        "tenant_id": event.tenant_id,
        "timestamp": event.timestamp,
        "entity": event.entity_json().map(|_| event.entity()).transpose()?,
        "previous": event.previous()?,
        "attempt": event.attempt,
        "attributes": map(event.attributes),
        "config": map(config::all()),
    }))?])
}

wirehook_sdk::export!(on_event);
