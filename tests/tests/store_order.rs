//! Order over simulated time: random work, failures, crashes and redrives, and at every attempt nothing that precedes it
//! is unfinished. In the end everything has had its turn.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use wirehook::clock::{Clock as _, ManualClock, Timestamp};
use wirehook::dead_letter::Reason;
use wirehook::delivery::{DeliveryId, Transition};
use wirehook::event::OrderKey;
use wirehook::settings::Synchronous;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{
    Acceptance, Arrival, Backlog, Claim, ClaimedDelivery, Completed, DeadLetterFilter, DeliverySeq, DeliveryTerms,
    EventSeq, KnownPlugin, NewDelivery, NewRun, Place, RunOutcome, RunStart, RunTerms, Spends, Store,
};
use wirehook_tests::conformance::store::{START, attempt, completion, delivery, event};

const ENDPOINTS: [&str; 2] = ["shop", "crm"];
const RETRY_DELAY: Duration = Duration::from_millis(120);

/// Rounds in which everything succeeds, after which nothing may be left.
const ROUNDS_MAX: usize = 2_000;

#[derive(Clone, Debug)]
enum Step {
    Accept { key: u8, start: RunStart },
    ClaimRuns { limit: usize },
    EndRun { pick: usize, end: RunEnd },
    ClaimDeliveries { endpoint: usize, limit: usize },
    Attempt { pick: usize, end: AttemptEnd },
    Release { pick: usize },
    Redrive { limit: u32 },
    Expire { endpoint: usize },
    Park,
    Unpark,
    Crash,
    Wait,
}

#[derive(Clone, Copy, Debug)]
enum RunEnd {
    /// Webhooks for each endpoint.
    Produced {
        counts: [u8; 2],
        claim: Claim,
    },
    Retry,
    Dead,
    Parked,
}

