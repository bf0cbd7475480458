//! Worker threads that call plugins, shared fairly by consumed time.

mod alone;
mod crew;
mod refill;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::budget::{Account, Kind, Permit};
use crate::clock::{Clock, Timestamp};
use crate::event::Event;
use crate::handover::quota::Quota;
use crate::handover::{Handover, Pressure, weight};
use crate::plugin::fair::{Share, is_long, may_join, may_start};
use crate::plugin::rollback::{Outcome, Standing, Verdict};
use crate::plugin::{CallFailure, CallReport, Plugin, Services};
use crate::store::{Begun, Claim, ClaimedRun, EventSeq, StateVersion, Store};
use crate::sync::lock;

use self::alone::{Alone, Turn};
use self::crew::Crew;
pub use self::crew::Workers;

/// The weight of one plugin's runs in memory at most, see [`weight`]; the rest wait in the store.
pub const RUNS_IN_MEMORY_MAX: usize = 2048;

/// After a claim that failed, how long until the next.
const CLAIM_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A run whose completion met changed state this often is next called while no other run of its plugin is under way, and
/// so can't meet it again.
const CONFLICTS_BEFORE_ALONE: u32 = 2;

/// A run that was called, and what came of it.
#[derive(Debug)]
pub struct Ran {
    /// The run.
    pub run: ClaimedRun,
    /// Calls before this one whose completion met changed state.
    pub conflicts: u32,
    /// The plugin that ran it.
    pub plugin: Arc<Plugin>,
    /// What it returned.
    pub report: CallReport,
    /// That it is under way until its outcome is durable.
    pub begun: Begun,
    /// What its result takes of the budget.
    pub room: Option<Permit>,
}

/// The plugins that can be called, their waiting runs, and the threads that call them.
pub struct Pool {
    state: Mutex<State>,
    /// One for each [`Crew`].
    work: [Condvar; 2],
    changed: Notify,
    condemned: Notify,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    pressure: Arc<Pressure>,
    services: Services,
    workers: Workers,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<Arc<str>, Queue>,
    /// The most that a plugin had consumed at its turn; never goes back, whoever is idle.
    turn_at: Duration,
    /// Calls under way that count as long, of each [`Crew`].
    long_running: [usize; 2],
    /// Builds that are to be taken from work.
    condemned: Vec<Arc<Plugin>>,
    /// Whether a run has the host for itself.
    alone: Alone,
    /// A run is not called because there is no room for its result.
    wants_room: bool,
    stopping: bool,
}

struct Queue {
    /// None while its file is gone.
    plugin: Option<Arc<Plugin>>,
    /// Who calls it.
    crew: Crew,
    waiting: VecDeque<Waiting>,
    /// Runs that were under way when a host ended: called while nothing else is, those with the fewest such ends first.
    suspects: Vec<Waiting>,
    /// Calls begun whose outcome is not durable yet.
    unfinished: usize,
    /// Whether the one call under way keeps the others waiting.
    alone: bool,
    /// How the present build does.
    standing: Standing,
    share: Share,
    handover: Handover,
    /// What its runs in memory hold in bytes.
    quota: Arc<Quota>,
    /// What its results hold in bytes.
    results: Arc<Account>,
    /// There is no room for another result of its for now; others may be called.
    passed_over: bool,
}

/// A run that is to be called.
struct NextCall {
    waiting: Waiting,
    plugin: Arc<Plugin>,
    /// What it is charged beforehand.
    charge: Duration,
    /// For the largest result that the plugin may return.
    room: Permit,
}

/// A run whose turn comes.
struct Waiting {
    run: ClaimedRun,
    conflicts: u32,
}

