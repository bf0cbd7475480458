//! A machine that lacks something: room on its disk, the right to write, open files. Nothing accepted is lost, the operator
//! is told, and it goes on by itself once it is there again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use wirehook_tests::account::Account;
use wirehook_tests::bench::{child, slow_disk};
use wirehook_tests::events::{order_created, order_of};
use wirehook_tests::fake_endpoint::{Answer, FakeEndpoint, Script};
use wirehook_tests::memory_group::MemoryGroup;
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher};
use wirehook_tests::small_disk::SmallDisk;
use wirehook_tests::store_fill::{self, Filling};
use wirehook_tests::test_host::{OpenFiles, PluginFile, TestHost};
use wirehook_tests::wait;

const DEADLINE: Duration = Duration::from_secs(120);

/// For hundreds of MiB through a slow disk or slow endpoints.
const LARGE_DEADLINE: Duration = Duration::from_secs(240);

/// Attempts that no test uses up.
const RETRY: &str = "[endpoint.retry]\ninitial_delay = \"100ms\"\nmultiplier = 1.0\nmax_attempts = 1000";

fn orders() -> Result<PluginFile> {
    Ok(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
}

async fn wait_not_ready(host: &TestHost, parts: &[&str]) -> Result<()> {
    let mut last = None;
    let waited = wait::until("/readyz to say what is wrong", DEADLINE, async || {
        let (status, text) = last.insert(host.readiness().await?);
        Ok((*status == 503 && parts.iter().all(|part| text.contains(part))).then_some(()))
    })
    .await;
    waited.with_context(|| format!("/readyz said {last:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_nearly_full_stops_intake_only_and_it_goes_on_by_itself() -> Result<()> {
    let Some(disk) = SmallDisk::mount(192)? else { return Ok(()) };
    let nats = NatsServer::start().await?;
    let (publisher, web) = (StreamPublisher::create(&nats, "EVENTS").await?, HttpPublisher::new()?);
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let core = format!(
        "[[source]]\nname = \"core\"\nkind = \"nats\"\nurl = {:?}\nsubjects = [\"shop.order.created\"]",
        nats.url()
    );
    let mut host = TestHost::builder()
        .within(disk.path())
        .store_settings("free_bytes_min = \"48MiB\"")
        .jetstream(&nats, "EVENTS")
        .settings(&core)
        .http(web.port, "")
        .endpoint("orders", &endpoint, RETRY)
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    ensure!(host.metric("wirehook_store_free_bytes", "").await? > 48.0 * 1024.0 * 1024.0, "there is room at first");
    // Ten that are retried while the disk fills up.
    endpoint.set_script(Script::always(Answer::status(503)));
    web.publish_orders(0..10).await?;
    endpoint.wait_for("the first attempts", DEADLINE, |log| log.ids() == 10).await?;

    disk.fill(40 << 20)?;
    host.wait_metric("wirehook_intake_stopped", "", 1.0, DEADLINE).await?;
    wait_not_ready(&host, &["intake is stopped", "free_bytes_min"]).await?;
    let status = host.command(&["status"]).await?.expect_code(0)?.stdout;
    ensure!(status.contains("intake is stopped"), "status said: {status}");
    let refused = web.request(order_created(10).body).send().await?;
    ensure!(refused.status() == 503 && refused.headers().contains_key("retry-after"), "{refused:?}");
    let said = refused.text().await?;
    ensure!(said.contains("are free in"), "it said: {said}");
    publisher.publish_orders(20..40).await?;
    let client = nats.client().await?;
    for _ in 0..5 {
        client.publish("shop.order.created", "{}".into()).await?;
    }
    client.flush().await?;
    // What can't wait is counted; what was accepted is worked off all the same.
    host.wait_metric("wirehook_events_lost_total", "source=\"core\"", 5.0, DEADLINE).await?;
    endpoint.set_script(Script::ok());
    host.wait_metric("wirehook_attempts_total", "endpoint=\"orders\",outcome=\"delivered\"", 10.0, DEADLINE).await?;
    ensure!(endpoint.look(|log| log.ids()) == 10, "something came in");
    ensure!(publisher.unacked("EVENTS", "wirehook-bus").await? == 20, "the bus has them still");

    disk.make_room()?;
    host.wait_ready().await?;
    ensure!(host.metric("wirehook_intake_stopped", "").await? == 0.0, "intake goes on");
    web.publish_orders(10..20).await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 40).await?;
    host.logs().wait_for("intake goes on", DEADLINE).await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.stop().await?;
    Account::of_copy(&host.store_path()).map(drop)
}

/// Without a bound of its own the store meets the end of the disk in the middle of a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_fails_commits_and_loses_nothing() -> Result<()> {
    let Some(disk) = SmallDisk::mount(128)? else { return Ok(()) };
    let nats = NatsServer::start().await?;
    let (publisher, web) = (StreamPublisher::create(&nats, "EVENTS").await?, HttpPublisher::new()?);
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .within(disk.path())
        .store_settings("free_bytes_min = \"0B\"")
        .jetstream(&nats, "EVENTS")
        .http(web.port, "")
        .endpoint("orders", &endpoint, RETRY)
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    disk.fill(0)?;
    // The write-ahead log has some room left within its file; then commits fail.
    let mut accepted = 0;
    let said = loop {
        let (status, text) = web.post(order_created(accepted).body).await?;
        if status != 202 {
            break format!("{status}: {text}");
        }
        accepted += 1;
        ensure!(accepted < 100_000, "the disk is never full");
    };
    ensure!(said.contains("503") && said.contains("full"), "it said {said}");
    publisher.publish_orders(1_000_000..1_000_050).await?;
    wait_not_ready(&host, &["full"]).await?;

    // A start on a full disk says so, and a crash there costs nothing.
    host.kill9().await?;
    host.spawn(&[]).await?;
    let status = host.wait_exit(DEADLINE).await;
    ensure!(status.as_ref().is_ok_and(|status| status.code() == Some(1)), "it ended with {status:?}");
    let said = host.logs().tail();
    ensure!(said.contains("full") && said.contains("room"), "it said: {said}");

    disk.make_room()?;
    host.start().await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() >= accepted + 50).await?;
    wait::until("every message to be acked", DEADLINE, async || {
        Ok((publisher.unacked("EVENTS", "wirehook-bus").await? == 0).then_some(()))
    })
    .await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.stop().await?;
    let account = Account::of_copy(&host.store_path())?;
    ensure!(account.is_idle() && account.events >= accepted as u64 + 50, "{account:?}");
    Ok(())
}

