//! `wirehook publish`: a webhook arrives from every bus, and what is wrong is said before anything is sent.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use wirehook_tests::events::{array, order_created};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::port;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::publisher::SUBJECTS;
use wirehook_tests::redis_server::RedisServer;
use wirehook_tests::test_host::{HostFolderBuilder, PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// A host with the example plugin, and where its webhooks go.
async fn host(source: impl FnOnce(HostFolderBuilder) -> HostFolderBuilder) -> Result<(FakeEndpoint, TestHost)> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let host = source(TestHost::builder())
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    Ok((endpoint, host))
}

const ENTITY: &str = r#"{"customer_email": "ada@example.com", "total": 129.5, "status": "pending"}"#;

/// Publishes in every way there is to a host that runs, and counts the webhooks.
async fn publish_and_receive(endpoint: &FakeEndpoint, host: &TestHost) -> Result<()> {
    let published = host.json(&["publish", "order.created", "--entity", ENTITY, "--count", "300"]).await?.object()?;
    ensure!(published["published"] == 300, "{published}");
    let lines: Vec<u8> = (0..3).flat_map(|number| [&order_created(number).body[..], b"\n"].concat()).collect();
    host.folder.run_with_input(&["publish", "-"], &lines).await?.expect_code(0)?;
    let file = host.store_path().with_file_name("events.json");
    std::fs::write(&file, array((3..5).map(order_created)))?;
    let file = file.to_str().context("the file's name")?;
    let said = host.command(&["publish", file]).await?.expect_code(0)?;
    ensure!(said.stdout.starts_with("2 events published to "), "{}", said.stdout);
    endpoint.wait_for("a webhook for every event", DEADLINE, |log| log.ids() == 305).await?;
    endpoint.expect_all_signed()
}

#[tokio::test]
async fn to_core_nats() -> Result<()> {
    let server = NatsServer::start().await?;
    let (endpoint, mut host) = host(|folder| folder.nats(&server)).await?;
    host.start().await?;
    publish_and_receive(&endpoint, &host).await
}

#[tokio::test]
async fn to_jetstream() -> Result<()> {
    let server = NatsServer::start().await?;
    server.create_stream("events", &[SUBJECTS]).await?;
    let (endpoint, mut host) = host(|folder| folder.jetstream(&server, "events")).await?;
    host.start().await?;
    publish_and_receive(&endpoint, &host).await
}

#[tokio::test]
async fn to_http() -> Result<()> {
    let port = port::free()?;
    let token = "token = { env = \"INTAKE_TOKEN\" }";
    let (endpoint, mut host) =
        host(|folder| folder.http(port, token).variable("INTAKE_TOKEN", "an intake token")).await?;
    host.start().await?;
    publish_and_receive(&endpoint, &host).await
}

#[tokio::test]
async fn to_redis_channels() -> Result<()> {
    let server = RedisServer::start().await?;
    let source =
        format!("[[source]]\nname = \"bus\"\nkind = \"redis\"\nurl = {:?}\nchannels = [\"fraiseql.*\"]", server.url());
    let (endpoint, mut host) = host(|folder| folder.settings(&source)).await?;
    let said = host.command(&["publish", "order.created"]).await?.expect_code(0)?;
    said.expect_said(&["nobody is subscribed", "1 event reached nobody"])?;
    host.start().await?;
    publish_and_receive(&endpoint, &host).await?;
    let published = host.json(&["publish", "order.created"]).await?;
    ensure!(published.stderr.is_empty() && published.object()?["unheard"] == 0, "{published:?}");
    Ok(())
}

#[tokio::test]
async fn to_a_redis_stream() -> Result<()> {
    let server = RedisServer::start().await?;
    let source = format!(
        "[[source]]\nname = \"bus\"\nkind = \"redis-stream\"\nurl = {:?}\nstreams = [\"fraiseql.events\"]\nfield = \"event\"",
        server.url()
    );
    let (endpoint, mut host) = host(|folder| folder.settings(&source)).await?;
    host.start().await?;
    publish_and_receive(&endpoint, &host).await
}

fn postgres(kind: &str, url: &str) -> String {
    format!("[[source]]\nname = \"bus\"\nkind = \"{kind}\"\nurl = {url:?}")
}

