use bytes::Bytes;
use futures::FutureExt as _;
use tempfile::TempDir;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::event::decode::Fields;
use crate::handover::refill::Refill as _;
use crate::plugin::pool::Workers;
use crate::plugin::{Manifest, Plugin, Services, fixture};
use crate::store::fake::FakeStore;
use crate::store::{BacklogBounds, EventSeq, KnownPlugin};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const EVENT_BYTES_MAX: usize = 100 * 1024;
const PRESSURE_MAX: usize = 4;

struct Scene {
    inbox: Inbox,
    store: Arc<FakeStore>,
    _cache: TempDir,
}

/// An inbox that routes `a.*` to `orders`, which is loaded, and `b.*` to `gone`, which is not. Nothing runs.
async fn scene() -> Scene {
    let store = FakeStore::new();
    let shared: Arc<dyn Store> = Arc::<FakeStore>::clone(&store);
    let clock: Arc<dyn Clock> = ManualClock::starting_at(NOW);
    let pressure = Arc::new(Pressure::new(PRESSURE_MAX));
    let metrics = Arc::new(Metrics::new("test").unwrap());
    let pool = Pool::new(
        Arc::clone(&shared),
        Arc::clone(&clock),
        Arc::clone(&pressure),
        Services::default(),
        Workers::computing(1),
    );
    let (engine, cache) = fixture::engine();
    let orders = Plugin::load(&engine, "orders", &fixture::guest("(i32.const 1024)"), Manifest::default()).unwrap();
    pool.install(Arc::new(orders));
    let known = [("orders", "a.*"), ("gone", "b.*")].map(|(name, subject)| KnownPlugin {
        name: name.into(),
        subjects: vec![subject.to_owned()],
        digest: "d".into(),
    });
    let routes = Arc::new(SharedRoutes::default());
    routes.set(Routes::new(&known, |name| name == "orders"));
    let dispatcher = Dispatcher::new(
        HashMap::new(),
        Arc::clone(&shared),
        Arc::clone(&clock),
        Arc::clone(&pressure),
        Arc::clone(&metrics),
    );
    let sources = HashMap::from([(
        "bus".into(),
        Intake { fields: Fields::default(), raw_subjects: false, metrics: metrics.source("bus") },
    )]);
    let inbox = Inbox {
        store: shared,
        pool,
        dispatcher,
        pressure,
        gate: Arc::default(),
        routes,
        clock,
        metrics,
        sources,
        event_bytes_max: EVENT_BYTES_MAX,
        once: Once::new("start".to_owned()),
        unrouted: None,
        turn: tokio::sync::Mutex::default(),
    };
    let scene = Scene { inbox, store, _cache: cache };
    scene.look().await;
    scene
}

fn message(subject: &str, position: Option<&str>, payload: impl Into<Bytes>) -> Message {
    Message {
        subject: subject.into(),
        payload: payload.into(),
        headers: Vec::new(),
        position: position.map(str::to_owned),
    }
}

impl Scene {
    async fn accept(&self, messages: Vec<Message>) -> Result<Vec<Acceptance>, AcceptError> {
        self.inbox.accept(&"bus".into(), messages).await
    }

    async fn accept_one(&self, subject: &str, position: Option<&str>, payload: impl Into<Bytes>) -> Acceptance {
        self.accept(vec![message(subject, position, payload)]).await.unwrap()[0]
    }

    /// Lets the pool look into the store.
    async fn look(&self) {
        for (name, limit) in self.inbox.pool.wants(NOW).claims {
            Arc::clone(&self.inbox.pool).claim(name, limit).await;
        }
    }

    /// A run of `orders` is over.
    fn left(&self) {
        self.inbox.pool.left("orders", &fixture::event("{}"));
    }

    fn weight(&self) -> usize {
        self.inbox.pressure.weight()
    }

    fn arrival(&self, index: usize) -> Arrival {
        self.store.look(|seen| seen.arrivals[index].clone())
    }

    fn starts(&self, index: usize) -> Vec<(Arc<str>, RunStart)> {
        match self.arrival(index) {
            Arrival::Event { runs, .. } => runs.into_iter().map(|run| (run.plugin, run.start)).collect(),
            Arrival::Dead(dead) => panic!("{dead:?}"),
        }
    }

    fn dead(&self, index: usize) -> DeadMessage {
        match self.arrival(index) {
            Arrival::Dead(dead) => dead,
            Arrival::Event { event, .. } => panic!("{event:?}"),
        }
    }

    fn dead_letters(&self, reason: Reason) -> bool {
        let text = String::from_utf8(self.inbox.metrics.encode().unwrap()).unwrap();
        text.lines().any(|line| line == format!("wirehook_dead_letters_total{{reason=\"{reason}\"}} 1"))
    }
}

