//! The one thread that writes: takes what is queued, commits it as one group, then answers every waiter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::age::Age;
use super::checkpoint::{Checkpoints, RewriteError};
use super::claims::Release;
use super::due::{Place, Queue};
use super::evict::LetterBounds;
use super::group::Group;
use super::health::Health;
use super::lock::LockFile;
use super::open::{self, SqliteOptions};
use super::queue::{Item, Job, Queued};
use crate::clock::Clock;
use crate::store::begun::BegunFile;
use crate::store::{Backfilled, Changed, EventSeq, Forgotten, Purged, StoreError};

/// The most commands that share a commit.
const GROUP_COMMANDS_MAX: usize = 256;

/// The most bytes that share a commit, the last command not counted.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The waits between tries to reopen a store that can't be opened.
const REOPEN_BACKOFF_MIN: Duration = Duration::from_millis(10);
const REOPEN_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What the writer has done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) commits_failed: AtomicU64,
    pub(super) commands: AtomicU64,
}

/// What a command comes to.
pub(super) trait Outcome: Send {
    /// The claims in it, for the case that nobody waits for it any more: they would hold for as long as this host
    /// lives, and nobody would do the work.
    fn unwanted(self) -> Release;
}

/// Outcomes without claims.
macro_rules! claimless {
    ($($outcome:ty),+) => {
        $(impl Outcome for $outcome {
            fn unwanted(self) -> Release {
                Release::default()
            }
        })+
    };
}
claimless!((), u64, bool, Vec<Queue>, Option<Place>, Backfilled, Changed, Purged, Forgotten);

