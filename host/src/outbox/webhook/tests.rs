use std::sync::OnceLock;

use bytes::Bytes;

use super::*;
use crate::plugin::Manifest;
use crate::plugin::fixture;
use crate::secret::Secret;
use crate::settings::{BacklogSettings, EgressSettings, EndpointSettings, Order, SignatureScheme};

/// A plugin called `orders` that may name `shop`, its default, and `ledger`.
fn orders() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| plugin(&["shop", "ledger"]))
}

fn plugin(endpoints: &[&str]) -> Plugin {
    let (engine, _dir) = fixture::engine();
    let manifest = Manifest { endpoints: endpoints.iter().map(|name| (*name).into()).collect(), ..Manifest::default() };
    Plugin::load(&engine, "orders", &fixture::guest("(i32.const 1024)"), manifest).unwrap()
}

/// `shop` and `ledger`, of which `shop` has a header of its own.
fn endpoints() -> Endpoints {
    let settings = |name: &str, headers: Vec<(String, Secret)>| EndpointSettings {
        name: name.into(),
        url: "http://127.0.0.1:9/hook".parse().unwrap(),
        secrets: vec![Secret::new("s").into()],
        signature: SignatureScheme::Stripe { header: "x-shop-signature".parse().unwrap() },
        timeout: std::time::Duration::from_secs(1),
        concurrency: 1,
        headers,
        access: crate::settings::AccessSettings::default(),
        retry: crate::delivery::RetryPolicy::default(),
        order: Order::None,
        backlog: BacklogSettings::default(),
        gate: crate::dispatcher::gate::GatePolicy::default(),
    };
    let own = vec![("x-api-key".to_owned(), Secret::new("k"))];
    Endpoints::new(&[settings("shop", own), settings("ledger", Vec::new())], &EgressSettings::default()).unwrap()
}

fn webhook() -> Webhook {
    Webhook { endpoint: None, key: None, content_type: None, headers: Vec::new(), body: Bytes::from_static(b"{}") }
}

fn to(endpoint: &str) -> Webhook {
    Webhook { endpoint: Some(endpoint.to_owned()), ..webhook() }
}

fn keyed(key: &str) -> Webhook {
    Webhook { key: Some(key.to_owned()), ..webhook() }
}

fn with_header(name: &str, value: &str) -> Webhook {
    Webhook { headers: vec![(name.to_owned(), value.to_owned())], ..webhook() }
}

fn event() -> EventKey {
    EventKey::new("bus", "id", "1")
}

fn made(webhooks: &[Webhook]) -> Result<Vec<NewDelivery>, Refused> {
    deliveries(webhooks, orders(), &event(), &endpoints())
}

#[test]
fn what_is_left_out_has_defaults() {
    let made = made(&[webhook()]).unwrap().remove(0);
    assert_eq!(&*made.endpoint, "shop");
    assert_eq!(made.content_type, "application/json");
    assert_eq!(made.claim, Claim::Open);
}

#[test]
fn what_is_given_is_taken_as_it_is() {
    let given = Webhook {
        content_type: Some("text/plain".to_owned()),
        headers: vec![("X-Order".to_owned(), "7".to_owned()), ("x-order".to_owned(), "8".to_owned())],
        ..to("ledger")
    };
    let made = made(std::slice::from_ref(&given)).unwrap().remove(0);
    assert_eq!((&*made.endpoint, made.content_type.as_str()), ("ledger", "text/plain"));
    assert_eq!((made.headers, made.body), (given.headers, given.body));
}

#[test]
fn ids_come_from_the_key_or_else_from_the_position() {
    let ids = |webhooks: &[Webhook]| made(webhooks).unwrap().into_iter().map(|it| it.id).collect::<Vec<_>>();
    let derived = |endpoint, distinct| DeliveryId::derive(&event(), "orders", endpoint, distinct, GENERATION_FIRST);
    assert_eq!(
        ids(&[webhook(), keyed("a"), to("ledger")]),
        [
            derived("shop", Distinct::Index(0)),
            derived("shop", Distinct::Key("a")),
            derived("ledger", Distinct::Index(2))
        ]
    );
    assert_eq!(ids(&[keyed("a"), keyed("b")])[0], ids(&[keyed("b"), keyed("a")])[1], "a key is not its position");
    assert_ne!(ids(&[keyed("0")])[0], ids(&[webhook()])[0], "a key is no index");
}

