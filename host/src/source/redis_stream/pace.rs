//! How many entries to ask for at once: Redis bounds a reply by their number, and memory is bounded by their bytes. Pure.

use super::super::{BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MAX};

/// Bytes of entries that a reply should have.
const REPLY_BYTES: usize = BYTES_IN_FLIGHT_MAX / BATCHES_IN_FLIGHT_MAX;
/// Entries asked for as long as nothing is known of them.
const FIRST: usize = 16;

/// Follows the size of entries: as many as fit at the size of the last ones, at most twice as many as before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    entries: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { entries: FIRST }
    }

    /// How many entries of each of `streams` to ask for.
    pub(super) fn count(self, streams: usize) -> usize {
        (self.entries / streams.max(1)).max(1)
    }

    /// Notes a reply of so many entries with so many bytes.
    pub(super) fn note(&mut self, entries: usize, bytes: usize) {
        if entries == 0 {
            return;
        }
        let fit = REPLY_BYTES / (bytes / entries).max(1);
        self.entries = fit.min(self.entries * 2).clamp(1, BATCH_MESSAGES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_entries_come_many_at_once_and_large_ones_few() {
        let mut pace = Pace::new();
        (0..5).for_each(|_| pace.note(10, 1000));
        assert_eq!((pace.count(1), pace.count(3), pace.count(1000)), (256, 85, 1));
        pace.note(2, 2 << 20);
        assert_eq!(pace.count(1), 4);
        pace.note(4, 400 << 20);
        assert_eq!(pace.count(1), 1);
        pace.note(0, 0);
        pace.note(1, 10);
        assert_eq!(pace.count(1), 2);
    }

    proptest! {
        #[test]
        fn a_reply_of_entries_like_the_last_ones_is_within_bounds(size in 1usize..100 << 20, replies in 1usize..20) {
            let mut pace = Pace::new();
            for _ in 0..replies {
                let entries = pace.count(1);
                pace.note(entries, entries * size);
            }
            prop_assert!((1..=BATCH_MESSAGES_MAX).contains(&pace.count(1)));
            prop_assert!(pace.count(1) * size <= REPLY_BYTES.max(size));
        }
    }
}
