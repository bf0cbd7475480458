//! Every file of `fixtures/fraiseql`: a message as a bus hands it over, and the event it is, or why it is none.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wirehook::event::decode::{Fields, decode};
use wirehook::event::{Event, Message};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Where the message's shape comes from.
    #[serde(rename = "about")]
    _about: String,
    subject: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    position: Option<String>,
    #[serde(default)]
    fields: serde_json::Map<String, Value>,
    body: Box<RawValue>,
    expected: Value,
}

#[test]
fn every_fixture_is_decoded_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fraiseql");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 12, "the fixtures are gone");
    for file in files {
        let case: Case = serde_json::from_slice(&fs::read(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let message = Message {
            subject: case.subject.into(),
            payload: Bytes::copy_from_slice(case.body.get().as_bytes()),
            headers: case.headers,
            position: case.position,
        };
        let field = |name: &str| case.fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let fields = Fields {
            id: field("id_field"),
            event_type: field("type_field"),
            tenant: field("tenant_field"),
            time: field("time_field"),
            entity_id: field("entity_id_field"),
            data: field("data_field"),
        };
        let decoded = decode(&"bus".into(), &message, &fields, || "unique".to_owned());
        let found = decoded.map_or_else(|error| json!({ "undecodable": error.to_string() }), |event| shown(&event));
        assert_eq!(found, case.expected, "{}:\n{found:#}", file.display());
    }
}

fn shown(event: &Event) -> Value {
    let json = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap());
    let attributes: serde_json::Map<_, _> =
        event.attributes.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    json!({
        "key": event.key.as_str(),
        "subject": event.subject,
        "entity_type": event.entity_type,
        "operation": event.operation,
        "entity_id": event.entity_id,
        "tenant_id": event.tenant_id,
        "timestamp": event.timestamp,
        "entity": json(&event.entity),
        "previous": json(&event.previous),
        "attributes": attributes,
    })
}
