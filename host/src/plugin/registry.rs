//! Which plugins are known, and which of them can be called: keeps the pool, the routes and the store agreed.

mod crashers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::join_all;

use crate::clock::Clock;
use crate::dead_letter::Reason;
use crate::metrics::Metrics;
use crate::plugin::builds::{Builds, History, RolledBack};
use crate::plugin::limits::hold;
use crate::plugin::pool::Pool;
use crate::plugin::rollback::{Standing, killed_by_build};
use crate::plugin::scan::{Kept, Making, scan_with};
use crate::plugin::{Engine, Folder, Plugin, PluginError, Scanned, Stamp};
use crate::routes::{Routes, SharedRoutes};
use crate::settings::PluginsSettings;
use crate::store::{BacklogBounds, DeadLetterFilter, EventSeq, Forgotten, KnownPlugin, ParkedFate, Store, StoreError};
use crate::sync::lock;

/// The plugins of one host.
pub struct Registry {
    parts: RegistryParts,
    plugins: Mutex<BTreeMap<Arc<str>, Entry>>,
    histories: Mutex<BTreeMap<Arc<str>, History>>,
    /// Builds that are not called any more, by plugin and digest.
    crashers: Mutex<Option<Crashers>>,
    /// Those that an operator has told to wait.
    paused: Mutex<BTreeSet<Arc<str>>>,
    /// One change of what is at work at a time.
    turn: tokio::sync::Mutex<()>,
    /// Whether what serves has changed and the pool and the routes may not know all of it, since the store failed meanwhile.
    half_told: AtomicBool,
    /// Runs that are in memory no more and that the store still takes for claimed.
    unreleased: Mutex<Vec<(EventSeq, Arc<str>)>>,
}

/// Builds by plugin and digest.
type Crashers = BTreeSet<(Arc<str>, Arc<str>)>;

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

/// What is known of one plugin.
#[derive(Clone)]
pub struct Status {
    /// The build that is called; none: its runs are parked.
    pub serving: Option<Arc<Plugin>>,
    /// Why that is not what its files say, if it is not.
    pub fault: Option<Fault>,
}

/// What is wrong with a plugin's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// They don't load, for this reason.
    Refused(String),
    /// They are gone.
    Missing,
}

/// A plugin, and the files it was last read from.
struct Entry {
    status: Status,
    /// None: to be read again at the next look.
    stamp: Option<Stamp>,
    /// Looks at which the file was not whole, one after the other.
    looks_cut: u32,
    /// A new build serves, in place of this one, and the log has not said so yet.
    untold: Option<Option<Arc<Plugin>>>,
}

/// A file that is not whole at so many looks, a third of a second apart at least, is broken: before, somebody may be
/// writing it.
const LOOKS_CUT_MAX: u32 = 15;

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

/// What a look into the folder came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// All that is there was taken or refused.
    Settled,
    /// Some file was being written; look again soon.
    Unsettled,
}

