use bytes::Bytes;

use super::super::{Event, decode};
use super::*;
use crate::event::Message;

fn fields() -> Fields {
    let named = |path: &str| Some(path.to_owned());
    Fields {
        id: named("id"),
        event_type: named("type"),
        tenant: named("/meta/tenant"),
        time: named("at"),
        entity_id: named("/data/id"),
        data: named("data"),
    }
}

fn decoded(body: &str) -> Result<Event, String> {
    let payload = Bytes::copy_from_slice(body.as_bytes());
    let message = Message { subject: "/events".into(), payload, headers: Vec::new(), position: None };
    decode(&"web".into(), &message, &fields(), || "unique".to_owned()).map_err(|error| error.to_string())
}

#[test]
fn other_json_says_what_the_settings_name() {
    let event = decoded(
        r#"{"id":"a-1","type":"order.created","meta":{"tenant":"acme"},"at":"2026-03-02T14:00:00Z","data":{"id":42}}"#,
    );
    let event = event.unwrap();
    assert_eq!(event.key.as_str(), "web/id/a-1");
    assert_eq!((event.subject.as_str(), event.entity_type.as_str()), ("order.created", "order"));
    assert_eq!((event.operation.as_str(), event.entity_id.as_deref()), ("created", Some("42")));
    assert_eq!((event.tenant_id.as_deref(), event.timestamp.as_deref()), (Some("acme"), Some("2026-03-02T14:00:00Z")));
    assert_eq!(event.entity.as_deref(), Some(&br#"{"id":42}"#[..]));
    let attribute =
        |name: &str| event.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!((attribute("format"), attribute("type")), (Some("json"), Some("order.created")));
}

#[test]
fn what_is_not_there_says_nothing() {
    for body in ["{}", "7", "[]", r#"{"id":null,"type":"","meta":{"tenant":null},"at":"","data":null}"#] {
        let event = decoded(body).unwrap();
        assert_eq!((event.subject.as_str(), event.entity_type.as_str()), ("/events", ""), "{body}");
        assert_eq!((event.tenant_id, event.timestamp, event.entity_id), (None, None, None), "{body}");
        assert_eq!((event.key.as_str(), event.entity.as_deref()), ("web/once/unique", Some(body.as_bytes())), "{body}");
    }
}

#[test]
fn what_can_not_be_a_text_is_refused_by_the_name_of_its_setting() {
    for (member, setting, field) in [
        (r#""id":{}"#, "id_field", "id"),
        (r#""type":["a"]"#, "type_field", "type"),
        (r#""meta":{"tenant":true}"#, "tenant_field", "/meta/tenant"),
        (r#""at":{}"#, "time_field", "at"),
        (r#""data":{"id":[]}"#, "entity_id_field", "/data/id"),
    ] {
        let said = decoded(&format!("{{{member}}}")).unwrap_err();
        assert_eq!(said, format!("the source's {setting} `{field}` is neither a text nor a number"));
    }
    let long = "x".repeat(1_000_000);
    assert!(decoded(&format!(r#"{{"id":"{long}"}}"#)).is_ok(), "a long id is its hash");
    for (before, after, setting) in [
        (r#"{"type":""#, r#""}"#, "type_field `type`"),
        (r#"{"meta":{"tenant":""#, r#""}}"#, "tenant_field `/meta/tenant`"),
        (r#"{"at":""#, r#""}"#, "time_field `at`"),
        (r#"{"data":{"id":""#, r#""}}"#, "entity_id_field `/data/id`"),
    ] {
        let said = decoded(&format!("{before}{long}{after}")).unwrap_err();
        assert_eq!(said, format!("the source's {setting} is longer than 1024 bytes"));
    }
    let said = decoded(r#"{"type":"a\u0000b"}"#).unwrap_err();
    assert_eq!(said, "the source's type_field `type` contains a NUL character");
}
