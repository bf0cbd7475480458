//! `[endpoint.retry]`: when an endpoint's deliveries are tried again, and which answers are final.

use std::time::Duration;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::kinds::{Setting, one_of, within};
use super::section::{Reported, Section};
use super::show::Origin;
use crate::delivery::RetryPolicy;
use crate::delivery::statuses::{STATUSES_MAX, StatusPattern, Statuses};

/// The most of `max_attempts`; `schedule` has one wait less at most.
pub const ATTEMPTS_MAX: u64 = 1000;
/// The most of `multiplier`.
pub const MULTIPLIER_MAX: f64 = 100.0;
/// The most of `max_delay` and of every wait.
pub const DELAY_MAX: Duration = Duration::from_hours(24 * 7);
/// The least of every wait.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// What describes the curve, and is set already by a schedule or a preset.
const CURVE: [&str; 3] = ["max_attempts", "initial_delay", "multiplier"];

/// A policy with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// FraiseQL's page: 3 attempts, every status below 500 final.
    Page,
    /// The schedule that Standard Webhooks suggests.
    StandardWebhooks,
}

const PRESETS: &[(&str, Preset)] = &[("page", Preset::Page), ("standard-webhooks", Preset::StandardWebhooks)];

impl Preset {
    fn policy(self) -> RetryPolicy {
        match self {
            Self::Page => RetryPolicy::page(),
            Self::StandardWebhooks => RetryPolicy::standard_webhooks(),
        }
    }
}

impl Setting for Preset {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, PRESETS)
    }

    fn show(&self) -> String {
        PRESETS.iter().find(|(_, preset)| preset == self).map(|(name, _)| (*name).to_owned()).unwrap_or_default()
    }
}

/// `retry`: a preset by its name, or a table.
pub(super) fn retry(section: &Section<'_>) -> Result<RetryPolicy, Reported> {
    let Some(value) = section.get("retry") else { return table(&section.table("retry")) };
    match value.get_ref() {
        DeValue::Table(_) => table(&section.table("retry")),
        DeValue::String(name) if Preset::read(name).is_ok() => Ok(section.or_default("retry", Preset::Page)?.policy()),
        _ => Err(section.refuse(
            "retry",
            value.span().start,
            "is neither \"page\" nor \"standard-webhooks\" nor a table",
            "write the name of one of these, or an [endpoint.retry] table",
        )),
    }
}

fn table(section: &Section<'_>) -> Result<RetryPolicy, Reported> {
    let base = base(section);
    let jitter = section.float("jitter", RetryPolicy::default().jitter, 0.0..=1.0);
    let statuses = statuses(section);
    let policy = longest(section, base);
    section.finish();
    Ok(RetryPolicy { jitter: jitter?, statuses: statuses?, ..policy? })
}

/// The waits: a preset's, those of a schedule, or a curve.
fn base(section: &Section<'_>) -> Result<RetryPolicy, Reported> {
    let preset = section.optional::<Preset>("preset");
    let schedule = schedule(section);
    match (preset?, schedule?) {
        (None, None) => curve(section),
        (Some(preset), None) => excludes(section, "preset", &CURVE).map(|()| preset.policy()),
        (None, Some(waits)) => excludes(section, "schedule", &CURVE).map(|()| RetryPolicy::scheduled(waits)),
        (Some(_), Some(_)) => excludes(section, "preset", &["schedule"]).and(Err(Reported)),
    }
}

/// Refuses what `key` sets already.
fn excludes(section: &Section<'_>, key: &str, others: &[&'static str]) -> Result<(), Reported> {
    let mut refused = Ok(());
    for other in others {
        if let Some(value) = section.get(other) {
            let message = format!("is beside `{key}`, which sets it already");
            refused = Err(section.refuse(other, value.span().start, message, "remove one of the two"));
        }
    }
    refused
}

fn curve(section: &Section<'_>) -> Result<RetryPolicy, Reported> {
    let default = RetryPolicy::default();
    let max_attempts = section.integer("max_attempts", u64::from(default.max_attempts), 1..=ATTEMPTS_MAX);
    let initial_delay = section.or_default_if("initial_delay", default.initial_delay, within(DELAY_MIN, DELAY_MAX));
    let multiplier = section.float("multiplier", default.multiplier, 1.0..=MULTIPLIER_MAX);
    Ok(RetryPolicy {
        max_attempts: u32::try_from(max_attempts?).unwrap_or(u32::MAX),
        initial_delay: initial_delay?,
        multiplier: multiplier?,
        ..default
    })
}

