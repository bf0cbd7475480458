//! Pure: how many attempts may begin in which time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The most attempts of a [`Rate`] in its time.
pub const RATE_COUNT_MAX: u32 = 1_000_000;

/// How far attempts may be ahead of an even pace, so that a late timer costs no throughput: within any time `t` at most
/// `1 + rate × (t + RATE_BURST)` attempts begin.
pub const RATE_BURST: Duration = Duration::from_millis(100);

/// So many attempts in such a time: `100/s`, `10/m`, `500/h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    count: u32,
    per: Duration,
}

/// Not a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is no rate, such as 100/s")]
pub struct NoRate;

impl Rate {
    /// From one attempt's beginning to the next.
    pub fn interval(self) -> Duration {
        self.per / self.count.max(1)
    }
}

const UNITS: [(&str, Duration); 3] =
    [("s", Duration::from_secs(1)), ("m", Duration::from_mins(1)), ("h", Duration::from_hours(1))];

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        let (count, unit) = text.split_once('/').ok_or(NoRate)?;
        let per = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, per)| *per).ok_or(NoRate)?;
        match count.parse::<u32>() {
            Ok(count @ 1..=RATE_COUNT_MAX) => Ok(Self { count, per }),
            _ => Err(NoRate),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, per)| *per == self.per).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.count)
    }
}

/// A token bucket, kept as the moment until which it is spent. Moments are those of a clock that never goes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    interval: Duration,
    spent_until: Duration,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self { interval: rate.interval(), spent_until: Duration::ZERO }
    }

    /// From when the next attempt may begin; in the past where it may now.
    pub fn ready_at(&self) -> Duration {
        self.spent_until.saturating_sub(RATE_BURST)
    }

    /// An attempt begins.
    pub fn take(&mut self, now: Duration) {
        self.spent_until = self.spent_until.max(now).saturating_add(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        let check = |text: &str, interval_us: u64| {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.interval(), Duration::from_micros(interval_us));
            assert_eq!(rate.to_string(), text);
        };
        check("100/s", 10_000);
        check("1/s", 1_000_000);
        check("10/m", 6_000_000);
        check("500/h", 7_200_000);
        check("1000000/s", 1);
        for text in ["", "/", "100", "100/", "/s", "0/s", "1000001/s", "-1/s", "1.5/s", "1/d", "1 / s", "1/s/s"] {
            assert_eq!(text.parse::<Rate>(), Err(NoRate), "{text}");
        }
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (1..2_000u32, 0..3usize).prop_map(|(count, unit)| Rate { count, per: UNITS[unit].1 })
    }

    proptest! {
        /// However askers come, no time sees more attempts than its share and the burst.
        #[test]
        fn no_time_sees_more_than_its_share(
            rate in rates(),
            pauses_us in prop::collection::vec(prop_oneof![8 => 0..2_000u64, 1 => 0..5_000_000u64], 1..400),
        ) {
            let mut bucket = Bucket::new(rate);
            let (mut now, mut begun) = (Duration::from_secs(7), Vec::new());
            for pause_us in pauses_us {
                now += Duration::from_micros(pause_us);
                if bucket.ready_at() <= now {
                    bucket.take(now);
                    begun.push(now);
                }
            }
            for (first, from) in begun.iter().enumerate() {
                for (last, to) in begun.iter().enumerate().skip(first) {
                    let share = (*to - *from + RATE_BURST).as_secs_f64() / rate.interval().as_secs_f64();
                    prop_assert!((last - first) as f64 <= share + 1.0, "{} within {:?}", last - first + 1, *to - *from);
                }
            }
        }

        /// Whoever waits until it may begin, and is late by less than the burst, has the whole rate.
        #[test]
        fn a_late_timer_costs_no_throughput(rate in rates(), late_us in prop::collection::vec(0..90_000u64, 2..300)) {
            let mut bucket = Bucket::new(rate);
            let start = Duration::from_secs(7);
            bucket.take(start);
            let mut now = start;
            for late_us in &late_us {
                now = now.max(bucket.ready_at() + Duration::from_micros(*late_us));
                bucket.take(now);
            }
            let even = rate.interval() * u32::try_from(late_us.len()).unwrap();
            prop_assert!(now <= start + even + Duration::from_millis(100), "{:?} instead of {:?}", now - start, even);
        }
    }
}
