//! Reading plugins' files beside everything else: what is in the folder is known at once, what it comes to when it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;

use super::entry::{Entry, Loading, Look};
use super::{Fault, Registry};
use crate::plugin::builds::History;
use crate::plugin::compiler::{Cancel, Effort};
use crate::plugin::scan::{Kept, Making, ScanError, Seen, load_one, survey};
use crate::plugin::{Plugin, PluginError, Scanned};
use crate::store::StoreError;
use crate::sync::lock;

/// Plugins read at once that are compiled already, or are small: each may hold its file's bytes, and a compiler's process.
pub(super) const SMALL_LOADERS: usize = 4;

/// How long until a folder that can't be read, or a store that can't be told of a plugin, is tried again.
const TRY_AGAIN_DELAY: Duration = Duration::from_secs(10);

/// How many large plugins are compiled at once: a core is left to events, where there is more than one.
pub(super) fn large_loaders() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).clamp(1, SMALL_LOADERS)
}

/// One plugin's files that are to be read.
struct Job {
    id: u64,
    seen: Seen,
    cancel: Cancel,
}

/// What was read of one plugin's files.
pub(super) struct Read {
    id: u64,
    scanned: Scanned,
    /// What to go on with, where they won't load and nothing serves.
    last_good: Option<Arc<Plugin>>,
}

/// Which plugins a start has not tried to load yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Starting {
    /// Those that were tried.
    pub tried: usize,
    /// All that were there at the start.
    pub all: usize,
    /// How far the others are: compiled for so long, or waiting.
    pub untried: Vec<(Arc<str>, Option<Duration>)>,
}

impl Registry {
    /// Looks into the folder: what is there is known from now on and its events are kept, what is gone is missing. What is new
    /// or changed is read beside the caller, the smallest first, and put to work when it is ready: a file that won't load
    /// leaves the build before it at work.
    ///
    /// # Errors
    /// The store could not be told. Files are read all the same, and the rest is done by [`Self::settle`].
    pub async fn scan(self: &Arc<Self>) -> Result<(), StoreError> {
        let turn = self.turn.lock().await;
        *lock(&self.scan_at) = None;
        let jobs = match self.survey().await {
            Ok(seen) => self.take_survey(seen),
            Err(error) => {
                self.folder_fails(&error);
                Vec::new()
            }
        };
        let told = self.put_to_work(None).await;
        drop(turn);
        jobs.into_iter().for_each(|job| self.spawn(job));
        if told.is_err() {
            self.scan_again();
        }
        told
    }