#[tokio::test]
async fn a_fresh_event_goes_to_the_pool_in_accept_order() {
    let scene = scene().await;
    let accepted = scene.accept(vec![message("a.x", Some("1"), "{}"), message("a.y", Some("2"), "{}")]).await.unwrap();
    assert_eq!(accepted, [Acceptance::Fresh(EventSeq(1)), Acceptance::Fresh(EventSeq(2))]);
    assert_eq!(scene.weight(), 2);
    assert_eq!(scene.inbox.accepted(), 2);
    let left = scene.inbox.pool.stop();
    assert_eq!(left, [(EventSeq(1), "orders".into()), (EventSeq(2), "orders".into())]);
}

#[tokio::test]
async fn a_duplicate_and_a_conflict_give_their_place_back() {
    let scene = scene().await;
    scene.accept_one("a.x", Some("1"), "{}").await;
    scene.left();
    assert_eq!(scene.weight(), 0);

    assert_eq!(scene.accept_one("a.x", Some("1"), "{}").await, Acceptance::Duplicate);
    assert_eq!((scene.weight(), scene.inbox.accepted()), (0, 1), "a duplicate is not counted");

    assert_eq!(scene.accept_one("a.x", Some("1"), "{\"other\":1}").await, Acceptance::Conflict);
    assert_eq!((scene.weight(), scene.inbox.pool.is_idle()), (0, true));
    assert_eq!(scene.inbox.metrics.event_conflicts.get(), 1);
    assert!(scene.dead_letters(Reason::IdConflict));
}

#[tokio::test]
async fn a_run_that_its_backlog_has_no_room_for_is_counted_and_gives_its_place_back() {
    let scene = scene().await;
    scene.store.look(|seen| seen.full.insert("orders"));
    assert_eq!(scene.accept_one("a.x", Some("1"), "{}").await, Acceptance::Fresh(EventSeq(1)));
    assert_eq!((scene.weight(), scene.inbox.pool.is_idle(), scene.inbox.accepted()), (0, true, 1));
    assert!(scene.dead_letters(Reason::BacklogFull));
}

#[tokio::test]
async fn only_a_plugin_with_something_to_keep_in_order_has_keys() {
    let scene = scene().await;
    let bounds = BacklogBounds { count: 7, bytes: 8 };
    let terms = |scene: &Scene, index| match scene.arrival(index) {
        Arrival::Event { runs, event } => (runs[0].terms, OrderKey::of(&event, "orders")),
        Arrival::Dead(dead) => panic!("{dead:?}"),
    };
    let order = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created",
      "entity_id":"550e8400-e29b-41d4-a716-446655440000","entity":{},"timestamp":"2026-03-02T14:00:00Z"}"#;
    for (index, ordered) in [false, true].into_iter().enumerate() {
        let known = KnownPlugin { name: "orders".into(), subjects: vec![">".to_owned()], digest: "d".into() };
        scene.inbox.routes.set(Routes::new(&[known], |_| true).on_terms(|_| (ordered, bounds)));
        scene.accept_one("a.x", Some(&index.to_string()), order).await;
        let (found, key) = terms(&scene, index);
        assert!(key.is_some(), "the event names its entity");
        assert_eq!(found, RunTerms { order: key.filter(|_| ordered), backlog: bounds });
    }
}

#[tokio::test]
async fn where_the_store_fails_nothing_is_handed_over_and_every_place_is_given_back() {
    let scene = scene().await;
    scene.store.fail("accept", 1);
    let failed = scene.accept(vec![message("a.x", Some("1"), "{}"), message("a.y", Some("2"), "{}")]).await;
    assert!(matches!(failed, Err(AcceptError::Store(_))), "{failed:?}");
    assert_eq!((scene.weight(), scene.inbox.pool.is_idle(), scene.inbox.accepted()), (0, true, 0));
    assert_eq!(scene.accept_one("a.x", Some("1"), "{}").await, Acceptance::Fresh(EventSeq(1)), "it comes again");
}

/// An event, and the same again: a place is reserved for each.
fn announced() -> Vec<Message> {
    vec![message("a.x", Some("1"), "{}"), message("a.x", Some("1"), "{}")]
}

#[tokio::test]
async fn what_is_announced_is_called_before_it_is_durable_and_counted_after() {
    let scene = scene().await;
    scene.store.look(|seen| seen.announces = true);
    let permits = scene.store.hold_back("accept");
    let mut accepting = Box::pin(scene.accept(announced()));
    assert!((&mut accepting).now_or_never().is_none(), "nothing is acknowledged yet");
    assert_eq!(scene.inbox.accepted(), 0);
    assert_eq!(scene.inbox.pool.stop(), [(EventSeq(1), "orders".into())], "the pool has it");
    permits.add_permits(1);
    assert_eq!(accepting.await.unwrap(), [Acceptance::Fresh(EventSeq(1)), Acceptance::Duplicate]);
    assert_eq!((scene.weight(), scene.inbox.accepted()), (1, 1));
    assert_eq!(scene.inbox.pool.stop(), [], "the pool got it once");
    scene.left();
    assert_eq!(scene.weight(), 0);
}

