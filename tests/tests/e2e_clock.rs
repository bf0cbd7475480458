//! The machine's clock is stepped back and forth by an hour under the real host: nothing is lost, and nothing waits an hour.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wirehook_tests::account::Account;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

/// Far less than an hour.
const DEADLINE: Duration = Duration::from_secs(120);

/// Webhooks at each step.
const PART: usize = 20;

/// The library of Debian's package `faketime` that steps the clock of one process.
fn faketime() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists()).context("libfaketime is missing: run `cargo xtask setup`")
}

fn step(file: &Path, offset: &str) -> Result<()> {
    // In one piece: the host reads it at any time.
    let part = file.with_extension("part");
    std::fs::write(&part, offset)?;
    Ok(std::fs::rename(part, file)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_stepped_by_an_hour_loses_nothing_and_delays_nothing_by_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let offset = folder.path().join("offset");
    step(&offset, "+0")?;
    let web = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let retry = "[endpoint.retry]\ninitial_delay = \"300ms\"\nmultiplier = 1.0\nmax_attempts = 1000";
    let mut host = TestHost::builder()
        .variable("LD_PRELOAD", &faketime()?.display().to_string())
        .variable("FAKETIME_TIMESTAMP_FILE", &offset.display().to_string())
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .http(web.port, "")
        .endpoint("orders", &endpoint, retry)
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    let mut published = 0;
    let steps = [("+3600s", "set forward"), ("+0", "set back"), ("-3600s", "set back"), ("+0", "set forward")];
    for (offset_now, said) in steps {
        // Some fail and are due again when the clock is stepped.
        endpoint.set_script(Script::always(Answer::status(503)));
        let before = endpoint.look(|log| log.all().len());
        web.publish_orders(published..published + PART).await?;
        published += PART;
        endpoint.wait_for("their first attempts", DEADLINE, |log| log.all().len() >= before + PART).await?;
        host.forget_logs();
        step(&offset, offset_now)?;
        host.logs().wait_for(&format!("the clock was {said}"), DEADLINE).await?;
        endpoint.set_script(Script::ok());
        let delivered = f64::from(u32::try_from(published)?);
        host.wait_metric("wirehook_attempts_total", "outcome=\"delivered\"", delivered, DEADLINE).await?;
    }
    // Set back while no host runs, with work that is due by the clock before.
    host.forget_logs();
    step(&offset, "+3600s")?;
    host.logs().wait_for("the clock was set forward", DEADLINE).await?;
    endpoint.set_script(Script::always(Answer::status(503)));
    let before = endpoint.look(|log| log.all().len());
    web.publish_orders(published..published + PART).await?;
    published += PART;
    endpoint.wait_for("their first attempts", DEADLINE, |log| log.all().len() >= before + PART).await?;
    host.restart().await?;
    host.stop().await?;
    step(&offset, "+0")?;
    endpoint.set_script(Script::ok());
    host.start().await?;
    host.logs().wait_for("the clock was set back since the last start", DEADLINE).await?;
    let delivered = f64::from(u32::try_from(PART)?);
    host.wait_metric("wirehook_attempts_total", "outcome=\"delivered\"", delivered, DEADLINE).await?;

    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await?;
    let account = Account::of_copy(&host.store_path())?;
    ensure!(account.deliveries_to("orders", "delivered") == published as u64, "{account:?}");
    Ok(())
}
