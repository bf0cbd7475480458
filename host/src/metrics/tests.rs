use super::*;

/// All of it, each with a sample.
fn sampled() -> Metrics {
    let metrics = Metrics::new("1.2.3").unwrap();
    metrics.source("bus").accepted.inc_by(3);
    metrics.door("admin").closed(crate::door::Closed::GaveWay);
    metrics.source("bus").connected.set(1);
    metrics.plugin("orders").produced.inc();
    metrics.plugin("orders").duration.observe(0.000_02);
    metrics.endpoint("orders").delivered.inc();
    metrics.endpoint("orders").duration.observe(0.2);
    metrics.runs_waiting("orders", "parked", 4);
    let waiting =
        EndpointBacklog { endpoint: "orders".to_owned(), count: 7, oldest_due: Some(Timestamp(1_700_000_000_500)) };
    metrics.endpoint_backlog(&waiting);
    let budget = Budget::new(1 << 20);
    let runs = budget.account(Kind::Runs);
    assert!(runs.try_take(1000) && !runs.try_take(2 << 20));
    budget.account(Kind::Intake).refuse();
    (0..2).for_each(|_| metrics.memory(&budget));
    metrics.store_size(StoreSize { bytes: 4096, wal_bytes: 32, free_bytes: None });
    metrics.store_free_bytes(Some(1 << 40));
    metrics.commits.seconds.observe(0.002);
    metrics.dead_letter(Reason::AttemptsExhausted);
    metrics
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.encode().unwrap()).unwrap()
}

#[test]
fn every_metric_is_exported_under_its_name() {
    let metrics = sampled();
    let text = text(&metrics);
    let check = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
    check(r#"wirehook_events_accepted_total{source="bus"} 3"#);
    check(r#"wirehook_events_lost_total{source="bus"} 0"#);
    check(r#"wirehook_source_connected{source="bus"} 1"#);
    check(r#"wirehook_source_paused{source="bus"} 0"#);
    check(r#"wirehook_source_interruptions_total{source="bus"} 0"#);
    check(r#"wirehook_source_reconnects_total{source="bus"} 0"#);
    check(r#"wirehook_runs_total{outcome="produced",plugin="orders"} 1"#);
    check(r#"wirehook_runs_waiting{plugin="orders",state="parked"} 4"#);
    check(r#"wirehook_plugin_paused{plugin="orders"} 0"#);
    check(r#"wirehook_plugin_duration_seconds_count{plugin="orders"} 1"#);
    check(r#"wirehook_attempts_total{endpoint="orders",outcome="delivered"} 1"#);
    check(r#"wirehook_attempt_duration_seconds_bucket{endpoint="orders",le="0.25"} 1"#);
    check(r#"wirehook_backlog{endpoint="orders"} 7"#);
    check(r#"wirehook_endpoint_state{endpoint="orders",state="disabled"} 0"#);
    check(r#"wirehook_breaker_open{endpoint="orders"} 0"#);
    check(r#"wirehook_breaker_opened_total{endpoint="orders"} 0"#);
    check(r#"wirehook_oldest_due_timestamp_seconds{endpoint="orders"} 1700000000.5"#);
    check(r#"wirehook_dead_letters_total{reason="attempts_exhausted"} 1"#);
    check(r#"wirehook_dead_letters_total{reason="undecodable"} 0"#);
    check("wirehook_events_unrouted_total 0");
    check("wirehook_event_conflicts_total 0");
    check("wirehook_events_unaccounted 0");
    check("wirehook_intake_stopped 0");
    check("wirehook_commit_duration_seconds_count 1");
    check("wirehook_commit_failures_total 0");
    check("wirehook_memory_budget_bytes 1048576");
    check(r#"wirehook_memory_used_bytes{kind="runs"} 1000"#);
    check(r#"wirehook_memory_waits_total{kind="runs"} 1"#);
    check(r#"wirehook_memory_refusals_total{kind="intake"} 1"#);
    check("wirehook_store_bytes 4096");
    check("wirehook_store_wal_bytes 32");
    check("wirehook_store_free_bytes 1099511627776");
    check(r#"wirehook_build_info{version="1.2.3"} 1"#);
}

#[test]
fn the_names_are_those_that_are_exported() {
    let metrics = sampled();
    let mut names = metrics.names();
    names.sort();
    let text = text(&metrics);
    let mut exported: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    exported.sort_unstable();
    assert_eq!(names, exported);
}

#[test]
fn nothing_is_due_where_nothing_waits() {
    let metrics = sampled();
    let waiting = EndpointBacklog { endpoint: "orders".to_owned(), count: 0, oldest_due: None };
    for _ in 0..2 {
        metrics.endpoint_backlog(&waiting);
        assert!(!text(&metrics).contains("wirehook_oldest_due_timestamp_seconds{"));
    }
}
