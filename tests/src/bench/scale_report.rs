//! The curves of [`super::scale`]: for people, as one line of JSON, and as pictures.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::aims::Aim;
use super::scale::{Point, Scale};
use super::svg::{Curve, chart};

/// The backlog that aims are set for; a larger one is there to be seen.
const BACKLOG_AIMED: usize = 1_000_000;
/// What a host may have in memory with it.
const RESIDENT_MIB_MAX: f64 = 200.0;
/// A claim from it, to one from the smallest.
const CLAIM_FACTOR_MAX: f64 = 1.5;
/// The rate at which it drains, to that of fresh events.
const DRAIN_RATIO_MIN: f64 = 0.8;

impl Scale {
    /// What is to be reached.
    pub fn aims(&self) -> Vec<Aim> {
        let aimed = self.backlogs.iter().rfind(|point| point.count <= BACKLOG_AIMED);
        let (Some(few), Some(many)) = (self.backlogs.first(), aimed) else { return Vec::new() };
        let factor = many.claim.as_secs_f64() / few.claim.as_secs_f64().max(f64::EPSILON);
        vec![
            Aim::most("a million waiting, in memory", mib(many), RESIDENT_MIB_MAX, " MiB"),
            Aim::most("a claim from it, to one from the smallest", factor, CLAIM_FACTOR_MAX, "×"),
            Aim::least("its rate, to that of fresh events", of(many.rate) / of(self.fresh_rate), DRAIN_RATIO_MIN, "×"),
        ]
    }

    /// Everything, for a program.
    pub fn to_json(&self) -> Value {
        let points = |points: &[Point]| -> Value {
            let point = |point: &Point| {
                json!({
                    "count": point.count, "webhooks_per_second": point.rate, "resident_bytes": point.resident_bytes,
                    "claim_us": point.claim.as_micros(), "ratio_to_fresh": of(point.rate) / of(self.fresh_rate),
                })
            };
            points.iter().map(point).collect()
        };
        json!({"scale": {
            "fresh_webhooks_per_second": self.fresh_rate, "backlogs": points(&self.backlogs),
            "endpoints": points(&self.endpoints), "plugins": points(&self.plugins), "histories": points(&self.histories),
            "aims": self.aims().iter().map(Aim::to_json).collect::<Vec<_>>(),
        }})
    }

    /// Writes the pictures into `folder`.
    pub fn draw(&self, folder: &Path) -> Result<()> {
        let curve = |label, points: &[Point], value: fn(&Point) -> f64| {
            let points = points.iter().map(|point| (of(point.count as u64), value(point))).collect();
            Curve { label, points }
        };
        let rate: fn(&Point) -> f64 = |point| of(point.rate.max(1));
        let fresh = Curve {
            label: "fresh from JetStream",
            points: self.backlogs.iter().map(|point| (of(point.count as u64), of(self.fresh_rate.max(1)))).collect(),
        };
        let draining = curve("draining", &self.backlogs, rate);
        let claim = curve("one claim", &self.backlogs, |point| point.claim.as_secs_f64() * 1e6);
        let memory = curve("while draining", &self.backlogs, mib);
        let (endpoints, plugins) = (curve("endpoints", &self.endpoints, rate), curve("plugins", &self.plugins, rate));
        let history = curve("fresh from JetStream", &self.histories, rate);
        let plugins_memory = curve("at the end", &self.plugins, mib);
        let pictures = [
            ("backlog-rate", chart("Rate, by backlog", "deliveries waiting", "webhooks/s", &[draining, fresh])),
            ("backlog-claim", chart("Time of a claim, by backlog", "deliveries waiting", "µs", &[claim])),
            ("backlog-memory", chart("Memory, by backlog", "deliveries waiting", "MiB", &[memory])),
            ("count-rate", chart("Rate, by endpoints and by plugins", "count", "webhooks/s", &[endpoints, plugins])),
            ("history-rate", chart("Rate, by history", "deliveries made before", "webhooks/s", &[history])),
            ("plugins-memory", chart("Memory, by plugins", "plugins", "MiB", &[plugins_memory])),
        ];
        std::fs::create_dir_all(folder)?;
        for (name, picture) in pictures {
            let path = folder.join(format!("{name}.svg"));
            std::fs::write(&path, picture).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<24}{:>12}{:>10}{:>8}{:>12}", "", "webhooks/s", "to fresh", "MiB", "claim")?;
        let curves = [
            ("waiting", &self.backlogs),
            ("endpoints", &self.endpoints),
            ("plugins", &self.plugins),
            ("in history", &self.histories),
        ];
        for (what, points) in curves {
            for point in points {
                let ratio = of(point.rate) / of(self.fresh_rate);
                write!(
                    f,
                    "{:<24}{:>12}{ratio:>10.2}{:>8.0}",
                    format!("{} {what}", point.count),
                    point.rate,
                    mib(point)
                )?;
                if point.claim.is_zero() {
                    writeln!(f)?;
                } else {
                    writeln!(f, "{:>12}", format!("{:.0?}", point.claim))?;
                }
            }
        }
        writeln!(f, "\naims")?;
        self.aims().iter().try_for_each(|aim| writeln!(f, "{aim}"))
    }
}

fn mib(point: &Point) -> f64 {
    of(point.resident_bytes) / f64::from(1 << 20)
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn of(value: u64) -> f64 {
    value as f64
}
