//! Why a host did not start, or could not go on.

use crate::admin;
use crate::endpoint::EndpointError;
use crate::ops::socket::SocketError;
use crate::plugin::EngineError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::store::sqlite::OpenError;

/// Why a host did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store failed while the host started.
    #[error("the store failed while the host started: {0}")]
    Start(#[from] StoreError),
    /// Plugins can't be run here.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The folder for plugins' builds can't be made.
    #[error("the folder for the plugins' last good builds `{}` can't be used; it must be one that the host may create and write", dir.display())]
    Builds {
        /// The folder.
        dir: std::path::PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("a worker thread could not be started: {0}; raise the limit on processes")]
    Thread(#[source] std::io::Error),
    /// An endpoint can't be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The admin listener can't listen.
    #[error(transparent)]
    Admin(#[from] admin::AdminBindError),
    /// The commands' socket can't listen.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A metric is registered twice.
    #[error("the metrics can't be set up: {0}; please report this")]
    Metrics(#[from] prometheus::Error),
    /// A source can't be, or can't go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The outbox, the recorder, a service or the store's writer is gone.
    #[error("a part of the host ended by itself; the log says why. Start the host again: nothing accepted is lost")]
    PartEnded,
    /// A source ended with a panic.
    #[error("a source ended with a panic: {0}; please report this")]
    Panicked(#[source] tokio::task::JoinError),
}
