use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Fields, decode};
use super::*;
use crate::event::Event;

const ORDER: &str = r#"{"id":"42","total":129.5}"#;

fn message(body: &str, headers: &[(&str, &str)]) -> Message {
    Message {
        subject: "bus.subject".into(),
        payload: Bytes::copy_from_slice(body.as_bytes()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        position: Some("s:7".to_owned()),
    }
}

fn decoded_by(message: &Message, fields: &Fields) -> Result<Event, Undecodable> {
    let source: Arc<str> = "bus".into();
    decode(&source, message, fields, || "unique".to_owned())
}

fn decoded(message: &Message) -> Result<Event, Undecodable> {
    decoded_by(message, Fields::none())
}

fn attribute(event: &Event, name: &str) -> Option<String> {
    event.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
}

/// A CloudEvent in JSON with `members` beside or in place of its own; one that is `null` is left out.
fn json(members: &[(&str, &str)]) -> String {
    let mut all = vec![
        ("specversion", r#""1.0""#),
        ("id", r#""a-1""#),
        ("source", r#""/shop""#),
        ("type", r#""order.created""#),
        ("subject", r#""42""#),
        ("time", r#""2026-03-02T14:00:00Z""#),
        ("tenantid", r#""acme""#),
        ("data", ORDER),
    ];
    for (name, value) in members {
        all.retain(|(found, _)| found != name);
        all.push((name, value));
    }
    let members: Vec<_> =
        all.iter().filter(|(_, value)| *value != "absent").map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

const BINARY: [(&str, &str); 8] = [
    ("Ce-Specversion", "1.0"),
    ("ce-id", "a-1"),
    ("ce-source", "/shop"),
    ("ce-type", "order.created"),
    ("ce-subject", "42"),
    ("CE-Time", "2026-03-02T14:00:00Z"),
    ("ce-tenantid", "acme"),
    ("Content-Type", "application/json"),
];

#[test]
fn both_modes_are_the_same_event() {
    let structured = decoded(&message(&json(&[]), &[])).unwrap();
    assert_eq!(structured.key.as_str(), "bus/ce/3:a-1@/shop");
    assert_eq!((structured.subject.as_str(), structured.entity_type.as_str()), ("order.created", "order"));
    assert_eq!(structured.operation, "created");
    assert_eq!((structured.entity_id.as_deref(), structured.tenant_id.as_deref()), (Some("42"), Some("acme")));
    assert_eq!(structured.timestamp.as_deref(), Some("2026-03-02T14:00:00Z"));
    assert_eq!(structured.entity.as_deref(), Some(ORDER.as_bytes()));
    for (name, value) in
        [("type", "order.created"), ("format", "cloudevents"), ("ce.source", "/shop"), ("ce.id", "a-1")]
    {
        assert_eq!(attribute(&structured, name).as_deref(), Some(value), "{name}");
    }
    let binary = decoded(&message(ORDER, &BINARY)).unwrap();
    assert_eq!(attribute(&binary, "ce.datacontenttype").as_deref(), Some("application/json"));
    assert!(!binary.attributes.iter().any(|(name, _)| name.starts_with("header.ce-")), "{:?}", binary.attributes);
    let same = |event: Event| Event { attributes: Vec::new(), ..event };
    assert_eq!(same(binary), same(structured.clone()));
    let spaced = json(&[("data", "{ \"id\" : \"42\",\n \"total\":129.5 }")]);
    assert_eq!(
        decoded(&message(&spaced, &[])).unwrap().body_digest,
        structured.body_digest,
        "white space says nothing"
    );
    let other = json(&[("data", r#"{"id":"42","total":129.6}"#)]);
    assert_ne!(decoded(&message(&other, &[])).unwrap().body_digest, structured.body_digest);
}

#[test]
fn id_and_source_are_the_identity() {
    let key = |id: &str, source: &str| {
        let (id, source) = (format!("\"{id}\""), format!("\"{source}\""));
        decoded(&message(&json(&[("id", &id), ("source", &source)]), &[("Nats-Msg-Id", "m")])).unwrap().key
    };
    assert_eq!(key("1", "/shop"), key("1", "/shop"));
    assert_ne!(key("1", "/shop"), key("1", "/other"));
    assert_ne!(key("1", "/shop"), key("2", "/shop"));
    assert_ne!(key("1@a", "b"), key("1", "a@b"));
    let long = "x".repeat(1_000_000);
    assert!(key(&long, "/shop").as_str().starts_with("bus/ce/sha256-"));
    assert_ne!(key(&long, "/shop"), key(&long, "/other"));
}

#[test]
fn an_attribute_that_an_event_needs_is_there_or_named() {
    let said = |member: &str, value: &str| decoded(&message(&json(&[(member, value)]), &[])).unwrap_err().to_string();
    for member in ["id", "source", "type"] {
        let format = "the body is in the format `cloudevents`, but its";
        for value in ["absent", "null", r#""""#] {
            assert_eq!(said(member, value), format!("{format} `{member}` is missing"), "{value}");
        }
        for value in ["{}", r#"["a"]"#, "true"] {
            assert_eq!(said(member, value), format!("{format} `{member}` is neither a text nor a number"), "{value}");
        }
        assert_eq!(said(member, r#""a\u0000""#), format!("{format} `{member}` contains a NUL character"));
        assert_eq!(said("x", &format!("1,\"{member}\":\"b\"")), format!("{format} `{member}` appears more than once"));
        let headers: Vec<_> = BINARY.into_iter().filter(|(name, _)| name[3..] != *member).collect();
        let said = decoded(&message(ORDER, &headers)).unwrap_err().to_string();
        assert_eq!(said, format!("{format} `{member}` is missing"));
    }
    assert!(said("specversion", r#""0.3""#).ends_with("`specversion` is not 1.0"));
    assert!(said("specversion", "2").ends_with("`specversion` is not 1.0"));
    let long = format!("\"{}\"", "x".repeat(1_000_000));
    for member in ["type", "subject", "time", "tenantid"] {
        assert!(said(member, &long).ends_with(&format!("`{member}` is longer than 1024 bytes")), "{member}");
    }
    for member in ["subject", "time", "tenantid"] {
        for value in ["absent", "null", r#""""#] {
            let event = decoded(&message(&json(&[(member, value)]), &[])).unwrap();
            let [entity, time, tenant] = [&event.entity_id, &event.timestamp, &event.tenant_id].map(Option::is_none);
            assert_eq!([entity, time, tenant], ["subject", "time", "tenantid"].map(|it| it == member), "{value}");
        }
        for value in ["{}", "[]", "false"] {
            assert!(said(member, value).ends_with(&format!("`{member}` is neither a text nor a number")));
        }
    }
}

#[test]
fn other_json_with_some_of_its_members_is_no_cloudevent() {
    for body in
        [r#"{"id":"1","source":"web","type":"click"}"#, r#"{"specversion":"1.0"}"#, r#"[{"specversion":"1.0","id":1}]"#]
    {
        let event = decoded(&message(body, &[])).unwrap();
        assert_eq!(attribute(&event, "format").as_deref(), Some("json"), "{body}");
        assert_eq!(event.key.as_str(), "bus/position/s:7");
    }
    let as_said = |body: &str| {
        let said = decoded(&message(body, &[("content-type", "application/cloudevents+json; charset=utf-8")]));
        said.unwrap_err().to_string()
    };
    assert!(as_said(r#"{"id":"1","source":"web","type":"click"}"#).contains("`specversion` is missing"));
    assert!(as_said("[1]").contains("no JSON object") && as_said("{").contains("not JSON"));
}

#[test]
fn a_tenant_is_where_the_settings_say() {
    let tenant = |field: &str, message: &Message| {
        let fields = Fields { tenant: Some(field.to_owned()), ..Fields::default() };
        decoded_by(message, &fields).map(|event| event.tenant_id).map_err(|error| error.to_string())
    };
    let said = |text: &str| Ok(Some(text.to_owned()));
    let structured = message(&json(&[("customer", r#""c-9""#)]), &[]);
    let mut headers = BINARY.to_vec();
    headers.push(("ce-customer", "c-9"));
    let binary = message(ORDER, &headers);
    for message in [&structured, &binary] {
        assert_eq!(tenant("customer", message), said("c-9"));
        assert_eq!(tenant("/customer", message), said("c-9"));
        assert_eq!(tenant("/data/id", message), said("42"));
        assert_eq!(tenant("/data/nobody", message), said("acme"), "its `tenantid` is not passed over");
        assert_eq!(tenant("nobody", message), said("acme"));
    }
    let nested = message(r#"{"id":{}}"#, &BINARY);
    assert_eq!(
        tenant("/data/id", &nested).unwrap_err(),
        "the source's tenant_field `/data/id` is neither a text nor a number"
    );
    assert_eq!(tenant("/data/id", &message("", &BINARY)), said("acme"));
}

#[test]
fn data_of_any_type_is_json_for_the_plugin() {
    let entity =
        |message: Message| decoded(&message).unwrap().entity.map(|json| String::from_utf8(json.to_vec()).unwrap());
    let structured = |members: &[(&str, &str)]| entity(message(&json(members), &[]));
    assert_eq!(structured(&[("data", "absent")]), None);
    assert_eq!(structured(&[("data", "null")]), None);
    assert_eq!(
        structured(&[("data", r#""<a/>""#), ("datacontenttype", r#""text/xml""#)]).as_deref(),
        Some(r#""<a/>""#)
    );
    assert_eq!(structured(&[("data", "absent"), ("data_base64", r#""eyJhIjoxfQ==""#)]).as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(structured(&[("data", "absent"), ("data_base64", r#""PGEvPg==""#)]).as_deref(), Some(r#""<a/>""#));
    assert_eq!(structured(&[("data", "absent"), ("data_base64", r#""/w==""#)]).as_deref(), Some(r#""/w==""#));
    let wrong = message(&json(&[("data", "absent"), ("data_base64", r#""?""#)]), &[]);
    assert!(decoded(&wrong).unwrap_err().to_string().ends_with("`data_base64` is not base64"));
    let binary = |body: &str, content_type: &'static str| {
        let mut headers = BINARY[..7].to_vec();
        headers.push(("content-type", content_type));
        message(body, &headers)
    };
    assert_eq!(entity(binary(" [1] ", "application/vnd.shop+json; charset=utf-8")).as_deref(), Some("[1]"));
    assert_eq!(entity(binary("<a b=\"é\"/>", "text/xml")).as_deref(), Some(r#""<a b=\"é\"/>""#));
    assert_eq!(entity(binary("", "application/json")), None);
    assert!(decoded(&binary("<a/>", "application/json")).is_err());
    let mut bytes = binary("", "image/png");
    bytes.payload = Bytes::from_static(b"\x89PNG");
    assert_eq!(entity(bytes).as_deref(), Some(r#""iVBORw==""#));
}

#[test]
fn headers_are_unquoted_and_percent_decoded() {
    let id = |value: &str| {
        let mut headers = BINARY.to_vec();
        headers[1].1 = value;
        decoded(&message(ORDER, &headers)).map(|event| attribute(&event, "ce.id").unwrap())
    };
    assert_eq!(id("Gr%C3%B6%C3%9Fe%20%22").unwrap(), "Größe \"");
    assert_eq!(id(r#""a \"b\" %25""#).unwrap(), r#"a "b" %"#);
    assert_eq!(id("100%").unwrap(), "100%");
    assert!(id("%ff").is_err());
}

#[test]
fn the_attributes_of_an_event_have_bounds() {
    let many: Vec<_> = (0..200).map(|number| (format!("x{number}"), "\"v\"".to_owned())).collect();
    let mut members: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let big = format!("\"{}\"", "b".repeat(9_000));
    members.insert(0, ("big", &big));
    let event = decoded(&message(&json(&members), &[])).unwrap();
    let found = event.attributes.iter().filter(|(name, _)| name.starts_with("ce."));
    assert_eq!(found.count(), HEADER_ATTRIBUTES_MAX);
    assert!(attribute(&event, "ce.big").is_none() && attribute(&event, "ce.id").is_some());
    let late = format!(
        "{{{},\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"specversion\":\"1.0\"}}",
        many.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect::<Vec<_>>().join(",")
    );
    assert_eq!(decoded(&message(&late, &[])).unwrap().key.as_str(), "bus/ce/1:1@s");
}

proptest! {
    #[test]
    fn no_headers_or_members_make_it_panic(
        headers in proptest::collection::vec(("(ce-(id|type|source|specversion|subject|x)|content-type)", any::<String>()), 0..8),
        body in any::<String>(),
        tenant in "[/a-z]{0,12}",
    ) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let fields = Fields { tenant: Some(tenant), ..Fields::default() };
        let _ = decoded_by(&message(&body, &headers), &fields);
        let _ = decoded_by(&message(&json(&[("id", &serde_json::Value::from(body).to_string())]), &[]), &fields);
    }
}
