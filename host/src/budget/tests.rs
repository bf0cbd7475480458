use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;

fn used(budget: &Budget) -> usize {
    Kind::ALL.map(|kind| budget.usage(kind).used).iter().sum()
}

/// Takes pieces of `bytes` until it is denied. Returns what it holds.
fn take_all(account: &Account, bytes: usize) -> usize {
    while account.try_take(bytes) {}
    account.held()
}

#[test]
fn a_kind_leaves_the_others_what_is_theirs() {
    let budget = Budget::new(64 * MIB);
    let own = 64 * MIB / OWN_PARTS;
    let deliveries: Vec<_> = (0..64).map(|_| budget.account(Kind::Deliveries)).collect();
    deliveries.iter().for_each(|account| {
        take_all(account, SMALL_BYTES_MAX);
    });
    assert!(used(&budget) <= 64 * MIB - 3 * own, "{}", used(&budget));
    for kind in [Kind::Intake, Kind::Runs, Kind::Results] {
        assert!(budget.account(kind).has_room(own - 64 * MIB / SMALL_PARTS), "{kind:?}");
    }
}

#[test]
fn of_those_that_take_all_they_can_get_each_holds_an_equal_part_and_one_is_left() {
    for floods in 1..10 {
        let budget = Budget::new(64 * MIB);
        let all = budget.room(Kind::Runs);
        let accounts: Vec<_> = (0..floods).map(|_| budget.account(Kind::Runs)).collect();
        // In turn, as what floods comes in turn.
        while accounts.iter().filter(|account| account.try_take(1024)).count() > 0 {}
        let fair = all / (floods + 1);
        for account in &accounts {
            let held = account.held();
            assert!(held.abs_diff(fair) <= 64 * 1024, "{floods} floods: {held} of {fair}");
        }
        let late = budget.account(Kind::Runs);
        assert!(late.try_take(fair / 2), "{floods} floods leave room for whoever comes");
    }
}

#[test]
fn one_piece_that_is_larger_than_everything_is_let_in_alone() {
    let budget = Budget::new(MIB);
    let (one, other) = (budget.account(Kind::Results), budget.account(Kind::Results));
    assert_eq!(one.reserve(4 * MIB, 4 * MIB), Some(4 * MIB));
    assert_eq!(other.reserve(1, 1), None);
    assert_eq!(one.reserve(1, 1), None);
    assert!(budget.account(Kind::Intake).try_take(MIB), "and so is the first of each other kind");
    one.give(4 * MIB);
    assert_eq!(other.reserve(4 * MIB, 4 * MIB), Some(4 * MIB));
    assert_eq!(budget.usage(Kind::Results).waits, 2);
}

#[test]
fn small_pieces_need_not_wait_behind_large_ones() {
    let budget = Budget::new(64 * MIB);
    let large: Vec<_> = (0..100).map(|_| budget.account(Kind::Deliveries)).collect();
    let served = large.iter().filter(|account| account.reserve(MIB, MIB).is_some()).count();
    assert!((30..100).contains(&served), "{served} of 100");
    budget.set_starved(Kind::Deliveries, true);
    let small = budget.account(Kind::Deliveries);
    assert!(small.try_take(1024));
    assert!(!small.try_take(1024), "more than one piece of its own waits for those that have none");
    budget.set_starved(Kind::Deliveries, false);
    assert!(small.try_take(1024));
}

#[tokio::test]
async fn whoever_was_denied_is_told_of_room() {
    let budget = Budget::new(MIB);
    let (intake, runs) = (budget.account(Kind::Intake), budget.account(Kind::Runs));
    intake.take_anyway(2 * MIB);
    runs.take_anyway(1);
    assert!(!runs.try_take(1024));
    intake.give(2 * MIB);
    budget.freed(Kind::Runs).notified().await;
    assert!(runs.try_take(1024));
}

#[test]
fn a_permit_gives_back_what_it_came_to_hold() {
    let budget = Budget::new(MIB);
    let account = budget.account(Kind::Results);
    assert!(account.try_take(1000));
    let mut permit = Permit::of_taken(Arc::clone(&account), 1000);
    permit.true_up(10);
    assert_eq!(account.held(), 10);
    permit.true_up(20);
    assert!(permit.widen(1000) && !permit.widen(2 * MIB) && permit.widen(5));
    assert_eq!((account.held(), used(&budget)), (1000, 1000));
    drop(permit);
    assert_eq!((account.held(), used(&budget)), (0, 0));
}

