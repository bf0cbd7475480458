//! The ways from a bus to the receiver that are compared, and what may be different about a way.

use super::hand_written::HandWritten;
use crate::events::{self, ORDER_BYTES, PublishedEvent};

/// One way from a bus to the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// The plain subscriber on core NATS: what everything is compared with.
    BareCore,
    /// The plain subscriber on JetStream, acking after the response.
    BareJetstream,
    /// The host on JetStream.
    HostJetstream,
    /// The host on Redis Streams.
    HostRedisStream,
    /// The host on FraiseQL's outbox in PostgreSQL.
    HostOutbox,
    /// The host's `http` source, in arrays.
    HostHttpArrays,
    /// The host's `http` source, one event a request.
    HostHttpSingle,
    /// A subscriber in another language, on core NATS.
    HandWritten(HandWritten),
}

impl Scenario {
    /// In the order of the report; the first is the measure of the others.
    pub const ALL: [Self; 11] = [
        Self::BareCore,
        Self::BareJetstream,
        Self::HostJetstream,
        Self::HostRedisStream,
        Self::HostOutbox,
        Self::HostHttpArrays,
        Self::HostHttpSingle,
        Self::HandWritten(HandWritten::Node),
        Self::HandWritten(HandWritten::PythonAiohttp),
        Self::TUNED_PYTHON,
        Self::PAGE,
    ];

    /// The page's subscriber in Python, tuned.
    pub const TUNED_PYTHON: Self = Self::HandWritten(HandWritten::PythonTuned);

    /// The page's subscriber.
    pub const PAGE: Self = Self::HandWritten(HandWritten::PythonPage);

    /// For the report.
    pub fn label(self) -> &'static str {
        match self {
            Self::BareCore => "plain subscriber, core NATS",
            Self::BareJetstream => "plain subscriber, JetStream with acks",
            Self::HostJetstream => "wirehook, JetStream",
            Self::HostRedisStream => "wirehook, Redis Streams",
            Self::HostOutbox => "wirehook, PostgreSQL outbox",
            Self::HostHttpArrays => "wirehook, http, arrays of 64",
            Self::HostHttpSingle => "wirehook, http, single events",
            Self::HandWritten(HandWritten::Node) => "Node by hand, core NATS",
            Self::HandWritten(HandWritten::PythonAiohttp) => "Python by hand, aiohttp, core NATS",
            Self::HandWritten(HandWritten::PythonTuned) => "Python by hand, httpx, core NATS",
            Self::HandWritten(HandWritten::PythonPage) => "the page's Python, core NATS",
        }
    }

    /// For the line of JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::BareCore => "bare_core",
            Self::BareJetstream => "bare_jetstream",
            Self::HostJetstream => "host_jetstream",
            Self::HostRedisStream => "host_redis_stream",
            Self::HostOutbox => "host_outbox",
            Self::HostHttpArrays => "host_http_arrays",
            Self::HostHttpSingle => "host_http_single",
            Self::HandWritten(HandWritten::Node) => "node",
            Self::HandWritten(HandWritten::PythonAiohttp) => "python_aiohttp",
            Self::HandWritten(HandWritten::PythonTuned) => "python_tuned",
            Self::HandWritten(HandWritten::PythonPage) => "python_page",
        }
    }

    /// How many of `events` it is given, so that a slow one takes about as long as a fast one.
    pub fn share(self, events: usize) -> usize {
        match self {
            Self::HandWritten(HandWritten::Node) => events / 2,
            Self::HandWritten(HandWritten::PythonAiohttp) => events / 4,
            Self::HandWritten(HandWritten::PythonTuned) => events / 8,
            Self::HandWritten(HandWritten::PythonPage) => events / 64,
            _ => events,
        }
    }

    /// Why it can't be measured here; `None` where it can.
    pub fn missing(self) -> Option<String> {
        if let Self::HandWritten(subscriber) = self { subscriber.missing() } else { None }
    }
}

/// What may be different about a repetition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Bytes of an event.
    pub bytes: usize,
    /// Webhooks that the host's plugin makes of an event.
    pub webhooks: usize,
    /// The host's plugin, an example.
    pub plugin: &'static str,
    /// How the host's store waits for the disk.
    pub synchronous: &'static str,
}

impl Setting {
    /// What figures are reported of where nothing else is said.
    pub const MAIN: Self = Self { bytes: ORDER_BYTES, webhooks: 1, plugin: "orders", synchronous: "full" };

    /// One webhook is the order's own, the others are of its lines.
    pub fn events(&self, count: usize) -> Vec<PublishedEvent> {
        (0..count).map(|number| events::order_of(number, self.bytes, self.webhooks - 1)).collect()
    }
}
