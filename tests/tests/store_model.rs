//! Random work on the store, beside a model small enough to be read: after every step both count the same.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

#[path = "store_model/operators.rs"]
mod operators;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use rusqlite::Connection;
use wirehook::clock::{Clock as _, ManualClock, Timestamp};
use wirehook::dead_letter::Reason;
use wirehook::delivery::Transition;
use wirehook::settings::Synchronous;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{
    Acceptance, Claim, Completed, DeadLetterFilter, DeliverySeq, DeliveryVerb, EventSeq, KnownPlugin, ParkedFate,
    Retention, RunOutcome, RunStart, Spends, Store,
};
use wirehook_tests::conformance::store::{
    START, arrival, attempt, completion, dead_message, delivery, event_with_body,
};

const PLUGINS: [&str; 2] = ["orders", "invoices"];

#[derive(Clone, Debug)]
enum Step {
    Accept { key: u8, body: bool, plugins: u8, start: RunStart },
    AcceptDead,
    ClaimRuns { plugin: usize, limit: usize },
    EndRun { pick: usize, end: RunEnd },
    ClaimDeliveries { limit: usize },
    Attempt { pick: usize, end: AttemptEnd },
    Release { pick: usize },
    Redrive { limit: Option<u32> },
    Discard { limit: Option<u32> },
    Change { verb: DeliveryVerb },
    Park { plugin: usize },
    Forget { plugin: usize, fate: ParkedFate },
    Purge { key: u8 },
    Remember { plugin: usize },
    Sweep,
    Reopen,
    Wait,
}

#[derive(Clone, Copy, Debug)]
enum RunEnd {
    Produced { count: u32, claim: Claim },
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
    let claim = || prop_oneof![Just(Claim::Here), Just(Claim::Open)];
    let start = prop_oneof![claim().prop_map(RunStart::Pending), Just(RunStart::Parked)];
    let run_end = prop_oneof![
        4 => (0..3_u32, claim()).prop_map(|(count, claim)| RunEnd::Produced { count, claim }),
        1 => Just(RunEnd::Retry),
        1 => Just(RunEnd::Dead),
        1 => Just(RunEnd::Parked),
    ];
    let attempt_end = prop_oneof![
        Just(AttemptEnd::Delivered),
        Just(AttemptEnd::Retry),
        Just(AttemptEnd::Deferred),
        Just(AttemptEnd::Dead)
    ];
    let limit = || prop_oneof![Just(None), (0..3_u32).prop_map(Some)];
    let step = prop_oneof![
        6 => (0..12_u8, any::<bool>(), 0..4_u8, start)
            .prop_map(|(key, body, plugins, start)| Step::Accept { key, body, plugins, start }),
        1 => Just(Step::AcceptDead),
        3 => (0..2_usize, 0..4_usize).prop_map(|(plugin, limit)| Step::ClaimRuns { plugin, limit }),
        6 => (any::<usize>(), run_end).prop_map(|(pick, end)| Step::EndRun { pick, end }),
        3 => (0..4_usize).prop_map(|limit| Step::ClaimDeliveries { limit }),
        6 => (any::<usize>(), attempt_end).prop_map(|(pick, end)| Step::Attempt { pick, end }),
        2 => any::<usize>().prop_map(|pick| Step::Release { pick }),
        2 => limit().prop_map(|limit| Step::Redrive { limit }),
        1 => limit().prop_map(|limit| Step::Discard { limit }),
        1 => prop_oneof![Just(DeliveryVerb::Retry), Just(DeliveryVerb::Discard)].prop_map(|verb| Step::Change { verb }),
        1 => (0..2_usize).prop_map(|plugin| Step::Park { plugin }),
        1 => (0..2_usize, prop_oneof![Just(ParkedFate::Die), Just(ParkedFate::Discard)])
            .prop_map(|(plugin, fate)| Step::Forget { plugin, fate }),
        1 => (0..12_u8).prop_map(|key| Step::Purge { key }),
        1 => (0..2_usize).prop_map(|plugin| Step::Remember { plugin }),
        1 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
        3 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..80)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Work {
    state: &'static str,
    attempts: u32,
    before_budget: u32,
    due_at: Timestamp,
    held: bool,
    ended_at: Timestamp,
}

impl Work {
    fn new(state: &'static str, due_at: Timestamp, held: bool) -> Self {
        Self { state, attempts: 0, before_budget: 0, due_at, held, ended_at: Timestamp(0) }
    }

