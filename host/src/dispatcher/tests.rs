use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures::FutureExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::lane::Attempts;
use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::delivery::{Outcome, RetryPolicy};
use crate::drain::{self, DrainHandle};
use crate::endpoint::{Endpoint, Endpoints};
use crate::handover::refill::refill;
use crate::secret::Secret;
use crate::settings::{
    BacklogSettings, EgressSettings, EndpointSettings, Order, ProxyKind, ProxySettings, SignatureScheme,
};
use crate::store::fake::{DEADLINE, FakeStore, delivery};
use crate::sync::lock;

/// A lane without work to `url`.
pub(crate) fn lane(
    name: &str,
    url: &str,
    concurrency: usize,
    clock: &Arc<dyn Clock>,
    attempted: mpsc::Sender<Attempted>,
) -> Arc<Lane> {
    let settings = settings(name, url, concurrency);
    let endpoint = endpoint(&settings);
    Lane::new(endpoint, &settings, counts(name), Arc::clone(clock), fastrand::Rng::with_seed(1), attempted)
}

fn counts(name: &str) -> crate::metrics::EndpointMetrics {
    Metrics::new("test").unwrap().endpoint(name)
}

fn endpoint(settings: &EndpointSettings) -> Arc<Endpoint> {
    let egress = EgressSettings { allow: vec!["127.0.0.0/8".parse().unwrap()], proxy: None };
    let endpoints = Endpoints::new(std::slice::from_ref(settings), &egress).unwrap();
    Arc::clone(endpoints.get(&settings.name).unwrap())
}

pub(crate) fn settings(name: &str, url: &str, concurrency: usize) -> EndpointSettings {
    EndpointSettings {
        name: name.into(),
        url: url.parse().unwrap(),
        secrets: vec![Secret::new("s").into()],
        signature: SignatureScheme::Fraiseql,
        timeout: DEADLINE,
        concurrency,
        headers: Vec::new(),
        retry: RetryPolicy { initial_delay: Duration::from_millis(10), multiplier: 1.0, ..RetryPolicy::default() },
        order: Order::None,
        backlog: BacklogSettings::default(),
        gate: gate::GatePolicy::default(),
        access: crate::settings::AccessSettings::default(),
    }
}

/// A receiver that lets requests wait at a gate.
struct Receiver {
    gate: Semaphore,
    under_way: AtomicUsize,
    under_way_most: AtomicUsize,
    ids: Mutex<Vec<String>>,
    arrived: watch::Sender<()>,
    /// The first request of each id is answered so.
    first: StatusCode,
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap) -> StatusCode {
    let under_way = receiver.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    receiver.under_way_most.fetch_max(under_way, Ordering::SeqCst);
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    let seen = lock(&receiver.ids).contains(&id);
    lock(&receiver.ids).push(id);
    receiver.arrived.send_replace(());
    receiver.gate.acquire().await.unwrap().forget();
    receiver.under_way.fetch_sub(1, Ordering::SeqCst);
    if seen { StatusCode::OK } else { receiver.first }
}

impl Receiver {
    fn ids(&self) -> Vec<String> {
        lock(&self.ids).clone()
    }