impl Pool {
    /// A pool without plugins whose threads [`Self::start`] begins.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        pressure: Arc<Pressure>,
        services: Services,
        workers: Workers,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            work: Default::default(),
            changed: Notify::new(),
            condemned: Notify::new(),
            store,
            clock,
            pressure,
            services,
            workers,
        })
    }

    /// Starts the threads. Each call's report goes to `ran`; a full channel holds up the workers.
    pub fn start(self: &Arc<Self>, ran: &mpsc::Sender<Ran>) -> std::io::Result<Vec<JoinHandle<()>>> {
        let crews = Crew::ALL.into_iter().flat_map(|crew| (0..self.workers.of(crew)).map(move |index| (crew, index)));
        crews
            .map(|(crew, index)| {
                let (pool, ran) = (Arc::clone(self), ran.clone());
                std::thread::Builder::new().name(crew.thread_name(index)).spawn(move || pool.work(crew, &ran))
            })
            .collect()
    }

    /// Puts a plugin to work, in place of an earlier build of that name: calls under way end on that one, and its memory is
    /// free when the last of them has.
    pub fn install(&self, plugin: Arc<Plugin>) {
        let mut state = lock(&self.state);
        match state.queues.get_mut(&plugin.name) {
            Some(queue) => {
                queue.crew = Crew::of(&plugin);
                if queue.plugin.replace(plugin).is_none() {
                    queue.handover.spilled();
                }
            }
            None => {
                let queue = Queue {
                    waiting: VecDeque::new(),
                    suspects: Vec::new(),
                    unfinished: 0,
                    alone: false,
                    standing: Standing::default(),
                    share: Share::default(),
                    handover: Handover::new(RUNS_IN_MEMORY_MAX),
                    quota: Arc::new(Quota::new(self.pressure.budget(), Kind::Runs)),
                    results: self.pressure.budget().account(Kind::Results),
                    passed_over: false,
                    crew: Crew::of(&plugin),
                    plugin: Some(Arc::clone(&plugin)),
                };
                state.queues.insert(Arc::clone(&plugin.name), queue);
            }
        }
        drop(state);
        self.wake_all();
        self.changed.notify_one();
    }

    /// How the present build of `plugin` does.
    pub fn standing(&self, plugin: &str) -> Option<Standing> {
        lock(&self.state).queues.get(plugin).map(|queue| queue.standing)
    }

    /// As [`Self::install`], for a build that is known to do as `standing` says.
    pub fn install_with(&self, plugin: Arc<Plugin>, standing: Standing) {
        let name = Arc::clone(&plugin.name);
        self.install(plugin);
        if let Some(queue) = lock(&self.state).queues.get_mut(&name) {
            queue.standing = standing;
        }
    }

    /// Waits for builds that fail so much more than the ones before them that they are to be taken from work.
    pub async fn condemned(&self) -> Vec<Arc<Plugin>> {
        loop {
            let condemned = std::mem::take(&mut lock(&self.state).condemned);
            if !condemned.is_empty() {
                return condemned;
            }
            self.condemned.notified().await;
        }
    }

    /// Takes a plugin from work. Calls under way end; returns the runs that wait in memory, for their claims to be given up.
    /// To be called again later: a run that was being accepted or claimed meanwhile comes after it.
    pub fn remove(&self, plugin: &str) -> Vec<(EventSeq, Arc<str>)> {
        let mut state = lock(&self.state);
        let Some(queue) = state.queues.get_mut(plugin) else { return Vec::new() };
        queue.plugin = None;
        let mut relief = 0;
        let mut left = Vec::with_capacity(queue.waiting.len());
        for Waiting { run, .. } in queue.waiting.drain(..).chain(queue.suspects.drain(..)) {
            let bytes = run.event.content_bytes();
            relief += queue.handover.left(weight(bytes));
            queue.quota.give(bytes);
            left.push((run.seq, run.plugin));
        }
        drop(state);
        self.pressure.fall(relief);
        // Others may have waited for a run that is gone.
        self.wake_all();
        left
    }

    /// Decides, before the commit, who will hold a new run of `plugin` for `event`.
    pub fn offer(&self, plugin: &str, event: &Event) -> Claim {
        let mut state = lock(&self.state);
        let bytes = event.content_bytes();
        let weight = weight(bytes);
        let queue = state.queues.get_mut(plugin).filter(|queue| queue.plugin.is_some());
        let Some(queue) = queue else { return Claim::Open };
        let claim = queue.handover.offer(weight);
        if claim == Claim::Here && !queue.quota.try_take(bytes) {
            queue.handover.decline(weight);
            return Claim::Open;
        }
        if claim == Claim::Here {
            self.pressure.rise(weight);
        }
        claim
    }

    /// Takes runs that were offered and accepted as `Here`; their events are durable, or about to be.
    pub fn enqueue(&self, runs: impl IntoIterator<Item = ClaimedRun>) {
        let mut added = [0usize; 2];
        let mut state = lock(&self.state);
        let turn_at = state.turn_at;
        for run in runs {
            let Some(queue) = state.queues.get_mut(&run.plugin) else { continue };
            if !queue.is_active() {
                queue.share.join(turn_at);
            }
            added[queue.crew as usize] += 1;
            queue.put(Waiting { run, conflicts: 0 });
        }
        drop(state);
        for (work, added) in self.work.iter().zip(added) {
            match added {
                0 => {}
                1 => work.notify_one(),
                _ => work.notify_all(),
            }
        }
    }

    /// A run of `plugin` was committed unclaimed, or falls due in the store now.
    pub fn spilled(&self, plugin: &str) {
        if let Some(queue) = lock(&self.state).queues.get_mut(plugin) {
            queue.handover.spilled();
        }
        self.changed.notify_one();
    }

    /// A run of `plugin` falls due in the store at `due_at`.
    pub fn due(&self, plugin: &str, due_at: Timestamp) {
        if let Some(queue) = lock(&self.state).queues.get_mut(plugin) {
            queue.handover.due(due_at);
        }
        self.changed.notify_one();
    }

    /// The outcome of a run that was called is durable: it leaves the memory.
    pub fn done(&self, plugin: &str, event: &Event) {
        let freed = {
            let mut state = lock(&self.state);
            state.end_call(plugin, || self.clock.monotonic()) | state.take_wants_room()
        };
        if freed {
            self.wake_all();
        }
        self.left(plugin, event);
    }

    /// The outcome of a run could not be kept, because the state that the call had read has changed: it is called again
    /// before all others. What a pool that is stopping leaves behind, the next start claims.
    pub fn run_again(&self, run: ClaimedRun, conflicts: u32) {
        let mut state = lock(&self.state);
        state.end_call(&run.plugin, || self.clock.monotonic());
        if let Some(queue) = state.queues.get_mut(&run.plugin) {
            queue.put_first(Waiting { run, conflicts });
        }
        drop(state);
        self.wake_all();
    }

    /// A run of `plugin` for `event` left the memory: its outcome is durable, or it was never committed.
    pub fn left(&self, plugin: &str, event: &Event) {
        let mut state = lock(&self.state);
        let Some(queue) = state.queues.get_mut(plugin) else { return };
        let bytes = event.content_bytes();
        let relief = queue.handover.left(weight(bytes));
        queue.quota.give(bytes);
        let spilled = queue.handover.is_spilled();
        drop(state);
        self.pressure.fall(relief);
        if spilled {
            self.changed.notify_one();
        }
    }

    /// Makes the queues that cause most of the pressure spill.
    pub fn shed(&self, least: usize) {
        let mut state = lock(&self.state);
        let pressing = state.queues.values_mut().filter(|queue| queue.handover.pressing() >= least);
        let relief = pressing.map(|queue| queue.handover.shed()).sum();
        drop(state);
        self.pressure.fall(relief);
        self.changed.notify_one();
    }

    /// The most that one queue contributes to the pressure.
    pub fn pressing_most(&self) -> usize {
        lock(&self.state).queues.values().map(|queue| queue.handover.pressing()).max().unwrap_or(0)
    }

    /// No call begins from now on; workers end once their present call has. Returns the runs that are left.
    pub fn stop(&self) -> Vec<(EventSeq, Arc<str>)> {
        let mut state = lock(&self.state);
        state.stopping = true;
        let left = state.queues.values_mut().flat_map(|queue| queue.waiting.drain(..).chain(queue.suspects.drain(..)));
        let left = left.map(|waiting| (waiting.run.seq, waiting.run.plugin)).collect();
        drop(state);
        self.wake_all();
        left
    }

    /// Whether no run is in memory.
    pub fn is_idle(&self) -> bool {
        lock(&self.state).queues.values().all(|queue| queue.handover.in_memory() == 0)
    }

    fn wake_all(&self) {
        self.work.iter().for_each(Condvar::notify_all);
    }

    fn work(&self, crew: Crew, ran: &mpsc::Sender<Ran>) {
        while let Some(NextCall { waiting: Waiting { run, conflicts }, plugin, charge, mut room }) = self.next(crew) {
            let attempt = run.attempts_made.saturating_add(1);
            let begun = self.store.begin(&run, &plugin.digest, run.crashes > 0);
            // A panic of the host's own code on one event must cost neither the worker nor the run.
            let report = catch_unwind(AssertUnwindSafe(|| plugin.call_with(&run.event, attempt, &self.services)))
                .unwrap_or_else(|_| panicked());
            begun.returned();
            if let Some(change) = &report.state {
                let version = StateVersion { event: run.seq, call: conflicts };
                self.services.state.publish(&run.plugin, version, change);
            }
            room.true_up(report.content_bytes());
            if self.finish(crew, &plugin, charge, &report) {
                self.wake_all();
            }
            // A plugin that had to leave a worker free may have a turn for it now.
            self.work[crew as usize].notify_one();
            if ran.blocking_send(Ran { run, conflicts, plugin, report, begun, room: Some(room) }).is_err() {
                return;
            }
        }
    }

    /// A worker is what is scarce, so a plugin is charged the time it held one, whether it computed or slept. Whether a run
    /// was waiting for room that there may be now.
    fn finish(&self, crew: Crew, plugin: &Arc<Plugin>, charge: Duration, report: &CallReport) -> bool {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.long_running[crew as usize] -= usize::from(is_long(charge));
        let wanted_room = state.take_wants_room();
        let Some(queue) = state.queues.get_mut(&plugin.name) else { return wanted_room };
        queue.share.finish(charge, report.duration, report.cpu);
        if queue.judge(plugin, report, now) == Verdict::RollBack {
            state.condemned.push(Arc::clone(plugin));
            self.condemned.notify_one();
        }
        wanted_room
    }

    /// Waits for the run of `crew` whose turn it is; `None` once the pool is stopping.
    fn next(&self, crew: Crew) -> Option<NextCall> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            let next = match state.turn(|| self.clock.monotonic()) {
                Turn::Everyone => state.take_next(crew, self.workers.of(crew)),
                Turn::Suspect(name) => {
                    let taken = state.take_suspect(crew, &name, self.clock.monotonic());
                    if taken.is_none() {
                        // It is the other crew's, which may be asleep since before it was its turn.
                        self.work[1 - crew as usize].notify_one();
                    }
                    taken
                }
                Turn::Nobody => None,
            };
            if next.is_some() {
                return next;
            }
            state = self.work[crew as usize].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// Takes the run of `crew` whose turn it is. A plugin for whose next result there is no room is passed over while it has
    /// results on their way; one that has none is waited for.
    fn take_next(&mut self, crew: Crew, workers: usize) -> Option<NextCall> {
        let mut passed = false;
        let called = loop {
            let long_running = self.long_running[crew as usize];
            let ready = self.queues.values_mut().filter(|queue| queue.crew == crew && queue.is_ready());
            let ready = ready.filter(|queue| may_start(queue.share.typical(), long_running, workers));
            let Some(queue) = ready.min_by_key(|queue| queue.share.consumed()) else { break None };
            let Some(plugin) = queue.plugin.clone() else { break None };
            let bytes = plugin.manifest.limits.result_bytes_max();
            if queue.results.reserve(bytes, bytes).is_some() {
                let room = Permit::of_taken(Arc::clone(&queue.results), bytes);
                let Some(waiting) = queue.waiting.pop_front() else { break None };
                queue.alone = waiting.must_be_alone();
                break self.begin_call(crew, &plugin.name).map(|charge| NextCall { waiting, plugin, charge, room });
            }
            (queue.passed_over, passed) = (true, true);
            self.wants_room = true;
            if queue.results.held() == 0 {
                break None;
            }
        };
        if passed {
            self.queues.values_mut().for_each(|queue| queue.passed_over = false);
        }
        called
    }

    /// Whether a run was waiting for room; whoever asks wakes the workers.
    fn take_wants_room(&mut self) -> bool {
        std::mem::take(&mut self.wants_room)
    }

    /// A call of `plugin` begins. Returns what it is charged beforehand.
    fn begin_call(&mut self, crew: Crew, plugin: &str) -> Option<Duration> {
        let queue = self.queues.get_mut(plugin)?;
        queue.unfinished += 1;
        let turn_at = queue.share.consumed();
        let charge = queue.share.start();
        self.turn_at = self.turn_at.max(turn_at);
        self.long_running[crew as usize] += usize::from(is_long(charge));
        Some(charge)
    }

    /// A call's outcome was dealt with. Whether runs that had to wait for it may be called now.
    fn end_call(&mut self, plugin: &str, now: impl FnOnce() -> Duration) -> bool {
        let waited_for = self.alone.end(now) || self.alone.is_waiting();
        self.queues.get_mut(plugin).is_some_and(Queue::end_call) || waited_for
    }
}

