//! A consumer group of every stream, as commands. Reads that wait at the server have a connection of their own, since
//! nothing else gets through it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value, cmd};

use super::RedisStreamSource;
use super::entry::{self, Claimed, Entry, EntryId};
use super::held::Place;
use crate::source::BATCH_MESSAGES_MAX;
use crate::source::redis::connect::{Progress, SILENCE_MAX, counted, multiplexed};
use crate::source::redis::failure::Failure;

/// What is pending for so long with a consumer that says nothing of it is taken over by another.
pub const CLAIM_IDLE: Duration = Duration::from_secs(30);
/// How long a read waits at the server for entries.
const BLOCK: Duration = Duration::from_secs(2);
/// How long the server may take for a reply with entries, of any size, beyond [`BLOCK`].
const READ_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take for any other.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// Calls of `XAUTOCLAIM` for one stream at a time; the next time goes on where this one ended.
const SWEEP_CALLS_MAX: usize = 16;
/// Pages of pending entries that are handed back at most; others wait for [`CLAIM_IDLE`].
const HAND_BACK_PAGES_MAX: usize = 64;

/// Both connections.
#[derive(Clone)]
pub(super) struct Group {
    reader: MultiplexedConnection,
    received: Progress,
    pub(super) commands: Commands,
}

/// The connection of all commands that don't wait.
#[derive(Clone)]
pub(super) struct Commands {
    connection: MultiplexedConnection,
    keys: Arc<[Arc<str>]>,
    group: Arc<str>,
    consumer: Arc<str>,
}

/// What a look at the entries of silent consumers did.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Swept {
    pub(super) claimed: usize,
    /// Entries that were gone from their stream.
    pub(super) gone: usize,
}

impl Group {
    pub(super) async fn connect(
        source: &RedisStreamSource,
        keys: &Arc<[Arc<str>]>,
        consumer: &str,
    ) -> Result<Self, Failure> {
        let (reader, received) = counted(&source.name, &source.connection, BLOCK + READ_DEADLINE).await?;
        Ok(Self { reader, received, commands: Commands::connect(source, keys, consumer).await? })
    }

    /// Entries that no consumer has had, up to `count` of each stream; none where none came in [`BLOCK`].
    pub(super) async fn read_new(mut self, count: usize) -> Result<Vec<Entry>, Failure> {
        let mut command = self.commands.read(count);
        let keys = &self.commands.keys;
        let names: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        command.arg("BLOCK").arg(millis(BLOCK)).arg("STREAMS").arg(names).arg(vec![">"; keys.len()]);
        let reply = self.received.patiently(BLOCK + SILENCE_MAX, command.query_async(&mut self.reader)).await?;
        entries(reply, keys)
    }

    /// Entries that this consumer has had and not acknowledged, behind `after`.
    pub(super) async fn read_own(mut self, stream: usize, after: EntryId, count: usize) -> Result<Vec<Entry>, Failure> {
        let mut command = self.commands.read(count);
        command.arg("STREAMS").arg(&*self.commands.keys[stream]).arg(after.to_string());
        let reply = self.received.patiently(SILENCE_MAX, command.query_async(&mut self.reader)).await?;
        entries(reply, &self.commands.keys)
    }
}

impl Commands {
    pub(super) async fn connect(
        source: &RedisStreamSource,
        keys: &Arc<[Arc<str>]>,
        consumer: &str,
    ) -> Result<Self, Failure> {
        Ok(Self {
            connection: multiplexed(&source.name, &source.connection, COMMAND_DEADLINE).await?,
            keys: Arc::clone(keys),
            group: source.group.as_str().into(),
            consumer: consumer.into(),
        })
    }

    /// Whether the stream has the group; fails where this consumer may not do with it what it will have to.
    pub(super) async fn exists(&self, stream: usize) -> Result<bool, Failure> {
        // No entry has this id: the commands change nothing, and say what stands against them before there is an event.
        let nothing = [EntryId::default()];
        match self.query::<Value>(&self.claim(stream, &nothing, Duration::ZERO)).await {
            Ok(_) => {}
            Err(failure) if failure.code() == Some("NOGROUP") => return Ok(false),
            Err(failure) => return Err(failure),
        }
        self.ack_stream(stream, &nothing).await?;
        Ok(true)
    }

