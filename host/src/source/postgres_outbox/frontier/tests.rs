//! The frontier and the holders together against a database that does what databases do.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::source::postgres_outbox::cursor::{Cursor, TableIdentity};
use crate::source::postgres_outbox::holders::{Holder, Holders};

fn range(first: i64, last: i64) -> Range {
    Range { first, last }
}

fn ranges(frontier: &Frontier) -> Vec<(i64, i64)> {
    frontier.gaps().map(|(range, _)| (range.first, range.last)).collect()
}

#[test]
fn keys_that_no_snapshot_has_shown_are_gaps() {
    let mut frontier = Frontier::new(10, []);
    frontier.advance(&[11, 12, 15, 17]);
    assert_eq!((frontier.high(), ranges(&frontier)), (17, vec![(13, 14), (16, 16)]));
    assert!(frontier.fill(14) && !frontier.fill(14) && !frontier.fill(11));
    assert_eq!(ranges(&frontier), [(13, 13), (16, 16)]);
    let mut frontier = Frontier::start();
    frontier.advance(&[5]);
    assert_eq!((frontier.high(), ranges(&frontier)), (5, vec![(i64::MIN, 4)]));
}

#[test]
fn a_gap_is_forgotten_when_it_was_read_after_it_was_settled() {
    let mut frontier = Frontier::new(0, []);
    frontier.advance(&[3]);
    let gap = range(1, 2);
    assert_eq!(frontier.forget(&[gap], 9), 0, "nobody has looked");
    frontier.note(4, None);
    assert_eq!(frontier.forget(&[gap], 3), 0, "not settled");
    frontier.note(5, None);
    assert!(frontier.has_settled(4), "it was noted before");
    assert_eq!(frontier.forget(&[], 4), 0, "not read");
    assert_eq!(frontier.forget(&[gap], 4), 2);
    assert!(!frontier.has_gaps());
}

#[test]
fn keys_that_the_sequence_has_not_reached_stay_gaps() {
    let mut frontier = Frontier::new(0, []);
    frontier.advance(&[1_000]);
    frontier.note(1, Some(10));
    assert_eq!(ranges(&frontier), [(1, 10), (11, 999)]);
    assert_eq!(frontier.forget(&[range(1, 999)], 1), 10);
    assert_eq!(ranges(&frontier), [(11, 999)]);
}

#[test]
fn old_gaps_are_read_in_turn_and_new_ones_always() {
    let mut frontier = Frontier::new(0, []);
    frontier.advance(&(1..=10).map(|n| n * 2).collect::<Vec<_>>());
    let firsts = |frontier: &mut Frontier| frontier.next_gaps(4).iter().map(|range| range.first).collect::<Vec<_>>();
    assert_eq!(firsts(&mut frontier), [1, 3, 17, 19]);
    assert_eq!(firsts(&mut frontier), [5, 7, 17, 19]);
    assert_eq!(firsts(&mut frontier), [9, 11, 17, 19]);
    assert_eq!(firsts(&mut frontier), [1, 13, 15, 17, 19][1..].to_vec());
    assert_eq!(firsts(&mut frontier), [1, 3, 17, 19]);
    assert_eq!(frontier.next_gaps(100).len(), 10);
}

