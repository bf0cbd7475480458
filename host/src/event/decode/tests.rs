use proptest::prelude::*;

use super::*;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn message(body: &(impl AsRef<[u8]> + ?Sized)) -> Message {
    Message {
        subject: "bus.subject".into(),
        payload: Bytes::copy_from_slice(body.as_ref()),
        headers: Vec::new(),
        position: None,
    }
}

fn decoded(message: &Message, id_field: Option<&str>) -> Result<Event, Undecodable> {
    decoded_by(message, &Fields { id: id_field.map(str::to_owned), ..Fields::default() })
}

fn decoded_by(message: &Message, fields: &Fields) -> Result<Event, Undecodable> {
    let decoded = decode(&"bus".into(), message, fields, || "unique".to_owned());
    assert_eq!(check(message, fields).err(), decoded.as_ref().err().cloned(), "check agrees with decode");
    decoded
}

fn headers(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn attribute(event: &Event, name: &str) -> Option<String> {
    event.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
}

#[test]
fn only_what_has_a_formats_signature_is_taken_for_it() {
    let check = |body: &str, format: &str| {
        let event = decoded(&message(body), None).unwrap();
        assert_eq!(attribute(&event, "format").as_deref(), Some(format), "{body}");
    };
    check(r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created"}"#, "page");
    check(r#"{"event":"order.created","entity_type":"order","operation":"created"}"#, "json");
    check(r#"{"event":"fraiseql.is.great"}"#, "json");
    check(r#"{"id":"1","event_type":"INSERT","entity_type":"Order","entity_id":"2"}"#, "entity_event");
    check(r#"{"id":"1","event_type":"user.signed_up","entity_type":"Order","entity_id":"2"}"#, "json");
    check(r#"{"id":"1","event_type":"INSERT","entity_type":7,"entity_id":"2"}"#, "json");
    check(r#"{"event_type":"INSERT","entity_type":"Order"}"#, "json");
    check(r#"{"seq":1,"object_type":"Order","op":"delete"}"#, "change_event");
    check(r#"{"seq":1,"object_type":"page","op":"render"}"#, "json");
    check(r#"{"object_type":"Order","op":"delete"}"#, "json");
    check(r#"{"object_type":"Order","modification_type":"NOOP"}"#, "outbox");
    check(r#"{"object_type":"Order"}"#, "json");
    check(r#"[{"event":"fraiseql.order.created","entity_type":"order","operation":"created"}]"#, "json");
    check(r#"{"ev\u0065nt":"fraiseql.order.created","entity_type":"order","operation":"created"}"#, "page");
}

#[test]
fn operations_have_one_name() {
    let check = |verb: &str, expected: &str| {
        let body = format!(r#"{{"object_type":"OrderLine","modification_type":"{verb}"}}"#);
        let event = decoded(&message(&body), None).unwrap();
        assert_eq!((event.operation.as_str(), event.subject), (expected, format!("fraiseql.order_line.{expected}")));
    };
    check("INSERT", "created");
    check("insert", "created");
    check("created", "created");
    check("UPDATE", "updated");
    check("updated", "updated");
    check("DELETE", "deleted");
    check("CUSTOM", "custom");
    check("NOOP", "custom");
    check("READ", "custom");
}

#[test]
fn an_undecodable_message_says_what_is_missing() {
    let check = |body: &[u8], expected: &str| {
        assert_eq!(decoded(&message(body), None).unwrap_err().to_string(), expected);
    };
    check(b"", "the body is empty; an event is JSON");
    check(b" \n", "the body is empty; an event is JSON");
    check(b"{\"a\":\"\xff\"}", "the body is not JSON: it is not UTF-8 from byte 6 on");
    check(b"hello", "the body is not JSON: expected value at line 1 column 1");
    check(b"{} {}", "the body is not JSON: trailing characters at line 1 column 4");
    check(b"{\"a\":01}", "the body is not JSON: invalid number at line 1 column 7");
    check(
        br#"{"event":"fraiseql.order.created","entity_type":"order"}"#,
        "the body is in the format `page`, but its `operation` is missing",
    );
    check(
        br#"{"event":"fraiseql.order.created","entity_type":null,"operation":"created"}"#,
        "the body is in the format `page`, but its `entity_type` is missing",
    );
    check(
        br#"{"event":"fraiseql.order.created","entity_type":"..","operation":"created"}"#,
        "the body is in the format `page`, but its `entity_type` has neither a letter nor a digit",
    );
    check(
        br#"{"object_type":"Order","modification_type":"TRUNCATE"}"#,
        "the body is in the format `outbox`, but its `modification_type` is no known operation",
    );
    check(
        br#"{"seq":1.5,"object_type":"Order","op":"insert"}"#,
        "the body is in the format `change_event`, but its `seq` is not an integer",
    );
    check(
        br#"{"id":{},"event_type":"INSERT","entity_type":"Order","entity_id":"1"}"#,
        "the body is in the format `entity_event`, but its `id` is neither a text nor a number",
    );
    check(
        br#"{"seq":1,"seq":2,"object_type":"Order","op":"insert"}"#,
        "the body is in the format `change_event`, but its `seq` appears more than once",
    );
}

/// A body of each recognised format with one member more.
fn recognised_with(member: &str) -> [String; 4] {
    [
        format!(r#"{{"event":"fraiseql.order.created","entity_type":"order","operation":"created",{member}}}"#),
        format!(r#"{{"id":"1","event_type":"INSERT","entity_type":"Order","entity_id":"2",{member}}}"#),
        format!(r#"{{"seq":1,"object_type":"Order","op":"insert",{member}}}"#),
        format!(r#"{{"object_type":"Order","modification_type":"INSERT",{member}}}"#),
    ]
}

#[test]
fn a_tenant_that_is_a_number_is_its_text_in_every_format() {
    let check = |json: &str, expected: Option<&str>| {
        for body in recognised_with(&format!(r#""tenant_id":{json}"#)) {
            assert_eq!(decoded(&message(&body), None).unwrap().tenant_id.as_deref(), expected, "{body}");
        }
    };
    check("1", Some("1"));
    check("-7", Some("-7"));
    check("12345678901234567890123", Some("12345678901234567890123"));
    check("1.50", Some("1.50"));
    check(r#""acme""#, Some("acme"));
    check(r#""a\u00e9\ud83d\ude00""#, Some("aé😀"));
    check("null", None);
}

#[test]
fn a_text_that_is_none_is_undecodable_and_never_dropped() {
    let check = |member: &str, json: &str, problem: &str| {
        for body in recognised_with(&format!(r#""{member}":{json}"#)) {
            let error = decoded(&message(&body), None).unwrap_err().to_string();
            assert!(error.ends_with(&format!("but its `{member}` {problem}")), "{body}: {error}");
        }
    };
    for member in ["tenant_id", "user_id", "actor_type", "acting_for", "trace_id"] {
        for json in ["{}", r#"{"id":1}"#, "[]", r#"["a"]"#, "true", "false", r#""\ud800""#, r#""a\udc00b""#] {
            check(member, json, "is neither a text nor a number");
        }
        check(member, r#""a\u0000b""#, "contains a NUL character");
    }
}

#[test]
fn no_id_contains_a_nul() {
    let check = |body: &str, id_field: Option<&str>, member: &str| {
        let error = decoded(&message(body), id_field).unwrap_err().to_string();
        assert!(error.ends_with(&format!("`{member}` contains a NUL character")), "{body}: {error}");
    };
    let page = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created","#;
    check(&format!(r#"{page}"entity_id":"1\u0000"}}"#), None, "entity_id");
    check(&format!(r#"{page}"timestamp":"\u0000"}}"#), None, "timestamp");
    check(r#"{"id":"\u0000","event_type":"INSERT","entity_type":"Order","entity_id":"2"}"#, None, "id");
    check(r#"{"seq":1,"object_type":"Or\u0000der","op":"insert"}"#, None, "object_type");
    check(r#"{"my":{"key":"a\u0000"}}"#, Some("/my/key"), "/my/key");
}

#[test]
fn an_actor_that_is_a_number_is_kept() {
    let body = r#"{"object_type":"Order","modification_type":"INSERT","user_id":42,"trace_id":7}"#;
    let event = decoded(&message(body), None).unwrap();
    assert_eq!(attribute(&event, "actor").as_deref(), Some("42"));
    assert_eq!(attribute(&event, "trace_id").as_deref(), Some("7"));
}

#[test]
fn no_text_of_an_event_is_longer_than_its_bound() {
    let check = |body: &dyn Fn(&str) -> String, expected: &str| {
        let fits = "x".repeat(TEXT_BYTES_MAX);
        assert!(decoded(&message(&body(&fits)), None).is_ok(), "{expected}");
        let refused = decoded(&message(&body(&format!("{fits}y"))), None).unwrap_err();
        assert_eq!(refused.to_string(), expected);
        let escaped = format!("{}\\u0079", &fits[1..]);
        assert!(decoded(&message(&body(&escaped)), None).is_ok(), "what counts is the text, not how it is written");
    };
    let page = |member: &'static str| {
        move |text: &str| {
            let head = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created""#;
            format!(r#"{head},"{member}":"{text}"}}"#)
        }
    };
    let told =
        |format, member| format!("the body is in the format `{format}`, but its `{member}` is longer than 1024 bytes");
    check(&page("entity_id"), &told("page", "entity_id"));
    check(&page("tenant_id"), &told("page", "tenant_id"));
    check(&page("timestamp"), &told("page", "timestamp"));
    let entity_event =
        |text: &str| format!(r#"{{"id":"1","event_type":"INSERT","entity_type":"Order","entity_id":"{text}"}}"#);
    check(&entity_event, &told("entity_event", "entity_id"));
    let change = |text: &str| format!(r#"{{"seq":1,"object_type":"Order","op":"insert","object_id":"{text}"}}"#);
    check(&change, &told("change_event", "object_id"));
    let outbox =
        |text: &str| format!(r#"{{"object_type":"Order","modification_type":"INSERT","created_at":"{text}"}}"#);
    check(&outbox, &told("outbox", "created_at"));
    let digits = format!(r#"{{"seq":1,"object_type":"Order","op":"insert","object_id":{}}}"#, "1".repeat(1025));
    assert_eq!(decoded(&message(&digits), None).unwrap_err().to_string(), told("change_event", "object_id"));
}

#[test]
fn a_subject_that_is_too_long_is_no_events() {
    let decoded = |length: usize| {
        let message = Message { subject: "c".repeat(length).into(), ..message("{}") };
        decode(&"bus".into(), &message, &Fields::default(), || "unique".to_owned())
    };
    assert!(decoded(TEXT_BYTES_MAX).is_ok());
    let refused = decoded(TEXT_BYTES_MAX + 1).unwrap_err().to_string();
    assert_eq!(refused, "its subject has 1025 bytes; the limit is 1024: publish it under a shorter one");
}

#[test]
fn the_texts_of_an_event_weigh_as_much_as_they_hold() {
    let long = "x".repeat(1000);
    let body = format!(
        r#"{{"object_type":"Order","modification_type":"INSERT","object_id":"{long}","tenant_id":"{long}","commit_time":"{long}"}}"#
    );
    let event = decoded(&Message { headers: headers(&[("note", &long)]), ..message(&body) }, None).unwrap();
    assert_eq!(event.entity, None);
    assert!(event.content_bytes() >= 4_000, "{}", event.content_bytes());
}

#[test]
fn any_other_json_is_an_event() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in ["{}", " [1, 2]\n", "42", "-1.5e3", "\"text\"", "null", "true", r#"{"a":1,"a":2}"#, &deep] {
        let message = message(body);
        let event = decoded(&message, None).unwrap();
        assert_eq!((event.subject.as_str(), event.entity_type.as_str()), ("bus.subject", ""));
        assert_eq!(event.operation, "custom");
        assert_eq!(event.key.as_str(), "bus/once/unique");
        assert_eq!(event.entity.unwrap(), body.trim());
    }
}

#[test]
fn the_key_comes_from_the_strongest_identity_there_is() {
    let all = headers(&[("Idempotency-Key", "idem"), ("nats-msg-id", "Order:7")]);
    let check = |body: &str, headers: &[(String, String)], position: Option<&str>, field: Option<&str>, key: &str| {
        let position = position.map(str::to_owned);
        let message = Message { headers: headers.to_vec(), position, ..message(body) };
        assert_eq!(decoded(&message, field).unwrap().key.as_str(), key, "{body}");
    };
    let change = r#"{"seq":7,"object_type":"OrderLine","op":"insert","id":"own"}"#;
    check(change, &all, Some("s:1:2"), Some("op"), "bus/seq/OrderLine:7");
    let text = r#"{"seq":"18446744073709551615","object_type":"Order","op":"insert","id":"own"}"#;
    check(text, &all, Some("s:1:2"), None, "bus/seq/Order:18446744073709551615");
    let entity = r#"{"id":"own","seq":null,"event_type":"INSERT","entity_type":"Order","entity_id":"1"}"#;
    check(entity, &all, Some("s:1:2"), Some("entity_id"), "bus/id/own");
    let page = r#"{"id":"of the entity?","event":"fraiseql.a.created","entity_type":"a","operation":"created"}"#;
    check(page, &all, Some("s:1:2"), None, "bus/msg-id/Order:7");
    check(page, &all, Some("s:1:2"), Some("id"), "bus/id/of the entity?");
    check("{}", &all, Some("s:1:2"), None, "bus/msg-id/Order:7");
    check("{}", &all[..1], Some("s:1:2"), None, "bus/msg-id/idem");
    check("{}", &[], Some("s:1:2"), None, "bus/position/s:1:2");
    // The hash of a long value is not to be had by writing it.
    let long = "x".repeat(300);
    let hash = format!("sha256-{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&long)));
    check("{}", &headers(&[("Nats-Msg-Id", &long)]), None, None, &format!("bus/msg-id/{hash}"));
    let hash_of_hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&hash));
    check("{}", &headers(&[("Nats-Msg-Id", &hash)]), None, None, &format!("bus/msg-id/sha256-{hash_of_hash}"));
    check("{}", &headers(&[("Nats-Msg-Id", "")]), None, None, "bus/once/unique");
    check(r#"{"id":"x"}"#, &[], None, None, "bus/once/unique");
}

#[test]
fn a_change_published_again_is_no_conflict_and_another_change_is() {
    let check = |one: &str, other: &str, same: bool| {
        let [one, other] = [one, other].map(|body| decoded(&message(body), None).unwrap());
        assert_eq!(one.key == other.key && one.body_digest == other.body_digest, same, "{one:?} {other:?}");
    };
    let row = |rest: &str| {
        format!(r#"{{"seq":7,"event_type":"UPDATE","entity_type":"Order","entity_id":"1","tenant_id":"t",{rest}}}"#)
    };
    let first = row(r#""id":"a","timestamp":"2026-01-22T10:00:00Z","data":{"v":1},"changes":{"v":{},"w":{}}"#);
    let again = row(r#""changes":{"w":{},"v":{}},"id":"b","timestamp":"2026-01-22T10:00:09Z","data":{"v":1}"#);
    check(&first, &again, true);
    check(&first, &again.replace("\"v\":1", "\"v\":2"), false);
    check(&first, &again.replace("UPDATE", "DELETE"), false);
    check(&first, &again.replace("\"t\"", "\"u\""), false);
    check(&first, &again.replace("\"data\"", "\"no_data\""), false);
    check(&first, &again.replace("\"entity_id\":\"1\"", "\"entity_id\":\"2\""), false);
    let named = |body: String| body.replace("\"seq\":7,", "").replace("\"id\":\"b\"", "\"id\":\"a\"");
    check(&named(first.clone()), &named(again.clone()), true);
    check(&named(first), &named(again.replace("\"v\":1", "\"v\":2")), false);
    let change = r#"{"seq":7,"object_type":"Order","op":"delete","before":{"v":1}}"#;
    check(change, &change.replace("before", "after"), false);
}

#[test]
fn id_field_is_a_member_or_a_pointer() {
    let check = |body: &str, field: &str, expected: Result<&str, &str>| {
        let key = decoded(&message(body), Some(field)).map(|event| event.key.as_str().to_owned());
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(key.map_err(|error| error.to_string()), expected, "{body} {field}");
    };
    check(r#"{"id":"a"}"#, "id", Ok("bus/id/a"));
    check(r#"{"id":7}"#, "id", Ok("bus/id/7"));
    check(r#"{"order":{"ids":["x","y"]}}"#, "/order/ids/1", Ok("bus/id/y"));
    check(r#"{"a/b":{"~c":"z"}}"#, "/a~1b/~0c", Ok("bus/id/z"));
    check(r#"{"a.b":"dot"}"#, "a.b", Ok("bus/id/dot"));
    check(r#"{"i\u0064":"e\u0073c"}"#, "id", Ok("bus/id/esc"));
    check(r#"{"id":null}"#, "id", Ok("bus/once/unique"));
    check(r#"{"id":""}"#, "id", Ok("bus/once/unique"));
    check(r#"{"order":1}"#, "/order/id", Ok("bus/once/unique"));
    check("[]", "/0", Ok("bus/once/unique"));
    check("7", "id", Ok("bus/once/unique"));
    check(r#"{"id":["a"]}"#, "id", Err("the source's id_field `id` is neither a text nor a number"));
    check(r#"{"id":"a","id":"b"}"#, "id", Err("the source's id_field `id` appears more than once at line 1 column 19"));
}

#[test]
fn a_key_is_short_and_on_one_line() {
    let check = |id: &str, kept: bool| {
        let body = serde_json::json!({ "id": id }).to_string();
        let key = decoded(&message(&body), Some("id")).unwrap().key;
        assert_eq!(key.as_str() == format!("bus/id/{id}"), kept);
        assert!(kept || key.as_str().starts_with("bus/id/sha256-"));
    };
    check(&"x".repeat(256), true);
    check(&"x".repeat(257), false);
    check("a\nb", false);
}

#[test]
fn large_bodies_are_slices_and_small_ones_keep_nothing_else_in_memory() {
    let check = |value: usize, beside: usize, sliced: bool| {
        let (value, beside) = ("v".repeat(value), "b".repeat(beside));
        let members = r#""seq":7,"object_type":"Order","op":"update""#;
        let message =
            message(&format!(r#"{{{members},"after":{{"v":"{value}"}},"before":{{ "v":1 }},"beside":"{beside}"}}"#));
        let event = decoded(&message, None).unwrap();
        let (entity, previous) = (event.entity.unwrap(), event.previous.unwrap());
        assert_eq!((&entity[..], &previous[..]), (format!(r#"{{"v":"{value}"}}"#).as_bytes(), &br#"{ "v":1 }"#[..]));
        assert_eq!(message.payload.as_ptr_range().contains(&entity.as_ptr()), sliced);
        assert_eq!(message.payload.as_ptr_range().contains(&previous.as_ptr()), sliced);
    };
    check(1, 0, false);
    check(SLICED_BYTES_MIN, 0, true);
    check(SLICED_BYTES_MIN, 10 * SLICED_BYTES_MIN, false);
    let other = message(&format!(r#"{{"a":"{}"}}"#, "x".repeat(SLICED_BYTES_MIN)));
    assert!(other.payload.as_ptr_range().contains(&decoded(&other, None).unwrap().entity.unwrap().as_ptr()));
}

#[test]
fn the_trace_comes_from_the_body_else_from_the_header() {
    let check = |trace_context: &str, header: &str, expected: Option<&str>| {
        let body = format!(r#"{{"object_type":"A","modification_type":"READ","trace_context":{trace_context}}}"#);
        let message = Message { headers: headers(&[("Traceparent", header)]), ..message(&body) };
        assert_eq!(attribute(&decoded(&message, None).unwrap(), "traceparent").as_deref(), expected);
    };
    let other = TRACEPARENT.replace("0af", "fff");
    check(&format!("\"{TRACEPARENT}\""), &other, Some(TRACEPARENT));
    check(&format!("{{\"traceparent\":\"{TRACEPARENT}\"}}"), "", Some(TRACEPARENT));
    check(&format!("[\"{TRACEPARENT}\"]"), &other, Some(&other));
    check("null", TRACEPARENT, Some(TRACEPARENT));
    check("{\"tracestate\":\"x\"}", &other, Some(&other));
    check("7", "00-short", None);
}

#[test]
fn headers_become_attributes_within_bounds() {
    let mut many =
        headers(&[("Authorization", "Bearer x"), ("Cookie", "y"), ("X-Big", &"b".repeat(9000)), ("X-A", "1")]);
    many.extend((0..100).map(|index| (format!("n{index}"), "v".to_owned())));
    let event = decoded(&Message { headers: many, ..message("{}") }, None).unwrap();
    let found: Vec<_> = event.attributes.iter().filter(|(name, _)| name.starts_with("header.")).collect();
    assert_eq!(found[0], &("header.x-a".to_owned(), "1".to_owned()));
    assert_eq!(found.len(), HEADER_ATTRIBUTES_MAX - 1);
    assert!(!event.attributes.iter().any(|(name, _)| name.contains("authorization") || name.contains("cookie")));
}

#[test]
fn the_bus_subject_of_other_json_has_literal_tokens() {
    let check = |subject: &str, expected: &str| {
        let message = Message { subject: subject.into(), ..message("1") };
        let event = decoded(&message, None).unwrap();
        assert_eq!(event.subject, expected);
        assert_eq!(attribute(&event, "raw_subject").as_deref(), Some(subject));
    };
    check("orders.created", "orders.created");
    check("orders:a b*", "orders:a_b_");
    check("a..b", "a._.b");
    check("", "_");
}

/// Pieces that meet the decoder's own distinctions more often than noise does.
fn near_json() -> impl Strategy<Value = Vec<u8>> {
    let member = proptest::sample::select(vec![
        r#""event":"fraiseql.a.created""#,
        r#""entity_type":"Order""#,
        r#""entity_type":"\ud800""#,
        r#""operation":"created""#,
        r#""operation":3"#,
        r#""event_type":"INSERT""#,
        r#""entity_id":null"#,
        r#""id":"x""#,
        r#""id":[]"#,
        r#""object_type":"A""#,
        r#""op":"read""#,
        r#""seq":-3"#,
        r#""seq":9e9"#,
        r#""modification_type":"INSERT""#,
        r#""after":{"a":[1]}"#,
        r#""before":"#,
        r#""trace_context":{"#,
        r#""data":"\u0000""#,
        "\"id\":\"\u{1}\"",
    ]);
    proptest::collection::vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(",")).into_bytes())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..256), field in "[/a-z~01]{0,6}") {
        let _ = decoded(&message(&body), Some(&field));
        let _ = decoded(&message(&body), None);
    }

    #[test]
    fn nearly_right_messages_are_events_or_refused(body in near_json()) {
        let json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        if let Ok(event) = decoded(&message(&body), Some("id")) {
            prop_assert!(json);
            prop_assert!(event.subject.parse::<crate::event::subject::SubjectPattern>().is_ok());
            prop_assert!(event.key.as_str().starts_with("bus/"));
        }
    }
}

#[test]
fn a_byte_order_mark_says_nothing_and_another_encoding_is_named() {
    let with = |bytes: Vec<u8>| decoded(&Message { payload: bytes.into(), ..message("") }, None);
    let body = br#"{"id":7}"#;
    let marked = with([&b"\xef\xbb\xbf"[..], body].concat()).unwrap();
    assert_eq!(marked.entity.as_deref(), Some(&body[..]), "the plugin doesn't see it");
    let wide =
        |unit: fn(u16) -> [u8; 2]| String::from_utf8_lossy(body).encode_utf16().flat_map(unit).collect::<Vec<_>>();
    for bytes in [
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
        [vec![0xff, 0xfe], wide(u16::to_le_bytes)].concat(),
        [vec![0xfe, 0xff], wide(u16::to_be_bytes)].concat(),
    ] {
        let said = with(bytes).unwrap_err().to_string();
        assert!(said.contains("UTF-16") && said.contains("write it in UTF-8"), "{said}");
    }
}
