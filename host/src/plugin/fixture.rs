//! Guests for tests: core modules in text, with the component type of a world, as a toolchain would write them.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::compiler::Compiler;
use super::{Engine, Manifest, Plugin};
use crate::clock::SystemClock;
use crate::event::{Event, EventKey};

/// An engine for one call at once, and the folder its cache is in.
pub(crate) fn engine() -> (Arc<Engine>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Engine::new(1, &dir.path().join("compiled"), Compiler::InProcess, SystemClock::shared()).unwrap(), dir)
}

/// A plugin whose `on-event` is `body`: instructions with `$event` (a pointer to the event) that leave a pointer to the
/// result. Zeroes from 1024 on are a result without webhooks; the heap begins at 65536.
pub(crate) fn guest(body: &str) -> Vec<u8> {
    embed(&guest_wat(body), &contract(), "wirehook:plugin/subscriber")
}

/// A plugin loaded with the defaults.
pub(crate) fn load(engine: &Arc<Engine>, body: &str) -> Plugin {
    Plugin::load(engine, "orders", &guest(body), Manifest::default()).unwrap()
}

/// The text of [`guest`].
pub(crate) fn guest_wat(body: &str) -> String {
    format!(
        r#"(module
            (import "wirehook:plugin/log@0.1.0" "log" (func $log (param i32 i32 i32)))
            (import "wirehook:plugin/config@0.1.0" "get" (func $config_get (param i32 i32 i32)))
            (import "wirehook:plugin/config@0.1.0" "all" (func $config_all (param i32)))
            (memory (export "memory") 2)
            (data (i32.const 512) "currency")
            (data (i32.const 600) "a line\n")
            (global $heap (mut i32) (i32.const 65536))
            (func $realloc (export "cabi_realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
                (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                (global.get $heap)
                (global.set $heap (i32.add (global.get $heap) (local.get $bytes))))
            (func $handle (export "wirehook:plugin/handler@0.1.0#on-event") (param $event i32) (result i32)
                (local $n i32)
                {body}))"#
    )
}

/// Instructions that return one webhook whose body is `length` bytes at `pointer`.
pub(crate) fn one_webhook(pointer: &str, length: &str) -> String {
    format!(
        "(i32.store (i32.const 1028) (i32.const 2048)) (i32.store (i32.const 1032) (i32.const 1))
         (i32.store (i32.const {}) {pointer}) (i32.store (i32.const {}) {length}) (i32.const 1024)",
        2048 + 44,
        2048 + 48
    )
}

/// The contract's text.
pub(crate) fn contract() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/subscriber.wit")).unwrap()
}

/// The contract's text with `old` replaced, which must be in it.
pub(crate) fn contract_with(old: &str, new: &str) -> String {
    let contract = contract();
    assert!(contract.contains(old), "the contract has no `{old}`");
    contract.replace(old, new)
}

/// Assembles `wat` and gives it the component type of `world`, which is in the package or packages of `wit`.
pub(crate) fn embed(wat: &str, wit: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_str("test.wit", wit).unwrap();
    let packages: Vec<_> = resolve.packages.iter().map(|(id, _)| id).collect();
    let world = resolve.select_world(&packages, Some(world)).unwrap();
    let mut wasm = wat::parse_str(wat).unwrap();
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8).unwrap();
    wasm
}

/// An event whose entity is `entity`.
pub(crate) fn event(entity: &'static str) -> Event {
    Event {
        key: EventKey::new("bus", "id", "1"),
        source: "bus".into(),
        subject: "fraiseql.order.created".to_owned(),
        entity_type: "order".to_owned(),
        operation: "created".to_owned(),
        entity_id: Some("7".to_owned()),
        tenant_id: None,
        timestamp: None,
        entity: Some(Bytes::from_static(entity.as_bytes())),
        previous: None,
        attributes: vec![("source".to_owned(), "bus".to_owned())],
        body_digest: [0; 16],
    }
}
