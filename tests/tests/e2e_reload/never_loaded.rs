//! A plugin whose file is there and was never loaded: its events wait for it, however it is wrong.

use anyhow::{Result, ensure};
use wirehook_tests::events::page_event;
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::nats_server::NatsServer;
use wirehook_tests::publisher::{HttpPublisher, StreamPublisher};
use wirehook_tests::test_host::{PluginFile, TestHost};

use super::{DEADLINE, build};

/// What makes a first file not load.
enum Fault {
    /// The endpoint is not configured.
    Endpoint,
    /// The sidecar asks for what there is not.
    Limit,
    /// The sidecar is no TOML.
    Sidecar,
    /// The sidecar can't be read at all.
    SidecarUnreadable,
    /// The file is no WebAssembly.
    Wasm,
    /// The file is valid and no plugin.
    NoPlugin,
    /// The file ends too early.
    Cut,
}

impl Fault {
    const ALL: [Self; 7] =
        [Self::Endpoint, Self::Limit, Self::Sidecar, Self::SidecarUnreadable, Self::Wasm, Self::NoPlugin, Self::Cut];

    fn put(&self, host: &TestHost) -> Result<()> {
        let good = build(0)?;
        let subjects = "subjects = [\"fraiseql.order.*\"]\n";
        let sidecar = |text: &str| build(0).map(|plugin| plugin.with_sidecar(&format!("{subjects}{text}")));
        let file = match self {
            Self::Endpoint => sidecar("endpoints = [\"nowhere\"]\n")?,
            Self::Limit => sidecar("endpoints = [\"orders\"]\n[limits]\nmemory = \"9 TiB\"\n")?,
            Self::Sidecar => good.with_sidecar("subjects = [\n"),
            Self::SidecarUnreadable => {
                std::fs::create_dir(host.folder.plugins().join("orders.toml"))?;
                PluginFile { sidecar: None, ..good }
            }
            Self::Wasm => PluginFile { wasm: b"\0asm\x01\0\0\0\xff\x01\0".to_vec(), ..good },
            Self::NoPlugin => PluginFile { wasm: b"\0asm\x01\0\0\0".to_vec(), ..good },
            Self::Cut => PluginFile { wasm: good.wasm[..good.wasm.len() / 2].to_vec(), ..good },
        };
        host.folder.put_plugin(&file)
    }

    fn mend(&self, host: &TestHost) -> Result<()> {
        if matches!(self, Self::SidecarUnreadable) {
            std::fs::remove_dir(host.folder.plugins().join("orders.toml"))?;
        }
        host.folder.put_plugin(&build(0)?)
    }
}

/// Events come over JetStream, before and after a restart, while the file is bad; then it is mended, at once or with a
/// restart.
async fn waits_for_its_plugin(fault: Fault, mended_at_a_restart: bool) -> Result<()> {
    let nats = NatsServer::start().await?;
    let publisher = StreamPublisher::create(&nats, "EVENTS").await?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host = TestHost::builder().jetstream(&nats, "EVENTS").endpoint("orders", &endpoint, "").build()?;
    fault.put(&host)?;
    host.start().await?;
    let (_, said) = host.readiness().await?;
    ensure!(said.contains("orders won't load"), "/readyz must name it: {said}");
    publisher.publish_orders(0..5).await?;
    // Of another subject: not for this plugin, whatever could be read of its sidecar.
    publisher.publish(page_event("invoice", "created", 0, &serde_json::json!({}))).await?;
    host.wait_metric("wirehook_events_accepted_total", "", 6.0, DEADLINE).await?;
    let parked = host.status().await?;
    let parked: u64 = parked.runs.iter().filter(|run| run.state == "parked").map(|run| run.count).sum();
    ensure!(parked >= 5, "{parked} runs are parked");
    host.wait_metric("wirehook_runs_waiting", "state=\"parked\"", 5.0, DEADLINE).await?;
    host.restart().await?;
    publisher.publish_orders(5..8).await?;
    host.wait_metric("wirehook_events_accepted_total", "", 3.0, DEADLINE).await?;
    if mended_at_a_restart {
        host.stop().await?;
        fault.mend(&host)?;
        host.start().await?;
    } else {
        fault.mend(&host)?;
    }
    endpoint.wait_for("every order's webhook", DEADLINE, |log| log.ids() == 8).await?;
    ensure!(host.dead_letters().await?.is_empty(), "nothing may die");
    host.expect_all_accounted().await?;
    host.restart().await?;
    host.stop().await?;
    ensure!(endpoint.look(|log| log.all().len()) == 8, "each once, and the invoice never");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_events_are_delivered_once_it_is_mended() -> Result<()> {
    for fault in Fault::ALL {
        waits_for_its_plugin(fault, false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_events_are_delivered_once_it_is_mended_and_the_host_restarted() -> Result<()> {
    for fault in [Fault::Endpoint, Fault::Sidecar, Fault::Wasm] {
        waits_for_its_plugin(fault, true).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_typo_that_is_deleted_leaves_runs_that_can_be_forgotten() -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let mut host =
        TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, "").plugin(build(0)?).build()?;
    host.folder.put_plugin(&PluginFile { name: "ordres".to_owned(), wasm: b"\x7fELF".to_vec(), ..build(0)? })?;
    host.start().await?;
    source.publish_orders(0..4).await?;
    endpoint.wait_for("the good plugin's webhooks", DEADLINE, |log| log.ids() == 4).await?;
    host.wait_runs("ordres", "parked", 4, DEADLINE).await?;
    host.folder.remove_plugin("ordres")?;
    let plain = host.command(&["status"]).await?.expect_code(0)?.stdout;
    ensure!(plain.contains("ordres"), "parked runs must be seen: {plain}");
    super::wait_until_gone(&host, "ordres").await?;
    source.publish_orders(4..6).await?;
    endpoint.wait_for("the good plugin's webhooks", DEADLINE, |log| log.ids() == 6).await?;
    let said = host.command(&["plugin", "forget", "ordres", "--discard", "--yes"]).await?.expect_code(0)?.stdout;
    ensure!(said.contains("4 parked runs discarded"), "{said}");
    host.expect_all_accounted().await?;
    host.stop().await
}
