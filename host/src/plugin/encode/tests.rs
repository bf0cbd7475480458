use super::*;
use crate::plugin::fixture::{engine, event, guest_wat, one_webhook};
use crate::plugin::{Manifest, Plugin, inspect};

/// A plugin whose toolchain embeds no component type; `imports` are of WASI 0.1.
fn bare(imports: &str, body: &str) -> Vec<u8> {
    let wat = guest_wat(body).replacen("(module", &format!("(module {imports}"), 1);
    wat::parse_str(wat).unwrap()
}

/// What the only webhook of a plugin with this body says.
fn body_of(imports: &str, instructions: &str) -> Vec<u8> {
    let (engine, _dir) = engine();
    let wasm = bare(imports, &format!("{instructions} {}", one_webhook("(i32.const 4096)", "(i32.const 16)")));
    let plugin = Plugin::load(&engine, "bare", &wasm, Manifest::default()).unwrap();
    let webhooks = plugin.call(&event("{}"), 1).result.unwrap();
    webhooks[0].body.to_vec()
}

const CLOCK: &str =
    r#"(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))"#;
const BEGIN: &str = r#"(import "wasi_snapshot_preview1" "wirehook_event_begin" (func $begin (param i64 i64)))"#;
const RANDOM: &str = r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
const POLL: &str =
    r#"(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;

fn numbers(body: &[u8]) -> [u64; 2] {
    [0, 8].map(|at| u64::from_le_bytes(body[at..at + 8].try_into().unwrap()))
}

#[test]
fn a_core_module_without_a_component_type_is_given_the_contracts() {
    let component = encode(&bare("", "i32.const 1024")).unwrap();
    let (engine, _dir) = engine();
    let inspection = inspect(&engine, &component);
    assert_eq!(inspection.load_error, None);
    assert_eq!(inspection.handler_version.as_deref(), Some("0.1.0"));
}

#[test]
fn what_is_served_inside_is_not_imported() {
    let write = r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#;
    let component = encode(&bare(&[CLOCK, RANDOM, write].concat(), "i32.const 1024")).unwrap();
    let (engine, _dir) = engine();
    let imports = inspect(&engine, &component).imports;
    assert!(imports.iter().all(|import| import.starts_with("wirehook:plugin/")), "{imports:?}");
}

#[test]
fn the_clock_stands_at_the_event_and_a_sleep_moves_it_on() {
    let instructions = "(call $begin (i64.const 1700000000000000000) (i64.const 1))
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 4096)))
        (i64.store (i32.const 8216) (i64.const 5000000000))
        (drop (call $poll (i32.const 8192) (i32.const 8320) (i32.const 1) (i32.const 8400)))
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 4104)))";
    let body = body_of(&[CLOCK, BEGIN, POLL].concat(), instructions);
    assert_eq!(numbers(&body), [1_700_000_000_000_000_000, 1_700_000_005_000_000_000]);
}

#[test]
fn the_other_clock_goes_on_by_itself() {
    let instructions = "(drop (call $clock (i32.const 1) (i64.const 0) (i32.const 4096)))
        (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 4104)))";
    assert_eq!(numbers(&body_of(CLOCK, instructions)), [1_000, 2_000]);
}

#[test]
fn randomness_follows_from_the_seed() {
    let body = |seed: i64| {
        let instructions = format!(
            "(call $begin (i64.const 0) (i64.const {seed})) (drop (call $random (i32.const 4096) (i32.const 16)))"
        );
        body_of(&[BEGIN, RANDOM].concat(), &instructions)
    };
    // The first two numbers of SplitMix64 with this seed, as its author's code gives them.
    assert_eq!(numbers(&body(1_234_567)), [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    assert_ne!(body(1), body(2));
}

#[test]
fn other_core_modules_are_refused() {
    let check = |wat: &str| encode(&wat::parse_str(wat).unwrap()).unwrap_err();
    assert!(matches!(check("(module)"), LoadError::NoComponentType));
    let newer = r#"(module (func (export "wirehook:plugin/handler@0.2.0#on-event")))"#;
    assert!(matches!(check(newer), LoadError::NoComponentType));
    let other = r#"(module (memory (export "memory") 1) (func (export "wirehook:plugin/handler@0.1.0#on-event")))"#;
    assert!(matches!(check(other), LoadError::Encode { .. }));
}
