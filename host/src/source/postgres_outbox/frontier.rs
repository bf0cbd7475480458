//! Pure: which keys of the table have been read, which may still come, and which never will.
//!
//! Keys are drawn from a sequence in order, and become visible in the order of commits. Everything up to the *high* key
//! is read, but for the *gaps*: keys below it that no snapshot has shown. A gap is a row that is still to be committed,
//! or one that never will be. It is read again and again until it is *settled*, that is, until nobody is left who could
//! own it (see [`super::holders`]); what one more read does not show then is forgotten.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Most gaps. Above it, neighbours are merged, see [`Gap::wide`].
pub(super) const GAPS_MAX: usize = 16 * 1024;
/// What is left after neighbours were merged, so that it is not done for every row.
const GAPS_AFTER_MERGE: usize = GAPS_MAX / 4 * 3;

/// A number of a look at who might own gaps; they count up within one session.
pub(super) type LookNumber = u64;

/// Keys from the first to the last, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// How far a table has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frontier {
    /// Everything up to here has been read, gaps aside; the smallest `i64` where nothing has.
    high: i64,
    /// By their first key. They neither overlap nor touch each other, and lie below `high` or end with it.
    gaps: BTreeMap<i64, Gap>,
    /// Where the next round through the older gaps goes on.
    round: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gap {
    last: i64,
    /// The first look that came after the gap was seen.
    noted: Option<LookNumber>,
    /// It was merged from several, so that keys within have been read: it is read once, when it is settled, and what was
    /// accepted before is a duplicate then.
    wide: bool,
}

impl Frontier {
    /// Everything up to `high` counts as read, but for `gaps`: `(range, wide)`, ascending and apart from each other.
    pub(super) fn new(high: i64, gaps: impl IntoIterator<Item = (Range, bool)>) -> Self {
        let gaps = gaps.into_iter().filter(|(range, _)| range.first <= range.last);
        let gaps = gaps.map(|(range, wide)| (range.first, Gap { last: range.last, noted: None, wide })).collect();
        let mut frontier = Self { high, gaps, round: i64::MIN };
        frontier.bound();
        frontier
    }

    /// The high key where nothing has been read.
    pub(super) const NOTHING: i64 = i64::MIN;

    /// Nothing has been read.
    pub(super) fn start() -> Self {
        Self::new(Self::NOTHING, [])
    }

    pub(super) fn high(&self) -> i64 {
        self.high
    }

    /// The keys that have never been read.
    pub(super) fn above(&self) -> Range {
        Range { first: self.high.saturating_add((self.high != Self::NOTHING).into()), last: i64::MAX }
    }

    /// The gaps, ascending, and whether they are wide.
    pub(super) fn gaps(&self) -> impl ExactSizeIterator<Item = (Range, bool)> {
        self.gaps.iter().map(|(first, gap)| (Range { first: *first, last: gap.last }, gap.wide))
    }

    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Rows were read above the high key: `keys` and no other up to the last of them. Ascending.
    pub(super) fn advance(&mut self, keys: &[i64]) {
        for key in keys.iter().copied() {
            let first = self.above().first;
            if first < key {
                self.gaps.insert(first, Gap { last: key - 1, noted: None, wide: false });
            }
            self.high = self.high.max(key);
        }
        self.bound();
    }

    /// The row of `key` has been read. `false` where the key was no gap.
    pub(super) fn fill(&mut self, key: i64) -> bool {
        let Some((first, gap)) = self.gap_of(key) else { return false };
        self.gaps.remove(&first);
        if first < key {
            self.gaps.insert(first, Gap { last: key - 1, ..gap });
        }
        if key < gap.last {
            self.gaps.insert(key + 1, gap);
        }
        true
    }

    /// A look has come after everything that has been read. Keys above `drawn` were put there by hand and say nothing about
    /// those between: the sequence has yet to come there. Without a sequence that can be read, every key counts as drawn.
    pub(super) fn note(&mut self, look: LookNumber, drawn: Option<i64>) {
        let drawn = drawn.unwrap_or(i64::MAX);
        let unnoted = self.gaps.iter().filter(|(first, gap)| gap.noted.is_none() && **first <= drawn);
        let unnoted: Vec<_> = unnoted.map(|(first, gap)| (*first, *gap)).collect();
        for (first, gap) in unnoted {
            self.gaps.insert(first, Gap { last: gap.last.min(drawn), noted: Some(look), ..gap });
            if drawn < gap.last {
                self.gaps.insert(drawn + 1, gap);
            }
        }
    }

    /// Looks of another session mean nothing: every gap has to be noted again.
    pub(super) fn forget_looks(&mut self) {
        self.gaps.values_mut().for_each(|gap| gap.noted = None);
    }

