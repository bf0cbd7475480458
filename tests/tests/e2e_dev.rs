//! `wirehook dev`: without settings, beside whoever else uses the bus, and gone without a trace.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use wirehook_tests::artifacts;
use wirehook_tests::events::{order_created, order_id, page_event};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, SECRET, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::port;
use wirehook_tests::postgres_server::PostgresServer;
use wirehook_tests::publisher::{HttpPublisher, SUBJECTS, StreamPublisher};
use wirehook_tests::python_verifier;
use wirehook_tests::redis_server::RedisServer;

const DEADLINE: Duration = Duration::from_secs(60);

/// For a toolchain's work from nothing.
const BUILD_DEADLINE: Duration = Duration::from_secs(600);

/// A running `wirehook dev`, with a folder for temporary files of its own.
struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Everything it printed so far.
    printed: String,
    /// For what it is to print next.
    patience: Duration,
    temporary: TempDir,
}

impl Dev {
    /// Starts it on the example plugin.
    fn spawn(arguments: &[&str]) -> Result<Self> {
        Self::spawn_on(&[artifacts::example_plugin("orders")?], arguments)
    }

    fn spawn_on(plugins: &[PathBuf], arguments: &[&str]) -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        let mut command = Command::new(artifacts::host_binary()?);
        command.arg("dev").arg("--json").args(arguments).current_dir(temporary.path());
        for plugin in plugins {
            command.arg("--plugin").arg(plugin);
        }
        // What the examples' build has compiled is used again.
        command.env("CARGO_TARGET_DIR", artifacts::target_folder()?.join("guest-builds"));
        command.env("TMPDIR", temporary.path()).env("DEV_SECRET", SECRET).env_remove("WIREHOOK_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        Ok(Self { child, lines, printed: String::new(), patience: DEADLINE, temporary })
    }

    /// Waits for the next object of this kind.
    async fn next(&mut self, kind: &str) -> Result<Value> {
        let next = async {
            while let Some(line) = self.lines.next_line().await? {
                self.printed += &format!("{line}\n");
                let object: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
                if object["kind"] == kind {
                    return Ok(object);
                }
            }
            let mut said = String::new();
            self.child.stderr.take().context("its errors")?.read_to_string(&mut said).await?;
            anyhow::bail!("it ended without a `{kind}`: {}\n{said}", self.printed)
        };
        tokio::time::timeout(self.patience, next).await.with_context(|| format!("no `{kind}`: {}", self.printed))?
    }

    async fn ready(&mut self) -> Result<Value> {
        let begun = self.next("begun").await?;
        self.next("ready").await?;
        Ok(begun)
    }

    /// Ctrl-C, and what it wrote to standard error. It exits with 0 and leaves nothing.
    async fn stop(mut self) -> Result<String> {
        let pid = i32::try_from(self.child.id().context("it ended")?)?;
        // SAFETY: kill takes two integers and touches no memory; the child is not reaped yet, so the pid is still its own.
        ensure!(unsafe { libc::kill(pid, libc::SIGINT) } == 0, "it could not be interrupted");
        self.next("ended").await?;
        self.ended().await
    }

    async fn ended(mut self) -> Result<String> {
        let mut said = String::new();
        self.child.stderr.take().context("its errors")?.read_to_string(&mut said).await?;
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await??;
        ensure!(status.success(), "it ended with {status}: {said}");
        let left: Vec<_> = std::fs::read_dir(self.temporary.path())?.collect();
        ensure!(left.is_empty(), "it left {left:?}");
        Ok(said)
    }
}

