//! `wirehook config …`

use clap::Subcommand;
use serde_json::{Value, json};

use super::failure::{Exit, Failures};
use super::table::{Table, plain};
use super::{Observers, Session};

pub(super) const EXAMPLE: &str = "\
Example:
  wirehook config show --config wirehook.toml --json";

#[derive(Clone, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every effective value with its origin, secrets redacted
    #[command(after_help = EXAMPLE)]
    Show(Observers),
}

pub(super) fn config(session: &mut Session<'_>, command: ConfigCommand) -> Result<Exit, Failures> {
    let ConfigCommand::Show(observers) = command;
    let loaded = session.load_observed(&observers)?;
    if session.console.json {
        for shown in &loaded.shown {
            let origin = shown.origin.to_string();
            session.console.object(&json!({ "key": shown.key, "value": shown.value, "origin": origin }))?;
        }
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["key", "value", "origin"]);
    for shown in &loaded.shown {
        table.row(vec![plain(&shown.key), plain(written(&shown.value)), plain(&shown.origin)]);
    }
    table.print(session.console)?;
    Ok(Exit::Success)
}

/// A value as it would be written, without the quotes around a single string.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(written).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