/// Every refusal: what was returned after a valid webhook, the reason and what the message must say.
#[test]
fn one_invalid_webhook_refuses_all_of_them() {
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let check = |bad: Webhook, reason: Reason, said: &[&str]| {
        let refused = made(&[webhook(), bad]).unwrap_err();
        assert_eq!(refused.reason(), reason, "{refused}");
        for part in ["webhook 1"].iter().chain(said) {
            assert!(refused.to_string().contains(part), "`{refused}` does not say `{part}`");
        }
    };
    check(to("billing"), Reason::EndpointUnknown, &["billing", "orders", "shop, ledger"]);
    check(with_header("X-Signature", "mine"), Reason::HeaderReserved, &["x-signature"]);
    check(with_header("webhook-anything", "mine"), Reason::HeaderReserved, &["webhook-anything"]);
    check(with_header("Authorization", "mine"), Reason::HeaderReserved, &["authorization"]);
    check(with_header("X-Api-Key", "mine"), Reason::HeaderReserved, &["X-Api-Key"]);
    check(with_header("X-Shop-Signature", "mine"), Reason::HeaderReserved, &["X-Shop-Signature"]);
    check(with_header("x order", "7"), Reason::PluginOutput, &["x order"]);
    check(with_header("", "7"), Reason::PluginOutput, &["name"]);
    check(with_header("x-order", "7\r\nx-signature: mine"), Reason::PluginOutput, &["x-order"]);
    check(with_header("x-size", "Größe"), Reason::PluginOutput, &["x-size", "visible ASCII"]);
    check(with_header("x-size", "a\u{7f}"), Reason::PluginOutput, &["x-size", "visible ASCII"]);
    let umlaut = Webhook { content_type: Some("text/plain; title=Größe".to_owned()), ..webhook() };
    check(umlaut, Reason::PluginOutput, &["content-type", "visible ASCII"]);
    for name in ["Expect", "HTTP2-Settings", "Connection", "TE", "Trailer", "Upgrade", "Keep-Alive", "Host"] {
        check(with_header(name, "x"), Reason::HeaderReserved, &[&name.to_lowercase()]);
    }
    let content_type = Webhook { content_type: Some("text/plain\n".to_owned()), ..webhook() };
    check(content_type, Reason::PluginOutput, &["content-type"]);
    check(keyed(""), Reason::PluginOutput, &["0 bytes"]);
    check(keyed(&long), Reason::PluginOutput, &["257 bytes"]);
}

#[test]
fn every_character_that_the_contract_names_is_allowed_in_a_value() {
    let visible: String = (' '..='~').chain(['\t']).collect();
    assert!(made(&[with_header("x-all", &visible), with_header("x-none", "")]).is_ok());
}

#[test]
fn a_key_may_be_as_long_as_its_limit() {
    assert!(made(&[keyed(&"k".repeat(KEY_BYTES_MAX))]).is_ok());
}

/// Reserved only where it is the endpoint's own.
#[test]
fn an_endpoint_s_own_header_is_free_on_another() {
    let elsewhere = Webhook { endpoint: Some("ledger".to_owned()), ..with_header("x-api-key", "mine") };
    assert!(made(&[elsewhere]).is_ok());
}

#[test]
fn the_same_key_twice_is_refused_on_one_endpoint_only() {
    assert_eq!(made(&[keyed("a"), webhook(), keyed("a")]), Err(Refused::Twice { index: 2 }));
    assert_eq!(made(&[keyed("a"), keyed("a")]).unwrap_err().reason(), Reason::PluginOutput);
    assert!(made(&[keyed("a"), Webhook { key: Some("a".to_owned()), ..to("ledger") }]).is_ok());
    assert!(made(&[webhook(), webhook()]).is_ok(), "positions differ");
}

#[test]
fn a_plugin_without_endpoints_can_name_none() {
    let plugin = plugin(&[]);
    let refused = |webhook: Webhook| deliveries(&[webhook], &plugin, &event(), &endpoints()).unwrap_err();
    assert_eq!(refused(webhook()), Refused::NoEndpoint { index: 0, plugin: "orders".into() });
    assert_eq!(refused(webhook()).reason(), Reason::EndpointUnknown);
    assert!(refused(to("shop")).to_string().ends_with("it may use: none"));
}

#[test]
fn no_webhook_is_no_delivery() {
    assert_eq!(made(&[]), Ok(Vec::new()));
}
