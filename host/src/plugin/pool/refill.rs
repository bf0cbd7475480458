//! How the pool asks the store for more runs.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::{CLAIM_RETRY_DELAY, Pool};
use crate::budget::Kind;
use crate::clock::Timestamp;
use crate::handover::quota::{Asking, share_out};
use crate::handover::refill::{Refill, Wanted};
use crate::handover::weight;
use crate::store::ClaimRoom;
use crate::sync::lock;

impl Refill for Pool {
    fn wants(&self, now: Timestamp) -> Wanted {
        let mut wanted = Wanted::default();
        let mut wanting = Vec::new();
        let mut state = lock(&self.state);
        for (name, queue) in &mut state.queues {
            if queue.plugin.is_none() {
                continue;
            }
            let count = queue.handover.wants(now);
            wanted.due(queue.handover.next_due());
            wanting.extend(count.map(|count| (Arc::clone(name), count, Arc::clone(&queue.quota))));
        }
        let asking = wanting.iter().map(|(name, count, quota)| Asking { name: Arc::clone(name), count: *count, quota });
        let shares = share_out(self.pressure.budget(), Kind::Runs, asking.collect());
        for name in &shares.denied {
            if let Some(queue) = state.queues.get_mut(name) {
                queue.handover.denied();
            }
        }
        wanted.claims = shares.given;
        wanted
    }

    fn claim(self: Arc<Self>, name: Arc<str>, room: ClaimRoom) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let now = self.clock.now();
            let claimed = self.store.claim_runs_within(Arc::clone(&name), room, now).await;
            let mut state = lock(&self.state);
            let Some(queue) = state.queues.get_mut(&name) else { return };
            let runs = match claimed {
                Ok(claimed) => {
                    let bytes = || claimed.work.iter().map(|run| run.event.content_bytes());
                    queue.quota.claimed(room.bytes, bytes(), claimed.needs);
                    queue.handover.claimed(bytes().map(weight).sum(), claimed.next_due, now);
                    claimed.work
                }
                Err(error) => {
                    tracing::error!(plugin = %name, %error, "runs could not be claimed; trying again");
                    queue.quota.claimed(room.bytes, std::iter::empty(), 0);
                    queue.handover.claim_failed(now.plus(CLAIM_RETRY_DELAY));
                    Vec::new()
                }
            };
            drop(state);
            self.enqueue(runs);
        })
    }

    fn look_again(&self) {
        lock(&self.state).queues.values_mut().for_each(|queue| queue.handover.spilled());
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn freed(&self) -> &Notify {
        self.pressure.budget().freed(Kind::Runs)
    }
}