fn schedule(section: &Section<'_>) -> Result<Option<Vec<Duration>>, Reported> {
    let Some(value) = section.get("schedule") else { return Ok(None) };
    let waits = section.list::<Duration>("schedule")?;
    let offset = value.span().start;
    if waits.is_empty() || waits.len() as u64 >= ATTEMPTS_MAX {
        let message = format!("has {} waits, which is not within 1 to {}", waits.len(), ATTEMPTS_MAX - 1);
        return Err(section.refuse("schedule", offset, message, "max_attempts = 1 makes one attempt and no other"));
    }
    match waits.iter().find(|wait| !(DELAY_MIN..=DELAY_MAX).contains(*wait)) {
        None => Ok(Some(waits)),
        Some(wait) => {
            let (least, most) = (DELAY_MIN.show(), DELAY_MAX.show());
            let message = format!("has the wait {}, which is not within {least} to {most}", wait.show());
            Err(section.refuse("schedule", offset, message, ""))
        }
    }
}

/// `max_delay`, which no wait may be longer than.
fn longest(section: &Section<'_>, base: Result<RetryPolicy, Reported>) -> Result<RetryPolicy, Reported> {
    let default = base.as_ref().map_or(RetryPolicy::default().max_delay, |base| base.max_delay);
    let max_delay = section.or_default_if("max_delay", default, within(DELAY_MIN, DELAY_MAX));
    let (policy, max_delay) = (base?, max_delay?);
    let (key, wait) = match policy.schedule.iter().max() {
        Some(longest) => ("schedule", *longest),
        None => ("initial_delay", policy.initial_delay),
    };
    if wait <= max_delay {
        return Ok(RetryPolicy { max_delay, ..policy });
    }
    let written = section.get(key).or_else(|| section.get("max_delay"));
    let offset = written.map_or(section.offset, |value| value.span().start);
    let what = if key == "schedule" { "has the wait" } else { "is" };
    let message = format!("{what} {}, longer than `max_delay`, {}", wait.show(), max_delay.show());
    Err(section.refuse(key, offset, message, "make one of them fit the other"))
}

fn statuses(section: &Section<'_>) -> Result<Statuses, Reported> {
    let (retried, finals) = (patterns(section, "retried"), patterns(section, "final"));
    Statuses::new(retried?, finals?).map_err(|both| {
        let offset = section.get("final").map_or(section.offset, |value| value.span().start);
        section.refuse("final", offset, format!("has {both}, which `retried` has too"), "remove one of the two")
    })
}

fn patterns(section: &Section<'_>, key: &'static str) -> Result<Vec<StatusPattern>, Reported> {
    let Some(value) = section.get(key) else {
        section.show(key, Value::Array(Vec::new()), Origin::Default);
        return Ok(Vec::new());
    };
    let offset = value.span().start;
    let DeValue::Array(array) = value.get_ref() else {
        return Err(section.refuse(key, offset, "is no array", "write such as [409, \"5xx\"]"));
    };
    if array.len() > STATUSES_MAX {
        return Err(section.refuse(key, offset, format!("has more than {STATUSES_MAX} elements"), ""));
    }
    let read: Vec<_> = array.iter().map(|element| pattern(section, key, element)).collect();
    let read = read.into_iter().collect::<Result<Vec<_>, _>>()?;
    let shown = read.iter().map(|pattern| match pattern {
        StatusPattern::One(status) => Value::from(*status),
        class @ StatusPattern::Class(_) => Value::from(class.to_string()),
    });
    section.show(key, shown.collect(), Origin::Settings(section.context.at_line(offset)));
    Ok(read)
}

fn pattern(section: &Section<'_>, key: &str, element: &Spanned<DeValue<'_>>) -> Result<StatusPattern, Reported> {
    let offset = element.span().start;
    let text = match element.get_ref() {
        DeValue::String(text) => text.as_ref(),
        DeValue::Integer(integer) => integer.as_str(),
        other => return Err(section.wrong_type(key, offset, "a status", other)),
    };
    text.parse().map_err(|error| section.refuse(key, offset, format!("has `{text}`, which {error}"), ""))
}