#[tokio::test]
async fn what_is_announced_and_not_accepted_gives_its_place_back_once() {
    let scene = scene().await;
    scene.store.look(|seen| seen.announces = true);
    scene.store.fail("accept", 1);
    let failed = scene.accept(announced()).await;
    assert!(matches!(failed, Err(AcceptError::Store(_))), "{failed:?}");
    assert_eq!((scene.weight(), scene.inbox.accepted()), (1, 0), "what is called has its place yet, and nothing else");
    scene.left();
    assert_eq!(scene.weight(), 0);
}

/// Batches that wait for room keep the order in which they came.
#[tokio::test]
async fn batches_reach_the_store_in_the_order_in_which_they_came() {
    let scene = scene().await;
    let batches = (0..20).map(|number| scene.accept(vec![message("c.x", Some(&number.to_string()), "{}")]));
    futures::future::try_join_all(batches.collect::<Vec<_>>()).await.unwrap();
    let keys: Vec<_> = (0..20).map(|index| event_key(&scene.arrival(index)).to_string()).collect();
    assert_eq!(keys, (0..20).map(|number| format!("bus/position/{number}")).collect::<Vec<_>>());
}

/// A large event takes the room of several, and gives all of it back.
#[tokio::test]
async fn an_event_presses_by_its_size() {
    let scene = scene().await;
    let large = format!("{{\"fill\":\"{}\"}}", "x".repeat(2 * crate::handover::WEIGHT_BYTES));
    scene.accept_one("a.x", Some("1"), large.clone()).await;
    assert_eq!(scene.weight(), 3);
    assert_eq!(scene.accept_one("a.x", Some("1"), large).await, Acceptance::Duplicate);
    assert_eq!(scene.weight(), 3);
}

#[tokio::test]
async fn an_event_that_nobody_subscribes_to_is_counted() {
    let scene = scene().await;
    assert_eq!(scene.accept_one("c.x", Some("1"), "{}").await, Acceptance::Fresh(EventSeq(1)));
    assert_eq!((scene.inbox.metrics.events_unrouted.get(), scene.weight()), (1, 0));
    assert_eq!(scene.starts(0), []);
    scene.accept_one("a.x", Some("2"), "{}").await;
    assert_eq!(scene.inbox.metrics.events_unrouted.get(), 1);
}

#[tokio::test]
async fn a_run_of_a_plugin_that_is_not_loaded_is_parked() {
    let scene = scene().await;
    scene.accept_one("b.x", Some("1"), "{}").await;
    assert_eq!(scene.starts(0), [("gone".into(), RunStart::Parked)]);
    assert_eq!((scene.weight(), scene.inbox.metrics.events_unrouted.get()), (0, 0));
}

#[tokio::test]
async fn a_message_over_the_limit_is_a_dead_letter_with_its_beginning() {
    let scene = scene().await;
    let mut payload = vec![b' '; EVENT_BYTES_MAX + 1];
    payload[0] = b'{';
    assert_eq!(scene.accept_one("a.x", Some("1"), payload.clone()).await, Acceptance::Dead);
    let dead = scene.dead(0);
    assert_eq!((dead.reason, dead.key.as_str()), (Reason::TooLarge, "bus/position/1"));
    assert_eq!(dead.payload, &payload[..64 * 1024]);
    assert_eq!(dead.body_digest, body_digest(&payload), "the digest is the whole message's");
    for part in ["102401 bytes", "102400 bytes", "[limits] event"] {
        assert!(dead.detail.contains(part), "`{}` does not say `{part}`", dead.detail);
    }
    assert!(scene.dead_letters(Reason::TooLarge));
    assert_eq!((scene.weight(), scene.inbox.accepted()), (0, 1));

    let at_the_limit = format!("{{\"fill\":\"{}\"}}", "x".repeat(EVENT_BYTES_MAX - 11));
    assert_eq!(at_the_limit.len(), EVENT_BYTES_MAX);
    assert!(matches!(scene.accept_one("a.x", Some("2"), at_the_limit).await, Acceptance::Fresh(_)));
}

#[tokio::test]
async fn a_message_that_can_not_be_decoded_is_a_dead_letter_with_its_bytes() {
    let scene = scene().await;
    let payload = "x".repeat(80 * 1024);
    assert_eq!(scene.accept_one("a.x", None, payload.clone()).await, Acceptance::Dead);
    let dead = scene.dead(0);
    assert_eq!((dead.reason, &dead.payload[..]), (Reason::Undecodable, payload.as_bytes()));
    assert!(!dead.detail.is_empty());
    assert!(scene.dead_letters(Reason::Undecodable));
}

