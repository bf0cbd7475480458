//! Prometheus' own reader of metrics and of alerting rules: a judge of ours that shares no code with them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// For one call.
const DEADLINE: Duration = Duration::from_secs(60);

/// Fails unless `text` is Prometheus' text format, and its names are as they should be.
pub async fn check_metrics(text: &str) -> Result<()> {
    run(&["check", "metrics"], text).await
}

/// Fails unless `rules` are rules.
pub async fn check_rules(rules: &Path) -> Result<()> {
    run(&["check", "rules", &rules.to_string_lossy()], "").await
}

/// Fails unless the rules do what `tests` says.
pub async fn test_rules(tests: &Path) -> Result<()> {
    run(&["test", "rules", &tests.to_string_lossy()], "").await
}

async fn run(arguments: &[&str], input: &str) -> Result<()> {
    let line = format!("promtool {}", arguments.join(" "));
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting `{line}`; `cargo xtask setup` installs it"))?;
    let mut stdin = child.stdin.take().context("promtool's standard input")?;
    // Writing and reading go on together: either pipe may fill up first.
    let feed = async move { stdin.write_all(input.as_bytes()).await };
    let work = async { tokio::join!(feed, child.wait_with_output()) };
    let (_, output) = tokio::time::timeout(DEADLINE, work).await.with_context(|| format!("`{line}` takes too long"))?;
    let output = output?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{line}` ended with {}:\n{said}", output.status);
    Ok(())
}