#[tokio::test]
async fn a_store_that_may_not_be_written_refuses_the_start_and_is_whole_afterwards() -> Result<()> {
    let Some(disk) = SmallDisk::mount(128)? else { return Ok(()) };
    let web = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::always(Answer::status(503))).await?;
    let mut host = TestHost::builder()
        .within(disk.path())
        .store_settings("free_bytes_min = \"1MiB\"")
        .http(web.port, "")
        .endpoint("orders", &endpoint, RETRY)
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    web.publish_orders(0..20).await?;
    endpoint.wait_for("the first attempts", DEADLINE, |log| log.ids() == 20).await?;
    host.kill9().await?;

    disk.set_read_only(true)?;
    host.spawn(&[]).await?;
    let status = host.wait_exit(DEADLINE).await?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    let (said, path) = (host.logs().tail(), host.store_path().display().to_string());
    ensure!(said.contains(&path) && said.contains("permissions"), "it said: {said}");

    disk.set_read_only(false)?;
    endpoint.set_script(Script::ok());
    host.start().await?;
    host.wait_metric("wirehook_attempts_total", "outcome=\"delivered\"", 20.0, DEADLINE).await?;
    host.stop().await?;
    let account = Account::of_copy(&host.store_path())?;
    ensure!(account.deliveries_to("orders", "delivered") == 20, "{account:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_a_file_left_to_open_goes_on_once_it_has_some() -> Result<()> {
    /// More than an idle host has open, and fewer than the connections below and that.
    const OPEN_FILES: u64 = 100;
    const CONNECTIONS: usize = 120;
    let nats = NatsServer::start().await?;
    let (publisher, web) = (StreamPublisher::create(&nats, "EVENTS").await?, HttpPublisher::new()?);
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .open_files(OpenFiles { soft: OPEN_FILES, hard: OPEN_FILES })
        .jetstream(&nats, "EVENTS")
        .http(web.port, "")
        .endpoint("orders", &endpoint, RETRY)
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(TcpStream::connect(("127.0.0.1", web.port)).await?);
    }
    host.logs().wait_for("Too many open files", DEADLINE).await?;
    // No connection to the endpoint can be made; the store has what it needs open already.
    publisher.publish_orders(0..50).await?;
    wait::until("every message to be acked", DEADLINE, async || {
        Ok((publisher.unacked("EVENTS", "wirehook-bus").await? == 0).then_some(()))
    })
    .await?;

    drop(connections);
    web.publish_orders(50..60).await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 60).await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.stop().await
}

