//! Redis pub/sub, in the page's format: the server keeps nothing.

use anyhow::Result;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::redis_server::RedisServer;
use wirehook_tests::source_conformance;

const CHANNEL: &str = "fraiseql.order.created";

source_conformance!(Redis);

struct Redis {
    server: RedisServer,
}

impl Bus for Redis {
    const GUARANTEE: Guarantee = Guarantee::AtMostOnce;
    type Publisher = ChannelPublisher;

    async fn start() -> Result<Self> {
        Ok(Self { server: RedisServer::start().await? })
    }

    async fn stopped() -> Result<Self> {
        Ok(Self { server: RedisServer::stopped()? })
    }

    fn source_toml(&self, name: &str) -> String {
        let url = self.server.url();
        format!("[[source]]\nname = {name:?}\nkind = \"redis\"\nurl = {url:?}\nchannels = [\"fraiseql.*\"]\n")
    }

    fn publisher(&self) -> ChannelPublisher {
        ChannelPublisher { url: self.server.url(), connection: None }
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }

    async fn unaccepted(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// A connection that is made when it is needed.
pub(crate) async fn connected<'a>(
    url: &str,
    connection: &'a mut Option<MultiplexedConnection>,
) -> Result<&'a mut MultiplexedConnection> {
    Ok(match connection {
        Some(connection) => connection,
        none => none.insert(redis::Client::open(url)?.get_multiplexed_async_connection().await?),
    })
}

struct ChannelPublisher {
    url: String,
    connection: Option<MultiplexedConnection>,
}

impl Clone for ChannelPublisher {
    fn clone(&self) -> Self {
        Self { url: self.url.clone(), connection: None }
    }
}

impl ChannelPublisher {
    async fn send(&mut self, bodies: Vec<Bytes>) -> Result<()> {
        let mut pipeline = redis::pipe();
        for body in bodies {
            pipeline.cmd("PUBLISH").arg(CHANNEL).arg(&body[..]);
        }
        let _: Vec<u64> = pipeline.query_async(connected(&self.url, &mut self.connection).await?).await?;
        Ok(())
    }
}

impl Publisher for ChannelPublisher {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        self.send(orders.iter().map(Order::page).collect()).await
    }

    async fn publish_garbage(&mut self) -> Result<()> {
        self.send(vec![Bytes::from_static(b"\xff is no JSON")]).await
    }
}
