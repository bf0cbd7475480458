//! A queue's bytes: what it may hold of the process's budget, and whose turn it is to claim more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::budget::{Account, Budget, Kind, SMALL_BYTES_MAX};
use crate::store::ClaimRoom;

/// The most that one claim brings, in bytes, unless one piece alone has more.
pub const CLAIM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One queue's account.
#[derive(Debug)]
pub struct Quota {
    account: Arc<Account>,
    /// What the next piece in the store has, as far as that is known: the first that a claim had no room for, else as much
    /// as the last one that it brought.
    needs: AtomicUsize,
    /// When it was served last, in turns.
    served_at: AtomicU64,
}

impl Quota {
    /// One that holds nothing.
    pub fn new(budget: &Arc<Budget>, kind: Kind) -> Self {
        Self { account: budget.account(kind), needs: AtomicUsize::new(0), served_at: AtomicU64::new(0) }
    }

    /// Takes `bytes` for a piece that was offered, where there is room.
    pub fn try_take(&self, bytes: usize) -> bool {
        self.account.try_take(bytes)
    }

    /// Gives back what left the memory.
    pub fn give(&self, bytes: usize) {
        self.account.give(bytes);
    }

    /// Counts a piece that takes the place of what has just left.
    pub fn follow(&self, bytes: usize) {
        self.account.take_anyway(bytes);
    }

    /// A claim for which `reserved` bytes were taken brought `pieces` of so many bytes, or none because the first one
    /// `needs` more; 0 where it does not.
    pub fn claimed(&self, reserved: usize, pieces: impl Iterator<Item = usize>, needs: usize) {
        let (mut bytes, mut last) = (0, needs);
        for piece in pieces {
            (bytes, last) = (bytes + piece, piece);
        }
        self.needs.store(last, Ordering::Relaxed);
        self.account.true_up(reserved, bytes);
    }

    /// Takes room for a claim: `share` at most, but for a first piece that has more.
    fn reserve(&self, share: usize) -> Option<usize> {
        let least = self.needs.load(Ordering::Relaxed).max(SMALL_BYTES_MAX);
        self.account.reserve(least, share.min(CLAIM_BYTES_MAX).max(least))
    }
}

/// A queue that wants to claim.
#[derive(Debug)]
pub struct Asking<'q> {
    /// Its name.
    pub name: Arc<str>,
    /// The pieces that it has room for.
    pub count: usize,
    /// Its account.
    pub quota: &'q Quota,
}

/// What queues were given.
#[derive(Debug, Default)]
pub struct Shares {
    /// By name, what each may claim.
    pub given: Vec<(Arc<str>, ClaimRoom)>,
    /// Those that must wait until something is given back.
    pub denied: Vec<Arc<str>>,
}

/// Shares out what `kind` has left among queues that want to claim: first to those that hold nothing, and of those to the
/// one that was served longest ago. While one of those gets too little for its first piece, only small pieces pass it.
pub fn share_out(budget: &Budget, kind: Kind, mut asking: Vec<Asking<'_>>) -> Shares {
    let mut shares = Shares::default();
    if asking.is_empty() {
        budget.set_starved(kind, false);
        return shares;
    }
    let share = budget.room(kind) / asking.len();
    asking.sort_by_key(|asking| (asking.quota.account.held() > 0, asking.quota.served_at.load(Ordering::Relaxed)));
    let turn = 1 + asking.iter().map(|asking| asking.quota.served_at.load(Ordering::Relaxed)).max().unwrap_or(0);
    let mut starved = false;
    for Asking { name, count, quota } in asking {
        let holds = quota.account.held() > 0;
        let passes = !starved || (!holds && quota.needs.load(Ordering::Relaxed) <= SMALL_BYTES_MAX);
        let most = if starved { 0 } else { share };
        match if passes { quota.reserve(most) } else { None } {
            Some(bytes) => {
                quota.served_at.store(turn, Ordering::Relaxed);
                shares.given.push((name, ClaimRoom { count, bytes }));
            }
            None => {
                starved |= !holds;
                shares.denied.push(name);
            }
        }
    }
    budget.set_starved(kind, starved);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn quotas(budget: &Arc<Budget>, count: usize) -> Vec<Quota> {
        (0..count).map(|_| Quota::new(budget, Kind::Deliveries)).collect()
    }

    fn share(budget: &Budget, quotas: &[Quota], wanting: impl IntoIterator<Item = usize>) -> Shares {
        let asking = wanting.into_iter().map(|index| {
            let name = index.to_string().into();
            Asking { name, count: 9, quota: &quotas[index] }
        });
        share_out(budget, Kind::Deliveries, asking.collect())
    }

    fn given(shares: &Shares) -> Vec<(usize, usize)> {
        shares.given.iter().map(|(name, room)| (name.parse().unwrap(), room.bytes)).collect()
    }

    #[test]
    fn what_there_is_goes_to_all_alike() {
        let budget = Budget::new(64 * MIB);
        let quotas = quotas(&budget, 8);
        let room = budget.room(Kind::Deliveries);
        let shares = share(&budget, &quotas, 0..8);
        assert_eq!(given(&shares), (0..8).map(|index| (index, room / 8)).collect::<Vec<_>>());
        assert!(shares.denied.is_empty());
    }

    #[test]
    fn large_pieces_are_claimed_in_turn_and_small_ones_pass() {
        let budget = Budget::new(16 * MIB);
        let quotas = quotas(&budget, 12);
        (0..11).for_each(|index| quotas[index].claimed(0, std::iter::empty(), MIB));
        let shares = share(&budget, &quotas, 0..12);
        let (served, denied) = (given(&shares), shares.denied.clone());
        assert_eq!(served.iter().filter(|(_, bytes)| *bytes == MIB).count(), 9, "a part is left for small pieces");
        assert!(served.contains(&(11, SMALL_BYTES_MAX)), "a small piece passes: {served:?}");
        assert_eq!(denied.len(), 2);
        assert!(!quotas[0].try_take(SMALL_BYTES_MAX), "whoever holds something waits");
        quotas[0].give(MIB);
        let shares = share(&budget, &quotas, [0, 9, 10]);
        assert_eq!(given(&shares), [(9, MIB)], "those that got nothing come first");
    }

    #[test]
    fn a_piece_larger_than_the_budget_makes_progress_alone() {
        let budget = Budget::new(MIB);
        let quotas = quotas(&budget, 2);
        quotas.iter().for_each(|quota| quota.claimed(0, std::iter::empty(), 4 * MIB));
        assert_eq!(given(&share(&budget, &quotas, [0, 1])), [(0, 4 * MIB)]);
        assert_eq!(given(&share(&budget, &quotas, [1])), []);
        quotas[0].give(4 * MIB);
        assert_eq!(given(&share(&budget, &quotas, [0, 1])), [(1, 4 * MIB)]);
    }
}
