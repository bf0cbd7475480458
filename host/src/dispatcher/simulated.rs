//! The real dispatcher and lanes over simulated time: the runtime's clock moves on by itself when nothing is left to do, and
//! the endpoint is one that does as it is told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::task::JoinSet;

use super::breaker::Phase;
use super::gate::GatePolicy;
use super::lane::Attempts;
use super::tests::settings;
use super::*;
use crate::dead_letter::Reason;
use crate::delivery::{AttemptResult, Outcome, RetryPolicy};
use crate::drain::{self, DrainHandle};
use crate::handover::refill::refill;
use crate::settings::EndpointSettings;
use crate::store::fake::{FakeStore, delivery};
use crate::store::{EndpointChange, EndpointChanged, EndpointState, EndpointVerb};
use crate::sync::lock;

const START: Timestamp = Timestamp(1_800_000_000_000);

/// The runtime's clock.
struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        START.plus(self.0.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Answers as `answer` says, by the time since the start and the delivery's position.
struct Told {
    answer: Box<dyn Fn(Duration, i64) -> u16 + Send + Sync>,
    latency: Duration,
    begun: Mutex<Vec<Duration>>,
    under_way: AtomicUsize,
    under_way_most: AtomicUsize,
}

impl Attempts for Told {
    fn attempt<'a>(
        &'a self,
        delivery: &'a ClaimedDelivery,
        _: Timestamp,
        clock: &'a dyn Clock,
    ) -> BoxFuture<'a, Outcome> {
        async move {
            lock(&self.begun).push(clock.monotonic());
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.under_way_most.fetch_max(under_way, Ordering::SeqCst);
            tokio::time::sleep(self.latency).await;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            let result = AttemptResult::Status((self.answer)(clock.monotonic(), delivery.seq.0));
            Outcome { result, retry_after: None, location: None, response: Bytes::new(), duration: self.latency }
        }
        .boxed()
    }
}

struct Scene {
    store: Arc<FakeStore>,
    dispatcher: Arc<Dispatcher>,
    endpoint: Arc<Told>,
    clock: Arc<dyn Clock>,
    _drain: DrainHandle,
    _tasks: JoinSet<()>,
}

/// One lane called `shop` over a store with so many deliveries due.
#[allow(clippy::disallowed_methods, reason = "the paused clock of the runtime is the test's own")]
fn scene(
    backlog: i64,
    gate: GatePolicy,
    retry: RetryPolicy,
    answer: impl Fn(Duration, i64) -> u16 + Send + Sync + 'static,
) -> Scene {
    let clock: Arc<dyn Clock> = Arc::new(PausedClock(tokio::time::Instant::now()));
    let endpoint = Arc::new(Told {
        answer: Box::new(answer),
        latency: Duration::from_millis(20),
        begun: Mutex::default(),
        under_way: AtomicUsize::new(0),
        under_way_most: AtomicUsize::new(0),
    });
    let settings = EndpointSettings { gate, retry, ..settings("shop", "http://127.0.0.1/", 32) };
    let metrics = Arc::new(Metrics::new("test").unwrap());
    let (attempted, attempts) = mpsc::channel(ATTEMPTED_QUEUE_MAX);
    let (counts, rng) = (metrics.endpoint("shop"), fastrand::Rng::with_seed(1));
    let lane = Lane::new(Arc::clone(&endpoint), &settings, counts, Arc::clone(&clock), rng, attempted);
    let store = FakeStore::new();
    store.look(|seen| seen.deliveries.extend((1..=backlog).map(|seq| (START, delivery(seq, "shop")))));
    let shared: Arc<dyn Store> = Arc::<FakeStore>::clone(&store);
    let lanes = HashMap::from([("shop".into(), lane)]);
    let dispatcher = Dispatcher::new(lanes, shared, Arc::clone(&clock), Arc::new(Pressure::new(1024)), metrics);
    let (handle, drain) = drain::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(refill(Arc::clone(&dispatcher), Arc::clone(&clock), drain));
    tasks.spawn(Arc::clone(&dispatcher).record(attempts));
    Scene { store, dispatcher, endpoint, clock, _drain: handle, _tasks: tasks }
}

