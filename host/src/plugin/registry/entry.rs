//! What is known of one plugin: what serves, what its files came to, and when they are read again.

use std::sync::Arc;
use std::time::Duration;

use super::{Fault, Progress, Status};
use crate::plugin::compiler::Cancel;
use crate::plugin::limits::hold;
use crate::plugin::{Plugin, PluginError, Scanned, Stamp};

/// A file that is not whole at so many looks, a third of a second apart at least, is broken: before, somebody may be
/// writing it.
const LOOKS_CUT_MAX: u32 = 15;

/// How long until a file that was being written is looked at again.
const WRITTEN_DELAY: Duration = Duration::from_millis(350);

/// How long until a failure that passes is tried again, the first time; twice as long after each further one.
const PASSING_DELAY_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between two tries of a failure that passes.
const PASSING_DELAY_MAX: Duration = Duration::from_mins(5);

/// A plugin, and the files it was last read from.
pub(super) struct Entry {
    /// The build that is called.
    pub(super) serving: Option<Arc<Plugin>>,
    pub(super) fault: Option<Fault>,
    /// None: to be read again at the next look.
    pub(super) stamp: Option<Stamp>,
    /// Its files are being read.
    pub(super) loading: Option<Loading>,
    /// When its files are read again, though they have not changed.
    pub(super) again_at: Option<Duration>,
    /// The subjects that its runs are kept for until it has been loaded once. None where it would not be admitted.
    pub(super) awaited: Option<Vec<String>>,
    /// Looks at which the file was not whole, one after the other.
    looks_cut: u32,
    /// Failures that pass, one after the other.
    passing: u32,
    /// A new build serves, in place of this one, and the log has not said so yet.
    pub(super) untold: Option<Option<Arc<Plugin>>>,
}

/// Files that are being read.
pub(super) struct Loading {
    pub(super) id: u64,
    pub(super) stamp: Stamp,
    pub(super) since: Duration,
    pub(super) compiles: bool,
    pub(super) cancel: Cancel,
}

/// Whether its files have been judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// They were taken or refused.
    Settled,
    /// They were being written, and are read again soon.
    Unsettled,
}

impl Entry {
    pub(super) fn unknown() -> Self {
        Self {
            serving: None,
            fault: None,
            stamp: None,
            loading: None,
            again_at: None,
            awaited: None,
            looks_cut: 0,
            passing: 0,
            untold: None,
        }
    }

    pub(super) fn status(&self, now: Duration) -> Status {
        Status {
            serving: self.serving.clone(),
            fault: self.fault.clone(),
            progress: self
                .loading
                .as_ref()
                .map(|loading| Progress { waited: now.saturating_sub(loading.since), compiles: loading.compiles }),
            again_in: self.again_at.filter(|_| self.passing > 0).map(|at| at.saturating_sub(now)),
        }
    }

    /// Whether its file is in the folder, or the settings ask for it.
    pub(super) fn is_there(&self) -> bool {
        self.fault != Some(Fault::Missing)
    }

    /// Whether nothing serves and nobody knows yet whether its files, which are there, will.
    pub(super) fn is_untried(&self) -> bool {
        self.serving.is_none() && self.fault.is_none() && self.awaited.is_some()
    }

    /// Whether its files are to be read, now that they look like `stamp`.
    pub(super) fn wants(&self, stamp: Stamp, now: Duration) -> bool {
        match &self.loading {
            Some(loading) => loading.stamp != stamp,
            None => self.stamp != Some(stamp) || self.again_at.is_some_and(|at| at <= now),
        }
    }

    /// Its files are being read from now on, in place of others.
    pub(super) fn begin(&mut self, loading: Loading) {
        self.again_at = None;
        self.stop_loading();
        self.loading = Some(loading);
    }

    /// Nobody waits for what is being read any more.
    pub(super) fn stop_loading(&mut self) {
        if let Some(before) = self.loading.take() {
            before.cancel.cancel();
        }
    }

