//! Which deliveries or dead letters a command means: the filters that its verbs share, and times as people write them.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::store::{DeadLetterFilter, DeliveryFilter};

/// How many a list shows unless told.
pub(super) const LIST_LIMIT: u32 = 100;
/// The store's own bound of a list.
pub(super) const LIST_LIMIT_MAX: i64 = 10_000;
/// The most ids of dead letters on one command line.
pub(super) const IDS_MAX: usize = 10_000;
/// The most ids of deliveries on one command line; they are longer, and a request has a bound.
pub(super) const DELIVERY_IDS_MAX: usize = 4_000;

/// A moment, or how long ago it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    At(Timestamp),
    Ago(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(Timestamp(at.as_millisecond())));
        }
        let ago = humantime::parse_duration(text).map(Self::Ago);
        ago.map_err(|_| "write a time such as 2026-03-02T14:00:00Z, or how long ago: 90s, 2h, 7d".to_owned())
    }
}

impl When {
    pub(super) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.minus(ago),
        }
    }
}

/// What narrows down which ones are meant; all of it together.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which ones")]
pub(super) struct FilterArgs {
    /// Only to this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only by this plugin
    #[arg(long, value_name = "NAME")]
    pub(super) plugin: Option<String>,
    /// Only dead for this reason
    #[arg(long, value_name = "REASON", value_parser = reason(), hide_possible_values = true)]
    pub(super) reason: Option<Reason>,
    /// Only of this event
    #[arg(long, value_name = "KEY")]
    event: Option<String>,
    /// Only of events of this entity
    #[arg(long, value_name = "ID")]
    entity_id: Option<String>,
    /// Only from then on: a time, or how long ago (2h)
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Only before then: a time, or how long ago (2h)
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
}

/// Names for completion, and for a suggestion where one is mistyped.
fn reason() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.as_str())).try_map(|name| name.parse::<Reason>())
}

impl FilterArgs {
    pub(super) fn is_empty(&self) -> bool {
        self.endpoint.is_none()
            && self.plugin.is_none()
            && self.reason.is_none()
            && self.event.is_none()
            && self.entity_id.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// The dead letters meant; times are when they died.
    pub(super) fn into_letters(self, now: Timestamp) -> DeadLetterFilter {
        DeadLetterFilter {
            endpoint: self.endpoint,
            plugin: self.plugin,
            reason: self.reason,
            event_key: self.event,
            entity_id: self.entity_id,
            since: self.since.map(|when| when.at(now)),
            until: self.until.map(|when| when.at(now)),
            ..DeadLetterFilter::default()
        }
    }

    /// The deliveries meant; times are when they were created.
    pub(super) fn into_deliveries(self, now: Timestamp) -> DeliveryFilter {
        DeliveryFilter {
            endpoint: self.endpoint,
            plugin: self.plugin,
            reason: self.reason,
            event_key: self.event,
            entity_id: self.entity_id,
            since: self.since.map(|when| when.at(now)),
            until: self.until.map(|when| when.at(now)),
            ..DeliveryFilter::default()
        }
    }
}

/// How many a second: `100/s`, `30/m`, `500/h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rate(pub(super) Duration);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let unit = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => Duration::ZERO,
        };
        match count.parse::<u32>() {
            Ok(count @ 1..) if !unit.is_zero() => Ok(Self(unit / count)),
            _ => Err("write how many in how long: 100/s, 30/m, 500/h".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_ages() {
        let check = |text: &str, expected: Option<i64>| {
            let at = text.parse::<When>().ok().map(|when| when.at(Timestamp(10_000_000)).0);
            assert_eq!(at, expected, "{text}");
        };
        check("1970-01-01T00:00:01Z", Some(1_000));
        check("1970-01-01T01:00:01+01:00", Some(1_000));
        check("2h", Some(2_800_000));
        check("90s", Some(9_910_000));
        check("yesterday", None);
        check("", None);
    }

    #[test]
    fn a_rate_is_an_interval() {
        let check = |text: &str, expected: Option<u64>| {
            let interval = text.parse::<Rate>().ok().map(|rate| rate.0.as_micros());
            assert_eq!(interval, expected.map(u128::from), "{text}");
        };
        check("100/s", Some(10_000));
        check("5", Some(200_000));
        check("30/m", Some(2_000_000));
        check("1/h", Some(3_600_000_000));
        check("0/s", None);
        check("10/d", None);
        check("-1/s", None);
    }
}
