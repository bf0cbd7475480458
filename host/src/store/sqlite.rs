//! The embedded store: one SQLite file, one thread that writes, commits shared by whatever waits.

mod accept;
mod age;
mod backfill;
mod backlog;
mod bulk;
mod checkpoint;
mod claims;
mod dead_letters;
mod deliveries;
mod due;
mod evict;
mod endpoints;
mod group;
mod health;
mod integrity;
mod forget;
mod history;
mod lock;
mod lookup;
mod narrow;
mod open;
mod order;
mod patience;
mod pause;
mod plugin_state;
mod purge;
mod queries;
mod queue;
mod reader;
mod runs;
mod select;
mod size;
mod state;
mod status;
mod suspects;
mod sweep;
mod tally;
mod trace;
mod waiting;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::oneshot;

pub use self::health::{Failing, FailingKind};
pub use self::open::{OpenError, SqliteOptions};
pub(crate) use self::size::free_bytes;

use self::age::Age;
use self::checkpoint::Checkpoints;
use self::claims::{Entered, Entering, Release};
use self::evict::LetterBounds;
use self::group::Group;
use self::health::Health;
use self::queue::Queue;
use self::reader::Readers;
use self::writer::{Counters, Outcome, Task, Writer};
use super::begun::{self, Begun, BegunFile};
use super::{
    Accepted, Arrival, AttemptRecord, AttemptsRecorded, Backlog, ClaimRoom, Claimed, ClaimedDelivery, ClaimedRun,
    Completed, DeadLetterDetail, DeadLetterFilter, DeadLetterSummary, DeliveryDetail, DeliveryFilter, DeliverySeq,
    DeliverySummary, EndpointChange, EndpointChanged, EndpointHealth, EndpointRecord, EndpointSummary, EventSeq,
    KnownPlugin, Pause, PauseKind, Retention, RunCompletion, SourceCursor, StateUsage, StateValue, Store, StoreError,
    StoreStatus, Waiting,
};
use crate::clock::{SystemClock, Timestamp};
use crate::delivery::DeliveryId;
use crate::event::subject::SubjectPattern;

/// What a command holds in memory where nothing in it grows, in bytes.
const SMALL: usize = 256;

