//! Builds that took the host down with one event after the other are not called any more.

use std::sync::Arc;

use super::Registry;
use crate::dead_letter::Reason;
use crate::plugin::PluginError;
use crate::store::{DeadLetterFilter, StoreError};
use crate::sync::lock;

/// A build with so many dead letters `host_crash` at the start is not called any more: it takes the host down with whatever
/// event it has. Only a start finds such dead letters, so they are counted once for each build.
const HOST_CRASHES_MAX: usize = 3;

impl Registry {
    /// Takes builds from work that took the host down with one event after the other; their runs are parked.
    pub(super) async fn refuse_crashers(&self) -> Result<(), StoreError> {
        for plugin in self.serving() {
            let build = (Arc::clone(&plugin.name), Arc::clone(&plugin.digest));
            let known = lock(&self.crashers).get(&build).copied();
            let crashes = match known {
                Some(crashes) => crashes,
                None => self.crashes(&plugin.name, &plugin.digest).await?,
            };
            lock(&self.crashers).insert(build, crashes);
            if crashes && let Some(entry) = lock(&self.plugins).get_mut(&plugin.name) {
                entry.serving = None;
                entry.untold = None;
                entry.refuse(&plugin.name, &PluginError::HostCrashes(HOST_CRASHES_MAX).to_string());
            }
        }
        Ok(())
    }

    /// Whether some build of the plugin was found to take the host down.
    pub(super) fn has_crashed(&self, plugin: &str) -> bool {
        lock(&self.crashers).iter().any(|((name, _), crashes)| *crashes && **name == *plugin)
    }

    async fn crashes(&self, plugin: &str, digest: &str) -> Result<bool, StoreError> {
        let crashes = DeadLetterFilter { reason: Some(Reason::HostCrash), ..DeadLetterFilter::default() };
        let letters = || self.parts.store.list_dead_letters(crashes.clone());
        let named = async || Ok(letters().await?.into_iter().filter_map(|letter| letter.plugin).collect());
        if !self.crashed.get_or_try_init(named).await?.contains(plugin) {
            return Ok(false);
        }
        let by_build = DeadLetterFilter {
            plugin: Some(plugin.to_owned()),
            plugin_digest: Some(digest.to_owned()),
            ..crashes.clone()
        };
        Ok(self.parts.store.list_dead_letters(by_build).await?.len() >= HOST_CRASHES_MAX)
    }
}
