//! Plugins that change while the host runs: nothing is lost, and a bad file disturbs nobody.

mod cold_start;
mod never_loaded;
mod passing;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::full;
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::StreamPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::wait;

/// For what must happen, on a busy machine and a build without optimisation.
const DEADLINE: Duration = Duration::from_secs(120);

/// Builds that are put into the folder in turn.
const BUILDS: usize = 8;

/// What the host's memory may have grown by, in MiB, from the time every build was compiled once to the last reload. The
/// first tens of thousands of orders fill the store's caches, at 1.3 KB each without any reload.
const GROWTH_MIB_MAX: u64 = 24;

struct Scene {
    publisher: StreamPublisher,
    endpoint: FakeEndpoint,
    host: TestHost,
    _nats: NatsServer,
}

async fn scene() -> Result<Scene> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let builder = TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "");
    let mut host = builder.plugin(build(0)?).build()?;
    host.start().await?;
    Ok(Scene { publisher, endpoint, host, _nats: nats })
}

/// The example, with a custom section that makes it another file.
fn build(number: usize) -> Result<PluginFile> {
    let mut plugin = PluginFile::example("orders")?.subscribed("fraiseql.order.*", "orders");
    let content = format!("\x05build{number:08}");
    plugin.wasm.extend([0, u8::try_from(content.len())?]);
    plugin.wasm.extend(content.as_bytes());
    Ok(plugin)
}

/// The compilers that a host has running.
fn compilers(host: u32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")? {
        let path = process?.path();
        // A process may end between two looks at it.
        let (Ok(stat), Ok(line)) =
            (std::fs::read_to_string(path.join("stat")), std::fs::read_to_string(path.join("cmdline")))
        else {
            continue;
        };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if parent == Some(host.to_string().as_str()) && line.contains("compile-plugin") {
            let pid = path.file_name().and_then(|name| name.to_str()).context("a process's folder")?;
            found.push(pid.parse()?);
        }
    }
    Ok(found)
}

/// Waits until the running host has no plugin of that name any more.
async fn wait_until_gone(host: &TestHost, name: &str) -> Result<()> {
    wait::until(&format!("{name} to be gone"), DEADLINE, async || {
        Ok(cold_start::state_of(host, name).await.is_err().then_some(()))
    })
    .await
}

impl Scene {
    /// Publishes some orders and waits for their webhooks.
    async fn deliver(&self, orders: std::ops::Range<usize>) -> Result<()> {
        let end = orders.end;
        self.publisher.publish_orders(orders).await?;
        self.endpoint.wait_for("every order's webhook", DEADLINE, |log| log.ids() >= end).await
    }

    async fn log_says(&self, part: &str) -> Result<()> {
        self.host.logs().wait_for(part, DEADLINE).await
    }

    fn rss_mib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.host.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
    }
}