#[derive(Clone, Copy, Debug)]
enum AttemptEnd {
    Delivered,
    Retry,
    Deferred,
    Dead,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let claim = || prop_oneof![3 => Just(Claim::Here), 1 => Just(Claim::Open)];
    let start = prop_oneof![9 => claim().prop_map(RunStart::Pending), 1 => Just(RunStart::Parked)];
    let run_end = prop_oneof![
        7 => (0..3_u8, 0..2_u8, claim()).prop_map(|(a, b, claim)| RunEnd::Produced { counts: [a, b], claim }),
        2 => Just(RunEnd::Retry),
        1 => Just(RunEnd::Dead),
        1 => Just(RunEnd::Parked),
    ];
    let attempt_end = prop_oneof![
        8 => Just(AttemptEnd::Delivered),
        3 => Just(AttemptEnd::Retry),
        2 => Just(AttemptEnd::Deferred),
        2 => Just(AttemptEnd::Dead),
    ];
    let step = prop_oneof![
        10 => (0..3_u8, start).prop_map(|(key, start)| Step::Accept { key, start }),
        3 => (1..5_usize).prop_map(|limit| Step::ClaimRuns { limit }),
        10 => (any::<usize>(), run_end).prop_map(|(pick, end)| Step::EndRun { pick, end }),
        6 => (0..2_usize, 1..4_usize).prop_map(|(endpoint, limit)| Step::ClaimDeliveries { endpoint, limit }),
        12 => (any::<usize>(), attempt_end).prop_map(|(pick, end)| Step::Attempt { pick, end }),
        1 => any::<usize>().prop_map(|pick| Step::Release { pick }),
        1 => (1..3_u32).prop_map(|limit| Step::Redrive { limit }),
        1 => (0..2_usize).prop_map(|endpoint| Step::Expire { endpoint }),
        1 => Just(Step::Park),
        1 => Just(Step::Unpark),
        1 => Just(Step::Crash),
        5 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

/// A run or delivery in the model. One that is out of order has been redriven.
#[derive(Clone, Copy, Debug)]
struct Work {
    key: u8,
    open: bool,
    in_order: bool,
}

struct Host<'p> {
    path: &'p Path,
    store: Option<SqliteStore>,
    clock: Arc<ManualClock>,
    now: Timestamp,
    runs: BTreeMap<EventSeq, Work>,
    /// With the position of its event; positions of deliveries of one run stand in the plugin's order.
    deliveries: BTreeMap<DeliverySeq, (EventSeq, &'static str, Work)>,
    by_id: HashMap<DeliveryId, DeliverySeq>,
    /// What this host holds, and would lose in a crash.
    held_runs: Vec<EventSeq>,
    held: Vec<ClaimedDelivery>,
}

/// Nothing here cuts the power, so that commits need not wait for the disk.
fn open(path: &Path, clock: &Arc<ManualClock>, now: Timestamp) -> SqliteStore {
    let clock = Arc::<ManualClock>::clone(clock);
    let options = SqliteOptions { clock, synchronous: Synchronous::Normal, ..SqliteOptions::new(path) };
    SqliteStore::open(options, now).unwrap()
}

impl Host<'_> {
    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Accept { key, start } => self.accept(key, start).await,
            Step::ClaimRuns { limit } => self.claim_runs(limit).await,
            Step::EndRun { pick, end } if !self.held_runs.is_empty() => {
                let seq = self.held_runs.swap_remove(pick % self.held_runs.len());
                self.end_run(seq, end).await;
            }
            Step::ClaimDeliveries { endpoint, limit } => self.claim_deliveries(ENDPOINTS[endpoint], limit).await,
            Step::Attempt { pick, end } if !self.held.is_empty() => {
                let delivery = self.held.swap_remove(pick % self.held.len());
                self.attempt(delivery, end).await;
            }
            Step::Release { pick } if !self.held.is_empty() => {
                let delivery = self.held.swap_remove(pick % self.held.len());
                self.store().release(Vec::new(), vec![delivery.seq]).await.unwrap();
            }
            Step::Redrive { limit } => self.redrive(limit).await,
            Step::Expire { endpoint } => self.expire(ENDPOINTS[endpoint]).await,
            Step::Park => drop(self.store().park_runs("orders".into()).await.unwrap()),
            Step::Unpark => self.unpark().await,
            Step::Crash => self.crash(),
            Step::Wait => self.pass(Duration::from_millis(50)),
            Step::EndRun { .. } | Step::Attempt { .. } | Step::Release { .. } => {}
        }
    }

    async fn accept(&mut self, key: u8, start: RunStart) {
        let id = self.runs.len().to_string();
        let terms = RunTerms { order: Some(OrderKey(i64::from(key))), ..RunTerms::default() };
        let runs = vec![NewRun { plugin: "orders".into(), start, terms }];
        let arrival = Arrival::Event { event: Arc::new(event(&id)), runs };
        let Acceptance::Fresh(seq) = self.store().accept(vec![arrival], self.now).await.unwrap()[0] else { panic!() };
        self.runs.insert(seq, Work { key, open: true, in_order: true });
        if start == RunStart::Pending(Claim::Here) {
            self.held_runs.push(seq);
        }
    }

    async fn claim_runs(&mut self, limit: usize) {
        let claimed = self.store().claim_runs("orders".into(), limit, self.now).await.unwrap();
        self.held_runs.extend(claimed.work.iter().map(|run| run.seq));
    }

    async fn end_run(&mut self, seq: EventSeq, end: RunEnd) {
        let (outcome, ends) = match end {
            RunEnd::Produced { counts, claim } => (RunOutcome::Produced(webhooks(seq, counts, claim)), true),
            RunEnd::Retry => (
                RunOutcome::Retry { spends: Spends::Retry, due_at: self.now.plus(RETRY_DELAY), detail: String::new() },
                false,
            ),
            RunEnd::Dead => (RunOutcome::Dead { reason: Reason::PluginTrap, detail: String::new() }, true),
            RunEnd::Parked => (RunOutcome::Parked, false),
        };
        let new = match &outcome {
            RunOutcome::Produced(new) => new.clone(),
            _ => Vec::new(),
        };
        let completed = self.store().complete_runs(vec![completion(seq, "orders", self.now, outcome)]).await.unwrap();
        let Completed::Ended(written) = &completed[0] else { panic!("{completed:?}") };
        let run = self.runs.get_mut(&seq).unwrap();
        run.open = !ends;
        let work = Work { open: true, ..*run };
        for ((new, delivery), place) in new.into_iter().zip(&written.deliveries).zip(&written.places) {
            let endpoint = ENDPOINTS.into_iter().find(|name| **name == *new.endpoint).unwrap();
            self.deliveries.insert(*delivery, (seq, endpoint, work));
            self.by_id.insert(new.id.clone(), *delivery);
            assert_ne!(*place, Place::Dead);
            if *place == Place::Here {
                self.hold(held_of(*delivery, &new));
            }
        }
    }

    async fn claim_deliveries(&mut self, endpoint: &str, limit: usize) {
        let claimed = self.store().claim_deliveries(endpoint.into(), limit, self.now).await.unwrap();
        assert!(claimed.next_due.is_none_or(|due_at| due_at < Timestamp(i64::MAX)));
        claimed.work.into_iter().for_each(|delivery| self.hold(delivery));
    }

    /// Whatever this host holds it may attempt at once: nothing that precedes it may be unfinished.
    fn hold(&mut self, delivery: ClaimedDelivery) {
        let (event, endpoint, work) = self.deliveries[&delivery.seq];
        assert!(work.open, "{delivery:?} has ended");
        assert!(self.held.iter().all(|held| held.seq != delivery.seq), "{delivery:?} is held already");
        if work.in_order {
            let precedes = |other: &Work| other.open && other.in_order && other.key == work.key;
            let run = self.runs.iter().find(|(seq, run)| **seq < event && precedes(run));
            assert!(run.is_none(), "{delivery:?} of {event:?} goes before the run {run:?}");
            let earlier = self.deliveries.iter().find(|(seq, (of, to, other))| {
                *to == endpoint && (*of, **seq) < (event, delivery.seq) && precedes(other)
            });
            assert!(earlier.is_none(), "{delivery:?} of {event:?} goes before {earlier:?}");
        }
        self.held.push(delivery);
    }

    async fn attempt(&mut self, delivery: ClaimedDelivery, end: AttemptEnd) {
        let transition = match end {
            AttemptEnd::Delivered => Transition::Delivered,
            AttemptEnd::Retry => Transition::Retry { due_at: self.now.plus(RETRY_DELAY) },
            AttemptEnd::Deferred => Transition::Deferred { due_at: self.now.plus(RETRY_DELAY) },
            AttemptEnd::Dead => Transition::Dead { reason: Reason::Status4xx },
        };
        let record = attempt(delivery.seq, delivery.attempts_made + 1, self.now, transition);
        let next = self.store().record_attempts(vec![record.clone()]).await.unwrap();
        assert_eq!(self.store().record_attempts(vec![record]).await.unwrap(), [], "once");
        self.deliveries.get_mut(&delivery.seq).unwrap().2.open =
            matches!(end, AttemptEnd::Retry | AttemptEnd::Deferred);
        next.into_iter().for_each(|delivery| self.hold(delivery));
    }

    async fn redrive(&mut self, limit: u32) {
        let letters = self.store().list_dead_letters(DeadLetterFilter::default()).await.unwrap();
        let filter = DeadLetterFilter { limit: Some(limit), ..DeadLetterFilter::default() };
        let redriven = self.store().redrive(filter, self.now).await.unwrap();
        let count = usize::try_from(redriven.total()).unwrap();
        // Oldest first; the list has the newest first.
        for letter in letters.iter().rev().take(count) {
            let number = |key: &str| key.rsplit('/').next().unwrap().parse::<usize>().unwrap();
            let seq = *self.runs.keys().nth(number(&letter.event_key)).unwrap();
            match &letter.delivery_id {
                None => {
                    let run = self.runs.get_mut(&seq).unwrap();
                    (run.open, run.in_order) = (true, false);
                }
                Some(id) => {
                    let (.., work) = self.deliveries.get_mut(&self.by_id[id]).unwrap();
                    (work.open, work.in_order) = (true, false);
                }
            }
        }
    }

    fn pass(&mut self, duration: Duration) {
        self.clock.advance(duration);
        self.now = self.clock.now();
    }

    async fn expire(&mut self, endpoint: &'static str) {
        let backlog = Backlog::Deliveries(endpoint.into());
        let dead = |letters: Vec<wirehook::store::DeadLetterSummary>| {
            letters.into_iter().filter(|letter| letter.reason == Reason::BacklogFull).map(|letter| letter.delivery_id)
        };
        let before: Vec<_> = dead(self.store().list_dead_letters(DeadLetterFilter::default()).await.unwrap()).collect();
        self.store().expire(backlog, Duration::from_millis(400), self.now).await.unwrap();
        let after = dead(self.store().list_dead_letters(DeadLetterFilter::default()).await.unwrap());
        for id in after.filter(|id| !before.contains(id)).flatten() {
            self.deliveries.get_mut(&self.by_id[&id]).unwrap().2.open = false;
        }
    }

    async fn unpark(&self) {
        let plugin = KnownPlugin { name: "orders".into(), subjects: vec![">".to_owned()], digest: "d1".into() };
        self.store().remember_plugin(plugin, self.now).await.unwrap();
    }

    fn crash(&mut self) {
        drop(self.store.take());
        self.store = Some(open(self.path, &self.clock, self.now));
        self.held.clear();
        self.held_runs.clear();
    }

    /// Everything succeeds from now on.
    async fn finish(&mut self) {
        self.unpark().await;
        for _ in 0..ROUNDS_MAX {
            self.pass(Duration::from_millis(200));
            self.claim_runs(100).await;
            while let Some(seq) = self.held_runs.pop() {
                self.end_run(seq, RunEnd::Produced { counts: [1, 1], claim: Claim::Here }).await;
            }
            for endpoint in ENDPOINTS {
                self.claim_deliveries(endpoint, 100).await;
            }
            while let Some(delivery) = self.held.pop() {
                self.attempt(delivery, AttemptEnd::Delivered).await;
            }
            if self.store().is_idle(ENDPOINTS.map(Into::into).to_vec()).await.unwrap() {
                return;
            }
        }
        panic!("something never has its turn: {:?}", self.deliveries);
    }
}

