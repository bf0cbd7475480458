//! Which plugins are known, and which of them can be called: keeps the pool, the routes and the store agreed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::plugin::pool::Pool;
use crate::plugin::{Engine, Plugin, Scanned, scan};
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
    plugins: Mutex<BTreeMap<Arc<str>, Status>>,
}

/// What became of one plugin's file.
#[derive(Clone)]
pub enum Status {
    /// It runs.
    Loaded(Arc<Plugin>),
    /// It won't load; its runs, if it ever ran, are parked.
    Broken(String),
    /// It ran once and its file is gone; its runs are parked.
    Missing,
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

    /// Looks into the folder, and puts to work what is there and was not running yet. A plugin that runs is left alone
    /// whatever became of its file.
    pub async fn scan(&self) -> Result<(), StoreError> {
        self.load().await;
        let mut known = self.store.known_plugins().await?;
        for plugin in self.loaded() {
            known.retain(|other| other.name != plugin.name);
            known.push(as_known(&plugin));
            self.pool.install(plugin);
        }
        self.mark_missing(&known);
        // Subscribed before it is remembered: remembering is what puts back to work the runs parked until now.
        self.routes.set(Routes::new(&known, |name| self.is_loaded(name)));
        self.settle().await
    }

    /// Puts parked runs of loaded plugins back to work, and parks those of the others. Called now and then too: an event
    /// that was accepted while its plugin came back may have been parked a moment after the plugin was remembered, and a
    /// redrive gives work to plugins that are gone.
    pub async fn settle(&self) -> Result<(), StoreError> {
        for (name, status) in self.statuses() {
            let Status::Loaded(plugin) = status else {
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
        lock(&self.plugins).iter().map(|(name, status)| (Arc::clone(name), status.clone())).collect()
    }

    fn is_loaded(&self, name: &str) -> bool {
        matches!(lock(&self.plugins).get(name), Some(Status::Loaded(_)))
    }

    fn loaded(&self) -> Vec<Arc<Plugin>> {
        let statuses = self.statuses().into_iter().map(|(_, status)| status);
        statuses.filter_map(|status| if let Status::Loaded(plugin) = status { Some(plugin) } else { None }).collect()
    }

    /// Loads what is not loaded yet, on a thread that may be busy for a while: compiling takes seconds.
    async fn load(&self) {
        let (engine, settings, endpoints) = (Arc::clone(&self.engine), self.settings.clone(), self.endpoints.clone());
        let loaded: HashSet<_> = self.loaded().iter().map(|plugin| Arc::clone(&plugin.name)).collect();
        let scan = move || scan(&engine, &settings, &endpoints, |name| !loaded.contains(name));
        match tokio::task::spawn_blocking(scan).await {
            Ok(Ok(scanned)) => {
                // A file that would not load and is gone has nothing more to say; a plugin that ran is marked missing.
                let is_there = |name: &Arc<str>| scanned.iter().any(|found| found.name == *name);
                lock(&self.plugins).retain(|name, status| !matches!(status, Status::Broken(_)) || is_there(name));
                scanned.into_iter().for_each(|scanned| self.take(scanned));
            }
            Ok(Err(error)) => tracing::error!(%error, "the plugins folder can't be read"),
            Err(panicked) => tracing::error!(error = %panicked, "loading the plugins panicked; please report this"),
        }
    }

    fn take(&self, Scanned { name, outcome, .. }: Scanned) {
        let status = match outcome {
            Ok(plugin) => {
                tracing::info!(plugin = %name, plugin_digest = %plugin.digest, "the plugin is loaded");
                Status::Loaded(plugin)
            }
            Err(error) => Status::Broken(error.to_string()),
        };
        let before = lock(&self.plugins).insert(Arc::clone(&name), status.clone());
        match (before, status) {
            (Some(Status::Broken(before)), Status::Broken(now)) if before == now => {}
            (_, Status::Broken(error)) => {
                tracing::error!(plugin = %name, error, "the plugin won't load; its runs are parked");
            }
            _ => {}
        }
    }

    fn mark_missing(&self, known: &[KnownPlugin]) {
        let mut plugins = lock(&self.plugins);
        for plugin in known {
            plugins.entry(Arc::clone(&plugin.name)).or_insert_with(|| {
                tracing::warn!(plugin = %plugin.name, "the plugin's file is missing; its runs are parked");
                Status::Missing
            });
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
