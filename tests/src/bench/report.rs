//! The figures, for people and as one line of JSON.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ready::Starts;
use super::scenario::{Measured, Scenario};
use super::{Plan, quantile};

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    /// How much was measured.
    pub plan: Plan,
    /// Every repetition of every scenario, in the order they ran.
    pub measured: Vec<(Scenario, Measured)>,
    /// Syncs of the disk, taken between the repetitions.
    pub syncs: Vec<Duration>,
    /// Starts of the host.
    pub starts: Starts,
    /// Calls of the example plugin.
    pub calls: Vec<Duration>,
}

/// One scenario's figures.
struct Line {
    scenario: Scenario,
    median: u64,
    least: u64,
    most: u64,
    cpu_us: u128,
    repeated: usize,
}

impl Report {
    /// Appends the figures to `path` as one line of JSON.
    pub fn append_to(&self, path: &Path) -> Result<()> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let mut file = file.with_context(|| format!("opening {}", path.display()))?;
        writeln!(file, "{}", self.to_json())?;
        Ok(())
    }

    fn to_json(&self) -> Value {
        let scenarios: serde_json::Map<String, Value> = self
            .lines()
            .map(|line| {
                let figures = json!({
                    "events_per_second": line.median, "min": line.least, "max": line.most,
                    "cpu_us_per_event": line.cpu_us, "ratio": self.ratio(&line), "repeated": line.repeated,
                });
                (line.scenario.key().to_owned(), figures)
            })
            .collect();
        let us = |values: &[Duration], share| quantile(values, share).as_micros();
        json!({
            "unix_seconds": std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "optimised": !cfg!(debug_assertions),
            "events": self.plan.events, "repetitions": self.plan.repetitions,
            "scenarios": scenarios,
            "sync_us": {"p50": us(&self.syncs, 0.5), "p99": us(&self.syncs, 0.99)},
            "ready_us": {"cold": us(&self.starts.cold, 0.5), "warm": us(&self.starts.warm, 0.5)},
            "fresh_call_ns": {
                "p50": quantile(&self.calls, 0.5).as_nanos(), "p99": quantile(&self.calls, 0.99).as_nanos(),
            },
        })
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        Scenario::ALL.into_iter().filter_map(|scenario| self.line(scenario))
    }

    fn line(&self, scenario: Scenario) -> Option<Line> {
        let of_it =
            || self.measured.iter().filter(|(measured, _)| *measured == scenario).map(|(_, measured)| *measured);
        let events = self.plan.events as u64;
        let rates: Vec<u64> = of_it()
            .map(|measured| events * 1_000_000 / u64::try_from(measured.wall.as_micros()).unwrap_or(u64::MAX).max(1))
            .collect();
        let cpus: Vec<u128> = of_it().map(|measured| measured.cpu.as_micros() / u128::from(events.max(1))).collect();
        Some(Line {
            scenario,
            median: quantile(&rates, 0.5),
            least: *rates.iter().min()?,
            most: *rates.iter().max()?,
            cpu_us: quantile(&cpus, 0.5),
            repeated: of_it().map(|measured| measured.repeated).sum(),
        })
    }

    /// To the plain subscriber on core NATS, of medians.
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn ratio(&self, line: &Line) -> f64 {
        let yardstick = self.line(Scenario::ALL[0]).map_or(0, |line| line.median);
        (line.median as f64 / yardstick.max(1) as f64 * 1000.0).round() / 1000.0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { events, repetitions, .. } = self.plan;
        writeln!(f, "\n{events} events of 0.5 KB, median of {repetitions} (min to max)")?;
        writeln!(f, "{:<40}{:>10}  {:<18}{:>14}{:>8}", "", "events/s", "", "CPU µs/event", "ratio")?;
        for line in self.lines() {
            let span = format!("({} to {})", line.least, line.most);
            let ratio = self.ratio(&line);
            write!(f, "{:<40}{:>10}  {span:<18}{:>14}{ratio:>8.2}", line.scenario.label(), line.median, line.cpu_us)?;
            if line.repeated > 0 {
                write!(f, "  {} sent twice", line.repeated)?;
            }
            writeln!(f)?;
        }
        let at = |values: &[Duration], share| quantile(values, share);
        let (syncs, calls, Starts { cold, warm }) = (&self.syncs, &self.calls, &self.starts);
        writeln!(f, "disk, append 8 KB and sync:   p50 {:.0?}, p99 {:.0?}", at(syncs, 0.5), at(syncs, 0.99))?;
        writeln!(f, "start to ready:               cold {:.0?}, warm {:.0?}", at(cold, 0.5), at(warm, 0.5))?;
        writeln!(f, "fresh sandbox and call:       p50 {:.1?}, p99 {:.1?}", at(calls, 0.5), at(calls, 0.99))?;
        if cfg!(debug_assertions) {
            writeln!(f, "This build is not optimised: run `cargo xtask bench` for figures that mean something.")?;
        }
        Ok(())
    }
}