/// A command and its waiter.
pub(super) struct Task<T, F> {
    work: F,
    outcome: Option<T>,
    waiter: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Task<T, F> {
    pub(super) fn new(work: F) -> (Box<Self>, oneshot::Receiver<Result<T, StoreError>>) {
        let (waiter, answer) = oneshot::channel();
        (Box::new(Self { work, outcome: None, waiter }), answer)
    }
}

impl<T: Outcome, F: FnMut(&mut Group<'_>) -> rusqlite::Result<T> + Send> Job for Task<T, F> {
    fn perform(&mut self, group: &mut Group<'_>) -> rusqlite::Result<()> {
        self.outcome = Some((self.work)(group)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) -> Option<Release> {
        let Self { outcome, waiter, .. } = *self;
        match waiter.send(committed.and_then(|()| outcome.ok_or(StoreError::Closed))) {
            Err(Ok(unwanted)) => Some(unwanted.unwanted()).filter(|release| !release.is_empty()),
            _ => None,
        }
    }
}

/// The writer's thread.
pub(super) struct Writer {
    pub(super) options: SqliteOptions,
    pub(super) host: i64,
    pub(super) receiver: Receiver<Item>,
    /// Where calls are marked.
    pub(super) begun: Arc<BegunFile>,
    /// Whether the host before this one ended without stopping. An event may have ended it whose call began before it was
    /// durable, so that nothing counts it: for as long as this host lives, each is durable first.
    pub(super) is_after_crash: bool,
    /// Whether a commit failed, and no event was accepted since that was not announced: plugins are not to be called again
    /// and again for what has no room.
    pub(super) has_failed: bool,
    /// For waits within a transaction, which end in real time whatever clock the host has.
    pub(super) clock: Arc<dyn Clock>,
    /// The last position that was given to an event, whether or not it became durable.
    pub(super) event_last: EventSeq,
    pub(super) age: Arc<Age>,
    pub(super) letter_bounds: Arc<LetterBounds>,
    pub(super) counters: Arc<Counters>,
    pub(super) health: Arc<Health>,
    pub(super) checkpoints: Checkpoints,
    /// See [`open::open_anchor`].
    pub(super) anchor: Connection,
    /// Held until the last connection that writes is closed.
    pub(super) lock: LockFile,
    pub(super) pending: Vec<Queued>,
    pub(super) closing: Option<oneshot::Sender<()>>,
    /// Whoever waits for the file to be written anew.
    pub(super) rewriting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    pub(super) disconnected: bool,
}

enum End {
    Closed,
    Broken,
}

impl Writer {
    /// Runs until the store is closed. A failed commit costs its group and the connection, never the thread.
    pub(super) fn run(mut self, first: Connection) {
        let mut connection = first;
        loop {
            let wal_pages = Arc::new(AtomicI32::new(0));
            let hook_pages = Arc::clone(&wal_pages);
            let hooked = connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
                hook_pages.store(pages, Ordering::Relaxed);
                Ok(())
            }));
            if let Err(error) = hooked {
                tracing::warn!(path = %self.options.path.display(), %error, "the store can't watch its write-ahead log");
            }
            match self.serve(&connection, &wal_pages) {
                End::Closed => break,
                End::Broken => drop(connection),
            }
            match self.reopen() {
                Some(reopened) => connection = reopened,
                None => return self.finish(None),
            }
        }
        self.finish(Some(connection));
    }

    /// Commits groups until one fails or the store is closed.
    fn serve(&mut self, connection: &Connection, wal_pages: &AtomicI32) -> End {
        if !self.gather() {
            return End::Closed;
        }
        let mut group = match Group::new(connection, self.host, Arc::clone(&self.age), Arc::clone(&self.letter_bounds))
        {
            Ok(group) => group,
            Err(error) => return self.fail_with(&error),
        };
        group.pass_over(self.event_last);
        loop {
            let started = self.clock.monotonic();
            let performed = catch_unwind(AssertUnwindSafe(|| self.perform(&mut group)));
            self.event_last = group.event_last();
            if let (Some(commits), Ok(Ok(waited))) = (&self.options.commits, &performed) {
                let took = self.clock.monotonic().saturating_sub(started + *waited);
                commits.seconds.observe(took.as_secs_f64());
            }
            self.has_failed = match performed {
                Ok(Ok(_)) => self.has_failed && !group.has_unannounced,
                _ => true,
            };
            match performed {
                Ok(Ok(_)) => self.succeed(),
                Ok(Err(error)) => {
                    group.roll_back();
                    return self.fail_with(&error);
                }
                Err(_panic) => {
                    group.roll_back();
                    let error = "a command panicked; this is a defect of the program, please report it";
                    tracing::error!(path = %self.options.path.display(), error, "a commit failed; the store reopens");
                    return self.fail(error);
                }
            }
            self.checkpoints.after_commit(connection, wal_pages.load(Ordering::Relaxed));
            if !self.rewriting.is_empty()
                && let Err(error) = self.checkpoints.rewrite(connection)
            {
                return self.fail_rewrite(&error);
            }
            self.rewriting.drain(..).for_each(|done| drop(done.send(Ok(()))));
            if !self.gather() {
                return End::Closed;
            }
        }
    }

    fn succeed(&mut self) {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        if self.health.succeeded() {
            tracing::info!(path = %self.options.path.display(), "the store commits again");
        }
        self.counters.commands.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
        let unwanted: Vec<_> = self.pending.drain(..).filter_map(|queued| queued.job.answer(Ok(()))).collect();
        for release in unwanted {
            let (job, _nobody) = Task::new(move |group: &mut Group<'_>| group.release(&release));
            self.pending.push(Queued::internal(job));
        }
    }

    fn fail_with(&mut self, error: &rusqlite::Error) -> End {
        let path = self.options.path.display();
        // A disk that stays full fails several commits a second; one line says it.
        if self.health.failed(error) {
            tracing::error!(%path, %error, commands = self.pending.len(), "a commit failed; the store reopens");
        } else {
            tracing::debug!(%path, %error, commands = self.pending.len(), "a commit failed again; the store reopens");
        }
        self.fail(&error.to_string())
    }

    fn fail(&mut self, error: &str) -> End {
        self.counters.commits_failed.fetch_add(1, Ordering::Relaxed);
        if let Some(commits) = &self.options.commits {
            commits.failures.inc();
        }
        self.answer_failed(error);
        End::Broken
    }

    /// What was committed before is durable, whatever became of the file's new copy.
    fn fail_rewrite(&mut self, error: &RewriteError) -> End {
        let folder = self.options.path.parent().unwrap_or(Path::new("/")).display();
        let error = match error {
            RewriteError::Sqlite(error) => format!("{error} (the copy is made in {folder}, which needs room)"),
            _ => error.to_string(),
        };
        tracing::error!(path = %self.options.path.display(), error, "the store's file could not be written anew; the store reopens");
        self.answer_failed(&error);
        End::Broken
    }

    fn answer_failed(&mut self, error: &str) {
        for queued in self.pending.drain(..) {
            queued.job.answer(Err(StoreError::Commit(error.to_owned())));
        }
        // Whoever waits for a rewriting keeps the writer from taking anything else.
        for done in self.rewriting.drain(..) {
            drop(done.send(Err(StoreError::Rewrite(error.to_owned()))));
        }
    }

    /// Commits what is pending, and what plugins make of it at once. Returns how long it waited for them.
    fn perform(&mut self, group: &mut Group<'_>) -> rusqlite::Result<Duration> {
        group.begin(!self.is_after_crash && !self.has_failed && self.begun.marks())?;
        let mut performed = perform_all(group, &mut self.pending)?;
        let (mut now, mut waited) = (self.clock.monotonic(), Duration::ZERO);
        let deadline = now + group.patience.wait();
        while group.patience.is_waiting() && now < deadline && self.gather_within(deadline - now) {
            waited += self.clock.monotonic().saturating_sub(now);
            performed += perform_all(group, &mut self.pending[performed..])?;
            now = self.clock.monotonic();
        }
        group.patience.waited(now >= deadline);
        group.commit()?;
        group.patience.committed(self.clock.monotonic().saturating_sub(now));
        Ok(waited)
    }

    /// Fills the group with what is there, waiting for the first command only. False once closed and empty.
    fn gather(&mut self) -> bool {
        while self.has_room() {
            let may_wait = self.pending.is_empty() && self.closing.is_none() && !self.disconnected;
            let item = if may_wait { self.receiver.recv().ok() } else { self.receiver.try_recv().ok() };
            match item {
                Some(item) => self.take(item),
                None if may_wait => self.disconnected = true,
                None => break,
            }
        }
        !self.pending.is_empty() || !self.rewriting.is_empty()
    }

    /// Adds to the group what comes within `wait`, one command at most. False where nothing may be added any more.
    fn gather_within(&mut self, wait: Duration) -> bool {
        if !self.has_room() || self.closing.is_some() || self.disconnected {
            return false;
        }
        match self.receiver.recv_timeout(wait) {
            Ok(item) => self.take(item),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.disconnected = true,
        }
        true
    }

    fn has_room(&self) -> bool {
        let bytes: usize = self.pending.iter().map(|queued| queued.bytes).sum();
        self.pending.len() < GROUP_COMMANDS_MAX && bytes < GROUP_BYTES_MAX && self.rewriting.is_empty()
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Command(queued) => self.pending.push(queued),
            Item::Close(done) => self.closing = Some(done),
            Item::Rewrite(done) => self.rewriting.push(done),
        }
    }

    /// Opens a connection again. While that fails, commands fail too, each after a bounded wait and another try.
    fn reopen(&mut self) -> Option<Connection> {
        let mut backoff = REOPEN_BACKOFF_MIN;
        loop {
            match open::reopen_writer(&self.options) {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    if self.health.failed(&error) {
                        tracing::error!(path = %self.options.path.display(), %error, "the store could not be reopened");
                    }
                    self.answer_failed(&format!("the store could not be reopened: {error}"));
                }
            }
            if !self.gather() {
                return None;
            }
            // Callers that try again at once must not turn this into a busy loop.
            std::thread::park_timeout(backoff);
            backoff = (backoff * 2).min(REOPEN_BACKOFF_MAX);
        }
    }

    fn finish(mut self, connection: Option<Connection>) {
        match connection {
            Some(connection) => {
                self.checkpoints.finish(&connection);
                drop(self.anchor);
                drop(connection);
            }
            None => {
                self.checkpoints.stop();
                drop(self.anchor);
            }
        }
        drop(self.lock);
        if let Some(done) = self.closing {
            let _nobody_waits = done.send(());
        }
    }
}

/// Returns how many that were.
fn perform_all(group: &mut Group<'_>, jobs: &mut [Queued]) -> rusqlite::Result<usize> {
    jobs.iter_mut().try_for_each(|queued| queued.job.perform(group))?;
    Ok(jobs.len())
}
