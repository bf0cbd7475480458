//! Zig, which stands for any language without an SDK: the example follows `wit/abi.md`.

use anyhow::{Context, Result};
use bytes::Bytes;
use wirehook::clock::SystemClock;
use wirehook::event::{Event, EventKey};
use wirehook::plugin::compiler::Compiler;
use wirehook::plugin::{Engine, Manifest, Plugin};
use wirehook_tests::test_host::PluginFile;
use wirehook_tests::{artifacts, full};

use crate::check;

#[tokio::test]
async fn a_module_by_the_page_alone_turns_an_event_into_a_verified_webhook() -> Result<()> {
    if !full::wanted("the example in Zig") {
        return Ok(());
    }
    check::whole_path(PluginFile::of_bytes("orders-zig", &built()?)).await
}

#[test]
fn what_is_empty_crosses_too() -> Result<()> {
    if !full::wanted("the example in Zig") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let engine = Engine::new(1, &folder.path().join("compiled"), Compiler::InProcess, SystemClock::shared())?;
    let plugin = Plugin::load(&engine, "orders-zig", &built()?, Manifest::default())?;
    let event = Event {
        key: EventKey::new("bus", "id", 1),
        source: "bus".into(),
        subject: "fraiseql.order.created".to_owned(),
        entity_type: String::new(),
        operation: String::new(),
        entity_id: Some(String::new()),
        tenant_id: None,
        timestamp: None,
        entity: Some(Bytes::from_static(br#"{"total":12345678901234567890.10}"#)),
        previous: Some(Bytes::new()),
        attributes: Vec::new(),
        body_digest: [0; 16],
    };
    let webhooks = plugin.call(&event, 1).result?;
    let body = br#"{"event":"order.created","order_id":"","customer_email":null,"total":12345678901234567890.10}"#;
    assert_eq!(webhooks.first().context("a webhook")?.body, Bytes::from_static(body));
    Ok(())
}

fn built() -> Result<Vec<u8>> {
    let file = artifacts::target_folder()?.join("zig/orders.wasm");
    std::fs::read(&file).with_context(|| format!("{}: run `cargo xtask test --full`", file.display()))
}
