//! The limits that plugins may differ in: names, units, defaults and bounds, and the lesser of what is asked and granted.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

use super::{BODIES_BYTES_MAX, Limits};

/// A limit, by the name that it has in the sidecar's `[limits]`, in `[plugins.limits]` and in `[plugin.limits]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Limit {
    /// `deadline`
    Deadline,
    /// `memory`
    Memory,
    /// `log`
    Log,
    /// `webhooks`
    Webhooks,
    /// `body`
    Body,
    /// `headers`
    Headers,
    /// `header_bytes`
    HeaderBytes,
    /// `reuse`
    Reuse,
    /// `concurrency`
    Concurrency,
}

/// What a limit's value counts, and so how it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds; written as `"100ms"`.
    Duration,
    /// Bytes; written as `"64MiB"`.
    Size,
    /// Things; written as an integer.
    Count,
}

/// All that is to be said of one limit. Values are in the unit's own measure.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub limit: Limit,
    /// Its name.
    pub name: &'static str,
    /// How its values are written.
    pub unit: Unit,
    /// What a plugin has that asks for nothing.
    pub default: u64,
    /// The most that a plugin gets where the settings grant nothing else.
    pub ungranted: u64,
    /// The least that can be asked for or granted.
    pub least: u64,
    /// The most that can be asked for or granted.
    pub most: u64,
    /// What it bounds.
    pub what: &'static str,
    /// What happens where it is broken.
    pub broken: &'static str,
}

const MS: u64 = 1_000_000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Every limit that plugins may differ in.
pub const LIMITS: &[Row] = &[
    Row {
        limit: Limit::Deadline,
        name: "deadline",
        unit: Unit::Duration,
        default: 100 * MS,
        ungranted: 10_000 * MS,
        least: 5 * MS,
        most: 10_000 * MS,
        what: "CPU time of a call; 10 times as much on the wall clock",
        broken: "tried again after 1 s and 10 s, then `plugin_deadline`",
    },
    Row {
        limit: Limit::Memory,
        name: "memory",
        unit: Unit::Size,
        default: 64 * MIB,
        ungranted: 256 * MIB,
        least: 64 * KIB,
        most: 256 * MIB,
        what: "memories and tables of an instance, summed",
        broken: "`plugin_memory`",
    },
    Row {
        limit: Limit::Log,
        name: "log",
        unit: Unit::Size,
        default: 16 * KIB,
        ungranted: 16 * KIB,
        least: 0,
        most: MIB,
        what: "bytes logged by one call",
        broken: "what is over is dropped, and that is said once",
    },
    Row {
        limit: Limit::Webhooks,
        name: "webhooks",
        unit: Unit::Count,
        default: 64,
        ungranted: 64,
        least: 1,
        most: 256,
        what: "webhooks of one result",
        broken: "`plugin_output`",
    },
    Row {
        limit: Limit::Body,
        name: "body",
        unit: Unit::Size,
        default: MIB,
        ungranted: MIB,
        least: 1,
        most: BODIES_BYTES_MAX as u64,
        what: "bytes of one webhook's body",
        broken: "`plugin_output`",
    },
    Row {
        limit: Limit::Headers,
        name: "headers",
        unit: Unit::Count,
        default: 32,
        ungranted: 32,
        least: 0,
        most: 64,
        what: "headers of one webhook",
        broken: "`plugin_output`",
    },
    Row {
        limit: Limit::HeaderBytes,
        name: "header_bytes",
        unit: Unit::Size,
        default: 8 * KIB,
        ungranted: 8 * KIB,
        least: 0,
        most: 32 * KIB,
        what: "bytes of one webhook's headers, names and values summed",
        broken: "`plugin_output`",
    },
    Row {
        limit: Limit::Reuse,
        name: "reuse",
        unit: Unit::Count,
        default: 1,
        ungranted: 1,
        least: 1,
        most: 100_000,
        what: "events that one instance serves before it makes room for a fresh one",
        broken: "the next event gets a fresh instance",
    },
    Row {
        limit: Limit::Concurrency,
        name: "concurrency",
        unit: Unit::Count,
        default: 1024,
        ungranted: 1024,
        least: 1,
        most: 1024,
        what: "calls of the plugin under way at once; never more than there are workers",
        broken: "further runs wait",
    },
];

/// A value for some of the limits: what a sidecar asks for, or what the settings grant.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SomeLimits([Option<u64>; LIMITS.len()]);

/// A limit as it is asked for, granted and in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Which.
    pub limit: Limit,
    /// What the sidecar asks for; none where it says nothing.
    pub asked: Option<u64>,
    /// The most that the plugin may have.
    pub granted: u64,
    /// What it has.
    pub in_force: u64,
}

impl Limit {
    /// All that is to be said of it.
    pub fn row(self) -> &'static Row {
        &LIMITS[self as usize]
    }

    /// The limit of that name.
    pub fn parse(name: &str) -> Option<&'static Row> {
        LIMITS.iter().find(|row| row.name == name)
    }

    /// Every name, for messages.
    pub fn known() -> String {
        LIMITS.iter().map(|row| format!("`{}`", row.name)).collect::<Vec<_>>().join(", ")
    }
}

