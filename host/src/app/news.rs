//! What a running host tells the one that watches it.

use tokio::sync::mpsc;

use crate::dispatcher::lane::Attempted;
use crate::drain::Drain;
use crate::source::SourceState;

/// What a running host tells the one that watches it.
#[derive(Debug)]
pub enum News {
    /// Every source was connected at least once, or has ended.
    Ready,
    /// An attempt ended. Its record is on its way to the store.
    Attempted(Box<Attempted>),
}

/// Tells once that every source is ready, and waits for the drain: a service that ends before is taken for broken.
pub(super) async fn tell_ready(states: Vec<SourceState>, watcher: mpsc::Sender<News>, drain: Drain) {
    let ready = async {
        for state in &states {
            // An error means that the source is gone, and the host with it.
            let _ = state.on_change().wait_for(|status| status.connected || status.ended).await;
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
        let copy = Attempted { delivery: attempted.delivery.clone(), record: attempted.record.clone() };
        let _ = watcher.send(News::Attempted(Box::new(copy))).await;
        // Fails only when the store has closed: the claim is released at the next start.
        if passed.send(attempted).await.is_err() {
            return;
        }
    }
}