    /// Looks into the folder, and waits until every file that is new or changed was tried.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub async fn scan_to_the_end(self: &Arc<Self>) -> Result<(), StoreError> {
        self.scan().await?;
        self.started().await;
        Ok(())
    }

    /// Returns once every plugin that was there at the first look was tried.
    pub async fn started(&self) {
        let mut untried = self.untried.subscribe();
        // The sender lives as long as the registry.
        let _ended = untried.wait_for(|untried| untried.as_ref().is_some_and(BTreeSet::is_empty)).await;
    }

    /// Which plugins were not tried yet; none once all were.
    pub fn starting(&self) -> Option<Starting> {
        let untried = self.untried.borrow().clone();
        let now = self.parts.clock.monotonic();
        let Some(untried) = untried else { return Some(Starting { tried: 0, all: 0, untried: Vec::new() }) };
        if untried.is_empty() {
            return None;
        }
        let plugins = lock(&self.plugins);
        let far = |name: &Arc<str>| {
            let loading = plugins.get(name).and_then(|entry| entry.loading.as_ref());
            loading.filter(|loading| loading.compiles).map(|loading| now.saturating_sub(loading.since))
        };
        let all = self.at_start.load(Ordering::Relaxed).max(untried.len());
        let tried = all - untried.len();
        Some(Starting { tried, all, untried: untried.iter().map(|name| (Arc::clone(name), far(name))).collect() })
    }

    /// Returns when the folder is to be looked into though it has not changed: a file was being written, or a failure may have
    /// passed.
    pub async fn due(&self) {
        loop {
            let woken = self.wake.notified();
            let next = lock(&self.plugins).values().filter_map(|entry| entry.again_at).min();
            let next = next.into_iter().chain(*lock(&self.scan_at)).min();
            let Some(next) = next else {
                woken.await;
                continue;
            };
            let left = next.saturating_sub(self.parts.clock.monotonic());
            if left.is_zero() {
                return;
            }
            // Woken or not, what is due next is looked up again.
            let _elapsed = tokio::time::timeout(left, woken).await;
        }
    }

    /// Ends every compilation, and returns when no process of one is left. Nothing that was being read is put to work.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        lock(&self.plugins).values_mut().for_each(Entry::stop_loading);
        self.effort.cancel.cancel();
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while tasks.join_next().await.is_some() {}
    }

    fn scan_again(&self) {
        let at = self.parts.clock.monotonic() + TRY_AGAIN_DELAY;
        lock(&self.scan_at).get_or_insert(at);
        self.wake.notify_one();
    }

    /// Says why the folder can't be read, once, and has it looked into again.
    fn folder_fails(&self, error: &ScanError) {
        let said = Some(error.to_string());
        if std::mem::replace(&mut *lock(&self.folder_fault), said.clone()) != said {
            tracing::error!(%error, "the plugins folder can't be read; trying again");
        }
        // What was due before is due when the folder is.
        let later = self.parts.clock.monotonic() + TRY_AGAIN_DELAY;
        let mut plugins = lock(&self.plugins);
        plugins.values_mut().filter_map(|entry| entry.again_at.as_mut()).for_each(|at| *at = later.max(*at));
        drop(plugins);
        // There is nothing to wait for that a start could name.
        self.untried.send_if_modified(|untried| untried.is_none() && untried.insert(BTreeSet::new()).is_empty());
        self.scan_again();
    }

    /// Why the folder can't be read, where it can't.
    pub fn folder_fault(&self) -> Option<String> {
        lock(&self.folder_fault).clone()
    }

    async fn survey(&self) -> Result<Vec<Seen>, ScanError> {
        let settings = self.parts.settings.clone();
        match spawn(move || survey(&settings)).await {
            Ok(surveyed) => surveyed,
            Err(error) => Err(ScanError::Busy(error.to_string())),
        }
    }

    /// Knows what was seen from now on. Returns what is to be read, the smallest first.
    fn take_survey(&self, seen: Vec<Seen>) -> Vec<Job> {
        *lock(&self.folder_fault) = None;
        let now = self.parts.clock.monotonic();
        let names: BTreeSet<_> = seen.iter().map(|seen| Arc::clone(&seen.name)).collect();
        let mut plugins = lock(&self.plugins);
        for (name, entry) in plugins.iter_mut().filter(|(name, _)| !names.contains(*name)) {
            entry.go_missing(name);
        }
        let mut jobs = Vec::new();
        for seen in seen {
            let entry = plugins.entry(Arc::clone(&seen.name)).or_insert_with(Entry::unknown);
            if !entry.wants(seen.stamp, now) {
                continue;
            }
            entry.awaited.clone_from(&seen.awaited);
            if entry.fault == Some(Fault::Missing) {
                entry.fault = None;
            }
            let (id, cancel) = (self.next_job.fetch_add(1, Ordering::Relaxed), Cancel::default());
            let (stamp, since) = (seen.stamp, now);
            entry.begin(Loading { id, stamp, since, compiles: false, cancel: cancel.clone() });
            jobs.push(Job { id, seen, cancel });
        }
        drop(plugins);
        self.begin_start(&names);
        jobs.sort_by_key(|job| job.seen.bytes);
        jobs
    }

    /// What is there at the first look is what a start waits for; what is gone, nobody waits for.
    fn begin_start(&self, names: &BTreeSet<Arc<str>>) {
        self.untried.send_if_modified(|untried| match untried {
            Some(untried) => {
                let before = untried.len();
                untried.retain(|name| names.contains(name));
                untried.len() != before
            }
            None => {
                self.at_start.store(names.len(), Ordering::Relaxed);
                *untried = Some(names.clone());
                true
            }
        });
    }

    fn spawn(self: &Arc<Self>, job: Job) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        // One that came after the end of all would be waited for by nobody.
        if !self.stopping.load(Ordering::Relaxed) {
            tasks.spawn(Arc::clone(self).load(job));
        }
    }

    /// Reads one plugin's files, and puts to work what they came to, with all else that was read meanwhile.
    async fn load(self: Arc<Self>, job: Job) {
        let scanned = self.read(&job).await;
        let last_good = if job.cancel.is_cancelled() { None } else { self.last_good(&scanned).await };
        lock(&self.read).push(Read { id: job.id, scanned, last_good });
        let _turn = self.turn.lock().await;
        let read = std::mem::take(&mut *lock(&self.read));
        if read.is_empty() || self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let (changed, tried) = self.take_read(read);
        if let Err(error) = self.put_read_to_work(&changed).await {
            tracing::error!(%error, "a plugin was read and the store could not be told; trying again");
            self.scan_again();
        }
        self.untried.send_if_modified(|untried| {
            let Some(untried) = untried.as_mut() else { return false };
            let before = untried.len();
            untried.retain(|name| !tried.contains(name));
            untried.len() != before
        });
        self.wake.notify_one();
    }

    async fn put_read_to_work(&self, changed: &BTreeSet<Arc<str>>) -> Result<(), StoreError> {
        self.refuse_crashers().await?;
        self.put_to_work(Some(changed)).await
    }

    /// Takes what was read, unless the files have changed meanwhile. Returns the plugins that are not as before, and those
    /// whose files were judged.
    fn take_read(&self, read: Vec<Read>) -> (BTreeSet<Arc<str>>, BTreeSet<Arc<str>>) {
        let now = self.parts.clock.monotonic();
        let (mut changed, mut tried) = (BTreeSet::new(), BTreeSet::new());
        let mut plugins = lock(&self.plugins);
        for Read { id, scanned, last_good } in read {
            let name = Arc::clone(&scanned.name);
            let Some(entry) = plugins.get_mut(&name) else { continue };
            if entry.loading.as_ref().is_none_or(|loading| loading.id != id) {
                continue;
            }
            if entry.take(scanned, last_good, now) == Look::Settled {
                tried.insert(Arc::clone(&name));
            }
            changed.insert(name);
        }
        (changed, tried)
    }

    async fn read(&self, job: &Job) -> Scanned {
        let permit = self.small.acquire().await;
        self.mark(job, true);
        let scanned = self.read_with(job, Effort { cancel: job.cancel.clone(), small_only: true }).await;
        drop(permit);
        if !matches!(&scanned.outcome, Err(PluginError::Load(error)) if error.is_postponed()) {
            return scanned;
        }
        self.mark(job, false);
        let _permit = self.large.acquire().await;
        self.mark(job, true);
        self.read_with(job, Effort { cancel: job.cancel.clone(), small_only: false }).await
    }

    /// Notes whether it is read and compiled from now on, or waits for its turn.
    fn mark(&self, job: &Job, compiles: bool) {
        let since = self.parts.clock.monotonic();
        let mut plugins = lock(&self.plugins);
        let loading = plugins.get_mut(&job.seen.name).and_then(|entry| entry.loading.as_mut());
        if let Some(loading) = loading.filter(|loading| loading.id == job.id) {
            (loading.compiles, loading.since) = (compiles, since);
        }
    }

    async fn read_with(&self, job: &Job, effort: Effort) -> Scanned {
        let (engine, settings, endpoints) =
            (Arc::clone(&self.parts.engine), self.parts.settings.clone(), self.parts.endpoints.clone());
        let (builds, rolled_back) = (Arc::clone(&self.parts.builds), self.rolled_back());
        let seen = job.seen.clone();
        let load = move || {
            let making = Making { engine: &engine, settings: &settings, endpoints: &endpoints, effort: &effort };
            load_one(&making, &seen, Some(&Kept { builds: &builds, rolled_back: &rolled_back }))
        };
        spawn(load).await.unwrap_or_else(|error| job.seen.failed(error))
    }

    /// The builds taken from work, of plugins known by now.
    fn rolled_back(&self) -> BTreeMap<Arc<str>, String> {
        let histories = lock(&self.histories);
        let rolled_back = |(name, history): (&Arc<str>, &History)| {
            Some((Arc::clone(name), history.rolled_back.as_ref()?.build.clone()))
        };
        histories.iter().filter_map(rolled_back).collect()
    }

    /// The last good build, where the plugin's files are bad and nothing serves, as after a start.
    async fn last_good(&self, scanned: &Scanned) -> Option<Arc<Plugin>> {
        let name = &scanned.name;
        let is_bad = matches!(&scanned.outcome, Err(error) if !matches!(error, PluginError::Missing(_)));
        let serves = lock(&self.plugins).get(name).is_none_or(|entry| entry.serving.is_some());
        if !is_bad || scanned.changing || serves || self.has_crashed(name) {
            return None;
        }
        let build = self.change_history(name, |_| {}).serving?;
        match self.load_kept(name, build).await {
            Ok(plugin) => Some(plugin),
            Err(error) => {
                tracing::error!(plugin = %name, error, "the plugin's last good build can't be used");
                None
            }
        }
    }

    /// A build that was kept.
    pub(super) async fn load_kept(&self, name: &Arc<str>, build: String) -> Result<Arc<Plugin>, String> {
        let (engine, settings, endpoints) =
            (Arc::clone(&self.parts.engine), self.parts.settings.clone(), self.parts.endpoints.clone());
        let (builds, name, effort) = (Arc::clone(&self.parts.builds), Arc::clone(name), self.effort.clone());
        let load = move || {
            let pair = builds.load(&name, &build).map_err(|error| error.to_string())?;
            let making = Making { engine: &engine, settings: &settings, endpoints: &endpoints, effort: &effort };
            let path = settings.dir.join(format!("{name}.wasm"));
            making.make(&name, &path, &pair).map(Arc::new).map_err(|error| error.to_string())
        };
        spawn(load).await.map_err(|error| error.to_string())?
    }
}

/// Does `work` on a thread that may be busy for a while. Where there is no thread for it, that is an error: the runtime
/// would panic.
async fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PluginError> {
    let done = AssertUnwindSafe(async move { tokio::task::spawn_blocking(work).await }).catch_unwind().await;
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(panicked)) => Err(PluginError::Panicked(panicked.to_string())),
        Err(_no_thread) => Err(PluginError::NoThread),
    }
}
