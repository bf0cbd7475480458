//! Which plugins are known, and which of them can be called: keeps the pool, the routes and the store agreed.

mod crashers;
mod entry;
mod loading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, OnceCell, Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::dead_letter::Reason;
use crate::metrics::Metrics;
use crate::plugin::builds::{Builds, History, RolledBack};
use crate::plugin::compiler::Effort;
use crate::plugin::pool::Pool;
use crate::plugin::rollback::{Standing, killed_by_build};
use crate::plugin::{Cleaning, Engine, Plugin, PluginError};
use crate::routes::{Replaced, Routes, SharedRoutes};
use crate::settings::PluginsSettings;
use crate::store::{BacklogBounds, DeadLetterFilter, EventSeq, Forgotten, KnownPlugin, ParkedFate, Store, StoreError};
use crate::sync::{lock, may_block};

use self::entry::Entry;
pub use self::loading::Starting;
use self::loading::{Read, SMALL_LOADERS, large_loaders};

/// The plugins of one host.
pub struct Registry {
    parts: RegistryParts,
    plugins: Mutex<BTreeMap<Arc<str>, Entry>>,
    histories: Mutex<BTreeMap<Arc<str>, History>>,
    /// Builds that were found to take the host down, or not to, by plugin and digest.
    crashers: Mutex<Crashers>,
    /// The plugins with dead letters `host_crash` at the start.
    crashed: OnceCell<BTreeSet<String>>,
    /// Those that an operator has told to wait.
    paused: Mutex<BTreeSet<Arc<str>>>,
    /// One change of what is at work at a time.
    turn: tokio::sync::Mutex<()>,
    /// Whether what serves has changed and the pool and the routes may not know all of it, since the store failed meanwhile.
    half_told: AtomicBool,
    /// Runs that are in memory no more and that the store still takes for claimed.
    unreleased: Mutex<Vec<(EventSeq, Arc<str>)>>,
    /// Reads of plugins' files under way.
    tasks: Mutex<JoinSet<()>>,
    /// What they came to and nobody has taken yet.
    read: Mutex<Vec<Read>>,
    /// Lanes of reading: for what is compiled already or small, and for the rest.
    small: Semaphore,
    large: Semaphore,
    next_job: AtomicU64,
    /// The plugins of the first look that were not tried yet; none before it.
    untried: watch::Sender<Option<BTreeSet<Arc<str>>>>,
    /// How many there were at the first look.
    at_start: AtomicUsize,
    /// When the folder is looked into though it has not changed.
    scan_at: Mutex<Option<Duration>>,
    folder_fault: Mutex<Option<String>>,
    wake: Notify,
    /// Of what is compiled for no job: ends with the registry.
    effort: Effort,
    stopping: AtomicBool,
}

/// Whether builds take the host down, by plugin and digest.
type Crashers = BTreeMap<(Arc<str>, Arc<str>), bool>;

/// What a registry stands on.
pub struct RegistryParts {
    /// What plugins run on.
    pub engine: Arc<Engine>,
    /// Where plugins lie, and what the operator grants them.
    pub settings: PluginsSettings,
    /// The configured endpoints' names.
    pub endpoints: Vec<Arc<str>>,
    /// Of these, the ones that ask for order.
    pub ordered: Vec<Arc<str>>,
    /// Remembers plugins, and parks their runs.
    pub store: Arc<dyn Store>,
    /// Calls plugins.
    pub pool: Arc<Pool>,
    /// Who is subscribed to what.
    pub routes: Arc<SharedRoutes>,
    /// When a build began.
    pub clock: Arc<dyn Clock>,
    /// Counts rollbacks.
    pub metrics: Arc<Metrics>,
    /// The last good builds.
    pub builds: Arc<Builds>,
}

/// How one plugin is.
#[derive(Clone)]
pub struct Status {
    /// The build that is called; none: its runs are parked, or wait until its files were tried.
    pub serving: Option<Arc<Plugin>>,
    /// Why that is not what its files say, if it is not.
    pub fault: Option<Fault>,
    /// Its files are being read and compiled.
    pub progress: Option<Progress>,
    /// How long until its files are tried again by themselves: what is wrong may pass.
    pub again_in: Option<Duration>,
}

