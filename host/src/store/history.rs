//! What operators do with what the store keeps: find it, change it in bulk, have it gone.
//!
//! A change of many rows is made of steps, each bounded and durable by itself: whoever asks for them can show how far
//! they are, and stop between two of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{
    AttemptDetail, BacklogBounds, DeadLetterDetail, DeadLetterFilter, DeadLetterSummary, DeliveryFilter, DeliverySeq,
    DeliverySummary, EventSeq, Redriven, StoreError,
};
use crate::clock::Timestamp;
use crate::dead_letter::Reason;

/// The part of a [`super::Store`] that operators use and the path does not.
pub trait History {
    /// One step of a change of deliveries, from the oldest on. What another host works on, and what this one works on
    /// and did not give back, is left as it is and counted.
    fn change_deliveries(&self, change: DeliveryChange, now: Timestamp) -> BoxFuture<'_, Result<Changed, StoreError>>;

    /// Puts dead runs and deliveries back to work with a new budget, from the oldest on, due at the pace's moments. Dead
    /// messages can't be redriven: they are counted in `refused`.
    fn redrive_paced(&self, filter: DeadLetterFilter, pace: Pace) -> BoxFuture<'_, Result<Redriven, StoreError>>;

    /// Deletes dead letters for good, from the oldest on.
    fn discard_from(&self, filter: DeadLetterFilter) -> BoxFuture<'_, Result<Discarded, StoreError>>;

    /// Dead letters whole, from the oldest on; fewer than the filter's limit where they are large, and none only at the
    /// end.
    fn export_dead_letters(&self, filter: DeadLetterFilter)
    -> BoxFuture<'_, Result<Vec<DeadLetterDetail>, StoreError>>;

    /// Everything that happened to what is sought, or the several things that it may be.
    fn trace(&self, sought: Sought) -> BoxFuture<'_, Result<Vec<Found>, StoreError>>;

    /// Deletes every event of an entity with all that came of it, or only counts it. Nothing is deleted while some of it
    /// is worked on, or waits and is not to be discarded. The bytes are overwritten, not yet gone from copies that the
    /// file may have: see [`Self::rewrite`].
    fn purge(&self, purge: Purge, now: Timestamp) -> BoxFuture<'_, Result<Purged, StoreError>>;

    /// Writes the store's file anew, without anything that was deleted, and empties its log. Takes as long as copying it,
    /// and as much free space; nothing else is written meanwhile.
    fn rewrite(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What forgetting a plugin would come to now: its open runs are all counted as parked ones, for nobody can tell which
    /// of them end by themselves.
    fn would_forget(&self, plugin: Arc<str>) -> BoxFuture<'_, Result<Forgotten, StoreError>>;

    /// Forgets a plugin with all that it kept; its runs that are open and that nobody works on become dead letters, or
    /// are discarded.
    fn forget_plugin(
        &self,
        plugin: Arc<str>,
        fate: ParkedFate,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Forgotten, StoreError>>;

    /// Recorded events, newest first.
    fn list_events(&self, filter: EventFilter) -> BoxFuture<'_, Result<Vec<EventSummary>, StoreError>>;

    /// One step of giving recorded events the run of a plugin that they never had, from the oldest on. An event that has or
    /// had a run of it, whatever became of that, is passed over.
    fn backfill(&self, backfill: Backfill, now: Timestamp) -> BoxFuture<'_, Result<Backfilled, StoreError>>;

    /// Makes some more names quick to find. Returns whether more remain.
    fn index_some(&self) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Deletes some of the oldest finished events where the store holds more than `bytes_max`. Returns whether more
    /// are to be deleted.
    fn shrink(&self, bytes_max: u64) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// The bytes of all that is kept; the file may be larger by what was deleted.
    fn bytes(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// What to do with deliveries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryVerb {
    /// Those that wait are due now, in place of when they were. Their budget stays as it is.
    Retry,
    /// Those that wait are done with, unsent.
    Discard,
    /// Those that wait go to another endpoint, at once and with a new budget, under the id that they have. Dead ones do so
    /// where the filter says `dead`, and stay dead.
    Move {
        /// The endpoint's name.
        to: Arc<str>,
    },
}

/// One step of a change of deliveries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryChange {
    /// What to do.
    pub verb: DeliveryVerb,
    /// With which; its limit is the step's.
    pub filter: DeliveryFilter,
    /// With those after this one: the last step's `last`.
    pub after: Option<DeliverySeq>,
    /// Those that this host had claimed, and has given up for this.
    #[serde(skip)]
    pub given_back: Vec<DeliverySeq>,
}

/// What a step did.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// Deliveries changed.
    pub changed: u64,
    /// Deliveries left alone, because they are being worked on.
    pub in_flight: u64,
    /// Deliveries named by id that are in a state in which there is nothing to do.
    pub refused: u64,
    /// Where the next step goes on; none when nothing is left.
    pub last: Option<DeliverySeq>,
    /// The endpoints that have more to do now.
    pub endpoints: Vec<Arc<str>>,
    /// How many deliveries were changed at each endpoint, where they wait there now.
    #[serde(default)]
    pub at: BTreeMap<Arc<str>, u64>,
}

impl Changed {
    /// Adds what a further step did.
    pub fn add(&mut self, step: Self) {
        self.changed += step.changed;
        self.in_flight += step.in_flight;
        self.refused += step.refused;
        self.last = step.last;
        self.endpoints.extend(step.endpoints);
        self.endpoints.sort();
        self.endpoints.dedup();
        for (endpoint, count) in step.at {
            *self.at.entry(endpoint).or_default() += count;
        }
    }
}

/// When redriven work is due: one piece after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pace {
    /// The first one.
    pub first: Timestamp,
    /// From each to the next.
    pub interval: Duration,
}

