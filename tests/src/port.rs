//! Ports for servers that can't be told to pick one and say which.

use std::collections::HashSet;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below Linux's ephemeral range, so that no outgoing connection takes the port between the look and the bind.
const RANGE: Range<u16> = 20_000..32_000;

/// Looks before giving up.
const TRIES_MAX: usize = 1_000;

static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A loopback port that nobody listens on and that this process is not given again.
pub fn free() -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES_MAX {
        let port = fastrand::u16(RANGE);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port) {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {} after {TRIES_MAX} looks", RANGE.start, RANGE.end)
}
