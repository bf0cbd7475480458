//! The settings under `host/examples`: each is right as it stands, and works against its real server with the permissions
//! that it names and no others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wirehook::settings::{Environment, parse};
use wirehook_tests::fake_endpoint::{FakeEndpoint, SECRET, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::port;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::publisher::SUBJECTS;
use wirehook_tests::redis_server::RedisServer;
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);

/// What stands for the password in the comments, and what every variable holds.
const PASSWORD: &str = "PASSWORD";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/examples")
}

fn example(name: &str) -> Result<String> {
    Ok(std::fs::read_to_string(folder().join(format!("{name}.toml")))?)
}

/// The lines of a comment that are to be given to the server, which stand three spaces in.
fn permissions(example: &str) -> Vec<&str> {
    example.lines().filter_map(|line| line.strip_prefix("#   ")).collect()
}

/// The example with each of the settings in its comments in turn, and without what that one stands in place of.
fn uncommented(example: &str) -> Vec<String> {
    let setting = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let settings = example.lines().filter_map(|line| line.strip_prefix("# ")).filter(setting);
    let with = |setting: &str| {
        let other_way = setting.starts_with("credentials = ");
        let gone = |line: &&str| other_way && (line.starts_with("user = ") || line.starts_with("password = "));
        let text = example.replacen(&format!("# {setting}"), setting, 1).replace("redis://", "rediss://");
        text.lines().filter(|line| !gone(line)).collect::<Vec<_>>().join("\n")
    };
    settings.map(with).collect()
}

#[test]
fn every_example_is_right_as_it_stands() -> Result<()> {
    let mut kinds = BTreeSet::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let named = text.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
        let variables: Vec<_> = named.map(|name| (name, PASSWORD)).filter(|(name, _)| *name != "NATS_URL").collect();
        let loaded = parse(&path, &text, &Environment::of(&variables, "/"));
        let loaded = loaded.with_context(|| path.display().to_string())?;
        ensure!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
        let stem = path.file_stem().context("its name")?.to_string_lossy().into_owned();
        if stem != "wirehook" {
            assert_eq!(loaded.settings.sources[0].kind.name(), stem);
            assert!(text.contains("Try it"), "{stem}");
        }
        kinds.extend(loaded.settings.sources.iter().map(|source| source.kind.name()));
        for uncommented in uncommented(&text) {
            let loaded = parse(&path, &uncommented, &Environment::of(&variables, "/"));
            loaded.with_context(|| format!("{}\n{uncommented}", path.display()))?;
        }
    }
    let all = ["http", "jetstream", "nats", "postgres", "postgres-outbox", "redis", "redis-stream"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    Ok(())
}

/// Runs the example `name` with `url` in place of its own, and publishes over `publishing` as somebody who may: the webhook
/// arrives, and nothing was said against it.
async fn works(name: &str, url: (&str, &str), publishing: &str) -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .variable("BUS_PASSWORD", PASSWORD)
        .variable("INTAKE_TOKEN", PASSWORD)
        .variable("ORDERS_SECRET", SECRET)
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    let text = example(name)?;
    ensure!(text.contains(url.0), "{name} has another address");
    let text = text.replace("https://notifications.example.com/orders", &endpoint.url());
    let here = format!("[admin]\nlisten = {:?}\n[egress]\nallow = [\"127.0.0.0/8\"]\n", host.folder.admin_address());
    host.folder.write_settings(&format!("{}\n{here}", text.replace(url.0, url.1)))?;
    let anybody = |line: &&str| !line.starts_with("user = ") && !line.starts_with("password = ");
    let other: Vec<&str> = text.lines().filter(anybody).collect();
    let publisher = host.store_path().with_file_name("publisher.toml");
    std::fs::write(&publisher, other.join("\n").replace(url.0, publishing))?;
    host.start().await?;
    let config = publisher.to_str().context("the file's name")?;
    let entity = r#"{"customer_email": "ada@example.com", "total": 129.5}"#;
    let arguments = ["publish", "order.created", "--entity", entity, "--count", "2", "--config", config];
    host.command(&arguments).await?.expect_code(0)?;
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 2).await?;
    endpoint.expect_all_signed()?;
    host.stop().await?;
    let said = host.logs().lines().join("\n");
    ensure!(!said.contains("\"WARN\"") && !said.contains("\"ERROR\""), "{said}");
    Ok(())
}

/// A server that knows the user with the permissions of the example, and lets anybody else do all.
async fn nats(name: &str) -> Result<NatsServer> {
    let text = example(name)?;
    let permissions = permissions(&text).into_iter().next().context("the permissions")?;
    let user = format!("{{ user: wirehook, password: {PASSWORD}, {permissions} }}");
    NatsServer::start_configured(&format!(
        "authorization {{ users = [{user}, {{ user: anybody, password: anything }}] }}\nno_auth_user: anybody\n"
    ))
    .await
}

#[tokio::test]
async fn nats_works_with_what_it_names() -> Result<()> {
    let server = nats("nats").await?;
    works("nats", ("nats://127.0.0.1:4222", &server.url()), &server.url()).await
}

#[tokio::test]
async fn jetstream_works_with_what_it_names() -> Result<()> {
    let server = nats("jetstream").await?;
    server.create_stream("FRAISEQL", &[SUBJECTS]).await?;
    works("jetstream", ("nats://127.0.0.1:4222", &server.url()), &server.url()).await
}

async fn redis(name: &str) -> Result<RedisServer> {
    let server = RedisServer::start().await?;
    let mut client = server.client().await?;
    for line in permissions(&example(name)?) {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().context("the command")?);
        for word in words {
            command.arg(word);
        }
        let () = command.query_async(&mut client).await?;
    }
    Ok(server)
}

#[tokio::test]
async fn redis_works_with_what_it_names() -> Result<()> {
    let server = redis("redis").await?;
    works("redis", ("redis://127.0.0.1:6379", &server.url()), &server.url()).await
}

#[tokio::test]
async fn redis_stream_works_with_what_it_names() -> Result<()> {
    let server = redis("redis-stream").await?;
    works("redis-stream", ("redis://127.0.0.1:6379", &server.url()), &server.url()).await
}

async fn postgres(name: &str) -> Result<()> {
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    server.client().await?.batch_execute(&permissions(&example(name)?).join("\n")).await?;
    works(name, ("postgres://wirehook@127.0.0.1:5432/app", &server.url_as("wirehook")), &server.url()).await
}

#[tokio::test]
async fn postgres_works_with_what_it_names() -> Result<()> {
    postgres("postgres").await
}

#[tokio::test]
async fn postgres_outbox_works_with_what_it_names() -> Result<()> {
    postgres("postgres-outbox").await
}

#[tokio::test]
async fn http_works_with_what_it_names() -> Result<()> {
    let address = format!("127.0.0.1:{}", port::free()?);
    works("http", ("127.0.0.1:7466", &address), &address).await
}