#[tokio::test]
async fn the_host_may_have_as_many_files_open_as_it_is_allowed_to() -> Result<()> {
    let web = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .open_files(OpenFiles { soft: 64, hard: 512 })
        .http(web.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.pid()?))?;
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).context("the limit")?;
    let values: Vec<_> = limit.split_whitespace().skip(3).take(2).collect();
    ensure!(values == ["512", "512"], "{limit}");
    host.stop().await
}

/// Room for two workers and one kept instance, where memories are no larger than plugins may have them.
const ADDRESS_SPACE: u64 = 8 << 30;

#[tokio::test]
async fn a_host_with_little_address_space_keeps_fewer_instances_and_delivers() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .address_space(ADDRESS_SPACE)
        .plugin_settings("workers = 2")
        .http(source.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    host.start().await?;
    source.publish_orders(0..4).await?;
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 4).await?;
    host.logs().lines().iter().find(|line| line.contains("fewer plugin instances are kept")).context("a word on it")?;
    host.expect_all_accounted().await
}

#[tokio::test]
async fn too_little_address_space_is_named_with_what_is_needed() -> Result<()> {
    let source = HttpPublisher::new()?;
    let host = TestHost::builder()
        .address_space(ADDRESS_SPACE / 4)
        .plugin_settings("workers = 2")
        .http(source.port, "")
        .build()?;
    let said = ["need 4.6 GiB of address space", "may have 2.0 GiB", "ulimit -v unlimited", "[plugins] workers"];
    host.command(&["run"]).await?.expect_code(1)?.expect_said(&said)?;
    Ok(())
}

/// What a small container has.
const MEMORY_BYTES: u64 = 512 << 20;

