//! This build beside another revision's, in turns: whether anything got slower.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::interval::Interval;
use super::latency::{self, Load};
use super::receiver::Receiver;
use super::run::Bench;
use super::scenario::{Scenario, Setting};
use super::{aims, idle, ready};
use crate::artifacts::host_binary;
use crate::test_host::{HostFolderBuilder, TestHost};

/// Fewer pairs say little.
pub const PAIRS: usize = 15;

/// What the upper end of a row's interval has to reach, so that the row can't be said to have got slower.
const RATIO_MIN: f64 = 0.97;

/// How long a rate is kept up in each run.
const LATENCY: Duration = Duration::from_secs(4);

/// How long an idle host is looked at in each run.
const IDLE: Duration = Duration::from_secs(2);

/// Syncs of the disk before each latency.
const SYNCS: usize = 20;

/// What one run measures; each gives one row or more.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Events through a scenario: their rate, and CPU time.
    Flow { label: &'static str, scenario: Scenario, setting: Setting, events: usize },
    /// At [`latency::RATE`].
    Latency,
    /// From the process to ready.
    Start,
    /// With nothing to do.
    Idle,
}

const KINDS: [Kind; 11] = [
    flow("JetStream", Scenario::HostJetstream, Setting::MAIN, 10_000),
    flow("JetStream, 4 KB", Scenario::HostJetstream, Setting { bytes: 4 << 10, ..Setting::MAIN }, 5_000),
    flow("JetStream, five webhooks", Scenario::HostJetstream, Setting { webhooks: 5, ..Setting::MAIN }, 2_000),
    flow("JetStream, JavaScript", Scenario::HostJetstream, Setting { plugin: "orders-js", ..Setting::MAIN }, 3_000),
    flow("Redis Streams", Scenario::HostRedisStream, Setting::MAIN, 10_000),
    flow("PostgreSQL outbox", Scenario::HostOutbox, Setting::MAIN, 10_000),
    flow("http, arrays of 64", Scenario::HostHttpArrays, Setting::MAIN, 10_000),
    flow("http, single events", Scenario::HostHttpSingle, Setting::MAIN, 5_000),
    Kind::Latency,
    Kind::Start,
    Kind::Idle,
];

const fn flow(label: &'static str, scenario: Scenario, setting: Setting, events: usize) -> Kind {
    Kind::Flow { label, scenario, setting, events }
}

/// One figure of one run.
#[derive(Clone, PartialEq, Debug)]
struct Figure {
    row: String,
    value: f64,
    unit: &'static str,
    more_is_better: bool,
}

/// One figure of every pair.
#[derive(Clone, PartialEq, Debug)]
struct Row {
    name: String,
    unit: &'static str,
    more_is_better: bool,
    /// Of the other revision and of this build.
    pairs: Vec<(f64, f64)>,
}

/// Every row.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// The revision that it is compared with.
    pub revision: String,
    rows: Vec<Row>,
}

/// Measures `pairs` pairs, the host at `other`, built of `revision`, and this build's, each first in every second pair.
pub async fn measure(
    folder: &Path,
    receiver: &Receiver,
    (revision, other): (&str, &Path),
    pairs: usize,
) -> Result<Comparison> {
    ensure!(pairs >= 2, "one pair says nothing about how far the figures vary: give --pairs 2 or more");
    let mut comparison = Comparison { revision: revision.to_owned(), rows: Vec::new() };
    let (other, this) = (twin(folder, "other", other)?, twin(folder, "this", &host_binary()?)?);
    let other = Bench { folder, receiver, program: Some(&other) };
    let this = Bench { folder, receiver, program: Some(&this) };
    for pair in 0..pairs {
        eprintln!("pair {} of {pairs}", pair + 1);
        for kind in KINDS {
            let (old, new) = if pair % 2 == 0 {
                let old = run(&other, kind).await?;
                (old, run(&this, kind).await?)
            } else {
                let new = run(&this, kind).await?;
                (run(&other, kind).await?, new)
            };
            comparison.add(old, new);
        }
    }
    Ok(comparison)
}

/// A copy of a program. How its file came into the system's cache decides how much of it is mapped around each page that is
/// needed (2 MiB of 26 between a copy and the linker's own file), so both come the same way.
fn twin(folder: &Path, name: &str, program: &Path) -> Result<PathBuf> {
    let copy = folder.join(format!("wirehook-{name}"));
    std::fs::copy(program, &copy).with_context(|| format!("copying {} to {}", program.display(), copy.display()))?;
    Ok(copy)
}

async fn run(bench: &Bench<'_>, kind: Kind) -> Result<Vec<Figure>> {
    let less = |row: String, value: f64, unit| Figure { row, value, unit, more_is_better: false };
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(match kind {
        Kind::Flow { label, scenario, setting, events } => {
            let measured = bench.run(scenario, setting, events).await?;
            #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
            let rate = measured.webhooks as f64 / measured.wall.as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
            let cpu = measured.cpu.as_secs_f64() * 1e6 / measured.webhooks as f64;
            let rate = Figure { row: label.to_owned(), value: rate, unit: "/s", more_is_better: true };
            vec![rate, less(format!("{label}, CPU"), cpu, "µs")]
        }
        Kind::Latency => {
            let load = Load::new(Scenario::HostJetstream, latency::RATE);
            let measured = latency::measure(bench, load, LATENCY, SYNCS).await?;
            let row = |name: &str, share| {
                less(format!("latency at {}/s, {name}", latency::RATE), millis(measured.quantile(share)), "ms")
            };
            vec![row("p50", 0.5), row("p99", 0.99)]
        }
        Kind::Start => {
            let builder = TestHost::builder().within(bench.folder);
            let builder = bench.program.into_iter().fold(builder, HostFolderBuilder::program);
            let (cold, warm) = ready::measure_one(builder).await?;
            vec![
                less("start, nothing compiled".to_owned(), millis(cold), "ms"),
                less("start".to_owned(), millis(warm), "ms"),
            ]
        }
        Kind::Idle => {
            let idle = idle::measure(bench, IDLE).await?;
            #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
            let resident = idle.resident_bytes as f64 / f64::from(1 << 20);
            vec![
                less("idle, of a core".to_owned(), idle.cpu_percent(), "%"),
                less("idle, in memory".to_owned(), resident, "MiB"),
            ]
        }
    })
}

