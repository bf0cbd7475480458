//! Sources against real servers, into an inbox that a test can hold, fail and look into.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod decode;
mod fake_inbox;
mod http;
mod jetstream;
mod nats;
mod redis;
mod redis_stream;
mod redis_stream_loss;
mod redis_tls;
mod stdin;
