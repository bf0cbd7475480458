//! How often the table is read.

use std::time::Duration;

/// Between two reads at least, where the first has found all there was: a busy table is read in batches, so that reading
/// costs the server little, and nobody waits for longer than this.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Between two reads at most: nobody wakes the source where the channel is silent.
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Pauses that double while nothing comes.
#[derive(Debug)]
pub(super) struct Pace {
    next: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// The pause after a read. Its first [`PAUSE_MIN`] are not to be cut short.
    pub(super) fn after(&mut self, found_rows: bool) -> Duration {
        if found_rows {
            self.next = PAUSE_MIN;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_while_nothing_comes() {
        let mut pace = Pace::new();
        let pauses = [false, false, false, false, false, false, true, false].map(|found| pace.after(found).as_millis());
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500, 50, 100]);
    }
}
