//! Pure: what an attempt's outcome means for its delivery. No clock, no randomness, no I/O of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::event::EventKey;

pub mod deferral;
pub mod statuses;

use statuses::{Fate, Statuses};

/// `webhook-id`: the same on every attempt, restart, redelivery and redrive. `msg_` and 32 hex digits.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Arc<str>);

impl DeliveryId {
    /// Derives the id; each part is framed by its length, so no two different tuples hash the same bytes.
    ///
    /// `distinct` is the webhook's own `key`, else its index among the plugin's webhooks for the event. Only a replay
    /// starts a new `generation`.
    pub fn derive(event: &EventKey, plugin: &str, endpoint: &str, distinct: Distinct<'_>, generation: u32) -> Self {
        let mut hash = Sha256::new();
        for part in [event.as_str(), plugin, endpoint] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        match distinct {
            Distinct::Key(key) => {
                hash.update([1]);
                hash.update((key.len() as u64).to_be_bytes());
                hash.update(key);
            }
            Distinct::Index(index) => {
                hash.update([0]);
                hash.update(index.to_be_bytes());
            }
        }
        hash.update(generation.to_be_bytes());
        Self(format!("msg_{}", hex::encode(&hash.finalize()[..16])).into())
    }

    /// An id as the store or a user has it.
    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What tells apart the webhooks of one event, plugin and endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distinct<'a> {
    /// The plugin's own key.
    Key(&'a str),
    /// The position among the plugin's webhooks.
    Index(u32),
}

/// What one attempt came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What came back.
    pub result: AttemptResult,
    /// The response's `Retry-After`, already turned into a moment.
    pub retry_after: Option<Timestamp>,
    /// Where a redirect points; it is not followed.
    pub location: Option<String>,
    /// The first bytes of the response; see [`crate::endpoint::RESPONSE_EXCERPT_BYTES_MAX`].
    pub response: Bytes,
    /// How long the whole exchange took.
    pub duration: Duration,
}

/// What came back from an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttemptResult {
    /// A whole response arrived.
    Status(u16),
    /// No response: connection, TLS, timeout, a broken body.
    Transport(String),
    /// The guard refused an address of the endpoint, and with it the attempt.
    EgressDenied(String),
    /// The endpoint was not reached for no fault of its own: the proxy or what gives tokens failed. It is no attempt of the
    /// delivery's budget; see [`deferral`].
    Deferred(String),
}

impl AttemptResult {
    /// The same, its text changed by `change`.
    pub fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Status(status) => Self::Status(status),
            Self::Transport(text) => Self::Transport(change(text)),
            Self::EgressDenied(text) => Self::EgressDenied(change(text)),
            Self::Deferred(text) => Self::Deferred(change(text)),
        }
    }
}

/// When a delivery is tried again.
#[derive(Clone, PartialEq, Debug)]
pub struct RetryPolicy {
    /// Attempts before the delivery is dead, the first included; at least 1.
    pub max_attempts: u32,
    /// The wait after the first attempt.
    pub initial_delay: Duration,
    /// What each further wait is multiplied by; at least 1.
    pub multiplier: f64,
    /// The longest wait, `Retry-After` included.
    pub max_delay: Duration,
    /// Up to this share of the wait is added at random: it only lengthens. 0 to 1.
    pub jitter: f64,
    /// Every wait by itself, in place of the curve; its last one is repeated. Empty means the curve.
    pub schedule: Vec<Duration>,
    /// Which answers are final.
    pub rule: RetryRule,
    /// What the operator says of single statuses; goes before the rule.
    pub statuses: Statuses,
}

/// Which answers are tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryRule {
    /// Whatever may pass by itself: transport errors, 5xx, 408, 425, 429, and 401, 403, 404.
    Default,
    /// The rule of FraiseQL's page: every status below 500 is final.
    Page,
}

impl Default for RetryPolicy {
    /// The page's curve (100 ms × 2.5), continued to 20 attempts over about 65 hours.
    fn default() -> Self {
        Self {
            max_attempts: 20,
            initial_delay: Duration::from_millis(100),
            multiplier: 2.5,
            max_delay: Duration::from_hours(12),
            jitter: 0.1,
            schedule: Vec::new(),
            rule: RetryRule::Default,
            statuses: Statuses::default(),
        }
    }
}

/// The waits that Standard Webhooks 1.0.0 suggests, after the first attempt.
pub const STANDARD_WEBHOOKS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

impl RetryPolicy {
    /// The page's `deliver_with_retry`: 3 attempts, statuses below 500 final.
    pub fn page() -> Self {
        Self { max_attempts: 3, rule: RetryRule::Page, ..Self::default() }
    }