    fn waits(&self) -> bool {
        matches!(self.state, "pending" | "retrying")
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.waits() && !self.held && self.due_at <= now
    }

    fn end(&mut self, state: &'static str, now: Timestamp) {
        *self = Self { state, held: false, ended_at: now, ..*self };
    }

    fn revive(&mut self, now: Timestamp) {
        *self = Self { state: "pending", before_budget: self.attempts, due_at: now, held: false, ..*self };
    }
}

#[derive(Clone, Copy, Debug)]
enum Letter {
    /// When it died, and its key where it is a conflict.
    Message(Timestamp, Option<u8>),
    Run(EventSeq, &'static str),
    Delivery(DeliverySeq),
}

type RunName = (EventSeq, &'static str);

#[derive(Default)]
struct Model {
    now: Timestamp,
    keys: BTreeMap<u8, bool>,
    conflicts: BTreeSet<u8>,
    messages: u8,
    events: BTreeMap<EventSeq, (u8, Timestamp)>,
    runs: BTreeMap<RunName, Work>,
    deliveries: BTreeMap<DeliverySeq, (RunName, Work)>,
    letters: Vec<Letter>,
}

struct Harness<'p> {
    path: &'p Path,
    store: Option<SqliteStore>,
    clock: Arc<ManualClock>,
    model: Model,
}

/// Nothing here cuts the power, so that commits need not wait for the disk.
fn open(path: &Path, clock: &Arc<ManualClock>, now: Timestamp) -> SqliteStore {
    let clock = Arc::<ManualClock>::clone(clock);
    let options = SqliteOptions { clock, synchronous: Synchronous::Normal, ..SqliteOptions::new(path) };
    SqliteStore::open(options, now).unwrap()
}

/// The one that `pick` names among those that qualify.
fn pick<T: Copy>(all: impl Iterator<Item = T>, pick: usize) -> Option<T> {
    let all: Vec<T> = all.collect();
    if all.is_empty() { None } else { Some(all[pick % all.len()]) }
}

impl Harness<'_> {
    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Accept { key, body, plugins, start } => self.accept(key, body, plugins, start).await,
            Step::AcceptDead => self.accept_dead().await,
            Step::ClaimRuns { plugin, limit } => self.claim_runs(PLUGINS[plugin], limit).await,
            Step::EndRun { pick, end } => self.end_run(pick, end).await,
            Step::ClaimDeliveries { limit } => self.claim_deliveries(limit).await,
            Step::Attempt { pick, end } => self.attempt(pick, end).await,
            Step::Release { pick } => self.release(pick).await,
            Step::Redrive { limit } => self.redrive(limit).await,
            Step::Discard { limit } => self.discard(limit).await,
            Step::Change { verb } => self.change(verb).await,
            Step::Park { plugin } => self.park(PLUGINS[plugin]).await,
            Step::Forget { plugin, fate } => self.forget(PLUGINS[plugin], fate).await,
            Step::Purge { key } => self.purge(key).await,
            Step::Remember { plugin } => self.remember(PLUGINS[plugin]).await,
            Step::Sweep => self.sweep().await,
            Step::Reopen => self.reopen(),
            Step::Wait => {
                self.clock.advance(Duration::from_millis(50));
                self.model.now = self.clock.now();
            }
        }
    }

    async fn accept(&mut self, key: u8, body: bool, plugins: u8, start: RunStart) {
        let subscribed: Vec<&'static str> =
            (0..2).filter(|bit| plugins & (1 << bit) != 0).map(|bit| PLUGINS[bit]).collect();
        let arrived = arrival(event_with_body(&key.to_string(), &body.to_string()), &subscribed, start);
        let acceptance = self.store().accept(vec![arrived], self.model.now).await.unwrap()[0];
        let model = &mut self.model;
        match model.keys.get(&key) {
            Some(known) if *known == body => assert_eq!(acceptance, Acceptance::Duplicate),
            Some(_) => {
                assert_eq!(acceptance, Acceptance::Conflict);
                if model.conflicts.insert(key) {
                    model.letters.push(Letter::Message(model.now, Some(key)));
                }
            }
            None => {
                let Acceptance::Fresh(seq) = acceptance else { panic!("{acceptance:?}") };
                model.keys.insert(key, body);
                model.events.insert(seq, (key, model.now));
                let (state, held) = match start {
                    RunStart::Pending(claim) => ("pending", claim == Claim::Here),
                    RunStart::Parked => ("parked", false),
                };
                for plugin in subscribed {
                    model.runs.insert((seq, plugin), Work::new(state, model.now, held));
                }
            }
        }
    }

    async fn accept_dead(&mut self) {
        self.model.messages += 1;
        let message = dead_message(&self.model.messages.to_string(), b"{");
        assert_eq!(self.store().accept(vec![message], self.model.now).await.unwrap(), [Acceptance::Dead]);
        self.model.letters.push(Letter::Message(self.model.now, None));
    }

    async fn claim_runs(&mut self, plugin: &'static str, limit: usize) {
        let now = self.model.now;
        let claimed = self.store().claim_runs(plugin.into(), limit, now).await.unwrap();
        let open = |(name, work): (&RunName, &Work)| {
            (name.1 == plugin && work.waits() && !work.held).then_some((work.due_at, name.0))
        };
        let mut open: Vec<_> = self.model.runs.iter().filter_map(open).collect();
        open.sort_unstable();
        let due = open.iter().filter(|(due_at, _)| *due_at <= now).take(limit).count();
        let expected: Vec<_> = open.drain(..due).map(|(_, seq)| seq).collect();
        assert_eq!(claimed.work.iter().map(|run| run.seq).collect::<Vec<_>>(), expected);
        assert_eq!(claimed.next_due, open.first().map(|(due_at, _)| *due_at));
        for run in claimed.work {
            let work = self.model.runs.get_mut(&(run.seq, plugin)).unwrap();
            assert_eq!(run.attempts_made, work.attempts - work.before_budget);
            work.held = true;
        }
    }

    /// Ends any run there ever was: the store must mind only what is held.
    async fn end_run(&mut self, choice: usize, end: RunEnd) {
        let held = self.model.runs.iter().filter(|(_, work)| work.held).map(|(name, _)| *name);
        let any = || self.model.runs.keys().copied();
        let Some(name) = (if choice.is_multiple_of(5) { pick(any(), choice) } else { pick(held, choice) }) else {
            return;
        };
        let now = self.model.now;
        let id = self.model.events[&name.0].0.to_string();
        let outcome = match end {
            RunEnd::Produced { count, claim } => {
                RunOutcome::Produced((0..count).map(|index| delivery(&id, name.1, "shop", index, claim)).collect())
            }
            RunEnd::Retry => RunOutcome::Retry {
                spends: Spends::Retry,
                due_at: now.plus(Duration::from_millis(60)),
                detail: String::new(),
            },
            RunEnd::Dead => RunOutcome::Dead { reason: Reason::PluginTrap, detail: String::new() },
            RunEnd::Parked => RunOutcome::Parked,
        };
        let written = self.store().complete_runs(vec![completion(name.0, name.1, now, outcome)]).await.unwrap();
        let work = self.model.runs.get_mut(&name).unwrap();
        if !work.held {
            assert_eq!(written, [Completed::NotHeld]);
            return;
        }
        work.attempts += u32::from(!matches!(end, RunEnd::Parked));
        match end {
            RunEnd::Produced { count, claim } => {
                assert_eq!(written[0].deliveries().len(), count as usize);
                work.end(if count == 0 { "filtered" } else { "produced" }, now);
                for seq in written[0].deliveries() {
                    let new = (name, Work::new("pending", now, claim == Claim::Here));
                    assert!(self.model.deliveries.insert(*seq, new).is_none(), "a position is given once");
                }
            }
            RunEnd::Retry => {
                work.end("retrying", now);
                work.due_at = now.plus(Duration::from_millis(60));
            }
            RunEnd::Dead => {
                work.end("dead", now);
                self.model.letters.push(Letter::Run(name.0, name.1));
            }
            RunEnd::Parked => work.end("parked", now),
        }
    }

    async fn claim_deliveries(&mut self, limit: usize) {
        let now = self.model.now;
        let claimed = self.store().claim_deliveries("shop".into(), limit, now).await.unwrap();
        let due = self.model.deliveries.iter().filter(|(_, (_, work))| work.is_due(now));
        let mut due: Vec<_> = due.map(|(seq, (_, work))| (work.due_at, *seq)).collect();
        due.sort_unstable();
        let expected: Vec<_> = due.into_iter().take(limit).map(|(_, seq)| seq).collect();
        assert_eq!(claimed.work.iter().map(|delivery| delivery.seq).collect::<Vec<_>>(), expected);
        for delivery in claimed.work {
            let (_, work) = self.model.deliveries.get_mut(&delivery.seq).unwrap();
            assert_eq!((delivery.attempts_made, delivery.attempts_before_budget), (work.attempts, work.before_budget));
            work.held = true;
        }
    }

    /// Records an attempt of any delivery, and records it again.
    async fn attempt(&mut self, choice: usize, end: AttemptEnd) {
        let held = self.model.deliveries.iter().filter(|(_, (_, work))| work.held).map(|(seq, _)| *seq);
        let any = || self.model.deliveries.keys().copied();
        let Some(seq) = (if choice.is_multiple_of(5) { pick(any(), choice) } else { pick(held, choice) }) else {
            return;
        };
        let now = self.model.now;
        let due_at = now.plus(Duration::from_millis(80));
        let transition = match end {
            AttemptEnd::Delivered => Transition::Delivered,
            AttemptEnd::Retry => Transition::Retry { due_at },
            AttemptEnd::Deferred => Transition::Deferred { due_at },
            AttemptEnd::Dead => Transition::Dead { reason: Reason::Status4xx },
        };
        let number = self.model.deliveries[&seq].1.attempts + 1;
        let record = attempt(seq, number, now, transition);
        self.store().record_attempts(vec![record.clone(), record.clone()]).await.unwrap();
        self.store().record_attempts(vec![record]).await.unwrap();
        let work = &mut self.model.deliveries.get_mut(&seq).unwrap().1;
        if !work.held {
            return;
        }
        if let AttemptEnd::Deferred = end {
            (work.held, work.due_at) = (false, due_at);
            return;
        }
        work.attempts += 1;
        match end {
            AttemptEnd::Deferred => unreachable!("it is none"),
            AttemptEnd::Delivered => work.end("delivered", now),
            AttemptEnd::Retry => {
                work.end("retrying", now);
                work.due_at = due_at;
            }
            AttemptEnd::Dead => {
                work.end("dead", now);
                self.model.letters.push(Letter::Delivery(seq));
            }
        }
    }

    async fn release(&mut self, choice: usize) {
        let run = pick(self.model.runs.keys().copied(), choice);
        let delivery = pick(self.model.deliveries.keys().copied(), choice);
        let runs = run.iter().map(|(seq, plugin)| (*seq, (*plugin).into())).collect();
        self.store().release(runs, delivery.into_iter().collect()).await.unwrap();
        if let Some(work) = run.and_then(|name| self.model.runs.get_mut(&name)) {
            work.held = false;
        }
        if let Some((_, work)) = delivery.and_then(|seq| self.model.deliveries.get_mut(&seq)) {
            work.held = false;
        }
    }

    async fn redrive(&mut self, limit: Option<u32>) {
        let filter = DeadLetterFilter { limit, ..DeadLetterFilter::default() };
        let redriven = self.store().redrive(filter, self.model.now).await.unwrap();
        let model = &mut self.model;
        let mut counted = (0, 0, 0);
        let meant = limit.map_or(usize::MAX, |limit| limit as usize).min(model.letters.len());
        let rest = model.letters.split_off(meant);
        for letter in std::mem::replace(&mut model.letters, rest).into_iter().rev() {
            match letter {
                Letter::Message(..) => {
                    counted.2 += 1;
                    model.letters.insert(0, letter);
                }
                Letter::Run(seq, plugin) => {
                    counted.0 += 1;
                    model.runs.get_mut(&(seq, plugin)).unwrap().revive(model.now);
                }
                Letter::Delivery(seq) => {
                    counted.1 += 1;
                    model.deliveries.get_mut(&seq).unwrap().1.revive(model.now);
                }
            }
        }
        assert_eq!((redriven.runs, redriven.deliveries, redriven.refused), counted);
    }

    async fn discard(&mut self, limit: Option<u32>) {
        let filter = DeadLetterFilter { limit, ..DeadLetterFilter::default() };
        let discarded = self.store().discard(filter).await.unwrap();
        let meant = limit.map_or(usize::MAX, |limit| limit as usize).min(self.model.letters.len());
        assert_eq!(discarded, meant as u64);
        let letters: Vec<_> = self.model.letters.drain(..meant).collect();
        letters.into_iter().for_each(|letter| self.model.discard(letter));
    }

    async fn park(&mut self, plugin: &'static str) {
        let parked = self.store().park_runs(plugin.into()).await.unwrap();
        let open = self.model.runs.iter_mut().filter(|(name, work)| name.1 == plugin && work.waits() && !work.held);
        assert_eq!(parked, open.map(|(_, work)| work.state = "parked").count() as u64);
    }

    async fn remember(&mut self, plugin: &'static str) {
        let known = KnownPlugin { name: plugin.into(), subjects: Vec::new(), digest: "d".into() };
        let now = self.model.now;
        let unparked = self.store().remember_plugin(known, now).await.unwrap();
        let parked = self.model.runs.iter_mut().filter(|(name, work)| name.1 == plugin && work.state == "parked");
        let back = parked.map(|(_, work)| (work.state, work.due_at) = ("pending", now));
        assert_eq!(unparked, back.count() as u64);
    }

    async fn sweep(&mut self) {
        let retention = Retention { delivered: Duration::ZERO, dead: Duration::ZERO, dedup: Duration::MAX };
        while self.store().sweep(retention).await.unwrap() {}
        self.model.sweep();
    }

    fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(open(self.path, &self.clock, self.model.now));
        self.model.runs.values_mut().for_each(|work| work.held = false);
        self.model.deliveries.values_mut().for_each(|(_, work)| work.held = false);
    }

    async fn check(&self) {
        let status = self.store().status(self.model.now).await.unwrap();
        assert_eq!(status.events_unaccounted, 0);
        assert_eq!(status.events, self.model.events.len() as u64);
        assert_eq!(status.dead_letters.iter().map(|count| count.count).sum::<u64>(), self.model.letters.len() as u64);
        let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (name, work) in &self.model.runs {
            *expected.entry((name.1.to_owned(), work.state.to_owned())).or_default() += 1;
        }
        for (_, work) in self.model.deliveries.values() {
            *expected.entry(("shop".to_owned(), work.state.to_owned())).or_default() += 1;
        }
        let runs = status.runs.into_iter().map(|count| ((count.plugin, count.state), count.count));
        let deliveries = status.deliveries.into_iter();
        let deliveries = deliveries.map(|count| ((count.endpoint, count.state.as_str().to_owned()), count.count));
        assert_eq!(runs.chain(deliveries).collect::<BTreeMap<_, _>>(), expected);
        let idle =
            !self.model.runs.values().chain(self.model.deliveries.values().map(|(_, work)| work)).any(Work::waits);
        assert_eq!(self.store().is_idle(vec!["shop".into()]).await.unwrap(), idle);
    }
}

