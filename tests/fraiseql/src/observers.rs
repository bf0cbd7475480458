//! FraiseQL's observers: `EntityEvent` on JetStream, published as it is or read from the outbox by the bridge.

use std::sync::Arc;

use anyhow::{Context, Result};
use fraiseql_observers::EntityEvent;
use fraiseql_observers::transport::{
    EventTransport, NatsConfig, NatsTransport, PostgresCheckpointStore, PostgresNatsBridge,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::broadcast;

use crate::{nats_url, pool};

/// Publishes each line of standard input, in FraiseQL's own words: it is parsed and written again.
pub(crate) async fn transport(stream: &str, prefix: &str) -> Result<()> {
    let transport = connect(stream, prefix).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let event: EntityEvent = serde_json::from_str(&line).with_context(|| format!("no EntityEvent: {line}"))?;
        transport.publish(event).await?;
    }
    Ok(())
}

/// Publishes the outbox until standard input ends.
pub(crate) async fn bridge(stream: &str, prefix: &str) -> Result<()> {
    let pool = pool().await?;
    let transport = Arc::new(connect(stream, prefix).await?);
    let checkpoints = Arc::new(PostgresCheckpointStore::new(pool.clone()));
    let bridge = PostgresNatsBridge::with_defaults(pool, transport, checkpoints);
    let (stop, stopped) = broadcast::channel(1);
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {}
        // It fails where the bridge has ended before.
        let _ = stop.send(());
    });
    bridge.run_with_shutdown(stopped).await.context("the bridge")
}

async fn connect(stream: &str, prefix: &str) -> Result<NatsTransport> {
    let config = NatsConfig {
        url: nats_url()?,
        stream_name: stream.to_owned(),
        subject_prefix: prefix.to_owned(),
        ..NatsConfig::default()
    };
    Ok(NatsTransport::new(config).await?)
}
