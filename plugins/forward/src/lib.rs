//! What a `[[route]]` runs, `builtin:forward`: the event goes to the route's endpoint, as it came or in an envelope.
//!
//! The host writes its sidecar from the route. `[config]`:
//! - `body`: `envelope` or `entity`.
//! - `filter`: the members that the entity has to have, each with the values that it may have.

use std::collections::BTreeMap;

use serde_json::Value;
use wirehook_sdk::{Event, Failure, Webhook, config, reject};

fn on_event(event: Event) -> Result<Vec<Webhook>, Failure> {
    if let Some(filter) = config::get("filter")
        && !passes(&event, &filter)?
    {
        return Ok(vec![]);
    }
    let entity = event.entity_json().unwrap_or(b"null");
    let body = match config::get("body").as_deref() {
        Some("entity") => entity.to_vec(),
        _ => envelope(&event, entity)?,
    };
    Ok(vec![Webhook::bytes(body)])
}

/// `{type, timestamp, data}`, as Standard Webhooks has it. The entity is copied, not read.
fn envelope(event: &Event, entity: &[u8]) -> Result<Vec<u8>, Failure> {
    let event_type = serde_json::to_string(event.attribute("type").unwrap_or(&event.subject))?;
    let timestamp = serde_json::to_string(&event.timestamp)?;
    let mut body = Vec::with_capacity(entity.len() + event_type.len() + timestamp.len() + 32);
    body.extend_from_slice(b"{\"type\":");
    body.extend_from_slice(event_type.as_bytes());
    body.extend_from_slice(b",\"timestamp\":");
    body.extend_from_slice(timestamp.as_bytes());
    body.extend_from_slice(b",\"data\":");
    body.extend_from_slice(entity);
    body.push(b'}');
    Ok(body)
}

/// Whether each field that the filter names has one of the values beside it. A field is a member, or a JSON pointer.
fn passes(event: &Event, filter: &str) -> Result<bool, Failure> {
    let filter: BTreeMap<String, Vec<Value>> =
        serde_json::from_str(filter).map_err(|error| reject(format!("the route's filter: {error}")))?;
    if event.entity_json().is_none() {
        return Ok(false);
    }
    let entity = event.entity()?;
    Ok(filter.iter().all(|(field, allowed)| field_of(&entity, field).is_some_and(|value| allowed.contains(value))))
}

fn field_of<'e>(entity: &'e Value, field: &str) -> Option<&'e Value> {
    if field.starts_with('/') { entity.pointer(field) } else { entity.get(field) }
}

wirehook_sdk::export!(on_event);

#[cfg(test)]
mod tests {
    use wirehook_sdk::{Webhook, test};

    use super::on_event;

    fn forwarded(entity: Option<&str>) -> Vec<Webhook> {
        let event = test::event("fraiseql.order.created").attribute("type", "order.created");
        let event = event.timestamp("2026-03-02T14:00:00Z");
        let event = match entity {
            Some(entity) => event.entity_bytes(entity),
            None => event,
        };
        on_event(event.build()).expect("webhooks")
    }

    #[test]
    fn an_envelope_has_the_entity_byte_for_byte() {
        let body = r#"{"type":"order.created","timestamp":"2026-03-02T14:00:00Z","data":{ "total": 1.50 }}"#;
        assert_eq!(forwarded(Some(r#"{ "total": 1.50 }"#)), [Webhook::bytes(body)]);
        let body = r#"{"type":"order.created","timestamp":"2026-03-02T14:00:00Z","data":null}"#;
        assert_eq!(forwarded(None), [Webhook::bytes(body)]);
    }

    #[test]
    fn the_entity_goes_as_it_came() {
        test::config("body", "entity");
        assert_eq!(forwarded(Some(r#"{ "total": 1.50 }"#)), [Webhook::bytes(r#"{ "total": 1.50 }"#)]);
        assert_eq!(forwarded(None), [Webhook::bytes("null")]);
    }

    #[test]
    fn every_field_of_the_filter_has_to_fit() {
        test::config("filter", r#"{"status":["paid"],"/customer/country":["DE","FR"]}"#);
        let count = |entity: &str| forwarded(Some(entity)).len();
        assert_eq!(count(r#"{"status":"paid","customer":{"country":"DE"}}"#), 1);
        assert_eq!(count(r#"{"status":"paid","customer":{"country":"US"}}"#), 0);
        assert_eq!(count(r#"{"status":"open","customer":{"country":"DE"}}"#), 0);
        assert_eq!(count(r#"{"status":"paid"}"#), 0);
        assert_eq!(count("[]"), 0);
        assert_eq!(forwarded(None).len(), 0);
    }
}
