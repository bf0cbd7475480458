//! Orders, one after another at a steady rate, for as long as a scenario wants, whatever becomes of the server.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Bus, Guarantee, Order, Publisher};
use crate::full::is_full;

/// Orders that a scenario publishes under load at least.
pub(super) fn events_least() -> usize {
    if is_full() { 20_000 } else { 2_000 }
}

/// Orders published at once.
const BATCH: usize = 10;

/// Between two batches, in the usual case: a thousand orders a second.
const PACE: Duration = Duration::from_millis(10);

/// For one batch; a server that was killed meanwhile never answers.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(2);

/// For the last batches.
const FINISH_DEADLINE: Duration = Duration::from_secs(120);

/// A publisher at work.
pub(super) struct Load {
    begun: Arc<AtomicUsize>,
    target: watch::Sender<Option<usize>>,
    task: JoinHandle<usize>,
}

impl Load {
    pub(super) fn start<B: Bus>(bus: &B) -> Self {
        let (target, wanted) = watch::channel(None);
        let begun = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(publish(bus.publisher(), B::GUARANTEE, Arc::clone(&begun), wanted));
        Self { begun, target, task }
    }

    /// The number of the first order whose publication has not begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until so many orders, and [`events_least`], are published. Returns how many there are.
    pub(super) async fn finish(self, least: usize) -> Result<usize> {
        self.target.send_replace(Some(least.max(events_least())));
        timeout(FINISH_DEADLINE, self.task).await.context("the load does not come to its end")?.context("the load")
    }
}

/// Publishes until the target is reached. What fails is published again on a bus that keeps messages, and nowhere else:
/// an application that publishes at most once goes on with what is next.
async fn publish<P: Publisher>(
    fresh: P,
    guarantee: Guarantee,
    begun: Arc<AtomicUsize>,
    target: watch::Receiver<Option<usize>>,
) -> usize {
    let mut pace = interval(if is_full() { PACE / 4 } else { PACE });
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut publisher = fresh.clone();
    let mut next = 0;
    while target.borrow().is_none_or(|target| next < target) {
        pace.tick().await;
        let batch = orders(next..next + BATCH);
        begun.store(next + BATCH, Ordering::SeqCst);
        let published = timeout(PUBLISH_DEADLINE, publisher.publish(&batch)).await;
        if !matches!(published, Ok(Ok(()))) {
            publisher = fresh.clone();
            if guarantee == Guarantee::AtLeastOnce {
                continue;
            }
        }
        next += BATCH;
    }
    next
}

/// Orders of the usual size.
pub(super) fn orders(numbers: Range<usize>) -> Vec<Order> {
    numbers.map(Order::new).collect()
}
