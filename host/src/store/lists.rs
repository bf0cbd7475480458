//! What operators list and show: which rows are meant, a row of a list, one of them whole.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::DeliverySeq;
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::delivery::DeliveryId;
use crate::recorded::RecordedEvent;

/// Which deliveries are meant. Empty means all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryFilter {
    /// Only these; of several with one id the newest.
    pub ids: Vec<DeliveryId>,
    /// Only to this endpoint.
    pub endpoint: Option<String>,
    /// Only by this plugin.
    pub plugin: Option<String>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only those that wait: pending or retrying.
    pub waiting: bool,
    /// Only those that wait for an endpoint which is not one of these: nobody works for it.
    pub parked_beside: Option<Vec<String>>,
    /// Only dead letters for this reason.
    pub reason: Option<Reason>,
    /// Only of the event with this key.
    pub event_key: Option<String>,
    /// Only of events of this entity.
    pub entity_id: Option<String>,
    /// Only those created then or later.
    pub since: Option<Timestamp>,
    /// Only those created before.
    pub until: Option<Timestamp>,
    /// Only those with a position below: what a list goes on from.
    pub before: Option<DeliverySeq>,
    /// At most this many; the store's own bound is 10,000.
    pub limit: Option<u32>,
}

/// Which dead letters are meant. Empty means all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeadLetterFilter {
    /// Only these ids.
    pub ids: Vec<i64>,
    /// Only to this endpoint.
    pub endpoint: Option<String>,
    /// Only by this plugin.
    pub plugin: Option<String>,
    /// Only of runs whose last call was made of the plugin's file with this SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_digest: Option<String>,
    /// Only for this reason.
    pub reason: Option<Reason>,
    /// Only of the event with this key.
    #[serde(default)]
    pub event_key: Option<String>,
    /// Only of events of this entity.
    #[serde(default)]
    pub entity_id: Option<String>,
    /// Only those that died then or later.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only those that died before.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Only those with an id below: what a list goes on from.
    #[serde(default)]
    pub before: Option<i64>,
    /// Only those with an id above: what a change goes on from.
    #[serde(default)]
    pub after: Option<i64>,
    /// At most this many; listing's own bound is 10,000.
    pub limit: Option<u32>,
}

/// Where a delivery is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not tried yet.
    Pending,
    /// Tried, and due again.
    Retrying,
    /// Answered 2xx.
    Delivered,
    /// A dead letter.
    Dead,
    /// A dead letter that an operator discarded.
    Discarded,
}

impl DeliveryState {
    /// Every state, in the order of a delivery's life.
    pub const ALL: &[Self; 5] = &[Self::Pending, Self::Retrying, Self::Delivered, Self::Dead, Self::Discarded];

    /// The name used in the store and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }
}

/// A delivery in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliverySummary {
    /// Its position, for `--before`.
    pub seq: DeliverySeq,
    /// `webhook-id`.
    pub id: DeliveryId,
    /// The event's key.
    pub event_key: String,
    /// The event's subject.
    pub subject: String,
    /// The plugin's name.
    pub plugin: String,
    /// The endpoint's name.
    pub endpoint: String,
    /// Where it is.
    pub state: DeliveryState,
    /// Attempts made.
    pub attempts: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the next attempt is due, where one is.
    pub due_at: Option<Timestamp>,
    /// The last attempt's status.
    pub last_status: Option<u16>,
    /// The last attempt's error.
    pub last_error: Option<String>,
}

/// One delivery, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryDetail {
    /// As in a list.
    #[serde(flatten)]
    pub summary: DeliverySummary,
    /// The digest of the plugin's file that made it.
    pub plugin_digest: String,
    /// The request's `Content-Type`.
    pub content_type: String,
    /// The plugin's headers.
    pub headers: Vec<(String, String)>,
    /// The request's body, as text where it is UTF-8, else hex after `hex:`.
    pub body: String,
    /// Every attempt, first to last.
    pub attempts_made: Vec<AttemptDetail>,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptDetail {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in seconds.
    pub duration_s: f64,
    /// The response's status.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The first bytes of the response, as text where UTF-8, else hex after `hex:`.
    pub response: String,
}

/// What a dead letter is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterKind {
    /// A message that never became an event.
    Message,
    /// A plugin's run.
    Run,
    /// A delivery.
    Delivery,
}

impl DeadLetterKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Message, Self::Run, Self::Delivery];

    /// The name used in the store and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Run => "run",
            Self::Delivery => "delivery",
        }
    }
}

/// A dead letter in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterSummary {
    /// Its id, for `dead-letters show|redrive|discard`.
    pub id: i64,
    /// What it is.
    pub kind: DeadLetterKind,
    /// Why.
    pub reason: Reason,
    /// What exactly.
    pub detail: String,
    /// When it died.
    pub died_at: Timestamp,
    /// The event's key.
    pub event_key: String,
    /// The event's subject.
    pub subject: String,
    /// The plugin, for runs and deliveries.
    pub plugin: Option<String>,
    /// The endpoint, for deliveries.
    pub endpoint: Option<String>,
    /// `webhook-id`, for deliveries.
    pub delivery_id: Option<DeliveryId>,
    /// Attempts made, for deliveries; tries, for runs.
    pub attempts: u32,
    /// The last response's status, for deliveries.
    pub last_status: Option<u16>,
    /// The first bytes of the last response, for deliveries; as in [`AttemptDetail::response`].
    pub last_response: Option<String>,
}

/// One dead letter, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterDetail {
    /// As in a list.
    #[serde(flatten)]
    pub summary: DeadLetterSummary,
    /// The message's bytes, the event's entity, or the delivery's body; as in [`DeliveryDetail::body`].
    pub payload: String,
    /// The event of a run or a delivery, as a file may record it; none of a message, which never became one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<RecordedEvent>,
    /// The digest of the plugin's file that made the delivery, or that the run died of; none of a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_digest: Option<String>,
    /// Every attempt of a delivery, first to last.
    #[serde(default)]
    pub attempts_made: Vec<AttemptDetail>,
}

/// What a redrive did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// Runs put back to work.
    pub runs: u64,
    /// Deliveries put back to work.
    pub deliveries: u64,
    /// Messages that can't be: publish them again once the cause is mended, or discard them.
    pub refused: u64,
    /// The last dead letter looked at, to go on from; none where there was none.
    #[serde(default)]
    pub last: Option<i64>,
    /// The plugins whose runs are due now.
    pub plugins: Vec<Arc<str>>,
    /// The endpoints whose deliveries are due now.
    pub endpoints: Vec<Arc<str>>,
}

impl Redriven {
    /// Dead letters looked at: redriven or refused.
    pub fn total(&self) -> u64 {
        self.runs + self.deliveries + self.refused
    }

    /// Adds what a further part of the same redrive did.
    pub fn add(&mut self, part: Self) {
        self.runs += part.runs;
        self.deliveries += part.deliveries;
        self.refused += part.refused;
        self.last = part.last.or(self.last);
        for (names, more) in [(&mut self.plugins, part.plugins), (&mut self.endpoints, part.endpoints)] {
            names.extend(more);
            names.sort();
            names.dedup();
        }
    }
}
