//! A disk whose syncs take longer: a library that the loader puts before the C library's, for disks differ.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Waits, then does what the C library's own would do.
const SOURCE: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_first(void) {
    struct timespec delay = { DELAY_NANOS / 1000000000, DELAY_NANOS % 1000000000 };
    nanosleep(&delay, 0);
}

int fsync(int fd) {
    wait_first();
    return (int) syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    wait_first();
    return (int) syscall(SYS_fdatasync, fd);
}
";

/// The variable that names libraries to be loaded first.
pub const VARIABLE: &str = "LD_PRELOAD";

/// Builds into `folder` the library that makes every sync `delay` longer.
pub fn library(folder: &Path, delay: Duration) -> Result<PathBuf> {
    let (source, library) = (folder.join("slow_disk.c"), folder.join("slow_disk.so"));
    std::fs::write(&source, SOURCE).with_context(|| format!("writing {}", source.display()))?;
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2"])
        .arg(format!("-DDELAY_NANOS={}L", delay.as_nanos()))
        .arg("-o")
        .args([&library, &source])
        .status()
        .context("running cc, the C compiler; `cargo xtask setup` installs it")?;
    ensure!(built.success(), "cc can't build {}", source.display());
    Ok(library)
}
