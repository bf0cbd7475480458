//! What the tests share: one suite of properties for each trait, and the machinery to break things.

pub mod conformance;
pub mod power_cut;
