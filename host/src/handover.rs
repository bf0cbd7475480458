//! How work passes from the store's commit to the memory of a queue, and what happens when the memory is full.
//!
//! A queue (a plugin's runs, a lane's deliveries) is in one of two modes. *Direct*: what is committed is already
//! claimed and handed over in memory, and never read back from disk. *Spilled*: the store holds due work that is not
//! in memory; new work joins it there unclaimed, and the queue claims from the store as it gets room. A queue spills
//! when it is full or when the [`Pressure`] it causes holds up everybody else; it is direct again once a claim has
//! found the store empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::budget::Budget;
use crate::clock::Timestamp;
use crate::store::Claim;

pub mod quota;
pub mod refill;

/// Pure: the state of one queue's handover. Every change is a function of the state and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    capacity: usize,
    in_memory: usize,
    pressing: usize,
    spilled: bool,
    claiming: bool,
    next_due: Option<Timestamp>,
}

impl Handover {
    /// A queue that holds work of at most `capacity` weight in memory; see [`weight`]. It begins spilled: nobody has looked yet what
    /// the store holds from before.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, in_memory: 0, pressing: 0, spilled: true, claiming: false, next_due: None }
    }

    /// Decides, before the commit, who will hold one new piece of work. `Here` takes its place in memory at once.
    pub fn offer(&mut self, weight: usize) -> Claim {
        if self.spilled || self.claiming || self.in_memory + weight > self.capacity {
            self.spilled = true;
            return Claim::Open;
        }
        self.in_memory += weight;
        self.pressing += weight;
        Claim::Here
    }

    /// What was offered, and taken, has no room in bytes after all: it is left to the store. Returns by how much the
    /// pressure falls.
    pub fn decline(&mut self, weight: usize) -> usize {
        self.spilled = true;
        self.left(weight)
    }

    /// The claim that was wanted can't be made before there is room in bytes.
    pub fn denied(&mut self) {
        self.claiming = false;
        self.spilled = true;
    }

    /// Work left unclaimed has been committed: the store holds some now, whatever a claim saw in between.
    pub fn spilled(&mut self) {
        self.spilled = true;
    }

    /// One piece of work left the memory: done, or given up. Returns by how much the pressure falls.
    pub fn left(&mut self, weight: usize) -> usize {
        self.in_memory = self.in_memory.saturating_sub(weight);
        let relief = weight.min(self.pressing);
        self.pressing -= relief;
        relief
    }

    /// Work in the store falls due at `due_at`.
    pub fn due(&mut self, due_at: Timestamp) {
        self.next_due = Some(self.next_due.map_or(due_at, |known| known.min(due_at)));
    }

    /// Stops taking work directly, so that this queue holds up nobody. Returns by how much the pressure falls.
    pub fn shed(&mut self) -> usize {
        self.spilled = true;
        std::mem::take(&mut self.pressing)
    }

    /// How many pieces of work to claim now at most; marks the claim as under way. `None`: nothing to do, or no room yet.
    ///
    /// Waits for half of the memory to be free, so that a claim is worth its commit.
    pub fn wants(&mut self, now: Timestamp) -> Option<usize> {
        if self.next_due.is_some_and(|due_at| due_at <= now) {
            self.next_due = None;
            self.spilled = true;
        }
        let room = self.capacity.saturating_sub(self.in_memory);
        if !self.spilled || self.claiming || room < self.capacity.div_ceil(2) {
            return None;
        }
        self.claiming = true;
        // What spills from here on may come after this claim has looked.
        self.spilled = false;
        Some(room)
    }

    /// A claim brought work of `weight`; `next_due` is the earliest that remains in the store. One that is due already
    /// means that the claim was cut short.
    pub fn claimed(&mut self, weight: usize, next_due: Option<Timestamp>, now: Timestamp) {
        self.claiming = false;
        self.in_memory += weight;
        match next_due {
            Some(due_at) if due_at <= now => self.spilled = true,
            Some(due_at) => self.due(due_at),
            None => {}
        }
    }

    /// Work came that was neither offered nor claimed: it follows something that has just left, and takes its place.
    pub fn follows(&mut self, weight: usize) {
        self.in_memory += weight;
    }

    /// A claim failed; it is tried again at `retry_at`.
    pub fn claim_failed(&mut self, retry_at: Timestamp) {
        self.claiming = false;
        self.due(retry_at);
    }

    /// When [`Self::wants`] is worth asking again although nothing else happens.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.next_due
    }

    /// Whether [`Self::wants`] may want something as soon as there is room.
    pub fn is_spilled(&self) -> bool {
        self.spilled
    }

    /// The weight of the work in memory. A claim may bring it above the capacity by what one claim may bring.
    pub fn in_memory(&self) -> usize {
        self.in_memory
    }

    /// The weight of the work in memory that counts as pressure.
    pub fn pressing(&self) -> usize {
        self.pressing
    }
}

