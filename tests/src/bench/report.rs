//! The figures, for people and as one line of JSON.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::aims::{Aim, rounded};
use super::idle::Idle;
use super::latency::{self, Latency, Load};
use super::micro::Micro;
use super::ready::Starts;
use super::run::Measured;
use super::scenario::Scenario;
use super::variant::Pair;
use super::{Plan, quantile};

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    /// How much was measured.
    pub plan: Plan,
    /// Every repetition of every scenario, in the order they ran.
    pub measured: Vec<(Scenario, Measured)>,
    /// What was not, and why.
    pub skipped: Vec<(Scenario, String)>,
    /// Every variant, each beside a run of the plain subscriber.
    pub variants: Vec<Pair>,
    /// At each rate.
    pub latencies: Vec<Latency>,
    /// Doing nothing.
    pub idle: Idle,
    /// Syncs of the disk, taken between the repetitions.
    pub syncs: Vec<Duration>,
    /// Starts of the host.
    pub starts: Starts,
    /// Calls of the example plugin.
    pub calls: Vec<Duration>,
    /// Single steps.
    pub micro: Micro,
}

/// One scenario's figures.
struct Line {
    scenario: Scenario,
    median: u64,
    least: u64,
    most: u64,
    cpu_us: u128,
    repeated: usize,
    resident_bytes: u64,
}

/// The median of a scenario's rates among `measured`; 0 where it was not measured.
pub fn median_rate(measured: &[(Scenario, Measured)], scenario: Scenario) -> u64 {
    let of_it = measured.iter().filter(|(measured, _)| *measured == scenario);
    quantile(&of_it.map(|(_, measured)| measured.rate()).collect::<Vec<_>>(), 0.5)
}

/// Appends `figures` to `path` as one line of JSON, with the time and the machine.
pub fn append(path: &Path, mut figures: Value) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    figures["unix_seconds"] = now.as_secs().into();
    figures["cores"] = std::thread::available_parallelism().map_or(0, usize::from).into();
    figures["load_after"] = std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().into();
    figures["optimised"] = (!cfg!(debug_assertions)).into();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("opening {}", path.display()))?;
    writeln!(file, "{figures}")?;
    Ok(())
}

impl Report {
    /// What is to be reached, as far as it was measured.
    pub fn aims(&self) -> Vec<Aim> {
        let mut aims = vec![Aim::of_bare(self.ratio_to(Scenario::BareCore))];
        for (scenario, aim) in
            [(Scenario::TUNED_PYTHON, Aim::of_tuned_python as fn(f64) -> Aim), (Scenario::PAGE, Aim::of_page)]
        {
            if self.line(scenario).is_some() {
                aims.push(aim(self.ratio_to(scenario)));
            }
        }
        let load = Load::new(Scenario::HostJetstream, latency::RATE);
        let run_of = |load: Load| self.latencies.iter().find(|run| run.load == load);
        let sync_p99 = quantile(&self.syncs, 0.99);
        aims.extend(run_of(load).map(|run| Aim::of_latency(run.quantile(0.99), sync_p99)));
        let slow = run_of(load.on_slow_disk());
        aims.extend(slow.map(|run| Aim::of_latency_on_slow_disk(run.quantile(0.99), sync_p99 + run.load.sync_delay)));
        aims.push(Aim::of_idle_cpu(self.idle.cpu_percent()));
        aims.push(Aim::of_idle_resident(self.idle.resident_bytes));
        aims
    }

    /// Everything, for a program.
    pub fn to_json(&self) -> Value {
        let scenario = |line: Line| {
            let figures = json!({
                "events_per_second": line.median, "min": line.least, "max": line.most,
                "cpu_us_per_event": line.cpu_us, "ratio": rounded(self.ratio(&line)), "repeated": line.repeated,
                "resident_bytes": line.resident_bytes,
            });
            (line.scenario.key().to_owned(), figures)
        };
        let variant = |pair: &Pair| {
            let figures = json!({
                "webhooks_per_second": pair.host.rate(), "bare": pair.bare.rate(), "ratio": rounded(pair.ratio()),
                "cpu_us_per_webhook": pair.host.cpu_us(),
            });
            (pair.variant.key.to_owned(), figures)
        };
        let us = |values: &[Duration], share| quantile(values, share).as_micros();
        let latency = |run: &Latency| {
            let shares = latency::SHARES.map(|(name, share)| (name.to_owned(), json!(run.quantile(share).as_micros())));
            json!({
                "scenario": run.load.scenario.key(), "rate": run.load.rate,
                "sync_delay_us": run.load.sync_delay.as_micros(), "us": Map::from_iter(shares),
                "publisher_late_us": run.publisher_late.as_micros(), "stolen_percent": rounded(run.stolen_percent),
                "sync_us": {"p50": us(&run.syncs, 0.5), "p99": us(&run.syncs, 0.99)},
            })
        };
        json!({
            "events": self.plan.events, "repetitions": self.plan.repetitions,
            "scenarios": self.lines().map(scenario).collect::<Map<_, _>>(),
            "skipped": self.skipped.iter().map(|(scenario, _)| scenario.key()).collect::<Vec<_>>(),
            "variants": self.variants.iter().map(variant).collect::<Map<_, _>>(),
            "latency": self.latencies.iter().map(latency).collect::<Vec<_>>(),
            "idle": {"cpu_percent": rounded(self.idle.cpu_percent()), "resident_bytes": self.idle.resident_bytes},
            "sync_us": {"p50": us(&self.syncs, 0.5), "p99": us(&self.syncs, 0.99)},
            "ready_us": {"cold": us(&self.starts.cold, 0.5), "warm": us(&self.starts.warm, 0.5)},
            "fresh_call_ns": {
                "p50": quantile(&self.calls, 0.5).as_nanos(), "p99": quantile(&self.calls, 0.99).as_nanos(),
            },
            "step_ns": self.micro.steps().into_iter().map(|(name, _, time)| (name.to_owned(), json!(time.as_nanos()))).collect::<Map<_, _>>(),
            "aims": self.aims().iter().map(Aim::to_json).collect::<Vec<_>>(),
        })
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        Scenario::ALL.into_iter().filter_map(|scenario| self.line(scenario))
    }

