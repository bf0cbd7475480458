//! Commands beside a host, or on its store while it is down.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{HostFolder, TestHost};

/// For one command.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub struct CommandOutput {
    /// The command line, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// Fails unless it ended with `code`.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.status.code() == Some(code),
            "`{}` ended with {} instead of {code}\nstdout: {}\nstderr: {}",
            self.line,
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Fails unless its standard error contains every one of `parts`.
    pub fn expect_said(self, parts: &[&str]) -> Result<Self> {
        for part in parts {
            ensure!(self.stderr.contains(part), "`{}` did not say `{part}`; it said: {}", self.line, self.stderr);
        }
        Ok(self)
    }

    /// Standard output as one JSON object a line.
    pub fn objects<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let parse = |line| {
            serde_json::from_str(line).with_context(|| format!("`{}` printed a line that doesn't parse: {line}", self.line))
        };
        self.stdout.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
    }

    /// Standard output as exactly one JSON object.
    pub fn object(&self) -> Result<Value> {
        match self.objects()?.as_slice() {
            [object] => Ok(Value::clone(object)),
            objects => bail!("`{}` printed {} objects instead of one: {}", self.line, objects.len(), self.stdout),
        }
    }
}

impl TestHost {
    /// Runs a command with this host's settings.
    pub async fn command(&self, arguments: &[&str]) -> Result<CommandOutput> {
        self.folder.run(arguments).await
    }

    /// Runs a command with `--json` and expects exit 0.
    pub async fn json(&self, arguments: &[&str]) -> Result<CommandOutput> {
        let arguments = [arguments, &["--json"]].concat();
        self.folder.run(&arguments).await?.expect_code(0)
    }
}

impl HostFolder {
    /// Runs a command to its end, with nothing on its standard input.
    pub async fn run(&self, arguments: &[&str]) -> Result<CommandOutput> {
        self.run_with_input(arguments, b"").await
    }

    /// Runs a command to its end, with `input` on its standard input.
    pub async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<CommandOutput> {
        let line = format!("wirehook {}", arguments.join(" "));
        let mut command = Command::from(self.command(arguments)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        let mut stdin = child.stdin.take().context("its standard input")?;
        // A command that ends without reading breaks the pipe, which is its right.
        let feed = async move {
            let _ = stdin.write_all(input).await;
        };
        let work = async { tokio::join!(feed, child.wait_with_output()) };
        let ended = tokio::time::timeout(DEADLINE, work).await;
        let ((), output) = ended.with_context(|| format!("`{line}` runs on after {DEADLINE:?}"))?;
        let output = output?;
        Ok(CommandOutput {
            line,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
