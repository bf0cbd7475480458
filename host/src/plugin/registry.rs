//! Which plugins are known, and which of them can be called: keeps the pool, the routes and the store agreed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::plugin::pool::Pool;
use crate::plugin::{Engine, Folder, Plugin, PluginError, Scanned, Stamp, scan};
use crate::routes::{Routes, SharedRoutes};
use crate::settings::PluginsSettings;
use crate::store::{KnownPlugin, Store, StoreError};
use crate::sync::lock;

/// The plugins of one host.
pub struct Registry {
    engine: Arc<Engine>,
    settings: PluginsSettings,
    endpoints: Vec<Arc<str>>,
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
    routes: Arc<SharedRoutes>,
    plugins: Mutex<BTreeMap<Arc<str>, Entry>>,
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
}

/// A file that is not whole at so many looks, a third of a second apart at least, is broken: before, somebody may be
/// writing it.
const LOOKS_CUT_MAX: u32 = 15;

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
    pub fn new(
        engine: Arc<Engine>,
        settings: PluginsSettings,
        endpoints: Vec<Arc<str>>,
        store: Arc<dyn Store>,
        pool: Arc<Pool>,
        routes: Arc<SharedRoutes>,
    ) -> Self {
        Self { engine, settings, endpoints, store, pool, routes, plugins: Mutex::default() }
    }

    /// Looks into the folder, and puts to work what is new or changed there. A file that won't load leaves the build
    /// before it at work; one that is gone parks the plugin's runs.
    pub async fn scan(&self) -> Result<Look, StoreError> {
        let look = self.load().await;
        let mut known = self.store.known_plugins().await?;
        for plugin in self.serving() {
            known.retain(|other| other.name != plugin.name);
            known.push(as_known(&plugin));
            self.pool.install(plugin);
        }
        self.mark_missing(&known);
        // Subscribed before it is remembered: remembering is what puts back to work the runs parked until now.
        self.routes.set(Routes::new(&known, |name| self.is_serving(name)));
        self.settle().await?;
        Ok(look)
    }

    /// Puts parked runs of plugins at work back to work, and parks those of the others. Called now and then too: an event
    /// that was accepted while its plugin came back may have been parked a moment after the plugin was remembered, one
    /// that was accepted while it went may be in memory, and a redrive gives work to plugins that are gone.
    pub async fn settle(&self) -> Result<(), StoreError> {
        for (name, status) in self.statuses() {
            let Some(plugin) = status.serving else {
                let left = self.pool.remove(&name);
                if !left.is_empty() {
                    self.store.release(left, Vec::new()).await?;
                }
                self.store.park_runs(name).await?;
                continue;
            };
            let unparked = self.store.remember_plugin(as_known(&plugin)).await?;
            if unparked > 0 {
                tracing::info!(plugin = %name, runs = unparked, "parked runs are back to work");
                self.pool.spilled(&name);
            }
        }
        Ok(())
    }

    /// Every plugin known or found, by name.
    pub fn statuses(&self) -> Vec<(Arc<str>, Status)> {
        lock(&self.plugins).iter().map(|(name, entry)| (Arc::clone(name), entry.status.clone())).collect()
    }

    fn is_serving(&self, name: &str) -> bool {
        lock(&self.plugins).get(name).is_some_and(|entry| entry.status.serving.is_some())
    }

    fn serving(&self) -> Vec<Arc<Plugin>> {
        lock(&self.plugins).values().filter_map(|entry| entry.status.serving.clone()).collect()
    }

    /// Reads what is new or changed, on a thread that may be busy for a while: compiling takes seconds.
    async fn load(&self) -> Look {
        let (engine, settings, endpoints) = (Arc::clone(&self.engine), self.settings.clone(), self.endpoints.clone());
        let seen: BTreeMap<Arc<str>, Stamp> =
            lock(&self.plugins).iter().filter_map(|(name, entry)| Some((Arc::clone(name), entry.stamp?))).collect();
        let scan = move || scan(&engine, &settings, &endpoints, |name, stamp| seen.get(name) != Some(&stamp));
        match tokio::task::spawn_blocking(scan).await {
            Ok(Ok(folder)) => return self.take_all(folder),
            Ok(Err(error)) => tracing::error!(%error, "the plugins folder can't be read"),
            Err(panicked) => tracing::error!(error = %panicked, "loading the plugins panicked; please report this"),
        }
        Look::Settled
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
        Self { status: Status { serving: None, fault: None }, stamp: None, looks_cut: 0 }
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
            return Look::Unsettled;
        }
        match outcome {
            Ok(plugin) => self.serve(plugin),
            Err(PluginError::Missing(_)) if self.status.serving.is_some() => return self.gone(&name),
            Err(error) => self.refuse(&name, error.to_string()),
        }
        self.stamp = Some(stamp);
        Look::Settled
    }

    fn gone(&mut self, name: &str) -> Look {
        self.go_missing(name);
        Look::Settled
    }

    fn serve(&mut self, plugin: Arc<Plugin>) {
        let (name, digest) = (&plugin.name, &plugin.digest);
        match &self.status.serving {
            None => tracing::info!(plugin = %name, plugin_digest = %digest, "the plugin is loaded"),
            Some(before) => tracing::info!(
                plugin = %name, plugin_digest = %digest, plugin_digest_before = %before.digest,
                "a new build of the plugin is at work"
            ),
        }
        self.status = Status { serving: Some(plugin), fault: None };
    }

    fn refuse(&mut self, name: &str, error: String) {
        let fault = Some(Fault::Refused(error.clone()));
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
