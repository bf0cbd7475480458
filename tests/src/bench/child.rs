//! A process that is measured: how it starts, what the system says about it and can do to it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What a subscriber prints once it has subscribed.
pub const READY: &str = "ready";

/// Until a subscriber prints it.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Starts a subscriber and waits until it has printed [`READY`]. Dropping it kills it.
pub async fn start(mut command: Command) -> Result<Child> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("its standard output")?).lines();
    let line = tokio::time::timeout(READY_DEADLINE, output.next_line()).await.context("the subscriber is silent")??;
    if line.as_deref() != Some(READY) {
        bail!("the subscriber did not start: {line:?}");
    }
    Ok(child)
}

/// CPU time of all threads of a process so far, user and system.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name, in parentheses, may hold spaces; after it, user and system time are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit_once(')').context("an unknown format")?.1.split_whitespace().collect();
    let ticks = |index: usize| anyhow::Ok(fields.get(index).context("an unknown format")?.parse::<u64>()?);
    // SAFETY: sysconf takes an integer, returns one and touches no memory.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let millis_per_tick =
        1000 / u64::try_from(ticks_per_second).ok().filter(|rate| *rate > 0).context("no tick rate")?;
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * millis_per_tick))
}

/// The same to the nanosecond, of the threads that still run: for a process that does next to nothing.
pub fn cpu_time_of_threads(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
        // A thread may end while it is looked at.
        let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos += text.split(' ').next().context("an unknown format")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Memory of a process that is in RAM, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most of it that was in RAM at once.
pub fn resident_peak_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Sends a signal, such as SIGSTOP and SIGCONT, to a child of this process that was not waited for yet.
pub fn signal(pid: u32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two integers and touches no memory.
    let sent = unsafe { libc::kill(i32::try_from(pid)?, signal) };
    ensure!(sent == 0, "signal {signal} could not be sent to {pid}");
    Ok(())
}
