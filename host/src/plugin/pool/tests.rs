use super::*;
use crate::budget::Budget;
use crate::clock::{ManualClock, SystemClock};
use crate::handover::refill::Refill;
use crate::plugin::compiler::Compiler;
use crate::plugin::limits::Limits;
use crate::plugin::{Engine, Manifest, fixture};
use crate::store::fake::{DEADLINE, FakeStore};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Instructions that return no webhook at once.
const QUICK: &str = "(i32.const 1024)";
/// Instructions that only the deadline ends.
const LOOP: &str = "(loop (br 0)) (unreachable)";
/// How long they loop, in CPU time: as long as hundreds of quick calls.
const LOOP_DEADLINE: Duration = Duration::from_millis(200);

struct Scene {
    pool: Arc<Pool>,
    store: Arc<FakeStore>,
    pressure: Arc<Pressure>,
    clock: Arc<ManualClock>,
    engine: Arc<Engine>,
    _cache: TempDir,
}

fn scene(workers: usize) -> Scene {
    scene_within(workers, Budget::unbounded())
}

fn scene_within(workers: usize, budget: Arc<Budget>) -> Scene {
    let cache = tempfile::tempdir().unwrap();
    let engine =
        Engine::new(workers, &cache.path().join("compiled"), Compiler::InProcess, SystemClock::shared()).unwrap();
    let (store, clock) = (FakeStore::new(), ManualClock::starting_at(NOW));
    let pressure = Arc::new(Pressure::within(16, budget));
    let shared: Arc<dyn Store> = Arc::<FakeStore>::clone(&store);
    let services = Services::default();
    let pool = Pool::new(
        shared,
        Arc::<ManualClock>::clone(&clock),
        Arc::clone(&pressure),
        services,
        Workers::computing(workers),
    );
    Scene { pool, store, pressure, clock, engine, _cache: cache }
}

impl Scene {
    fn install(&self, name: &str, body: &str) {
        self.install_limited(name, body, Limits::default().calls_at_once_max);
    }

    fn install_limited(&self, name: &str, body: &str, calls_at_once_max: usize) {
        let limits = Limits { deadline: LOOP_DEADLINE, calls_at_once_max, ..Limits::default() };
        let manifest = Manifest { limits, ..Manifest::default() };
        self.pool.install(Arc::new(Plugin::load(&self.engine, name, &fixture::guest(body), manifest).unwrap()));
    }

    /// Lets every queue look into the store, so that it is direct.
    async fn look(&self) {
        for (name, limit) in self.pool.wants(NOW).claims {
            Arc::clone(&self.pool).claim(name, limit).await;
        }
    }

    /// Hands over runs as the inbox does.
    fn hand_over(&self, plugin: &str, seqs: std::ops::Range<i64>) {
        let runs: Vec<_> = seqs.map(|seq| run(plugin, seq)).collect();
        runs.iter().for_each(|_| assert_eq!(self.pool.offer(plugin, &event()), Claim::Here));
        self.pool.enqueue(runs);
    }
}

fn event() -> Event {
    fixture::event("{}")
}

fn run(plugin: &str, seq: i64) -> ClaimedRun {
    let event = Arc::new(event());
    ClaimedRun { seq: EventSeq(seq), event, plugin: plugin.into(), attempts_made: 0, deadlines: 0, crashes: 0 }
}

async fn next(reports: &mut mpsc::Receiver<Ran>) -> Ran {
    tokio::time::timeout(DEADLINE, reports.recv()).await.expect("a call ends").expect("the workers are up")
}

async fn join(threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap()));
    tokio::time::timeout(DEADLINE, joined).await.expect("the workers end").unwrap();
}

