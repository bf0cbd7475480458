//! `[cdc_outbound]`: the outbox drained into JetStream.

use anyhow::Result;
use fraiseql_cdc_sinks::{CdcSinkConfig, DrainWorker, NatsJetStreamSink};
use serde_json::json;

use crate::{nats_url, pool};

/// Ticks `ticks` times and prints what each did. The stream has to be there: as in production, none is created.
pub(crate) async fn drain(stream: &str, template: &str, ticks: u32) -> Result<()> {
    let config = CdcSinkConfig::new(stream, template);
    let sink = NatsJetStreamSink::connect(&nats_url()?, config.clone()).await?;
    let worker = DrainWorker::new(pool().await?, sink, config);
    for _ in 0..ticks {
        let stats = worker.tick().await?;
        println!("{}", json!({ "enqueued": stats.enqueued, "published": stats.published, "dead": stats.dead }));
    }
    Ok(())
}