#[tokio::test]
async fn to_postgres_notifications() -> Result<()> {
    let server = PostgresServer::start().await?;
    let (endpoint, mut host) = host(|folder| folder.settings(&postgres("postgres", &server.url()))).await?;
    host.start().await?;
    publish_and_receive(&endpoint, &host).await?;
    let large = format!("{{\"customer_email\": \"{}\"}}", "x".repeat(8000));
    let said = host.command(&["publish", "order.created", "--entity", &large]).await?;
    said.expect_code(2)?.expect_said(&["carries 7999", "postgres-outbox"])?;
    Ok(())
}

#[tokio::test]
async fn to_the_outbox() -> Result<()> {
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    let client = server.client().await?;
    client.batch_execute("CREATE ROLE reader LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA core TO reader").await?;
    client.batch_execute("GRANT SELECT ON core.tb_entity_change_log TO reader").await?;
    let (_endpoint, host) = host(|folder| folder.settings(&postgres("postgres-outbox", &server.url()))).await?;
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    let arguments =
        ["publish", "order.created", "--entity", ENTITY, "--entity-id", uuid, "--tenant", uuid, "--count", "3"];
    host.json(&arguments).await?;
    host.command(&["publish", "order.deleted", "--entity-id", uuid]).await?.expect_code(0)?;
    let columns = "modification_type || ' ' || object_type || ' ' || object_id || ' ' || (object_data ->> 'total')";
    let rows = client.query(&format!("SELECT {columns}, tenant_id::text FROM core.tb_entity_change_log"), &[]).await?;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0].get::<_, Option<&str>>(0), Some(&*format!("INSERT order {uuid} 129.5")));
    assert_eq!(rows[0].get::<_, Option<&str>>(1), Some(uuid));
    // One row that the table does not take, and none of them is there.
    let said = host.command(&["publish", "order.created", "--entity-id", "7"]).await?;
    said.expect_code(1)?.expect_said(&["postgres-outbox at postgres://", "uuid"])?;
    host.folder
        .run_with_input(&["publish", "-"], b"{\"a\": 1}")
        .await?
        .expect_code(2)?
        .expect_said(&["FraiseQL's formats"])?;
    let url = server.url_as("reader");
    let reader = format!("{}\npassword = {{ env = \"BUS_PASSWORD\" }}", postgres("postgres-outbox", &url));
    let (_endpoint, host) = self::host(|folder| folder.settings(&reader).variable("BUS_PASSWORD", "pw")).await?;
    let said = host.command(&["publish", "order.created"]).await?;
    said.expect_code(1)?.expect_said(&["permission denied", "GRANT INSERT ON core.tb_entity_change_log"])?;
    Ok(())
}

#[tokio::test]
async fn the_message_is_the_one_that_was_written_under_the_subject_of_the_page() -> Result<()> {
    let server = NatsServer::start().await?;
    let (_endpoint, host) = host(|folder| folder.nats(&server)).await?;
    let mut subscription = server.client().await?.subscribe("fraiseql.>").await?;
    let event = order_created(7);
    host.folder.run_with_input(&["publish", "-"], &event.body).await?.expect_code(0)?;
    let message = tokio::time::timeout(DEADLINE, subscription.next()).await?.context("the message")?;
    assert_eq!((message.subject.as_str(), &message.payload), ("fraiseql.order.created", &event.body));
    host.command(&["publish", "OrderLine.deleted", "--entity-id", "7", "--tenant", "t1"]).await?.expect_code(0)?;
    let message = tokio::time::timeout(DEADLINE, subscription.next()).await?.context("the message")?;
    assert_eq!(message.subject.as_str(), "fraiseql.order_line.deleted");
    let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
    assert_eq!((&body["entity_id"], &body["tenant_id"], &body["entity"]), (&"7".into(), &"t1".into(), &().into()));
    Ok(())
}

#[tokio::test]
async fn a_stream_gets_every_publication_of_one_file() -> Result<()> {
    let server = NatsServer::start().await?;
    let mut stream = server.create_stream("events", &[SUBJECTS]).await?;
    let (_endpoint, host) = host(|folder| folder.jetstream(&server, "events")).await?;
    for _ in 0..2 {
        host.folder.run_with_input(&["publish", "-"], &order_created(0).body).await?.expect_code(0)?;
    }
    assert_eq!(stream.info().await?.state.messages, 2);
    Ok(())
}

