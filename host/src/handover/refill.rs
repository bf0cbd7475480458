//! Brings work from the store into queues that have room for it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::drain::Drain;
use crate::store::ClaimRoom;

/// Queues of one kind, all over the same store.
pub trait Refill: Send + Sync + 'static {
    /// Every queue that should claim now, each marked as claiming, and when to ask again although nothing changes.
    fn wants(&self, now: Timestamp) -> Wanted;
    /// Claims what `room` has place for, for the queue called `name`, and takes what came; never fails, the queue notes a
    /// retry.
    fn claim(self: Arc<Self>, name: Arc<str>, room: ClaimRoom) -> BoxFuture<'static, ()>;
    /// Makes every queue look into the store again: it may hold work that nobody told this host of.
    fn look_again(&self);
    /// Told whenever [`Self::wants`] may answer differently.
    fn changed(&self) -> &Notify;
    /// Told when there is room in bytes again, where a queue was denied any.
    fn freed(&self) -> &Notify;
}

/// What queues want from the store.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The queue's name and the largest claim, whose bytes are taken already.
    pub claims: Vec<(Arc<str>, ClaimRoom)>,
    /// The earliest moment at which work falls due.
    pub next_due: Option<Timestamp>,
}

impl Wanted {
    /// Adds when work of one queue falls due.
    pub fn due(&mut self, next_due: Option<Timestamp>) {
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
        for (name, room) in wanted.claims {
            claims.push(Arc::clone(&queues).claim(name, room));
        }
        let sleep = wanted.next_due.map_or(POLL_INTERVAL, |due_at| due_at.since(now).min(POLL_INTERVAL));
        tokio::select! {
            () = drain.begun() => return,
            () = queues.changed().notified() => {}
            () = queues.freed().notified() => {}
            Some(()) = claims.next() => {}
            () = tokio::time::sleep(sleep) => {}
            _ = poll.tick() => queues.look_again(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::ManualClock;
    use crate::drain;
    use crate::handover::Handover;
    use crate::sync::lock;

    const START: Timestamp = Timestamp(1_800_000_000_000);
    const CLAIM_RETRY_DELAY: Duration = Duration::from_secs(1);

    /// One queue over a store that only counts.
    struct Queue {
        handover: Mutex<Handover>,
        clock: Arc<PausedClock>,
        changed: Notify,
        freed: Notify,
        looks: AtomicUsize,
        claims: Mutex<Vec<Duration>>,
        failing: AtomicUsize,
    }

    /// The runtime's clock, which moves on by itself when nothing is left to do.
    struct PausedClock {
        started: tokio::time::Instant,
        manual: Arc<ManualClock>,
    }

    impl Clock for PausedClock {
        fn now(&self) -> Timestamp {
            self.manual.now().plus(self.started.elapsed())
        }

        fn monotonic(&self) -> Duration {
            self.started.elapsed()
        }
    }

    impl Refill for Queue {
        fn wants(&self, now: Timestamp) -> Wanted {
            self.looks.fetch_add(1, Ordering::SeqCst);
            let mut wanted = Wanted::default();
            let mut handover = lock(&self.handover);
            let limit = handover.wants(now);
            let room = |count| ("orders".into(), ClaimRoom { count, bytes: usize::MAX });
            wanted.claims.extend(limit.map(room));
            wanted.due(handover.next_due());
            wanted
        }

        fn claim(self: Arc<Self>, _: Arc<str>, _: ClaimRoom) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                lock(&self.claims).push(self.clock.now().since(START));
                let fails = self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                let mut handover = lock(&self.handover);
                match fails {
                    Ok(_) => handover.claim_failed(self.clock.now().plus(CLAIM_RETRY_DELAY)),
                    Err(_) => handover.claimed(0, None, self.clock.now()),
                }
            })
        }

        fn look_again(&self) {
            lock(&self.handover).spilled();
        }

        fn changed(&self) -> &Notify {
            &self.changed
        }

        fn freed(&self) -> &Notify {
            &self.freed
        }
    }

    impl Queue {
        /// When claims were made; the first poll may double the first one.
        fn claims_ms(&self) -> Vec<u128> {
            let mut claims: Vec<_> = lock(&self.claims).iter().map(Duration::as_millis).collect();
            claims.dedup();
            claims
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the paused clock of the runtime is the test's own")]
    fn queue() -> (Arc<Queue>, drain::DrainHandle, tokio::task::JoinHandle<()>) {
        let clock = PausedClock { started: tokio::time::Instant::now(), manual: ManualClock::starting_at(START) };
        let clock = Arc::new(clock);
        let queue = Arc::new(Queue {
            handover: Mutex::new(Handover::new(8)),
            clock: Arc::clone(&clock),
            changed: Notify::new(),
            freed: Notify::new(),
            looks: AtomicUsize::new(0),
            claims: Mutex::default(),
            failing: AtomicUsize::new(0),
        });
        let (handle, drain) = drain::channel();
        let task = tokio::spawn(refill(Arc::clone(&queue), clock, drain));
        (queue, handle, task)
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_claimed_at_the_start_and_when_it_falls_due() {
        let (queue, _handle, _task) = queue();
        tokio::time::sleep(Duration::from_secs(1)).await;
        lock(&queue.handover).due(START.plus(Duration::from_secs(5)));
        queue.changed.notify_one();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(queue.claims_ms(), [0, 5_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_left_to_the_store_is_claimed_at_once() {
        let (queue, _handle, _task) = queue();
        tokio::time::sleep(Duration::from_secs(1)).await;
        lock(&queue.handover).spilled();
        queue.changed.notify_one();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(queue.claims_ms(), [0, 1_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_fails_is_tried_again_after_its_delay() {
        let (queue, _handle, _task) = queue();
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.failing.store(3, Ordering::SeqCst);
        lock(&queue.handover).spilled();
        queue.changed.notify_one();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(queue.claims_ms(), [0, 1_000, 2_000, 3_000, 4_000]);
    }

    /// A loop that looked without waiting would never let the paused clock move, or look far more often.
    #[tokio::test(start_paused = true)]
    async fn nothing_to_do_is_looked_at_now_and_then_only() {
        let (queue, _handle, _task) = queue();
        tokio::time::sleep(POLL_INTERVAL * 3 + Duration::from_secs(1)).await;
        assert_eq!(queue.claims_ms(), [0, 30_000, 60_000, 90_000]);
        let looks = queue.looks.load(Ordering::SeqCst);
        assert!(looks <= 4 * 4, "{looks} looks");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_due_while_there_is_no_room_is_no_reason_to_turn_in_circles() {
        let (queue, _handle, _task) = queue();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..8 {
            lock(&queue.handover).offer(1);
        }
        lock(&queue.handover).due(START);
        queue.changed.notify_one();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(queue.claims_ms(), [0]);
        let looks = queue.looks.load(Ordering::SeqCst);
        assert!(looks <= 6, "{looks} looks");
        for _ in 0..4 {
            lock(&queue.handover).left(1);
        }
        queue.changed.notify_one();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(queue.claims_ms(), [0, 11_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_drain_begins() {
        let (_queue, handle, task) = queue();
        handle.begin();
        tokio::time::timeout(Duration::from_secs(1), task).await.expect("it ends at once").unwrap();
    }
}
