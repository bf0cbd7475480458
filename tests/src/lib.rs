//! What the end-to-end tests, the conformance suites and the bench are made of. Nothing here is in the host's binary.

pub mod events;
pub mod publisher;
pub mod fake_endpoint;
pub mod test_host;
pub mod python_verifier;
pub mod store_file;
pub mod nats_server;

// Off the path.
pub mod artifacts;
pub mod http_client;
pub mod port;
pub mod wait;
//! What the tests share.

pub mod raw_endpoint;
//! What the tests share: one suite of properties for each trait, and the machinery to break things.

pub mod conformance;
pub mod power_cut;