#[test]
fn gaps_are_bounded_and_none_is_lost_by_that() {
    let mut frontier = Frontier::new(0, []);
    let keys: Vec<_> = (1..=GAPS_MAX as i64 + 1).map(|n| n * 2).collect();
    frontier.advance(&keys);
    assert!(frontier.gaps().len() <= GAPS_AFTER_MERGE, "{}", frontier.gaps().len());
    let gaps: Vec<_> = frontier.gaps().collect();
    let covered = |key: i64| gaps.iter().any(|(range, _)| (range.first..=range.last).contains(&key));
    assert!((0..=GAPS_MAX as i64).step_by(97).all(|n| covered(n * 2 + 1)));
    assert!(gaps.iter().all(|(range, wide)| *wide == (range.first != range.last)));
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The transaction of a session draws a key, and begins where there is none.
    Draw(usize),
    Commit(usize),
    RollBack(usize),
    Prepare(usize),
    /// The first prepared transaction ends.
    EndPrepared {
        commit: bool,
    },
    Look,
    Read {
        ranges_max: usize,
        rows_max: usize,
    },
    /// The host is killed, or the server: looks count from the beginning, and the cursor is what was kept.
    Restart,
    Merge {
        gaps_max: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0usize..5;
    prop_oneof![
        8 => session.clone().prop_map(Step::Draw),
        5 => session.clone().prop_map(Step::Commit),
        3 => session.clone().prop_map(Step::RollBack),
        1 => session.prop_map(Step::Prepare),
        2 => any::<bool>().prop_map(|commit| Step::EndPrepared { commit }),
        5 => Just(Step::Look),
        8 => (1usize..4, 1usize..6).prop_map(|(ranges_max, rows_max)| Step::Read { ranges_max, rows_max }),
        1 => Just(Step::Restart),
        1 => (2usize..4).prop_map(|gaps_max| Step::Merge { gaps_max }),
    ]
}

/// A table with its sequence, its sessions, and a reader.
struct World {
    drawn: i64,
    visible: BTreeSet<i64>,
    /// The keys of each session's transaction.
    sessions: BTreeMap<usize, (String, Vec<i64>)>,
    prepared: Vec<(String, Vec<i64>)>,
    transactions: usize,
    cursor: Cursor,
    holders: Holders,
    merged: bool,
    /// How often each key was read.
    read: BTreeMap<i64, usize>,
}

impl World {
    fn new() -> Self {
        let cursor = Cursor {
            name: "t".to_owned(),
            generation: 0,
            table: TableIdentity::default(),
            frontier: Frontier::new(0, []),
        };
        Self {
            drawn: 0,
            visible: BTreeSet::new(),
            sessions: BTreeMap::new(),
            prepared: Vec::new(),
            transactions: 0,
            cursor,
            holders: Holders::new(0),
            merged: false,
            read: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Draw(session) => {
                self.transactions += 1;
                self.drawn += 1;
                let begun = || (format!("{session}/{}", self.transactions), Vec::new());
                self.sessions.entry(session).or_insert_with(begun).1.push(self.drawn);
            }
            Step::Commit(session) => {
                let keys = self.sessions.remove(&session).map(|(_, keys)| keys);
                self.visible.extend(keys.unwrap_or_default());
            }
            Step::RollBack(session) => drop(self.sessions.remove(&session)),
            Step::Prepare(session) => {
                self.transactions += 1;
                let keys = self.sessions.remove(&session).map(|(_, keys)| keys);
                self.prepared.extend(keys.map(|keys| (format!("-1/{}", self.transactions), keys)));
            }
            Step::EndPrepared { commit } => {
                if let Some((_, keys)) = (!self.prepared.is_empty()).then(|| self.prepared.remove(0))
                    && commit
                {
                    self.visible.extend(keys);
                }
            }
            Step::Look => self.look(),
            Step::Read { ranges_max, rows_max } => self.read(ranges_max, rows_max),
            Step::Restart => {
                self.cursor = Cursor::decode(&self.cursor.encode()).unwrap();
                self.holders = Holders::new(0);
            }
            Step::Merge { gaps_max } => {
                if self.cursor.frontier.gaps.len() > gaps_max {
                    self.merged = true;
                    self.cursor.frontier.merge(gaps_max);
                }
            }
        }
    }

    fn look(&mut self) {
        let holder = |prepared| {
            move |(transaction, _): &(String, Vec<i64>)| Holder { transaction: transaction.clone(), prepared }
        };
        let now = self.sessions.values().map(holder(false)).chain(self.prepared.iter().map(holder(true)));
        let look = self.holders.look(now.collect::<Vec<_>>());
        self.cursor.frontier.note(look, Some(self.drawn));
    }

    /// As the source does it: gaps first, then wide ones, then what is above.
    fn read(&mut self, ranges_max: usize, rows_max: usize) {
        let frontier = &mut self.cursor.frontier;
        let settled = self.holders.settled();
        let ranges = frontier.next_gaps(ranges_max);
        let within = ranges.iter().flat_map(|range| self.visible.range(range.first..=range.last));
        let found: Vec<_> = within.take(rows_max).copied().collect();
        for key in &found {
            assert!(frontier.fill(*key));
            *self.read.entry(*key).or_default() += 1;
        }
        if found.len() < rows_max {
            frontier.forget(&ranges, settled);
        }
        if let Some(range) = frontier.wide_to_read(settled) {
            let found: Vec<_> = self.visible.range(range.first..=range.last).take(rows_max).copied().collect();
            let through = if found.len() < rows_max { range.last } else { found[rows_max - 1] };
            frontier.wide_read(range, through);
            found.iter().for_each(|key| *self.read.entry(*key).or_default() += 1);
        }
        let found: Vec<_> = self.visible.range(frontier.above().first..).take(rows_max).copied().collect();
        frontier.advance(&found);
        found.iter().for_each(|key| *self.read.entry(*key).or_default() += 1);
    }

    /// Everybody comes to an end.
    fn settle(&mut self) {
        for session in 0..5 {
            self.step(Step::Commit(session));
        }
        while !self.prepared.is_empty() {
            self.step(Step::EndPrepared { commit: true });
        }
        for _ in 0..200 {
            self.look();
            self.read(4, 5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// However transactions commit, roll back and stay open, every row is read; and once, but for merged gaps.
    #[test]
    fn every_committed_row_is_read(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        let read: BTreeSet<_> = world.read.keys().copied().collect();
        prop_assert_eq!(&read, &world.visible);
        prop_assert!(!world.cursor.frontier.has_gaps(), "{:?}", ranges(&world.cursor.frontier));
        if !world.merged {
            prop_assert!(world.read.values().all(|times| *times == 1), "{:?}", world.read);
        }
    }
}
