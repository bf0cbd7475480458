//! Redis Streams: a consumer group.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Accept, Source, SourceError, SourceState};
use crate::drain::Drain;
use crate::settings::{RedisConnection, Start};

/// Redis Streams: a consumer group.
#[derive(Debug)]
pub struct RedisStreamSource {
    pub(super) name: Arc<str>,
    pub(super) connection: RedisConnection,
    pub(super) streams: Vec<String>,
    pub(super) group: String,
    pub(super) field: String,
    pub(super) start: Start,
    pub(super) ephemeral: bool,
}

impl Source for RedisStreamSource {
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
