//! A quantile of a histogram, as Prometheus' `histogram_quantile` has it.

use prometheus::Histogram;
use prometheus::core::Metric;

/// What `portion` of the observations is at most, in seconds, interpolated within its bucket; none without observations.
/// Above the last bound, that bound.
pub fn quantile(histogram: &Histogram, portion: f64) -> Option<f64> {
    let metric = histogram.metric();
    let counted = metric.get_histogram();
    let buckets = counted.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    of_buckets(buckets, counted.get_sample_count(), portion)
}

/// Pure: buckets by rising bound, each with how many observations are at most that.
fn of_buckets(buckets: impl Iterator<Item = (f64, u64)>, count: u64, portion: f64) -> Option<f64> {
    let rank = portion * count as f64;
    let (mut below, mut counted_below) = (0.0, 0);
    for (bound, counted) in buckets.filter(|(bound, _)| bound.is_finite()) {
        if count > 0 && counted as f64 >= rank {
            let inside = counted - counted_below;
            let part = if inside == 0 { 1.0 } else { (rank - counted_below as f64) / inside as f64 };
            return Some(below + (bound - below) * part);
        }
        (below, counted_below) = (bound, counted);
    }
    (count > 0).then_some(below)
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;

    use super::*;

    #[test]
    fn it_is_interpolated_within_the_bucket() {
        let check = |observed: &[f64], portion, expected| {
            let options = HistogramOpts::new("h", "h").buckets(vec![1.0, 2.0, 4.0]);
            let histogram = Histogram::with_opts(options).unwrap();
            observed.iter().for_each(|seconds| histogram.observe(*seconds));
            assert_eq!(quantile(&histogram, portion), expected, "{observed:?}");
        };
        check(&[], 0.5, None);
        check(&[0.5, 0.6], 0.5, Some(0.5));
        check(&[0.5, 1.5, 1.6, 1.7], 0.5, Some(1.0 + 1.0 / 3.0));
        check(&[3.0, 3.0], 0.5, Some(3.0));
        check(&[9.0, 9.0], 0.5, Some(4.0));
    }
}