    /// Makes the group, and the stream where there is none; `false` where another made it just now.
    pub(super) async fn make(&self, stream: usize, origin: &str) -> Result<bool, Failure> {
        let mut command = cmd("XGROUP");
        command.arg("CREATE").arg(&*self.keys[stream]).arg(&*self.group).arg(origin).arg("MKSTREAM");
        match self.query::<Value>(&command).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code() == Some("BUSYGROUP") => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn destroy(&self, stream: usize) -> Result<(), Failure> {
        let mut command = cmd("XGROUP");
        self.query::<Value>(command.arg("DESTROY").arg(&*self.keys[stream]).arg(&*self.group)).await.map(drop)
    }

    /// Entries in the stream, where the server tells.
    pub(super) async fn length(&self, stream: usize) -> Option<u64> {
        self.query(cmd("XLEN").arg(&*self.keys[stream])).await.ok()
    }

    /// Acknowledges, one command a stream, all under way at once.
    pub(super) async fn ack(&self, ids: &[Place]) -> Result<(), Failure> {
        let acks = by_stream(ids).into_iter().map(async |(stream, ids)| self.ack_stream(stream, &ids).await);
        futures::future::try_join_all(acks).await.map(drop)
    }

    /// Says that these are being worked on, so that nobody takes them over.
    pub(super) async fn refresh(&self, places: &BTreeSet<Place>) -> Result<(), Failure> {
        for (stream, ids) in by_stream(places) {
            for ids in ids.chunks(BATCH_MESSAGES_MAX) {
                self.query::<Value>(&self.claim(stream, ids, Duration::ZERO)).await?;
            }
        }
        Ok(())
    }

    /// Takes over what has been pending for [`CLAIM_IDLE`], from any consumer; `places` are where the last sweep ended.
    pub(super) async fn sweep(&self, places: &mut [EntryId]) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        for (stream, place) in places.iter_mut().enumerate() {
            for _ in 0..SWEEP_CALLS_MAX {
                let mut command = cmd("XAUTOCLAIM");
                command.arg(&*self.keys[stream]).arg(&*self.group).arg(&*self.consumer).arg(millis(CLAIM_IDLE));
                command.arg(place.to_string()).arg("COUNT").arg(BATCH_MESSAGES_MAX).arg("JUSTID");
                let Claimed { next, claimed, gone } =
                    entry::claimed(self.query(&command).await?).map_err(|error| unreadable(&error))?;
                *place = next;
                swept.claimed += claimed;
                swept.gone += gone;
                if next == EntryId::default() {
                    break;
                }
            }
        }
        Ok(swept)
    }

    /// Lets any consumer take over at once what this one has had and not acknowledged, but for what is `held`. Returns how
    /// many entries.
    pub(super) async fn hand_back(&self, held: &BTreeSet<Place>) -> Result<usize, Failure> {
        let mut handed_back = 0;
        for stream in 0..self.keys.len() {
            let mut from = "-".to_owned();
            for _ in 0..HAND_BACK_PAGES_MAX {
                let mut command = cmd("XPENDING");
                command.arg(&*self.keys[stream]).arg(&*self.group).arg(&from).arg("+");
                command.arg(BATCH_MESSAGES_MAX).arg(&*self.consumer);
                let mut ids = entry::pending(self.query(&command).await?).map_err(|error| unreadable(&error))?;
                let Some(last) = ids.last() else { break };
                from = format!("({last}");
                ids.retain(|id| !held.contains(&(stream, *id)));
                if !ids.is_empty() {
                    self.query::<Value>(&self.claim(stream, &ids, CLAIM_IDLE)).await?;
                }
                handed_back += ids.len();
            }
        }
        Ok(handed_back)
    }

    fn read(&self, count: usize) -> Cmd {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&*self.group).arg(&*self.consumer).arg("COUNT").arg(count);
        command
    }

    /// Makes entries this consumer's, and says how long they have been idle.
    fn claim(&self, stream: usize, ids: &[EntryId], idle: Duration) -> Cmd {
        let mut command = cmd("XCLAIM");
        command.arg(&*self.keys[stream]).arg(&*self.group).arg(&*self.consumer).arg(0);
        command.arg(texts(ids)).arg("IDLE").arg(millis(idle)).arg("JUSTID");
        command
    }

    async fn ack_stream(&self, stream: usize, ids: &[EntryId]) -> Result<(), Failure> {
        let mut command = cmd("XACK");
        command.arg(&*self.keys[stream]).arg(&*self.group).arg(texts(ids));
        self.query::<Value>(&command).await.map(drop)
    }

    async fn query<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        Ok(command.query_async(&mut self.connection.clone()).await?)
    }
}

fn entries(reply: Value, keys: &[Arc<str>]) -> Result<Vec<Entry>, Failure> {
    entry::read(reply, keys).map_err(|error| unreadable(&error))
}

fn unreadable(error: &str) -> Failure {
    Failure::Connection(format!("a reply of the server can't be read: {error}"))
}

fn by_stream<'a>(places: impl IntoIterator<Item = &'a Place>) -> BTreeMap<usize, Vec<EntryId>> {
    let mut by_stream: BTreeMap<usize, Vec<EntryId>> = BTreeMap::new();
    places.into_iter().for_each(|(stream, id)| by_stream.entry(*stream).or_default().push(*id));
    by_stream
}

fn texts(ids: &[EntryId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
