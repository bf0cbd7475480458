//! Wirehook turns events on a bus into signed webhooks, through sandboxed WebAssembly plugins.
//!
//! The modules stand in the order in which an event meets them:
//!
//! ```text
//! source → inbox → plugin → outbox → dispatcher → endpoint → delivered | retrying | dead letter
//! ```

// The path.
pub mod event;
pub mod delivery;
pub mod dead_letter;
pub mod store;

// Off the path.
pub mod ops;
pub mod admin;
pub mod metrics;
pub mod logging;
pub mod cli;
pub mod settings;
pub mod secret;
pub mod clock;