#[tokio::test]
async fn a_mistake_is_told_with_its_line_and_nothing_goes_out() -> Result<()> {
    let server = NatsServer::start().await?;
    let mut stream = server.create_stream("events", &[SUBJECTS]).await?;
    let (_endpoint, host) = host(|folder| folder.jetstream(&server, "events")).await?;
    let lines = [&order_created(0).body[..], b"\n{\"event\": \"fraiseql.order.created\"\n"].concat();
    let said = host.folder.run_with_input(&["publish", "-"], &lines).await?;
    said.expect_code(2)?.expect_said(&["standard input:2", "not JSON", "--raw"])?;
    assert_eq!(stream.info().await?.state.messages, 0);
    let raw = &["publish", "-", "--raw", "--subject", "fraiseql.order.created"];
    host.folder.run_with_input(raw, &lines).await?.expect_code(0)?;
    assert_eq!(stream.info().await?.state.messages, 2);
    Ok(())
}

#[tokio::test]
async fn a_bus_that_does_not_take_an_event_is_named_with_its_words() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let (_endpoint, host) = host(|folder| folder.jetstream(&server, "events")).await?;
    let publish = async || host.command(&["publish", "order.created"]).await;
    publish().await?.expect_code(1)?.expect_said(&[
        "jetstream at nats://",
        "no stream keeps the subject",
        "`events`",
    ])?;
    server.create_stream("others", &[SUBJECTS]).await?;
    publish().await?.expect_code(1)?.expect_said(&["the stream `others` keeps", "the source reads `events`"])?;
    server.kill();
    publish().await?.expect_code(1)?.expect_said(&["jetstream at nats://", "can't be reached", "url"])?;
    let (_endpoint, host) = self::host(|folder| folder.http(port::free().unwrap_or(1), "")).await?;
    let said = host.command(&["publish", "order.created"]).await?;
    said.expect_code(1)?.expect_said(&["http at 127.0.0.1", "wirehook run"])?;
    Ok(())
}

/// A host whose user of NATS may do no more than `permissions`.
async fn host_of_a_user(permissions: &str) -> Result<(NatsServer, FakeEndpoint, TestHost)> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("nats.conf");
    let users = format!("authorization {{ users = [{{ user: u, password: pw, permissions: {{ {permissions} }} }}] }}");
    std::fs::write(&config, users)?;
    let server = NatsServer::start_with(&["--config", config.to_str().context("the file's name")?]).await?;
    let source = format!(
        "[[source]]\nname = \"bus\"\nkind = \"nats\"\nurl = {:?}\nsubjects = [\">\"]\nuser = \"u\"\npassword = {{ env = \"BUS_PASSWORD\" }}",
        server.url()
    );
    let (endpoint, host) = host(|folder| folder.settings(&source).variable("BUS_PASSWORD", "pw")).await?;
    Ok((server, endpoint, host))
}

#[tokio::test]
async fn refused_permission_is_told_in_the_servers_words() -> Result<()> {
    // With and without the right to hear an echo.
    for permissions in [r#"publish: "_INBOX.>""#, r#"publish: "other""#, r#"publish: "_INBOX.>", subscribe: "other""#] {
        let (_server, _endpoint, host) = host_of_a_user(permissions).await?;
        for _ in 0..10 {
            let said = host.command(&["publish", "order.created"]).await?;
            let expected = ["ermissions", "fraiseql.order.created", "let the source's user publish"];
            said.expect_code(1)?.expect_said(&expected)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_user_without_an_inbox_publishes_all_the_same() -> Result<()> {
    for permissions in [r#"publish: "fraiseql.>""#, r#"publish: ">", subscribe: "other""#] {
        let (_server, _endpoint, host) = host_of_a_user(permissions).await?;
        let started = Instant::now();
        host.command(&["publish", "order.created"]).await?.expect_code(0)?;
        assert!(started.elapsed() < Duration::from_secs(2), "it waited for an echo that can't come");
    }
    Ok(())
}
