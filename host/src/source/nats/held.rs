//! What the server has handed over and no batch has taken yet: the connection's queue is emptied at once into this one,
//! which knows what is lost for want of room.

use std::collections::VecDeque;

use super::wire::Delivery;
use crate::source::{BATCH_MESSAGES_MAX, BYTES_IN_FLIGHT_MAX};

/// Messages that wait for room among the batches; what comes beyond is lost.
pub const HELD_MESSAGES_MAX: usize = 64 * 1024;
/// Their bytes. A message that passes it is the last until there is room.
pub const HELD_BYTES_MAX: usize = BYTES_IN_FLIGHT_MAX;

/// Messages in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: VecDeque<Delivery>,
    bytes: usize,
}

impl Held {
    /// Keeps what there is room for, and returns how many messages there was none for.
    pub(super) fn put(&mut self, messages: Vec<Delivery>) -> usize {
        let mut dropped = 0;
        for message in messages {
            if self.messages.len() >= HELD_MESSAGES_MAX || self.bytes >= HELD_BYTES_MAX {
                dropped += 1;
                continue;
            }
            self.bytes += message.len();
            self.messages.push_back(message);
        }
        dropped
    }

    /// The oldest, as many as a batch takes; empty where there is none.
    pub(super) fn take(&mut self) -> Vec<Delivery> {
        let batch: Vec<_> = self.messages.drain(..self.messages.len().min(BATCH_MESSAGES_MAX)).collect();
        self.bytes -= batch.iter().map(Delivery::len).sum::<usize>();
        batch
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Delivery {
        let bytes = bytes::Bytes::from(vec![0; length]);
        Delivery { subject: bytes.slice(..0), reply: None, headers: None, payload: bytes }
    }

    #[test]
    fn what_waits_is_bounded_in_messages_and_in_bytes() {
        let check = |length: usize, count: usize, kept: usize| {
            let mut held = Held::default();
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
