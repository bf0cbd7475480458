//! The page's `verify_webhook`, in Python: a judge of our signatures that shares no code with them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::artifacts;
use crate::fake_endpoint::Received;

/// For the whole batch.
const DEADLINE: Duration = Duration::from_secs(60);

/// Fails unless the page's verifier accepts every one of `requests` with `secret`, at the time it arrived.
pub async fn accept_all(requests: &[Received], secret: &str) -> Result<()> {
    let (accepted, verdicts) = judge(requests, secret).await?;
    if !accepted {
        bail!("the page's verify_webhook refuses a request; its verdicts in order:\n{verdicts}");
    }
    Ok(())
}

/// Whether the page's verifier accepts every one of `requests`, and what it printed for each.
pub async fn judge(requests: &[Received], secret: &str) -> Result<(bool, String)> {
    let mut lines = String::new();
    for request in requests {
        let line = json!({
            "body_hex": hex::encode(&request.body),
            "signature": request.header("x-signature").unwrap_or_default(),
            "timestamp": request.header("x-timestamp").unwrap_or_default(),
            "secret": secret,
            "now": request.unix_seconds,
        });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    let mut python = Command::new("python3")
        .arg(artifacts::fixture("verify_webhook.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting python3; install Python 3 to run this test")?;
    let mut input = python.stdin.take().context("python's standard input")?;
    // Writing and reading go on together: either pipe may fill up first.
    let feed = async move { input.write_all(lines.as_bytes()).await };
    let work = async { tokio::join!(feed, python.wait_with_output()) };
    let (_, output) = tokio::time::timeout(DEADLINE, work).await.context("python took too long")?;
    let output = output.context("waiting for python")?;
    let verdicts = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), verdicts))
}