/// A store in a SQLite file.
pub struct SqliteStore {
    queue: Queue,
    /// Held by whoever waits for room for arrivals, so that those that came first are accepted first.
    accepting: tokio::sync::Mutex<()>,
    readers: Arc<Readers>,
    /// Readers of their own for calls under way, which an operator's long list must not hold up.
    state_readers: Arc<Readers>,
    counters: Arc<Counters>,
    begun: Arc<BegunFile>,
    health: Arc<Health>,
    dead_at_opening: u64,
    letter_bounds: Arc<LetterBounds>,
    is_after_crash: bool,
    path: PathBuf,
    closed: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer has done since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commits {
    /// Groups committed.
    pub committed: u64,
    /// Groups that failed; the store reopened after each.
    pub failed: u64,
    /// Commands in the groups committed.
    pub commands: u64,
}

impl SqliteStore {
    /// Opens the store and enters this host. Blocks on the disk. Work that an earlier host had claimed is due again.
    pub fn open(options: SqliteOptions, now: Timestamp) -> Result<Self, OpenError> {
        let opened = open::open(options)?;
        let options = opened.options;
        let path = options.path.clone();
        let sqlite = |source| OpenError::of_sqlite(&path, source);
        let left_behind = begun::left_behind(&path);
        if left_behind.is_after_crash && options.takes_over {
            tracing::info!(path = %path.display(), "the host before this one ended without stopping; until this one is stopped in order, no plugin is called before its event is durable");
        }
        let entering = Entering { begun: &left_behind.runs, takes_over: options.takes_over };
        let letter_bounds = LetterBounds::new(options.dead_bytes_max, options.letters.clone());
        let age = Age::load(&opened.connection, Arc::clone(&options.clock)).map_err(sqlite)?;
        // This commit also makes durable what a crash left in the log: a redelivery of it is answered without another.
        let Entered { host, dead } = {
            let entered =
                claims::enter_host(&opened.connection, &entering, Arc::clone(&age), Arc::clone(&letter_bounds), now);
            entered.map_err(sqlite)?
        };
        // What the file before it said is counted by now. A command makes no calls, and leaves the file to the next host.
        let begun = match options.takes_over {
            true => BegunFile::create(&path, host),
            false => BegunFile::none(&path, host),
        };
        let anchor = open::open_anchor(&options).map_err(sqlite)?;
        let thread_error = |source| OpenError::Io { action: "start the threads of", path: path.clone(), source };
        let checkpoints = Checkpoints::start(options.clone()).map_err(thread_error)?;
        let (queue, receiver) = Queue::new();
        let (counters, health) = (Arc::new(Counters::default()), Arc::new(Health::default()));
        let writer = Writer {
            options: options.clone(),
            host,
            receiver,
            begun: Arc::clone(&begun),
            is_after_crash: left_behind.is_after_crash,
            has_failed: false,
            clock: SystemClock::shared(),
            event_last: EventSeq(0),
            age,
            letter_bounds: Arc::clone(&letter_bounds),
            counters: Arc::clone(&counters),
            health: Arc::clone(&health),
            checkpoints,
            anchor,
            lock: opened.lock,
            pending: Vec::new(),
            closing: None,
            rewriting: Vec::new(),
            disconnected: false,
        };
        let connection = opened.connection;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(connection))
            .map_err(thread_error)?;
        Ok(Self {
            queue,
            accepting: tokio::sync::Mutex::default(),
            readers: Readers::new(options.clone()),
            path: options.path.clone(),
            state_readers: Readers::new(options),
            counters,
            begun,
            health,
            dead_at_opening: dead,
            letter_bounds,
            is_after_crash: left_behind.is_after_crash,
            closed: AtomicBool::new(false),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Finishes what was asked before, moves everything into the one file and gives up the lock. Whatever is asked
    /// afterwards is [`StoreError::Closed`]. Closing again does nothing.
    pub async fn close(&self) {
        if let Some(done) = self.begin_close() {
            // The writer drops the other end if it has ended already.
            let _ended = done.await;
            self.begun.remove();
        }
    }

    /// What the writer has done so far.
    pub fn commits(&self) -> Commits {
        Commits {
            committed: self.counters.commits.load(Ordering::Relaxed),
            failed: self.counters.commits_failed.load(Ordering::Relaxed),
            commands: self.counters.commands.load(Ordering::Relaxed),
        }
    }

    /// Runs that opening made dead letters, since hosts ended while they were under way.
    pub fn dead_at_opening(&self) -> u64 {
        self.dead_at_opening
    }

    /// Tells how much its disk has left beyond the least that is to be free, in bytes: dead letters grow into half of it.
    pub fn disk_has_left(&self, bytes: u64) {
        self.letter_bounds.spare.store(bytes, Ordering::Relaxed);
    }

    /// Why it can't commit at present; none where the last commit succeeded.
    pub fn failing(&self) -> Option<Failing> {
        self.health.failing()
    }

    /// The folder that its files are in.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn begin_close(&self) -> Option<oneshot::Receiver<()>> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return None;
        }
        self.readers.close();
        self.state_readers.close();
        let (done, ended) = oneshot::channel();
        self.queue.close(done);
        Some(ended)
    }

    /// Has the writer run `work` in its next group; returns after the commit.
    async fn write<T, F>(&self, bytes: usize, work: F) -> Result<T, StoreError>
    where
        T: Outcome + 'static,
        F: FnMut(&mut Group<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (task, answer) = Task::new(work);
        self.queue.send(task, bytes).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn accept_all(
        &self,
        arrivals: Vec<Arrival>,
        cursor: Option<SourceCursor>,
        mut announce: Option<oneshot::Sender<Accepted>>,
        now: Timestamp,
    ) -> Result<Accepted, StoreError> {
        let bytes = accept::bytes(&arrivals) + cursor.as_ref().map_or(0, |cursor| cursor.value.len());
        let accept = move |group: &mut Group<'_>| {
            let arrived = group.accept(&arrivals, cursor.as_ref(), now)?;
            announce.take().into_iter().for_each(|announce| group.announce(announce, &arrived));
            Ok(arrived)
        };
        let (task, answer) = Task::new(accept);
        let turn = self.accepting.lock().await;
        self.queue.send(task, bytes).await?;
        drop(turn);
        Ok(answer.await.map_err(|_| StoreError::Closed)??.accepted)
    }

