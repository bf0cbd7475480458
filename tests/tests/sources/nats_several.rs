//! Several servers in one URL.

use wirehook::settings::{NatsConnection, SourceKind};
use wirehook_tests::nats_server::NatsServer;

use crate::fake_inbox::{FakeInbox, Mode, Running, build};
use crate::jetstream::connection;

#[tokio::test]
async fn the_next_server_is_joined_when_the_first_is_gone() -> anyhow::Result<()> {
    let (mut first, second) = (NatsServer::start().await?, NatsServer::start().await?);
    let settings = format!(
        "[[source]]\nname = \"bus\"\nkind = \"nats\"\nurl = \"{},{}\"\nsubjects = [\"e.>\"]\n",
        first.url(),
        second.url()
    );
    let inbox = FakeInbox::new(Mode::Accept);
    let source = Running::start(build(&settings)?, &inbox);
    source.connected().await;
    let publish = async |server: &NatsServer, body: &'static str| {
        let client = server.client().await?;
        client.publish("e.a", body.into()).await?;
        client.flush().await?;
        inbox.until("the event", |seen| seen.bodies().contains(body)).await;
        anyhow::Ok(())
    };
    publish(&first, "1").await?;
    first.kill();
    source.until("the second server", |status| status.connected && status.reconnects == 1).await;
    publish(&second, "2").await?;
    source.drained().await?;
    Ok(())
}

#[tokio::test]
async fn every_server_that_does_not_answer_is_named() -> anyhow::Result<()> {
    let (first, second) = (NatsServer::stopped()?, NatsServer::stopped()?);
    let connection = NatsConnection { others: vec![second.url().parse()?], ..connection(&first) };
    let subjects = vec!["e.>".to_owned()];
    let source = crate::jetstream::build(SourceKind::Nats { connection, subjects, queue_group: "q".to_owned() });
    let source = Running::start(source, &FakeInbox::new(Mode::Accept));
    let status = source.until("an error", |status| status.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    for server in [&first, &second] {
        assert!(error.contains(&format!("can't connect to {}: ", server.url())), "{error}");
    }
    source.drained().await?;
    Ok(())
}