    /// Gaps worth a read now, at most `ranges_max`, ascending: the newest half of them at every call, because that is where
    /// rows come, and the others in turn.
    pub(super) fn next_gaps(&mut self, ranges_max: usize) -> Vec<Range> {
        let narrow = |(first, gap): (&i64, &Gap)| (!gap.wide).then_some(Range { first: *first, last: gap.last });
        let mut ranges: Vec<_> = self.gaps.iter().rev().filter_map(narrow).take(ranges_max.div_ceil(2)).collect();
        let newest = ranges.last().map_or(i64::MIN, |range| range.first);
        let older = |from: i64, to: i64| self.gaps.range(from..to.max(from)).filter_map(narrow);
        let room = ranges_max - ranges.len();
        let mut in_turn: Vec<_> = older(self.round.min(newest), newest).take(room).collect();
        if in_turn.len() < room {
            let again = room - in_turn.len();
            in_turn.extend(older(i64::MIN, self.round.min(newest)).take(again));
        }
        self.round = in_turn.last().map_or(i64::MIN, |range| range.last.saturating_add(1));
        ranges.extend(in_turn);
        ranges.sort_by_key(|range| range.first);
        ranges
    }

    /// `ranges` were read after a look that had settled every gap noted up to `settled`; what was found is filled already. What
    /// of them is still a gap, and settled, will never come. Returns how many keys that are.
    pub(super) fn forget(&mut self, ranges: &[Range], settled: LookNumber) -> u64 {
        let mut keys = 0u64;
        for range in ranges {
            let within: Vec<_> = self.gaps.range(range.first..=range.last).map(|(first, gap)| (*first, *gap)).collect();
            for (first, gap) in within {
                if gap.noted.is_some_and(|noted| noted <= settled) && !gap.wide {
                    self.gaps.remove(&first);
                    keys = keys.saturating_add(gap.last.abs_diff(first).saturating_add(1));
                }
            }
        }
        keys
    }

    /// The first wide gap that is settled: to be read in ascending order.
    pub(super) fn wide_to_read(&self, settled: LookNumber) -> Option<Range> {
        let ready = |gap: &Gap| gap.wide && gap.noted.is_some_and(|noted| noted <= settled);
        self.gaps.iter().find(|(_, gap)| ready(gap)).map(|(first, gap)| Range { first: *first, last: gap.last })
    }

    /// A settled wide gap was read in ascending order, up to `through`.
    pub(super) fn wide_read(&mut self, range: Range, through: i64) {
        if let Some(gap) = self.gaps.remove(&range.first)
            && through < gap.last
        {
            self.gaps.insert(through + 1, gap);
        }
    }

    /// Whether a read can forget or find something at once, so that waiting is in vain.
    pub(super) fn has_settled(&self, settled: LookNumber) -> bool {
        self.gaps.values().any(|gap| gap.noted.is_some_and(|noted| noted <= settled))
    }

    /// The sequence went back to `drawn`: keys above will be drawn anew.
    pub(super) fn step_back(&mut self, drawn: i64) {
        if drawn >= self.high {
            return;
        }
        self.high = drawn;
        self.gaps.split_off(&drawn.saturating_add(1));
        if let Some(mut last) = self.gaps.last_entry() {
            let gap = last.get_mut();
            gap.last = gap.last.min(drawn);
        }
    }

    fn gap_of(&self, key: i64) -> Option<(i64, Gap)> {
        let (first, gap) = self.gaps.range((Bound::Unbounded, Bound::Included(key))).next_back()?;
        (key <= gap.last).then_some((*first, *gap))
    }

    fn bound(&mut self) {
        if self.gaps.len() > GAPS_MAX {
            self.merge(GAPS_AFTER_MERGE);
        }
    }

    /// Merges the neighbours that are nearest to each other, until `gaps_max` are left.
    fn merge(&mut self, gaps_max: usize) {
        let mut distances: Vec<u64> = self.gaps.values().zip(self.gaps.keys().skip(1)).map(distance).collect();
        let excess = self.gaps.len() - gaps_max;
        let (_, nearest, _) = distances.select_nth_unstable(excess - 1);
        let mut left = excess;
        let mut merged: BTreeMap<i64, Gap> = BTreeMap::new();
        for (first, gap) in std::mem::take(&mut self.gaps) {
            match merged.last_entry() {
                Some(mut before) if left > 0 && distance((before.get(), &first)) <= *nearest => {
                    left -= 1;
                    let before = before.get_mut();
                    // One that nobody has noted makes the whole one that has to be noted.
                    let noted = before.noted.zip(gap.noted).map(|(one, other)| one.max(other));
                    *before = Gap { last: gap.last, noted, wide: true };
                }
                _ => {
                    merged.insert(first, gap);
                }
            }
        }
        self.gaps = merged;
    }
}

fn distance((gap, next): (&Gap, &i64)) -> u64 {
    next.abs_diff(gap.last)
}

#[cfg(test)]
mod tests;