/// How much of a queue's memory one piece of work takes: 1, and 1 more for each [`WEIGHT_BYTES`] of its content.
pub fn weight(content_bytes: usize) -> usize {
    1 + content_bytes / WEIGHT_BYTES
}

/// Content that weighs as much as a piece of work without any.
pub const WEIGHT_BYTES: usize = 16 * 1024;

/// The weight of work in the memory of all direct queues together: what intake waits for. And what all queues draw from.
#[derive(Debug)]
pub struct Pressure {
    budget: Arc<Budget>,
    weight: AtomicUsize,
    weight_max: usize,
    relieved: Notify,
}

/// How long intake waits for room before the queues that cause the pressure are made to spill.
pub const PATIENCE: Duration = Duration::from_millis(100);

impl Pressure {
    /// No pressure yet; intake waits from `weight_max` on. Without a bound in bytes.
    pub fn new(weight_max: usize) -> Self {
        Self::within(weight_max, Budget::unbounded())
    }

    /// As [`Self::new`], for queues that draw their bytes from `budget`.
    pub fn within(weight_max: usize, budget: Arc<Budget>) -> Self {
        Self { budget, weight: AtomicUsize::new(0), weight_max, relieved: Notify::new() }
    }

    /// What all queues draw their bytes from.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// More work in a direct queue. To be called before whoever might take it out can know of it.
    pub fn rise(&self, weight: usize) {
        self.weight.fetch_add(weight, Ordering::AcqRel);
    }