    async fn wait_for(&self, requests: usize) {
        let mut arrived = self.arrived.subscribe();
        let wait = async {
            while lock(&self.ids).len() < requests {
                arrived.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{:?}", self.ids()));
    }
}

/// A dispatcher at work over a fake store, with one lane called `shop`.
struct Scene {
    receiver: Arc<Receiver>,
    store: Arc<FakeStore>,
    dispatcher: Arc<Dispatcher>,
    pressure: Arc<Pressure>,
    recorder: JoinHandle<()>,
    _drain: DrainHandle,
    _tasks: JoinSet<()>,
}

/// `open` requests pass the gate; the first of each id is answered `first`.
async fn scene(concurrency: usize, open: usize, first: StatusCode) -> Scene {
    scene_of(|endpoint| endpoint, concurrency, open, first).await
}

/// As [`scene`], with something around the endpoint.
async fn scene_of<A: Attempts>(
    around: impl FnOnce(Arc<Endpoint>) -> Arc<A>,
    concurrency: usize,
    open: usize,
    first: StatusCode,
) -> Scene {
    let clock = SystemClock::shared();
    let receiver = Arc::new(Receiver {
        gate: Semaphore::new(open),
        under_way: AtomicUsize::new(0),
        under_way_most: AtomicUsize::new(0),
        ids: Mutex::default(),
        arrived: watch::Sender::new(()),
        first,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().route("/hook", post(receive)).with_state(Arc::clone(&receiver));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });

    let store = FakeStore::new();
    let pressure = Arc::new(Pressure::new(1024));
    let (attempted, attempts) = mpsc::channel(ATTEMPTED_QUEUE_MAX);
    let settings = settings("shop", &url, concurrency);
    let (endpoint, rng) = (around(endpoint(&settings)), fastrand::Rng::with_seed(1));
    let lane = Lane::new(endpoint, &settings, counts("shop"), Arc::clone(&clock), rng, attempted);
    let lanes = HashMap::from([("shop".into(), lane)]);
    let metrics = Arc::new(Metrics::new("test").unwrap());
    let shared: Arc<dyn Store> = Arc::<FakeStore>::clone(&store);
    let dispatcher = Dispatcher::new(lanes, shared, Arc::clone(&clock), Arc::clone(&pressure), metrics);
    let (handle, drain) = drain::channel();
    tasks.spawn(refill(Arc::clone(&dispatcher), clock, drain));
    let recorder = tokio::spawn(Arc::clone(&dispatcher).record(attempts));
    store.wait_for("the first look into the store", |seen| seen.calls.contains_key("claim_deliveries")).await;
    let scene = Scene { receiver, store, dispatcher, pressure, recorder, _drain: handle, _tasks: tasks };
    scene.until("the lane to be direct", |it| !it.is_spilled() && it.wants(Timestamp(0)).is_none()).await;
    scene
}

impl Scene {
    /// Hands over a delivery as the outbox does.
    fn hand_over(&self, seq: i64) {
        let delivery = delivery(seq, "shop");
        assert_eq!(self.dispatcher.offer("shop", delivery.content_bytes()), Claim::Here);
        self.store.hold(&delivery);
        self.dispatcher.enqueue(delivery);
    }

    /// Polls the lane's handover, which gives no signal of its own.
    async fn until(&self, what: &str, mut condition: impl FnMut(&mut Handover) -> bool) {
        let wait = async {
            while !self.dispatcher.lanes["shop"].handover(&mut condition) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("gave up waiting for {what}"));
    }

    async fn until_idle(&self) {
        self.until("the lane to be empty", |handover| handover.in_memory() == 0).await;
        assert!(self.dispatcher.is_idle());
    }
}

#[tokio::test]
async fn an_endpoint_s_concurrency_is_used_and_never_exceeded() {
    let scene = scene(3, 0, StatusCode::OK).await;
    (1..=10).for_each(|seq| scene.hand_over(seq));
    for arrived in 3..=10 {
        scene.receiver.wait_for(arrived).await;
        scene.receiver.gate.add_permits(1);
    }
    scene.receiver.gate.add_permits(2);
    scene.until_idle().await;
    assert_eq!(scene.receiver.under_way_most.load(Ordering::SeqCst), 3);
    let mut ids = scene.receiver.ids();
    ids.sort_by_key(|id| id[4..].parse::<u32>().unwrap());
    assert_eq!(ids, (1..=10).map(|seq| format!("msg_{seq}")).collect::<Vec<_>>());
    assert_eq!(scene.pressure.weight(), 0, "what is done presses nobody");
}

#[tokio::test]
async fn after_a_stop_no_attempt_begins_and_those_under_way_are_recorded() {
    let scene = scene(2, 0, StatusCode::OK).await;
    (1..=5).for_each(|seq| scene.hand_over(seq));
    scene.receiver.wait_for(2).await;
    assert_eq!(scene.dispatcher.stop(), [3, 4, 5].map(DeliverySeq));
    scene.dispatcher.enqueue(delivery(6, "shop"));
    scene.receiver.gate.add_permits(10);
    tokio::time::timeout(DEADLINE, scene.recorder).await.expect("the recorder ends with the last attempt").unwrap();
    let mut recorded = scene.store.look(|seen| seen.attempts.iter().map(|it| it.delivery.0).collect::<Vec<_>>());
    recorded.sort_unstable();
    assert_eq!((recorded, scene.receiver.ids().len()), (vec![1, 2], 2));
}

#[tokio::test]
async fn an_attempt_that_can_not_be_recorded_is_kept_and_not_made_again() {
    let scene = scene(1, 10, StatusCode::OK).await;
    scene.store.fail("record_attempts", 2);
    scene.hand_over(1);
    scene.until_idle().await;
    assert_eq!(scene.store.calls("record_attempts"), 3);
    assert_eq!(scene.store.look(|seen| seen.attempts.len()), 1);
    assert_eq!(scene.receiver.ids(), ["msg_1"]);
}

#[tokio::test]
async fn a_failed_attempt_is_claimed_again_when_due_and_repeated_under_its_id() {
    let scene = scene(1, 10, StatusCode::SERVICE_UNAVAILABLE).await;
    scene.hand_over(1);
    scene.store.wait_for("both attempts", |seen| seen.attempts.len() == 2).await;
    let attempts = scene.store.look(|seen| seen.attempts.clone());
    assert_eq!(attempts.iter().map(|it| (it.number, it.status)).collect::<Vec<_>>(), [(1, Some(503)), (2, Some(200))]);
    assert_eq!(attempts[1].transition, Transition::Delivered);
    // Far below the interval in which everything is looked for, whether due or not.
    let waited = attempts[1].started_at.since(attempts[0].started_at);
    assert!((Duration::from_millis(10)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    assert_eq!(scene.receiver.ids(), ["msg_1", "msg_1"]);
    let counts = &scene.dispatcher.lanes["shop"].metrics;
    scene.until_idle().await;
    assert_eq!((counts.retrying.get(), counts.delivered.get(), counts.dead.get()), (1, 1, 0));
}

#[tokio::test]
async fn a_delivery_has_its_turn_when_the_one_before_it_has_ended() {
    let scene = scene(4, 0, StatusCode::OK).await;
    scene.store.look(|seen| {
        seen.behind.insert(DeliverySeq(1), delivery(2, "shop"));
        seen.behind.insert(DeliverySeq(2), delivery(3, "shop"));
    });
    scene.hand_over(1);
    for arrived in 1..=3 {
        scene.receiver.wait_for(arrived).await;
        scene.receiver.gate.add_permits(1);
    }
    scene.until_idle().await;
    assert_eq!(scene.receiver.ids(), ["msg_1", "msg_2", "msg_3"]);
    assert_eq!(scene.receiver.under_way_most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_final_answer_is_a_dead_letter_and_is_counted() {
    let scene = scene(1, 10, StatusCode::BAD_REQUEST).await;
    scene.hand_over(1);
    scene.until_idle().await;
    let attempts = scene.store.look(|seen| seen.attempts.clone());
    assert!(matches!(attempts[..], [AttemptRecord { transition: Transition::Dead { .. }, .. }]), "{attempts:?}");
    assert_eq!(scene.dispatcher.metrics.died(), 1);
}

/// Attempts of earlier budgets count for the number, not for the policy.
#[tokio::test]
async fn a_redriven_delivery_has_a_new_budget_and_goes_on_counting() {
    let scene = scene(1, 10, StatusCode::SERVICE_UNAVAILABLE).await;
    let redriven = ClaimedDelivery { attempts_made: 30, attempts_before_budget: 30, ..delivery(1, "shop") };
    scene.store.look(|seen| seen.deliveries.push_back((Timestamp(0), redriven)));
    scene.dispatcher.spilled("shop");
    scene.store.wait_for("both attempts", |seen| seen.attempts.len() == 2).await;
    assert_eq!(scene.store.look(|seen| seen.attempts.iter().map(|it| it.number).collect::<Vec<_>>()), [31, 32]);
}

#[tokio::test]
async fn a_claim_that_fails_is_tried_again() {
    let scene = scene(1, 10, StatusCode::OK).await;
    scene.store.look(|seen| seen.deliveries.push_back((Timestamp(0), delivery(1, "shop"))));
    scene.store.fail("claim_deliveries", 1);
    scene.dispatcher.spilled("shop");
    scene.receiver.wait_for(1).await;
    scene.until_idle().await;
}

#[tokio::test]
async fn a_delivery_to_an_endpoint_that_is_not_configured_stays_in_the_store() {
    let scene = scene(1, 10, StatusCode::OK).await;
    assert_eq!(scene.dispatcher.offer("billing", 1), Claim::Open);
    scene.dispatcher.spilled("billing");
    scene.dispatcher.left("billing", 1);
    scene.dispatcher.enqueue(delivery(1, "billing"));
    assert_eq!((scene.dispatcher.is_idle(), scene.pressure.weight()), (true, 0));
    scene.hand_over(2);
    scene.until_idle().await;
    assert_eq!(scene.receiver.ids(), ["msg_2"]);
}

#[tokio::test]
async fn a_lane_that_is_shed_presses_nobody_and_takes_nothing_directly() {
    let scene = scene(1, 0, StatusCode::OK).await;
    (1..=4).for_each(|seq| scene.hand_over(seq));
    scene.receiver.wait_for(1).await;
    assert_eq!((scene.dispatcher.pressing_most(), scene.pressure.weight()), (4, 4));
    scene.dispatcher.shed(5);
    assert_eq!(scene.pressure.weight(), 4, "it presses less than that");
    scene.dispatcher.shed(4);
    assert_eq!((scene.dispatcher.pressing_most(), scene.pressure.weight()), (0, 0));
    scene.receiver.gate.add_permits(4);
    scene.until_idle().await;
    assert_eq!(scene.pressure.weight(), 0);
}

/// A lane whose endpoint is behind a proxy that nobody listens at.
fn lane_behind_a_dead_proxy(clock: Arc<dyn Clock>, attempted: mpsc::Sender<Attempted>) -> Arc<Lane> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = settings("shop", "http://93.184.215.14/", 2);
    let proxy = ProxySettings {
        kind: ProxyKind::Http,
        host: "127.0.0.1".to_owned(),
        port,
        user: None,
        password: None,
        resolves_names: false,
    };
    let egress = EgressSettings { allow: Vec::new(), proxy: Some(proxy) };
    let endpoints = Endpoints::new(std::slice::from_ref(&settings), &egress).unwrap();
    let metrics = Metrics::new("test").unwrap().endpoint("shop");
    let endpoint = Arc::clone(endpoints.get("shop").unwrap());
    Lane::new(endpoint, &settings, metrics, clock, fastrand::Rng::with_seed(1), attempted)
}

#[tokio::test]
async fn while_the_way_is_down_deliveries_wait_in_memory_and_a_stop_waits_for_none_of_them() {
    let (attempted, mut attempts) = mpsc::channel(16);
    // It never moves on, so the wait never ends.
    let clock = ManualClock::starting_at(Timestamp(1_767_225_600_000));
    let lane = lane_behind_a_dead_proxy(clock, attempted);
    assert_eq!(lane.deferred_for(), None);
    lane.enqueue((1..=5).map(|seq| delivery(seq, "shop")));
    for _ in 0..2 {
        let attempt = tokio::time::timeout(DEADLINE, attempts.recv()).await.unwrap().unwrap();
        assert!(matches!(attempt.record.transition, Transition::Deferred { .. }), "{attempt:?}");
        assert_eq!((attempt.record.number, attempt.record.status), (1, None));
    }
    assert!(lane.deferred_for().unwrap().contains("can't be reached"));
    assert_eq!(lane.stop(), [3, 4, 5].map(DeliverySeq));
    assert!(tokio::time::timeout(DEADLINE, attempts.recv()).await.expect("no worker is left").is_none());
}

/// Panics once, in the middle of an attempt.
struct Faulty {
    endpoint: Arc<Endpoint>,
    faulty: AtomicBool,
}

impl Attempts for Faulty {
    fn attempt<'a>(
        &'a self,
        delivery: &'a ClaimedDelivery,
        now: Timestamp,
        clock: &'a dyn Clock,
    ) -> BoxFuture<'a, Outcome> {
        async move {
            assert!(!self.faulty.swap(false, Ordering::SeqCst), "a fault of the host's own");
            self.endpoint.attempt(delivery, now, clock).await
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_panic_during_an_attempt_is_an_attempt_that_failed_and_costs_no_worker() {
    let faulty = |endpoint| Arc::new(Faulty { endpoint, faulty: AtomicBool::new(true) });
    let scene = scene_of(faulty, 1, 10, StatusCode::OK).await;
    scene.hand_over(1);
    scene.hand_over(2);
    scene.store.wait_for("three attempts", |seen| seen.attempts.len() == 3).await;
    let attempts = scene.store.look(|seen| seen.attempts.clone());
    assert!(attempts[0].error.as_deref().is_some_and(|error| error.contains("panicked")), "{attempts:?}");
    assert_eq!(scene.store.look(|seen| seen.attempts.iter().filter(|it| it.status == Some(200)).count()), 2);
}
