//! Pausing and resuming: durable first, then the running host is told.

use super::{OpsHooks, Reply};
use crate::store::{Pause, PauseKind, Store, StoreError};

/// Pauses, or resumes where not `paused`.
pub(super) async fn change(
    store: &dyn Store,
    hooks: &dyn OpsHooks,
    pause: Pause,
    paused: bool,
) -> Result<Reply, StoreError> {
    let (kind, name) = (pause.kind, pause.name.clone());
    // What is gone and still paused can be resumed: that only forgets the pause.
    if paused && !exists(store, hooks, &pause).await? {
        return Ok(Reply::NotFound);
    }
    let changed = if paused { store.pause(pause).await? } else { store.resume(kind, name.clone()).await? };
    if !paused && !changed && hooks.knows(kind, &name) == Some(false) {
        return Ok(Reply::NotFound);
    }
    // Also where nothing changed: the host may not have been told the last time, because the store failed then.
    let settled = hooks.pauses_changed(kind, name).await?;
    Ok(Reply::PauseChanged { changed, settled })
}

/// Without a host, the plugins that the store remembers; which sources there are then, only the settings say.
async fn exists(store: &dyn Store, hooks: &dyn OpsHooks, Pause { kind, name, .. }: &Pause) -> Result<bool, StoreError> {
    match (hooks.knows(*kind, name), kind) {
        (Some(known), _) => Ok(known),
        (None, PauseKind::Source) => Ok(true),
        (None, PauseKind::Plugin) => Ok(store.known_plugins().await?.iter().any(|known| known.name == *name)),
    }
}
