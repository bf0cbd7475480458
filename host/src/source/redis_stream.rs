//! Redis Streams: a consumer group. An entry is acknowledged after the commit that keeps it, never before.
//!
//! An entry's position is `{stream}:{id}`. Ids hold the time: in a stream that was deleted and made again they are others,
//! unless its writers make up ids of their own.
//!
//! Memory is bounded by the batches in flight and one reply of [`BATCH_MESSAGES_MAX`] entries at most, fewer where the last
//! ones were large. Redis bounds a reply by the number of entries only.

mod attach;
mod entry;
mod group;
mod held;
mod leave;
mod pace;
mod standing;

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Sleep;

use self::attach::{Attached, attach};
pub use self::entry::FIELDS_BYTES_MAX;
use self::entry::{Entry, EntryId};
pub use self::group::CLAIM_IDLE;
use self::group::{Commands, Group, Swept};
use self::held::{Held, HeldBatch};
use self::pace::Pace;
use self::standing::Standing;
use super::batches::{Batches, Ended};
use super::redis::connect::rules;
use super::redis::failure::Failure;
use super::{
    Accept, AcceptError, BATCH_MESSAGES_MAX, BATCHES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MAX, Backoff, Source, SourceError,
    SourceState, pending_or,
};
use crate::drain::Drain;
use crate::settings::{RedisConnection, Start};

/// How often the server is told that entries are being worked on, and asked for those that nobody works on.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(CLAIM_IDLE.as_secs() / 3);
/// Bytes after which a batch takes no more entries.
const BATCH_BYTES_MAX: usize = BYTES_IN_FLIGHT_MAX / BATCHES_IN_FLIGHT_MAX;
/// What an ACL has to allow.
const RULES: &str = "+xreadgroup +xack +xclaim +xautoclaim +xpending +xgroup +xlen ~{stream}";

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
    /// The consumer's name where the store knows none yet: no other store may have it.
    pub(super) new_consumer: String,
}

/// Why a session ended.
enum SessionEnd {
    Drained,
    InboxClosed,
    Failed(Failure),
}

impl From<Failure> for SessionEnd {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Source for RedisStreamSource {
    fn run(
        self: Box<Self>,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        let consumer = Consumer {
            keys: self.streams.iter().map(|key| Arc::from(key.as_str())).collect(),
            source: *self,
            batches: Batches::within(inbox.intake()),
            inbox,
            state,
            drain,
            standing: None,
            standing_due: false,
            made: BTreeSet::new(),
            held: Arc::default(),
            ready: VecDeque::new(),
            own: None,
            pace: Pace::new(),
            backoff: Backoff::new(),
            accept_backoff: Backoff::new(),
            has_been_up: false,
            link_lost: false,
        };
        Box::pin(consumer.run())
    }
}

/// A running source.
struct Consumer {
    source: RedisStreamSource,
    keys: Arc<[Arc<str>]>,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
    /// Read from the store at the first session.
    standing: Option<Standing>,
    /// Whether the store has to be told of it.
    standing_due: bool,
    /// Streams whose groups this source has made.
    made: BTreeSet<usize>,
    held: Arc<Held>,
    /// Read, and not yet in a batch.
    ready: VecDeque<Entry>,
    /// How far this consumer's own pending entries have been read; new ones come after them.
    own: Option<Own>,
    pace: Pace,
    batches: Batches,
    backoff: Backoff,
    /// Between refusals of the inbox, during which nothing is read.
    accept_backoff: Backoff,
    /// Whether anything could be read before.
    has_been_up: bool,
    /// Whether the connection was lost since.
    link_lost: bool,
}

/// A place among the pending entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Own {
    stream: usize,
    after: EntryId,
}

/// A read under way: where it reads, where it is not for new entries.
type Reading = BoxFuture<'static, (Option<Own>, Result<Vec<Entry>, Failure>)>;

impl Consumer {
    async fn run(mut self) -> Result<(), SourceError> {
        let mut closed = false;
        while !self.drain.is_draining() {
            let end = match self.session().await {
                Ok(()) => SessionEnd::Drained,
                Err(end) => end,
            };
            self.state.disconnected();
            match end {
                SessionEnd::Drained => break,
                SessionEnd::InboxClosed => {
                    closed = true;
                    break;
                }
                SessionEnd::Failed(failure) => {
                    self.link_lost |= matches!(failure, Failure::Connection(_));
                    self.state.failed(&failure.advised(&rules(RULES, &self.source.connection)));
                    self.backoff.wait(&self.drain).await;
                }
            }
        }
        // What is in no batch goes at once, what a batch leaves behind when they have ended.
        self.hand_back().await;
        closed |= matches!(self.batches.finish().await, Err(AcceptError::Closed));
        self.hand_back().await;
        if self.source.ephemeral {
            self.remove_groups().await;
        }
        if closed && !self.drain.is_draining() {
            return Err(SourceError::InboxClosed { name: self.source.name });
        }
        Ok(())
    }

