//! What reading costs those who write. A run of the long tests measures it.

use std::time::Duration;

use anyhow::ensure;
use wirehook_tests::full;
use wirehook_tests::outbox_writer::{OutboxWriter, RATE, measure, median};

use super::{outbox, reading};
use crate::fake_inbox::{FakeInbox, Mode};

const WRITERS: usize = 8;
const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_secs(10);
/// How much the median latency of a commit may rise.
const RISE_MAX: f64 = 1.10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_costs_the_writers_little() -> anyhow::Result<()> {
    if !full::wanted("what reading the outbox costs its writers") {
        return Ok(());
    }
    let server = outbox(&[]).await?;
    server.notify_of_rows().await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let mut writers = Vec::new();
    for index in 0..WRITERS {
        writers.push(OutboxWriter::new(&server, index).await?);
    }
    let (mut without, mut with, mut rows) = (Vec::new(), Vec::new(), 0);
    // In turns, so that what else the machine does meets both alike; the first round warms up.
    for round in 0..=ROUNDS {
        let latencies = measure(&mut writers, ROUND).await?;
        rows += latencies.len();
        if round > 0 {
            without.extend(latencies);
        }
        let source = reading(&server, &inbox).await;
        inbox.until("what was written meanwhile", |seen| seen.accepted.len() >= rows).await;
        let latencies = measure(&mut writers, ROUND).await?;
        rows += latencies.len();
        if round > 0 {
            with.extend(latencies);
        }
        inbox.until("every row", |seen| seen.accepted.len() >= rows).await;
        source.drained().await?;
    }
    let (without, with) = (median(without), median(with));
    let rise = with.as_secs_f64() / without.as_secs_f64();
    println!(
        "{} commits/s: median {without:.2?} while nobody reads, {with:.2?} while the source does: × {rise:.3}",
        RATE as usize * WRITERS
    );
    ensure!(rise <= RISE_MAX, "the median latency of commits rose from {without:?} to {with:?}");
    Ok(())
}