#[tokio::test]
async fn webhooks_are_signed_with_the_secret_it_prints() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let url = format!("http://127.0.0.1:{}", source.port);
    let mut dev = Dev::spawn(&["--source", &url, "--forward-to", &endpoint.url()])?;
    let begun = dev.ready().await?;
    assert!(begun["secret"].as_str().is_some_and(|secret| secret.len() > 32), "{begun}");
    source.publish_orders(0..3).await?;
    for _ in 0..3 {
        let attempt = dev.next("attempt").await?;
        assert_eq!((&attempt["outcome"], &attempt["status"]), (&"delivered".into(), &200.into()), "{attempt}");
        assert_eq!((&attempt["plugin"], &attempt["attempt"]), (&"orders".into(), &1.into()), "{attempt}");
    }
    let request = endpoint.requests()[0].clone();
    python_verifier::accept_all(&[request], begun["secret"].as_str().context("a secret")?).await?;
    dev.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_event_that_no_plugin_wants_is_told_once_for_its_subject() -> Result<()> {
    let source = HttpPublisher::new()?;
    let url = format!("http://127.0.0.1:{}", source.port);
    let mut dev = Dev::spawn(&["--source", &url])?;
    dev.ready().await?;
    for number in 0..2 {
        let (status, text) = source.post(page_event("invoice", "created", number, &Value::Null).body).await?;
        ensure!(status == 202, "{status} {text}");
    }
    source.publish_orders(0..1).await?;
    let unrouted = dev.next("unrouted").await?;
    assert_eq!(unrouted["subject"], "fraiseql.invoice.created", "{unrouted}");
    assert_eq!(unrouted["subscribed"]["orders"], serde_json::json!(["fraiseql.order.created"]), "{unrouted}");
    dev.next("webhook").await?;
    assert_eq!(dev.printed.matches("\"unrouted\"").count(), 1, "{}", dev.printed);
    dev.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_scheme_of_its_own_gets_a_secret_that_its_receivers_take() -> Result<()> {
    let source = HttpPublisher::new()?;
    let url = format!("http://127.0.0.1:{}", source.port);
    let mut dev = Dev::spawn(&["--source", &url, "--scheme", "standard-webhooks"])?;
    let begun = dev.ready().await?;
    let secret = begun["secret"].as_str().context("a secret")?;
    ensure!(secret.starts_with("whsec_") && begun["signature"] == "standard-webhooks", "{begun}");
    source.publish_orders(0..1).await?;
    let received = dev.next("webhook").await?;
    assert_eq!(received["webhook"]["verified"], true, "{received}");
    dev.stop().await?;

    let mut dev = Dev::spawn(&["--source", &url, "--scheme", "none"])?;
    let begun = dev.ready().await?;
    assert!(begun["secret"].is_null(), "{begun}");
    source.publish_orders(1..2).await?;
    let received = dev.next("webhook").await?;
    assert!(received["webhook"]["verified"].is_null(), "{received}");
    dev.stop().await?;
    Ok(())
}

#[tokio::test]
async fn without_a_place_to_forward_to_webhooks_are_verified_and_printed() -> Result<()> {
    let source = HttpPublisher::new()?;
    let mut dev = Dev::spawn(&["--source", &format!("http://localhost:{}", source.port)])?;
    dev.ready().await?;
    source.publish_orders([7]).await?;
    let webhook = &dev.next("webhook").await?["webhook"];
    assert_eq!((&webhook["verified"], &webhook["status"]), (&true.into(), &200.into()), "{webhook}");
    assert!(order_id(webhook["body"].as_str().unwrap_or_default().as_bytes()).is_some(), "{webhook}");
    dev.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_attempt_by_attempt() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::statuses(&[503, 200])).await?;
    let url = format!("http://127.0.0.1:{}", source.port);
    let mut dev = Dev::spawn(&["--source", &url, "--forward-to", &endpoint.url(), "--secret-env", "DEV_SECRET"])?;
    assert_eq!(dev.ready().await?["secret"], Value::Null);
    source.publish_orders([0]).await?;
    let first = dev.next("attempt").await?;
    assert_eq!((&first["outcome"], &first["status"]), (&"retrying".into(), &503.into()), "{first}");
    assert_eq!(dev.next("attempt").await?["outcome"], "delivered");
    endpoint.expect_all_signed()?;
    endpoint.set_script(Script::always(Answer::text(422, "no such customer")));
    source.publish_orders([1]).await?;
    let dead = dev.next("attempt").await?;
    assert_eq!((&dead["outcome"], &dead["reason"]), (&"dead".into(), &"status_4xx".into()), "{dead}");
    assert!(!dev.printed.contains(SECRET), "{}", dev.printed);
    let said = dev.stop().await?;
    assert!(!said.contains("the attempt failed"), "attempts are told once: {said}");
    Ok(())
}

