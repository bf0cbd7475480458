//! What a host costs that has nothing to do.

use std::time::Duration;

use anyhow::Result;

use super::child;
use super::run::{Bench, STREAM, retire};
use super::scenario::Setting;
use crate::nats_server::NatsServer;
use crate::publisher::SUBJECTS;

/// After the start, before it counts.
const SETTLE: Duration = Duration::from_secs(2);

/// A host with one plugin in Rust and an empty stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle {
    /// How long it was looked at.
    pub wall: Duration,
    /// CPU time of its threads meanwhile.
    pub cpu: Duration,
    /// Bytes in memory at the end.
    pub resident_bytes: u64,
}

impl Idle {
    /// Of one core, in percent.
    pub fn cpu_percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(f64::EPSILON)
    }
}

/// Looks at it for `wall`.
pub async fn measure(bench: &Bench<'_>, wall: Duration) -> Result<Idle> {
    let nats = NatsServer::start().await?;
    nats.create_stream(STREAM, &[SUBJECTS]).await?;
    let mut host = bench.host(&Setting::MAIN, |builder| builder.jetstream(&nats, STREAM))?;
    host.start().await?;
    tokio::time::sleep(SETTLE).await;
    let before = child::cpu_time_of_threads(host.pid()?)?;
    tokio::time::sleep(wall).await;
    let cpu = child::cpu_time_of_threads(host.pid()?)?.saturating_sub(before);
    let resident_bytes = child::resident_bytes(host.pid()?)?;
    retire(host).await?;
    Ok(Idle { wall, cpu, resident_bytes })
}