impl Model {
    fn discard(&mut self, letter: Letter) {
        match letter {
            // A conflict that is redelivered after its dead letter went is kept again.
            Letter::Message(_, key) => drop(key.map(|key| self.conflicts.remove(&key))),
            Letter::Run(seq, plugin) => self.runs.get_mut(&(seq, plugin)).unwrap().state = "discarded",
            Letter::Delivery(seq) => self.deliveries.get_mut(&seq).unwrap().1.state = "discarded",
        }
    }

    fn died_at(&self, letter: Letter) -> Timestamp {
        match letter {
            Letter::Message(at, _) => at,
            Letter::Run(seq, plugin) => self.runs[&(seq, plugin)].ended_at,
            Letter::Delivery(seq) => self.deliveries[&seq].1.ended_at,
        }
    }

    fn sweep(&mut self) {
        let before = self.now;
        let letters = std::mem::take(&mut self.letters);
        for letter in letters {
            if self.died_at(letter) < before { self.discard(letter) } else { self.letters.push(letter) }
        }
        let ended = |work: &Work| {
            matches!(work.state, "produced" | "filtered" | "discarded" | "delivered") && work.ended_at < before
        };
        let of = |seq: EventSeq, name: &RunName| name.0 == seq;
        let gone: Vec<EventSeq> = self
            .events
            .iter()
            .filter(|(_, (_, accepted_at))| *accepted_at < before)
            .map(|(seq, _)| *seq)
            .filter(|seq| self.runs.iter().filter(|(name, _)| of(*seq, name)).all(|(_, work)| ended(work)))
            .filter(|seq| self.deliveries.values().filter(|(name, _)| of(*seq, name)).all(|(_, work)| ended(work)))
            .collect();
        for seq in gone {
            self.events.remove(&seq);
            self.runs.retain(|name, _| !of(seq, name));
            self.deliveries.retain(|_, (name, _)| !of(seq, name));
        }
    }
}

