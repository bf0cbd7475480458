//! Sources against real servers, into an inbox that a test can hold, fail and look into.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod decode;
mod http;
mod jetstream;
mod jetstream_pressure;
mod jetstream_restore;
mod jetstream_streams;
mod nats;
mod frozen;
mod nats_frozen;
mod nats_odd;
mod nats_several;
mod postgres;
mod nats_security;
mod nats_tls;
mod redis;
mod redis_stream;
mod redis_stream_loss;
mod redis_tls;
mod postgres_outbox;
mod stdin;

use wirehook_tests::fake_inbox;
