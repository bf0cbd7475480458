//! Whether the store can commit, as its writer last found it.

use std::sync::Mutex;

use rusqlite::ErrorCode;

use crate::sync::lock;

/// Why the store can't commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failing {
    /// What kind of failure it is.
    pub kind: FailingKind,
    /// What SQLite said.
    pub error: String,
}

/// What an operator can do about a store that can't commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailingKind {
    /// Its disk is full: make room.
    Full,
    /// It may not be written: mend the file, its folder, or how its disk is mounted.
    ReadOnly,
    /// It is damaged: restore a backup.
    Damaged,
    /// Anything else, as a failed fsync: look at the disk.
    Other,
}

impl Failing {
    /// What to do, for the operator.
    pub fn advice(&self) -> &'static str {
        match self.kind {
            FailingKind::Full => "make room on its disk; it goes on by itself",
            FailingKind::ReadOnly => "let Wirehook write to it, its folder and its disk; it goes on by itself",
            FailingKind::Damaged => "stop Wirehook and restore the store from a backup (docs/service.md)",
            FailingKind::Other => "look at its disk; it goes on by itself once commits succeed",
        }
    }
}

/// Written by the writer, read by whoever asks.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Failing>>);

impl Health {
    pub(super) fn failing(&self) -> Option<Failing> {
        lock(&self.0).clone()
    }

    /// A commit succeeded. Returns whether the one before failed.
    pub(super) fn succeeded(&self) -> bool {
        lock(&self.0).take().is_some()
    }

    /// A commit failed. Returns whether that is news: the one before it succeeded, or failed otherwise.
    pub(super) fn failed(&self, error: &rusqlite::Error) -> bool {
        let failing = Some(Failing { kind: kind(error.sqlite_error_code()), error: error.to_string() });
        let mut known = lock(&self.0);
        let news = *known != failing;
        *known = failing;
        news
    }
}

fn kind(code: Option<ErrorCode>) -> FailingKind {
    match code {
        Some(ErrorCode::DiskFull) => FailingKind::Full,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => FailingKind::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => FailingKind::Damaged,
        _ => FailingKind::Other,
    }
}