impl Registry {
    /// A registry that has not looked into the folder yet.
    pub fn new(parts: RegistryParts) -> Self {
        Self {
            histories: Mutex::new(parts.builds.histories()),
            parts,
            plugins: Mutex::default(),
            crashers: Mutex::default(),
            paused: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            half_told: AtomicBool::new(false),
            unreleased: Mutex::default(),
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

    /// Looks into the folder, and puts to work what is new or changed there. A file that won't load leaves the build
    /// before it at work; one that is gone parks the plugin's runs.
    pub async fn scan(&self) -> Result<Look, StoreError> {
        let _turn = self.turn.lock().await;
        let look = self.load().await;
        self.load_last_good().await;
        self.refuse_crashers().await?;
        self.put_to_work().await?;
        Ok(look)
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
        self.put_to_work().await
    }

    /// Whether an operator has told it to wait.
    pub fn is_paused(&self, plugin: &str) -> bool {
        lock(&self.paused).contains(plugin)
    }

    /// Has the pool, the routes and the store know what serves.
    async fn put_to_work(&self) -> Result<(), StoreError> {
        self.half_told.store(true, Ordering::Relaxed);
        let remembered = self.parts.store.known_plugins().await?;
        let mut known = remembered.clone();
        for plugin in self.serving() {
            known.retain(|other| other.name != plugin.name);
            let fresh = as_known(&plugin);
            known.push(fresh.clone());
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
        self.mark_missing(&known);
        for (name, _) in self.statuses() {
            self.parts.metrics.plugin(&name).paused.set(i64::from(self.is_paused(&name)));
        }
        // Subscribed before it is remembered: remembering is what puts back to work the runs parked until now.
        let routes = Routes::new(&known, |name| self.is_serving(name));
        self.parts.routes.set(routes.on_terms(|name| self.terms(name)));
        lock(&self.plugins).values_mut().for_each(Entry::tell);
        self.half_told.store(false, Ordering::Relaxed);
        self.settle_in_turn().await
    }

    /// Whether a plugin has anything to keep in order, and what may wait for it. What a plugin that does not serve will
    /// send, nobody knows yet.
    fn terms(&self, name: &str) -> (bool, BacklogBounds) {
        let serving = lock(&self.plugins).get(name).and_then(|entry| entry.status.serving.clone());
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
        let history = histories.entry(Arc::clone(name)).or_insert_with(|| self.parts.builds.history(name));
        let before = history.clone();
        change(history);
        if *history != before {
            self.parts.builds.keep_history(name, history);
        }
        history.clone()
    }

    /// Puts the last good build to work where the plugin's files are bad and nothing serves, as after a start.
    async fn load_last_good(&self) {
        for (name, status) in self.statuses() {
            let (None, Some(Fault::Refused(_))) = (&status.serving, &status.fault) else { continue };
            if lock(&self.crashers).iter().flatten().any(|(crasher, _)| *crasher == name) {
                continue;
            }
            let Some(build) = self.change_history(&name, |_| {}).serving else { continue };
            match self.load_kept(&name, build).await {
                Ok(plugin) => {
                    tracing::warn!(plugin = %name, plugin_digest = %plugin.digest, "the plugin's last good build is at work");
                    if let Some(entry) = lock(&self.plugins).get_mut(&name) {
                        entry.status.serving = Some(plugin);
                    }
                }
                Err(error) => tracing::error!(plugin = %name, error, "the plugin's last good build can't be used"),
            }
        }
    }

    async fn load_kept(&self, name: &Arc<str>, build: String) -> Result<Arc<Plugin>, String> {
        let (engine, settings, endpoints) =
            (Arc::clone(&self.parts.engine), self.parts.settings.clone(), self.parts.endpoints.clone());
        let (builds, name) = (Arc::clone(&self.parts.builds), Arc::clone(name));
        let load = move || {
            let pair = builds.load(&name, &build).map_err(|error| error.to_string())?;
            let making = Making { engine: &engine, settings: &settings, endpoints: &endpoints };
            let path = settings.dir.join(format!("{name}.wasm"));
            making.make(&name, &path, &pair).map(Arc::new).map_err(|error| error.to_string())
        };
        tokio::task::spawn_blocking(load).await.map_err(|panicked| panicked.to_string())?
    }

    /// Takes `condemned` from work: the build before it is put back, and the runs that it killed are put back to work.
    /// Made durable first, so that a host that is killed meanwhile begins with the build before.
    pub async fn roll_back(&self, condemned: &Plugin) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let name = &condemned.name;
        let history = self.change_history(name, |_| {});
        let (Some(before), true) = (history.before, history.serving.as_deref() == Some(&*condemned.build)) else {
            return Ok(());
        };
        let plugin = match self.load_kept(name, before.clone()).await {
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
            entry.status =
                Status { serving: Some(plugin), fault: Some(Fault::Refused(PluginError::RolledBack.to_string())) };
        }
        self.put_to_work().await
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
        if self.half_told.load(Ordering::Relaxed) { self.put_to_work().await } else { self.settle_in_turn().await }
    }

    /// All plugins at once, so that the store commits them together: one sync of the disk, and not one for each plugin.
    async fn settle_in_turn(&self) -> Result<(), StoreError> {
        // A plugin that is back claims what could not be given up when it went.
        self.give_back(Vec::new()).await?;
        let each = self.statuses().into_iter().map(|(name, status)| self.settle_one(name, status));
        // To the end each: one that is dropped midway forgets the claims it was giving up.
        join_all(each).await.into_iter().collect()
    }

    async fn settle_one(&self, name: Arc<str>, status: Status) -> Result<(), StoreError> {
        let Some(plugin) = status.serving.filter(|_| !self.is_paused(&name)) else {
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
        let present = lock(&self.plugins).get(name).is_some_and(|entry| entry.status.fault != Some(Fault::Missing));
        if present {
            return Err(ForgetError::Present(Arc::clone(name)));
        }
        self.give_back(self.parts.pool.remove(name)).await?;
        // What is accepted from here on is not for it.
        let mut known = self.parts.store.known_plugins().await?;
        known.retain(|plugin| plugin.name != *name);
        let routes = Routes::new(&known, |name| self.is_serving(name));
        self.parts.routes.set(routes.on_terms(|name| self.terms(name)));
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
        lock(&self.plugins).iter().map(|(name, entry)| (Arc::clone(name), entry.status.clone())).collect()
    }

    fn is_serving(&self, name: &str) -> bool {
        !self.is_paused(name) && lock(&self.plugins).get(name).is_some_and(|entry| entry.status.serving.is_some())
    }

    fn serving(&self) -> Vec<Arc<Plugin>> {
        lock(&self.plugins).values().filter_map(|entry| entry.status.serving.clone()).collect()
    }

    /// Reads what is new or changed, on a thread that may be busy for a while: compiling takes seconds.
    async fn load(&self) -> Look {
        let (engine, settings, endpoints) =
            (Arc::clone(&self.parts.engine), self.parts.settings.clone(), self.parts.endpoints.clone());
        let seen: BTreeMap<Arc<str>, Stamp> =
            lock(&self.plugins).iter().filter_map(|(name, entry)| Some((Arc::clone(name), entry.stamp?))).collect();
        let builds = Arc::clone(&self.parts.builds);
        let rolled_back = self.rolled_back();
        let scan = move || {
            let making = Making { engine: &engine, settings: &settings, endpoints: &endpoints };
            let kept = Kept { builds: &builds, rolled_back: &rolled_back };
            scan_with(&making, |name, stamp| seen.get(name) != Some(&stamp), Some(&kept))
        };
        match tokio::task::spawn_blocking(scan).await {
            Ok(Ok(folder)) => return self.take_all(folder),
            Ok(Err(error)) => tracing::error!(%error, "the plugins folder can't be read"),
            Err(panicked) => tracing::error!(error = %panicked, "loading the plugins panicked; please report this"),
        }
        Look::Settled
    }

    /// The builds taken from work, of plugins known by now.
    fn rolled_back(&self) -> BTreeMap<Arc<str>, String> {
        let histories = lock(&self.histories);
        let rolled_back = |(name, history): (&Arc<str>, &History)| {
            Some((Arc::clone(name), history.rolled_back.as_ref()?.build.clone()))
        };
        histories.iter().filter_map(rolled_back).collect()
    }

    fn take_all(&self, Folder { names, scanned }: Folder) -> Look {
        let mut plugins = lock(&self.plugins);
        // A file that would not load and is gone has nothing more to say.
        plugins.retain(|name, entry| entry.status.serving.is_some() || names.contains(name));
        for (name, entry) in plugins.iter_mut().filter(|(name, _)| !names.contains(*name)) {
            entry.go_missing(name);
        }
        let looks = scanned.into_iter().map(|scanned| {
            let name = Arc::clone(&scanned.name);
            let entry = plugins.entry(name).or_insert_with(Entry::unknown);
            entry.take(scanned)
        });
        looks.fold(Look::Settled, |all, look| if look == Look::Unsettled { look } else { all })
    }

    fn mark_missing(&self, known: &[KnownPlugin]) {
        let mut plugins = lock(&self.plugins);
        for plugin in known {
            plugins.entry(Arc::clone(&plugin.name)).or_insert_with(|| {
                let mut entry = Entry::unknown();
                entry.go_missing(&plugin.name);
                entry
            });
        }
    }
}

impl Entry {
    fn unknown() -> Self {
        Self { status: Status { serving: None, fault: None }, stamp: None, looks_cut: 0, untold: None }
    }

    fn go_missing(&mut self, name: &str) {
        if self.status.fault.replace(Fault::Missing) != Some(Fault::Missing) {
            tracing::warn!(plugin = %name, "the plugin's file is missing; its runs are parked");
        }
        self.status.serving = None;
        self.stamp = None;
    }

    /// Takes what was read of its files, unless they are being written.
    fn take(&mut self, Scanned { name, outcome, stamp, changing, .. }: Scanned) -> Look {
        if changing {
            return Look::Unsettled;
        }
        let cut = matches!(outcome, Err(PluginError::NotWhole));
        self.looks_cut = if cut { self.looks_cut.saturating_add(1) } else { 0 };
        if cut && self.looks_cut < LOOKS_CUT_MAX {
            if self.looks_cut == 1 {
                tracing::info!(plugin = %name, "the plugin's file is being written; waiting for the rest of it");
            }
            return Look::Unsettled;
        }
        match outcome {
            Ok(plugin) => self.serve(plugin),
            Err(PluginError::Missing(_)) if self.status.serving.is_some() => return self.gone(&name),
            Err(error) => self.refuse(&name, &error.to_string()),
        }
        self.stamp = Some(stamp);
        Look::Settled
    }

    fn gone(&mut self, name: &str) -> Look {
        self.go_missing(name);
        Look::Settled
    }

    /// To be told once it is at work.
    fn serve(&mut self, plugin: Arc<Plugin>) {
        self.untold = Some(self.status.serving.take());
        self.status = Status { serving: Some(plugin), fault: None };
    }

    fn tell(&mut self) {
        let (Some(before), Some(plugin)) = (self.untold.take(), &self.status.serving) else { return };
        let (name, digest) = (&plugin.name, &plugin.digest);
        match before {
            None => tracing::info!(plugin = %name, plugin_digest = %digest, "the plugin is loaded"),
            Some(before) => tracing::info!(
                plugin = %name, plugin_digest = %digest, plugin_digest_before = %before.digest,
                "a new build of the plugin is at work"
            ),
        }
        for held in hold(&plugin.manifest.asked, &plugin.manifest.granted).iter().filter(|held| held.is_lessened()) {
            let row = held.limit.row();
            tracing::warn!(
                plugin = %name, plugin_digest = %digest, limit = row.name,
                asked = %row.plain(held.asked.unwrap_or_default()), granted = %row.plain(held.granted),
                "the plugin asks for more than it is granted, and has what is granted"
            );
        }
    }

    fn refuse(&mut self, name: &str, error: &str) {
        let fault = Some(Fault::Refused(error.to_owned()));
        if std::mem::replace(&mut self.status.fault, fault.clone()) == fault {
            return;
        }
        match &self.status.serving {
            None => tracing::error!(plugin = %name, error, "the plugin won't load; its runs are parked"),
            Some(before) => tracing::error!(
                plugin = %name, plugin_digest = %before.digest, error,
                "the plugin's new files won't load; the build before them goes on"
            ),
        }
    }
}

fn as_known(plugin: &Plugin) -> KnownPlugin {
    KnownPlugin {
        name: Arc::clone(&plugin.name),
        subjects: plugin.manifest.subjects.iter().map(ToString::to_string).collect(),
        digest: Arc::clone(&plugin.digest),
    }
}