    fn line(&self, scenario: Scenario) -> Option<Line> {
        let of_it = || self.measured.iter().filter(|(of, _)| *of == scenario).map(|(_, measured)| measured);
        let rates: Vec<u64> = of_it().map(Measured::rate).collect();
        Some(Line {
            scenario,
            median: quantile(&rates, 0.5),
            least: *rates.iter().min()?,
            most: *rates.iter().max()?,
            cpu_us: quantile(&of_it().map(Measured::cpu_us).collect::<Vec<_>>(), 0.5),
            repeated: of_it().map(|measured| measured.repeated).sum(),
            resident_bytes: of_it().map(|measured| measured.resident_bytes).max()?,
        })
    }

    /// To the plain subscriber on core NATS, of medians.
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn ratio(&self, line: &Line) -> f64 {
        line.median as f64 / median_rate(&self.measured, Scenario::ALL[0]).max(1) as f64
    }

    /// Of the host from JetStream to `scenario`, of medians.
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn ratio_to(&self, scenario: Scenario) -> f64 {
        let host = median_rate(&self.measured, Scenario::HostJetstream);
        host as f64 / median_rate(&self.measured, scenario).max(1) as f64
    }

    fn write_scenarios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { events, repetitions, .. } = self.plan;
        writeln!(f, "\n{events} events of 0.5 KB or fewer, median of {repetitions} (min to max)")?;
        writeln!(f, "{:<40}{:>10}  {:<18}{:>14}{:>8}{:>6}", "", "events/s", "", "CPU µs/event", "ratio", "MiB")?;
        for line in self.lines() {
            let span = format!("({} to {})", line.least, line.most);
            let ratio = self.ratio(&line);
            let digits = if ratio < 0.01 { 4 } else { 2 };
            let label = line.scenario.label();
            write!(f, "{label:<40}{:>10}  {span:<18}{:>14}{ratio:>8.digits$}", line.median, line.cpu_us)?;
            write!(f, "{:>6}", line.resident_bytes >> 20)?;
            if line.repeated > 0 {
                write!(f, "  {} sent twice", line.repeated)?;
            }
            writeln!(f)?;
        }
        for (scenario, why) in &self.skipped {
            writeln!(f, "{:<40}skipped: {why}", scenario.label())?;
        }
        Ok(())
    }

    fn write_variants(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<40}{:>10}{:>10}{:>24}{:>8}",
            "wirehook, JetStream", "webhooks/s", "plain", "CPU µs/webhook", "ratio"
        )?;
        for pair in &self.variants {
            let (host, bare, label) = (pair.host, pair.bare, pair.variant.label);
            writeln!(f, "{label:<40}{:>10}{:>10}{:>24}{:>8.2}", host.rate(), bare.rate(), host.cpu_us(), pair.ratio())?;
        }
        Ok(())
    }

    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nfrom publication to arrival, at a constant rate; the disk's own sync just before")?;
        for run in &self.latencies {
            writeln!(f, "{:<40}{:>7}/s {run}", run.load.label(), run.load.rate)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_scenarios(f)?;
        self.write_variants(f)?;
        self.write_latencies(f)?;
        let at = |values: &[Duration], share| quantile(values, share);
        let (syncs, calls, Starts { cold, warm }) = (&self.syncs, &self.calls, &self.starts);
        writeln!(f, "\ndisk, append 8 KB and sync:   p50 {:.2?}, p99 {:.2?}", at(syncs, 0.5), at(syncs, 0.99))?;
        writeln!(f, "start to ready:               cold {:.0?}, warm {:.0?}", at(cold, 0.5), at(warm, 0.5))?;
        writeln!(f, "fresh sandbox and call:       p50 {:.1?}, p99 {:.1?}", at(calls, 0.5), at(calls, 0.99))?;
        for (_, label, time) in self.micro.steps() {
            writeln!(f, "{label:<50}{time:>10.1?}")?;
        }
        let Idle { wall, resident_bytes, .. } = self.idle;
        let percent = self.idle.cpu_percent();
        writeln!(f, "idle for {wall:.0?}:                {percent:.2} % of a core, {} MiB", resident_bytes >> 20)?;
        writeln!(f, "\naims")?;
        for aim in self.aims() {
            writeln!(f, "{aim}")?;
        }
        if cfg!(debug_assertions) {
            writeln!(f, "This build is not optimised: run `cargo xtask bench` for figures that mean something.")?;
        }
        Ok(())
    }
}
