//! `wirehook plugin test --watch`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use wirehook_tests::artifacts;
use wirehook_tests::events::order_created;

const DEADLINE: Duration = Duration::from_secs(120);

/// The lines until it waits for a change.
async fn round(lines: &mut tokio::io::Lines<BufReader<ChildStdout>>) -> Result<String> {
    let mut said = String::new();
    let reading = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains("waiting for a change") {
                return Ok(());
            }
            said += &line;
            said.push('\n');
        }
        anyhow::bail!("it ended")
    };
    tokio::time::timeout(DEADLINE, reading).await.context("it does not test")??;
    Ok(said)
}

#[tokio::test]
async fn a_changed_event_and_a_new_build_are_tested_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let events = folder.path().join("events");
    std::fs::create_dir(&events)?;
    std::fs::write(events.join("one.json"), &order_created(1).body)?;
    let plugin = folder.path().join("orders.wasm");
    std::fs::copy(artifacts::example_plugin("orders")?, &plugin)?;
    let mut child = Command::new(artifacts::host_binary()?)
        .args(["plugin", "test", "orders.wasm", "--events", "events", "--watch"])
        .current_dir(folder.path())
        .env("XDG_CACHE_HOME", folder.path().join("cache"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let first = round(&mut lines).await?;
    ensure!(first.contains("new") && first.contains("one: produced"), "{first}");
    std::fs::write(events.join("two.json"), &order_created(2).body)?;
    let second = round(&mut lines).await?;
    ensure!(second.contains("one: produced") && second.contains("two: produced"), "{second}");
    std::fs::copy(artifacts::hostile_guest("rejects")?, folder.path().join("draft"))?;
    std::fs::rename(folder.path().join("draft"), &plugin)?;
    let third = round(&mut lines).await?;
    ensure!(third.contains("one: dead"), "{third}");
    Ok(())
}