fn webhooks(seq: EventSeq, counts: [u8; 2], claim: Claim) -> Vec<NewDelivery> {
    let terms = DeliveryTerms { ordered: true, ..DeliveryTerms::default() };
    let each = ENDPOINTS.into_iter().zip(counts).flat_map(|(endpoint, count)| (0..count).map(move |_| endpoint));
    let new = each.zip(0..).map(|(endpoint, index)| NewDelivery {
        terms,
        id: DeliveryId::from_stored(format!("{}/{endpoint}/{index}", seq.0)),
        ..delivery("x", "orders", endpoint, index, claim)
    });
    new.collect()
}

fn held_of(seq: DeliverySeq, new: &NewDelivery) -> ClaimedDelivery {
    ClaimedDelivery {
        seq,
        id: new.id.clone(),
        event_key: wirehook::event::EventKey::new("bus", "id", "x"),
        plugin: "orders".into(),
        endpoint: Arc::clone(&new.endpoint),
        content_type: new.content_type.clone(),
        headers: new.headers.clone(),
        body: new.body.clone(),
        due_at: START,
        attempts_made: 0,
        attempts_before_budget: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_goes_before_what_precedes_it_and_everything_has_its_turn(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let clock = ManualClock::starting_at(START);
        let store = Some(open(&path, &clock, START));
        let mut host = Host {
            path: &path,
            store,
            clock,
            now: START,
            runs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            by_id: HashMap::new(),
            held_runs: Vec::new(),
            held: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for step in steps {
                host.step(step).await;
            }
            host.finish().await;
        });
    }
}
