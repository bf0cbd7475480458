//! What HTTP listeners count.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec};

use crate::door::Closed;

/// One HTTP listener's metrics.
#[derive(Clone, Debug)]
pub struct DoorMetrics {
    listener: Arc<str>,
    closed: [IntCounter; Closed::ALL.len()],
    refused: IntCounterVec,
}

impl DoorMetrics {
    /// Each is 0 from the start, so that an alert sees the first increase.
    pub(super) fn new(listener: &str, closed: &IntCounterVec, refused: &IntCounterVec) -> Self {
        for reason in Refused::ALL {
            refused.with_label_values(&[listener, reason.as_str()]);
        }
        Self {
            listener: listener.into(),
            closed: Closed::ALL.map(|reason| closed.with_label_values(&[listener, reason.as_str()])),
            refused: refused.clone(),
        }
    }

    /// `wirehook_http_connections_closed_total{listener,reason}`: closed by the host, as their clients let it wait.
    pub fn closed(&self, reason: Closed) {
        self.closed[reason as usize].inc();
    }

    /// `wirehook_http_requests_refused_total{listener,reason}`
    pub fn refused(&self, reason: Refused) {
        self.refused.with_label_values(&[&*self.listener, reason.as_str()]).inc();
    }
}

/// Why a request was refused, as `wirehook_http_requests_refused_total` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Without the token, or with a wrong one.
    Token,
    /// For a host that the listener does not answer to.
    Host,
    /// Sent by a page of another site.
    CrossSite,
    /// Not JSON by its type, or compressed.
    ContentType,
    /// An `Idempotency-Key` that can't be one.
    IdempotencyKey,
    /// Not an event.
    Invalid,
    /// Larger than the bounds.
    TooLarge,
    /// Its body did not arrive in time.
    Timeout,
    /// Too many requests at once.
    Busy,
    /// The host stops, or its store takes nothing.
    Unavailable,
    /// Another path or method.
    NotFound,
}

impl Refused {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::Token,
        Self::Host,
        Self::CrossSite,
        Self::ContentType,
        Self::IdempotencyKey,
        Self::Invalid,
        Self::TooLarge,
        Self::Timeout,
        Self::Busy,
        Self::Unavailable,
        Self::NotFound,
    ];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Host => "host",
            Self::CrossSite => "cross_site",
            Self::ContentType => "content_type",
            Self::IdempotencyKey => "idempotency_key",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
        }
    }
}
