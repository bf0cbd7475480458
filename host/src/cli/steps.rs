//! Long work in steps: how far it is, and where it is told to stop.

use futures::FutureExt as _;
use indicatif::ProgressBar;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Session;
use super::failure::{Failure, Failures};
use crate::ops::{Reply, Request};
use crate::store::{DeliveryState, StoreStatus};

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

/// What a bulk verb is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Countable {
    DeadLetters,
    WaitingDeliveries,
    DeadDeliveries,
}

impl Countable {
    fn count(self, store: &StoreStatus) -> u64 {
        let of = |states: &[DeliveryState]| {
            store.deliveries.iter().filter(|row| states.contains(&row.state)).map(|row| row.count).sum()
        };
        match self {
            Self::DeadLetters => store.dead_letters.iter().map(|row| row.count).sum(),
            Self::WaitingDeliveries => of(&[DeliveryState::Pending, DeliveryState::Retrying]),
            Self::DeadDeliveries => of(&[DeliveryState::Dead]),
        }
    }
}

impl Session<'_> {
    /// Fails unless there is somebody to ask whether what `would` says is meant.
    pub(super) fn may_ask(&self, would: &str) -> Result<(), Failures> {
        if self.console.interactive() {
            return Ok(());
        }
        let failure = Failure::new(format!("{would}, and there is no terminal to ask on"));
        Err(failure.help("look with --dry-run, then say --yes").into_usage())
    }

    /// How many of `what` there are: a bound of what a filter may mean.
    pub(super) async fn at_most(&mut self, what: Countable) -> Result<u64, Failures> {
        let replies = self.ask(Request::Status).await?;
        let counts = replies.iter().map(|reply| match reply {
            Reply::Status(status) => what.count(&status.store),
            _ => 0,
        });
        Ok(counts.sum())
    }

    /// Says that a list of what would be affected ends before its end: `meant` are, or with a filter as many at most.
    pub(super) fn tell_cut(&mut self, listed: usize, meant: u64, is_filtered: bool) {
        let more = meant.saturating_sub(listed as u64);
        if more == 0 {
            return;
        }
        let at_most = if is_filtered { " at most" } else { "" };
        let failure = Failure::new(format!("and {more} more{at_most}: a list ends at {listed}, what is done does not"));
        self.console.warning(&failure);
    }
}