#[tokio::test]
async fn a_queue_group_that_others_share_loses_nothing_to_it() -> Result<()> {
    let server = NatsServer::start().await?;
    let client = server.client().await?;
    let mut shared = client.queue_subscribe("fraiseql.>", "wirehook-bus".to_owned()).await?;
    client.flush().await?;
    let mut dev = Dev::spawn(&["--source", &server.url()])?;
    dev.ready().await?;
    for number in 0..20 {
        let event = order_created(number);
        client.publish(event.subject, event.body).await?;
    }
    for _ in 0..20 {
        dev.next("webhook").await?;
        tokio::time::timeout(DEADLINE, shared.next()).await?.context("the group's own copy")?;
    }
    dev.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_keeps_its_consumers_and_no_other_afterwards() -> Result<()> {
    let server = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&server, "events").await?;
    let stream = jetstream::new(server.client().await?).get_stream("events").await?;
    let config =
        jetstream::consumer::pull::Config { durable_name: Some("wirehook-bus".to_owned()), ..Default::default() };
    let mut shared: PullConsumer = stream.create_consumer(config).await?;
    publisher.publish_orders(0..5).await?;
    let mut dev =
        Dev::spawn(&["--source", &server.url(), "--stream", "events", "--start", "all", "--subject", SUBJECTS])?;
    dev.ready().await?;
    for _ in 0..5 {
        dev.next("webhook").await?;
    }
    let consumers: Vec<String> = stream.consumer_names().try_collect().await?;
    assert_eq!(consumers.len(), 2, "{consumers:?}");
    dev.stop().await?;
    let consumers: Vec<String> = stream.consumer_names().try_collect().await?;
    assert_eq!((consumers, shared.info().await?.num_pending), (vec!["wirehook-bus".to_owned()], 5));
    Ok(())
}

#[tokio::test]
async fn a_redis_stream_keeps_no_group_of_it() -> Result<()> {
    let server = RedisServer::start().await?;
    let mut dev = Dev::spawn(&["--source", &server.url(), "--stream", "fraiseql.events"])?;
    dev.ready().await?;
    let mut client = server.client().await?;
    let event = order_created(0);
    let mut add = redis::cmd("XADD");
    let _: String =
        add.arg("fraiseql.events").arg("*").arg("payload").arg(&event.body[..]).query_async(&mut client).await?;
    dev.next("webhook").await?;
    dev.stop().await?;
    let groups: Vec<redis::Value> =
        redis::cmd("XINFO").arg("GROUPS").arg("fraiseql.events").query_async(&mut client).await?;
    assert!(groups.is_empty(), "{groups:?}");
    Ok(())
}

#[tokio::test]
async fn a_password_in_the_url_is_used_and_never_printed() -> Result<()> {
    let server = PostgresServer::start().await?;
    server.create_outbox().await?;
    let client = server.client().await?;
    client
        .batch_execute("CREATE ROLE laptop LOGIN PASSWORD 'hunter2 hunter2'; GRANT USAGE ON SCHEMA core TO laptop")
        .await?;
    client.batch_execute("GRANT SELECT ON ALL TABLES IN SCHEMA core TO laptop").await?;
    let url = server.url_as("laptop").replacen("laptop@", "laptop:hunter2%20hunter2@", 1);
    ensure!(url.contains("hunter2"), "{url}");
    let mut listening = Dev::spawn(&["--source", &url])?;
    let mut reading = Dev::spawn(&["--source", &url, "--table", "core.tb_entity_change_log"])?;
    listening.ready().await?;
    reading.ready().await?;
    let event = String::from_utf8(order_created(0).body.to_vec())?;
    client.execute("SELECT pg_notify('fraiseql_events', $1)", &[&event]).await?;
    listening.next("webhook").await?;
    let row = "INSERT INTO core.tb_entity_change_log (object_type, modification_type, object_id, object_data) VALUES \
               ('Order', 'INSERT', gen_random_uuid(), '{\"customer_email\": \"ada@example.com\", \"total\": 1.5}')";
    client.batch_execute(row).await?;
    reading.next("webhook").await?;
    for dev in [listening, reading] {
        let printed = dev.printed.clone();
        let said = dev.stop().await?;
        assert!(!printed.contains("hunter2") && !said.contains("hunter2"), "{printed}{said}");
    }
    Ok(())
}

