//! What the tests stand on: real servers, each started by its test with a folder of its own.

pub mod nats_server;
