//! What the end-to-end tests, the conformance suites and the bench are made of. Nothing here is in the host's binary.

pub mod events;
pub mod publisher;
pub mod fake_endpoint;
pub mod raw_endpoint;
pub mod inside;
pub mod fake_proxy;
pub mod freeze_proxy;
pub mod test_host;
pub mod whole_path;
pub mod python_verifier;
pub mod judges;
pub mod promtool;
pub mod store_file;
pub mod store_fill;
pub mod small_disk;
pub mod account;
pub mod memory_group;
pub mod nats_server;
pub mod raw_nats;
pub mod nginx;
pub mod fake_inbox;
pub mod redis_server;
pub mod postgres_server;
pub mod fraiseql;
pub mod outbox_writer;
pub mod bench;
pub mod conformance;
pub mod power_cut;

// Off the path.
pub mod artifacts;
pub mod text_guest;
pub mod full;
pub mod http_client;
pub mod port;
pub mod signature;
pub mod wait;
