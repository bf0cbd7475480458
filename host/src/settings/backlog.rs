//! What may wait: `[plugins.backlog]`, `[plugin.backlog]`, `[endpoint.backlog]`; and `order`.

use std::time::Duration;

use bytesize::ByteSize;

use super::kinds::{Setting, one_of, within};
use super::section::{Reported, Section};
use super::{BacklogSettings, Order};
use crate::store::BacklogBounds;

/// The default of `count`.
pub const BACKLOG_COUNT: u64 = 5_000_000;
/// The most of `count`.
pub const BACKLOG_COUNT_MAX: u64 = 1_000_000_000;
/// The default of `bytes`.
pub const BACKLOG_SIZE: ByteSize = ByteSize::gib(8);
/// The least and the most of `bytes`.
pub const BACKLOG_SIZE_BOUNDS: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::tib(64));
/// The default of `age`.
pub const BACKLOG_AGE: Duration = Duration::from_hours(24 * 30);
/// The least and the most of `age`.
pub const BACKLOG_AGE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10 * 31_557_600));

impl Default for BacklogSettings {
    fn default() -> Self {
        Self { bounds: BacklogBounds { count: BACKLOG_COUNT, bytes: BACKLOG_SIZE.as_u64() }, age: BACKLOG_AGE }
    }
}

/// The table `backlog` of a section; what it does not say is as in `default`.
pub(super) fn backlog(section: &Section<'_>, default: &BacklogSettings) -> Result<BacklogSettings, Reported> {
    let section = section.table("backlog");
    let count = section.integer("count", default.bounds.count, 1..=BACKLOG_COUNT_MAX);
    let (least, most) = BACKLOG_SIZE_BOUNDS;
    let bytes = section.or_default_if("bytes", ByteSize::b(default.bounds.bytes), within(least, most));
    let age = section.or_default_if("age", default.age, within(BACKLOG_AGE_BOUNDS.0, BACKLOG_AGE_BOUNDS.1));
    section.finish();
    Ok(BacklogSettings { bounds: BacklogBounds { count: count?, bytes: bytes?.as_u64() }, age: age? })
}

const ORDERS: &[(&str, Order)] = &[("none", Order::None), ("entity", Order::Entity)];

impl Setting for Order {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, ORDERS)
    }

    fn show(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Entity => "entity".to_owned(),
        }
    }
}