    /// These waits, one after each attempt but the last.
    pub fn scheduled(schedule: Vec<Duration>) -> Self {
        let max_attempts = u32::try_from(schedule.len()).unwrap_or(u32::MAX).saturating_add(1);
        let default = Self::default();
        let max_delay = schedule.iter().copied().max().unwrap_or_default().max(default.max_delay);
        Self { max_attempts, max_delay, schedule, ..default }
    }

    /// The schedule that Standard Webhooks suggests: 10 attempts over about 76 hours.
    pub fn standard_webhooks() -> Self {
        Self::scheduled(STANDARD_WEBHOOKS.to_vec())
    }

    /// The wait after attempt number `attempt` (from 1), before jitter.
    pub fn delay_after(&self, attempt: u32) -> Duration {
        if let Some(last) = self.schedule.last() {
            let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
            return (*self.schedule.get(index).unwrap_or(last)).min(self.max_delay);
        }
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial_delay.as_secs_f64() * self.multiplier.powi(exponent);
        // What is no duration (too long, infinite, not a number) lands on the longest wait.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.max_delay).min(self.max_delay)
    }

    /// From the first attempt to the last, when every wait is the shortest.
    pub fn span(&self) -> Duration {
        (1..self.max_attempts).map(|attempt| self.delay_after(attempt)).fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// What happens to a delivery after an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transition {
    /// Done.
    Delivered,
    /// Waits until then.
    Retry {
        /// When the next attempt is due.
        due_at: Timestamp,
    },
    /// Waits until then as if no attempt had been made.
    Deferred {
        /// When it is due.
        due_at: Timestamp,
    },
    /// Will not be tried again by itself.
    Dead {
        /// Why.
        reason: Reason,
    },
}

/// Decides what follows attempt number `attempt` (from 1, within the present budget) that ended at `now`.
///
/// `Retry-After` and jitter can only lengthen the policy's wait, and never past `max_delay` plus its jitter.
pub fn decide(
    policy: &RetryPolicy,
    attempt: u32,
    outcome: &Outcome,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) -> Transition {
    match verdict(policy, &outcome.result) {
        Verdict::Delivered => Transition::Delivered,
        Verdict::Final(reason) => Transition::Dead { reason },
        Verdict::Deferred => Transition::Deferred { due_at: now.plus(deferral::DELAY_INITIAL) },
        Verdict::Again if attempt >= policy.max_attempts => Transition::Dead { reason: Reason::AttemptsExhausted },
        Verdict::Again => {
            let delay = policy.delay_after(attempt);
            let lengthened = delay.saturating_add(jitter(delay, policy.jitter * rng.f64()));
            let asked = outcome.retry_after.map_or(Duration::ZERO, |at| at.since(now).min(policy.max_delay));
            Transition::Retry { due_at: now.plus(lengthened.max(asked)) }
        }
    }
}

/// `share` of `delay`, at most the whole of it; nothing where the share is no number.
fn jitter(delay: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * share.clamp(0.0, 1.0)).unwrap_or_default().min(delay)
}

enum Verdict {
    Delivered,
    Again,
    Deferred,
    Final(Reason),
}

fn verdict(policy: &RetryPolicy, result: &AttemptResult) -> Verdict {
    let status = match result {
        AttemptResult::Transport(_) => return Verdict::Again,
        AttemptResult::EgressDenied(_) => return Verdict::Final(Reason::EgressDenied),
        AttemptResult::Deferred(_) => return Verdict::Deferred,
        AttemptResult::Status(status) => *status,
    };
    match (policy.statuses.fate(status), policy.rule, status) {
        (_, _, 200..=299) => Verdict::Delivered,
        (Some(Fate::Retried), ..) => Verdict::Again,
        (Some(Fate::Final), _, status) => Verdict::Final(reason_of(status)),
        // Statuses from 600 are invalid, and to be taken as a 5xx (RFC 9110, section 15).
        (None, _, 500..) => Verdict::Again,
        (None, RetryRule::Default, 401 | 403 | 404 | 408 | 425 | 429) => Verdict::Again,
        (None, _, status) => Verdict::Final(reason_of(status)),
    }
}

/// The reason of a delivery that dies of `status`.
fn reason_of(status: u16) -> Reason {
    match status {
        300..=399 => Reason::Status3xx,
        410 => Reason::Status410,
        400..=499 => Reason::Status4xx,
        500.. => Reason::Status5xx,
        _ => Reason::StatusInvalid,
    }
}

#[cfg(test)]
mod tests;