    /// Reads over one connection, until the drain begins.
    async fn session(&mut self) -> Result<(), SessionEnd> {
        let drain = self.drain.clone();
        let attached = tokio::select! {
            () = drain.begun() => return Ok(()),
            attached = self.attach() => attached?,
        };
        self.own = Some(Own::default());
        self.swept(attached.swept);
        self.serve(&attached.group, attached.places).await
    }

    async fn attach(&mut self) -> Result<Attached, SessionEnd> {
        let standing = match &mut self.standing {
            Some(standing) => standing,
            none => {
                let cursor = self.inbox.cursor(&self.source.name).await.map_err(|error| match error {
                    AcceptError::Closed => SessionEnd::InboxClosed,
                    error => SessionEnd::Failed(Failure::Connection(error.to_string())),
                })?;
                self.standing_due = cursor.is_none();
                none.insert(Standing::read(cursor.as_deref(), &self.source.new_consumer))
            }
        };
        let before = standing.clone();
        let attached = attach(&self.source, &self.keys, standing, &mut self.made).await;
        self.standing_due |= *standing != before;
        let attached = attached?;
        self.held.connect(attached.group.commands.clone());
        Ok(attached)
    }

    async fn serve(&mut self, group: &Group, places: Vec<EntryId>) -> Result<(), SessionEnd> {
        let mut reading: Option<Reading> = None;
        let mut refused: Option<Pin<Box<Sleep>>> = None;
        let mut up = false;
        let mut upkeep = Box::pin(upkeep(group.commands.clone(), Arc::clone(&self.held), places));
        loop {
            if refused.is_none() {
                self.begin_ready().await;
            }
            let reads = self.batches.has_room() && refused.is_none();
            if reads && reading.is_none() {
                reading = Some(self.read(group));
            }
            tokio::select! {
                biased;
                () = self.drain.begun() => return Ok(()),
                ended = self.batches.next() => if let Some(delay) = self.batch_ended(ended)? {
                    refused = Some(Box::pin(tokio::time::sleep(delay)));
                },
                () = pending_or(&mut refused) => refused = None,
                (places, swept) = &mut upkeep => {
                    self.swept(swept?);
                    let (commands, held) = (group.commands.clone(), Arc::clone(&self.held));
                    upkeep.set(self::upkeep(commands, held, places));
                }
                (own, entries) = pending_or(&mut reading), if reads => {
                    reading = None;
                    self.take(own, entries?).await;
                    if !std::mem::replace(&mut up, true) {
                        self.up();
                    }
                }
            }
        }
    }

    /// Counts and tells that entries can come.
    fn up(&mut self) {
        self.state.connected();
        // A group that was made again, or a refusal that is over, is no connection that was lost.
        if std::mem::take(&mut self.link_lost) && self.has_been_up {
            self.state.reconnected();
            tracing::info!(source = %self.source.name, "connected again");
        }
        self.has_been_up = true;
    }

    fn read(&self, group: &Group) -> Reading {
        let (group, own) = (group.clone(), self.own);
        let count = self.pace.count(if own.is_some() { 1 } else { self.keys.len() });
        Box::pin(async move {
            let entries = match own {
                Some(Own { stream, after }) => group.read_own(stream, after, count).await,
                None => group.read_new(count).await,
            };
            (own, entries)
        })
    }

    /// Makes ready what came from a read at `own`. What is held already is in a batch, and is left to it.
    async fn take(&mut self, own: Option<Own>, entries: Vec<Entry>) {
        if own.is_none() {
            self.backoff.reset();
        } else if self.own == own {
            self.own = behind(own, entries.last(), self.keys.len());
        }
        self.pace.note(entries.len(), entries.iter().map(Entry::weight).sum());
        let held = &self.held;
        let (present, gone): (Vec<_>, Vec<_>) =
            entries.into_iter().filter(|entry| held.take(entry)).partition(|entry| entry.fields.is_some());
        self.ready.extend(present);
        if !gone.is_empty() {
            let gone: Vec<_> = gone.iter().map(|entry| (entry.stream, entry.id)).collect();
            let (count, batch, state) = (gone.len(), HeldBatch::new(&self.held, gone), self.state.clone());
            // What could not be settled is read, and counted, again.
            let settled = async move {
                if batch.settle().await {
                    lost(&state, count);
                }
                Ok(())
            };
            self.batches.begin(0, settled).await;
        }
    }

