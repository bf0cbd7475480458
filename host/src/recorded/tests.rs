//! From a file to an event and back.

use super::*;

fn recorded(name: &str, text: &str) -> Result<Recorded, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    Recorded::read(&file).map_err(|error| error.to_string())
}

#[test]
fn a_message_is_the_event_that_a_host_makes_of_it() {
    let page = r#"{"event": "fraiseql.order.created", "entity_type": "Order", "operation": "created", "entity_id": "7",
        "entity": {"total": 12.50}, "timestamp": "2026-03-02T14:00:00Z"}"#;
    let read = recorded("first.json", page).unwrap();
    assert_eq!((&*read.event.subject, read.attempt), ("fraiseql.order.created", 1));
    assert_eq!(read.event.entity.as_deref(), Some(&br#"{"total": 12.50}"#[..]));
    assert!(read.golden().ends_with("first.webhooks.json"));

    let other = recorded("shop.orders.json", r#"{"a": 1}"#).unwrap();
    assert_eq!((&*other.event.subject, other.event.key.as_str()), ("shop.orders", "test/once/shop.orders"));
}

#[test]
fn an_event_survives_its_file() {
    let page = recorded(
        "a.json",
        r#"{"event": "fraiseql.order.created", "entity_type": "order", "operation": "created",
        "entity_id": "7", "entity": {"b":12345678901234567890.10,"a":1}, "timestamp": "2026-03-02T14:00:00Z"}"#,
    );
    let event = RecordedEvent::from(&page.unwrap().event);
    let text = event.to_file().unwrap();
    assert!(text.contains("\"b\": 12345678901234567890.10"), "{text}");
    let again = recorded("b.json", &text).unwrap().event;
    assert_eq!(again.attributes, event.attributes);
    assert_eq!(
        again.entity.as_deref().map(|entity| indented(std::str::from_utf8(entity).unwrap()).unwrap()),
        event.entity.as_deref().map(|entity| indented(entity).unwrap())
    );
    let again = RecordedEvent { entity: event.entity.clone(), ..RecordedEvent::from(&again) };
    assert_eq!(again, event);
}

#[test]
fn an_event_that_is_too_deep_to_be_indented_survives_its_file_too() {
    let entity = format!("{}1.50{}", "[".repeat(5_000), "]".repeat(5_000));
    let event = recorded("shop.deep.json", &entity).unwrap().event;
    let text = RecordedEvent::from(&event).to_file().unwrap();
    assert_eq!(recorded("again.json", &text).unwrap().event.entity.as_deref(), Some(entity.as_bytes()));
}

#[test]
fn what_is_no_event_is_refused_with_its_place() {
    for (text, said) in [
        ("", "empty"),
        ("nope", "not JSON"),
        (r#"{"wirehook_event": {"key": "a"}}"#, "missing field `subject`"),
        (r#"{"wirehook_event": {"key": "a", "subject": "b", "operation": "custom", "entitty": 1}}"#, "entitty"),
    ] {
        let error = recorded("bad.json", text).unwrap_err();
        assert!(error.contains(said) && error.contains("bad.json"), "{error}");
    }
}

#[test]
fn golden_files_are_no_events() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(files(folder.path()), Err(RecordedError::Empty { .. })));
    for name in ["b.json", "a.json", "a.webhooks.json", "readme.md"] {
        fs::write(folder.path().join(name), "{}").unwrap();
    }
    assert_eq!(files(folder.path()).unwrap(), [folder.path().join("a.json"), folder.path().join("b.json")]);
    assert!(matches!(files(&folder.path().join("nowhere")), Err(RecordedError::Read { .. })));
}