/// The counts kept with the rows are the counts of the rows.
fn check_tally(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let list = |sql: &str| -> Vec<(String, String, String, i64)> {
        let mut select = connection.prepare(sql).unwrap();
        let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let counted = list(
        "SELECT 'dead_letter', reason, kind, count(*) FROM dead_letter GROUP BY reason, kind
         UNION ALL SELECT 'delivery', endpoint, state, count(*) FROM delivery GROUP BY endpoint, state
         UNION ALL SELECT 'event', '', iif(run_count > 0, 'routed', 'unrouted'), count(*) FROM event GROUP BY run_count > 0
         UNION ALL SELECT 'run', plugin, state, count(*) FROM run GROUP BY plugin, state
         UNION ALL SELECT 'run_bytes', plugin, 'open', sum(bytes) FROM run
           WHERE state IN ('pending', 'retrying', 'parked') GROUP BY plugin
         UNION ALL SELECT 'delivery_bytes', endpoint, 'open', sum(bytes) FROM delivery
           WHERE state IN ('pending', 'retrying') GROUP BY endpoint
         UNION ALL SELECT 'dead_letter_bytes', coalesce(endpoint, plugin, source), kind, sum(bytes) FROM dead_letter
           GROUP BY coalesce(endpoint, plugin, source), kind ORDER BY 1, 2, 3",
    );
    let kept = list("SELECT kind, name, state, count FROM tally WHERE count <> 0 ORDER BY 1, 2, 3");
    assert_eq!(kept, counted);
    let strays = "SELECT (SELECT count(*) FROM webhook WHERE delivery_seq NOT IN (SELECT seq FROM delivery))
      + (SELECT count(*) FROM attempt WHERE delivery_seq NOT IN (SELECT seq FROM delivery))
      + (SELECT count(*) FROM run WHERE event_seq NOT IN (SELECT seq FROM event))
      + (SELECT count(*) FROM delivery WHERE event_seq NOT IN (SELECT seq FROM event))";
    assert_eq!(connection.query_row(strays, (), |row| row.get::<_, i64>(0)).unwrap(), 0, "nothing is left behind");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let clock = ManualClock::starting_at(START);
        let store = Some(open(&path, &clock, START));
        let model = Model { now: START, ..Model::default() };
        let mut harness = Harness { path: &path, store, clock, model };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for step in steps {
                harness.step(step).await;
                harness.check().await;
            }
        });
        drop(harness);
        check_tally(&path);
    }
}