impl Row {
    /// Above 1 where this build is better.
    fn interval(&self) -> Option<Interval> {
        let ratio = |(old, new): &(f64, f64)| if self.more_is_better { new / old } else { old / new };
        Interval::of(&self.pairs.iter().map(ratio).collect::<Vec<_>>())
    }

    fn medians(&self) -> (f64, f64) {
        let median = |mut values: Vec<f64>| {
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        (median(self.pairs.iter().map(|pair| pair.0).collect()), median(self.pairs.iter().map(|pair| pair.1).collect()))
    }

    /// Whether the figures leave it open that nothing got slower.
    fn reaches(&self) -> bool {
        self.interval().is_none_or(|interval| interval.high >= RATIO_MIN)
    }
}

impl Comparison {
    fn add(&mut self, old: Vec<Figure>, new: Vec<Figure>) {
        for (old, new) in old.into_iter().zip(new) {
            let Figure { row, value, unit, more_is_better } = new;
            let pair = (old.value, value);
            match self.rows.iter_mut().find(|known| known.name == row) {
                Some(known) => known.pairs.push(pair),
                None => self.rows.push(Row { name: row, unit, more_is_better, pairs: vec![pair] }),
            }
        }
    }

    /// The rows that got slower, by their whole interval.
    pub fn slower(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| !row.reaches()).map(|row| row.name.as_str()).collect()
    }

    /// For a program.
    pub fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let interval = row.interval();
            let bound = |of: fn(Interval) -> f64| interval.map(of).map(aims::rounded);
            let (old, new) = row.medians();
            json!({
                "row": row.name, "unit": row.unit, "old": aims::rounded(old), "new": aims::rounded(new),
                "ratio": bound(|it| it.ratio), "low": bound(|it| it.low), "high": bound(|it| it.high),
                "reaches": row.reaches(),
            })
        };
        json!({"against": self.revision, "rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.rows.iter().map(|row| row.pairs.len()).max().unwrap_or_default();
        writeln!(
            f,
            "this build against {}: {pairs} pairs, medians, ratio above 1 where this build is better",
            self.revision
        )?;
        writeln!(f, "{:<34}{:>12}{:>12}       {:>6}  95 % interval", "", "before", "now", "ratio")?;
        for row in &self.rows {
            let (old, new) = row.medians();
            let Some(Interval { ratio, low, high }) = row.interval() else { continue };
            let verdict = if row.reaches() { "" } else { "  SLOWER" };
            writeln!(
                f,
                "{:<34}{old:>12.2}{new:>12.2} {:<5} {ratio:>6.3}  {low:.3} to {high:.3}{verdict}",
                row.name, row.unit
            )?;
        }
        let slower = self.slower();
        if slower.is_empty() {
            write!(f, "every row's interval reaches {RATIO_MIN}")
        } else {
            write!(f, "slower, the whole interval below {RATIO_MIN}: {}", slower.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(pairs: &[(f64, f64)], more_is_better: bool) -> Comparison {
        let mut comparison = Comparison { revision: "abc".to_owned(), rows: Vec::new() };
        for (old, new) in pairs {
            let figure = |value: &f64| Figure { row: "r".to_owned(), value: *value, unit: "u", more_is_better };
            comparison.add(vec![figure(old)], vec![figure(new)]);
        }
        comparison
    }

    #[test]
    fn a_row_is_slower_where_its_whole_interval_is() {
        let check = |pairs: &[(f64, f64)], more_is_better, is_slower: bool| {
            let comparison = comparison(pairs, more_is_better);
            assert_eq!(!comparison.slower().is_empty(), is_slower, "{comparison}");
        };
        check(&[(100.0, 90.0), (100.0, 90.1), (100.0, 89.9)], true, true);
        check(&[(100.0, 90.0), (100.0, 90.1), (100.0, 89.9)], false, false);
        check(&[(90.0, 100.0), (90.1, 100.0), (89.9, 100.0)], false, true);
        check(&[(100.0, 90.0), (100.0, 110.0), (100.0, 95.0)], true, false);
        check(&[(100.0, 98.0), (100.0, 98.1), (100.0, 97.9)], true, false);
    }

    #[test]
    fn a_slower_row_stands_out() {
        let text = comparison(&[(100.0, 50.0), (100.0, 50.1)], true).to_string();
        assert!(text.contains("SLOWER") && text.ends_with("below 0.97: r"), "{text}");
        assert!(comparison(&[(1.0, 1.0), (1.0, 1.0)], true).to_string().ends_with("reaches 0.97"));
    }
}
