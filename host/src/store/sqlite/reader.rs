//! Reading beside the writer: a few connections of their own, on threads that may block.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Semaphore;

use super::open::{self, SqliteOptions};
use crate::store::StoreError;

/// Reads under way at once; others wait.
const READERS_MAX: usize = 4;

/// The readers' connections, opened when first needed.
pub(super) struct Readers {
    options: SqliteOptions,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(options: SqliteOptions) -> Arc<Self> {
        Arc::new(Self { options, idle: Mutex::default(), permits: Arc::new(Semaphore::new(READERS_MAX)) })
    }

    /// Runs `query` on one moment's state of the store.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(self);
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let reading = tokio::task::spawn_blocking(move || {
            let result = readers.read_here(query);
            drop(permit);
            result
        });
        match reading.await {
            Ok(result) => result.map_err(|error| StoreError::Read(error.to_string())),
            Err(error) => Err(StoreError::Read(error.to_string())),
        }
    }

    /// As [`Self::read`], on the calling thread, which may block.
    pub(super) fn read_blocking<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let permit = futures::executor::block_on(self.permits.acquire()).map_err(|_| StoreError::Closed)?;
        let result = self.read_here(query);
        drop(permit);
        result.map_err(|error| StoreError::Read(error.to_string()))
    }

    fn read_here<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open::open_reader(&self.options)?,
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let value = query(&transaction)?;
        transaction.finish()?;
        // A connection that met an error was dropped on the way; this one did not.
        if !self.permits.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(value)
    }

    /// Refuses further reads and closes the idle connections.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
