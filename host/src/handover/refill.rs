//! Brings work from the store into queues that have room for it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::drain::Drain;

/// Queues of one kind, all over the same store.
pub trait Refill: Send + Sync + 'static {
    /// Every queue that should claim now, each marked as claiming, and when to ask again although nothing changes.
    fn wants(&self, now: Timestamp) -> Wanted;
    /// Claims at most `limit` for the queue called `name` and takes what came; never fails, the queue notes a retry.
    fn claim(self: Arc<Self>, name: Arc<str>, limit: usize) -> BoxFuture<'static, ()>;
    /// Makes every queue look into the store again: it may hold work that nobody told this host of.
    fn look_again(&self);
    /// Told whenever [`Self::wants`] may answer differently.
    fn changed(&self) -> &Notify;
}

/// What queues want from the store.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The queue's name and the largest claim.
    pub claims: Vec<(Arc<str>, usize)>,
    /// The earliest moment at which work falls due.
    pub next_due: Option<Timestamp>,
}

impl Wanted {
    /// Adds one queue's answer.
    pub fn add(&mut self, name: &Arc<str>, limit: Option<usize>, next_due: Option<Timestamp>) {
        self.claims.extend(limit.map(|limit| (Arc::clone(name), limit)));
        self.next_due = match (self.next_due, next_due) {
            (Some(known), Some(due_at)) => Some(known.min(due_at)),
            (known, due_at) => known.or(due_at),
        };
    }
}

/// How often every queue looks into the store although nothing says that there is work: what another host wrote, what a
/// wall clock that jumped made due, what a failure left behind. Finding nothing writes nothing.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until the drain begins. At most one claim a queue is under way.
pub async fn refill<Q: Refill>(queues: Arc<Q>, clock: Arc<dyn Clock>, drain: Drain) {
    let mut claims = FuturesUnordered::new();
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    loop {
        let now = clock.now();
        let wanted = queues.wants(now);
        for (name, limit) in wanted.claims {
            claims.push(Arc::clone(&queues).claim(name, limit));
        }
        let sleep = wanted.next_due.map_or(POLL_INTERVAL, |due_at| due_at.since(now).min(POLL_INTERVAL));
        tokio::select! {
            () = drain.begun() => return,
            () = queues.changed().notified() => {}
            Some(()) = claims.next() => {}
            () = tokio::time::sleep(sleep) => {}
            _ = poll.tick() => queues.look_again(),
        }
    }
}
