use bytes::Bytes;

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::delivery::{DeliveryId, Distinct};
use crate::handover::Pressure;
use crate::handover::refill::Refill as _;
use crate::plugin::pool::Workers;
use crate::plugin::state::InMemory;
use crate::plugin::{CallReport, Manifest, Services, Webhook, fixture};
use crate::settings::EgressSettings;
use crate::store::fake::FakeStore;
use crate::store::{ClaimedRun, EventSeq, Spends, StateChange};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn endpoints() -> Endpoints {
    Endpoints::new(&[], &EgressSettings::default()).unwrap()
}

/// A plugin called `orders` whose default endpoint is `shop`.
fn plugin() -> Arc<Plugin> {
    let (engine, _dir) = fixture::engine();
    let manifest = Manifest { endpoints: vec!["shop".into()], ..Manifest::default() };
    Arc::new(Plugin::load(&engine, "orders", &fixture::guest("(i32.const 1024)"), manifest).unwrap())
}

fn ran(plugin: &Arc<Plugin>, attempts_made: u32, result: Result<Vec<Webhook>, CallFailure>) -> Ran {
    let event = Arc::new(fixture::event("{}"));
    Ran {
        room: None,
        run: ClaimedRun {
            seq: EventSeq(1),
            event,
            plugin: Arc::clone(&plugin.name),
            attempts_made,
            deadlines: 0,
            crashes: 0,
        },
        conflicts: 0,
        plugin: Arc::clone(plugin),
        report: CallReport {
            result,
            duration: Duration::ZERO,
            cpu: Duration::ZERO,
            memory_peak_bytes: 0,
            instance_bytes: 0,
            log_lines_dropped: 0,
            state: None,
        },
        begun: crate::store::Begun::default(),
    }
}

fn webhook(headers: Vec<(String, String)>) -> Webhook {
    Webhook { endpoint: None, key: None, content_type: None, headers, body: Bytes::new() }
}

/// What a failure on its n-th try leads to: a wait, or a reason.
#[test]
fn every_failure_has_its_end() {
    let plugin = plugin();
    let check = |failure: fn(String) -> CallFailure, attempt: u32, expected: Result<Duration, Reason>| {
        let outcome = judge(&ran(&plugin, attempt - 1, Err(failure("why".to_owned()))), &endpoints(), NOW);
        let (found, detail) = match outcome {
            RunOutcome::Retry { due_at, detail, .. } => (Ok(due_at.since(NOW)), detail),
            RunOutcome::Dead { reason, detail } => (Err(reason), detail),
            other => panic!("{other:?}"),
        };
        assert_eq!((found, detail.as_str()), (expected, "why"), "{:?}, try {attempt}", failure(String::new()));
    };
    check(CallFailure::Trap, 1, Err(Reason::PluginTrap));
    check(CallFailure::Memory, 1, Err(Reason::PluginMemory));
    check(CallFailure::Output, 1, Err(Reason::PluginOutput));
    check(CallFailure::Reject, 1, Err(Reason::PluginRejected));

    check(CallFailure::Host, 1, Ok(HOST_RETRY_DELAY));
    check(CallFailure::Host, u32::MAX, Ok(HOST_RETRY_DELAY));

    // The plugin's own policy: 5 tries, from a second on, doubling.
    check(CallFailure::Retry, 1, Ok(Duration::from_secs(1)));
    check(CallFailure::Retry, 2, Ok(Duration::from_secs(2)));
    check(CallFailure::Retry, 4, Ok(Duration::from_secs(8)));
    check(CallFailure::Retry, 5, Err(Reason::PluginRetriesExhausted));
    check(CallFailure::Retry, 6, Err(Reason::PluginRetriesExhausted));
}