impl Row {
    /// Reads a value that was written as a string: a duration or a size within the bounds.
    ///
    /// # Errors
    /// What is wrong with it, as a predicate.
    pub fn read_text(&self, text: &str) -> Result<u64, String> {
        let value = match self.unit {
            Unit::Duration => {
                humantime::parse_duration(text).ok().and_then(|duration| u64::try_from(duration.as_nanos()).ok())
            }
            Unit::Size => text.parse::<ByteSize>().ok().map(|size| size.0),
            Unit::Count => return Err(format!("is a string, not an integer; write {} without quotes", self.name)),
        };
        value.filter(|value| self.contains(*value)).ok_or_else(|| self.out_of_bounds())
    }

    /// Reads a value that was written as an integer: a count within the bounds.
    ///
    /// # Errors
    /// What is wrong with it, as a predicate.
    pub fn read_integer(&self, number: i64) -> Result<u64, String> {
        if self.unit != Unit::Count {
            return Err(format!("is an integer, not a string with a unit such as {}", self.show(self.default)));
        }
        u64::try_from(number).ok().filter(|value| self.contains(*value)).ok_or_else(|| self.out_of_bounds())
    }

    /// A value as it is written in TOML; reading it again gives the same.
    pub fn show(&self, value: u64) -> String {
        match self.unit {
            Unit::Duration => format!("\"{}\"", self.plain(value)),
            Unit::Size => format!("\"{}\"", self.plain(value)),
            Unit::Count => value.to_string(),
        }
    }

    /// As [`Self::show`], without quotes.
    pub fn plain(&self, value: u64) -> String {
        match self.unit {
            Unit::Duration => humantime::format_duration(Duration::from_nanos(value)).to_string(),
            Unit::Size if value >= MIB && value.is_multiple_of(MIB) => format!("{}MiB", value / MIB),
            Unit::Size if value >= KIB && value.is_multiple_of(KIB) => format!("{}KiB", value / KIB),
            Unit::Size => format!("{value}B"),
            Unit::Count => value.to_string(),
        }
    }

    fn contains(&self, value: u64) -> bool {
        (self.least..=self.most).contains(&value)
    }

    fn out_of_bounds(&self) -> String {
        format!("is not between {} and {}", self.show(self.least), self.show(self.most))
    }
}

impl SomeLimits {
    /// The value of one limit.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.0[limit as usize]
    }

    /// Sets one limit.
    pub fn set(&mut self, limit: Limit, value: u64) {
        self.0[limit as usize] = Some(value);
    }

    /// These, and for those that are not among them the ones of `others`.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index].or(others.0[index])))
    }

    /// Those that have a value, in the order of [`LIMITS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static Row, u64)> + '_ {
        LIMITS.iter().filter_map(|row| Some((row, self.get(row.limit)?)))
    }
}

impl fmt::Debug for SomeLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(row, value)| (row.name, row.plain(value)))).finish()
    }
}

impl Held {
    /// Whether the sidecar asks for more than it gets.
    pub fn is_lessened(&self) -> bool {
        self.asked.is_some_and(|asked| asked > self.in_force)
    }

    /// What is asked for and what there is instead, for people, where that is less.
    pub fn lessened(&self) -> Option<String> {
        let (row, asked) = (self.limit.row(), self.asked.filter(|_| self.is_lessened())?);
        Some(format!("{} {}, and has {}", row.name, row.plain(asked), row.plain(self.in_force)))
    }
}

/// Of what is asked (by default where nothing is) and what is granted, the lesser, for every limit.
pub fn hold(asked: &SomeLimits, granted: &SomeLimits) -> Vec<Held> {
    let held = |row: &Row| {
        let granted = granted.get(row.limit).unwrap_or(row.ungranted);
        let asked = asked.get(row.limit);
        Held { limit: row.limit, asked, granted, in_force: asked.unwrap_or(row.default).min(granted) }
    };
    LIMITS.iter().map(held).collect()
}

impl Limits {
    /// The limits in force for what is asked and granted.
    pub fn lesser(asked: &SomeLimits, granted: &SomeLimits) -> Self {
        let held = hold(asked, granted);
        let value = |limit: Limit| held[limit as usize].in_force;
        let count = |limit: Limit| usize::try_from(value(limit)).unwrap_or(usize::MAX);
        Self {
            deadline: Duration::from_nanos(value(Limit::Deadline)),
            memory_bytes_max: count(Limit::Memory),
            log_bytes_max: count(Limit::Log),
            webhooks_max: count(Limit::Webhooks),
            body_bytes_max: count(Limit::Body),
            headers_max: count(Limit::Headers),
            header_bytes_max: count(Limit::HeaderBytes),
            events_per_instance_max: count(Limit::Reuse),
            calls_at_once_max: count(Limit::Concurrency),
        }
    }
}

#[cfg(test)]
mod tests;
