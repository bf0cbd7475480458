//! Pure: for how long an endpoint has failed without a break, and when it last did what.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::store::EndpointHealth;

/// What an endpoint's attempts came to. Only time between attempts counts as failing: not that in which the host was
/// down, or the endpoint was paused or disabled. A wall clock that jumps changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    kept: EndpointHealth,
    /// The last failure, on the clock that never goes back; none where what is kept is of an earlier time.
    failed_at: Option<Duration>,
    is_changed: bool,
}

impl Health {
    /// Goes on from what the store keeps.
    pub fn restored(kept: EndpointHealth) -> Self {
        Self { kept, ..Self::default() }
    }

    /// What is to be kept.
    pub fn kept(&self) -> &EndpointHealth {
        &self.kept
    }

    /// The same, where it changed since this was asked last.
    pub fn take_changed(&mut self) -> Option<EndpointHealth> {
        std::mem::take(&mut self.is_changed).then(|| self.kept.clone())
    }

    /// It changed, whatever was taken: that could not be kept.
    pub fn mark_changed(&mut self) {
        self.is_changed = true;
    }

    /// An attempt succeeded.
    pub fn succeeded(&mut self, at: Timestamp) {
        self.kept.failing_for = Duration::ZERO;
        self.kept.last_success_at = Some(at);
        self.failed_at = None;
        self.is_changed = true;
    }

    /// An attempt failed. Returns for how long all have.
    pub fn failed(&mut self, at: Timestamp, now: Duration) -> Duration {
        let since_last = self.failed_at.map_or(Duration::ZERO, |before| now.saturating_sub(before));
        self.kept.failing_for = self.kept.failing_for.saturating_add(since_last);
        self.kept.last_failure_at = Some(at);
        self.failed_at = Some(now);
        self.is_changed = true;
        self.kept.failing_for
    }

    /// From here on there are no attempts for a while, which is not the endpoint's doing.
    pub fn interrupt(&mut self) {
        self.failed_at = None;
    }

    /// The operator says that it is mended.
    pub fn forgive(&mut self) {
        self.kept.failing_for = Duration::ZERO;
        self.failed_at = None;
        self.is_changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const WALL: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn failing_is_the_time_between_failures_without_a_success() {
        let mut health = Health::default();
        assert_eq!(health.failed(WALL, HOUR), Duration::ZERO);
        assert_eq!(health.failed(WALL, HOUR * 3), HOUR * 2);
        health.succeeded(WALL);
        assert_eq!(health.failed(WALL, HOUR * 9), Duration::ZERO);
        assert_eq!(health.failed(WALL, HOUR * 10), HOUR);
    }

    #[test]
    fn the_time_in_which_the_host_was_down_does_not_count() {
        let mut health = Health::default();
        health.failed(WALL, HOUR);
        health.failed(WALL, HOUR * 3);
        let mut restored = Health::restored(health.kept().clone());
        assert_eq!(restored.failed(WALL.plus(HOUR * 1000), Duration::ZERO), HOUR * 2);
        assert_eq!(restored.failed(WALL, HOUR), HOUR * 3);
        restored.interrupt();
        assert_eq!(restored.failed(WALL, HOUR * 500), HOUR * 3);
        restored.forgive();
        assert_eq!(restored.failed(WALL, HOUR * 501), Duration::ZERO);
    }

    #[test]
    fn what_changed_is_taken_once() {
        let mut health = Health::default();
        assert_eq!(health.take_changed(), None);
        health.succeeded(WALL);
        assert_eq!(health.take_changed().and_then(|kept| kept.last_success_at), Some(WALL));
        assert_eq!(health.take_changed(), None);
        health.mark_changed();
        assert!(health.take_changed().is_some());
    }
}