    /// Less of it.
    pub fn fall(&self, weight: usize) {
        if weight == 0 {
            return;
        }
        let before = self.weight.fetch_sub(weight, Ordering::AcqRel);
        if before >= self.weight_max && before.saturating_sub(weight) < self.weight_max {
            self.relieved.notify_waiters();
        }
    }

    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        self.weight.load(Ordering::Acquire)
    }

    /// Returns once there is room. `false` after [`PATIENCE`] without any: then the caller sheds and goes on.
    pub async fn room(&self) -> bool {
        let wait = async {
            loop {
                let relieved = self.relieved.notified();
                tokio::pin!(relieved);
                relieved.as_mut().enable();
                if self.weight.load(Ordering::Acquire) < self.weight_max {
                    return;
                }
                relieved.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn direct(capacity: usize) -> Handover {
        let mut handover = Handover::new(capacity);
        assert_eq!(handover.wants(NOW), Some(capacity), "a new queue looks into the store");
        handover.claimed(0, None, NOW);
        handover
    }

    #[test]
    fn a_new_queue_claims_before_it_takes_anything_directly() {
        let mut handover = Handover::new(4);
        assert_eq!(handover.offer(1), Claim::Open);
        assert_eq!(handover.wants(NOW), Some(4));
        assert_eq!(handover.offer(1), Claim::Open, "a claim under way may still find older work");
    }

    #[test]
    fn a_full_queue_spills_and_is_direct_again_once_the_store_is_empty() {
        let mut handover = direct(2);
        assert_eq!([handover.offer(1), handover.offer(1), handover.offer(1)], [Claim::Here, Claim::Here, Claim::Open]);
        assert_eq!(handover.wants(NOW), None, "no room");
        handover.left(1);
        assert_eq!(handover.offer(1), Claim::Open, "older work waits in the store");
        assert_eq!(handover.wants(NOW), Some(1));
        handover.claimed(1, Some(NOW), NOW);
        handover.left(1);
        handover.left(1);
        assert_eq!(handover.wants(NOW), Some(2), "the claim was cut short");
        handover.claimed(1, None, NOW);
        handover.left(1);
        assert_eq!(handover.offer(1), Claim::Here);
    }

    #[test]
    fn what_is_committed_unclaimed_behind_a_claim_is_claimed_again() {
        let mut handover = direct(4);
        handover.shed();
        handover.wants(NOW).expect("shed queues claim");
        assert_eq!(handover.offer(1), Claim::Open);
        handover.claimed(0, None, NOW);
        assert!(handover.wants(NOW).is_some(), "the offer above was left to the store");
    }

    #[test]
    fn content_takes_room_too() {
        let mut handover = direct(4);
        assert_eq!(handover.offer(weight(3 * WEIGHT_BYTES - 1)), Claim::Here);
        assert_eq!(handover.offer(weight(WEIGHT_BYTES)), Claim::Open);
        assert_eq!(handover.left(3), 3);
        assert_eq!((handover.in_memory(), handover.pressing()), (0, 0));
    }

    #[test]
    fn work_that_falls_due_is_claimed_then_and_not_before() {
        let mut handover = direct(4);
        handover.due(Timestamp(2_000));
        handover.due(Timestamp(3_000));
        assert_eq!(handover.wants(Timestamp(1_999)), None);
        assert_eq!(handover.next_due(), Some(Timestamp(2_000)));
        assert_eq!(handover.wants(Timestamp(2_000)), Some(4));
    }

    /// What can happen to a queue; `stored` in the model is the due work that only the store holds.
    #[derive(Clone, Debug)]
    enum Step {
        Offer,
        CommitOpen,
        Leave,
        Shed,
        BeginClaim,
        EndClaim,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Offer),
            3 => Just(Step::CommitOpen),
            3 => Just(Step::Leave),
            1 => Just(Step::Shed),
            2 => Just(Step::BeginClaim),
            2 => Just(Step::EndClaim),
        ]
    }

    proptest! {
        /// However commits and claims interleave, stored work is always on its way to being claimed, memory stays
        /// within its capacity, and pressure never exceeds what is in memory.
        #[test]
        fn no_work_is_forgotten(steps in prop::collection::vec(step(), 1..200), capacity in 1usize..8) {
            let mut handover = Handover::new(capacity);
            let (mut uncommitted, mut stored, mut in_memory) = (0usize, 0usize, 0usize);
            let mut claim: Option<usize> = None;
            for step in steps {
                match step {
                    Step::Offer => match handover.offer(1) {
                        Claim::Here => in_memory += 1,
                        Claim::Open => uncommitted += 1,
                    },
                    Step::CommitOpen if uncommitted > 0 => {
                        uncommitted -= 1;
                        stored += 1;
                        handover.spilled();
                    }
                    Step::Leave if in_memory > 0 => {
                        in_memory -= 1;
                        handover.left(1);
                    }
                    Step::Shed => { handover.shed(); }
                    Step::BeginClaim if claim.is_none() => if let Some(limit) = handover.wants(NOW) {
                        let got = stored.min(limit);
                        stored -= got;
                        claim = Some(got);
                    },
                    Step::EndClaim => if let Some(got) = claim.take() {
                        in_memory += got;
                        handover.claimed(got, (stored > 0).then_some(NOW), NOW);
                    },
                    _ => {}
                }
                prop_assert_eq!(handover.in_memory(), in_memory);
                prop_assert!(in_memory <= capacity);
                prop_assert!(handover.pressing() <= in_memory);
            }
            if let Some(got) = claim.take() {
                handover.claimed(got, (stored > 0).then_some(NOW), NOW);
            }
            while handover.in_memory() > 0 {
                handover.left(1);
            }
            if stored > 0 {
                prop_assert!(handover.wants(NOW).is_some());
            }
        }
    }
}
