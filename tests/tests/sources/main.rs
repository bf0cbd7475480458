//! Sources against real servers, into an inbox that a test can hold, fail and look into.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod decode;
mod fake_inbox;
mod http;
mod jetstream;
mod nats;
mod postgres;
mod postgres_outbox;
mod stdin;
