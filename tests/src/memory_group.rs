//! A control group that holds a host to so much memory: what goes beyond is killed by the system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Where each version keeps its groups, and what bounds one there.
const VERSIONS: [(&str, &str, &str); 2] = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    ("/sys/fs/cgroup", "memory.max", "memory.peak"),
];

/// A group of its own, gone when it is dropped.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// A group that may hold `bytes`. None where this process may not make one, which is said.
    pub fn of(bytes: u64) -> Result<Option<Self>> {
        let name = format!("wirehook-test-{}-{:08x}", std::process::id(), fastrand::u32(..));
        for (root, limit, peak) in VERSIONS {
            let group = Self { folder: Path::new(root).join(&name), peak };
            if !Path::new(root).join("cgroup.procs").exists() || fs::create_dir(&group.folder).is_err() {
                continue;
            }
            if fs::write(group.folder.join(limit), bytes.to_string()).is_ok() {
                return Ok(Some(group));
            }
        }
        eprintln!("left out: a host in a memory control group, for only root may make one here");
        Ok(None)
    }

    /// What lets `command` begin within the group.
    pub fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The most that was in use at once, in bytes, what the system keeps of files included; none where it does not say.
    pub fn peak_bytes(&self) -> Result<Option<u64>> {
        match fs::read_to_string(self.folder.join(self.peak)) {
            Ok(text) => Ok(Some(text.trim().parse().context("the group's peak")?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes end a moment after they were killed; a group that is left behind is empty and harms nobody.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Has `command` enter the group whose `procs` file this is, before it begins.
pub(crate) fn enter(command: &mut Command, procs: &Path) {
    use std::os::unix::process::CommandExt as _;
    let procs = procs.to_path_buf();
    // SAFETY: between fork and exec only a file is written, without any lock of this process.
    unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
}