/// A host that was never killed, within its group, with a budget that follows from the group's bound.
async fn expect_within_memory(host: &TestHost, group: &MemoryGroup, pid: u32) -> Result<()> {
    ensure!(host.pid()? == pid, "the host was started once");
    let budget = host.metric("wirehook_memory_budget_bytes", "").await?;
    ensure!(budget > 0.0 && budget <= MEMORY_BYTES as f64 / 2.0, "the budget is {budget} bytes");
    wait::until("everything to have left the memory", DEADLINE, async || {
        let used = host.metric("wirehook_memory_used_bytes", "").await?;
        Ok((used == 0.0).then_some(()))
    })
    .await?;
    let peak = child::resident_peak_bytes(pid)?;
    println!(
        "at most {} MiB resident, {:?} in the group, budget {} MiB",
        peak >> 20,
        group.peak_bytes()?,
        budget / 1e6
    );
    ensure!(peak < MEMORY_BYTES, "{peak} bytes were resident");
    host.expect_all_accounted().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_4_mib_over_a_slow_disk_stay_within_the_memory_there_is() -> Result<()> {
    /// Their results are more than the memory, and there before the disk has a tenth of them.
    const EVENTS: usize = 200;
    let Some(group) = MemoryGroup::of(MEMORY_BYTES)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let slow_disk = slow_disk::library(folder.path(), Duration::from_millis(200))?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let source = HttpPublisher::new()?;
    let mut host = TestHost::builder()
        .memory_group(&group)
        .variable(slow_disk::VARIABLE, &slow_disk.to_string_lossy())
        .http(source.port, "")
        .endpoint("orders", &endpoint, RETRY)
        .plugin(PluginFile::hostile("output_full")?.subscribed("fraiseql.order.*", "orders"))
        .build()?;
    store_fill::pending(&host.store_path(), &Filling::new("output_full", "orders"), EVENTS).await?;
    host.start().await?;
    let pid = host.pid()?;
    endpoint.wait_for("every webhook", LARGE_DEADLINE, |log| log.ids() >= 4 * EVENTS).await?;
    expect_within_memory(&host, &group, pid).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_large_bodies_for_many_slow_endpoints_stays_within_the_memory_there_is() -> Result<()> {
    const ENDPOINTS: usize = 200;
    const BODIES: usize = 4;
    let Some(group) = MemoryGroup::of(MEMORY_BYTES)? else { return Ok(()) };
    let slow = FakeEndpoint::start(Script::always(Answer::ok().after(Duration::from_secs(1)))).await?;
    let names: Vec<Arc<str>> = (0..ENDPOINTS).map(|number| format!("shop-{number}").into()).collect();
    let source = HttpPublisher::new()?;
    let builder = TestHost::builder().memory_group(&group).http(source.port, "").plugin(orders()?);
    let builder = builder.endpoint("orders", &slow, RETRY);
    let mut host = names.iter().fold(builder, |builder, name| builder.endpoint(name, &slow, RETRY)).build()?;
    let filling = Filling { plugin: "orders".into(), endpoints: names, body_bytes: 1 << 20 };
    store_fill::waiting(&host.store_path(), &filling, ENDPOINTS * BODIES).await?;
    host.start().await?;
    let pid = host.pid()?;
    // One small webhook for an endpoint of its own need not wait behind all of them.
    slow.wait_for("the endpoints to be busy", DEADLINE, |log| log.ids() >= 10).await?;
    source.publish_orders([7]).await?;
    slow.wait_for("every webhook", LARGE_DEADLINE, |log| log.ids() > ENDPOINTS * BODIES).await?;
    expect_within_memory(&host, &group, pid).await
}

/// Runs a command of the host's in a mount namespace where no temporary folder can be written to. None where this process may
/// not make one, which is said.
fn without_temporary_folders(host: &TestHost, arguments: &[&str]) -> Result<Option<std::process::Output>> {
    const MOUNTS: &str = "mount --make-rprivate / && for d in /tmp /var/tmp /usr/tmp; do \
        [ ! -d $d ] || mount -t tmpfs -o ro none $d || exit 99; done; cd / && exec \"$@\"";
    let command = host.folder.command(arguments)?;
    let mut within = std::process::Command::new("unshare");
    within.args(["-m", "sh", "-c", MOUNTS, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| within.env(name, value));
    }
    let output = within.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || text.contains("unshare failed") {
        eprintln!("left out: a namespace without temporary folders, for only root may make one here: {text}");
        return Ok(None);
    }
    Ok(Some(output))
}

/// Only the store's folder can be written to, and the path of its socket is too long for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_needs_a_temporary_folder() -> Result<()> {
    let deep = tempfile::tempdir_in("/dev/shm")?;
    let long = deep.path().join("d".repeat(100));
    std::fs::create_dir(&long)?;
    let web = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder()
        .within(&long)
        .http(web.port, "")
        .endpoint("orders", &endpoint, "")
        .plugin(orders()?)
        .build()?;
    host.start().await?;
    // More than SQLite copies in memory.
    for number in 0..45 {
        let (status, text) = web.post(order_of(number, 900_000, 0).body).await?;
        ensure!(status == 202, "{status}: {text}");
    }
    let order = order_created(1);
    endpoint.wait_for("the webhooks", DEADLINE, |log| log.ids() == 45).await?;
    host.wait_metric("wirehook_attempts_total", "outcome=\"delivered\"", 45.0, DEADLINE).await?;
    let Some(listed) = without_temporary_folders(&host, &["deliveries", "list"])? else { return Ok(()) };
    ensure!(listed.status.success(), "by the socket: {}", String::from_utf8_lossy(&listed.stderr));
    host.stop().await?;
    for arguments in [&["purge", "--entity-id", &order.entity_id, "--yes"][..], &["check"], &["purge", "--rewrite"]] {
        let Some(output) = without_temporary_folders(&host, arguments)? else { return Ok(()) };
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let bytes = std::fs::read(host.store_path())?;
    let id = order.entity_id.as_bytes();
    ensure!(!bytes.windows(id.len()).any(|window| window == id), "it is purged, and the file written anew");
    Ok(())
}
