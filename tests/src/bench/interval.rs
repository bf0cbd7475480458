//! The ratio of two builds from paired runs, and how far it can be trusted.
//!
//! A machine that is slow for a minute is slow for both runs of a pair, so that the ratio of a pair is steadier than either
//! figure. Ratios multiply: their logarithms are averaged, and Student's t gives the interval that holds the mean in 95 of
//! 100 such measurements. (Jain, "The Art of Computer Systems Performance Analysis", 13.4: paired
//! observations.)

/// Student's t for 95 %, two-sided, by degrees of freedom from 1.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// What it tends to with more.
const Z_95: f64 = 1.96;

/// A mean ratio and the interval around it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// The geometric mean.
    pub ratio: f64,
    /// The least that it may be.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Interval {
    /// Of the `ratios` of pairs, each above zero; `None` of fewer than two, which say nothing about how far they vary.
    #[allow(clippy::cast_precision_loss, reason = "a count of pairs")]
    pub fn of(ratios: &[f64]) -> Option<Self> {
        let freedom = ratios.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
        let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / freedom as f64;
        let half = T_95.get(freedom - 1).unwrap_or(&Z_95) * (variance / count).sqrt();
        Some(Self { ratio: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ratios: &[f64], expected: [f64; 3]) {
        let Interval { ratio, low, high } = Interval::of(ratios).unwrap();
        for (found, expected) in [ratio, low, high].into_iter().zip(expected) {
            assert!((found - expected).abs() < 5e-4, "{ratios:?}: {ratio} {low} {high}");
        }
    }

    #[test]
    fn it_is_of_the_logarithms() {
        check(&[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]);
        check(&[1.0, 1.1, 1.21], [1.1, 0.8681, 1.3939]);
        check(&[1.0, 1.0 / 1.1, 1.0 / 1.21], [1.0 / 1.1, 0.7174, 1.1520]);
    }

    #[test]
    fn more_pairs_narrow_it() {
        let width = |pairs: usize| {
            let ratios: Vec<f64> = [0.9, 1.1].into_iter().cycle().take(pairs).collect();
            let Interval { low, high, .. } = Interval::of(&ratios).unwrap();
            high - low
        };
        assert!(width(4) > width(16) && width(16) > width(64));
    }

    #[test]
    fn one_pair_says_nothing() {
        assert_eq!(Interval::of(&[]), None);
        assert_eq!(Interval::of(&[1.2]), None);
    }
}