#[tokio::test]
async fn it_ends_with_its_standard_input() -> Result<()> {
    let mut dev = Dev::spawn(&["--source", "-"])?;
    let mut input = dev.child.stdin.take().context("its input")?;
    input.write_all(&order_created(0).body).await?;
    drop(input);
    dev.next("webhook").await?;
    assert_eq!(dev.next("ended").await?["dead_letters"], 0);
    dev.ended().await?;
    Ok(())
}

#[tokio::test]
async fn several_plugins_with_endpoints_of_their_own_go_to_one_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let orders = artifacts::example_plugin("orders")?;
    let (named, unnamed) = (folder.path().join("named.wasm"), folder.path().join("unnamed.wasm"));
    std::fs::copy(&orders, &named)?;
    std::fs::copy(&orders, &unnamed)?;
    std::fs::write(named.with_extension("toml"), "endpoints = [\"orders\", \"ledger\"]\n")?;
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let url = format!("http://127.0.0.1:{}", source.port);
    let mut dev = Dev::spawn_on(&[named, unnamed], &["--source", &url, "--forward-to", &endpoint.url()])?;
    dev.ready().await?;
    source.publish_orders([0]).await?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let attempt = dev.next("attempt").await?;
        seen.push(format!("{} {}", attempt["plugin"], attempt["endpoint"]));
    }
    seen.sort();
    assert_eq!(seen, ["\"named\" \"orders\"", "\"unnamed\" \"dev\""]);
    dev.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_would_not_run_is_told_before_anything_begins() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broken = folder.path().join("broken.wasm");
    std::fs::write(&broken, "nonsense")?;
    let url = format!("http://127.0.0.1:{}", port::free()?);
    let mut dev = Dev::spawn_on(&[broken], &["--source", &url])?;
    let mut said = String::new();
    dev.child.stderr.take().context("its errors")?.read_to_string(&mut said).await?;
    let status = tokio::time::timeout(DEADLINE, dev.child.wait()).await??;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("plugin `broken` would not run"), "{said}");
    assert_eq!(std::fs::read_dir(dev.temporary.path())?.count(), 0);
    Ok(())
}

/// The project is built again at a change, and a change that does not build leaves the last plugin serving.
#[tokio::test]
async fn a_watched_project_is_built_again_and_each_events_result_is_told() -> Result<()> {
    let source = HttpPublisher::new()?;
    let url = format!("http://127.0.0.1:{}", source.port);
    let root = tempfile::tempdir()?;
    // A name of its own in the build folder that all share.
    let project = root.path().join("watched");
    let folder = project.to_str().context("UTF-8")?;
    let made =
        Command::new(artifacts::host_binary()?).args(["plugin", "new", "watched", "--dir", folder]).status().await?;
    ensure!(made.success(), "the project was not made: {made}");

    let mut dev = Dev::spawn_on(&[], &["--source", &url, "--watch", folder])?;
    dev.patience = BUILD_DEADLINE;
    dev.ready().await?;
    source.publish_orders(0..1).await?;
    let called = dev.next("called").await?;
    assert_eq!((&called["plugin"], &called["webhooks"], &called["attempt"]), (&"watched".into(), &1.into(), &1.into()));
    ensure!(called["memory_peak_bytes"].as_u64() > Some(0) && called["duration_s"].as_f64() > Some(0.0), "{called}");

    let lib = project.join("src/lib.rs");
    let text = std::fs::read_to_string(&lib)?;
    std::fs::write(&lib, text.replace("\"order.created\",", "\"order.made\","))?;
    let rebuilt = dev.next("rebuilt").await?;
    ensure!(rebuilt["error"].is_null(), "{rebuilt}");
    let wasm = std::fs::read(project.join("dist/watched.wasm"))?;
    ensure!(wasm.windows(10).any(|bytes| bytes == b"order.made"), "what was built is not of the new source");

    std::fs::write(&lib, "nonsense")?;
    let rebuilt = dev.next("rebuilt").await?;
    ensure!(rebuilt["error"].as_str().is_some_and(|error| error.contains("cargo build")), "{rebuilt}");
    source.publish_orders(1..2).await?;
    assert_eq!(dev.next("called").await?["webhooks"], 1);
    dev.stop().await?;
    Ok(())
}
