//! Streams that are restored from a backup: their end is before what was read of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use async_nats::jetstream;
use wirehook::settings::Start;
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running};
use crate::jetstream::{jetstream_source, publish, settled};

/// Where the server keeps the messages of `events`.
fn messages(server: &NatsServer) -> anyhow::Result<PathBuf> {
    let entries = walk(&server.store())?;
    entries.into_iter().find(|path| path.ends_with("streams/events/msgs")).context("the stream's messages")
}

fn walk(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(walk(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// A server whose stream has 5 messages of 25 that were accepted, in the same stream as before; its consumer stands at 25.
async fn restored(inbox: &Arc<FakeInbox>) -> anyhow::Result<NatsServer> {
    let mut server = NatsServer::start().await?;
    let stream = server.create_stream("events", &["e.>"]).await?;
    publish(&server, "e.a", 0..5).await?;
    server.stop()?;
    let (messages, backup) = (messages(&server)?, tempfile::tempdir()?);
    copy(&messages, backup.path())?;
    server.restart().await?;
    let start = || Running::start(jetstream_source(&server, &["e.>"], Start::All), inbox);
    let source = start();
    source.connected().await;
    publish(&server, "e.a", 5..25).await?;
    settled(&stream, 25).await;
    source.drained().await?;
    // The second start finds the consumer, and keeps how far it has come by now.
    let source = start();
    source.connected().await;
    source.drained().await?;
    server.stop()?;
    std::fs::remove_dir_all(&messages)?;
    copy(backup.path(), &messages)?;
    server.restart().await?;
    Ok(server)
}

#[tokio::test]
async fn a_restored_stream_without_its_consumer_is_read_from_its_beginning() -> anyhow::Result<()> {
    let inbox = FakeInbox::new(Mode::Accept);
    let server = restored(&inbox).await?;
    let stream = jetstream::new(server.client().await?).get_stream("events").await?;
    assert_eq!(stream.cached_info().state.last_sequence, 5);
    stream.delete_consumer("wirehook-bus").await?;
    let start = || Running::start(jetstream_source(&server, &["e.>"], Start::New), &inbox);
    publish(&server, "e.a", 100..102).await?;
    let source = start();
    source.connected().await;
    publish(&server, "e.a", 102..104).await?;
    let seen = inbox.until("what came after the restore", |seen| seen.bodies().contains("103")).await;
    assert!((100..104).all(|body: u32| seen.bodies().contains(&body.to_string())));
    source.drained().await?;
    // What came after the restore was seen is told from what had its sequence; that stays so after a restart.
    let [.., eighth, ninth] = &seen.positions[..] else { panic!("{:?}", seen.positions) };
    let ends =
        |position: &Option<String>, end: &str| position.as_deref().is_some_and(|position| position.ends_with(end));
    assert!(ends(eighth, ":8:1") && ends(ninth, ":9:1"), "{:?}", seen.positions);
    stream.delete_consumer("wirehook-bus").await?;
    let again = FakeInbox::after_a_kill(&inbox, Mode::Accept);
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::New), &again);
    source.connected().await;
    publish(&server, "e.a", 104..105).await?;
    let seen = again.until("the last", |seen| seen.bodies().contains("104")).await;
    assert!(seen.positions.last().is_some_and(|last| ends(last, ":10:1")), "{:?}", seen.positions);
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_consumer_behind_the_end_of_its_stream_is_told() -> anyhow::Result<()> {
    let inbox = FakeInbox::new(Mode::Accept);
    let server = restored(&inbox).await?;
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::New), &inbox);
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    let error = status.last_error.context("an error")?;
    assert!(!status.connected);
    assert!(error.contains("stands at message 25 of the stream `events`, which ends at 5"), "{error}");
    publish(&server, "e.a", 100..102).await?;
    jetstream::new(server.client().await?).get_stream("events").await?.delete_consumer("wirehook-bus").await?;
    source.connected().await;
    inbox.until("what came meanwhile", |seen| seen.bodies().contains("101")).await;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn a_source_is_not_connected_before_it_has_its_consumer_again() -> anyhow::Result<()> {
    let mut server = NatsServer::start().await?;
    server.create_stream("events", &["e.>"]).await?;
    let source = Running::start(jetstream_source(&server, &["e.>"], Start::All), &FakeInbox::new(Mode::Accept));
    source.connected().await;
    server.stop()?;
    source.until("disconnected", |status| !status.connected).await;
    std::fs::remove_dir_all(server.store())?;
    server.restart().await?;
    let mut was_connected = false;
    let absent = |error: &str| error.contains("the stream `events` doesn't exist");
    source
        .until("no stream", |status| {
            was_connected |= status.connected;
            status.last_error.as_deref().is_some_and(absent)
        })
        .await;
    assert!(!was_connected);
    server.create_stream("events", &["e.>"]).await?;
    source.connected().await;
    source.drained().await?;
    Ok(())
}
