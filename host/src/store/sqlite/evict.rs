//! The bound of dead letters in bytes: the oldest make room for those that come, in turn from whoever has most, so that no
//! source, plugin or endpoint pushes out what others keep.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use super::dead_letters::Letter;
use super::group::Group;
use super::state::{parse_kind, unsigned};
use crate::clock::passed::Passed;
use crate::metrics::LetterMetrics;
use crate::store::DeadLetterKind;

/// What a dead letter takes beside its content, in bytes: rows, names, entries of indexes. So their number has a bound too.
pub(super) const LETTER_BYTES: i64 = 512;

/// Dead letters looked at at once.
const EVICTED_CHUNK: i64 = 64;

/// What a step of a sweep makes room for, in bytes, where the bound is exceeded though nothing dies: it was lowered.
const SWEPT_BYTES: i64 = 4 * 1024 * 1024;

/// Says how much dead letters may keep. Shared with whoever watches the disk.
#[derive(Debug)]
pub(super) struct LetterBounds {
    /// `[retention] dead_max_bytes`
    pub(super) bytes_max: AtomicU64,
    /// What the disk has left beyond the least that is to be free, in bytes.
    pub(super) spare: AtomicU64,
    pub(super) metrics: Option<LetterMetrics>,
}

impl LetterBounds {
    pub(super) fn new(bytes_max: u64, metrics: Option<LetterMetrics>) -> Arc<Self> {
        Arc::new(Self { bytes_max: AtomicU64::new(bytes_max), spare: AtomicU64::new(u64::MAX), metrics })
    }
}

/// Whose a dead letter is: the source of a message, the plugin of a run, the endpoint of a delivery.
pub(super) type Holder = (DeadLetterKind, Arc<str>);

/// What dead letters keep, the changes of the group under way included. A group that fails takes this with it.
#[derive(Debug, Default)]
pub(super) struct Letters {
    held: HashMap<Holder, i64>,
    total: i64,
    /// What came in the group under way.
    added: i64,
    /// What made room in it, by kind.
    evicted: [u64; DeadLetterKind::ALL.len()],
}

impl Letters {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut letters = Self::default();
        let mut select = connection.prepare("SELECT state, name, count FROM tally WHERE kind = 'dead_letter_bytes'")?;
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            let (kind, bytes): (_, i64) = (parse_kind(row.get_ref(0)?.as_str()?)?, row.get(2)?);
            letters.total += bytes;
            letters.held.insert((kind, row.get(1)?), bytes);
        }
        Ok(letters)
    }

    pub(super) fn change(&mut self, holder: &Holder, bytes: i64) {
        self.total += bytes;
        self.added += bytes.max(0);
        match self.held.get_mut(holder) {
            Some(held) => *held += bytes,
            None => drop(self.held.insert(holder.clone(), bytes)),
        }
    }

    fn largest(&self) -> Option<Holder> {
        let largest = self.held.iter().filter(|(_, bytes)| **bytes > 0).max_by_key(|(_, bytes)| **bytes);
        largest.map(|(holder, _)| holder.clone())
    }
}

/// Pure: how many bytes are to go, of `total`, now that `added` have come. Beyond the settings' bound twice what came goes, so
/// that a bound that was lowered is met in the end. The disk's bound is half of what letters have and could have: it only keeps
/// them from growing, for what fills a disk is not always ours.
fn excess(total: i64, added: i64, bytes_max: u64, left_on_disk: u64) -> i64 {
    let bound = |max: u64| i64::try_from(max).unwrap_or(i64::MAX);
    let beyond = total.saturating_sub(bound(bytes_max)).min(added.saturating_mul(2));
    let share = bound(unsigned(total).saturating_add(left_on_disk) / 2);
    beyond.max(total.saturating_sub(share).min(added)).max(0)
}

