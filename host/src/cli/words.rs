//! Amounts as people read them.

use std::time::Duration;

use bytesize::ByteSize;

/// A size: `1.2 GiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// A span of time in its two greatest units: `2d 3h`, `4m 5s`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let [days, hours, minutes] = [seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60];
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// A short time with two digits: `28 µs`, `1.2 ms`, `3.0 s`.
pub(super) fn short(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.000_999_5 => (s * 1e6, "µs"),
        s if s < 0.999_5 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let check = |seconds, expected: &str| assert_eq!(span(Duration::from_secs(seconds)), expected);
        check(0, "0s");
        check(59, "59s");
        check(60, "1m 0s");
        check(3_599, "59m 59s");
        check(3_600, "1h 0m");
        check(86_399, "23h 59m");
        check(183_600, "2d 3h");
    }

    #[test]
    fn short_times_have_two_digits() {
        let check = |seconds, expected: &str| assert_eq!(short(seconds), expected);
        check(0.000_028_3, "28 µs");
        check(0.000_001_2, "1.2 µs");
        check(0.000_999_9, "1.0 ms");
        check(0.0123, "12 ms");
        check(0.999_9, "1.0 s");
        check(3.0, "3.0 s");
        check(12.4, "12 s");
    }
}
