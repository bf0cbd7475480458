//! Redis Streams, in the page's format, so that an event's identity is its entry's id.

use anyhow::Result;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamInfoGroupsReply, StreamRangeReply};
use wirehook_tests::conformance::source::{Bus, Guarantee, Order, Publisher};
use wirehook_tests::redis_server::RedisServer;
use wirehook_tests::source_conformance;

use crate::redis::connected;

const STREAM: &str = "fraiseql.events";
const GROUP: &str = "wirehook-bus";

/// The time of the first entry's id, in milliseconds since the Unix epoch. An id of its own for every order makes a
/// publication that can be repeated.
const FIRST_ENTRY_MS: u64 = 1_767_225_600_000;

source_conformance!(RedisStream);

struct RedisStream {
    server: RedisServer,
}

impl Bus for RedisStream {
    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;
    type Publisher = EntryPublisher;

    async fn start() -> Result<Self> {
        Ok(Self { server: RedisServer::start().await? })
    }

    async fn stopped() -> Result<Self> {
        Ok(Self { server: RedisServer::stopped()? })
    }

    fn source_toml(&self, name: &str) -> String {
        let url = self.server.url();
        format!(
            "[[source]]\nname = {name:?}\nkind = \"redis-stream\"\nurl = {url:?}\nstreams = [{STREAM:?}]\nstart = \"all\"\n"
        )
    }

    fn publisher(&self) -> EntryPublisher {
        EntryPublisher { url: self.server.url(), connection: None, last: None }
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.server.restart().await
    }

    async fn unaccepted(&self) -> Result<Option<u64>> {
        let mut client = self.server.client().await?;
        let groups: StreamInfoGroupsReply =
            redis::cmd("XINFO").arg("GROUPS").arg(STREAM).query_async(&mut client).await?;
        let group = groups.groups.iter().find(|group| group.name == GROUP);
        Ok(group.map(|group| (group.pending + group.lag.unwrap_or(0)) as u64))
    }
}

struct EntryPublisher {
    url: String,
    connection: Option<MultiplexedConnection>,
    /// The time of the last entry that the stream has.
    last: Option<u64>,
}

impl Clone for EntryPublisher {
    fn clone(&self) -> Self {
        Self { url: self.url.clone(), connection: None, last: None }
    }
}

impl EntryPublisher {
    /// Adds entries with rising ids, without those that the stream has; returns once they are synced.
    async fn add(&mut self, entries: Vec<(u64, Vec<u8>)>) -> Result<()> {
        let connection = connected(&self.url, &mut self.connection).await?;
        let last = match self.last {
            Some(last) => last,
            None => last_entry_ms(connection).await?,
        };
        let mut pipeline = redis::pipe();
        let mut newest = last;
        for (ms, body) in entries.into_iter().filter(|(ms, _)| *ms > last) {
            pipeline.cmd("XADD").arg(STREAM).arg(format!("{ms}-0")).arg("payload").arg(body);
            newest = ms;
        }
        if newest > last {
            let _: Vec<String> = pipeline.query_async(connection).await?;
        }
        self.last = Some(newest);
        Ok(())
    }
}

async fn last_entry_ms(connection: &mut MultiplexedConnection) -> Result<u64> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(STREAM).arg("+").arg("-").arg("COUNT").arg(1);
    let reply: StreamRangeReply = last.query_async(connection).await?;
    let Some(entry) = reply.ids.first() else { return Ok(0) };
    Ok(entry.id.split('-').next().unwrap_or_default().parse()?)
}

/// Every order has room for garbage after it.
fn entry_ms(order: &Order) -> u64 {
    FIRST_ENTRY_MS + 2 * order.number as u64
}

impl Publisher for EntryPublisher {
    async fn publish(&mut self, orders: &[Order]) -> Result<()> {
        self.add(orders.iter().map(|order| (entry_ms(order), order.page().to_vec())).collect()).await
    }

    async fn publish_garbage(&mut self) -> Result<()> {
        let last = last_entry_ms(connected(&self.url, &mut self.connection).await?).await?;
        self.add(vec![(last.max(FIRST_ENTRY_MS) + 1, b"\xff is no JSON".to_vec())]).await
    }
}
