//! The machine's clock is stepped under the real host: nothing is lost, nothing waits for the step's length, and nothing is
//! deleted before it has aged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wirehook_tests::account::Account;
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::publisher::{HttpPublisher, answer};
use wirehook_tests::test_host::{HostFolderBuilder, PluginFile, TestHost};
use wirehook_tests::{events, full, wait};

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

/// A host whose wall clock is off by what the file says.
fn stepped(offset: &Path) -> Result<HostFolderBuilder> {
    Ok(TestHost::builder()
        .variable("LD_PRELOAD", &faketime()?.display().to_string())
        .variable("FAKETIME_TIMESTAMP_FILE", &offset.display().to_string())
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_stepped_by_an_hour_loses_nothing_and_delays_nothing_by_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let offset = folder.path().join("offset");
    step(&offset, "+0")?;
    let web = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    // Without a breaker, whose own waits go by the clock that is not stepped.
    let retry = "breaker = \"off\"\n[endpoint.retry]\ninitial_delay = \"300ms\"\nmultiplier = 1.0\nmax_attempts = 1000";
    let mut host = stepped(&offset)?
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

/// Posts order `number` under a key of its own; whether it was new.
async fn post_once(web: &HttpPublisher, host: &TestHost, number: usize) -> Result<bool> {
    let accepted = async || host.metric("wirehook_events_accepted_total", "source=\"web\"").await;
    let before = accepted().await?;
    let request = web.request(events::order_created(number).body).header("idempotency-key", format!("order-{number}"));
    let (status, text) = answer(request).await?;
    ensure!(status == 202, "order {number} was answered {status}: {text}");
    Ok(accepted().await? > before)
}

/// Has an order delivered, and waits until housekeeping has deleted it: by then it has looked at all that is older.
async fn wait_for_housekeeping(web: &HttpPublisher, host: &TestHost, number: usize) -> Result<()> {
    ensure!(post_once(web, host, number).await?, "order {number} is new");
    let delivered = async || host.json(&["deliveries", "list", "--state", "delivered"]).await?.objects::<Value>();
    wait::until("the delivery", DEADLINE, async || Ok((!delivered().await?.is_empty()).then_some(()))).await?;
    wait::until("housekeeping", DEADLINE, async || Ok(delivered().await?.is_empty().then_some(()))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_aged_outlives_every_step_of_the_clock() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let offset = folder.path().join("offset");
    // No battery: it is 1970 until the network says otherwise.
    step(&offset, "-1790000000s")?;
    let web = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::always(Answer::status(400))).await?;
    let paused = FakeEndpoint::start(Script::ok()).await?;
    let mut host = stepped(&offset)?
        .settings("[retention]\ndelivered = \"1s\"")
        .http(web.port, "")
        .endpoint("orders", &endpoint, "")
        .endpoint("waiting", &paused, "[endpoint.backlog]\nage = \"1d\"")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .plugin(PluginFile::hostile("echo")?.subscribed("fraiseql.invoice.*", "waiting"))
        .build()?;
    host.start().await?;
    host.command(&["endpoints", "pause", "waiting"]).await?.expect_code(0)?;
    let waits = events::page_event("invoice", "created", 7_000, &serde_json::json!({"id": "7000"}));
    let (status, text) = answer(web.request(waits.body)).await?;
    ensure!(status == 202, "what waits was answered {status}: {text}");
    let mut letters = 0;
    // Housekeeping runs every 30 s, so each step takes that long.
    let (running, restarted): (&[&str], &[&str]) = match full::is_full() {
        true => (&["+0", "+31d", "+0", "-31d", "+0"], &["+31d", "-31d"]),
        false => (&["+31d", "-31d"], &["+31d"]),
    };
    for (round, &offset_now) in running.iter().enumerate() {
        let number = 10 * round;
        endpoint.set_script(Script::always(Answer::status(400)));
        ensure!(post_once(&web, &host, number).await?, "order {number} is new");
        letters += 1;
        host.wait_dead_letters(letters, DEADLINE).await?;
        endpoint.set_script(Script::ok());
        host.forget_logs();
        step(&offset, offset_now)?;
        host.logs().wait_for("the clock was set", DEADLINE).await?;
        wait_for_housekeeping(&web, &host, number + 1).await?;
        host.wait_dead_letters(letters, DEADLINE).await?;
        ensure!(!post_once(&web, &host, number).await?, "{offset_now}: the key of order {number} is known");
    }
    // The same while no host runs.
    for (round, &offset_now) in restarted.iter().enumerate() {
        host.stop().await?;
        step(&offset, offset_now)?;
        host.start().await?;
        wait_for_housekeeping(&web, &host, 1_000 + round).await?;
        host.wait_dead_letters(letters, DEADLINE).await?;
        ensure!(!post_once(&web, &host, 0).await?, "{offset_now}: a key is known after a restart");
    }
    host.expect_all_accounted().await?;
    Ok(())
}
