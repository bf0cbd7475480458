use std::io;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::plugin::compiler::Compiler;
use crate::plugin::fixture::{contract, embed, engine, event, guest, guest_wat, load, one_webhook};
use crate::plugin::limits::{LOG_LINES_MAX, Limits};
use crate::plugin::{Engine, Manifest};

/// A result without webhooks.
const NOTHING: &str = "(i32.const 1024)";

fn call(body: &str) -> CallReport {
    let (engine, _dir) = engine();
    load(&engine, body).call(&event("{}"), 1)
}

#[test]
fn a_plugin_turns_an_event_into_a_webhook() {
    let (engine, _dir) = engine();
    // The entity is at 72 and 76 of the event.
    let plugin =
        load(&engine, &one_webhook("(i32.load offset=72 (local.get 0))", "(i32.load offset=76 (local.get 0))"));
    let report = plugin.call(&event(r#"{"id":7}"#), 1);
    let body = Bytes::from_static(br#"{"id":7}"#);
    let webhook = Webhook { endpoint: None, key: None, content_type: None, headers: Vec::new(), body };
    assert_eq!(report.result, Ok(vec![webhook]));
    assert!(report.memory_peak_bytes >= 2 * 65536, "{report:?}");
    assert!(report.duration > Duration::ZERO && report.cpu > Duration::ZERO, "{report:?}");
}

#[test]
fn a_plugin_sees_the_attempt() {
    // The attempt is at 100 of the event; the body is that many of the zeroes at 4096.
    let body = one_webhook("(i32.const 4096)", "(i32.load offset=100 (local.get 0))");
    let (engine, _dir) = engine();
    let webhooks = load(&engine, &body).call(&event("{}"), 3).result.unwrap();
    assert_eq!(webhooks[0].body.len(), 3);
}

#[test]
fn a_plugin_may_return_nothing() {
    assert_eq!(call(NOTHING).result, Ok(Vec::new()));
}

#[test]
fn nothing_is_kept_from_call_to_call() {
    // The length of the body is a counter in memory, which a second call must find at zero again.
    let counter = "(i32.store (i32.const 4096) (i32.add (i32.load (i32.const 4096)) (i32.const 1)))";
    let (engine, _dir) = engine();
    let plugin =
        load(&engine, &format!("{counter} {}", one_webhook("(i32.const 8192)", "(i32.load (i32.const 4096))")));
    for _ in 0..3 {
        assert_eq!(plugin.call(&event("{}"), 1).result.unwrap()[0].body.len(), 1);
    }
}

#[test]
fn failures_a_plugin_returns() {
    // The failure's case is at 1028, its text at 1032 and 1036; "currency" is at 512.
    let failure = |case: u32| {
        format!(
            "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const {case}))
             (i32.store (i32.const 1032) (i32.const 512)) (i32.store (i32.const 1036) (i32.const 8)) (i32.const 1024)"
        )
    };
    assert_eq!(call(&failure(0)).result, Err(CallFailure::Retry("currency".to_owned())));
    assert_eq!(call(&failure(1)).result, Err(CallFailure::Reject("currency".to_owned())));
}

#[test]
fn a_trap_is_told_with_where_it_was() {
    let (engine, _dir) = engine();
    let plugin = load(&engine, "unreachable");
    let Err(CallFailure::Trap(text)) = plugin.call(&event("{}"), 1).result else { panic!("it must trap") };
    assert!(text.contains("unreachable") && text.contains("in handle"), "{text}");
    let next = load(&engine, NOTHING).call(&event("{}"), 1);
    assert_eq!(next.result, Ok(Vec::new()), "a trap must leave the engine as it was");
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    let (engine, _dir) = engine();
    let limits = Limits { deadline: Duration::from_millis(20), ..Limits::default() };
    let plugin = Plugin::load(
        &engine,
        "orders",
        &guest("(loop (br 0)) unreachable"),
        Manifest { limits, ..Manifest::default() },
    );
    let report = plugin.unwrap().call(&event("{}"), 1);
    let Err(CallFailure::Deadline(text)) = &report.result else { panic!("{report:?}") };
    assert!(text.contains("its deadline is 20 ms"), "{text}");
    assert!((20..1_000).contains(&report.cpu.as_millis()), "{report:?}");
}

#[test]
fn the_wall_cap_ends_a_call_whose_cpu_deadline_is_far_off() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(Timestamp(0));
    let engine = Engine::new(1, &dir.path().join("compiled"), Compiler::InProcess, clock.clone()).unwrap();
    let limits = Limits { deadline: Duration::from_secs(10), ..Limits::default() };
    let plugin = Plugin::load(
        &engine,
        "orders",
        &guest("(loop (br 0)) unreachable"),
        Manifest { limits, ..Manifest::default() },
    );
    let plugin = plugin.unwrap();
    let report = std::thread::scope(|scope| {
        let call = scope.spawn(|| plugin.call(&event("{}"), 1));
        // The call may read the clock before or after any of these steps: it ends either way.
        while !call.is_finished() {
            clock.advance(Duration::from_secs(100));
            std::thread::yield_now();
        }
        call.join().unwrap()
    });
    let Err(CallFailure::Deadline(text)) = &report.result else { panic!("{report:?}") };
    assert!(text.contains("lasted longer than 100000 ms"), "{text}");
}

/// Grows by 200 pages (12.5 MiB) until a growth is refused; then does `refused`.
fn grow_until_refused(refused: &str) -> String {
    format!("(loop (br_if 0 (i32.ne (memory.grow (i32.const 200)) (i32.const -1)))) {refused}")
}

#[test]
fn memory_is_limited_over_several_growths() {
    let report = call(&grow_until_refused("unreachable"));
    let Err(CallFailure::Memory(text)) = &report.result else { panic!("{report:?}") };
    assert!(text.contains("its limit is 67108864"), "{text}");
    assert!((50 << 20..=64 << 20).contains(&report.memory_peak_bytes), "{report:?}");
}

#[test]
fn a_plugin_may_live_with_a_refused_growth() {
    assert_eq!(call(&grow_until_refused(NOTHING)).result, Ok(Vec::new()));
}

/// Adapters between modules may have several; a module that defines more than one has no slot for them.
#[test]
fn a_module_with_several_memories_of_its_own_is_refused() {
    let (engine, _dir) = engine();
    let wat =
        guest_wat("(i32.const 1024)").replace("(data (i32.const 512)", "(memory $second 1) (data (i32.const 512)");
    let wasm = embed(&wat, &contract(), "wirehook:plugin/subscriber");
    let refused = Plugin::load(&engine, "orders", &wasm, Manifest::default()).unwrap_err().to_string();
    assert!(
        refused.contains("does not fit into a sandbox") && refused.contains("one of them in each module"),
        "{refused}"
    );
}

#[test]
fn memory_is_summed_over_a_component_s_modules() {
    // A second module with 40 MiB of its own, appended to the component: with 40 MiB in the first, 80 in all.
    let component =
        wit_component::ComponentEncoder::default().module(&guest("(drop (memory.grow (i32.const 640))) unreachable"));
    let mut component = component.unwrap().encode().unwrap();
    let modules = wasmparser::Parser::new(0).parse_all(&component);
    let modules = modules.filter(|payload| matches!(payload, Ok(wasmparser::Payload::ModuleSection { .. }))).count();
    let module = wat::parse_str("(module (memory 640))").unwrap();
    component.extend([1, u8::try_from(module.len()).unwrap()]);
    component.extend(module);
    component.extend([2, 4, 1, 0, u8::try_from(modules).unwrap(), 0]);

    let (engine, _dir) = engine();
    let plugin = Plugin::load(&engine, "orders", &component, Manifest::default()).unwrap();
    let report = plugin.call(&event("{}"), 1);
    assert!(matches!(report.result, Err(CallFailure::Memory(_))), "{report:?}");
    assert!(report.memory_peak_bytes < 64 << 20, "{report:?}");
}

#[test]
fn a_result_over_a_limit_is_refused_by_the_limit_s_name() {
    let check = |body: &str, expected: &str| {
        let report = call(body);
        let Err(CallFailure::Output(text)) = &report.result else { panic!("{expected}: {report:?}") };
        assert!(text.contains(expected), "{text}");
    };
    let room = "(drop (memory.grow (i32.const 400)))";
    let list = |count: u32| {
        format!(
            "(i32.store (i32.const 1028) (i32.const 8192)) (i32.store (i32.const 1032) (i32.const {count})) (i32.const 1024)"
        )
    };
    check(&list(65), "65 webhooks for one event; the limit is 64");
    check(
        &format!("{room} {}", one_webhook("(i32.const 0)", "(i32.const 1048577)")),
        "a body of 1048577 bytes in webhook 0",
    );
    check(&format!("{room} {}", one_webhook("(i32.const 0)", "(i32.const 20000000)")), "handed to the host at once");
    check(&format!("{room} {}", list(400_000)), "handed to the host at once");
    // Headers are at 36 and 40 of a webhook; zeroes are empty names and values.
    let headers = |count: u32| {
        format!(
            "(i32.store (i32.const {}) (i32.const 4096)) (i32.store (i32.const {}) (i32.const {count}))",
            2048 + 36,
            2048 + 40
        )
    };
    let webhook = one_webhook("(i32.const 0)", "(i32.const 0)");
    check(&format!("{} {webhook}", headers(33)), "33 headers in webhook 0");
    let long_value = "(i32.store (i32.const 4108) (i32.const 8193))";
    check(&format!("{long_value} {} {webhook}", headers(1)), "8193 bytes of headers in webhook 0");
    let long_endpoint = "(i32.store8 (i32.const 2048) (i32.const 1)) (i32.store (i32.const 2056) (i32.const 513))";
    check(&format!("{long_endpoint} {webhook}"), "an endpoint, key or content type of 513 bytes");
    // Five bodies of 1 MiB.
    let body = |index: u32| format!("(i32.store (i32.const {}) (i32.const 1048576))", 8192 + index * 52 + 48);
    let bodies: String = (0..5).map(body).collect();
    check(&format!("{room} {bodies} {}", list(5)), "bodies of 5242880 bytes for one event");
}

#[test]
fn limits_are_each_plugin_s_own() {
    let (engine, _dir) = engine();
    let check = |limits: Limits, body: &str, expected: Result<usize, &str>| {
        let manifest = Manifest { limits, ..Manifest::default() };
        let result = Plugin::load(&engine, "orders", &guest(body), manifest).unwrap().call(&event("{}"), 1).result;
        match (result, expected) {
            (Ok(webhooks), Ok(count)) => assert_eq!(webhooks.len(), count),
            (Err(CallFailure::Output(text)), Err(expected)) => assert!(text.contains(expected), "{text}"),
            (result, expected) => panic!("{result:?}, not {expected:?}"),
        }
    };
    let two =
        "(i32.store (i32.const 1028) (i32.const 8192)) (i32.store (i32.const 1032) (i32.const 2)) (i32.const 1024)";
    check(Limits { webhooks_max: 1, ..Limits::default() }, two, Err("2 webhooks for one event; the limit is 1"));
    check(Limits { webhooks_max: 2, ..Limits::default() }, two, Ok(2));
    let body = one_webhook("(i32.const 0)", "(i32.const 11)");
    check(Limits { body_bytes_max: 10, ..Limits::default() }, &body, Err("a body of 11 bytes in webhook 0"));
    check(Limits { body_bytes_max: 11, ..Limits::default() }, &body, Ok(1));
    // Headers are at 36 and 40 of a webhook; the first one's value is 3 bytes long.
    let headers = format!(
        "(i32.store (i32.const 2084) (i32.const 4096)) (i32.store (i32.const 2088) (i32.const 1))
         (i32.store (i32.const 4108) (i32.const 3)) {}",
        one_webhook("(i32.const 0)", "(i32.const 0)")
    );
    check(Limits { headers_max: 0, ..Limits::default() }, &headers, Err("1 headers in webhook 0; the limit is 0"));
    check(Limits { header_bytes_max: 2, ..Limits::default() }, &headers, Err("3 bytes of headers in webhook 0"));
    check(Limits { headers_max: 1, header_bytes_max: 3, ..Limits::default() }, &headers, Ok(1));
}

#[test]
fn a_log_s_budget_is_the_plugin_s_own() {
    let (engine, _dir) = engine();
    let limits = Limits { log_bytes_max: 3, ..Limits::default() };
    let body = guest("(call $log (i32.const 3) (i32.const 512) (i32.const 8)) (i32.const 1024)");
    let plugin = Plugin::load(&engine, "orders", &body, Manifest { limits, ..Manifest::default() }).unwrap();
    let lines = logged(tracing::Level::INFO, || drop(plugin.call(&event("{}"), 1)));
    assert!(lines[0].contains(r#""message":"cur""#), "{}", lines[0]);
    assert!(lines[1].contains("or 3 bytes for one event"), "{}", lines[1]);
}

#[test]
fn config_is_read_by_name() {
    // `get("currency")` writes its option to 2000: the case, the pointer, the length.
    let get = "(call $config_get (i32.const 512) (i32.const 8) (i32.const 2000))";
    let body = format!("{get} {}", one_webhook("(i32.load (i32.const 2004))", "(i32.load (i32.const 2008))"));
    let (engine, _dir) = engine();
    let config = [("colour", "red"), ("currency", "EUR")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let manifest = Manifest { config: config.into(), ..Manifest::default() };
    let plugin = Plugin::load(&engine, "orders", &guest(&body), manifest).unwrap();
    assert_eq!(plugin.call(&event("{}"), 1).result.unwrap()[0].body, "EUR");
    assert_eq!(load(&engine, &body).call(&event("{}"), 1).result.unwrap()[0].body, "");

    // `all` writes its list to 2000: the pointer, the length.
    let all = "(call $config_all (i32.const 2000))";
    let body = format!("{all} {}", one_webhook("(i32.const 4096)", "(i32.load (i32.const 2004))"));
    let manifest = plugin.manifest;
    let plugin = Plugin::load(&engine, "orders", &guest(&body), manifest).unwrap();
    assert_eq!(plugin.call(&event("{}"), 1).result.unwrap()[0].body.len(), 2);
}

/// What is logged while `work` runs, a line an event.
fn logged(level: tracing::Level, work: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(level).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().filter(|line| line.contains(r#""target":"plugin""#)).map(str::to_owned).collect()
}

#[test]
fn a_line_is_logged_with_its_plugin_and_event() {
    let (engine, _dir) = engine();
    // Level 3 is warn.
    let plugin = load(&engine, "(call $log (i32.const 3) (i32.const 512) (i32.const 8)) (i32.const 1024)");
    let lines = logged(tracing::Level::INFO, || drop(plugin.call(&event("{}"), 1)));
    assert_eq!(lines.len(), 1);
    for expected in
        [r#""level":"WARN""#, r#""message":"currency""#, r#""plugin":"orders""#, r#""event_key":"bus/id/1""#]
    {
        assert!(lines[0].contains(expected), "{expected} is missing in {}", lines[0]);
    }
    let quiet = logged(tracing::Level::ERROR, || drop(plugin.call(&event("{}"), 1)));
    assert!(quiet.is_empty(), "{quiet:?}");
}

#[test]
fn a_flood_of_lines_is_bounded_and_reported_once() {
    let (engine, _dir) = engine();
    let flood = |length: u32| {
        format!(
            "(loop (call $log (i32.const 2) (i32.const 512) (i32.const {length}))
             (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))
             (i32.const 1024)"
        )
    };
    let mut report = None;
    let short = load(&engine, &flood(8));
    let lines = logged(tracing::Level::INFO, || report = Some(short.call(&event("{}"), 1)));
    assert_eq!(lines.len(), LOG_LINES_MAX as usize + 1);
    assert!(lines.last().unwrap().contains("the rest was dropped: 900 lines"), "{:?}", lines.last());
    assert_eq!(report.unwrap().log_lines_dropped, 900);

    let long = load(&engine, &flood(60_000));
    let lines = logged(tracing::Level::INFO, || {
        assert_eq!(long.call(&event("{}"), 1).result, Ok(Vec::new()));
    });
    assert_eq!(lines.len(), 2, "the first line takes all there is, the second says so");
    assert!(lines.iter().map(String::len).sum::<usize>() < 7 * Limits::default().log_bytes_max);
}

/// The interfaces of WASI that the tests below use, and a world with them.
const WASI: &str = "
    package test:wasi {
    world plugin {
        include wirehook:plugin/subscriber@0.1.0;
        import wasi:io/poll@0.2.0;
        import wasi:io/streams@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:cli/stdout@0.2.0;
        import wasi:cli/environment@0.2.0;
        import wasi:cli/exit@0.2.0;
    }
    }
    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
        }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock { use wasi:io/poll@0.2.0.{pollable}; subscribe-duration: func(when: u64) -> pollable; }
    }
    package wasi:cli@0.2.0 {
        interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
        interface environment { get-environment: func() -> list<tuple<string, string>>; }
        interface exit { exit: func(status: result); }
    }";

fn wasi_guest(body: &str) -> Vec<u8> {
    let imports = r#"(module
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
        (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
        (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
        (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
            (func $write (param i32 i32 i32 i32)))
        (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
        (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#;
    embed(&guest_wat(body).replacen("(module", imports, 1), &format!("{}\n{WASI}", contract()), "test:wasi/plugin")
}

fn wasi_call(body: &str, limits: Limits) -> CallReport {
    let (engine, _dir) = engine();
    let plugin = Plugin::load(&engine, "orders", &wasi_guest(body), Manifest { limits, ..Manifest::default() });
    plugin.unwrap().call(&event("{}"), 1)
}

#[test]
fn a_wait_ends_with_the_call_s_wall_cap() {
    // An hour, in nanoseconds: without the bound this test would take as long.
    let body = format!("(call $block (call $subscribe (i64.const 3600000000000))) {NOTHING}");
    let report = wasi_call(&body, Limits { deadline: Duration::from_millis(5), ..Limits::default() });
    let Err(CallFailure::Deadline(text)) = &report.result else { panic!("{report:?}") };
    assert!(text.contains("lasted longer than 50 ms"), "{text}");
}

#[test]
fn a_short_wait_is_allowed() {
    let body = format!("(call $block (call $subscribe (i64.const 1000))) {NOTHING}");
    assert_eq!(wasi_call(&body, Limits::default()).result, Ok(Vec::new()));
}

#[test]
fn what_a_plugin_prints_is_logged_as_debug() {
    // "a line\n" is at 600.
    let print = "(call $write (call $stdout) (i32.const 600) (i32.const 7) (i32.const 2000))";
    let lines = logged(tracing::Level::INFO, || {
        assert_eq!(wasi_call(&format!("{print} {print} {NOTHING}"), Limits::default()).result, Ok(Vec::new()));
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(r#""message":"a line""#) && lines[0].contains(r#""level":"INFO""#), "{}", lines[0]);
}

#[test]
fn a_trap_is_told_with_what_was_printed_last() {
    let print = "(call $write (call $stdout) (i32.const 600) (i32.const 7) (i32.const 2000))";
    let report = wasi_call(&format!("{print} unreachable"), Limits::default());
    let Err(CallFailure::Trap(text)) = &report.result else { panic!("{report:?}") };
    assert!(text.ends_with("; it printed last: a line"), "{text}");
}

#[test]
fn a_trap_after_a_panic_begins_with_the_panic_s_words() {
    let (engine, _dir) = engine();
    let panic = "(i64.store (i32.const 700) (i64.const 0x64656b63696e6170)) (call $log (i32.const 4) (i32.const 700) (i32.const 8))";
    let plugin = load(&engine, &format!("{panic} (call $log (i32.const 4) (i32.const 600) (i32.const 6)) unreachable"));
    // The words are what the plugin logs at the level of errors, which has to be one that is logged.
    let mut result = Ok(Vec::new());
    logged(tracing::Level::ERROR, || result = plugin.call(&event("{}"), 1).result);
    let Err(CallFailure::Trap(text)) = result else { panic!("it must trap") };
    assert!(text.starts_with("panicked (wasm trap: ") && text.contains("unreachable"), "{text}");
}

#[test]
fn a_flood_of_output_is_swallowed() {
    let print = "(loop (call $write (call $stdout) (i32.const 4096) (i32.const 4096) (i32.const 2000))
        (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100))))";
    let lines = logged(tracing::Level::DEBUG, || {
        assert_eq!(wasi_call(&format!("{print} {NOTHING}"), Limits::default()).result, Ok(Vec::new()));
    });
    assert_eq!(lines.len(), 2, "one line of zeroes, and the report that there was more");
}

#[test]
fn a_plugin_has_no_variables() {
    let body = format!(
        "(call $environment (i32.const 2000)) {}",
        one_webhook("(i32.const 4096)", "(i32.load (i32.const 2004))")
    );
    assert_eq!(wasi_call(&body, Limits::default()).result.unwrap()[0].body, "");
}

#[test]
fn an_exit_is_a_trap_that_says_so() {
    let report = wasi_call("(call $exit (i32.const 1)) unreachable", Limits::default());
    let Err(CallFailure::Trap(text)) = &report.result else { panic!("{report:?}") };
    assert!(text.contains("called exit(1)"), "{text}");
}

#[test]
fn more_callers_than_slots_wait_for_one() {
    let (engine, _dir) = engine();
    let plugin = load(&engine, NOTHING);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(plugin.call(&event("{}"), 1).result, Ok(Vec::new()));
                }
            });
        }
    });
}
