//! `--observers fraiseql.toml`: each of FraiseQL's backends, from the file that FraiseQL reads itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::publisher::SUBJECTS;
use wirehook_tests::redis_server::RedisServer;
use wirehook_tests::test_host::{HostFolderBuilder, PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// The page's own example around `[observers]`, which is none of our business.
fn fraiseql_toml(observers: &str) -> String {
    format!(
        "[project]\nname = \"my-fraiseql-app\"\nversion = \"1.0.0\"\n[fraiseql]\nschema_file = \"schema.json\"\n\
         output_file = \"schema.compiled.json\"\n[observers]\n{observers}\n[security.rate_limiting]\nenabled = true\n\
         auth_start_max_requests = 100\n"
    )
}

/// A host that takes its one source from FraiseQL's file, and where its webhooks go.
async fn start(observers: &str, folder: HostFolderBuilder) -> Result<(FakeEndpoint, TestHost)> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let orders = PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders");
    let mut host = folder.endpoint("orders", &endpoint, "").plugin(orders).build()?;
    let file = host.store_path().with_file_name("fraiseql.toml");
    std::fs::write(&file, fraiseql_toml(observers))?;
    host.spawn(&["--observers", file.to_str().context("the file's name")?]).await?;
    host.wait_ready().await?;
    Ok((endpoint, host))
}

/// Publishes to the same source, and sees the webhooks arrive.
async fn publish_and_receive(endpoint: &FakeEndpoint, host: &TestHost) -> Result<()> {
    let file = host.store_path().with_file_name("fraiseql.toml");
    let observers = file.to_str().context("the file's name")?;
    let entity = r#"{"customer_email": "ada@example.com", "total": 129.5}"#;
    let arguments = ["publish", "order.created", "--entity", entity, "--count", "20", "--observers", observers];
    host.json(&arguments).await?;
    endpoint.wait_for("a webhook for every event", DEADLINE, |log| log.ids() == 20).await?;
    endpoint.expect_all_signed()?;
    let status = host.json(&["status"]).await?;
    ensure!(status.stdout.contains("fraiseql"), "{}", status.stdout);
    Ok(())
}

#[tokio::test]
async fn nats() -> Result<()> {
    let server = NatsServer::start().await?;
    let observers = format!("backend = \"nats\"\nnats_url = {:?}", server.url());
    let (endpoint, host) = start(&observers, TestHost::builder()).await?;
    publish_and_receive(&endpoint, &host).await?;
    let said = host.logs().lines().join("\n");
    ensure!(!said.contains("\"WARN\""), "{said}");
    Ok(())
}

#[tokio::test]
async fn nats_while_a_stream_keeps_the_subjects_is_warned_of() -> Result<()> {
    let server = NatsServer::start().await?;
    server.create_stream("events", &[SUBJECTS]).await?;
    let observers = format!("backend = \"nats\"\nnats_url = {:?}", server.url());
    let (_endpoint, host) = start(&observers, TestHost::builder()).await?;
    host.logs().wait_for("jetstream", DEADLINE).await
}

#[tokio::test]
async fn redis_with_a_password_in_its_url() -> Result<()> {
    let server = RedisServer::start_with(&["--requirepass", "hunter2hunter2"]).await?;
    let url = server.url();
    let address = url.trim_start_matches("redis://").split('@').next_back().context("an address")?;
    let observers = format!("backend = \"redis\"\nredis_url = \"redis://:hunter2hunter2@{address}\"");
    let (endpoint, mut host) = start(&observers, TestHost::builder()).await?;
    publish_and_receive(&endpoint, &host).await?;
    host.stop().await?;
    let said = host.logs().lines().join("\n");
    ensure!(!said.contains("hunter2"), "{said}");
    Ok(())
}

#[tokio::test]
async fn postgres_of_the_variable() -> Result<()> {
    let server = PostgresServer::start().await?;
    let folder = TestHost::builder().variable("DATABASE_URL", &server.url());
    let (endpoint, host) = start("backend = \"postgres\"", folder).await?;
    publish_and_receive(&endpoint, &host).await
}

#[tokio::test]
async fn what_is_wrong_with_the_file_ends_it_with_2() -> Result<()> {
    let host = TestHost::builder().build()?;
    let file = host.store_path().with_file_name("fraiseql.toml");
    let observers = file.to_str().context("the file's name")?;
    for (observers_section, expected) in [
        ("backend = \"kafka\"", "known backends: nats, postgres, redis"),
        ("backend = \"nats\"", "`nats_url` is missing in [observers]"),
        ("backend = \"postgres\"", "$DATABASE_URL, which is not set"),
    ] {
        std::fs::write(&file, fraiseql_toml(observers_section))?;
        for command in ["run", "check"] {
            let said = host.folder.run(&[command, "--observers", observers]).await?;
            said.expect_code(2)?.expect_said(&[expected, "fraiseql.toml:8"])?;
        }
    }
    Ok(())
}
