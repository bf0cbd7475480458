//! Half an hour at half of what the host can do: its memory and its files stay as they were, and its log stays bounded.
//!
//! Runs with `cargo xtask test --full`. `WIREHOOK_SOAK_MINUTES` makes it shorter or longer, and runs it by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wirehook_tests::artifacts;
use wirehook_tests::bench::receiver::Receiver;
use wirehook_tests::full;
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

const MINUTES_VARIABLE: &str = "WIREHOOK_SOAK_MINUTES";
const MINUTES: f64 = 30.0;

/// How long the host is driven as fast as it goes, to know its rate; the second half counts.
const RATE_DURATION: Duration = Duration::from_secs(20);

/// Events on their way while the rate is found.
const AHEAD_MAX: usize = 2_000;

/// Events published at once, then a pause as the rate asks.
const BURST: usize = 20;

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// For the last events to arrive.
const DEADLINE: Duration = Duration::from_secs(120);

/// The log's bound: 32 times what is moved at once.
const WAL_BYTES_MAX: u64 = 32 * 8 * 1024 * 1024;

/// What the host's memory may differ by from one third of the time to the next: what an allocator keeps for itself.
const RSS_GROWTH_MAX: f64 = 1.10;
const RSS_SLACK_BYTES: u64 = 8 * 1024 * 1024;

/// Connections and readers come and go.
const FILES_SLACK: u64 = 8;

#[derive(Clone, Copy, Debug)]
struct Sample {
    rss_bytes: u64,
    files: u64,
    wal_bytes: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_files_and_log_stay_flat_at_half_the_rate() -> Result<()> {
    let Some(duration) = wanted()? else { return Ok(()) };
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let receiver = Receiver::start()?;
    receiver.expect(usize::MAX);
    // What has ended is swept away all the time, as on a host that runs for months.
    let mut host = TestHost::builder()
        .within(&artifacts::target_folder()?)
        .settings("[retention]\ndelivered = \"60s\"\ndedup = \"120s\"")
        .jetstream(&nats, "EVENTS")
        .endpoint_at("orders", &receiver.url(), "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    let (mut published, rate) = full_speed(&publisher, &receiver).await?;
    println!("{rate:.0} events a second at full speed; {:.0} for {duration:?}", rate / 2.0);

    let began = Instant::now();
    let first = published;
    let mut samples = Vec::new();
    while began.elapsed() < duration {
        publisher.publish_orders(published..published + BURST).await?;
        published += BURST;
        if began.elapsed() >= SAMPLE_INTERVAL * u32::try_from(samples.len())? {
            samples.push(sample(host.pid()?, &host.store_path())?);
        }
        let due = began + Duration::from_secs_f64((published - first) as f64 / (rate / 2.0));
        tokio::time::sleep_until(due.into()).await;
    }
    arrived(&receiver, published).await?;
    report(&samples);
    expect_flat(&samples)?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await
}

fn wanted() -> Result<Option<Duration>> {
    let minutes = match std::env::var(MINUTES_VARIABLE) {
        Ok(minutes) => minutes.parse().with_context(|| format!("{MINUTES_VARIABLE} is a number"))?,
        Err(_) if full::wanted("the soak of half an hour") => MINUTES,
        Err(_) => return Ok(None),
    };
    Ok(Some(Duration::from_secs_f64(minutes * 60.0)))
}

/// Publishes as fast as the host delivers. Returns how many events that were, and how many a second.
async fn full_speed(publisher: &StreamPublisher, receiver: &Receiver) -> Result<(usize, f64)> {
    let mut progress = receiver.progress();
    let (began, mut published, mut half) = (Instant::now(), 0, None);
    while began.elapsed() < RATE_DURATION {
        publisher.publish_orders(published..published + BURST * 10).await?;
        published += BURST * 10;
        progress.wait_for(|seen| published < seen + AHEAD_MAX).await?;
        if began.elapsed() >= RATE_DURATION / 2 && half.is_none() {
            half = Some((Instant::now(), *progress.borrow()));
        }
    }
    let (half_at, half_seen) = half.context("the host is too slow to be measured")?;
    let rate = (*progress.borrow() - half_seen) as f64 / half_at.elapsed().as_secs_f64();
    arrived(receiver, published).await?;
    Ok((published, rate))
}

/// Waits until all but the few that the receiver has yet to tell of are there.
async fn arrived(receiver: &Receiver, published: usize) -> Result<()> {
    const UNTOLD: usize = 64;
    let mut progress = receiver.progress();
    let arrived = progress.wait_for(|seen| seen + UNTOLD >= published);
    tokio::time::timeout(DEADLINE, arrived).await.context("the host does not keep up")??;
    Ok(())
}

fn sample(pid: u32, store: &Path) -> Result<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has no memory")?;
    let rss_kib: u64 = rss.trim().trim_end_matches(" kB").parse()?;
    let mut log = store.as_os_str().to_owned();
    log.push("-wal");
    Ok(Sample {
        rss_bytes: rss_kib * 1024,
        files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        wal_bytes: std::fs::metadata(log).map_or(0, |metadata| metadata.len()),
    })
}

fn thirds(samples: &[Sample]) -> [&[Sample]; 3] {
    let third = samples.len() / 3;
    [&samples[..third], &samples[third..2 * third], &samples[2 * third..]]
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<_> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn report(samples: &[Sample]) {
    for (third, samples) in thirds(samples).iter().enumerate() {
        let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
        println!(
            "third {}: RSS median {} MiB, most {} MiB; files median {}, most {}; log at most {} MiB",
            third + 1,
            median(samples, |sample| sample.rss_bytes) >> 20,
            most(|sample| sample.rss_bytes) >> 20,
            median(samples, |sample| sample.files),
            most(|sample| sample.files),
            most(|sample| sample.wal_bytes) >> 20
        );
    }
}

fn expect_flat(samples: &[Sample]) -> Result<()> {
    let [_, second, last] = thirds(samples);
    ensure!(second.len() >= 10, "{} samples are too few", samples.len());
    let (before, after) = (median(second, |sample| sample.rss_bytes), median(last, |sample| sample.rss_bytes));
    let most = before as f64 * RSS_GROWTH_MAX + RSS_SLACK_BYTES as f64;
    ensure!(after as f64 <= most, "the memory grew from {before} to {after} bytes");
    let (before, after) = (median(second, |sample| sample.files), median(last, |sample| sample.files));
    ensure!(after <= before + FILES_SLACK, "the open files grew from {before} to {after}");
    let log = samples.iter().map(|sample| sample.wal_bytes).max().unwrap_or(0);
    ensure!(log <= WAL_BYTES_MAX, "the write-ahead log came to {log} bytes");
    Ok(())
}
