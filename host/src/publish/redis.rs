//! To Redis: channels, where the server says how many were there, and streams.

use std::sync::Arc;

use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline};

use super::{BATCH_DEADLINE, Publish, PublishError, Routed, Taken};
use crate::settings::RedisConnection;
use crate::source::redis::publishing::{explain, publisher};

/// Pub/sub: the server has handed an event to whoever is there once it has answered.
pub(super) struct ChannelPublisher {
    server: Server,
}

/// Streams: the server has an entry once it has answered with its id; on its disk by its own `appendfsync`.
pub(super) struct StreamPublisher {
    server: Server,
    field: Arc<str>,
}

struct Server {
    bus: String,
    connection: MultiplexedConnection,
}

impl ChannelPublisher {
    pub(super) async fn connect(bus: String, connection: &RedisConnection) -> Result<Self, PublishError> {
        Ok(Self { server: Server::connect(bus, connection).await? })
    }
}

impl Publish for ChannelPublisher {
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>> {
        Box::pin(async move {
            let mut commands = redis::pipe();
            for Routed { event, destination } in batch {
                commands.cmd("PUBLISH").arg(&**destination).arg(&event.payload[..]);
            }
            let receivers: Vec<u64> = self.server.carry_out(batch, &commands, "+publish &{channel}").await?;
            let unheard = receivers.iter().filter(|count| **count == 0).count() as u64;
            Ok(Taken { unheard: Some(unheard), duplicates: 0 })
        })
    }
}

impl StreamPublisher {
    pub(super) async fn connect(bus: String, connection: &RedisConnection, field: &str) -> Result<Self, PublishError> {
        Ok(Self { server: Server::connect(bus, connection).await?, field: field.into() })
    }
}

impl Publish for StreamPublisher {
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>> {
        Box::pin(async move {
            let mut commands = redis::pipe();
            for Routed { event, destination } in batch {
                commands.cmd("XADD").arg(&**destination).arg("*").arg(&*self.field).arg(&event.payload[..]);
            }
            let _ids: Vec<String> = self.server.carry_out(batch, &commands, "+xadd ~{stream}").await?;
            Ok(Taken::default())
        })
    }
}

impl Server {
    async fn connect(bus: String, connection: &RedisConnection) -> Result<Self, PublishError> {
        match publisher(connection, BATCH_DEADLINE).await {
            Ok(connection) => Ok(Self { bus, connection }),
            Err(error) => {
                let help = "start the server, or mend `url`, `user` and `password` of the source";
                Err(super::unreachable(&bus, &connection.url, &error, help))
            }
        }
    }

    async fn carry_out<T: FromRedisValue>(
        &mut self,
        batch: &[Routed],
        commands: &Pipeline,
        rules: &str,
    ) -> Result<Vec<T>, PublishError> {
        commands.query_async(&mut self.connection).await.map_err(|error| PublishError::Refused {
            bus: self.bus.clone(),
            line: batch.first().map_or(1, |routed| routed.event.line),
            error: explain(error, rules),
            help: String::new(),
        })
    }
}
