//! What the figures are to reach.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// Of the plain subscriber on core NATS.
const BARE_RATIO_MIN: f64 = 0.5;
/// Of the tuned subscriber in Python.
const TUNED_PYTHON_RATIO_MIN: f64 = 10.0;
/// Of the page's subscriber.
const PAGE_RATIO_MIN: f64 = 300.0;
/// The 99th percentile of the latency at 1,000 events a second, in the disk's own, and what it may take besides.
const LATENCY_SYNCS: u32 = 3;
const LATENCY_BESIDES: Duration = Duration::from_millis(5);
/// Of a core.
const IDLE_CPU_PERCENT_MAX: f64 = 0.5;
const IDLE_RESIDENT_MIB_MAX: f64 = 60.0;

/// A figure and its bound.
#[derive(Clone, PartialEq, Debug)]
pub struct Aim {
    /// What is measured.
    pub what: &'static str,
    found: f64,
    bound: f64,
    unit: &'static str,
    is_least: bool,
}

impl Aim {
    /// The host's rate to that of the plain subscriber.
    pub fn of_bare(ratio: f64) -> Self {
        Self::least("rate to the plain subscriber's", ratio, BARE_RATIO_MIN, "×")
    }

    /// The host's rate to that of the tuned subscriber in Python.
    pub fn of_tuned_python(ratio: f64) -> Self {
        Self::least("rate to tuned Python's", ratio, TUNED_PYTHON_RATIO_MIN, "×")
    }

    /// The host's rate to that of the page's subscriber.
    pub fn of_page(ratio: f64) -> Self {
        Self::least("rate to the page's", ratio, PAGE_RATIO_MIN, "×")
    }

    /// The 99th percentile of the latency, with the disk's own.
    pub fn of_latency(p99: Duration, sync_p99: Duration) -> Self {
        Self::latency("p99 at 1,000/s, to 3 syncs' p99 + 5 ms", p99, sync_p99)
    }

    /// The same where every sync takes some milliseconds longer.
    pub fn of_latency_on_slow_disk(p99: Duration, sync_p99: Duration) -> Self {
        Self::latency("the same on a disk with slow syncs", p99, sync_p99)
    }

    fn latency(what: &'static str, p99: Duration, sync_p99: Duration) -> Self {
        let bound = sync_p99 * LATENCY_SYNCS + LATENCY_BESIDES;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Self::most(what, millis(p99), millis(bound), " ms")
    }

    /// What an idle host spends of a core.
    pub fn of_idle_cpu(percent: f64) -> Self {
        Self::most("idle, of a core", percent, IDLE_CPU_PERCENT_MAX, " %")
    }

    /// What an idle host has in memory.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn of_idle_resident(bytes: u64) -> Self {
        Self::most("idle, in memory", bytes as f64 / f64::from(1 << 20), IDLE_RESIDENT_MIB_MAX, " MiB")
    }

    pub(super) fn least(what: &'static str, found: f64, bound: f64, unit: &'static str) -> Self {
        Self { what, found, bound, unit, is_least: true }
    }

    pub(super) fn most(what: &'static str, found: f64, bound: f64, unit: &'static str) -> Self {
        Self { what, found, bound, unit, is_least: false }
    }

    /// Whether it is reached.
    pub fn is_met(&self) -> bool {
        if self.is_least { self.found >= self.bound } else { self.found <= self.bound }
    }

    /// For the line of JSON.
    pub fn to_json(&self) -> Value {
        let bound = if self.is_least { "least" } else { "most" };
        json!({"what": self.what, "found": rounded(self.found), bound: rounded(self.bound), "met": self.is_met()})
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, bound, unit, is_least } = self;
        let (word, met) =
            (if *is_least { "at least" } else { "at most" }, if self.is_met() { "met" } else { "MISSED" });
        write!(f, "{met:<7}{what:<42}{:<12}{word} {bound:.2}{unit}", format!("{found:.2}{unit}"))
    }
}

/// To three digits after the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_by_what_is_on_its_side() {
        let check = |aim: Aim, is_met: bool| assert_eq!(aim.is_met(), is_met, "{aim}");
        check(Aim::of_bare(0.5), true);
        check(Aim::of_bare(0.49), false);
        check(Aim::of_page(299.0), false);
        check(Aim::of_idle_cpu(0.4), true);
        check(Aim::of_idle_resident(61 << 20), false);
        check(Aim::of_latency(Duration::from_millis(8), Duration::from_millis(1)), true);
        check(Aim::of_latency(Duration::from_millis(9), Duration::from_millis(1)), false);
    }

    #[test]
    fn a_missed_one_stands_out() {
        let text = Aim::of_bare(0.41).to_string();
        assert!(text.starts_with("MISSED") && text.ends_with("0.41×       at least 0.50×"), "{text}");
    }
}