/// What plugins returned is in memory until it is durable.
#[tokio::test]
async fn no_plugin_is_called_while_there_is_no_room_for_what_it_may_return() {
    let scene = scene_within(2, Budget::new(1 << 20));
    scene.install("quick", QUICK);
    scene.look().await;
    let others = scene.pressure.budget().account(Kind::Results);
    scene.hand_over("quick", 0..2);
    others.take_anyway(1 << 20);
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();
    let waits = async {
        while !lock(&scene.pool.state).wants_room {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waits).await.expect("a worker looks for room");
    assert!(reports.try_recv().is_err(), "it was called all the same");
    // As when the outcome of another call is durable.
    others.give(1 << 20);
    scene.pool.wake_all();
    for _ in 0..2 {
        let Ran { run, room, .. } = next(&mut reports).await;
        drop(room);
        scene.pool.done(&run.plugin, &run.event);
    }
    assert_eq!(Kind::ALL.map(|kind| scene.pressure.budget().usage(kind).used), [0; 4]);
    scene.pool.stop();
    join(threads).await;
}

/// Counted in calls, so that a busy machine changes nothing.
#[tokio::test]
async fn a_plugin_that_loops_gets_no_more_time_than_one_that_is_quick() {
    let scene = scene(1);
    scene.install("a-loop", LOOP);
    scene.install("quick", QUICK);
    scene.look().await;
    scene.hand_over("a-loop", 0..20);
    scene.hand_over("quick", 100..120);
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();
    let (mut loops, mut quick) = (0, 0);
    while quick < 20 {
        match &*next(&mut reports).await.run.plugin {
            "quick" => quick += 1,
            _ => loops += 1,
        }
    }
    // One before anything is known of either, and one more should the quick calls together have taken as long.
    assert!(loops <= 2, "{loops} loops ran before 20 quick calls");
    scene.pool.stop();
    join(threads).await;
}

#[tokio::test]
async fn a_flood_of_long_calls_leaves_a_worker_to_the_others() {
    const PROVEN: i64 = 20;
    const QUICK_CALLS: i64 = 6;
    let scene = scene(2);
    scene.install("a-loop", LOOP);
    scene.install("quick", QUICK);
    scene.look().await;
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();
    scene.hand_over("quick", 0..PROVEN);
    for _ in 0..PROVEN {
        next(&mut reports).await;
    }
    scene.hand_over("a-loop", 100..130);
    // Looked at for as long as it takes two loops to end.
    let (mut loops, mut at_once) = (0, 0);
    while loops < 2 {
        at_once = at_once.max(lock(&scene.pool.state).queues["a-loop"].share.running());
        match reports.try_recv() {
            Ok(ran) => loops += usize::from(&*ran.run.plugin == "a-loop"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    assert_eq!(at_once, 1, "of two workers, one is left to quick calls");

    let mut loops = 0;
    for seq in 200..200 + QUICK_CALLS {
        scene.hand_over("quick", seq..seq + 1);
        while &*next(&mut reports).await.run.plugin != "quick" {
            loops += 1;
        }
    }
    assert!(loops < QUICK_CALLS / 2, "{QUICK_CALLS} quick calls waited for {loops} loops");
    scene.pool.stop();
    join(threads).await;
}

#[tokio::test]
async fn a_plugin_has_no_more_calls_under_way_than_its_limit() {
    let scene = scene(4);
    scene.install_limited("a-loop", LOOP, 2);
    scene.install("quick", QUICK);
    scene.look().await;
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();
    scene.hand_over("a-loop", 0..6);
    let (mut loops, mut at_once) = (0, 0);
    while loops < 4 {
        at_once = at_once.max(lock(&scene.pool.state).queues["a-loop"].share.running());
        match reports.try_recv() {
            Ok(_) => loops += 1,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    assert_eq!(at_once, 2, "three workers would have been free for it");
    scene.hand_over("quick", 100..101);
    while &*next(&mut reports).await.run.plugin != "quick" {}
    scene.pool.stop();
    join(threads).await;
}

#[tokio::test]
async fn after_a_stop_no_call_begins_and_every_run_is_accounted_for() {
    let scene = scene(1);
    scene.install("quick", QUICK);
    scene.look().await;
    scene.hand_over("quick", 0..50);
    let (sender, mut reports) = mpsc::channel(1);
    let threads = scene.pool.start(&sender).unwrap();
    drop(sender);
    let mut seqs = vec![next(&mut reports).await.run.seq.0];
    // A full channel holds up the worker, so that some are left.
    let left = scene.pool.stop();
    assert!(!left.is_empty());
    while let Some(ran) = reports.recv().await {
        seqs.push(ran.run.seq.0);
    }
    join(threads).await;
    seqs.extend(left.into_iter().map(|(seq, _)| seq.0));
    assert_eq!(seqs, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_pressure_of_runs_returns_to_nothing() {
    let scene = scene(1);
    scene.install("quick", QUICK);
    scene.look().await;
    scene.hand_over("quick", 0..5);
    assert_eq!((scene.pressure.weight(), scene.pool.pressing_most(), scene.pool.is_idle()), (5, 5, false));
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();
    for _ in 0..5 {
        let ran = next(&mut reports).await;
        assert!(ran.report.result.is_ok_and(|webhooks| webhooks.is_empty()));
        scene.pool.left(&ran.run.plugin, &ran.run.event);
    }
    assert_eq!((scene.pressure.weight(), scene.pool.pressing_most(), scene.pool.is_idle()), (0, 0, true));
    scene.pool.stop();
    join(threads).await;
}

#[tokio::test]
async fn a_full_queue_and_an_unknown_plugin_leave_runs_to_the_store() {
    let scene = scene(1);
    scene.install("quick", QUICK);
    assert_eq!(scene.pool.offer("quick", &event()), Claim::Open, "nobody has looked into the store yet");
    scene.look().await;
    scene.look().await;
    assert_eq!(scene.pool.offer("nobody", &event()), Claim::Open);
    for _ in 0..RUNS_IN_MEMORY_MAX {
        assert_eq!(scene.pool.offer("quick", &event()), Claim::Here);
    }
    assert_eq!(scene.pool.offer("quick", &event()), Claim::Open);
    assert_eq!(scene.pressure.weight(), RUNS_IN_MEMORY_MAX);
}

#[tokio::test]
async fn the_queue_that_presses_most_is_shed_and_no_other() {
    let scene = scene(1);
    scene.install("flooded", QUICK);
    scene.install("quiet", QUICK);
    scene.look().await;
    scene.hand_over("flooded", 0..8);
    scene.hand_over("quiet", 100..101);
    scene.pool.shed(4);
    assert_eq!(scene.pressure.weight(), 1);
    assert_eq!(
        [scene.pool.offer("flooded", &event()), scene.pool.offer("quiet", &event())],
        [Claim::Open, Claim::Here]
    );
}

#[tokio::test]
async fn runs_are_claimed_from_the_store_and_a_claim_that_fails_is_tried_again() {
    let scene = scene(1);
    scene.install("quick", QUICK);
    scene.store.look(|seen| seen.runs.push_back((NOW, run("quick", 7))));
    scene.store.fail("claim_runs", 1);
    scene.look().await;
    assert!(scene.pool.is_idle());
    let wanted = scene.pool.wants(NOW);
    assert!(wanted.claims.is_empty(), "it is not tried again at once");
    assert_eq!(wanted.next_due, Some(NOW.plus(CLAIM_RETRY_DELAY)));

    scene.clock.advance(CLAIM_RETRY_DELAY);
    for (name, limit) in scene.pool.wants(scene.clock.now()).claims {
        Arc::clone(&scene.pool).claim(name, limit).await;
    }
    let left = scene.pool.stop();
    assert_eq!(left, [(EventSeq(7), "quick".into())]);
}

#[tokio::test]
async fn a_plugin_that_is_put_to_work_again_keeps_its_waiting_runs() {
    let scene = scene(1);
    scene.install("quick", LOOP);
    scene.look().await;
    scene.hand_over("quick", 0..3);
    scene.install("quick", QUICK);
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();
    for _ in 0..3 {
        assert!(next(&mut reports).await.report.result.is_ok());
    }
    scene.pool.stop();
    join(threads).await;
}

/// The others of its plugin wait until its outcome is durable; those of other plugins don't.
#[tokio::test]
async fn a_run_that_met_changed_state_twice_is_called_alone() {
    let scene = scene(2);
    scene.install("quick", QUICK);
    scene.install("other", QUICK);
    scene.look().await;
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();
    scene.hand_over("quick", 0..2);
    let (first, second) = (next(&mut reports).await, next(&mut reports).await);
    let met = first.run.seq;
    scene.pool.run_again(first.run, 2);
    scene.hand_over("quick", 2..4);
    scene.hand_over("other", 100..101);
    assert_eq!(&*next(&mut reports).await.run.plugin, "other", "while the second's outcome is not durable");
    scene.pool.done("quick", &second.run.event);
    let alone = next(&mut reports).await;
    assert_eq!((alone.run.seq, alone.conflicts), (met, 2));
    scene.hand_over("other", 101..102);
    assert_eq!(&*next(&mut reports).await.run.plugin, "other", "while the lone one's outcome is not durable");
    scene.pool.done("quick", &alone.run.event);
    let mut rest = [next(&mut reports).await.run.seq, next(&mut reports).await.run.seq];
    rest.sort();
    assert_eq!(rest, [EventSeq(2), EventSeq(3)]);
    scene.pool.stop();
    join(threads).await;
}

/// What may have taken a host down is called with nothing beside it, in any plugin, until its outcome is durable.
#[tokio::test]
async fn suspects_are_called_alone_one_by_one_and_the_others_between_them() {
    let scene = scene(2);
    scene.install("quick", QUICK);
    scene.install("other", QUICK);
    scene.look().await;
    let suspect = |plugin, seq, crashes| ClaimedRun { crashes, ..run(plugin, seq) };
    for plugin in ["quick", "other"] {
        assert_eq!(scene.pool.offer(plugin, &event()), Claim::Here);
    }
    // In the store's order the one that ended two hosts comes first.
    scene.pool.enqueue([suspect("quick", 1, 2), suspect("other", 2, 1)]);
    scene.hand_over("other", 100..103);
    let (sender, mut reports) = mpsc::channel(64);
    let threads = scene.pool.start(&sender).unwrap();

    let first = next(&mut reports).await;
    assert_eq!((first.run.seq, first.run.crashes), (EventSeq(2), 1), "who ended fewer hosts is called first");
    idle_for_a_while(&mut reports).await;
    scene.clock.advance(Duration::from_secs(3));
    scene.pool.done("other", &first.run.event);
    // The others have as long as they waited; the suspect comes when they have nothing left to do, or after that.
    let mut between = Vec::new();
    for _ in 0..3 {
        between.push(next(&mut reports).await);
    }
    assert!(between.iter().all(|ran| ran.run.crashes == 0));
    idle_for_a_while(&mut reports).await;
    for ran in between {
        scene.pool.done("other", &ran.run.event);
    }
    let second = next(&mut reports).await;
    assert_eq!((second.run.seq, second.run.crashes), (EventSeq(1), 2));
    scene.hand_over("other", 103..104);
    idle_for_a_while(&mut reports).await;
    scene.pool.done("quick", &second.run.event);
    assert_eq!(next(&mut reports).await.run.seq, EventSeq(103));
    scene.pool.stop();
    join(threads).await;
}

/// No call ends, and so none was begun: these calls take microseconds, and the workers have their turns.
async fn idle_for_a_while(reports: &mut mpsc::Receiver<Ran>) {
    for _ in 0..2_000 {
        assert!(reports.try_recv().is_err(), "a call was made beside one that was to be alone");
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_suspect_whose_plugin_is_taken_from_work_or_that_is_not_called_before_a_stop_is_given_back() {
    let scene = scene(1);
    scene.install("quick", QUICK);
    scene.install("other", QUICK);
    scene.look().await;
    for plugin in ["quick", "other"] {
        assert_eq!(scene.pool.offer(plugin, &event()), Claim::Here);
        scene.pool.enqueue([ClaimedRun { crashes: 1, ..run(plugin, 7) }]);
    }
    assert_eq!(scene.pool.remove("quick"), [(EventSeq(7), "quick".into())]);
    assert_eq!(scene.pool.stop(), [(EventSeq(7), "other".into())]);
}