fn panicked() -> CallReport {
    let detail = "the host panicked while it called the plugin; please report this".to_owned();
    CallReport {
        result: Err(CallFailure::Trap(detail)),
        duration: Duration::ZERO,
        cpu: Duration::ZERO,
        memory_peak_bytes: 0,
        instance_bytes: 0,
        log_lines_dropped: 0,
        state: None,
    }
}

impl Waiting {
    fn must_be_alone(&self) -> bool {
        self.conflicts >= CONFLICTS_BEFORE_ALONE
    }
}

impl Queue {
    /// Whether its first run may be called now.
    fn is_ready(&self) -> bool {
        let (Some(first), Some(plugin)) = (self.waiting.front(), &self.plugin) else { return false };
        let has_room = may_join(self.share.running(), plugin.manifest.limits.calls_at_once_max);
        has_room && !self.passed_over && !self.alone && (self.unfinished == 0 || !first.must_be_alone())
    }

    /// Counts a call of the present build; a call that began before a reload says nothing of it.
    fn judge(&mut self, plugin: &Arc<Plugin>, report: &CallReport, now: Timestamp) -> Verdict {
        let outcome = match &report.result {
            Ok(_) | Err(CallFailure::Retry(_) | CallFailure::Reject(_)) => Outcome::Answered,
            Err(CallFailure::Host(_)) => return Verdict::Serve,
            Err(_) => Outcome::Fault,
        };
        if self.plugin.as_ref().is_none_or(|present| present.build != plugin.build) {
            return Verdict::Serve;
        }
        let (standing, verdict) = self.standing.after(outcome, now);
        self.standing = standing;
        verdict
    }

    /// A call's outcome was dealt with. Whether runs that had to wait for it may be called now.
    fn end_call(&mut self) -> bool {
        self.unfinished = self.unfinished.saturating_sub(1);
        let was_alone = std::mem::take(&mut self.alone);
        was_alone || (self.unfinished == 0 && !self.waiting.is_empty())
    }

    /// Puts a run where it waits for its turn.
    fn put(&mut self, waiting: Waiting) {
        if waiting.run.crashes == 0 { self.waiting.push_back(waiting) } else { self.suspects.push(waiting) }
    }

    /// As [`Self::put`], before all others.
    fn put_first(&mut self, waiting: Waiting) {
        if waiting.run.crashes == 0 { self.waiting.push_front(waiting) } else { self.suspects.push(waiting) }
    }

    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || !self.suspects.is_empty() || self.share.running() > 0
    }
}

#[cfg(test)]
mod tests;
