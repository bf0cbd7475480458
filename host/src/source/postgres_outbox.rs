//! Rows of FraiseQL's outbox.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Accept, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::settings::{PostgresConnection, Start, TableName};

/// Rows of FraiseQL's outbox.
#[derive(Debug)]
pub struct PostgresOutboxSource {
    pub(super) name: Arc<str>,
    pub(super) connection: PostgresConnection,
    pub(super) table: TableName,
    pub(super) channel: String,
    pub(super) start: Start,
}

impl Source for PostgresOutboxSource {
    fn run(
        self: Box<Self>,
        _inbox: Arc<dyn Accept>,
        _state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            drain.begun().await;
            Ok(())
        })
    }
}