/// Threads that take and give together stay within the budget, and leave nothing behind.
#[test]
fn threads_share_it() {
    let budget = Budget::new(4 * MIB);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let budget = &budget;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let accounts = Kind::ALL.map(|kind| budget.account(kind));
                let mut held = VecDeque::new();
                for _ in 0..20_000 {
                    let account = &accounts[rng.usize(..accounts.len())];
                    let bytes = rng.usize(1..8 * 1024);
                    if account.reserve(bytes, bytes).is_some() {
                        held.push_back(Permit::of_taken(Arc::clone(account), bytes));
                    }
                    if held.len() > 64 || rng.bool() {
                        held.pop_front();
                    }
                    // What threads take at the same moment as the first of a kind may come on top.
                    assert!(used(budget) <= 4 * MIB + 16 * 8 * 1024);
                }
            });
        }
    });
    assert_eq!(used(&budget), 0);
}

/// The path with its queues, driven by chance: sources with batches, plugins, endpoints, and a store that holds the rest.
struct Path {
    budget: Arc<Budget>,
    accounts: Vec<[Arc<Account>; 4]>,
    /// By kind, what is in memory: whose, and its bytes.
    held: [Vec<(usize, usize)>; 4],
    /// Pieces that wait outside: at the bus, and unclaimed in the store for each kind of queue.
    outside: [VecDeque<(usize, usize)>; 4],
    done: usize,
}

impl Path {
    fn new(bytes_max: usize, pieces: &[(usize, usize)]) -> Self {
        let budget = Budget::new(bytes_max);
        let keys = 1 + pieces.iter().map(|(key, _)| *key).max().unwrap_or(0);
        let accounts = (0..keys).map(|_| Kind::ALL.map(|kind| budget.account(kind))).collect();
        let mut outside: [VecDeque<_>; 4] = Default::default();
        outside[0] = pieces.iter().copied().collect();
        Self { budget, accounts, held: Default::default(), outside, done: 0 }
    }

    /// Lets the first of `kind` that waits outside into memory, where there is room.
    fn enter(&mut self, kind: usize) -> bool {
        let Some((key, bytes)) = self.outside[kind].front().copied() else { return false };
        if self.accounts[key][kind].reserve(bytes, bytes).is_none() {
            self.outside[kind].rotate_left(1);
            return false;
        }
        self.outside[kind].pop_front();
        self.held[kind].push((key, bytes));
        true
    }

    /// The oldest of `kind` in memory is done there, and goes on to the next kind: offered, or left to the store.
    fn leave(&mut self, kind: usize) -> bool {
        if self.held[kind].is_empty() {
            return false;
        }
        // A run leaves for its result only where that has room; whatever else goes on needs none.
        let (key, bytes) = self.held[kind][0];
        if kind == 1 && self.accounts[key][2].reserve(bytes, bytes).is_none() {
            return false;
        }
        self.held[kind].remove(0);
        match kind {
            1 => self.held[2].push((key, bytes)),
            3 => self.done += 1,
            _ if self.accounts[key][kind + 1].try_take(bytes) => self.held[kind + 1].push((key, bytes)),
            _ => self.outside[kind + 1].push_back((key, bytes)),
        }
        self.accounts[key][kind].give(bytes);
        true
    }
}

proptest! {
    /// However the load comes and goes, memory stays within the budget but for one piece of each kind, everything gets
    /// through, and nothing is left counted.
    #[test]
    fn a_path_within_its_budget_never_stands_still(
        pieces in prop::collection::vec((0usize..6, 1usize..400_000), 1..120),
        bytes_max in 100_000usize..2_000_000,
        steps in prop::collection::vec((any::<bool>(), 0usize..4), 0..400),
    ) {
        let mut path = Path::new(bytes_max, &pieces);
        let largest = pieces.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let within = |path: &Path| used(&path.budget) <= bytes_max + Kind::ALL.len() * largest;
        for (enters, kind) in steps {
            if enters && kind != 2 { path.enter(kind) } else { path.leave(kind) };
            prop_assert!(within(&path));
        }
        // From here on everybody does what they can, in any order that gives each a turn.
        while path.done < pieces.len() {
            let mut moved = false;
            for kind in [3, 2, 1, 0] {
                moved |= path.leave(kind);
                prop_assert!(within(&path));
            }
            for kind in [0, 1, 3] {
                for _ in 0..path.outside[kind].len() {
                    moved |= path.enter(kind);
                }
            }
            prop_assert!(moved, "it stands still with {} of {} done", path.done, pieces.len());
        }
        prop_assert_eq!(used(&path.budget), 0);
    }
}
