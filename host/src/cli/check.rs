//! `wirehook check`

use serde_json::json;

use super::console::Look;
use super::failure::{Exit, Failure, Failures};
use super::plugin::state;
use super::table::{Table, maybe, plain};
use super::{Session, parts::PluginView};
use crate::settings::{EndpointSettings, Loaded, SourceSettings};

pub(super) const EXAMPLE: &str = "\
Example:
  wirehook check --config wirehook.toml

Exit code: 0 when all is well, 2 for settings, 1 for a plugin that would not run.";

pub(super) fn check(session: &mut Session<'_>) -> Result<Exit, Failures> {
    let loaded = session.load()?;
    for warning in &loaded.warnings {
        session.console.warning(&warning.clone().into());
    }
    let plugins = session.parts.scan(&loaded.settings)?;
    if session.console.json {
        print_objects(session, &loaded, &plugins)?;
    } else {
        print(session, &loaded, &plugins)?;
    }
    let refused: Vec<Failure> = plugins.iter().filter_map(refusal).collect();
    if refused.is_empty() { Ok(Exit::Success) } else { Err(Failures { failures: refused, exit: Exit::Failure }) }
}

/// Why a plugin would not run.
fn refusal(plugin: &PluginView) -> Option<Failure> {
    let error = plugin.error.as_deref().filter(|_| !plugin.ok)?;
    let message = format!("plugin `{}` would not run: {error}", plugin.name);
    Some(Failure { message, at: Some(plugin.file.display().to_string()), help: plugin.help.clone() })
}

fn span(endpoint: &EndpointSettings) -> String {
    let seconds = std::time::Duration::from_secs(endpoint.retry.span().as_secs());
    format!("{} attempts over {}", endpoint.retry.max_attempts, humantime::format_duration(seconds))
}

fn print(session: &mut Session<'_>, loaded: &Loaded, plugins: &[PluginView]) -> std::io::Result<()> {
    let console = &mut *session.console;
    console.line(format_args!("settings  {}", loaded.file.display()))?;
    console.line(format_args!("store     {}", loaded.settings.store.path.display()))?;
    console.line(format_args!("plugins   {}", loaded.settings.plugins.dir.display()))?;
    let mut table = Table::new(&["source", "kind"]);
    for SourceSettings { name, kind, .. } in &loaded.settings.sources {
        table.row(vec![plain(name), plain(kind.name())]);
    }
    section(console, &table)?;
    let mut table = Table::new(&["endpoint", "host", "tried"]);
    for endpoint in &loaded.settings.endpoints {
        table.row(vec![plain(&endpoint.name), maybe(endpoint.url.host_str()), plain(span(endpoint))]);
    }
    section(console, &table)?;
    let mut table = Table::new(&["plugin", "state", "subjects"]);
    for plugin in plugins {
        table.row(vec![plain(&plugin.name), state(plugin), plain(plugin.subjects.join(" "))]);
    }
    section(console, &table)?;
    if plugins.iter().all(|plugin| plugin.ok) {
        let coloured = console.coloured();
        console.line(format_args!("\n{}", Look::Good.paint("all is well", coloured)))?;
    }
    Ok(())
}

fn section(console: &mut super::Console, table: &Table) -> std::io::Result<()> {
    console.line("")?;
    table.print(console)
}

fn print_objects(session: &mut Session<'_>, loaded: &Loaded, plugins: &[PluginView]) -> std::io::Result<()> {
    let console = &mut *session.console;
    console.object(&json!({
        "kind": "settings", "file": loaded.file, "store": loaded.settings.store.path,
        "warnings": loaded.warnings.iter().map(|warning| &warning.message).collect::<Vec<_>>(),
    }))?;
    for source in &loaded.settings.sources {
        console.object(&json!({ "kind": "source", "name": source.name, "bus": source.kind.name() }))?;
    }
    for endpoint in &loaded.settings.endpoints {
        console.object(&json!({
            "kind": "endpoint", "name": endpoint.name, "host": endpoint.url.host_str(),
            "max_attempts": endpoint.retry.max_attempts, "span_s": endpoint.retry.span().as_secs_f64(),
        }))?;
    }
    for plugin in plugins {
        let mut object = json!({ "kind": "plugin" });
        if let (Some(object), serde_json::Value::Object(fields)) =
            (object.as_object_mut(), serde_json::to_value(plugin)?)
        {
            object.extend(fields);
        }
        console.object(&object)?;
    }
    Ok(())
}