    pub(super) fn go_missing(&mut self, name: &str) {
        if self.fault.replace(Fault::Missing) != Some(Fault::Missing) {
            tracing::warn!(plugin = %name, "the plugin's file is missing; its runs are parked");
        }
        self.stop_loading();
        self.serving = None;
        self.stamp = None;
        self.again_at = None;
    }

    /// Takes what was read of its files, unless they are being written. `last_good` is a build to go on with where they
    /// won't load.
    pub(super) fn take(&mut self, scanned: Scanned, last_good: Option<Arc<Plugin>>, now: Duration) -> Look {
        let Scanned { name, outcome, stamp, changing, .. } = scanned;
        self.loading = None;
        if changing {
            self.again_at = Some(now + WRITTEN_DELAY);
            return Look::Unsettled;
        }
        let cut = matches!(outcome, Err(PluginError::NotWhole));
        self.looks_cut = if cut { self.looks_cut.saturating_add(1) } else { 0 };
        if cut && self.looks_cut < LOOKS_CUT_MAX {
            if self.looks_cut == 1 {
                tracing::info!(plugin = %name, "the plugin's file is being written; waiting for the rest of it");
            }
            self.again_at = Some(now + WRITTEN_DELAY);
            return Look::Unsettled;
        }
        match outcome {
            Ok(plugin) => self.serve(plugin),
            Err(PluginError::Missing(_)) if self.serving.is_some() => {
                self.go_missing(&name);
                return Look::Settled;
            }
            Err(error) => {
                self.fail(&name, &error, now);
                self.go_on_with(&name, last_good);
            }
        }
        self.stamp = Some(stamp);
        Look::Settled
    }

    /// To be told once it is at work.
    fn serve(&mut self, plugin: Arc<Plugin>) {
        self.untold = Some(self.serving.replace(plugin));
        self.fault = None;
        self.passing = 0;
    }

    /// Refuses its files; where that may pass by itself, they are read again after a wait that grows.
    fn fail(&mut self, name: &str, error: &PluginError, now: Duration) {
        if !error.is_passing() {
            self.passing = 0;
            self.refuse(name, &error.to_string());
            return;
        }
        let wait = passing_delay(self.passing);
        self.passing = self.passing.saturating_add(1);
        self.again_at = Some(now + wait);
        tracing::warn!(
            plugin = %name, %error, wait_s = wait.as_secs_f64(), attempts = self.passing,
            "the plugin could not be loaded just now, which is not its file's fault; it is tried again"
        );
        self.refuse(name, &error.to_string());
    }

    fn go_on_with(&mut self, name: &str, last_good: Option<Arc<Plugin>>) {
        if let (None, Some(plugin)) = (&self.serving, last_good) {
            tracing::warn!(plugin = %name, plugin_digest = %plugin.digest, "the plugin's last good build is at work");
            self.serving = Some(plugin);
        }
    }

    pub(super) fn tell(&mut self) {
        let (Some(before), Some(plugin)) = (self.untold.take(), &self.serving) else { return };
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

    pub(super) fn refuse(&mut self, name: &str, error: &str) {
        let fault = Some(Fault::Refused(error.to_owned()));
        if std::mem::replace(&mut self.fault, fault.clone()) == fault {
            return;
        }
        match (&self.serving, &self.awaited) {
            (None, None) => tracing::error!(plugin = %name, error, "the plugin won't load"),
            (None, Some(_)) => tracing::error!(plugin = %name, error, "the plugin won't load; its runs are parked"),
            (Some(before), _) => tracing::error!(
                plugin = %name, plugin_digest = %before.digest, error,
                "the plugin's new files won't load; the build before them goes on"
            ),
        }
    }
}

/// How long until the next try after so many failures before.
fn passing_delay(failures: u32) -> Duration {
    PASSING_DELAY_FIRST.saturating_mul(1 << failures.min(16)).min(PASSING_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_passes_is_tried_again_later_and_later() {
        let check = |failures, expected| assert_eq!(passing_delay(failures).as_secs(), expected, "{failures}");
        check(0, 1);
        check(1, 2);
        check(8, 256);
        check(9, 300);
        check(u32::MAX, 300);
    }
}
