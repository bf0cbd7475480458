//! What a source takes of the machine's memory while its inbox accepts nothing. In a process of its own: nobody else's
//! memory is counted.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use wirehook::source::BYTES_IN_FLIGHT_MAX;

use super::stage::DEADLINE;
use super::{Bus, Guarantee, Order, Publisher, SOURCE};
use crate::fake_inbox::Seen;
use crate::{artifacts, wait};

/// The size of a message, where the bus takes one of that size.
const MESSAGE_BYTES: usize = 64 << 10;

/// What is published while nothing is accepted.
const PUBLISHED_BYTES: usize = 6 * BYTES_IN_FLIGHT_MAX;

/// What it may come to in memory: what is in flight, what a client has asked for ahead of that, what is on its way
/// through buffers, and as much again for the allocator.
const GROWTH_BYTES_MAX: u64 = 5 * BYTES_IN_FLIGHT_MAX as u64;

/// Messages published at once.
const PUBLISHED_AT_ONCE: usize = 16;

/// Memory that has not grown for so long grows no more.
const QUIET: Duration = Duration::from_secs(1);

/// What a source with an inbox that holds tells of itself, by the binary `held-source`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldSource {
    /// Messages handed over.
    pub offered: usize,
    /// Messages accepted.
    pub accepted: usize,
}

impl HeldSource {
    /// From what its inbox has seen.
    pub fn of(seen: &Seen) -> Self {
        Self { offered: seen.offered, accepted: seen.accepted.len() }
    }
}

/// Far more is published than fits while the inbox holds; the source takes no more memory than it may, and goes on when
/// it can. A bus that keeps messages loses none; another may drop what its reader does not take.
pub async fn memory_is_bounded_while_the_store_holds<B: Bus>() -> Result<()> {
    let bytes = MESSAGE_BYTES.min(B::MESSAGE_BYTES_MAX);
    let events = PUBLISHED_BYTES / bytes;
    let bus = B::start().await?;
    let mut source = SourceProcess::start(&bus.source_toml(SOURCE)).await?;
    let mut publisher = bus.publisher();
    // What a source does at its beginning is over when it has had an event.
    publisher.publish(&[Order::new(0)]).await?;
    source.until("the first message", |seen| seen.accepted == 1).await?;
    source.tell("hold\n").await?;
    let before = source.resident_bytes()?;
    for first in (1..events).step_by(PUBLISHED_AT_ONCE) {
        let numbers = first..events.min(first + PUBLISHED_AT_ONCE);
        publisher.publish(&numbers.map(|number| Order::sized(number, bytes)).collect::<Vec<_>>()).await?;
    }
    source.until("a batch", |seen| seen.offered > seen.accepted).await?;
    let growth = source.resident_bytes_at_rest().await?.saturating_sub(before);
    println!("{} MiB for {events} messages of {bytes} bytes", growth >> 20);
    ensure!(growth <= GROWTH_BYTES_MAX, "{growth} bytes of memory, {GROWTH_BYTES_MAX} at most");
    source.tell("accept\n").await?;
    let wanted = if B::GUARANTEE == Guarantee::AtLeastOnce { events } else { 2 };
    source.until("the messages", |seen| seen.accepted >= wanted).await
}

/// `held-source`, running.
struct SourceProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl SourceProcess {
    /// Returns once it is connected.
    async fn start(settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("wirehook.toml");
        std::fs::write(&file, settings)?;
        let mut command = Command::new(artifacts::own_binary("held-source")?);
        command.arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting held-source")?;
        let lines = BufReader::new(child.stdout.take().context("its standard output")?).lines();
        let mut source = Self { child, lines };
        source.until("the connection", |_| true).await?;
        Ok(source)
    }

    /// Tells its inbox to `hold`, or to `accept`.
    async fn tell(&mut self, line: &str) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("its standard input")?.write_all(line.as_bytes()).await?)
    }

    /// Waits until what it says satisfies `condition`.
    async fn until(&mut self, what: &str, condition: impl Fn(HeldSource) -> bool) -> Result<()> {
        let mut last = None;
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                let line = self.lines.next_line().await?.context("held-source has ended")?;
                let seen = serde_json::from_str(&line)?;
                last = Some(seen);
                if condition(seen) {
                    return anyhow::Ok(());
                }
            }
        })
        .await;
        found.with_context(|| format!("gave up waiting for {what}; last was {last:?}"))?
    }

    /// The memory it takes once that grows no more.
    async fn resident_bytes_at_rest(&self) -> Result<u64> {
        let mut most = (0, Instant::now());
        wait::until("its memory to grow no more", DEADLINE, async || {
            let resident = self.resident_bytes()?;
            if resident > most.0 {
                most = (resident, Instant::now());
            }
            Ok((most.1.elapsed() > QUIET).then_some(most.0))
        })
        .await
    }

    fn resident_bytes(&self) -> Result<u64> {
        let pid = self.child.id().context("held-source has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }
}