impl Group<'_> {
    /// Has the oldest dead letters make room for what came in this group. At its end, when every state is written.
    pub(super) fn evict_letters(&mut self) -> rusqlite::Result<()> {
        if self.letters.added == 0 {
            return Ok(());
        }
        let bytes_max = self.letter_bounds.bytes_max.load(Ordering::Relaxed);
        let left = self.letter_bounds.spare.load(Ordering::Relaxed).saturating_add(self.unused_bytes()?);
        let excess = excess(self.letters.total, self.letters.added, bytes_max, left);
        let until = self.letters.total - excess;
        if excess > 0 {
            self.keep_sequences()?;
        }
        while self.letters.total > until
            && let Some(holder) = self.letters.largest()
        {
            let oldest = self.oldest_letters(&holder)?;
            if oldest.is_empty() {
                // The counts are of rows, so this is not met.
                self.letters.held.remove(&holder);
            }
            for letter in oldest {
                if self.letters.total > until {
                    self.evict(&letter)?;
                }
            }
        }
        Ok(())
    }

    /// Has some make room where the bound is exceeded, though none came. Returns whether it still is.
    pub(super) fn evict_some(&mut self) -> bool {
        let bytes_max = self.letter_bounds.bytes_max.load(Ordering::Relaxed);
        let is_over = unsigned(self.letters.total) > bytes_max;
        if is_over {
            self.letters.added += SWEPT_BYTES;
        }
        is_over && excess(self.letters.total, 2 * SWEPT_BYTES, bytes_max, u64::MAX) > 2 * SWEPT_BYTES
    }

    /// The group is durable: what made room is counted.
    pub(super) fn count_evicted(&mut self) {
        self.letters.added = 0;
        let evicted = std::mem::take(&mut self.letters.evicted);
        let Some(metrics) = &self.letter_bounds.metrics else { return };
        metrics.bytes.set(self.letters.total);
        for (counter, evicted) in metrics.evicted.iter().zip(evicted) {
            counter.inc_by(evicted);
        }
    }

    fn unused_bytes(&self) -> rusqlite::Result<u64> {
        let pragma = |name: &str| self.connection().pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok(unsigned(pragma("freelist_count")?.saturating_mul(pragma("page_size")?)))
    }

    fn oldest_letters(&self, (kind, name): &Holder) -> rusqlite::Result<Vec<Letter>> {
        let mut select = self.cached(&format!(
            "SELECT {} FROM dead_letter INDEXED BY dead_letter_by_holder
             WHERE kind = ?1 AND coalesce(endpoint, plugin, source) = ?2 ORDER BY id LIMIT {EVICTED_CHUNK}",
            Letter::COLUMNS
        ))?;
        select.query_map((kind.as_str(), name), Letter::at)?.collect()
    }

    /// It is gone, and with it its event where nothing else is to be done or kept of that.
    fn evict(&mut self, letter: &Letter) -> rusqlite::Result<()> {
        self.discard(letter)?;
        self.letters.evicted[letter.kind as usize] += 1;
        if let Some(event) = letter.event
            && let Some(run_count) = self.optional("SELECT run_count FROM event WHERE seq = ?1", [event])?
            && let Some(runs) = self.finished_runs(event, Passed(i64::MAX))?
        {
            self.delete_event(event, run_count, &runs)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_pushes_out_as_much_and_a_lowered_bound_is_met_in_the_end() {
        let check = |total, added, bytes_max, left, expected| {
            assert_eq!(excess(total, added, bytes_max, left), expected, "{total} with {added}, {bytes_max}, {left}");
        };
        check(100, 10, 100, u64::MAX, 0);
        check(110, 10, 100, u64::MAX, 10);
        check(500, 10, 100, u64::MAX, 20);
        check(500, 0, 100, u64::MAX, 0);
        check(i64::MAX, 0, u64::MAX, 0, 0);
        // Half of the disk's room is for others.
        check(100, 10, 1_000, 100, 0);
        check(104, 10, 1_000, 96, 4);
        check(500, 10, 1_000, 0, 10);
        check(500, 0, 1_000, 0, 0);
    }
}
