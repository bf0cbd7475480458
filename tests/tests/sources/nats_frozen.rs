//! A connection that stays open while nothing comes through it any more.

use std::time::Duration;

use anyhow::Context;
use wirehook::settings::{NatsConnection, SourceKind, Start};
use wirehook_tests::freeze_proxy::FreezeProxy;
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, eventually};
use crate::jetstream::{build, connection, publish};

/// How long a source may take to find that its connection is dead, and to have another.
const FOUND: Duration = Duration::from_secs(30);

fn through(proxy: &FreezeProxy, server: &NatsServer) -> anyhow::Result<NatsConnection> {
    Ok(NatsConnection { url: format!("nats://127.0.0.1:{}", proxy.port()).parse()?, ..connection(server) })
}

async fn found_dead(source: &Running) -> anyhow::Result<()> {
    let connected_again = source.until("another connection", |status| status.connected && status.reconnects == 1);
    tokio::time::timeout(FOUND, connected_again).await.context("the dead connection was not found in time")?;
    Ok(())
}

#[tokio::test]
async fn a_frozen_connection_to_a_stream_is_found_and_nothing_is_lost() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    server.create_stream("events", &["e.>"]).await?;
    let proxy = FreezeProxy::start(server.port()).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(
        build(SourceKind::Jetstream {
            connection: through(&proxy, &server)?,
            streams: vec!["events".to_owned()],
            create_stream: false,
            ephemeral: false,
            durable: "wirehook-bus".to_owned(),
            subjects: Vec::new(),
            start: Start::All,
        }),
        &inbox,
    );
    source.connected().await;
    publish(&server, "e.a", 0..10).await?;
    inbox.until("the first events", |seen| seen.bodies().len() == 10).await;
    assert!(proxy.freeze() > 0);
    publish(&server, "e.a", 10..20).await?;
    found_dead(&source).await?;
    inbox.until("the rest", |seen| seen.bodies().len() == 20).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_frozen_connection_of_core_nats_is_found_and_a_loss_is_told() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let proxy = FreezeProxy::start(server.port()).await?;
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(
        build(SourceKind::Nats {
            connection: through(&proxy, &server)?,
            subjects: vec!["e.>".to_owned()],
            queue_group: "wirehook-bus".to_owned(),
        }),
        &inbox,
    );
    source.connected().await;
    assert!(proxy.freeze() > 0);
    found_dead(&source).await?;
    assert_eq!(source.state.status().interruptions, 1);
    let client = server.client().await?;
    // The server still has the dead member of the group, and hands it a share.
    let published = || async {
        client.publish("e.a", "1".into()).await.ok()?;
        client.flush().await.ok()?;
        (!inbox.seen().accepted.is_empty()).then_some(())
    };
    eventually("an event", published).await;
    source.drained().await?;
    Ok(())
}
