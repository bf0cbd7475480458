//! Locks that outlive a panic: what they guard is valid between any two statements. And a way to block where tasks run.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Locks; a lock that another thread poisoned is taken all the same.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what may block for long, such as on a disk that hangs. On a thread of a runtime that has several, the tasks that wait for
/// this thread are given to another one first. For what is rare and one at a time: each takes a thread.
pub fn may_block<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
