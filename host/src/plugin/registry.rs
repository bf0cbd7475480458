//! Which plugins are known, and which of them can be called: keeps the pool, the routes and the store agreed.

use std::collections::BTreeMap;
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
        let newly_loaded = self.load();
        let mut known = self.store.known_plugins().await?;
        for plugin in &newly_loaded {
            known.retain(|other| other.name != plugin.name);
            known.push(as_known(plugin));
            self.pool.install(Arc::clone(plugin));
        }
        self.mark_missing(&known);
        // Subscribed before it is remembered: remembering is what puts back to work the runs parked until now.
        self.routes.set(Routes::new(&known, |name| self.is_loaded(name)));
        for plugin in &known {
            if !self.is_loaded(&plugin.name) {
                self.store.park_runs(Arc::clone(&plugin.name)).await?;
            }
        }
        self.unpark().await
    }

    /// Puts parked runs of loaded plugins back to work. Called now and then too: an event that was accepted while its
    /// plugin came back may have been parked a moment after the plugin was remembered.
    pub async fn unpark(&self) -> Result<(), StoreError> {
        for (name, status) in self.statuses() {
            let Status::Loaded(plugin) = status else { continue };
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

    fn load(&self) -> Vec<Arc<Plugin>> {
        let scanned = match scan(&self.engine, &self.settings, &self.endpoints, |name| !self.is_loaded(name)) {
            Ok(scanned) => scanned,
            Err(error) => {
                tracing::error!(%error, "the plugins folder can't be read");
                return Vec::new();
            }
        };
        let mut newly_loaded = Vec::new();
        let mut plugins = lock(&self.plugins);
        // A file that would not load and is gone has nothing more to say; a plugin that ran is marked missing below.
        plugins.retain(|name, status| {
            !matches!(status, Status::Broken(_)) || scanned.iter().any(|found| found.name == *name)
        });
        for Scanned { name, outcome, .. } in scanned {
            match outcome {
                Ok(plugin) => {
                    tracing::info!(plugin = %name, plugin_digest = %plugin.digest, "the plugin is loaded");
                    newly_loaded.push(Arc::clone(&plugin));
                    plugins.insert(name, Status::Loaded(plugin));
                }
                Err(error) => {
                    tracing::error!(plugin = %name, %error, "the plugin won't load; its runs are parked");
                    plugins.insert(name, Status::Broken(error.to_string()));
                }
            }
        }
        newly_loaded
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