impl Pace {
    /// All at that moment.
    pub fn at_once(first: Timestamp) -> Self {
        Self { first, interval: Duration::ZERO }
    }

    /// When the piece with this number is due, the first one being 0.
    pub fn due(&self, number: u64) -> Timestamp {
        let wait_us = self.interval.as_micros().saturating_mul(u128::from(number));
        self.first.plus(Duration::from_micros(u64::try_from(wait_us).unwrap_or(u64::MAX)))
    }
}

/// What a discard did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Discarded {
    /// Dead letters deleted.
    pub count: u64,
    /// The last one looked at, to go on from; none where there was none.
    pub last: Option<i64>,
}

/// What somebody looks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sought {
    /// A delivery's id, an event's key or position, a dead letter's id, an entity's id or the beginning of one: whichever
    /// it is.
    Any(String),
    /// An event.
    Event(EventSeq),
    /// A dead letter.
    DeadLetter(i64),
    /// The events of the entity with exactly this id.
    Entity(String),
}

/// What a search found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// An event and all that came of it.
    Event(Box<EventTrace>),
    /// A message that never became an event.
    Message(Box<DeadLetterSummary>),
    /// One of several things that may be meant.
    Candidate(Candidate),
}

/// One of several things that may be meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// How to say that it is meant.
    pub id: String,
    /// What it is.
    pub what: String,
}

/// An event and all that came of it, without its body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventTrace {
    /// Its position.
    pub seq: EventSeq,
    /// Its key.
    pub key: String,
    /// The source that it came from.
    pub source: String,
    /// Its subject.
    pub subject: String,
    /// The kind of entity.
    pub entity_type: String,
    /// `created`, `updated`, `deleted` or `custom`.
    pub operation: String,
    /// The entity's id.
    pub entity_id: Option<String>,
    /// The tenant's id.
    pub tenant_id: Option<String>,
    /// As the publisher wrote it.
    pub timestamp: Option<String>,
    /// When it was durable here.
    pub accepted_at: Timestamp,
    /// What the bus said besides, its position among it.
    pub attributes: Vec<(String, String)>,
    /// The work of every plugin that was subscribed to it.
    pub runs: Vec<RunTrace>,
    /// Messages with its key and another body.
    pub conflicts: Vec<LetterMark>,
}

/// One plugin's work on an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunTrace {
    /// The plugin's name.
    pub plugin: String,
    /// `pending`, `retrying`, `parked`, `produced`, `filtered`, `dead` or `discarded`.
    pub state: String,
    /// Whether a host works on it.
    pub in_flight: bool,
    /// Tries made.
    pub attempts: u32,
    /// When the next try is due, where one is.
    pub due_at: Option<Timestamp>,
    /// When the last try ended.
    pub ended_at: Option<Timestamp>,
    /// The digest of the plugin's file at the last try.
    pub plugin_digest: Option<String>,
    /// What the last try came to, where it was not well.
    pub detail: Option<String>,
    /// Its dead letter.
    pub dead_letter: Option<LetterMark>,
    /// What it produced.
    pub deliveries: Vec<DeliveryTrace>,
}

