//! The bench's own parts, on few events: a yardstick must be measured too.

use std::path::Path;

use anyhow::{Result, ensure};
use wirehook_tests::bench::latency::Load;
use wirehook_tests::bench::receiver::Receiver;
use wirehook_tests::bench::run::Bench;
use wirehook_tests::bench::scenario::{Scenario, Setting};
use wirehook_tests::bench::{call, languages, latency, micro};
use wirehook_tests::http_client;

const EVENTS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_subscriber_delivers_every_event_signed() -> Result<()> {
    let receiver = Receiver::start()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench { folder: folder.path(), receiver: &receiver, program: None };
    for scenario in [Scenario::BareCore, Scenario::BareJetstream] {
        let measured = bench.run(scenario, Setting::MAIN, EVENTS).await?;
        assert_eq!(measured.repeated, 0, "{scenario:?}");
        assert!(!measured.wall.is_zero() && !measured.cpu.is_zero(), "{measured:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_latency_counts_from_the_time_that_was_meant() -> Result<()> {
    let receiver = Receiver::start()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench { folder: folder.path(), receiver: &receiver, program: None };
    let briefly = std::time::Duration::from_millis(500);
    let measured = latency::measure(&bench, Load::new(Scenario::BareCore, 200), briefly, 3).await?;
    assert_eq!(measured.micros.len(), 100);
    assert!(measured.quantile(0.5) > std::time::Duration::ZERO, "{measured:?}");
    Ok(())
}

/// An event waits for one commit at least, and that for the disk. The quickest of each show it, which nothing else holds up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_is_slow_for_the_host() -> Result<()> {
    let receiver = Receiver::start()?;
    let folder = tempfile::tempdir()?;
    let bench = Bench { folder: folder.path(), receiver: &receiver, program: None };
    let load = Load::new(Scenario::HostJetstream, 50);
    let measure = |load| latency::measure(&bench, load, std::time::Duration::from_secs(1), 3);
    let (quick, slow) = (measure(load).await?, measure(load.on_slow_disk()).await?);
    assert!(slow.quantile(0.0) >= quick.quantile(0.0) + latency::SLOW_SYNC / 2, "{quick}, then {slow}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_single_step_is_timed() -> Result<()> {
    let receiver = Receiver::start()?;
    let folder = tempfile::tempdir()?;
    let micro = micro::measure(folder.path(), &receiver, 200).await?;
    for (key, _, time) in micro.steps() {
        assert!(!time.is_zero(), "{key}: {micro:?}");
    }
    Ok(())
}

/// What makes a fresh sandbox cheap: the SDK's allocator has room for an order from the start.
#[test]
fn the_example_asks_for_no_memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let report = call::once(folder.path())?;
    assert_eq!(report.memory_peak_bytes, report.instance_bytes);
    assert!(report.instance_bytes > 256 << 10, "{} bytes", report.instance_bytes);
    Ok(())
}

#[test]
fn every_language_of_the_example_has_its_row_in_the_document() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(root.join("host/docs/plugins.md"))?;
    let table = languages::within(&document)?;
    for example in languages::examples(&root.join("plugins"))? {
        let row = format!("| {} |", languages::title(&example));
        ensure!(table.contains(&row), "{example} has no row: run `cargo xtask bench --languages`\n{table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_fails_loudly_on_loss_and_on_a_missing_or_wrong_signature() -> Result<()> {
    let receiver = Receiver::start()?;
    let brief = std::time::Duration::from_millis(50);
    receiver.expect(2);
    let lost = receiver.finished(brief).await;
    assert!(lost.is_err_and(|error| error.to_string().starts_with("LOST: 0 of 2")));

    http_client::new()?.post(receiver.url()).body("{}").send().await?;
    let unsigned = receiver.finished(brief).await;
    assert!(unsigned.is_err_and(|error| error.to_string().contains("webhook-id is missing")));

    receiver.expect(2);
    let forged = http_client::new()?.post(receiver.url()).header("webhook-id", "msg_00").header("x-timestamp", "1");
    forged.header("x-signature", "sha256=00").body("{}").send().await?;
    let forged = receiver.finished(brief).await;
    assert!(forged.is_err_and(|error| error.to_string().contains("signature of msg_00 is wrong")));
    Ok(())
}
