//! CPU time that a virtual machine asked for and did not get, because its hypervisor ran another one.

use anyhow::{Context, Result};

/// The fields of the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal. What comes after
/// them is counted within them.
const FIELDS: usize = 8;
const STOLEN: usize = 7;

/// What the system has counted so far, of all cores.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    stolen: u64,
    all: u64,
}

impl Counted {
    /// Up to now.
    pub fn now() -> Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").context("/proc/stat")?)
    }

    fn parse(stat: &str) -> Result<Self> {
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("an unknown format")?;
        let ticks: Vec<u64> = line.split_whitespace().take(FIELDS).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { stolen: *ticks.get(STOLEN).context("an unknown format")?, all: ticks.iter().sum() })
    }

    /// In percent of all cores' time since then. The kernel's counts may step back.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn stolen_percent_until(self, later: Self) -> f64 {
        100.0 * later.stolen.saturating_sub(self.stolen) as f64 / later.all.saturating_sub(self.all).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_share_of_what_passed() {
        let parse = |line: &str| Counted::parse(line).unwrap();
        let (before, after) = (parse("cpu  10 0 10 80 0 0 0 0 5 5\ncpu0 1"), parse("cpu  20 0 20 130 0 0 5 25 9 9\n"));
        assert!((before.stolen_percent_until(after) - 25.0).abs() < 1e-9);
        assert!(Counted::parse("cpu0 1 2 3").is_err());
        assert!(Counted::parse("cpu  1 2 3").is_err());
    }
}
