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

/// What was answered.
pub struct Asked {
    /// The answer.
    pub replies: Vec<Reply>,
    /// The store, where no host runs: to be asked again with [`ask_offline`], and locked until it is dropped.
    pub store: Option<Arc<dyn Store>>,
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
) -> Result<Asked, AskError> {
    if let Some(client) = OpsClient::connect(&settings.path).await? {
        return Ok(Asked { replies: client.ask(request).await?, store: None });
    }
    let store = opener.open(settings).await?;
    Ok(Asked { replies: ask_offline(store.as_ref(), clock, request).await, store: Some(store) })
}

/// Does what is asked on a store that no host has.
pub async fn ask_offline(store: &dyn Store, clock: &dyn Clock, request: Request) -> Vec<Reply> {
    handle(store, &Offline, clock, request).await
}
