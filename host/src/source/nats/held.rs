//! What the server has handed over and no batch has taken yet: the connection's queue is emptied at once into this one,
//! which knows what is lost for want of room.

use std::collections::VecDeque;
use std::sync::Arc;

use super::wire::Delivery;
use crate::budget::Account;
use crate::source::{BATCH_MESSAGES_MAX, BYTES_IN_FLIGHT_MAX};

/// Messages that wait for room among the batches; what comes beyond is lost.
pub const HELD_MESSAGES_MAX: usize = 64 * 1024;
/// Their bytes. A message that passes it is the last until there is room.
pub const HELD_BYTES_MAX: usize = BYTES_IN_FLIGHT_MAX;

/// Messages in the order in which they came.
#[derive(Debug)]
pub(super) struct Held {
    messages: VecDeque<Delivery>,
    bytes: usize,
    account: Arc<Account>,
}

impl Held {
    /// None yet; what they hold is counted in `account`.
    pub(super) fn within(account: Arc<Account>) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, account }
    }

    /// Keeps what there is room for, and returns how many messages there was none for.
    pub(super) fn put(&mut self, messages: Vec<Delivery>) -> usize {
        let mut dropped = 0;
        for message in messages {
            let is_full = self.messages.len() >= HELD_MESSAGES_MAX || self.bytes >= HELD_BYTES_MAX;
            if is_full || (!self.is_empty() && !self.account.has_room(message.len())) {
                dropped += 1;
                continue;
            }
            self.account.take_anyway(message.len());
            self.bytes += message.len();
            self.messages.push_back(message);
        }
        dropped
    }

    /// The oldest, as many as a batch takes; empty where there is none.
    pub(super) fn take(&mut self) -> Vec<Delivery> {
        let batch: Vec<_> = self.messages.drain(..self.messages.len().min(BATCH_MESSAGES_MAX)).collect();
        let bytes = batch.iter().map(Delivery::len).sum::<usize>();
        self.bytes -= bytes;
        self.account.give(bytes);
        batch
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Kind};

    #[test]
    fn what_waits_is_bounded_by_the_budget_too() {
        let budget = Budget::new(8 << 20);
        let mut held = Held::within(budget.account(Kind::Intake));
        let dropped = held.put((0..8).map(|_| message(1 << 20)).collect());
        assert_eq!((dropped, budget.usage(Kind::Intake).used), (6, 2 << 20));
        assert_eq!(held.take().len(), 2);
        assert_eq!(budget.usage(Kind::Intake).used, 0);
        assert_eq!(held.put(vec![message(64 << 20)]), 0, "one is held whatever room there is");
        drop(held);
        assert_eq!(budget.usage(Kind::Intake).used, 0);
    }

    fn message(length: usize) -> Delivery {
        let bytes = bytes::Bytes::from(vec![0; length]);
        Delivery { subject: bytes.slice(..0), reply: None, headers: None, payload: bytes }
    }

    #[test]
    fn what_waits_is_bounded_in_messages_and_in_bytes() {
        let check = |length: usize, count: usize, kept: usize| {
            let mut held = Held::within(Budget::unbounded().account(Kind::Intake));
            let dropped = held.put(vec![message(length); count]);
            assert_eq!(count - dropped, kept, "{count} messages of {length} bytes");
            let mut taken = 0;
            while !held.is_empty() {
                taken += held.take().len();
            }
            assert_eq!((taken, held.bytes), (kept, 0));
            assert_eq!(held.put(vec![message(length)]), 0, "there is room again");
        };
        check(1, HELD_MESSAGES_MAX + 10, HELD_MESSAGES_MAX);
        check(HELD_BYTES_MAX / 4, 10, 4);
        check(HELD_BYTES_MAX / 4 - 1, 10, 5);
        check(2 * HELD_BYTES_MAX, 2, 1);
    }
}
