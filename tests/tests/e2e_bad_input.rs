//! Bad input: each an error that says where and what to do, with its exit code; nothing lost, nothing half-started.

use std::time::Duration;

use anyhow::{Result, ensure};
use wirehook_tests::events::order_created;
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher};
use wirehook_tests::test_host::{EXIT_DEADLINE, PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// Where nothing is ever sent.
const NOWHERE: &str = "http://127.0.0.1:9/hook";

/// A host that could run, with `more` settings at the end.
fn host_with(more: &str) -> Result<TestHost> {
    let source = HttpPublisher::new()?;
    TestHost::builder().http(source.port, "").endpoint_at("orders", NOWHERE, "").settings(more).build()
}

/// `run` and `check` both refuse with `code` and say all of `parts`; no store was made.
async fn refuses(host: &TestHost, code: i32, parts: &[&str]) -> Result<()> {
    for command in ["run", "check"] {
        host.command(&[command]).await?.expect_code(code)?.expect_said(parts)?;
    }
    ensure!(!host.store_path().exists(), "a store was made all the same");
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_its_line() -> Result<()> {
    let host = host_with("[retention]\ndelivred = \"24h\"")?;
    let text = host.folder.read_settings()?;
    let line = 1 + text.lines().position(|line| line.starts_with("delivred")).unwrap_or_default();
    refuses(&host, 2, &["delivred", &format!("wirehook.toml:{line}")]).await
}

#[tokio::test]
async fn a_missing_secret_variable_is_refused_by_name() -> Result<()> {
    let more = format!("[[endpoint]]\nname = \"other\"\nurl = {NOWHERE:?}\nsecret = {{ env = \"NOBODY_SET_THIS\" }}");
    refuses(&host_with(&more)?, 2, &["NOBODY_SET_THIS", "wirehook.toml:"]).await
}

#[tokio::test]
async fn a_secret_in_the_file_is_refused_and_not_repeated() -> Result<()> {
    let more = format!("[[endpoint]]\nname = \"other\"\nurl = {NOWHERE:?}\nsecret = \"hunter2-hunter2-hunter2\"");
    let host = host_with(&more)?;
    let output = host.command(&["run"]).await?.expect_code(2)?.expect_said(&["secret", "env"])?;
    ensure!(!output.stderr.contains("hunter2"), "the secret is in the message: {}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn settings_that_are_not_toml_are_refused_with_the_line() -> Result<()> {
    let host = host_with("")?;
    host.folder.write_settings("[store]\npath = \"wirehook.db\"\n[[source\n")?;
    refuses(&host, 2, &["wirehook.toml:3"]).await
}

#[tokio::test]
async fn a_settings_file_that_is_not_there_is_refused_by_name() -> Result<()> {
    let host = host_with("")?;
    host.command(&["run", "--config", "elsewhere.toml"]).await?.expect_code(2)?.expect_said(&["elsewhere.toml"])?;
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_left_as_it_is() -> Result<()> {
    let host = host_with("")?;
    let letter = "Dear diary, ".repeat(1000);
    std::fs::write(host.store_path(), &letter)?;
    host.command(&["run"]).await?.expect_code(1)?.expect_said(&["wirehook.db"])?;
    assert_eq!(std::fs::read_to_string(host.store_path())?, letter);
    Ok(())
}

#[tokio::test]
async fn another_program_s_database_is_left_as_it_is() -> Result<()> {
    let host = host_with("")?;
    let other = rusqlite::Connection::open(host.store_path())?;
    other.execute_batch("CREATE TABLE diary (entry TEXT); INSERT INTO diary VALUES ('dear');")?;
    drop(other);
    let before = std::fs::read(host.store_path())?;
    host.command(&["run"]).await?.expect_code(1)?.expect_said(&["wirehook.db"])?;
    assert_eq!(std::fs::read(host.store_path())?, before);
    Ok(())
}

#[tokio::test]
async fn a_second_run_on_one_store_names_the_first_one_s_pid() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let source = HttpPublisher::new()?;
    let mut host = TestHost::builder()
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    host.command(&["run"]).await?.expect_code(1)?.expect_said(&[&host.pid()?.to_string()])?;

    source.publish_orders([1]).await?;
    endpoint.wait_for("the first host's webhook", DEADLINE, |log| log.ids() == 1).await?;
    host.stop().await
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_it() -> Result<()> {
    let source = HttpPublisher::new()?;
    let _taken = std::net::TcpListener::bind(("127.0.0.1", source.port))?;
    let mut host = TestHost::builder().http(source.port, "").endpoint_at("orders", NOWHERE, "").build()?;
    host.spawn(&[]).await?;
    let status = host.wait_exit(EXIT_DEADLINE).await?;
    assert_eq!(status.code(), Some(1));
    ensure!(host.logs().tail().contains(&source.port.to_string()), "the port is not named: {}", host.logs().tail());
    Ok(())
}

#[tokio::test]
async fn an_undecodable_message_is_a_dead_letter_with_its_bytes_and_stops_nothing() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .jetstream(&nats, "EVENTS")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;

    let mut broken = order_created(0);
    broken.body = "{\"event\": \"fraiseql.order.created\", half".into();
    publisher.publish(broken).await?;
    publisher.publish(order_created(1)).await?;
    endpoint.wait_for("the good event's webhook", DEADLINE, |log| log.ids() == 1).await?;

    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.kind.as_str(), dead.reason.as_str()), ("message", "undecodable"));
    assert_eq!(dead.subject, "fraiseql.order.created");
    let shown = host.json(&["dead-letters", "show", &dead.id.to_string()]).await?.object()?;
    assert_eq!(shown["payload"], "{\"event\": \"fraiseql.order.created\", half");
    host.expect_all_accounted().await
}

#[tokio::test]
async fn a_message_over_the_limit_is_a_dead_letter() -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let mut host = TestHost::builder()
        .limits("event = \"2KiB\"")
        .jetstream(&nats, "EVENTS")
        .endpoint_at("orders", NOWHERE, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    let mut large = order_created(0);
    large.body = vec![b' '; 4096].into();
    publisher.publish(large).await?;
    let dead = host.wait_dead_letters(1, DEADLINE).await?.remove(0);
    assert_eq!((dead.kind.as_str(), dead.reason.as_str()), ("message", "too_large"));
    Ok(())
}

#[tokio::test]
async fn a_host_without_an_endpoint_takes_events_and_stops_when_told_to() -> Result<()> {
    let web = HttpPublisher::new()?;
    let mut host = TestHost::builder().http(web.port, "").build()?;
    host.start().await?;
    web.publish_orders(0..3).await?;
    host.wait_metric("wirehook_events_accepted_total", "source=\"web\"", 3.0, DEADLINE).await?;
    host.stop().await?;
    ensure!(host.logs().tail().contains("\"drained\":true"), "the drain was cut short: {}", host.logs().tail());
    Ok(())
}

#[tokio::test]
async fn a_store_in_a_folder_that_is_missing_is_refused_and_nothing_is_made() -> Result<()> {
    let web = HttpPublisher::new()?;
    let host = TestHost::builder().http(web.port, "").build()?;
    let folder = host.store_path().with_file_name("mistyped");
    let settings = host.folder.read_settings()?.replace("wirehook.db", "mistyped/wirehook.db");
    host.folder.write_settings(&settings)?;
    host.command(&["run"]).await?.expect_code(1)?.expect_said(&["mistyped"])?;
    ensure!(!folder.exists(), "{} was made", folder.display());
    Ok(())
}
