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
fn what_does_not_fit_into_a_sandbox_is_told_with_every_bound() {
    let check_wat = |parts: &str, count: usize, expected: &str| {
        let wat = format!("(component (core module $m {parts}) {})", "(core instance (instantiate $m))".repeat(count));
        let bounds = "64 core instances, 4 memories (one of them in each module), 16 tables of 100000 elements each, and 256 MiB of memory";
        check(&wat::parse_str(wat).unwrap(), &["does not fit into a sandbox", expected, bounds]);
    };
    check_wat("(memory 1)", 5, "contains 5 Wasm linear memories");
    check_wat("(table 1 funcref)", 17, "contains 17 tables");
    check_wat("", 65, "contains 65 core module instances");
    check_wat("(table 100001 funcref)", 1, "minimum element size of 100001");
    check_wat("(memory 4097)", 1, "minimum byte size of 268500992");
}

#[test]
fn what_is_asynchronous_is_told_in_words() {
    check(
        &wat::parse_str("(component (core func (canon task.return)))").unwrap(),
        &["asynchronous in the component model", "WASI 0.2 (`wasm32-wasip2`)"],
    );
    let wat =
        r#"(component (import "wasi:clocks/monotonic-clock@0.3.0" (instance (export "now" (func (result u64))))))"#;
    let handler = wat::parse_str(wat).unwrap();
    let engine = engine().0;
    let component = Component::new(engine.wasmtime(), handler).unwrap();
    let error = linker::check_imports(engine.wasmtime(), &component.component_type()).unwrap_err().to_string();
    assert!(error.contains("built for WASI 0.3") && error.contains("wasm32-wasip2"), "{error}");
}

#[test]
fn a_crate_that_was_built_for_browsers_is_told_how_to_find_it() {
    let import = r#"(module (import "__wbindgen_placeholder__" "__wbindgen_describe" (func (param i32)))"#;
    let browser = guest_wat("i32.const 1024").replacen("(module", import, 1);
    for wasm in [embed_contract(&browser), wat::parse_str(&browser).unwrap()] {
        check(&wasm, &["built for browsers", "cargo tree -i wasm-bindgen", "wasmbind"]);
    }
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
    check_import(
        "wasi:http@0.2.0",
        "outgoing-handler",
        &["sends nothing by `wasi:http`", "wirehook:plugin/config@0.1.0"],
    );
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
