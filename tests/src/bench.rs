//! Events per second from the bus to the receiver, beside a plain subscriber without store or sandbox.
//!
//! Every figure is taken in one run on one machine: the subscriber, the host and the disk take turns, so that a slow
//! hour of the machine is everybody's.

pub mod receiver;
pub mod child;
pub mod bare;
pub mod hand_written;
pub mod scenario;
pub mod run;
pub mod variant;
pub mod disk;
pub mod slow_disk;
pub mod stolen;
pub mod latency;
pub mod idle;
pub mod ready;
pub mod call;
pub mod micro;
pub mod languages;
pub mod many;
pub mod isolation;
pub mod scale;
pub mod against;
pub mod interval;
pub mod aims;
pub mod report;
pub mod svg;
pub mod scale_report;

use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Events of one repetition.
    pub events: usize,
    /// Repetitions of every scenario, interleaved.
    pub repetitions: usize,
    /// Starts with a cold and with a warm cache.
    pub starts: usize,
    /// Syncs of the disk.
    pub syncs: usize,
    /// Calls of the example plugin.
    pub calls: usize,
    /// Events and requests of each single step.
    pub steps: usize,
    /// Events of each variant, or a share of them.
    pub variant_events: usize,
    /// How long each rate is kept up.
    pub latency: Duration,
    /// How long an idle host is looked at.
    pub idle: Duration,
}

impl Plan {
    /// What figures are reported from.
    pub const FULL: Self = Self {
        events: 20_000,
        repetitions: 3,
        starts: 9,
        syncs: 400,
        calls: 20_000,
        steps: 20_000,
        variant_events: 16_000,
        latency: Duration::from_secs(20),
        idle: Duration::from_secs(10),
    };
    /// Whether it works, and roughly how fast.
    pub const QUICK: Self = Self {
        events: 5_000,
        repetitions: 1,
        starts: 3,
        syncs: 100,
        calls: 2_000,
        steps: 2_000,
        variant_events: 4_000,
        latency: Duration::from_secs(4),
        idle: Duration::from_secs(4),
    };
}

/// Deliveries under way at once, of the host and of the plain subscriber alike.
pub const IN_FLIGHT: usize = 64;

/// Slower than this is a failure, whatever else: each event adds so much to the deadline of its repetition.
const DEADLINE_FOR_EVENT: Duration = Duration::from_millis(3);

/// What a repetition may take besides.
const DEADLINE_BASE: Duration = Duration::from_secs(60);

/// For one repetition of `events` in one scenario.
pub fn deadline(events: usize) -> Duration {
    DEADLINE_BASE + DEADLINE_FOR_EVENT * u32::try_from(events).unwrap_or(u32::MAX)
}

/// The value that stands at `share` (0 to 1) of the sorted `values`; zero where there is none.
pub fn quantile<T: Copy + Default + Ord>(values: &[T], share: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let index = (share * last as f64).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        assert_eq!(quantile(&[5, 1, 3], 0.5), 3);
        assert_eq!(quantile(&[5, 1, 3], 0.0), 1);
        assert_eq!(quantile(&[5, 1, 3], 0.99), 5);
        assert_eq!(quantile::<u64>(&[], 0.5), 0);
    }
}
