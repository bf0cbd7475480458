//! What every language has to show.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use wirehook::project::{Language, Project};
use wirehook_tests::artifacts;
use wirehook_tests::events::{order_created, page_event};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

/// For a webhook; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// For a toolchain's work from nothing.
const BUILD_DEADLINE: Duration = Duration::from_secs(600);

/// An example that `cargo xtask plugins` built, on the whole path.
pub(crate) async fn example(name: &str) -> Result<()> {
    whole_path(PluginFile::example(name)?).await
}

/// The commands of the README, one after the other: `plugin new`, the project's own tests, `plugin build`,
/// `plugin inspect`, `plugin test`, and the whole path with what was built. `variables` are the commands' environment.
pub(crate) async fn new_project(lang: &str, variables: &[(&str, OsString)]) -> Result<()> {
    let root = tempfile::tempdir()?;
    let wirehook = artifacts::host_binary()?;
    // Also a name with a hyphen has to do for every toolchain.
    let folder = root.path().join("order-mails");
    run(Command::new(&wirehook).args(["plugin", "new", "order-mails", "--lang", lang]), root.path(), variables).await?;

    let project = Project::open(&folder)?;
    ensure!(project.language.name == Language::find(lang).context("the language")?.name, "it is {project:?}");
    for step in (project.language.test)(&project) {
        // As a person would, who was shown this line.
        run(Command::new("sh").args(["-c", &step.to_string()]), &folder, variables).await?;
    }

    run(Command::new(&wirehook).args(["plugin", "build"]), &folder, variables).await?;
    let inspected =
        run(Command::new(&wirehook).args(["plugin", "inspect", "--json"]).arg(project.output()), &folder, variables)
            .await?;
    let inspected: Value = serde_json::from_str(&inspected)?;
    ensure!(inspected["ok"] == true, "it would not run: {inspected}");
    let imports = inspected["imports"].as_array().context("imports")?;
    ensure!(
        imports.iter().all(|import| import.as_str().is_some_and(|name| name.starts_with("wirehook:plugin/"))),
        "it imports more than the contract: {imports:?}"
    );

    run(
        Command::new(&wirehook).args(["plugin", "test", "--events", "events"]).arg(project.output()),
        &folder,
        variables,
    )
    .await?;

    let wasm = std::fs::read(project.output())?;
    whole_path(PluginFile::of_bytes("order-mails", &wasm).with_sidecar(&std::fs::read_to_string(project.sidecar())?))
        .await
}

/// HTTP source → plugin → signed webhook: an order makes the page's webhook, a deletion none.
pub(crate) async fn whole_path(plugin: PluginFile) -> Result<()> {
    let source = HttpPublisher::new()?;
    let endpoint = FakeEndpoint::start(Script::ok()).await?;
    let plugin = plugin.subscribed("fraiseql.order.*", "orders");
    let name = plugin.name.clone();
    let mut host =
        TestHost::builder().http(source.port, "").endpoint("orders", &endpoint, "").plugin(plugin).build()?;
    host.start().await?;
    let order = order_created(7);
    let deleted = page_event("order", "deleted", 8, &Value::Null);
    for event in [&deleted, &order] {
        let (status, text) = source.post(event.body.clone()).await?;
        ensure!(status == 202, "the event was answered {status}: {text}");
    }
    endpoint.wait_for("the order's webhook", DEADLINE, |log| log.ids() == 1).await?;
    endpoint.expect_all_signed()?;
    let filtered = format!("outcome=\"filtered\",plugin=\"{name}\"");
    host.wait_metric("wirehook_runs_total", &filtered, 1.0, DEADLINE).await?;

    let requests = endpoint.requests();
    let body: Value = serde_json::from_slice(&requests[0].body)?;
    let entity: Value = serde_json::from_slice::<Value>(&order.body)?["entity"].take();
    ensure!(body["event"] == "order.created" && body["order_id"] == order.entity_id.as_str(), "{body}");
    ensure!(body["customer_email"] == entity["customer_email"] && body["total"] == entity["total"], "{body}");
    ensure!(requests.len() == 1, "{} webhooks came of one order", requests.len());
    host.expect_all_accounted().await
}

/// Runs a command to success and returns its standard output.
async fn run(command: &mut Command, folder: &Path, variables: &[(&str, OsString)]) -> Result<String> {
    command.current_dir(folder).envs(variables.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(BUILD_DEADLINE, command.output()).await;
    let output = output.with_context(|| format!("{line} runs on after {BUILD_DEADLINE:?}"))??;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{line} ended with {}\nstdout: {stdout}\nstderr: {stderr}", output.status);
    Ok(stdout.into_owned())
}
