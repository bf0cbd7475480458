//! Builds that took the host down with one event after the other are not called any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Crashers, Registry};
use crate::dead_letter::Reason;
use crate::plugin::PluginError;
use crate::store::{DeadLetterFilter, StoreError};
use crate::sync::lock;

/// A build with so many dead letters `host_crash` at the start is not called any more: it takes the host down with whatever
/// event it has. Only a start finds such dead letters, so they are counted there.
const HOST_CRASHES_MAX: usize = 3;

impl Registry {
    /// Takes builds from work that took the host down with one event after the other; their runs are parked.
    pub(super) async fn refuse_crashers(&self) -> Result<(), StoreError> {
        let known = lock(&self.crashers).clone();
        let crashers = match known {
            Some(known) => known,
            None => {
                let found = self.find_crashers().await?;
                lock(&self.crashers).insert(found).clone()
            }
        };
        for plugin in self.serving() {
            if crashers.contains(&(Arc::clone(&plugin.name), Arc::clone(&plugin.digest)))
                && let Some(entry) = lock(&self.plugins).get_mut(&plugin.name)
            {
                entry.status.serving = None;
                entry.untold = None;
                entry.refuse(&plugin.name, &PluginError::HostCrashes(HOST_CRASHES_MAX).to_string());
            }
        }
        Ok(())
    }

    async fn find_crashers(&self) -> Result<Crashers, StoreError> {
        let crashes = DeadLetterFilter { reason: Some(Reason::HostCrash), ..DeadLetterFilter::default() };
        let letters = self.parts.store.list_dead_letters(crashes.clone()).await?;
        let mut crashers = BTreeSet::new();
        for plugin in self.serving() {
            if !letters.iter().any(|letter| letter.plugin.as_deref() == Some(&*plugin.name)) {
                continue;
            }
            let by_build = DeadLetterFilter {
                plugin: Some(plugin.name.to_string()),
                plugin_digest: Some(plugin.digest.to_string()),
                ..crashes.clone()
            };
            if self.parts.store.list_dead_letters(by_build).await?.len() >= HOST_CRASHES_MAX {
                crashers.insert((Arc::clone(&plugin.name), Arc::clone(&plugin.digest)));
            }
        }
        Ok(crashers)
    }
}
