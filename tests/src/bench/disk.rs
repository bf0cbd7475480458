//! What the disk itself can do, measured in the same run: every commit of the store waits for it.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What is appended before each sync: about what a small group of events adds to the store's log.
const APPEND: [u8; 8 * 1024] = [0x5a; 8 * 1024];

/// Appends and syncs `count` times to a file in `folder`. Returns how long each took.
pub fn syncs(folder: &Path, count: usize) -> Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut durations = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        file.write_all(&APPEND)?;
        file.sync_data()?;
        durations.push(started.elapsed());
    }
    Ok(durations)
}
