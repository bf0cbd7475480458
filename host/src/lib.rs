//! Wirehook turns events on a bus into signed webhooks, through sandboxed WebAssembly plugins.
//!
//! The modules stand in the order in which an event meets them:
//!
//! ```text
//! source → inbox → plugin → outbox → dispatcher → endpoint → delivered | retrying | dead letter
//! ```

// The path.
pub mod event;
pub mod source;
pub mod inbox;
pub mod routes;
pub mod plugin;
pub mod outbox;
pub mod dispatcher;
pub mod delivery;
pub mod endpoint;
pub mod dead_letter;

// What the path stands on.
pub mod store;
pub mod handover;
pub mod budget;

// Off the path.
pub mod program;
pub mod app;
pub mod settings;
pub mod cli;
pub mod ops;
pub mod admin;
pub mod door;
pub mod metrics;
pub mod foreign;
pub mod logging;
pub mod receiver;
pub mod init;
pub mod demo;
pub mod publish;
pub mod dev;
pub mod watch;
pub mod project;
pub mod recorded;
pub mod drain;
pub mod open_files;
pub mod encoding;
pub mod regular_file;
pub mod secret;
pub mod secret_files;
pub mod tls;
pub mod clock;
pub mod sync;
