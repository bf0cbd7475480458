//! One suite for each trait, run on every implementation of it.

pub mod store;
pub mod source;