impl Scene {
    /// Lets simulated time pass until so many are delivered or dead, for `longest` at most.
    async fn until_ended(&self, count: usize, longest: Duration) {
        while self.delivered() + self.dead() < count {
            assert!(self.clock.monotonic() < longest, "{} delivered, {} dead", self.delivered(), self.dead());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn ended(&self, wanted: impl Fn(&Transition) -> bool) -> usize {
        self.store.look(|seen| seen.attempts.iter().filter(|record| wanted(&record.transition)).count())
    }

    fn delivered(&self) -> usize {
        self.ended(|transition| *transition == Transition::Delivered)
    }

    fn dead(&self) -> usize {
        self.ended(|transition| matches!(transition, Transition::Dead { .. }))
    }

    fn begun(&self) -> Vec<Duration> {
        lock(&self.endpoint.begun).clone()
    }

    fn lane(&self) -> &Arc<Lane> {
        &self.dispatcher.lanes["shop"]
    }

    async fn change(&self, verb: EndpointVerb) -> EndpointChanged {
        let change = EndpointChange { name: "shop".into(), verb, reason: "a test".to_owned() };
        self.dispatcher.change_endpoint(change).await.unwrap()
    }
}

/// Four attempts within a second: without a breaker, everything that is tried meanwhile dies.
fn impatient() -> RetryPolicy {
    RetryPolicy { max_attempts: 4, max_delay: Duration::from_secs(1), ..RetryPolicy::default() }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_401_to_a_full_backlog_kill_nothing_and_all_is_delivered_after() {
    const BACKLOG: i64 = 5_000;
    let minutes = Duration::from_mins(10);
    let answer = move |now, _| if now < minutes { 401 } else { 200 };
    let scene = scene(BACKLOG, GatePolicy::default(), impatient(), answer);
    scene.until_ended(BACKLOG as usize, Duration::from_mins(17)).await;
    assert_eq!((scene.delivered(), scene.dead()), (BACKLOG as usize, 0));
    let wasted = scene.begun().iter().filter(|at| **at < minutes).count();
    assert!((20..60).contains(&wasted), "{wasted} attempts while it refused all");
    assert_eq!(scene.endpoint.under_way_most.load(Ordering::SeqCst), 32);
    assert_eq!(scene.lane().metrics.breaker_open.get(), 0);
    assert!((6..12).contains(&scene.lane().metrics.breaker_opened.get()));
    // All that it took was claimed in parts, not held in memory.
    assert!(scene.store.calls("claim_deliveries") >= 4);
}

#[tokio::test(start_paused = true)]
async fn while_the_breaker_is_open_new_work_is_left_to_the_store_and_presses_nobody() {
    let scene = scene(40, GatePolicy::default(), RetryPolicy::default(), |_, _| 503);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(scene.lane().gate(|gate, _| gate.phase()), Some(Phase::Open { .. })));
    assert_eq!(scene.dispatcher.offer("shop", 1), Claim::Open);
    assert_eq!(scene.dispatcher.complaints(), ["shop: its breaker is open"]);
    let claims = scene.store.calls("claim_deliveries");
    scene.dispatcher.spilled("shop");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.store.calls("claim_deliveries"), claims, "nothing is claimed for it");
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_to_and_used_up() {
    for (rate, deliveries) in [("100/s", 1_000), ("7/s", 100), ("90/m", 60)] {
        let rate: rate::Rate = rate.parse().unwrap();
        let gate = GatePolicy { rate: Some(rate), ..GatePolicy::default() };
        let scene = scene(deliveries, gate, RetryPolicy::default(), |_, _| 200);
        scene.until_ended(deliveries as usize, Duration::from_mins(2)).await;
        let begun = scene.begun();
        let took = *begun.last().unwrap() - begun[0];
        let even = rate.interval() * u32::try_from(deliveries - 1).unwrap();
        assert!(took + rate::RATE_BURST >= even, "{rate}: {took:?} instead of {even:?}");
        assert!(took <= even.mul_f64(1.02) + Duration::from_millis(20), "{rate}: {took:?} instead of {even:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_410_is_dead_and_disables_and_what_waits_is_given_back_untouched() {
    let answer = |now: Duration, seq| if now < Duration::from_secs(60) && seq == 1 { 410 } else { 200 };
    let gate = GatePolicy { rate: Some("1/s".parse().unwrap()), ..GatePolicy::default() };
    let scene = scene(100, gate, RetryPolicy::default(), answer);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let attempts = scene.store.look(|seen| seen.attempts.clone());
    assert!(
        matches!(attempts[..], [AttemptRecord { transition: Transition::Dead { reason: Reason::Status410 }, .. }]),
        "{attempts:?}"
    );
    let changes = scene.store.look(|seen| seen.changes.clone());
    assert!(matches!(&changes[..], [EndpointChange { verb: EndpointVerb::Disable, .. }]), "{changes:?}");
    assert_eq!(changes[0].reason, "it answered 410 to msg_1");
    assert_eq!(scene.store.look(|seen| seen.released.len()), 99);
    assert!(scene.dispatcher.is_idle(), "nothing of it is in memory");
    assert_eq!(scene.dispatcher.active(), [] as [Arc<str>; 0]);
    assert_eq!(scene.dispatcher.offer("shop", 1), Claim::Open);
    let disabled = |scene: &Scene| scene.lane().metrics.states.each_ref().map(|state| state.get());
    assert_eq!(disabled(&scene), [0, 0, 1]);

    assert!(matches!(scene.change(EndpointVerb::Resume).await, EndpointChanged::Refused { .. }));
    let EndpointChanged::Done(record) = scene.change(EndpointVerb::Enable).await else { panic!("it was disabled") };
    assert_eq!(record.state, EndpointState::Active);
    scene.until_ended(100, Duration::from_mins(5)).await;
    assert_eq!((scene.delivered(), scene.dead()), (99, 1));
    assert_eq!(disabled(&scene), [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_disabling_that_can_not_be_kept_is_tried_again_before_the_attempt_is_recorded() {
    let scene = scene(2, GatePolicy::default(), RetryPolicy::default(), |_, _| 410);
    scene.store.fail("change_endpoint", 3);
    scene.until_ended(2, Duration::from_secs(30)).await;
    assert!(scene.store.calls("change_endpoint") >= 4);
    assert_eq!(scene.store.look(|seen| seen.changes.len()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_endpoint_gets_nothing_until_it_is_resumed() {
    let gate = GatePolicy { rate: Some("10/s".parse().unwrap()), ..GatePolicy::default() };
    let scene = scene(100, gate, RetryPolicy::default(), |_, _| 200);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(matches!(scene.change(EndpointVerb::Pause).await, EndpointChanged::Done(_)));
    let before = scene.begun().len();
    assert!((25..40).contains(&before), "{before}");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(scene.begun().len(), before);
    assert!(matches!(scene.change(EndpointVerb::Resume).await, EndpointChanged::Done(_)));
    scene.until_ended(100, Duration::from_hours(2)).await;
    assert_eq!(scene.begun().len(), 100, "each was tried once");
}

#[tokio::test(start_paused = true)]
async fn how_endpoints_fare_is_kept_and_kept_again_where_that_failed() {
    let scene = scene(1, GatePolicy::default(), RetryPolicy::default(), |_, _| 200);
    scene.until_ended(1, Duration::from_secs(30)).await;
    scene.store.fail("keep_endpoint_health", 1);
    scene.dispatcher.keep_health().await.unwrap_err();
    scene.dispatcher.keep_health().await.unwrap();
    let kept = scene.store.look(|seen| seen.healths["shop"].clone());
    assert!(kept.last_success_at.is_some() && kept.last_failure_at.is_none());
    let calls = scene.store.calls("keep_endpoint_health");
    scene.dispatcher.keep_health().await.unwrap();
    assert_eq!(scene.store.calls("keep_endpoint_health"), calls, "nothing changed since");
}
