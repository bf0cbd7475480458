//! Pure: whether an attempt at an endpoint may begin now, and if not, when. Whoever waits here spends no attempt.
//!
//! Four things hold attempts back: the operator, who pauses or disables; the host, which disables; the breaker; the rate.

use std::time::Duration;

use super::breaker::{Breaker, BreakerPolicy, Change, Pass, Phase, Sign, Ticket};
use super::health::Health;
use super::rate::{Bucket, Rate};
use crate::clock::Timestamp;
use crate::dead_letter::Reason;
use crate::delivery::Transition;
use crate::store::{EndpointHealth, EndpointState};

/// The default of `disable_after`: what Standard Webhooks suggests.
pub const DISABLE_AFTER: Duration = Duration::from_hours(24 * 5);

/// What holds attempts at an endpoint back.
#[derive(Clone, PartialEq, Debug)]
pub struct GatePolicy {
    /// The most attempts in a time.
    pub rate: Option<Rate>,
    /// The endpoint is disabled when all attempts failed for so long.
    pub disable_after: Option<Duration>,
    /// When the breaker opens; none where there is no breaker.
    pub breaker: Option<BreakerPolicy>,
}

impl Default for GatePolicy {
    fn default() -> Self {
        Self { rate: None, disable_after: Some(DISABLE_AFTER), breaker: Some(BreakerPolicy::default()) }
    }
}

/// What an attempt came to, as far as the gate is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended<'a> {
    /// What it says about the endpoint.
    pub sign: Sign,
    /// What follows for its delivery.
    pub transition: &'a Transition,
}

/// What the end of an attempt changed for all that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateNews {
    /// The breaker opened or closed.
    Breaker(Change),
    /// The endpoint is to be disabled; nothing passes from here on.
    Disable(DisableReason),
}

/// Why the host disables an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisableReason {
    /// It answered 410.
    Gone,
    /// Every attempt failed for so long.
    Failing(Duration),
}

/// One endpoint's gate.
#[derive(Clone, PartialEq, Debug)]
pub struct Gate {
    policy: GatePolicy,
    state: EndpointState,
    breaker: Option<Breaker>,
    bucket: Option<Bucket>,
    health: Health,
}

impl Gate {
    /// Everything passes, within the rate.
    pub fn new(policy: GatePolicy) -> Self {
        let (breaker, bucket) = (policy.breaker.clone().map(Breaker::new), policy.rate.map(Bucket::new));
        Self { policy, state: EndpointState::Active, breaker, bucket, health: Health::default() }
    }

    /// Goes on from what the store keeps.
    pub fn restore(&mut self, state: EndpointState, health: EndpointHealth) {
        self.state = state;
        self.health = Health::restored(health);
    }

    /// Whether an attempt may begin; if so it has begun.
    pub fn pass(&mut self, now: Duration) -> Result<Ticket, Pass> {
        let shut = self.shut(now);
        if shut != Pass::Now {
            return Err(shut);
        }
        if let Some(bucket) = &mut self.bucket {
            if bucket.ready_at() > now {
                return Err(Pass::At(bucket.ready_at()));
            }
            bucket.take(now);
        }
        Ok(self.breaker.as_mut().map_or_else(Ticket::default, Breaker::begin))
    }

    /// What holds everything back for longer than a rate does. Work for a gate that is shut is best left in the store.
    pub fn shut(&self, now: Duration) -> Pass {
        if self.state != EndpointState::Active {
            return Pass::WhenTold;
        }
        self.breaker.as_ref().map_or(Pass::Now, |breaker| breaker.pass(now))
    }

    /// An attempt ended. What says nothing about the endpoint changes nothing but that its place is free.
    pub fn ended(&mut self, ticket: Ticket, ended: Ended<'_>, at: Timestamp, now: Duration) -> Option<GateNews> {
        let change = self.breaker.as_mut().and_then(|breaker| breaker.ended(ticket, ended.sign, now));
        let failing_for = match ended.sign {
            Sign::Well => {
                self.health.succeeded(at);
                None
            }
            Sign::Ill { .. } => Some(self.health.failed(at, now)),
            Sign::None => None,
        };
        let is_gone = matches!(ended.transition, Transition::Dead { reason: Reason::Status410 });
        let disable = match (failing_for, self.policy.disable_after) {
            _ if self.state == EndpointState::Disabled => None,
            _ if is_gone => Some(DisableReason::Gone),
            (Some(failing_for), Some(after)) if failing_for >= after => Some(DisableReason::Failing(failing_for)),
            _ => None,
        };
        if disable.is_some() {
            self.set_state(EndpointState::Disabled, now);
        }
        disable.map(GateNews::Disable).or(change.map(GateNews::Breaker))
    }

    /// The operator's word, or the host's own. One that is active again begins anew, as if it had never failed.
    pub fn set_state(&mut self, state: EndpointState, now: Duration) {
        if self.state == EndpointState::Disabled && state == EndpointState::Active {
            self.health.forgive();
            if let Some(breaker) = &mut self.breaker {
                breaker.reset(now);
            }
        }
        self.health.interrupt();
        self.state = state;
    }

    /// Where the endpoint is.
    pub fn state(&self) -> EndpointState {
        self.state
    }

    /// Where the breaker is; none where there is none.
    pub fn phase(&self) -> Option<Phase> {
        self.breaker.as_ref().map(Breaker::phase)
    }

    /// The most attempts in a time.
    pub fn rate(&self) -> Option<Rate> {
        self.policy.rate
    }

    /// How the endpoint fares.
    pub fn health(&mut self) -> &mut Health {
        &mut self.health
    }
}

#[cfg(test)]
mod tests;