impl Status {
    /// Why its files don't load, and when they are tried again where that may pass by itself.
    pub fn why(&self) -> Option<String> {
        let Some(Fault::Refused(why)) = &self.fault else { return None };
        Some(match self.again_in {
            Some(again_in) => format!("{why}; this may pass, it is tried again in {} s", again_in.as_secs() + 1),
            None => why.clone(),
        })
    }
}

/// How far the reading of a plugin's files is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// For how long it has been compiled, or has waited for its turn.
    pub waited: Duration,
    /// Whether it is compiled now.
    pub compiles: bool,
}

/// What is wrong with a plugin's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// They don't load, for this reason.
    Refused(String),
    /// They are gone.
    Missing,
}

/// How often what a rolled back build killed is looked for.
const REDRIVES: u32 = 4;

/// Why a plugin is not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// It may come to work at any time.
    #[error("the file of plugin `{0}` is in the plugins folder; remove it first")]
    Present(Arc<str>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Registry {
    /// How the memory of sandboxes is cleaned between events.
    pub fn cleaning(&self) -> Cleaning {
        self.parts.engine.cleaning()
    }

    /// A registry that has not looked into the folder yet.
    pub fn new(parts: RegistryParts) -> Self {
        Self {
            histories: Mutex::new(parts.builds.histories()),
            parts,
            plugins: Mutex::default(),
            crashers: Mutex::default(),
            crashed: OnceCell::new(),
            paused: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            half_told: AtomicBool::new(false),
            unreleased: Mutex::default(),
            tasks: Mutex::default(),
            read: Mutex::default(),
            small: Semaphore::new(SMALL_LOADERS),
            large: Semaphore::new(large_loaders()),
            next_job: AtomicU64::new(0),
            untried: watch::Sender::new(None),
            at_start: AtomicUsize::new(0),
            scan_at: Mutex::default(),
            folder_fault: Mutex::default(),
            wake: Notify::new(),
            effort: Effort::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The plugins of `paused` wait from the first look on.
    #[must_use]
    pub fn with_paused(self, paused: BTreeSet<Arc<str>>) -> Self {
        for plugin in &paused {
            tracing::info!(%plugin, "the plugin is paused; its runs wait");
        }
        Self { paused: Mutex::new(paused), ..self }
    }

    /// Has the plugins of `paused` wait, and all others work: their events are accepted, their runs parked.
    pub async fn pause(&self, paused: BTreeSet<Arc<str>>) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let before = std::mem::replace(&mut *lock(&self.paused), paused.clone());
        for plugin in paused.difference(&before) {
            tracing::info!(%plugin, "the plugin is paused; its runs wait");
        }
        for plugin in before.difference(&paused) {
            tracing::info!(%plugin, "the plugin is resumed");
        }
        self.put_to_work(None).await
    }

    /// Whether an operator has told it to wait.
    pub fn is_paused(&self, plugin: &str) -> bool {
        lock(&self.paused).contains(plugin)
    }

    /// Has the pool, the routes and the store know what serves: all of it, or what has `changed`.
    async fn put_to_work(&self, changed: Option<&BTreeSet<Arc<str>>>) -> Result<(), StoreError> {
        // What was left half done before is done with the rest.
        let changed = changed.filter(|_| !self.half_told.load(Ordering::Relaxed));
        self.half_told.store(true, Ordering::Relaxed);
        let remembered = self.parts.store.known_plugins().await?;
        let serving: Vec<_> = self.serving().into_iter().filter(|plugin| is_in(changed, &plugin.name)).collect();
        let is_new = |plugin: &&Arc<Plugin>| remembered.iter().all(|known| known.name != plugin.name);
        self.narrow(&remembered, serving.iter().filter(is_new).map(|plugin| as_known(plugin)).collect()).await?;
        for plugin in serving {
            let fresh = as_known(&plugin);
            if self.is_paused(&plugin.name) {
                // Its subjects are those of the file that is there. That puts its runs back to work, and they are parked
                // again before anybody could take them.
                if !remembered.contains(&fresh) {
                    self.parts.store.remember_plugin(fresh, self.parts.clock.now()).await?;
                }
                continue;
            }
            let standing = self.remember_build(&plugin);
            self.parts.pool.install_with(plugin, standing);
        }
        self.mark_missing(&remembered);
        for (name, _) in self.statuses() {
            self.parts.metrics.plugin(&name).paused.set(i64::from(self.is_paused(&name)));
        }
        // Subscribed before it is remembered: remembering is what puts back to work the runs parked until now.
        self.set_routes(remembered);
        lock(&self.plugins).values_mut().for_each(Entry::tell);
        self.half_told.store(false, Ordering::Relaxed);
        self.settle_in_turn(changed).await
    }

    /// Ends the runs of plugins that are `new` which they are not subscribed to: they were kept while nobody could tell.
    async fn narrow(&self, remembered: &[KnownPlugin], new: Vec<KnownPlugin>) -> Result<(), StoreError> {
        if new.is_empty() {
            return Ok(());
        }
        let before = self.set_routes(remembered.to_vec());
        // What was routed before is with the store by then, ahead of what it is asked now.
        before.let_go().await;
        for plugin in new {
            let (name, now) = (Arc::clone(&plugin.name), self.parts.clock.now());
            let runs = self.parts.store.narrow_runs(plugin, now).await?;
            if runs > 0 {
                tracing::info!(plugin = %name, runs, "runs that were kept for the plugin, and that it is not subscribed to, are filtered");
            }
        }
        Ok(())
    }

    /// Routes events to the plugins that serve, to those `remembered`, and to those whose files are there and were never loaded.
    fn set_routes(&self, remembered: Vec<KnownPlugin>) -> Replaced {
        let mut known = remembered;
        for (name, entry) in &*lock(&self.plugins) {
            let fresh = match (&entry.serving, &entry.awaited) {
                (Some(plugin), _) => as_known(plugin),
                (None, Some(subjects)) if entry.is_there() && known.iter().all(|other| other.name != *name) => {
                    KnownPlugin { name: Arc::clone(name), subjects: subjects.clone(), digest: "".into() }
                }
                (None, _) => continue,
            };
            known.retain(|other| other.name != *name);
            known.push(fresh);
        }
        let routes = Routes::new(&known, |name| self.takes_runs(name));
        self.parts.routes.set(routes.on_terms(|name| self.terms(name)))
    }

    /// Whether its runs are pending rather than parked: it serves, or its files are still to be tried for the first time.
    fn takes_runs(&self, name: &str) -> bool {
        let takes = |entry: &Entry| entry.serving.is_some() || entry.is_untried();
        !self.is_paused(name) && lock(&self.plugins).get(name).is_some_and(takes)
    }

    /// Whether a plugin has anything to keep in order, and what may wait for it. What a plugin that does not serve will
    /// send, nobody knows yet.
    pub fn terms(&self, name: &str) -> (bool, BacklogBounds) {
        let serving = lock(&self.plugins).get(name).and_then(|entry| entry.serving.clone());
        let reaches = |plugin: Arc<Plugin>| plugin.manifest.endpoints.iter().any(|it| self.parts.ordered.contains(it));
        let ordered = serving.map_or(!self.parts.ordered.is_empty(), reaches);
        (ordered, self.parts.settings.backlog_of(name).bounds)
    }

    /// Writes down which build serves, where that is another one than before. Returns how it stands.
    fn remember_build(&self, plugin: &Plugin) -> Standing {
        let standing = self.parts.pool.standing(&plugin.name);
        self.change_history(&plugin.name, |history| {
            if history.serving.as_deref() == Some(&*plugin.build) {
                history.standing = standing.unwrap_or(history.standing);
                return;
            }
            let replaced = standing.unwrap_or(history.standing).replaced(self.parts.clock.now());
            let before = history.serving.replace(plugin.build.to_string());
            // The first build of all has nothing to be compared with, or to go back to.
            history.standing = if before.is_some() { replaced } else { Standing::default() };
            history.before = before;
            history.rolled_back = None;
        })
        .standing
    }

    /// Makes a change of a plugin's history durable, where it is one. Returns the history.
    fn change_history(&self, name: &Arc<str>, change: impl FnOnce(&mut History)) -> History {
        let mut histories = lock(&self.histories);
        let history =
            histories.entry(Arc::clone(name)).or_insert_with(|| may_block(|| self.parts.builds.history(name)));
        let before = history.clone();
        change(history);
        if *history != before {
            may_block(|| self.parts.builds.keep_history(name, history));
        }
        history.clone()
    }

    /// Takes `condemned` from work: the build before it is put back, and the runs that it killed are put back to work.
    /// Made durable first, so that a host that is killed meanwhile begins with the build before.
    pub async fn roll_back(&self, condemned: &Plugin) -> Result<(), StoreError> {
        let name = &condemned.name;
        let rolls_back = || {
            let history = self.change_history(name, |_| {});
            history.before.filter(|_| history.serving.as_deref() == Some(&*condemned.build))
        };
        let Some(before) = rolls_back() else { return Ok(()) };
        // It may have to be compiled: nobody waits for that.
        let plugin = self.load_kept(name, before.clone()).await;
        let _turn = self.turn.lock().await;
        if rolls_back().as_ref() != Some(&before) {
            return Ok(());
        }
        let plugin = match plugin {
            Ok(plugin) => plugin,
            Err(error) => {
                tracing::error!(plugin = %name, plugin_digest = %condemned.digest, error, "the new build fails, and the one before it can't be put back");
                return Ok(());
            }
        };
        // What the pool knows is how the build before did: see `Standing::after`.
        let standing = self.parts.pool.standing(name).unwrap_or_default();
        self.change_history(name, |history| {
            *history = History {
                serving: Some(before),
                before: None,
                rolled_back: Some(RolledBack {
                    build: condemned.build.to_string(),
                    digest: condemned.digest.to_string(),
                    redrives_left: REDRIVES,
                }),
                standing,
            };
        });
        tracing::error!(
            plugin = %name, plugin_digest = %condemned.digest, plugin_digest_before = %plugin.digest,
            "the new build fails so much more often than the one before it that it is rolled back: the one before is at work, the runs that the new one killed are put back to work"
        );
        self.parts.metrics.plugin(name).rollbacks.inc();
        if let Some(entry) = lock(&self.plugins).get_mut(name) {
            entry.serving = Some(plugin);
            entry.fault = Some(Fault::Refused(PluginError::RolledBack.to_string()));
        }
        self.put_to_work(None).await
    }

    /// Puts back to work the runs that a build killed before it was rolled back. Done several times: a call of it may have
    /// been under way.
    async fn redrive_killed(&self, name: &Arc<str>) -> Result<(), StoreError> {
        let Some(rolled_back) = self.change_history(name, |_| {}).rolled_back else { return Ok(()) };
        if rolled_back.redrives_left == 0 {
            return Ok(());
        }
        for reason in Reason::ALL.iter().copied().filter(|reason| killed_by_build(*reason)) {
            let killed = DeadLetterFilter {
                plugin: Some(name.to_string()),
                plugin_digest: Some(rolled_back.digest.clone()),
                reason: Some(reason),
                ..DeadLetterFilter::default()
            };
            let redriven = self.parts.store.redrive(killed, self.parts.clock.now()).await?;
            if redriven.runs > 0 {
                tracing::warn!(plugin = %name, runs = redriven.runs, %reason, "runs that the rolled back build killed are back to work");
                self.parts.pool.spilled(name);
            }
        }
        self.change_history(name, |history| {
            if let Some(rolled_back) = &mut history.rolled_back {
                rolled_back.redrives_left = rolled_back.redrives_left.saturating_sub(1);
            }
        });
        Ok(())
    }

    /// Puts parked runs of plugins at work back to work, and parks those of the others. Called now and then too: an event
    /// that was accepted while its plugin came back may have been parked a moment after the plugin was remembered, one
    /// that was accepted while it went may be in memory, and a redrive gives work to plugins that are gone.
    pub async fn settle(&self) -> Result<(), StoreError> {
        // A plugin that comes back between a look at it and its removal from work would stay removed.
        let _turn = self.turn.lock().await;
        if self.half_told.load(Ordering::Relaxed) {
            self.put_to_work(None).await
        } else {
            self.settle_in_turn(None).await
        }
    }

    /// All plugins at once, so that the store commits them together: one sync of the disk, and not one for each plugin.
    async fn settle_in_turn(&self, changed: Option<&BTreeSet<Arc<str>>>) -> Result<(), StoreError> {
        // A plugin that is back claims what could not be given up when it went.
        self.give_back(Vec::new()).await?;
        let each = self.statuses().into_iter().filter(|(name, _)| is_in(changed, name));
        let each = each.map(|(name, status)| self.settle_one(name, status));
        // To the end each: one that is dropped midway forgets the claims it was giving up.
        join_all(each).await.into_iter().collect()
    }

    async fn settle_one(&self, name: Arc<str>, status: Status) -> Result<(), StoreError> {
        let Some(plugin) = status.serving.filter(|_| !self.is_paused(&name)) else {
            if self.takes_runs(&name) {
                // Parking a long backlog at each start, only to put it back to work, would take minutes.
                return Ok(());
            }
            self.give_back(self.parts.pool.remove(&name)).await?;
            self.parts.store.park_runs(name).await?;
            return Ok(());
        };
        let standing = self.parts.pool.standing(&name);
        self.change_history(&name, |history| history.standing = standing.unwrap_or(history.standing));
        self.redrive_killed(&name).await?;
        let unparked = self.parts.store.remember_plugin(as_known(&plugin), self.parts.clock.now()).await?;
        if unparked > 0 {
            tracing::info!(plugin = %name, runs = unparked, "parked runs are back to work");
            self.parts.pool.spilled(&name);
        }
        Ok(())
    }

    /// Gives up the claims of runs that are not in memory any more, with those that could not be given up before.
    async fn give_back(&self, left: Vec<(EventSeq, Arc<str>)>) -> Result<(), StoreError> {
        let mut all = std::mem::take(&mut *lock(&self.unreleased));
        all.extend(left);
        if all.is_empty() {
            return Ok(());
        }
        let released = self.parts.store.release(all.clone(), Vec::new()).await;
        if released.is_err() {
            lock(&self.unreleased).append(&mut all);
        }
        released
    }

    /// Forgets a plugin whose file is gone: its parked runs end, what it kept goes, and no event is accepted for it any
    /// more.
    ///
    /// # Errors
    /// Its file is there, or the store fails; then what was done before is done again with the next try.
    pub async fn forget(&self, name: &Arc<str>, fate: ParkedFate) -> Result<Forgotten, ForgetError> {
        let _turn = self.turn.lock().await;
        let present = lock(&self.plugins).get(name).is_some_and(|entry| entry.fault != Some(Fault::Missing));
        if present {
            return Err(ForgetError::Present(Arc::clone(name)));
        }
        self.give_back(self.parts.pool.remove(name)).await?;
        // What is accepted from here on is not for it.
        let mut known = self.parts.store.known_plugins().await?;
        known.retain(|plugin| plugin.name != *name);
        self.set_routes(known);
        let forgotten = self.parts.store.forget_plugin(Arc::clone(name), fate, self.parts.clock.now()).await?;
        lock(&self.plugins).remove(name);
        lock(&self.paused).remove(name);
        if forgotten.is_something() {
            tracing::warn!(plugin = %name, runs = forgotten.runs, keys = forgotten.keys, "the plugin is forgotten");
        }
        Ok(forgotten)
    }

    /// Every plugin known or found, by name.
    pub fn statuses(&self) -> Vec<(Arc<str>, Status)> {
        let now = self.parts.clock.monotonic();
        lock(&self.plugins).iter().map(|(name, entry)| (Arc::clone(name), entry.status(now))).collect()
    }

    fn serving(&self) -> Vec<Arc<Plugin>> {
        lock(&self.plugins).values().filter_map(|entry| entry.serving.clone()).collect()
    }

    /// What is not loaded, not in the folder and not known has nothing more to say; what is known and not in the folder is
    /// missing.
    fn mark_missing(&self, known: &[KnownPlugin]) {
        let mut plugins = lock(&self.plugins);
        plugins.retain(|name, entry| {
            entry.fault != Some(Fault::Missing) || known.iter().any(|plugin| plugin.name == *name)
        });
        for plugin in known {
            plugins.entry(Arc::clone(&plugin.name)).or_insert_with(|| {
                let mut entry = Entry::unknown();
                entry.go_missing(&plugin.name);
                entry
            });
        }
    }
}

/// Whether `name` is one of those that are meant; all are where none are named.
fn is_in(names: Option<&BTreeSet<Arc<str>>>, name: &Arc<str>) -> bool {
    names.is_none_or(|names| names.contains(name))
}

fn as_known(plugin: &Plugin) -> KnownPlugin {
    KnownPlugin {
        name: Arc::clone(&plugin.name),
        subjects: plugin.manifest.subjects.iter().map(ToString::to_string).collect(),
        digest: Arc::clone(&plugin.digest),
    }
}
