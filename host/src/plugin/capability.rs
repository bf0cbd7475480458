//! What a plugin can reach: one module for each interface, and nothing besides.

pub(super) mod log;
pub(super) mod config;
pub(super) mod state;
pub(super) mod wasi;
