//! The real host as a child process, in a folder of its own, driven only through what is documented.

mod command;
mod folder;
mod logs;
mod observe;

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, ChildStdin, Command};

pub use self::command::CommandOutput;
pub use self::folder::{HostFolder, HostFolderBuilder, OpenFiles, PluginFile};
pub use self::logs::Logs;
pub use self::observe::{DeadLetter, RunCount, Status};
use crate::wait;

/// From the start to ready, a cold compiled-code cache and a busy machine included.
pub const READY_DEADLINE: Duration = Duration::from_secs(150);

/// From a signal to the exit: the host's own drain deadline is 30 s.
pub const EXIT_DEADLINE: Duration = Duration::from_secs(40);

/// A host that can be started, killed and started again on the same folder. Dropping it kills it and prints its logs,
/// which the test runner shows when the test failed.
#[derive(Debug)]
pub struct TestHost {
    /// Its settings, plugins and store.
    pub folder: HostFolder,
    client: reqwest::Client,
    running: Option<Running>,
    logs: Logs,
}

#[derive(Debug)]
struct Running {
    child: Child,
    spawned_at: Instant,
}

impl TestHost {
    /// Settings to begin with: loopback allowed, an admin listener on a free port, nothing else.
    pub fn builder() -> HostFolderBuilder {
        HostFolderBuilder::default()
    }

    pub(crate) fn new(folder: HostFolder) -> Result<Self> {
        Ok(Self { folder, client: crate::http_client::new()?, running: None, logs: Logs::default() })
    }

    /// Starts the host and waits until it is ready. Returns how long that took.
    pub async fn start(&mut self) -> Result<Duration> {
        self.spawn(&[]).await?;
        self.wait_ready().await
    }

    /// Starts `wirehook run` with `arguments` and doesn't wait.
    pub async fn spawn(&mut self, arguments: &[&str]) -> Result<()> {
        ensure!(self.running.is_none(), "the host is running already");
        let mut command = Command::from(self.folder.command(&["run", "--log-format", "json"])?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let spawned_at = Instant::now();
        let mut child = command.spawn().context("starting the host")?;
        self.logs.follow(child.stderr.take().context("the host's standard error")?).await;
        self.running = Some(Running { child, spawned_at });
        Ok(())
    }

    /// Waits until `/readyz` answers 200. Returns how long it took since the start.
    pub async fn wait_ready(&mut self) -> Result<Duration> {
        let url = self.folder.admin_url("/readyz");
        let client = self.client.clone();
        let running = self.running.as_mut().context("the host was not started")?;
        let spawned_at = running.spawned_at;
        let mut missing = String::from("no answer");
        let ready = wait::until("the host to be ready", READY_DEADLINE, async || {
            if let Some(status) = running.child.try_wait()? {
                bail!("the host ended with {status} before it was ready");
            }
            let Ok(response) = client.get(&url).send().await else { return Ok(None) };
            if response.status() == 200 {
                return Ok(Some(spawned_at.elapsed()));
            }
            missing = response.text().await.unwrap_or_default();
            Ok(None)
        })
        .await;
        ready.with_context(|| format!("/readyz said: {missing}\nthe host's logs:\n{}", self.logs.tail()))
    }

    /// SIGKILL; nothing is flushed. Returns once the process is gone.
    pub async fn kill9(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the host is not running")?;
        running.child.kill().await.context("killing the host")?;
        self.logs.finish().await;
        Ok(())
    }

    /// SIGTERM, and waits for the exit.
    pub async fn sigterm(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        self.wait_exit(EXIT_DEADLINE).await
    }

    /// SIGTERM, expects a clean exit, and starts again.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await?;
        Ok(())
    }

    /// SIGTERM, and expects exit 0.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.sigterm().await?;
        ensure!(status.success(), "the host did not drain cleanly: {status}\n{}", self.logs.tail());
        Ok(())
    }

    /// Sends a signal and doesn't wait.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.pid()?)?;
        // SAFETY: kill takes two integers and touches no memory; the child is not reaped yet, so the pid is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        ensure!(sent == 0, "signal {signal} could not be sent to the host, pid {pid}");
        Ok(())
    }

    /// Waits until the host ends by itself.
    pub async fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let running = self.running.as_mut().context("the host is not running")?;
        let exit = tokio::time::timeout(deadline, running.child.wait()).await;
        let status = exit.with_context(|| format!("the host runs on after {deadline:?}"))??;
        self.running = None;
        self.logs.finish().await;
        Ok(status)
    }

    /// The host's process id.
    pub fn pid(&self) -> Result<u32> {
        self.running.as_ref().and_then(|running| running.child.id()).context("the host is not running")
    }

    /// The host's standard input, once; dropping it is the input's end.
    pub fn take_stdin(&mut self) -> Result<ChildStdin> {
        let running = self.running.as_mut().context("the host is not running")?;
        running.child.stdin.take().context("the host's standard input was taken before")
    }

    /// What the host logged so far.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Empties the logs: what went well needs no explanation.
    pub fn forget_logs(&mut self) {
        self.logs.clear();
    }

    /// The store's file.
    pub fn store_path(&self) -> PathBuf {
        self.folder.store_path()
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if self.logs.is_empty() {
            return;
        }
        // Printed through the macro, so that the test runner keeps it with the test and shows it when that failed.
        eprintln!("the host's last logs:\n{}", self.logs.tail());
    }
}
