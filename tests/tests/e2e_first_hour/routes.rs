//! `[[route]]`: webhooks without a plugin of one's own.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

const DEADLINE: Duration = Duration::from_secs(60);
const FIELDS: &str = "type_field = \"type\"\nentity_id_field = \"/data/id\"\ndata_field = \"data\"\n";

fn event(number: usize, event_type: &str, status: &str) -> Value {
    json!({ "type": event_type, "data": { "id": number, "status": status } })
}

async fn post(web: &HttpPublisher, events: &[Value]) -> Result<()> {
    let (status, text) = web.post(Value::from(events).to_string()).await?;
    ensure!(status == 202, "the events were answered {status}: {text}");
    Ok(())
}

fn bodies(endpoint: &FakeEndpoint) -> Vec<String> {
    let mut bodies = endpoint.look(|log| {
        log.all().iter().map(|received| String::from_utf8_lossy(&received.body).into_owned()).collect::<Vec<_>>()
    });
    bodies.sort();
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_and_a_plugin_on_one_subject_all_run() -> Result<()> {
    let web = HttpPublisher::new()?;
    let (ledger, shop, raw) = (
        FakeEndpoint::start(Script::ok()).await?,
        FakeEndpoint::start(Script::ok()).await?,
        FakeEndpoint::start(Script::ok()).await?,
    );
    let mut host = TestHost::builder()
        .http(web.port, FIELDS)
        .endpoint("ledger", &ledger, "")
        .endpoint("shop", &shop, "")
        .endpoint("raw", &raw, "")
        .settings("[[route]]\nsubjects = [\"invoice.*\"]\nto = \"ledger\"")
        .settings("[[route]]\nsubjects = [\">\"]\nto = \"raw\"\nbody = \"entity\"\nfilter = { status = [\"paid\", \"late\"], id = 2 }")
        .plugin(PluginFile::hostile("echo")?.subscribed("invoice.paid", "shop"))
        .build()?;
    host.start().await?;
    post(
        &web,
        &[
            event(1, "invoice.paid", "paid"),
            event(2, "invoice.paid", "paid"),
            event(2, "invoice.sent", "open"),
            event(2, "order.paid", "late"),
        ],
    )
    .await?;
    ledger.wait_for("what the first route takes", DEADLINE, |log| log.ids() == 3).await?;
    shop.wait_for("what the plugin takes", DEADLINE, |log| log.ids() == 2).await?;
    raw.wait_for("what passes the filter", DEADLINE, |log| log.ids() == 2).await?;
    let envelope =
        |event: &Value| format!("{{\"type\":{},\"timestamp\":null,\"data\":{}}}", event["type"], event["data"]);
    let mut expected =
        [event(1, "invoice.paid", "paid"), event(2, "invoice.paid", "paid"), event(2, "invoice.sent", "open")]
            .map(|event| envelope(&event));
    expected.sort();
    assert_eq!(bodies(&ledger), expected);
    assert_eq!(bodies(&raw), [r#"{"id":2,"status":"late"}"#, r#"{"id":2,"status":"paid"}"#]);
    let status = host.command(&["status"]).await?.expect_code(0)?;
    for plugin in ["route:ledger", "route:raw", "echo"] {
        ensure!(status.stdout.contains(plugin), "{plugin} is missing: {}", status.stdout);
    }
    let listed = host.command(&["deliveries", "list", "--json"]).await?.expect_code(0)?;
    ensure!(listed.stdout.contains("\"route:ledger\""), "{}", listed.stdout);
    host.stop().await?;
    for endpoint in [&ledger, &shop, &raw] {
        endpoint.expect_all_signed()?;
    }
    Ok(())
}

/// A route needs no folder of plugins, and what was accepted before a kill is forwarded after it, once under its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_needs_no_folder_and_outlives_a_kill() -> Result<()> {
    let web = HttpPublisher::new()?;
    let mut endpoint = FakeEndpoint::down(Script::ok())?;
    let mut host = TestHost::builder()
        .http(web.port, FIELDS)
        .endpoint("ledger", &endpoint, "breaker = \"off\"\n[endpoint.retry]\ninitial_delay = \"100ms\"")
        .settings("[[route]]\nname = \"bills\"\nsubjects = [\"invoice.*\"]\nto = \"ledger\"")
        .build()?;
    let settings = host.folder.read_settings()?.replace("dir = \"plugins\"\n", "");
    host.folder.write_settings(&settings)?;
    std::fs::remove_dir(host.store_path().with_file_name("plugins"))?;
    host.start().await?;
    post(&web, &(0..100).map(|number| event(number, "invoice.paid", "paid")).collect::<Vec<_>>()).await?;
    host.kill9().await?;
    endpoint.listen().await?;
    host.start().await?;
    endpoint.wait_for("every webhook", DEADLINE, |log| log.ids() == 100).await?;
    host.stop().await?;
    ensure!(!host.logs().tail().contains("can't be watched"), "{}", host.logs().tail());
    endpoint.expect_all_signed()
}