    /// Parks the open runs of a plugin, and ends those of them that it is not subscribed to.
    async fn narrow_all(&self, plugin: KnownPlugin, now: Timestamp) -> Result<u64, StoreError> {
        let name = Arc::clone(&plugin.name);
        self.move_all(move |group| group.park_some(&name)).await?;
        let subjects: Arc<[SubjectPattern]> = plugin.subjects.iter().filter_map(|it| it.parse().ok()).collect();
        let (mut after, mut filtered) = (0, 0);
        loop {
            let (name, subjects) = (Arc::clone(&plugin.name), Arc::clone(&subjects));
            let looked =
                self.readers.read(move |connection| narrow::strangers(connection, &name, &subjects, after)).await?;
            let Some(last) = looked.last else { return Ok(filtered) };
            after = last;
            if !looked.events.is_empty() {
                let name = Arc::clone(&plugin.name);
                filtered += self.write(SMALL, move |group| group.filter_parked(&name, &looked.events, now)).await?;
            }
        }
    }

    /// Moves runs chunk by chunk until none is left, so that the writer is never held for long.
    async fn move_all(
        &self,
        some: impl Fn(&mut Group<'_>) -> rusqlite::Result<u64> + Clone + Send + 'static,
    ) -> Result<u64, StoreError> {
        let mut moved = 0;
        loop {
            let some = some.clone();
            match self.write(SMALL, move |group| some(group)).await? {
                0 => return Ok(moved),
                chunk => moved += chunk,
            }
        }
    }
}

impl Drop for SqliteStore {
    /// Waits for the writer, so that the store can be opened again as soon as this returns. A host that did not get as far
    /// as a call leaves behind what it found: that the host before it ended without stopping.
    fn drop(&mut self) {
        if let Some(_nobody_waits) = self.begin_close()
            && self.begun.is_unused()
            && !self.is_after_crash
        {
            self.begun.remove();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }
}

impl Store for SqliteStore {
    fn accept_at(
        &self,
        arrivals: Vec<Arrival>,
        cursor: Option<SourceCursor>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Accepted, StoreError>> {
        self.accept_all(arrivals, cursor, None, now).boxed()
    }

    fn accept_announced(
        &self,
        arrivals: Vec<Arrival>,
        cursor: Option<SourceCursor>,
        announce: oneshot::Sender<Accepted>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Accepted, StoreError>> {
        self.accept_all(arrivals, cursor, Some(announce), now).boxed()
    }

    fn cursor(&self, source: Arc<str>) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.readers.read(move |connection| queries::cursor(connection, &source)).boxed()
    }

    fn claim_runs_within(
        &self,
        plugin: Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Claimed<ClaimedRun>, StoreError>> {
        self.write(SMALL, move |group| group.claim_runs(&plugin, room, now)).boxed()
    }

    fn begin(&self, run: &ClaimedRun, plugin_digest: &str, alone: bool) -> Begun {
        self.begun.begin(run, plugin_digest, alone)
    }

    fn complete_runs(&self, completions: Vec<RunCompletion>) -> BoxFuture<'_, Result<Vec<Completed>, StoreError>> {
        let bytes = runs::bytes(&completions);
        async move { Ok(self.write(bytes, move |group| group.complete_runs(&completions)).await?.each) }.boxed()
    }

    fn state_value(&self, plugin: &str, key: &str) -> Result<Option<StateValue>, StoreError> {
        self.state_readers.read_blocking(|connection| plugin_state::value(connection, plugin, key))
    }

    fn state_usage(&self, plugin: &str) -> Result<StateUsage, StoreError> {
        self.state_readers.read_blocking(|connection| plugin_state::usage(connection, plugin))
    }

    fn claim_deliveries_within(
        &self,
        endpoint: Arc<str>,
        room: ClaimRoom,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Claimed<ClaimedDelivery>, StoreError>> {
        self.write(SMALL, move |group| group.claim_deliveries(&endpoint, room, now)).boxed()
    }

    fn record(&self, records: Vec<AttemptRecord>) -> BoxFuture<'_, Result<AttemptsRecorded, StoreError>> {
        self.write(deliveries::bytes(&records), move |group| group.record_attempts(&records)).boxed()
    }

    fn expire(&self, backlog: Backlog, age: Duration, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.move_all(move |group| group.expire_some(&backlog, age, now)).boxed()
    }

    fn release(
        &self,
        runs: Vec<(EventSeq, Arc<str>)>,
        deliveries: Vec<DeliverySeq>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let release = Release { runs, deliveries };
        self.write(SMALL, move |group| group.release(&release)).boxed()
    }

    fn known_plugins(&self) -> BoxFuture<'_, Result<Vec<KnownPlugin>, StoreError>> {
        self.readers.read(queries::known_plugins).boxed()
    }

