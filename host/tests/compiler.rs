//! Compiling in a process of its own, by the program itself.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use wirehook::clock::SystemClock;
use wirehook::plugin::compiler::{CompileLimits, Compiler};
use wirehook::plugin::{Engine, LoadError, Manifest, Plugin};

const HOST: &str = env!("CARGO_BIN_EXE_wirehook");

fn load(program: &str, limits: CompileLimits, wasm: &[u8]) -> Result<Plugin, LoadError> {
    let dir = tempfile::tempdir().expect("a folder");
    let compiler = Compiler::Child(Path::new(program).to_owned(), limits);
    let engine = Engine::new(1, &dir.path().join("compiled"), compiler, SystemClock::shared()).expect("an engine");
    Plugin::load(&engine, "plugin", wasm, Manifest::default())
}

fn check(program: &str, limits: CompileLimits, wasm: &[u8], expected: &[&str]) {
    let Err(error) = load(program, limits, wasm) else { panic!("it must not load") };
    let error = error.to_string();
    for part in expected {
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
}

/// A component of one function.
fn component(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(component (core module (func (param i32) {body})))")).expect("valid text")
}

#[test]
fn code_from_the_child_is_as_good_as_ones_own() {
    check(HOST, CompileLimits::default(), &component(""), &["lacks the export", "exports nothing"]);
}

#[test]
fn what_is_invalid_is_told_as_it_is_in_process() {
    let mut wasm = component("");
    wasm.truncate(wasm.len() - 3);
    check(HOST, CompileLimits::default(), &wasm, &["not valid WebAssembly"]);
}

/// 90 KB to read and minutes to compile: every loop carries every local.
fn bomb() -> Vec<u8> {
    const LOCALS: usize = 10_000;
    let mut body = format!("(local {})", "i64 ".repeat(LOCALS));
    for turn in 0..3_000 {
        let (to, from) = (turn % LOCALS + 1, turn * 7 % LOCALS + 1);
        write!(body, "(loop (local.set {to} (i64.add (local.get {from}) (i64.const 1))) (br_if 0 (local.get 0)))")
            .expect("text");
    }
    component(&body)
}

#[test]
fn a_bomb_ends_at_the_deadline() {
    let limits = CompileLimits { deadline: Duration::from_secs(1), ..CompileLimits::default() };
    check(HOST, limits, &bomb(), &["took longer than 1 s,", "smaller functions"]);
    let limits = CompileLimits { cpu_max: Duration::from_secs(1), ..CompileLimits::default() };
    check(
        HOST,
        limits,
        &bomb(),
        &["took longer than 1 s of CPU,", "smaller functions", "or raise `[plugins] compile_cpu`"],
    );
}

#[test]
fn a_hungry_plugin_gets_no_more_memory_than_it_may() {
    let body = "(i32.add (local.get 0) (local.get 0)) (local.set 0)".repeat(200_000);
    check(HOST, CompileLimits::default(), &component(&body), &["lacks the export"]);
    let limits = CompileLimits { memory_bytes_max: 32 << 20, ..CompileLimits::default() };
    check(HOST, limits, &component(&body), &["took more than 32.0 MiB of memory"]);
}

#[test]
fn a_compiler_that_is_not_there_or_dies_is_no_fault_of_the_plugin() {
    check("/nowhere/wirehook", CompileLimits::default(), &component(""), &["/nowhere/wirehook", "could not be run"]);
    check(
        "/bin/false",
        CompileLimits::default(),
        &component(""),
        &["the compiler failed on this file", "exit status: 1"],
    );
}

/// Whatever became of the host: nobody waits for what nobody reads.
#[test]
fn a_compiler_ends_when_nobody_reads_what_it_makes() {
    const CPU_SECONDS: &str = "20";
    let mut child = Command::new(HOST)
        .args(["compile-plugin", &(2_u64 << 30).to_string(), CPU_SECONDS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a compiler");
    child.stdin.take().expect("its input").write_all(&bomb()).expect("it reads all");
    drop(child.stdout.take());
    // By itself, and not by the limit on what it may use.
    assert_eq!(child.wait().expect("its end").code(), Some(1));
}
