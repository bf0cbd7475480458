use http_body_util::BodyExt as _;

use super::*;
use crate::delivery::{DeliveryId, RetryPolicy};
use crate::event::EventKey;
use crate::settings::SignatureScheme;
use crate::store::DeliverySeq;

fn settings(own: &[(&str, &str)]) -> EndpointSettings {
    EndpointSettings {
        name: "orders".into(),
        url: "https://example.com/hooks?tenant=1".parse().unwrap(),
        secrets: vec![Secret::new("s").into()],
        signature: SignatureScheme::Fraiseql,
        timeout: std::time::Duration::from_secs(15),
        concurrency: 1,
        headers: own.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value))).collect(),
        access: crate::settings::AccessSettings::default(),
        retry: RetryPolicy::default(),
        order: crate::settings::Order::None,
        backlog: crate::settings::BacklogSettings::default(),
        gate: crate::dispatcher::gate::GatePolicy::default(),
    }
}

fn template(own: &[(&str, &str)]) -> Result<RequestTemplate, InvalidHeader> {
    let settings = settings(own);
    let signer = Signer::new(settings.signature.clone(), &settings.secrets).unwrap();
    RequestTemplate::new(&settings, Uri::try_from(settings.url.as_str()).unwrap(), signer)
}

fn delivery(headers: &[(&str, &str)]) -> ClaimedDelivery {
    ClaimedDelivery {
        seq: DeliverySeq(1),
        id: DeliveryId::from_stored("msg_1"),
        event_key: EventKey::from_stored("bus/id/1"),
        plugin: "orders".into(),
        endpoint: "orders".into(),
        content_type: "application/json".to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: Bytes::from_static(b"{}"),
        due_at: Timestamp(0),
        attempts_made: 0,
        attempts_before_budget: 0,
    }
}

fn request(own: &[(&str, &str)], webhook: &[(&str, &str)]) -> Request<Full<Bytes>> {
    template(own).unwrap().request(&delivery(webhook), Timestamp(1_000)).unwrap()
}

/// Every value of `name` in a request of an endpoint with `own` headers for a webhook with its own.
fn check(own: &[(&str, &str)], webhook: &[(&str, &str)], name: &str, expected: &[&str]) {
    let request = request(own, webhook);
    let values: Vec<_> =
        request.headers().get_all(name).iter().map(|value| std::str::from_utf8(value.as_bytes()).unwrap()).collect();
    assert_eq!(values, expected, "{name}");
}

#[test]
fn carries_what_every_request_must() {
    check(&[], &[], "content-type", &["application/json"]);
    check(&[], &[], "webhook-id", &["msg_1"]);
    check(&[], &[], "x-timestamp", &["1"]);
    check(&[], &[], "user-agent", &[concat!("wirehook/", env!("CARGO_PKG_VERSION"))]);
    assert_eq!(request(&[], &[]).uri().to_string(), "https://example.com/hooks?tenant=1");
    assert_eq!(request(&[], &[]).method(), Method::POST);
}

#[test]
fn the_body_is_shared() {
    let delivery = delivery(&[]);
    let request = template(&[]).unwrap().request(&delivery, Timestamp(1_000)).unwrap();
    let sent = futures::executor::block_on(request.into_body().collect()).unwrap().to_bytes();
    assert_eq!(sent.as_ptr(), delivery.body.as_ptr());
}

#[test]
fn plugins_add_headers() {
    check(&[], &[("x-tag", "a"), ("x-tag", "b")], "x-tag", &["a", "b"]);
    check(&[], &[("x-name", "Zoë ✓")], "x-name", &["Zoë ✓"]);
    check(&[], &[("User-Agent", "shop/1")], "user-agent", &["shop/1"]);
}

#[test]
fn plugins_do_not_get_past_the_host() {
    check(&[("authorization", "Bearer t")], &[("Authorization", "mine")], "authorization", &["Bearer t"]);
    check(&[], &[("Authorization", "mine")], "authorization", &[]);
    check(&[("x-tenant", "1")], &[("X-Tenant", "2")], "x-tenant", &["1"]);
    check(&[], &[("webhook-id", "mine")], "webhook-id", &["msg_1"]);
    check(&[], &[("X-Timestamp", "9")], "x-timestamp", &["1"]);
    check(&[], &[("content-type", "text/plain")], "content-type", &["application/json"]);
    check(&[], &[("transfer-encoding", "chunked"), ("content-length", "9")], "transfer-encoding", &[]);
    check(&[], &[("transfer-encoding", "chunked"), ("content-length", "9")], "content-length", &[]);
}

#[test]
fn the_chosen_header_is_the_signatures() {
    let settings = EndpointSettings {
        signature: SignatureScheme::Hmac { header: HeaderName::from_static("x-shop") },
        ..settings(&[])
    };
    let signer = Signer::new(settings.signature.clone(), &settings.secrets).unwrap();
    let uri = Uri::try_from(settings.url.as_str()).unwrap();
    let template = RequestTemplate::new(&settings, uri, signer).unwrap();
    assert!(template.reserves("X-Shop"));
    let stored = delivery(&[("X-Shop", "forged"), ("x-tag", "a")]);
    let request = template.request(&stored, Timestamp(1_000)).unwrap();
    let values: Vec<_> = request.headers().get_all("x-shop").iter().collect();
    assert_eq!(values.len(), 1);
    assert_ne!(values[0], "forged");
    assert_eq!(request.headers()["x-tag"], "a");
}

#[test]
fn values_of_the_endpoint_are_secrets() {
    let request = request(&[("authorization", "Bearer t"), ("x-api-key", "k")], &[("x-tag", "a")]);
    assert!(request.headers()["authorization"].is_sensitive());
    assert!(request.headers()["x-api-key"].is_sensitive());
    assert!(!request.headers()["x-tag"].is_sensitive());
    assert!(!format!("{request:?}").contains("Bearer"));
}

#[test]
fn a_header_http_cannot_carry_is_named_without_its_value() {
    let error = template(&[("x-key", "hush\r\nevil: 1")]).err().unwrap().to_string();
    assert_eq!(error, "header `x-key` can't be sent: its value has characters that HTTP does not allow");
    let stored = delivery(&[("x key", "1")]);
    let error = template(&[]).unwrap().request(&stored, Timestamp(0)).unwrap_err().to_string();
    assert_eq!(error, "header `x key` can't be sent: its name has characters that HTTP does not allow");
}

#[test]
fn reserved_names() {
    assert!(RESERVED.is_sorted(), "they are searched by halves");
    for name in ["Host", "COOKIE", "webhook-anything", "Webhook-Signature", "X-Signature", "stripe-signature", "TE"] {
        assert!(is_reserved(name), "{name}");
    }
    let template = template(&[("x-tenant", "1")]).unwrap();
    assert!(template.reserves("X-Tenant") && template.reserves("Host") && !template.reserves("x-tag"));
    for name in ["x-tag", "user-agent", "content-type", "x-webhook-id", "accept"] {
        assert!(!is_reserved(name), "{name}");
    }
}