/// A plugin may return `failure::retry` as often as it says, and break its deadline twice, whichever comes in between.
#[test]
fn each_budget_of_tries_has_its_own_count() {
    let plugin = plugin();
    let check =
        |failure: fn(String) -> CallFailure, tries: u32, deadlines: u32, expected: Result<(Spends, u64), Reason>| {
            let mut ran = ran(&plugin, tries, Err(failure("why".to_owned())));
            ran.run.deadlines = deadlines;
            let found = match judge(&ran, &endpoints(), NOW) {
                RunOutcome::Retry { spends, due_at, .. } => Ok((spends, due_at.since(NOW).as_secs())),
                RunOutcome::Dead { reason, .. } => Err(reason),
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{:?} after {tries} tries and {deadlines} deadlines", failure(String::new()));
        };
    check(CallFailure::Deadline, 0, 0, Ok((Spends::Deadline, 1)));
    check(CallFailure::Deadline, 1, 1, Ok((Spends::Deadline, 10)));
    check(CallFailure::Deadline, 2, 2, Err(Reason::PluginDeadline));
    check(CallFailure::Deadline, 4, 0, Ok((Spends::Deadline, 1)));
    check(CallFailure::Deadline, 5, 1, Ok((Spends::Deadline, 10)));
    check(CallFailure::Deadline, 6, 2, Err(Reason::PluginDeadline));
    check(CallFailure::Retry, 2, 2, Ok((Spends::Retry, 1)));
    check(CallFailure::Retry, 5, 2, Ok((Spends::Retry, 8)));
    check(CallFailure::Retry, 6, 2, Err(Reason::PluginRetriesExhausted));
    check(CallFailure::Host, 6, 2, Ok((Spends::Nothing, 1)));
}

#[test]
fn webhooks_become_deliveries_or_a_dead_letter_with_the_refusal() {
    let plugin = plugin();
    let judged = |webhooks| judge(&ran(&plugin, 0, Ok(webhooks)), &endpoints(), NOW);
    assert!(matches!(judged(vec![webhook(Vec::new())]), RunOutcome::Produced(made) if made.len() == 1));
    assert!(matches!(judged(Vec::new()), RunOutcome::Produced(made) if made.is_empty()));
    let reserved = webhook(vec![("host".to_owned(), "elsewhere".to_owned())]);
    match judged(vec![webhook(Vec::new()), reserved]) {
        RunOutcome::Dead { reason: Reason::HeaderReserved, detail } => assert!(detail.contains("host"), "{detail}"),
        other => panic!("{other:?}"),
    }
}

/// An outbox over a fake store, with one run in the pool's memory.
struct Scene {
    store: Arc<FakeStore>,
    pool: Arc<Pool>,
    pressure: Arc<Pressure>,
    plugin: Arc<Plugin>,
    outbox: Outbox,
}

async fn scene() -> Scene {
    let store = FakeStore::new();
    let shared: Arc<dyn Store> = Arc::<FakeStore>::clone(&store);
    let clock: Arc<dyn Clock> = ManualClock::starting_at(NOW);
    let pressure = Arc::new(Pressure::new(16));
    let metrics = Arc::new(Metrics::new("test").unwrap());
    let plugin = plugin();
    let pool = Pool::new(
        Arc::clone(&shared),
        Arc::clone(&clock),
        Arc::clone(&pressure),
        Services::default(),
        Workers::computing(1),
    );
    pool.install(Arc::clone(&plugin));
    for (name, limit) in pool.wants(NOW).claims {
        Arc::clone(&pool).claim(name, limit).await;
    }
    assert_eq!(pool.offer("orders", &fixture::event("{}")), Claim::Here);
    let dispatcher = Dispatcher::new(
        HashMap::new(),
        Arc::clone(&shared),
        Arc::clone(&clock),
        Arc::clone(&pressure),
        Arc::clone(&metrics),
    );
    let outbox = Outbox {
        store: shared,
        pool: Arc::clone(&pool),
        state: Arc::new(InMemory::default()),
        dispatcher,
        endpoints: Arc::new(endpoints()),
        metrics,
        plugin_metrics: HashMap::new(),
        clock,
    };
    Scene { store, pool, pressure, plugin, outbox }
}

impl Scene {
    /// Completes one run of that result, to its end.
    async fn complete(self, result: Result<Vec<Webhook>, CallFailure>) -> Self {
        let ran = ran(&self.plugin, 0, result);
        self.end(ran).await
    }

    async fn end(self, ran: Ran) -> Self {
        let Self { store, pool, pressure, plugin, outbox } = self;
        let (metrics, endpoints) = (Arc::clone(&outbox.metrics), Arc::clone(&outbox.endpoints));
        let (dispatcher, clock) = (Arc::clone(&outbox.dispatcher), Arc::clone(&outbox.clock));
        let (sender, receiver) = mpsc::channel(1);
        sender.send(ran).await.unwrap();
        drop(sender);
        outbox.run(receiver).await;
        let outbox = Outbox {
            store: Arc::<FakeStore>::clone(&store),
            pool: Arc::clone(&pool),
            state: Arc::new(InMemory::default()),
            dispatcher,
            endpoints,
            metrics,
            plugin_metrics: HashMap::new(),
            clock,
        };
        Self { store, pool, pressure, plugin, outbox }
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_can_not_be_committed_is_kept_and_tried_again() {
    let scene = scene().await;
    scene.store.fail("complete_runs", 3);
    let scene = scene.complete(Ok(vec![webhook(Vec::new())])).await;
    assert_eq!(scene.store.calls("complete_runs"), 4);
    assert_eq!(scene.store.look(|seen| seen.completions.len()), 1);
    assert_eq!((scene.pool.is_idle(), scene.pressure.weight()), (true, 0));
}

/// Nothing of its result is kept, and it stays in the memory, to be called before all others.
#[tokio::test]
async fn a_run_whose_state_has_changed_is_called_again() {
    let scene = scene().await;
    scene.store.look(|seen| seen.conflicts = 1);
    let mut again = ran(&scene.plugin, 0, Ok(vec![webhook(Vec::new())]));
    again.report.state = Some(Arc::new(StateChange { reads: vec![("count".into(), None)], writes: Vec::new() }));
    let scene = scene.end(again).await;
    assert_eq!(scene.store.look(|seen| seen.completions.len()), 0);
    assert_eq!(scene.outbox.metrics.plugin("orders").state_conflicts.get(), 1);
    assert!(!scene.pool.is_idle());
    assert_eq!(scene.pool.stop(), [(EventSeq(1), "orders".into())]);
}

#[tokio::test]
async fn a_run_to_be_tried_again_is_claimed_when_it_falls_due() {
    let scene = scene().await.complete(Err(CallFailure::Deadline("why".to_owned()))).await;
    let wanted = scene.pool.wants(NOW);
    assert_eq!(wanted.next_due, Some(NOW.plus(Duration::from_secs(1))));
    assert!(wanted.claims.is_empty());
    assert_eq!(scene.pool.wants(NOW.plus(Duration::from_secs(1))).claims.len(), 1);
    assert_eq!(scene.pressure.weight(), 0);
}

#[tokio::test]
async fn outcomes_are_counted_by_name() {
    let count = |scene: &Scene, look: fn(&PluginMetrics) -> u64| look(&scene.outbox.metrics.plugin("orders"));
    let scene = scene().await.complete(Ok(vec![webhook(Vec::new())])).await;
    let scene = scene.complete(Ok(Vec::new())).await;
    let scene = scene.complete(Err(CallFailure::Retry("later".to_owned()))).await;
    let scene = scene.complete(Err(CallFailure::Trap("broken".to_owned()))).await;
    assert_eq!(count(&scene, |it| it.produced.get()), 1);
    assert_eq!(count(&scene, |it| it.filtered.get()), 1);
    assert_eq!(count(&scene, |it| it.retrying.get()), 1);
    assert_eq!(count(&scene, |it| it.dead.get()), 1);
    assert_eq!(count(&scene, |it| it.duration.get_sample_count()), 4);
    assert_eq!(scene.outbox.metrics.died(), 1);
}

/// A scene with a lane called `shop` that takes deliveries directly.
async fn scene_with_lane() -> (Scene, mpsc::Receiver<crate::dispatcher::lane::Attempted>) {
    let (attempted, attempts) = mpsc::channel(1);
    let mut scene = scene().await;
    let lane = crate::dispatcher::tests::lane("shop", "http://127.0.0.1:9/hook", 1, &SystemClock::shared(), attempted);
    scene.outbox.dispatcher = Dispatcher::new(
        HashMap::from([("shop".into(), lane)]),
        Arc::<FakeStore>::clone(&scene.store),
        SystemClock::shared(),
        Arc::clone(&scene.pressure),
        Arc::clone(&scene.outbox.metrics),
    );
    for (name, limit) in scene.outbox.dispatcher.wants(NOW).claims {
        Arc::clone(&scene.outbox.dispatcher).claim(name, limit).await;
    }
    (scene, attempts)
}

/// The run was claimed by another host meanwhile: what it wrote is that host's to deliver.
#[tokio::test]
async fn places_reserved_for_a_disowned_run_s_deliveries_are_given_back() {
    let (scene, _attempts) = scene_with_lane().await;
    scene.store.look(|seen| seen.disowned = true);
    let scene = scene.complete(Ok(vec![webhook(Vec::new())])).await;
    let claims = scene.store.look(|seen| match &seen.completions[0].outcome {
        RunOutcome::Produced(deliveries) => deliveries.iter().map(|delivery| delivery.claim).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    });
    assert_eq!(claims, [Claim::Here], "there was room in the lane");
    assert!(scene.outbox.dispatcher.is_idle());
    assert_eq!(scene.pressure.weight(), 0);
    let counted = scene.outbox.metrics.plugin("orders");
    assert_eq!((counted.produced.get(), counted.duration.get_sample_count()), (0, 0), "whoever has it counts it");
}

/// What waits for its turn, and what its backlog has no room for, is not in the lane's memory.
#[tokio::test]
async fn places_reserved_for_what_the_store_keeps_are_given_back() {
    let id = DeliveryId::derive(&fixture::event("{}").key, "orders", "shop", Distinct::Index(0), 0);
    for (place, died) in [(Place::Behind, 0), (Place::Dead, 1), (Place::Open, 0)] {
        let (scene, _attempts) = scene_with_lane().await;
        scene.store.look(|seen| seen.places.insert(id.as_str().to_owned(), place));
        let scene = scene.complete(Ok(vec![webhook(Vec::new())])).await;
        assert!(scene.outbox.dispatcher.is_idle(), "{place:?}");
        assert_eq!((scene.pressure.weight(), scene.outbox.metrics.died()), (0, died), "{place:?}");
        let claims = scene.outbox.dispatcher.wants(NOW).claims.len();
        assert_eq!(claims, usize::from(place == Place::Open), "{place:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_a_run_s_end_gives_work_to_claims_it() {
    let (scene, _attempts) = scene_with_lane().await;
    scene.store.look(|seen| seen.freed = vec!["shop".into()]);
    let scene = scene.complete(Err(CallFailure::Trap("broken".to_owned()))).await;
    assert_eq!(scene.outbox.dispatcher.wants(NOW).claims.len(), 1);
}

/// An outbox at work, fed by hand, over a store that completes what it is permitted to.
struct Fed {
    store: Arc<FakeStore>,
    plugin: Arc<Plugin>,
    sender: mpsc::Sender<Ran>,
    outbox: tokio::task::JoinHandle<()>,
    sent: i64,
}

impl Fed {
    async fn new() -> Self {
        let Scene { store, plugin, outbox, .. } = scene().await;
        let (sender, receiver) = mpsc::channel(1);
        Self { store, plugin, sender, outbox: tokio::spawn(outbox.run(receiver)), sent: 0 }
    }

    /// Sends a run of its own, and lets the outbox do what it can.
    async fn send(&mut self, state: Option<Arc<StateChange>>) {
        self.sent += 1;
        let mut ran = ran(&self.plugin, 0, Ok(Vec::new()));
        ran.run.seq = EventSeq(self.sent);
        ran.report.state = state;
        self.sender.send(ran).await.unwrap();
        self.settle().await;
    }

    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Batches given to the store so far, failed ones too.
    fn begun(&self) -> usize {
        self.store.calls("complete_runs")
    }

    /// Which runs became durable, in that order, once the outbox has ended.
    async fn end(self) -> Vec<i64> {
        drop(self.sender);
        self.outbox.await.unwrap();
        self.store.look(|seen| seen.completions.iter().map(|completion| completion.seq.0).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_does_not_wait_for_the_commit_of_the_one_before_it() {
    let mut fed = Fed::new().await;
    let permits = fed.store.hold_back("complete_runs");
    for begun in 1..=BATCHES_IN_FLIGHT_MAX {
        fed.send(None).await;
        assert_eq!(fed.begun(), begun);
    }
    fed.send(None).await;
    assert_eq!(fed.begun(), BATCHES_IN_FLIGHT_MAX, "there is no room for one more");
    permits.add_permits(1);
    fed.settle().await;
    assert_eq!(fed.begun(), BATCHES_IN_FLIGHT_MAX + 1);
    permits.add_permits(BATCHES_IN_FLIGHT_MAX);
    let sent = fed.sent;
    assert_eq!(fed.end().await, (1..=sent).collect::<Vec<_>>());
}

#[test]
fn what_is_in_flight_is_bounded_in_batches_and_in_runs() {
    assert_eq!(room(0, 0, false), BATCH_RUNS_MAX);
    assert_eq!(room(4, RUNS_IN_FLIGHT_MAX - 10, false), 10);
    assert_eq!(room(5, RUNS_IN_FLIGHT_MAX, false), 0);
    assert_eq!(room(BATCHES_IN_FLIGHT_MAX, BATCHES_IN_FLIGHT_MAX, false), 0);
    assert_eq!((room(1, 1, true), room(0, 0, true)), (0, BATCH_RUNS_MAX));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_is_tried_again_and_those_behind_it_are_not() {
    let mut fed = Fed::new().await;
    let permits = fed.store.hold_back("complete_runs");
    fed.send(None).await;
    fed.send(None).await;
    fed.store.fail("complete_runs", 1);
    permits.add_permits(3);
    let (store, durable) = (Arc::clone(&fed.store), fed.end().await);
    assert_eq!((durable, store.calls("complete_runs")), (vec![2, 1], 3));
}

#[tokio::test(start_paused = true)]
async fn what_plugins_keep_is_written_in_turn() {
    let mut fed = Fed::new().await;
    let permits = fed.store.hold_back("complete_runs");
    let state = || Some(Arc::new(StateChange { reads: Vec::new(), writes: Vec::new() }));
    fed.send(None).await;
    fed.send(state()).await;
    assert_eq!(fed.begun(), 1, "one that writes state waits for those before it");
    permits.add_permits(1);
    fed.settle().await;
    assert_eq!(fed.begun(), 2);
    fed.send(None).await;
    assert_eq!(fed.begun(), 2, "and those behind it wait for it");
    fed.store.fail("complete_runs", 1);
    permits.add_permits(3);
    assert_eq!(fed.end().await, [1, 2, 3]);
}
