use super::*;
use crate::plugin::fixture::{contract_with, embed, engine, event, guest, guest_wat};

fn load(wasm: &[u8]) -> Result<Plugin, LoadError> {
    let (engine, _dir) = engine();
    Plugin::load(&engine, "orders", wasm, Manifest::default())
}

fn check(wasm: &[u8], expected: &[&str]) {
    let error = load(wasm).expect_err(expected[0]).to_string();
    for part in expected {
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
}

#[test]
fn what_is_not_wasm_is_told_by_its_looks() {
    check(b"", &["not WebAssembly", "is empty", "wasm32-unknown-unknown"]);
    check(b"hello", &["is text"]);
    check("é".repeat(600).as_bytes(), &["is text"]);
    check(b" (module)", &["WebAssembly text", "wasm-tools parse"]);
    check(b"\x7fELF\x02\x01", &["native ELF binary"]);
    check(b"\x1f\x8b\x08", &["gzipped"]);
    check(b"version https://git-lfs.github.com/spec/v1", &["git lfs pull"]);
    check(b"\xff\xfe\xfd", &["begins with other bytes"]);
    check(b"\0asm\x01", &["ends after its first bytes"]);
    check(b"\0asm\x09\0\0\0", &["encoding this host does not know ([09, 00, 00, 00])"]);
    check(&vec![0; FILE_BYTES_MAX + 1], &["67108865 bytes"]);
}

#[test]
fn a_broken_file_is_told_apart() {
    let component = component_bytes(Kind::CoreModule, &guest("i32.const 1024")).unwrap().into_owned();
    check(&component[..component.len() - 20], &["not valid WebAssembly"]);
    let core = guest("i32.const 1024");
    check(&core[..core.len() / 2], &["not valid WebAssembly"]);
}

#[test]
fn core_modules_that_can_t_become_plugins() {
    let check_wat = |wat: &str, expected: &[&str]| check(&wat::parse_str(wat).unwrap(), expected);
    check_wat("(module)", &["without a component type", "handler@0.1.0#on-event", "wasm32-wasip2"]);
    let unknown = r#"(module (import "wasi_snapshot_preview1" "fd_imagine" (func))"#;
    let unknown = guest_wat("i32.const 1024").replacen("(module", unknown, 1);
    check(&embed_contract(&unknown), &["could not be made a component", "fd_imagine"]);
    let import = r#"(module (import "env" "now" (func))"#;
    let stray = guest_wat("i32.const 1024").replacen("(module", import, 1);
    check(&embed_contract(&stray), &["could not be made a component", "env"]);
    let nothing = embed_contract(r#"(module (memory (export "memory") 1))"#);
    check(&nothing, &["could not be made a component", "wirehook:plugin/handler@0.1.0", "on-event"]);
}

fn embed_contract(wat: &str) -> Vec<u8> {
    embed(wat, &crate::plugin::fixture::contract(), "wirehook:plugin/subscriber")
}

#[test]
fn a_component_without_the_handler() {
    check(
        &wat::parse_str("(component)").unwrap(),
        &["lacks the export `wirehook:plugin/handler@0.1.0`", "exports nothing"],
    );
    let other = embed(
        r#"(module (memory (export "memory") 1) (func (export "run")))"#,
        "package test:other; world plugin { export run: func(); }",
        "test:other/plugin",
    );
    check(&other, &["lacks the export", "it exports `run`"]);
}

#[test]
fn a_handler_of_another_version() {
    let wat = guest_wat("i32.const 1024").replace("@0.1.0", "@0.2.0");
    let newer =
        embed(&wat, &contract_with("wirehook:plugin@0.1.0", "wirehook:plugin@0.2.0"), "wirehook:plugin/subscriber");
    check(&newer, &["in version `0.2.0`", "serves `wirehook:plugin/handler@0.1.0`"]);
}

#[test]
fn a_handler_with_other_types() {
    let more = contract_with("attempt: u32", "attempt: u64");
    check(
        &embed(&guest_wat("i32.const 1024"), &more, "wirehook:plugin/subscriber"),
        &["is not as it should be", "attempt", "on-event: func(event: event)"],
    );
}

#[test]
fn an_import_with_other_types() {
    let other = contract_with("    error,\n  }", "    fatal,\n  }");
    let error =
        load(&embed(&guest_wat("i32.const 1024"), &other, "wirehook:plugin/subscriber")).unwrap_err().to_string();
    assert!(
        error.contains("is not as this host provides it") && error.contains("wirehook:plugin/log@0.1.0"),
        "{error}"
    );
}

#[test]
fn an_import_that_is_not_provided() {
    let check_import = |package: &str, interface: &str, expected: &[&str]| {
        let (name, version) = package.split_once('@').unwrap();
        let full = format!("{name}/{interface}@{version}");
        let import = format!(r#"(module (import "{full}" "go" (func))"#);
        let wit = format!(
            "{}\npackage {package} {{ interface {interface} {{ go: func(); }} }}
             package test:imports {{ world plugin {{ include wirehook:plugin/subscriber@0.1.0; import {full}; }} }}",
            crate::plugin::fixture::contract()
        );
        let wat = guest_wat("i32.const 1024").replacen("(module", &import, 1);
        check(&embed(&wat, &wit, "test:imports/plugin"), &[expected, &[&full]].concat());
    };
    check_import("wasi:http@0.2.0", "outgoing-handler", &["can't make requests", "wirehook:plugin/config@0.1.0"]);
    check_import("acme:thing@1.0.0", "store", &["does not provide", "compose it"]);
    check_import("wirehook:plugin@0.9.0", "log", &["another version of wirehook:plugin"]);
    check_import("wasi:cli@0.2.0", "nothing-we-know", &["is not as this host provides it"]);
}

#[test]
fn a_memory_that_could_never_start() {
    let wat =
        guest_wat("i32.const 1024").replace("(memory (export \"memory\") 2)", "(memory (export \"memory\") 1025)");
    check(&embed_contract(&wat), &["starts with a memory of 67174400 bytes", "its limit is 67108864"]);
}

#[test]
fn a_component_and_the_core_module_it_was_made_of_both_load() {
    let core = guest("i32.const 1024");
    let component = component_bytes(Kind::CoreModule, &core).unwrap().into_owned();
    for wasm in [core, component] {
        let (engine, _dir) = engine();
        let plugin = Plugin::load(&engine, "orders", &wasm, Manifest::default()).unwrap();
        assert_eq!(plugin.call(&event("{}"), 1).result, Ok(Vec::new()));
        assert_eq!(*plugin.digest, digest(&wasm));
    }
}
