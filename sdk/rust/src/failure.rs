//! Why an event produced no result.

use std::error::Error;
use std::fmt::{self, Write};

use crate::bindings::wirehook::plugin::types;

/// Why an event produced no result.
///
/// `?` turns every error into [`Failure::Reject`]: a plugin sees nothing but the event and its config, so what failed
/// once fails again. Where that is not so, say [`retry`].
///
/// This is no [`Error`] itself: that is what makes `?` work on all that are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It may work later: the event is run again by the sidecar's `[retry]`.
    Retry(String),
    /// It will never work: the event is a dead letter at once.
    Reject(String),
}

/// The event is to be run again later; `reason` is for the operator. The host keeps its first 2 KiB.
pub fn retry(reason: impl Into<String>) -> Failure {
    Failure::Retry(reason.into())
}

/// The event will never work; `reason` is for the operator. The host keeps its first 2 KiB.
pub fn reject(reason: impl Into<String>) -> Failure {
    Failure::Reject(reason.into())
}

impl<E: Error> From<E> for Failure {
    /// Rejects, with the error's message and those of its sources.
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing to a String can't fail.
            let _ = write!(reason, ": {cause}");
            source = cause.source();
        }
        Self::Reject(reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(reason) => write!(f, "to be run again: {reason}"),
            Self::Reject(reason) => write!(f, "rejected: {reason}"),
        }
    }
}

impl Failure {
    pub(crate) fn into_contract(self) -> types::Failure {
        match self {
            Self::Retry(reason) => types::Failure::Retry(reason),
            Self::Reject(reason) => types::Failure::Reject(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, reject, retry};

    fn question_mark(text: &str) -> Result<u32, Failure> {
        Ok(text.parse::<u32>()?)
    }

    #[test]
    fn any_error_rejects() {
        assert_eq!(question_mark("7"), Ok(7));
        assert_eq!(question_mark("x"), Err(reject("invalid digit found in string")));
    }

    #[test]
    fn a_failure_says_what_follows() {
        assert_eq!(retry("later").to_string(), "to be run again: later");
        assert_eq!(reject("no").to_string(), "rejected: no");
    }
}