    fn remember_plugin(&self, plugin: KnownPlugin, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            let name = Arc::clone(&plugin.name);
            self.write(SMALL, move |group| group.remember_plugin(&plugin)).await?;
            self.move_all(move |group| group.unpark_some(&name, now)).await
        }
        .boxed()
    }

    fn narrow_runs(&self, plugin: KnownPlugin, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.narrow_all(plugin, now).boxed()
    }

    fn park_runs(&self, plugin: Arc<str>) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.move_all(move |group| group.park_some(&plugin)).boxed()
    }

    fn status(&self, now: Timestamp) -> BoxFuture<'_, Result<StoreStatus, StoreError>> {
        let path = self.path.clone();
        let status = move |connection: &Connection| {
            let counted = status::status(connection, now)?;
            Ok(StoreStatus { size: size::of(&path), ..counted })
        };
        self.readers.read(status).boxed()
    }

    fn waiting(&self, endpoints: Vec<Arc<str>>) -> BoxFuture<'_, Result<Waiting, StoreError>> {
        let path = self.path.clone();
        let waiting = move |connection: &Connection| {
            let counted = waiting::waiting(connection, &endpoints)?;
            Ok(Waiting { size: size::of(&path), ..counted })
        };
        self.readers.read(waiting).boxed()
    }

    fn pauses(&self) -> BoxFuture<'_, Result<Vec<Pause>, StoreError>> {
        self.readers.read(pause::pauses).boxed()
    }

    fn pause(&self, pause: Pause) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.write(SMALL, move |group| group.pause(&pause)).boxed()
    }

    fn resume(&self, kind: PauseKind, name: Arc<str>) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.write(SMALL, move |group| group.resume(kind, &name)).boxed()
    }

    fn is_idle(&self, endpoints: Vec<Arc<str>>) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.readers.read(move |connection| status::is_idle(connection, &endpoints)).boxed()
    }

    fn list_deliveries(&self, filter: DeliveryFilter) -> BoxFuture<'_, Result<Vec<DeliverySummary>, StoreError>> {
        self.list_deliveries_in_parts(filter).boxed()
    }

    fn show_delivery(&self, id: DeliveryId) -> BoxFuture<'_, Result<Option<DeliveryDetail>, StoreError>> {
        self.readers.read(move |connection| queries::show_delivery(connection, &id)).boxed()
    }

    fn list_dead_letters(&self, filter: DeadLetterFilter) -> BoxFuture<'_, Result<Vec<DeadLetterSummary>, StoreError>> {
        self.list_dead_letters_in_parts(filter).boxed()
    }

    fn show_dead_letter(&self, id: i64) -> BoxFuture<'_, Result<Option<DeadLetterDetail>, StoreError>> {
        self.readers.read(move |connection| queries::show_dead_letter(connection, id)).boxed()
    }

    fn sweep(&self, ages: Retention) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.write(SMALL, move |group| group.sweep(ages)).boxed()
    }

    fn clock_went_back(&self, by: Duration, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            for queue in self.write(SMALL, |group| group.open_queues()).await? {
                let mut place = due::beginning(now);
                loop {
                    let queue = queue.clone();
                    match self.write(SMALL, move |group| group.move_due_some(&queue, place, by, now)).await? {
                        Some(next) => place = next,
                        None => break,
                    }
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn heartbeat(&self, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(SMALL, move |group| group.heartbeat(now)).boxed()
    }

    fn enter_endpoints(
        &self,
        names: Vec<Arc<str>>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<EndpointRecord>, StoreError>> {
        self.write(SMALL, move |group| group.enter_endpoints(&names, now)).boxed()
    }

    fn change_endpoint(
        &self,
        change: EndpointChange,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<EndpointChanged, StoreError>> {
        self.write(SMALL, move |group| group.change_endpoint(&change, now)).boxed()
    }

    fn keep_endpoint_health(&self, healths: Vec<(Arc<str>, EndpointHealth)>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(SMALL, move |group| group.keep_endpoint_health(&healths)).boxed()
    }

    fn list_endpoints(
        &self,
        held: Vec<(Arc<str>, DeliverySeq)>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<EndpointSummary>, StoreError>> {
        self.readers.read(move |connection| endpoints::summaries(connection, &held, now)).boxed()
    }
}
