//! Pure: who might still commit a row into a gap.
//!
//! A transaction that draws a key from a sequence locks the sequence (`ROW EXCLUSIVE`, from before the draw to the end of the
//! transaction), and one that writes a row locks the table in the same way. So whoever owns a key that was drawn holds
//! one of these locks, or has ended: then its row is visible to every later snapshot, because PostgreSQL makes a commit
//! visible before it releases the locks. `pg_locks` shows them to every role.
//!
//! This is sharper than `pg_snapshot_xmin`: transactions that never touch the table, however long they are, hold up
//! nothing; a key that was drawn before its transaction has an id is covered; and `pg_snapshot_xmax`, which is one past
//! the highest *ended* transaction, may lie below a transaction at work.
//!
//! Not covered are keys that are drawn in one transaction and used in another: [`LOOKS_MIN`] leaves some time for that,
//! and a sequence that caches keys in sessions has [`LOOKS_MIN_CACHED`].

use std::collections::HashMap;

use super::frontier::LookNumber;

/// How many looks, a second apart or more, a gap outlives at least.
pub(super) const LOOKS_MIN: LookNumber = 2;
/// The same where the sequence caches keys in sessions, which may use them much later: a quarter of an hour.
pub(super) const LOOKS_MIN_CACHED: LookNumber = 15 * 60;

/// A transaction that holds a lock.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Holder {
    /// Unique among all that hold locks: `virtualtransaction` of `pg_locks`.
    pub(super) transaction: String,
    /// It was prepared for a two-phase commit, and goes on under another name than before.
    pub(super) prepared: bool,
}

/// The transactions that hold a lock, and since which look.
#[derive(Debug)]
pub(super) struct Holders {
    since: HashMap<Holder, LookNumber>,
    look: LookNumber,
    looks_min: LookNumber,
}

impl Holders {
    /// Nobody has looked yet. Gaps outlive `looks_min` looks at least.
    pub(super) fn new(looks_min: LookNumber) -> Self {
        Self { since: HashMap::new(), look: 0, looks_min }
    }

    /// All who hold a lock now. Returns the number of this look, for the gaps seen before it.
    pub(super) fn look(&mut self, now: impl IntoIterator<Item = Holder>) -> LookNumber {
        self.look += 1;
        let before = std::mem::take(&mut self.since);
        let mut new = Vec::new();
        for holder in now {
            match before.get(&holder) {
                Some(since) => drop(self.since.insert(holder, *since)),
                None => new.push(holder),
            }
        }
        // One that was prepared since the last look stands for any of those that are gone.
        let gone = before.iter().filter(|(holder, _)| !holder.prepared && !self.since.contains_key(holder));
        let gone = gone.map(|(_, since)| *since).min().unwrap_or(self.look);
        for holder in new {
            let since = if holder.prepared { gone } else { self.look };
            self.since.insert(holder, since);
        }
        self.look
    }

    /// Gaps noted up to this look are settled.
    pub(super) fn settled(&self) -> LookNumber {
        let oldest = self.since.values().min().copied().unwrap_or(self.look + 1);
        (oldest - 1).min(self.look.saturating_sub(self.looks_min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(holders: &mut Holders, now: &[&str]) -> (LookNumber, LookNumber) {
        let now = now.iter().map(|name| Holder { transaction: (*name).into(), prepared: name.starts_with('-') });
        (holders.look(now), holders.settled())
    }

    #[test]
    fn a_gap_is_settled_once_all_who_held_a_lock_then_are_gone() {
        let mut holders = Holders::new(0);
        assert_eq!(look(&mut holders, &["3/1", "4/7"]), (1, 0));
        assert_eq!(look(&mut holders, &["3/1", "5/2"]), (2, 0));
        assert_eq!(look(&mut holders, &["5/2", "6/1"]), (3, 1), "5/2 may own what was seen before look 2");
        assert_eq!(look(&mut holders, &["6/1"]), (4, 2));
        assert_eq!(look(&mut holders, &["6/1"]), (5, 2));
        assert_eq!(look(&mut holders, &[]), (6, 6));
    }

    #[test]
    fn a_transaction_that_is_prepared_is_the_same_under_another_name() {
        let mut holders = Holders::new(0);
        assert_eq!(look(&mut holders, &["3/1"]), (1, 0));
        assert_eq!(look(&mut holders, &["-1/741"]), (2, 0), "it may be 3/1");
        assert_eq!(look(&mut holders, &["-1/741", "-1/742"]), (3, 0));
        assert_eq!(look(&mut holders, &["-1/742"]), (4, 2), "nobody was gone when it came");
        assert_eq!(look(&mut holders, &[]), (5, 5));
    }

    #[test]
    fn a_gap_outlives_some_looks() {
        let mut holders = Holders::new(2);
        assert_eq!(look(&mut holders, &[]), (1, 0));
        assert_eq!(look(&mut holders, &[]), (2, 0));
        assert_eq!(look(&mut holders, &[]), (3, 1));
    }
}
