//! From an event's publication to its webhook's arrival, at a constant rate.
//!
//! The times of publication are fixed in advance, and a latency counts from the time that was meant: a publisher or a
//! host that stands still for a while makes every event late that should have gone meanwhile. (Tene calls the error
//! that this avoids coordinated omission.)

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::executor::block_on;
use hdrhistogram::Histogram;

use super::run::{Bench, STREAM, retire};
use super::scenario::{Scenario, Setting};
use super::stolen::Counted;
use super::{bare, deadline, disk, quantile, slow_disk};
use crate::events::PublishedEvent;
use crate::nats_server::NatsServer;
use crate::publisher::SUBJECTS;

/// The rate that an aim is set for, in events a second.
pub const RATE: u64 = 1_000;

/// Shares of the events whose latency is told.
pub const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Events of so much time come first and are not counted: connections are made, and memory is.
const WARM_UP: Duration = Duration::from_secs(1);

/// Digits of a latency that the histogram keeps.
const DIGITS: u8 = 3;

/// Syncs of another disk, as the injected ones are: what they take longer.
pub const SLOW_SYNC: Duration = Duration::from_millis(4);

/// What is measured of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// The host from JetStream, or the plain subscriber.
    pub scenario: Scenario,
    /// Events a second.
    pub rate: u64,
    /// What each sync of the host's takes longer.
    pub sync_delay: Duration,
}

impl Load {
    /// With the disk as it is.
    pub fn new(scenario: Scenario, rate: u64) -> Self {
        Self { scenario, rate, sync_delay: Duration::ZERO }
    }

    /// With a slower disk.
    pub fn on_slow_disk(self) -> Self {
        Self { sync_delay: SLOW_SYNC, ..self }
    }

    /// For the report.
    pub fn label(&self) -> String {
        let disk = if self.sync_delay.is_zero() { String::new() } else { format!(", syncs + {:?}", self.sync_delay) };
        format!("{}{disk}", self.scenario.label())
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Latency {
    /// What it was measured of.
    pub load: Load,
    /// Microseconds from the time meant to the arrival.
    pub micros: Histogram<u64>,
    /// The most that the publisher itself was late.
    pub publisher_late: Duration,
    /// What the hypervisor took of the machine's CPU time meanwhile, in percent.
    pub stolen_percent: f64,
    /// Syncs of the disk just before.
    pub syncs: Vec<Duration>,
}

impl Latency {
    /// The latency that a `share` of the events had at most.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.micros.value_at_quantile(share))
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, share) in SHARES {
            write!(f, " {name} {:<9}", format!("{:.2?}", self.quantile(share)))?;
        }
        let (p50, p99) = (quantile(&self.syncs, 0.5), quantile(&self.syncs, 0.99));
        write!(
            f,
            " sync p50 {p50:.2?}, p99 {p99:.2?}; publisher late {:.1?} at most; {:.1} % of the CPU stolen",
            self.publisher_late, self.stolen_percent
        )
    }
}

/// Publishes at a constant rate for `duration`, to the host or to the plain subscriber.
pub async fn measure(bench: &Bench<'_>, load: Load, duration: Duration, syncs: usize) -> Result<Latency> {
    let Load { scenario, rate, sync_delay } = load;
    let count = |duration: Duration| usize::try_from(duration.as_millis() * u128::from(rate) / 1_000);
    let (warm_up, counted) = (count(WARM_UP)?, count(duration)?);
    let events = Setting::MAIN.events(warm_up + counted);
    let syncs = disk::syncs(bench.folder, syncs)?;
    let nats = NatsServer::start().await?;
    let client = nats.client().await?;
    bench.receiver.expect_timed(events.len());
    let publish = async {
        let before = Counted::now()?;
        let (meant, publisher_late) = at_rate(client.clone(), events, rate).await?;
        client.flush().await?;
        bench.receiver.finished(deadline(meant.len())).await?;
        let stolen_percent = before.stolen_percent_until(Counted::now()?);
        let mut micros = Histogram::new(DIGITS)?;
        for (meant, arrived) in meant.iter().zip(bench.receiver.arrivals()).skip(warm_up) {
            let latency = arrived.context("an event without its webhook")?.saturating_duration_since(*meant);
            micros.record(u64::try_from(latency.as_micros())?)?;
        }
        anyhow::Ok(Latency { load, micros, publisher_late, stolen_percent, syncs })
    };
    if scenario == Scenario::BareCore {
        let _subscriber = bare::start(&nats.url(), &bench.receiver.url(), None).await?;
        return publish.await;
    }
    nats.create_stream(STREAM, &[SUBJECTS]).await?;
    if scenario == Scenario::BareJetstream {
        let _subscriber = bare::start(&nats.url(), &bench.receiver.url(), Some(STREAM)).await?;
        return publish.await;
    }
    ensure!(scenario == Scenario::HostJetstream, "no latency is measured of {scenario:?}");
    let slow_disk = match sync_delay {
        Duration::ZERO => None,
        delay => Some(slow_disk::library(bench.folder, delay)?),
    };
    let mut host = bench.host(&Setting::MAIN, |builder| {
        let builder = builder.jetstream(&nats, STREAM);
        slow_disk
            .iter()
            .fold(builder, |builder, library| builder.variable(slow_disk::VARIABLE, &library.to_string_lossy()))
    })?;
    host.start().await?;
    let latency = publish.await?;
    retire(host).await?;
    Ok(latency)
}

/// Publishes from a thread of its own, which sleeps more exactly than the runtime does. Returns when each event was
/// meant to go, and the most that one went late.
async fn at_rate(
    client: async_nats::Client,
    events: Vec<PublishedEvent>,
    rate: u64,
) -> Result<(Vec<Instant>, Duration)> {
    let publish = move || {
        let started = Instant::now();
        let (mut meant, mut late) = (Vec::with_capacity(events.len()), Duration::ZERO);
        for (number, event) in (0u64..).zip(events) {
            let at = started + Duration::from_nanos(number * 1_000_000_000 / rate.max(1));
            if let Some(early) = at.checked_duration_since(Instant::now()) {
                #[allow(clippy::disallowed_methods, reason = "a rate is kept by the clock")]
                std::thread::sleep(early);
            }
            block_on(client.publish(event.subject, event.body))?;
            late = late.max(at.elapsed());
            meant.push(at);
        }
        anyhow::Ok((meant, late))
    };
    tokio::task::spawn_blocking(publish).await?
}