/// A delivery with its last attempts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryTrace {
    /// As in a list.
    #[serde(flatten)]
    pub summary: DeliverySummary,
    /// Whether a host works on it.
    pub in_flight: bool,
    /// Its dead letter.
    pub dead_letter: Option<LetterMark>,
    /// The last few, first to last.
    pub last_attempts: Vec<AttemptDetail>,
}

/// That there is a dead letter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LetterMark {
    /// Its id.
    pub id: i64,
    /// Why.
    pub reason: Reason,
    /// What exactly.
    pub detail: String,
    /// When it died.
    pub died_at: Timestamp,
}

/// What is to be gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Purge {
    /// The entity's id, whole.
    pub entity_id: String,
    /// Only entities of this type.
    pub entity_type: Option<String>,
    /// Whether what still waits goes too; else nothing is deleted while something does.
    pub discard_waiting: bool,
    /// Only count.
    pub dry_run: bool,
    /// Those that this host had claimed, and has given up for this.
    #[serde(skip)]
    pub given_back: Vec<DeliverySeq>,
}

/// What was deleted, or would be.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Purged {
    /// Events.
    pub events: u64,
    /// Deliveries with their bodies.
    pub deliveries: u64,
    /// Attempts with what endpoints answered.
    pub attempts: u64,
    /// Dead letters, messages with the events' keys among them.
    pub dead_letters: u64,
    /// Of those runs and deliveries, how many were not done.
    pub waiting: u64,
    /// How many somebody works on just now.
    pub in_flight: u64,
    /// Dead messages that were not deleted and have the entity's id in them.
    pub mentioned_in: u64,
    /// Whether all of it was deleted; where it was not, the counts are of the part that was.
    pub done: bool,
}

/// Which recorded events are meant; all of it together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    /// Accepted at that moment or later.
    pub since: Option<Timestamp>,
    /// Accepted before that moment.
    pub until: Option<Timestamp>,
    /// Of subjects that this pattern matches.
    pub subject: Option<String>,
    /// From this source.
    pub source: Option<String>,
    /// Only those that have no run of any plugin.
    pub unrouted: bool,
    /// Those before this position.
    pub before: Option<EventSeq>,
    /// Those after this position.
    pub after: Option<EventSeq>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// A recorded event, without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSummary {
    /// Its position.
    pub seq: EventSeq,
    /// When it was durable here.
    pub accepted_at: Timestamp,
    /// Its key.
    pub key: String,
    /// The source that it came from.
    pub source: String,
    /// Its subject.
    pub subject: String,
    /// The entity's id.
    pub entity_id: Option<String>,
    /// The tenant's id.
    pub tenant_id: Option<String>,
    /// How many plugins have or had a run of it.
    pub runs: u64,
}

/// One step of giving recorded events the run of a plugin that they never had.
#[derive(Clone, Debug)]
pub struct Backfill {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The subjects that it is subscribed to: an event of another gets no run.
    pub subjects: Vec<String>,
    /// Which events, of those; its limit is the step's, `after` where the step before ended.
    pub filter: EventFilter,
    /// Whether the runs have a place in the order of their entities.
    pub ordered: bool,
    /// What may wait for the plugin: no run is made beyond it.
    pub backlog: BacklogBounds,
    /// Only count.
    pub dry_run: bool,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfilled {
    /// Events that got their run, or would.
    pub runs: u64,
    /// Where the next step goes on; none when nothing is left to do.
    pub last: Option<EventSeq>,
    /// Why no more runs were made, where the plugin's backlog has no room for them.
    pub full: Option<String>,
}

/// What becomes of the parked runs of a plugin that is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkedFate {
    /// Dead letters, to be looked at, exported, or redriven should it come back.
    Die,
    /// They are done with.
    Discard,
}

/// What was forgotten with a plugin.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forgotten {
    /// Whether the plugin was known.
    pub known: bool,
    /// Runs that became dead letters or were discarded.
    pub runs: u64,
    /// Runs that somebody works on still: they end as they end.
    pub in_flight: u64,
    /// Keys that it kept.
    pub keys: u64,
}

impl Forgotten {
    /// Whether there was anything of that name.
    pub fn is_something(&self) -> bool {
        self.known || self.runs > 0 || self.in_flight > 0 || self.keys > 0
    }
}