#[tokio::test]
async fn messages_without_any_identity_are_events_of_their_own() {
    let scene = scene().await;
    for _ in 0..2 {
        assert!(matches!(scene.accept_one("a.x", None, "{}").await, Acceptance::Fresh(_)));
    }
    for _ in 0..2 {
        scene.accept_one("a.x", None, "no JSON").await;
    }
    let keys: HashSet<_> = (0..4).map(|index| event_key(&scene.arrival(index)).clone()).collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| key.as_str().starts_with("bus/once/start-")), "{keys:?}");
}

/// The pool is asked to claim what the inbox left in the store, else it would lie there until the next look.
#[tokio::test]
async fn what_a_spilled_queue_leaves_to_the_store_is_claimed_from_it() {
    let scene = scene().await;
    scene.inbox.pool.shed(0);
    scene.accept_one("a.x", Some("1"), "{}").await;
    assert_eq!(scene.starts(0), [("orders".into(), RunStart::Pending(Claim::Open))]);
    assert!(scene.inbox.pool.is_idle());
    scene.look().await;
    assert_eq!(scene.inbox.pool.stop(), [(EventSeq(1), "orders".into())]);
}

/// The claim that runs meanwhile can't have seen what was not committed yet.
#[tokio::test]
async fn what_is_left_to_the_store_behind_a_claim_under_way_is_claimed_too() {
    let scene = scene().await;
    scene.inbox.pool.shed(0);
    let pool = Arc::clone(&scene.inbox.pool);
    let claim = move || {
        for (name, limit) in pool.wants(NOW).claims {
            Arc::clone(&pool).claim(name, limit).now_or_never().expect("the fake store answers at once");
        }
    };
    scene.store.look(|seen| seen.before.insert("accept", Box::new(claim)));
    scene.accept_one("a.x", Some("1"), "{}").await;
    scene.look().await;
    assert_eq!(scene.inbox.pool.stop(), [(EventSeq(1), "orders".into())]);
}

/// Time is paused: the wait is over when nothing else can happen.
#[tokio::test(start_paused = true)]
async fn intake_waits_for_room_and_then_leaves_the_rest_to_the_store() {
    let scene = scene().await;
    for number in 0..PRESSURE_MAX {
        scene.accept_one("a.x", Some(&number.to_string()), "{}").await;
    }
    assert_eq!(scene.weight(), PRESSURE_MAX);
    scene.accept_one("a.x", Some("one more"), "{}").await;
    assert_eq!(scene.starts(PRESSURE_MAX), [("orders".into(), RunStart::Pending(Claim::Open))]);
    assert_eq!(scene.weight(), 0, "the queue was shed");
}

#[tokio::test]
async fn intake_goes_on_directly_as_soon_as_there_is_room() {
    let scene = scene().await;
    for number in 0..PRESSURE_MAX {
        scene.accept_one("a.x", Some(&number.to_string()), "{}").await;
    }
    let (accepted, ()) = tokio::join!(scene.accept_one("a.x", Some("one more"), "{}"), async {
        scene.left();
    });
    assert!(matches!(accepted, Acceptance::Fresh(_)));
    assert_eq!(scene.starts(PRESSURE_MAX), [("orders".into(), RunStart::Pending(Claim::Here))]);
}

#[tokio::test]
async fn a_recognised_event_keeps_the_subject_of_its_bus_where_that_is_asked_for() {
    const PAGE: &str = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created","entity":{}}"#;
    let check = async |raw_subjects: bool, expected: &str| {
        let mut scene = scene().await;
        scene.inbox.sources.get_mut("bus").unwrap().raw_subjects = raw_subjects;
        scene.accept_one("entity.change.Order", None, PAGE).await;
        let Arrival::Event { event, .. } = scene.arrival(0) else { panic!("no event") };
        assert_eq!(event.subject, expected);
    };
    check(false, "fraiseql.order.created").await;
    check(true, "entity.change.Order").await;
}

#[tokio::test]
async fn a_cursor_is_kept_with_the_messages_that_lead_to_it() {
    let scene = scene().await;
    let source: Arc<str> = "bus".into();
    assert_eq!(scene.inbox.cursor(&source).await.unwrap(), None);
    let messages = vec![message("a.b", Some("1"), "{}")];
    scene.inbox.accept_at(&source, messages, Some("at 1".into())).await.unwrap();
    assert_eq!(scene.inbox.cursor(&source).await.unwrap(), Some("at 1".into()));
    scene.inbox.accept(&source, vec![message("a.b", Some("2"), "{}")]).await.unwrap();
    scene.inbox.accept_at(&source, Vec::new(), Some("at 2".into())).await.unwrap();
    assert_eq!(scene.inbox.cursor(&source).await.unwrap(), Some("at 2".into()));
}
