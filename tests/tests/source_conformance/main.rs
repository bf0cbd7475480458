//! The suite of sources, run on every kind of bus with its real server.

mod nats;
mod jetstream;
mod redis;
mod redis_stream;
mod postgres;
mod postgres_row_key;
mod postgres_outbox;
mod http;
