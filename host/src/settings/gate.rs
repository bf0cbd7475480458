//! What holds attempts at an endpoint back: `rate`, `disable_after`, `[endpoint.breaker]`.

use std::time::Duration;

use serde_json::Value;
use toml::de::DeValue;

use super::kinds::{Setting, within};
use super::section::{Reported, Section};
use super::show::Origin;
use crate::dispatcher::breaker::BreakerPolicy;
use crate::dispatcher::gate::GatePolicy;
use crate::dispatcher::rate::{RATE_COUNT_MAX, Rate};

/// The least and the most of `disable_after`.
pub const DISABLE_AFTER_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(31_557_600));
/// The least and the most of every time of a breaker.
pub const BREAKER_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(24));
/// The least and the most of `failure_ratio`.
pub const FAILURE_RATIO_BOUNDS: (f64, f64) = (0.01, 1.0);
/// The most of `min_attempts`.
pub const MIN_ATTEMPTS_MAX: u64 = 100_000;

pub(super) fn gate(section: &Section<'_>) -> Result<GatePolicy, Reported> {
    let default = GatePolicy::default();
    let rate = section.optional::<Rate>("rate");
    let least_and_most = |after: &DisableAfter| match after.0 {
        None => Ok(()),
        Some(after) => within(DISABLE_AFTER_BOUNDS.0, DISABLE_AFTER_BOUNDS.1)(&after),
    };
    let disable_after = section.or_default_if("disable_after", DisableAfter(default.disable_after), least_and_most);
    let breaker = breaker(section);
    Ok(GatePolicy { rate: rate?, disable_after: disable_after?.0, breaker: breaker? })
}

fn breaker(section: &Section<'_>) -> Result<Option<BreakerPolicy>, Reported> {
    let Some(value) = section.get("breaker") else { return table(&section.table("breaker")).map(Some) };
    let offset = value.span().start;
    match value.get_ref() {
        DeValue::Table(_) => table(&section.table("breaker")).map(Some),
        DeValue::String(text) if text == "off" => {
            section.show("breaker", Value::from("off"), Origin::Settings(section.context.at_line(offset)));
            Ok(None)
        }
        _ => Err(section.refuse(
            "breaker",
            offset,
            "is neither \"off\" nor a table",
            "write breaker = \"off\", or an [endpoint.breaker] table",
        )),
    }
}

fn table(section: &Section<'_>) -> Result<BreakerPolicy, Reported> {
    let default = BreakerPolicy::default();
    let time = |key, default| section.or_default_if(key, default, within(BREAKER_BOUNDS.0, BREAKER_BOUNDS.1));
    let ratio = FAILURE_RATIO_BOUNDS.0..=FAILURE_RATIO_BOUNDS.1;
    let failure_ratio = section.float("failure_ratio", default.failure_ratio, ratio);
    let min_attempts = section.integer("min_attempts", u64::from(default.min_attempts), 1..=MIN_ATTEMPTS_MAX);
    let (window, open, max_open) =
        (time("window", default.window), time("open", default.open), time("max_open", default.max_open));
    section.finish();
    let policy = BreakerPolicy {
        failure_ratio: failure_ratio?,
        min_attempts: u32::try_from(min_attempts?).unwrap_or(u32::MAX),
        window: window?,
        open: open?,
        max_open: max_open?,
    };
    if policy.open > policy.max_open {
        let offset = section.get("open").map_or(section.offset, |value| value.span().start);
        let message = format!("is {}, longer than `max_open`, {}", policy.open.show(), policy.max_open.show());
        return Err(section.refuse("open", offset, message, "make one of them fit the other"));
    }
    Ok(policy)
}

/// A duration, or never.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct DisableAfter(Option<Duration>);

impl Setting for DisableAfter {
    const EXPECTED: &'static str = "write a duration such as \"5d\", or \"never\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "never" { Ok(Self(None)) } else { Duration::read(text).map(|after| Self(Some(after))) }
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "never".to_owned(), |after| after.show())
    }
}

impl Setting for Rate {
    const EXPECTED: &'static str = "write attempts in a time, such as \"100/s\", \"10/m\" or \"500/h\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("is no rate of 1 to {RATE_COUNT_MAX} in a second, a minute or an hour"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
