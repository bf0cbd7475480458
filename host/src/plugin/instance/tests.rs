use std::time::Duration;

use super::*;
use crate::plugin::fixture::{engine, event, guest, one_webhook};
use crate::plugin::{CallReport, Engine, Manifest};

const DEADLINE: Duration = Duration::from_millis(20);

/// Adds one to a counter in memory, does `more`, and returns a webhook whose body is as long as the counter says.
fn counter(more: &str) -> Vec<u8> {
    guest(&format!(
        "(i32.store (i32.const 4096) (i32.add (i32.load (i32.const 4096)) (i32.const 1))) {more} {}",
        one_webhook("(i32.const 8192)", "(i32.load (i32.const 4096))")
    ))
}

fn reusing(engine: &Arc<Engine>, events: usize, more: &str) -> Plugin {
    let limits =
        Limits { events_per_instance_max: events, deadline: DEADLINE, memory_bytes_max: 8 << 20, ..Limits::default() };
    Plugin::load(engine, "orders", &counter(more), Manifest { limits, ..Manifest::default() }).unwrap()
}

/// What the counter said at each of `calls` calls; 0 where there was no webhook.
fn counts(plugin: &Plugin, calls: usize) -> Vec<usize> {
    let count = |attempt| {
        let attempt = u32::try_from(attempt).unwrap();
        plugin.call(&event("{}"), attempt).result.map_or(0, |webhooks| webhooks[0].body.len())
    };
    (1..=calls).map(count).collect()
}

/// Does `instructions` at the third attempt. The attempt is at 100 of the event.
fn at_the_third(instructions: &str) -> String {
    format!("(if (i32.eq (i32.load offset=100 (local.get 0)) (i32.const 3)) (then {instructions}))")
}

#[test]
fn an_instance_serves_as_many_events_as_it_may() {
    let (engine, _dir) = engine();
    assert_eq!(counts(&reusing(&engine, 3, ""), 7), [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(counts(&reusing(&engine, 1, ""), 3), [1, 1, 1], "by default none is used again");
}

#[test]
fn an_instance_whose_call_went_wrong_is_not_used_again() {
    let (engine, _dir) = engine();
    let check = |more: &str, expected: &[usize]| {
        assert_eq!(counts(&reusing(&engine, 100, &at_the_third(more)), expected.len()), expected, "{more}");
    };
    check("unreachable", &[1, 2, 0, 1, 2]);
    check("(loop (br 0))", &[1, 2, 0, 1, 2]);
    // 5 MiB of the 8 it may have: the call is well, the next would have little room.
    check("(drop (memory.grow (i32.const 80)))", &[1, 2, 3, 1, 2]);
    check("(drop (memory.grow (i32.const 16)))", &[1, 2, 3, 4, 5]);
    // A growth that is refused, and more webhooks than there may be.
    check("(drop (memory.grow (i32.const 1000))) unreachable", &[1, 2, 0, 1, 2]);
    check("(i32.store (i32.const 1032) (i32.const 65)) (return (i32.const 1024))", &[1, 2, 0, 1, 2]);
}

#[test]
fn each_event_has_its_own_deadline_and_its_own_account_of_memory() {
    let (engine, _dir) = engine();
    // Each call computes for a millisecond or so, until all of them together are over the deadline.
    let busy = "(local.set $n (i32.const 0)) (loop (br_if 0 (i32.lt_u
        (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 2000000))))";
    let plugin = reusing(&engine, 1_000, busy);
    let mut reports = Vec::new();
    while reports.iter().map(|report: &CallReport| report.cpu).sum::<Duration>() < 3 * DEADLINE {
        reports.push(plugin.call(&event("{}"), 1));
        let length = reports.last().unwrap().result.as_ref().map(|webhooks| webhooks[0].body.len());
        assert_eq!(length, Ok(reports.len()));
    }
    assert!(reports.iter().all(|report| report.instance_bytes == reports[0].instance_bytes));
}

#[test]
fn kept_instances_are_bounded_over_all_plugins() {
    let (engine, _dir) = engine();
    let plugins: Vec<Plugin> = (0..=KEPT_PER_WORKER).map(|_| reusing(&engine, 100, "")).collect();
    for round in 1..=3 {
        let counts: Vec<usize> = plugins.iter().flat_map(|plugin| counts(plugin, 1)).collect();
        let (last, kept) = counts.split_last().unwrap();
        assert!(kept.iter().all(|count| *count == round), "{counts:?}");
        assert_eq!(*last, 1, "there was no room left to keep its instance");
    }
    drop(plugins);
    assert_eq!(counts(&reusing(&engine, 100, ""), 2), [1, 2], "a plugin that is gone makes room");
}

#[test]
fn what_is_kept_is_decided_by_data_alone() {
    let limits = Limits { events_per_instance_max: 10, memory_bytes_max: 1_000, ..Limits::default() };
    let check = |result: Result<Vec<Webhook>, CallFailure>, events: usize, used: usize, expected: bool| {
        assert_eq!(may_be_kept(&limits, &result, events, 200, used), expected, "{result:?} {events} {used}");
    };
    check(Ok(Vec::new()), 9, 600, true);
    check(Ok(Vec::new()), 10, 600, false);
    check(Ok(Vec::new()), 9, 601, false);
    check(Err(CallFailure::Retry(String::new())), 1, 200, true);
    check(Err(CallFailure::Reject(String::new())), 1, 200, true);
    for failure in
        [CallFailure::Trap, CallFailure::Deadline, CallFailure::Memory, CallFailure::Output, CallFailure::Host]
    {
        check(Err(failure(String::new())), 1, 200, false);
    }
}
