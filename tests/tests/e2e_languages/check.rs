//! What every language has to show.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use wirehook::project::{Language, Project};
use wirehook_tests::events::{order_created, page_event};
use wirehook_tests::fake_endpoint::{FakeEndpoint, Script};
use wirehook_tests::publisher::HttpPublisher;
use wirehook_tests::test_host::{PluginFile, TestHost};

use crate::readme;

/// For a webhook; a machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// For a toolchain's work from nothing.
const BUILD_DEADLINE: Duration = Duration::from_secs(600);

/// An example that `cargo xtask plugins` built, on the whole path.
pub(crate) async fn example(name: &str) -> Result<()> {
    whole_path(PluginFile::example(name)?).await
}

/// The lines by which the README makes a plugin, in another language: `plugin new`, the project's own tests as it says
/// itself, `plugin build`, `plugin test`, `plugin inspect`; then the whole path with what was built. `variables` are the
/// commands' environment.
pub(crate) async fn new_project(lang: &str, variables: &[(&str, OsString)]) -> Result<()> {
    let root = tempfile::tempdir()?;
    // Also a name with a hyphen has to do for every toolchain.
    let name = "order-mails";
    let folder = root.path().join(name);
    let mut variables = variables.to_vec();
    let path = variables.iter().position(|(name, _)| *name == "PATH").map(|at| variables.remove(at).1);
    let path = path.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    variables.push(("PATH", readme::with_wirehook(&path)?));

    let mut next = Vec::new();
    let mut ran = 0;
    for line in readme::plugin_lines()? {
        let line = line.replace("greeter", name).replace("--lang rust", &format!("--lang {lang}"));
        if line.starts_with("wirehook plugin new") {
            next = said_next(&shell(&line, root.path(), &variables).await?);
        } else if line.starts_with("cargo test") {
            for line in &next {
                shell(line, &folder, &variables).await?;
            }
        } else if !line.starts_with("cd ") {
            shell(&line, &folder, &variables).await?;
        }
        ran += 1;
    }
    ensure!(ran == 6 && !next.is_empty(), "{ran} lines, and {next:?} for the project's own tests");

    let project = Project::open(&folder)?;
    ensure!(project.language.name == Language::find(lang).context("the language")?.name, "it is {project:?}");
    let inspected = format!("wirehook plugin inspect --json dist/{name}.wasm");
    let inspected: Value = serde_json::from_str(&shell(&inspected, &folder, &variables).await?)?;
    ensure!(inspected["ok"] == true, "it would not run: {inspected}");
    let imports = inspected["imports"].as_array().context("imports")?;
    ensure!(
        imports.iter().all(|import| import.as_str().is_some_and(|name| name.starts_with("wirehook:plugin/"))),
        "it imports more than the contract: {imports:?}"
    );
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

/// What `plugin new` says to run next, between entering the project and building it.
fn said_next(printed: &str) -> Vec<String> {
    let lines = printed.lines().map(str::trim).skip_while(|line| !line.starts_with("cd ")).skip(1);
    lines.take_while(|line| *line != "wirehook plugin build").map(str::to_owned).collect()
}

/// Runs a line as a person would who was shown it, to success, and returns its standard output.
async fn shell(line: &str, folder: &Path, variables: &[(&str, OsString)]) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).kill_on_drop(true);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(BUILD_DEADLINE, command.output()).await;
    let output = output.with_context(|| format!("`{line}` runs on after {BUILD_DEADLINE:?}"))??;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{line}` ended with {}\nstdout: {stdout}\nstderr: {stderr}", output.status);
    Ok(stdout.into_owned())
}
