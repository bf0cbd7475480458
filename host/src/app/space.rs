//! The store's own bound is its disk: intake stops before that is full, and goes on by itself once there is room.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;

use super::background::wait;
use crate::clock::Clock;
use crate::drain::Drain;
use crate::inbox::gate::IntakeGate;
use crate::metrics::Metrics;
use crate::store::sqlite::{FailingKind, SqliteStore, free_bytes};

/// How often the free space is looked at. What comes in between is far less than the least that is to be free.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Intake goes on once so much more than the least is free, as a share of it: else it would stop and go with every file
/// that comes and goes.
const MARGIN: u64 = 8;

/// After a commit that found the disk full although there seemed to be room, as with a quota, how long until it is tried
/// again.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(5);

/// Watches the store's disk.
pub(super) struct SpaceWatch {
    pub(super) store: Arc<SqliteStore>,
    pub(super) gate: Arc<IntakeGate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    /// `[store] free_bytes_min`
    pub(super) free_bytes_min: u64,
}

/// Whether intake goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Intake {
    /// It does.
    #[default]
    Open,
    /// Less than the least is free.
    Short,
    /// A commit found the disk full; until this moment at least.
    Full(Duration),
}

/// What a look saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    /// Free for this process, where the system says so.
    free: Option<u64>,
    /// Whether the last commit found the disk full.
    failed_full: bool,
    now: Duration,
}

impl Intake {
    /// Pure: whether intake goes on after a look.
    fn after(&self, seen: Seen, least: u64) -> Self {
        let needed = if *self == Self::Open { least } else { least.saturating_add(least / MARGIN) };
        let short = seen.free.is_some_and(|free| free < needed);
        match self {
            Self::Full(until) if seen.now < *until => self.clone(),
            // Nothing has been tried since: the next commit says whether there is room now.
            Self::Full(_) | Self::Short if !short => Self::Open,
            Self::Full(_) => Self::Short,
            _ if seen.failed_full => Self::Full(seen.now + RETRY_AFTER_FULL),
            _ if short => Self::Short,
            _ => Self::Open,
        }
    }
}

impl SpaceWatch {
    /// Runs until the drain begins.
    pub(super) async fn run(self, drain: Drain) {
        let mut intake = Intake::default();
        loop {
            intake = self.look(intake).await;
            if !wait(LOOK_INTERVAL, &drain).await {
                return;
            }
        }
    }

    async fn look(&self, before: Intake) -> Intake {
        let folder = self.store.folder().to_owned();
        // A disk that is gone, as a network may be, must hold up this task only.
        let free = tokio::task::spawn_blocking(move || free_bytes(&folder)).await.ok().flatten();
        if let Some(free) = free {
            self.store.disk_has_left(free.saturating_sub(self.free_bytes_min));
        }
        let failed_full = self.store.failing().is_some_and(|failing| failing.kind == FailingKind::Full);
        let seen = Seen { free, failed_full, now: self.clock.monotonic() };
        let after = before.after(seen, self.free_bytes_min);
        self.metrics.store_free_bytes(free);
        self.metrics.intake_stopped.set(i64::from(after != Intake::Open || failed_full));
        self.tell(&before, &after, seen);
        after
    }

    fn tell(&self, before: &Intake, after: &Intake, seen: Seen) {
        let folder = self.store.folder().display();
        let (free, least) = (ByteSize::b(seen.free.unwrap_or(0)), ByteSize::b(self.free_bytes_min));
        let bound = match after {
            Intake::Open => {
                // After a disk that was full the next commit says whether there is room.
                if *before != Intake::Open && !seen.failed_full {
                    tracing::info!(dir = %folder, free_bytes = free.as_u64(), "there is room in the store again; intake goes on");
                }
                return self.gate.open();
            }
            Intake::Short => format!("{free} are free in {folder}, of at least {least} (`[store] free_bytes_min`)"),
            Intake::Full(_) => format!("the disk is full, or the quota used up, in {folder}"),
        };
        if std::mem::discriminant(before) != std::mem::discriminant(after) {
            tracing::error!(
                dir = %folder, free_bytes = free.as_u64(), free_bytes_min = least.as_u64(), bound,
                "intake is stopped: make room; it goes on by itself"
            );
        }
        self.gate.close(bound.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = 800;

    fn seen(free: u64, failed_full: bool, seconds: u64) -> Seen {
        Seen { free: Some(free), failed_full, now: Duration::from_secs(seconds) }
    }

    #[test]
    fn intake_stops_below_the_least_and_goes_on_with_a_margin() {
        let check = |intake: &Intake, free, expected: Intake| {
            assert_eq!(intake.after(seen(free, false, 0), LEAST), expected, "{intake:?} with {free}");
        };
        check(&Intake::Open, 800, Intake::Open);
        check(&Intake::Open, 799, Intake::Short);
        check(&Intake::Short, 899, Intake::Short);
        check(&Intake::Short, 900, Intake::Open);
        let unknown = Seen { free: None, failed_full: false, now: Duration::ZERO };
        assert_eq!(Intake::Open.after(unknown, LEAST), Intake::Open, "a system that does not say stops nothing");
        assert_eq!(Intake::Open.after(seen(0, false, 0), 0), Intake::Open, "0 switches the bound off");
    }

    #[test]
    fn a_commit_that_found_the_disk_full_stops_intake_for_a_while_whatever_is_free() {
        let full = Intake::Open.after(seen(5_000, true, 10), LEAST);
        assert_eq!(full, Intake::Full(Duration::from_secs(15)));
        assert_eq!(full.after(seen(5_000, true, 14), LEAST), full);
        assert_eq!(full.after(seen(5_000, true, 15), LEAST), Intake::Open, "the next commit says");
        assert_eq!(full.after(seen(850, true, 15), LEAST), Intake::Short);
        assert_eq!(Intake::Short.after(seen(5_000, true, 16), LEAST), Intake::Open);
    }
}
