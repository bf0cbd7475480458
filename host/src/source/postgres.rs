//! `LISTEN`: at most once.

pub(crate) mod connection;
pub(crate) mod row;
pub(crate) mod words;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Accept, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::settings::{PostgresConnection, TableName};

/// `LISTEN`: at most once.
#[derive(Debug)]
pub struct PostgresSource {
    pub(super) name: Arc<str>,
    pub(super) connection: PostgresConnection,
    pub(super) channels: Vec<String>,
    pub(super) table: TableName,
}

impl Source for PostgresSource {
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