    /// Begins batches of what is ready, while there is room.
    async fn begin_ready(&mut self) {
        if self.standing_due && self.batches.has_room() {
            self.standing_due = false;
            if let Some(standing) = &self.standing {
                let (name, inbox, cursor) = (Arc::clone(&self.source.name), Arc::clone(&self.inbox), standing.cursor());
                let kept = async move { inbox.accept_at(&name, Vec::new(), Some(cursor)).await.map(drop) };
                self.batches.begin(0, kept).await;
            }
        }
        while self.batches.has_room() && !self.ready.is_empty() {
            let (mut messages, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
            while messages.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
                let Some(entry) = self.ready.pop_front() else { break };
                bytes += entry.weight();
                places.push((entry.stream, entry.id));
                messages.push(entry.into_message(&self.keys[places[places.len() - 1].0], &self.source.field));
            }
            let (name, inbox) = (Arc::clone(&self.source.name), Arc::clone(&self.inbox));
            self.batches.begin(bytes, HeldBatch::new(&self.held, places).keep(name, inbox, messages)).await;
        }
    }

    /// Notes what became of a batch: how long to read nothing after a refusal.
    fn batch_ended(&mut self, ended: Ended) -> Result<Option<Duration>, SessionEnd> {
        if self.held.take_abandoned() {
            self.own = Some(Own::default());
        }
        if let Some(refusal) = self.held.take_refusal() {
            return Err(SessionEnd::Failed(refusal));
        }
        match ended {
            Ok(()) => {
                self.accept_backoff.reset();
                self.state.recovered();
                Ok(None)
            }
            Err(AcceptError::Closed) => Err(SessionEnd::InboxClosed),
            Err(error) => {
                self.own = Some(Own::default());
                // It may have been this that was refused; saying it twice does no harm.
                self.standing_due = true;
                self.state.failed(&error);
                Ok(Some(self.accept_backoff.after_failure()))
            }
        }
    }

    /// Reads what was taken over: it is among this consumer's own now.
    fn swept(&mut self, swept: Swept) {
        lost(&self.state, swept.gone);
        if swept.claimed > 0 {
            self.own = Some(Own::default());
            tracing::info!(
                source = %self.source.name, entries = swept.claimed,
                "took over entries that were pending for {CLAIM_IDLE:?} with consumers that said nothing of them"
            );
        }
    }
}

fn lost(state: &SourceState, entries: usize) {
    state.lost(entries, &"entries were deleted or trimmed from their stream before they were accepted");
}

/// Where the reading of pending entries goes on behind a page that ended with `last`; `None` behind the last stream.
fn behind(own: Option<Own>, last: Option<&Entry>, streams: usize) -> Option<Own> {
    let own = own?;
    match last {
        Some(last) => Some(Own { after: last.id, ..own }),
        None => Some(Own { stream: own.stream + 1, after: EntryId::default() }).filter(|next| next.stream < streams),
    }
}

/// Waits, then says of what is held that it is being worked on, and takes over what nobody works on.
async fn upkeep(
    commands: Commands,
    held: Arc<Held>,
    mut places: Vec<EntryId>,
) -> (Vec<EntryId>, Result<Swept, Failure>) {
    tokio::time::sleep(UPKEEP_INTERVAL).await;
    let swept = match commands.refresh(&held.places()).await {
        Ok(()) => commands.sweep(&mut places).await,
        Err(failure) => Err(failure),
    };
    (places, swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_entries_are_read_page_by_page_and_stream_by_stream() {
        let id = EntryId { ms: 1, seq: 2 };
        let last = Entry { stream: 0, id, fields: None };
        let check = |own: Own, last: Option<&Entry>, expected: Option<Own>| {
            assert_eq!(behind(Some(own), last, 2), expected);
        };
        check(Own::default(), Some(&last), Some(Own { stream: 0, after: id }));
        check(Own { stream: 0, after: id }, None, Some(Own { stream: 1, after: EntryId::default() }));
        check(Own { stream: 1, after: id }, None, None);
    }
}
