//! Long work in steps: how far it is, and where it is told to stop.

use futures::FutureExt as _;
use indicatif::ProgressBar;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Session;
use super::failure::{Failure, Failures};
use crate::ops::{Reply, Request};

/// Long work under way.
pub(super) struct Steps {
    bar: ProgressBar,
    interrupt: Option<Signal>,
}

impl Steps {
    /// Work of about so many pieces. From here on, an interrupt ends it between two steps and not the process.
    pub(super) fn new(session: &Session<'_>, length: u64) -> Self {
        // Where the signal can't be watched, it ends the process: what was done by then is done.
        Self { bar: session.console.progress(length), interrupt: signal(SignalKind::interrupt()).ok() }
    }

    /// So many more are done. Returns whether to go on.
    pub(super) fn done(&mut self, count: u64) -> bool {
        self.bar.inc(count);
        !self.is_interrupted()
    }

    fn is_interrupted(&mut self) -> bool {
        self.interrupt.as_mut().is_some_and(|signal| signal.recv().now_or_never().is_some())
    }

    /// Removes the bar.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// That a command was interrupted, and what holds of what it did not come to.
pub(super) fn interrupted() -> Failures {
    Failure::new("interrupted: what is said above was done, the rest is as it was").into()
}

impl Session<'_> {
    /// Fails unless somebody may be asked, or need not be.
    pub(super) fn may_ask(&self) -> Result<(), Failures> {
        if self.console.interactive() {
            return Ok(());
        }
        let failure = Failure::new("more than named ids is affected, and there is no terminal to ask on");
        Err(failure.help("look with --dry-run, then say --yes").into_usage())
    }

    /// How many deliveries, or dead letters, there are at most: for how far long work is.
    pub(super) async fn at_most(&mut self, letters: bool) -> Result<u64, Failures> {
        let replies = self.ask(Request::Status).await?;
        let counts = replies.iter().map(|reply| match reply {
            Reply::Status(status) if letters => status.store.dead_letters.iter().map(|row| row.count).sum(),
            Reply::Status(status) => status.store.deliveries.iter().map(|row| row.count).sum(),
            _ => 0_u64,
        });
        Ok(counts.sum())
    }
}
