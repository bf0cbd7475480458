//! A start with nothing compiled yet: the host answers, takes events and delivers, while large plugins compile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use wirehook_tests::artifacts;
use wirehook_tests::events::order_created;
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::http_client;
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};
use wirehook_tests::wait;

use super::{DEADLINE, build, compilers};

/// From the start to the first answer of `/healthz`, on a busy machine. A compilation of Python takes longer by far.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What a client waits for an answer to a post.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// From the signal to the exit, while plugins compile.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// The example in Python, as another file and under another name.
fn python(number: usize) -> Result<PluginFile> {
    let path = artifacts::example_plugin("orders-python")?;
    let mut wasm = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let section = format!("\x05build{number:08}");
    wasm.extend([0, u8::try_from(section.len())?]);
    wasm.extend(section.as_bytes());
    let plugin = PluginFile::of_bytes(&format!("python-{number}"), &wasm);
    Ok(plugin.subscribed("fraiseql.order.*", "orders"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_answers_takes_events_and_delivers_while_plugins_compile() -> Result<()> {
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let source = HttpPublisher::new()?;
    let builder = TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, "").plugin(build(0)?);
    let builder = (0..3).try_fold(builder, |builder, number| anyhow::Ok(builder.plugin(python(number)?)))?;
    let mut host = builder.build()?;
    host.spawn(&[]).await?;

    let client = http_client::new()?;
    let healthz = host.folder.admin_url("/healthz");
    wait::until("/healthz to answer", ANSWERS_WITHIN, async || {
        Ok(client.get(&healthz).timeout(CLIENT_PATIENCE).send().await.ok().map(drop))
    })
    .await?;
    let (status, said) = host.readiness().await?;
    ensure!(status == 503 && said.contains("compiling python-"), "{status}: {said}");

    for number in 0..5 {
        let request = source.request(order_created(number).body).timeout(CLIENT_PATIENCE);
        ensure!(request.send().await?.status() == 202, "order {number}");
    }
    endpoint.wait_for("the small plugin's webhooks", DEADLINE, |log| log.ids() == 5).await?;
    let (status, said) = host.readiness().await?;
    ensure!(status == 503 && said.contains("compiling"), "Python was compiled before five webhooks: {said}");
    let (state, _) = state_of(&host, "python-2").await?;
    ensure!(state == "compiling", "python-2 is {state}");
    // A command that changes plugins does not wait for a compilation.
    host.command(&["plugin", "pause", "orders"]).await?.expect_code(0)?;
    host.command(&["plugin", "resume", "orders"]).await?.expect_code(0)?;

    let pid = host.pid()?;
    ensure!(!compilers(pid)?.is_empty(), "nothing compiles");
    let children = compilers(pid)?;
    host.signal(libc::SIGTERM)?;
    let exit = host.wait_exit(STOPS_WITHIN).await?;
    ensure!(exit.success(), "{exit}");
    for child in children {
        ensure!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "the compiler {child} is left behind");
    }
    // Each event is one event, and its runs wait for the plugins that could not be called yet.
    let status = host.status().await?;
    let pending: u64 = status.runs.iter().filter(|run| run.plugin.starts_with("python")).map(|run| run.count).sum();
    ensure!(pending == 15, "{status:?}");
    host.expect_all_accounted().await
}

/// What `status` says of a plugin: its state and what is wrong.
pub(super) async fn state_of(host: &TestHost, name: &str) -> Result<(String, String)> {
    let status = host.json(&["status"]).await?.object()?;
    let plugins = status["host"]["plugins"].as_array().context("plugins")?;
    let plugin = plugins.iter().find(|plugin| plugin["name"] == name);
    let plugin = plugin.with_context(|| format!("no {name} in {status}"))?;
    let text = |key: &str| plugin[key].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("error")))
}
