//! Batches on their way into the store, several at once so that decoding one overlaps the commit of another.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

use futures::poll;
use tokio::task::JoinSet;

use super::{AcceptError, BATCHES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MAX};
use crate::budget::{Account, Permit};
use crate::event::Message;

/// What became of one batch.
pub(super) type Ended = Result<(), AcceptError>;

/// Batches in flight. Each is a task of its own: it goes on whatever the source waits for.
#[derive(Debug)]
pub(super) struct Batches {
    tasks: JoinSet<(usize, Ended)>,
    bytes: usize,
    /// What the last one had in bytes: the next has as many, for all that is known.
    last_bytes: usize,
    account: Arc<Account>,
}

impl Batches {
    /// None yet; what they hold is counted in `account`.
    pub(super) fn within(account: Arc<Account>) -> Self {
        Self { tasks: JoinSet::new(), bytes: 0, last_bytes: 0, account }
    }

    /// Whether one more may begin. The first may whatever room there is, so that every source goes on.
    pub(super) fn has_room(&self) -> bool {
        let within = self.tasks.len() < BATCHES_IN_FLIGHT_MAX && self.bytes < BYTES_IN_FLIGHT_MAX;
        within && (self.tasks.is_empty() || self.account.has_room(self.last_bytes))
    }

    /// Begins a batch of `bytes`. It is polled once before anything else, so that batches reach the inbox in order.
    pub(super) async fn begin(&mut self, bytes: usize, batch: impl Future<Output = Ended> + Send + 'static) {
        let mut batch = Box::pin(batch);
        self.bytes += bytes;
        self.last_bytes = bytes;
        self.account.take_anyway(bytes);
        let room = Permit::of_taken(Arc::clone(&self.account), bytes);
        match poll!(&mut batch) {
            Poll::Ready(ended) => self.tasks.spawn(async move { (bytes, ended) }),
            Poll::Pending => self.tasks.spawn(async move {
                let _room = room;
                (bytes, batch.await)
            }),
        };
    }

    /// The next batch that ends; pending for ever where there is none.
    pub(super) async fn next(&mut self) -> Ended {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok((bytes, ended))) => {
                self.bytes -= bytes;
                ended
            }
            Some(Err(panic)) => {
                if self.tasks.is_empty() {
                    self.bytes = 0;
                }
                Err(AcceptError::Failed(panic.to_string()))
            }
        }
    }

    /// Waits for all of them. The first error, where there is one.
    pub(super) async fn finish(&mut self) -> Ended {
        let mut all = Ok(());
        while !self.tasks.is_empty() {
            all = all.and(self.next().await);
        }
        all
    }
}

/// What messages weigh against [`BYTES_IN_FLIGHT_MAX`].
pub(super) fn weight(messages: &[Message]) -> usize {
    let headers =
        |message: &Message| message.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    messages.iter().map(|message| message.payload.len() + headers(message)).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Notify;

    use super::*;
    use crate::budget::{Budget, Kind};

    #[tokio::test]
    async fn a_source_waits_for_room_in_bytes_and_has_one_batch_whatever_there_is() {
        let budget = Budget::new(8 << 20);
        let (one, other) = (budget.account(Kind::Intake), budget.account(Kind::Intake));
        let gate = Arc::new(Notify::new());
        let (mut busy, mut late) = (Batches::within(one), Batches::within(other));
        let mut begun = 0;
        while busy.has_room() {
            let gate = Arc::clone(&gate);
            let batch = async move {
                gate.notified().await;
                Ok(())
            };
            busy.begin(1 << 20, batch).await;
            begun += 1;
        }
        assert_eq!((begun, budget.usage(Kind::Intake).used), (2, 2 << 20), "half of what is left is for others");
        assert!(late.has_room());
        late.begin(64 << 20, async { Ok(()) }).await;
        assert!(late.finish().await.is_ok() && late.has_room());
        assert_eq!(budget.usage(Kind::Intake).waits, 1);
        gate.notify_waiters();
        assert!(busy.finish().await.is_ok());
        assert_eq!(budget.usage(Kind::Intake).used, 0);
        assert!(busy.has_room());
    }

    #[tokio::test]
    async fn batches_begin_in_order_and_within_bounds() {
        let (gate, begun) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let mut batches = Batches::within(Budget::unbounded().account(Kind::Intake));
        for number in 0..BATCHES_IN_FLIGHT_MAX {
            assert!(batches.has_room());
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            let batch = async move {
                begun.lock().unwrap().push(number);
                gate.notified().await;
                if number == 3 { Err(AcceptError::Closed) } else { Ok(()) }
            };
            batches.begin(1, batch).await;
        }
        assert!(!batches.has_room());
        assert_eq!(*begun.lock().unwrap(), (0..BATCHES_IN_FLIGHT_MAX).collect::<Vec<_>>());
        gate.notify_waiters();
        assert!(matches!(batches.finish().await, Err(AcceptError::Closed)));
        assert!(batches.has_room() && batches.bytes == 0);
        batches.begin(BYTES_IN_FLIGHT_MAX, async { Ok(()) }).await;
        assert!(!batches.has_room());
    }
}
