//! The store's own bound: while it is reached no source gets anything in, whatever its bus.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Open, or closed with the reason that sources and operators are told.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Option<Arc<str>>>);

impl Gate {
    /// Nothing is accepted from now on; `bound` says which bound is reached, for the middle of a sentence.
    pub fn close(&self, bound: Arc<str>) {
        *lock(&self.0) = Some(bound);
    }

    /// Messages are accepted again.
    pub fn open(&self) {
        *lock(&self.0) = None;
    }

    /// The bound that is reached; none while it is open.
    pub fn closed(&self) -> Option<Arc<str>> {
        lock(&self.0).clone()
    }
}
