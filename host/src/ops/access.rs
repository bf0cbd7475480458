//! The way to the store for a command: over the socket of the running host, else by opening it.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::client::{ClientError, OpsClient};
use super::{Offline, Reply, Request, handle};
use crate::clock::Clock;
use crate::settings::StoreSettings;
use crate::store::Store;

/// Opens the store for a command, taking its lock; never creates or migrates it.
pub trait OpenOffline: Send + Sync {
    /// The store, locked for as long as it is held.
    ///
    /// # Errors
    /// When there is no store, it is locked, or it is of another version.
    fn open<'a>(&'a self, settings: &'a StoreSettings) -> BoxFuture<'a, Result<Arc<dyn Store>, OfflineError>>;
}

/// Why a command did not get the store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct OfflineError {
    /// What happened to which store.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// By the running host.
    #[error(transparent)]
    Host(#[from] ClientError),
    /// By the store that the command opened.
    #[error(transparent)]
    Offline(#[from] OfflineError),
}

/// Asks the running host; without one, opens the store and does the same by itself.
///
/// # Errors
/// When the host does not answer, or the store can't be opened.
pub async fn ask(
    settings: &StoreSettings,
    opener: &dyn OpenOffline,
    clock: &dyn Clock,
    request: Request,
) -> Result<Vec<Reply>, AskError> {
    if let Some(client) = OpsClient::connect(&settings.path).await? {
        return Ok(client.ask(request).await?);
    }
    let store = opener.open(settings).await?;
    Ok(handle(store.as_ref(), &Offline, clock, request).await)
}
