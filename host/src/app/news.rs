//! What a running host tells the one that watches it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::dispatcher::lane::Attempted;
use crate::drain::Drain;
use crate::inbox::Unrouted;
use crate::plugin::pool::Ran;
use crate::plugin::registry::Registry;
use crate::source::{SourceState, SourceStatus};

/// What a running host tells the one that watches it.
#[derive(Debug)]
pub enum News {
    /// Every source was connected at least once, or has ended, and every plugin was loaded, or is refused.
    Ready,
    /// A plugin was called. What came of it is on its way to the store.
    Called(Box<Called>),
    /// An event was accepted that no plugin is subscribed to.
    Unrouted {
        /// The event's key.
        event_key: String,
        /// The event's subject.
        subject: String,
    },
    /// An attempt ended. Its record is on its way to the store.
    Attempted(Box<Attempted>),
}

/// A call of a plugin that ended.
#[derive(Clone, Debug)]
pub struct Called {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// Of its file.
    pub plugin_digest: Arc<str>,
    /// The event's key.
    pub event_key: String,
    /// The event's subject.
    pub subject: String,
    /// Which try of the run, from 1.
    pub attempt: u32,
    /// How many webhooks, or why there are none.
    pub result: Result<usize, String>,
    /// How long it took.
    pub duration: Duration,
    /// The most memory in use at once, in bytes.
    pub memory_peak_bytes: usize,
}

impl From<&Ran> for Called {
    fn from(Ran { run, plugin, report, .. }: &Ran) -> Self {
        Self {
            plugin: Arc::clone(&run.plugin),
            plugin_digest: Arc::clone(&plugin.digest),
            event_key: run.event.key.as_str().to_owned(),
            subject: run.event.subject.clone(),
            attempt: run.attempts_made.saturating_add(1),
            result: report.result.as_ref().map(Vec::len).map_err(ToString::to_string),
            duration: report.duration,
            memory_peak_bytes: report.memory_peak_bytes,
        }
    }
}

/// Tells `watcher` of an event that nobody is subscribed to, where there is room for the news: the inbox waits for nobody.
pub(super) fn of_unrouted(watcher: &mpsc::Sender<News>) -> Unrouted {
    let watcher = watcher.clone();
    Box::new(move |event| {
        let (event_key, subject) = (event.key.as_str().to_owned(), event.subject.clone());
        let _full = watcher.try_send(News::Unrouted { event_key, subject });
    })
}

/// Tells of every call and passes it on, until the workers have stopped.
pub(super) async fn tell_calls(mut runs: mpsc::Receiver<Ran>, passed: mpsc::Sender<Ran>, watcher: mpsc::Sender<News>) {
    while let Some(ran) = runs.recv().await {
        // Whoever does not listen any more need not be told.
        let _ = watcher.send(News::Called(Box::new(Called::from(&ran)))).await;
        // Fails only when the store has closed: the claim is released at the next start.
        if passed.send(ran).await.is_err() {
            return;
        }
    }
}

/// Tells once that every source is ready and every plugin was tried, and waits for the drain: a service that ends before is taken for broken.
pub(super) async fn tell_ready(
    states: Vec<SourceState>,
    registry: Arc<Registry>,
    watcher: mpsc::Sender<News>,
    drain: Drain,
) {
    let ready = async {
        registry.started().await;
        for state in &states {
            // An error means that the source is gone, and the host with it.
            let _ = state.on_change().wait_for(SourceStatus::is_ready).await;
        }
        // Whoever does not listen any more need not be told.
        let _ = watcher.send(News::Ready).await;
    };
    tokio::select! {
        () = drain.begun() => return,
        () = ready => {}
    }
    drain.begun().await;
}

/// Tells of every attempt and passes it on, until the lanes have stopped.
pub(super) async fn tell_attempts(
    mut attempts: mpsc::Receiver<Attempted>,
    passed: mpsc::Sender<Attempted>,
    watcher: mpsc::Sender<News>,
) {
    while let Some(attempted) = attempts.recv().await {
        let copy =
            Attempted { delivery: attempted.delivery.clone(), record: attempted.record.clone(), news: attempted.news };
        let _ = watcher.send(News::Attempted(Box::new(copy))).await;
        // Fails only when the store has closed: the claim is released at the next start.
        if passed.send(attempted).await.is_err() {
            return;
        }
    }
}