/// Puts a new build in place `reloads` times while orders flow; each is at work before the next comes.
async fn reload_under_load(reloads: usize, orders_a_reload: usize) -> Result<()> {
    let mut scene = scene().await?;
    let orders = reloads * orders_a_reload;
    let publisher = scene.publisher.clone();
    let (more, mut wanted) = tokio::sync::mpsc::channel(1);
    let publishing = tokio::spawn(async move {
        for part in 0..reloads {
            publisher.publish_orders(part * orders_a_reload..(part + 1) * orders_a_reload).await?;
            wanted.recv().await;
        }
        anyhow::Ok(())
    });
    let (mut early, mut late) = (0, 0);
    for reload in 1..=reloads {
        scene.host.forget_logs();
        scene.host.folder.put_plugin(&build(reload % BUILDS)?)?;
        more.send(()).await?;
        scene.log_says("a new build of the plugin is at work").await.with_context(|| format!("reload {reload}"))?;
        late = scene.rss_mib()?;
        // Until then every build was compiled once, and the store's caches filled.
        if reload <= 2 * BUILDS {
            early = late;
        }
    }
    drop(more);
    publishing.await??;
    scene.endpoint.wait_for("every order's webhook", DEADLINE, |log| log.ids() >= orders).await?;
    println!("{reloads} reloads, {orders} orders, RSS {early} MiB early, {late} MiB late");
    ensure!(late <= early + GROWTH_MIB_MAX, "RSS grew from {early} to {late} MiB in {reloads} reloads");
    ensure!(scene.host.dead_letters().await?.is_empty(), "nothing may die");
    scene.host.expect_all_accounted().await?;
    scene.host.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_reloads_under_load_lose_nothing() -> Result<()> {
    reload_under_load(30, 40).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_lose_nothing() -> Result<()> {
    if !full::wanted("1,000 reloads") {
        return Ok(());
    }
    reload_under_load(1_000, 10).await
}

#[tokio::test]
async fn a_file_in_the_writing_waits_and_a_bad_one_leaves_the_old_build_at_work() -> Result<()> {
    let mut scene = scene().await?;
    scene.deliver(0..5).await?;
    let new = build(1)?;
    let (half, path) = (new.wasm.len() / 2, scene.host.folder.plugins().join("orders.wasm"));
    // Over the file itself, as `cp` does.
    std::fs::write(&path, &new.wasm[..half])?;
    scene.log_says("the plugin's file is being written").await?;
    scene.deliver(5..10).await?;
    std::fs::write(&path, &new.wasm)?;
    scene.log_says("a new build of the plugin is at work").await?;
    ensure!(!scene.host.logs().lines().join("\n").contains("won't load"), "a file in the writing is no fault");

    std::fs::write(&path, b"\x7fELF and so on")?;
    scene.log_says("the build before them goes on").await?;
    scene.deliver(10..15).await?;
    let (_, ready) = scene.host.readiness().await?;
    ensure!(ready.contains("orders goes on as it was"), "{ready}");
    std::fs::write(&path, &new.wasm[..half])?;
    scene.log_says("is not whole").await?;
    scene.deliver(15..20).await?;
    scene.host.forget_logs();
    std::fs::write(&path, &build(2)?.wasm)?;
    scene.log_says("a new build of the plugin is at work").await?;
    scene.deliver(20..25).await?;
    scene.host.stop().await
}

#[tokio::test]
async fn a_changed_sidecar_takes_effect_without_its_plugin_changing() -> Result<()> {
    let mut scene = scene().await?;
    scene.deliver(0..3).await?;
    let narrowed = build(0)?.subscribed("fraiseql.invoice.*", "orders");
    scene.host.folder.put_plugin(&narrowed)?;
    scene.log_says("a new build of the plugin is at work").await?;
    scene.publisher.publish_orders(3..6).await?;
    scene.host.wait_metric("wirehook_events_unrouted_total", "", 3.0, DEADLINE).await?;
    std::fs::write(scene.host.folder.plugins().join("orders.toml"), "subjects = [\"fraiseql.order.*\"\n")?;
    scene.log_says("orders.toml:1").await?;
    scene.host.forget_logs();
    scene.host.folder.put_plugin(&build(0)?)?;
    scene.log_says("a new build of the plugin is at work").await?;
    scene.publisher.publish_orders(6..9).await?;
    scene.endpoint.wait_for("the later orders' webhooks", DEADLINE, |log| log.ids() == 6).await?;
    scene.host.stop().await
}

#[tokio::test]
async fn a_removed_plugin_s_runs_are_parked_until_it_is_back() -> Result<()> {
    let mut scene = scene().await?;
    scene.deliver(0..3).await?;
    scene.host.folder.remove_plugin("orders")?;
    scene.log_says("the plugin's file is missing; its runs are parked").await?;
    scene.publisher.publish_orders(3..20).await?;
    scene.host.wait_runs("orders", "parked", 17, DEADLINE).await?;
    ensure!(scene.endpoint.look(|log| log.ids()) == 3, "no webhook of a plugin that is gone");
    scene.host.folder.put_plugin(&build(1)?)?;
    scene.endpoint.wait_for("the parked orders' webhooks", DEADLINE, |log| log.ids() == 20).await?;
    scene.host.expect_all_accounted().await?;
    scene.host.stop().await
}

#[tokio::test]
async fn a_build_that_fails_is_rolled_back_and_what_it_killed_is_delivered() -> Result<()> {
    let mut scene = scene().await?;
    scene.deliver(0..30).await?;
    let mut bad = PluginFile::hostile("trap")?.subscribed("fraiseql.order.*", "orders");
    bad.name = "orders".to_owned();
    scene.host.folder.put_plugin(&bad)?;
    scene.log_says("a new build of the plugin is at work").await?;
    scene.deliver(30..90).await?;
    scene.log_says("it is rolled back").await?;
    scene.host.wait_metric("wirehook_plugin_rollbacks_total", "plugin=\"orders\"", 1.0, DEADLINE).await?;
    let (_, ready) = scene.host.readiness().await?;
    ensure!(ready.contains("this build was rolled back"), "{ready}");
    wait_no_dead_letters(&scene.host).await?;

    // The bad file is still in the folder; the host remembers.
    scene.host.kill9().await?;
    scene.host.forget_logs();
    scene.host.start().await?;
    scene.log_says("the plugin's last good build is at work").await?;
    scene.deliver(90..120).await?;
    ensure!(scene.host.dead_letters().await?.is_empty(), "the bad build was called again");

    scene.host.folder.put_plugin(&build(3)?)?;
    scene.log_says("a new build of the plugin is at work").await?;
    scene.deliver(120..130).await?;
    scene.host.expect_all_accounted().await?;
    scene.host.stop().await
}

async fn wait_no_dead_letters(host: &TestHost) -> Result<()> {
    wait::until("no dead letter to be left", DEADLINE, async || Ok(host.dead_letters().await?.is_empty().then_some(())))
        .await
}
