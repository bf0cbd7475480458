//! `wirehook plugin …`

mod approve;
pub(super) mod build;
mod forget;
mod new;
mod test;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Subcommand;

use super::Session;
use super::console::Look;
use super::failure::{Exit, Failures};
use super::parts::PluginView;
use super::pause::{self, Change};
use super::table::{Table, maybe, plain, printable};
use crate::settings::Settings;
use crate::store::PauseKind;

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook plugin new orders --lang rust
  wirehook plugin build orders
  wirehook plugin test orders/dist/orders.wasm --events orders/events
  wirehook plugin inspect orders/dist/orders.wasm
  wirehook plugin approve orders/dist/orders.wasm
  wirehook plugin list --json
  wirehook plugin pause orders
  wirehook plugin forget orders --dry-run";

/// Digits of a digest that a list shows.
const DIGEST_LEN_SHOWN: usize = 12;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Write a new project that builds, with its SDK, tests and an event to try
    #[command(after_help = new::EXAMPLE)]
    New(new::NewArgs),
    /// Build a project's .wasm with its language's toolchain, and see that it would run
    #[command(after_help = build::EXAMPLE)]
    Build(build::BuildArgs),
    /// Run a plugin on recorded events, and compare what comes out with golden files
    #[command(after_help = test::EXAMPLE)]
    Test(test::TestArgs),
    /// Say what a file is, imports, exports and asks for, and whether it would run; with --config, what it gets
    #[command(after_help = INSPECT_EXAMPLE)]
    Inspect {
        /// The .wasm file
        file: PathBuf,
    },
    /// Say what changed since a plugin was approved, and print the settings that approve this file
    #[command(after_help = approve::EXAMPLE)]
    Approve(approve::ApproveArgs),
    /// List the files of the plugins folder
    #[command(after_help = LIST_EXAMPLE)]
    List,
    /// Forget a plugin that is gone for good, with its parked runs and what it kept
    #[command(after_help = forget::EXAMPLE)]
    Forget(forget::ForgetArgs),
    /// Have a plugin's runs wait until it is resumed, restarts or not; events go on being accepted for it
    #[command(after_help = PAUSE_EXAMPLE)]
    Pause {
        /// Its name
        name: String,
    },
    /// Have a paused plugin go on with the runs that wait
    #[command(after_help = RESUME_EXAMPLE)]
    Resume {
        /// Its name
        name: String,
    },
}

const INSPECT_EXAMPLE: &str = "\
Examples:
  wirehook plugin inspect dist/orders.wasm
  wirehook plugin inspect plugins/orders.wasm --config /etc/wirehook/wirehook.toml

Without --config, says what the file asks for; with it, what these settings give it.

Exit code: 0 where it would run, else 1.";

const LIST_EXAMPLE: &str = "\
Examples:
  wirehook plugin list
  wirehook plugin list --json";

const PAUSE_EXAMPLE: &str = "\
Example:
  wirehook plugin pause orders

Its runs wait and are not lost; `wirehook plugin resume orders` lets them go on.";

const RESUME_EXAMPLE: &str = "\
Example:
  wirehook plugin resume orders";

pub(super) async fn plugin(session: &mut Session<'_>, command: PluginCommand) -> Result<Exit, Failures> {
    match command {
        PluginCommand::New(args) => new::new(session, &args),
        PluginCommand::Build(args) => build::build(session, args).await,
        PluginCommand::Test(args) => test::test(session, args).await,
        PluginCommand::Inspect { file } => {
            let settings = match &session.global.config {
                Some(_) => Some(session.load()?.settings),
                None => None,
            };
            inspect(session, &session.parts.inspect(&file, settings.as_ref()))
        }
        PluginCommand::Approve(args) => approve::approve(session, &args),
        PluginCommand::Forget(args) => forget::forget(session, args).await,
        PluginCommand::List => {
            let settings = session.load()?.settings;
            let mut plugins = session.parts.scan(&settings)?;
            let paused = paused(session, &settings).await?;
            plugins.iter_mut().for_each(|plugin| plugin.paused = paused.contains(&plugin.name));
            list(session, &plugins)?;
            for lessened in plugins.iter().filter_map(PluginView::lessened) {
                session.console.warning(&lessened);
            }
            for refused in plugins.iter().filter_map(PluginView::refusal) {
                session.console.warning(&refused);
            }
            Ok(Exit::Success)
        }
        PluginCommand::Pause { name } => {
            let meaning = "events are accepted for it as ever, and its runs wait";
            pause::change(session, Change { kind: PauseKind::Plugin, name: &name, paused: true, meaning }).await
        }
        PluginCommand::Resume { name } => {
            let meaning = "the runs that waited are back to work";
            pause::change(session, Change { kind: PauseKind::Plugin, name: &name, paused: false, meaning }).await
        }
    }
}

/// The names of paused plugins. A host that never ran on these settings has paused none.
async fn paused(session: &mut Session<'_>, settings: &Settings) -> Result<BTreeSet<String>, Failures> {
    if !settings.store.path.exists() {
        return Ok(BTreeSet::new());
    }
    let pauses = pause::pauses(session).await?.pauses.into_iter();
    Ok(pauses.filter(|pause| pause.kind == PauseKind::Plugin).map(|pause| pause.name.to_string()).collect())
}

fn inspect(session: &mut Session<'_>, plugin: &PluginView) -> Result<Exit, Failures> {
    if session.console.json {
        session.console.object(plugin)?;
    } else {
        print(session, plugin)?;
    }
    plugin.refusal().map_or(Ok(Exit::Success), |refused| Err(refused.into()))
}

fn print(session: &mut Session<'_>, plugin: &PluginView) -> std::io::Result<()> {
    let mut fields = vec![("name", plugin.name.clone()), ("file", plugin.file.display().to_string())];
    fields.extend(plugin.format.clone().map(|format| ("format", format)));
    fields.extend(plugin.bytes.map(|bytes| ("size", bytesize::ByteSize::b(bytes).display().iec().to_string())));
    fields.extend(plugin.digest.clone().map(|digest| ("sha256", digest)));
    for (key, values) in [
        ("subjects", &plugin.subjects),
        ("endpoints", &plugin.endpoints),
        ("grants", &plugin.grants),
        ("imports", &plugin.imports),
        ("exports", &plugin.exports),
    ] {
        fields.extend((!values.is_empty()).then(|| (key, values.join(", "))));
    }
    for (key, value) in &fields {
        session.console.line(format_args!("{key:<10}{}", printable(value)))?;
    }
    for (name, value) in &plugin.limits {
        session.console.line(format_args!("{:<10}{name} {value}{}", "limit", lessened(plugin, name)))?;
    }
    if plugin.ok {
        let verdict = Look::Good.paint("it would run", session.console.coloured());
        session.console.line(format_args!("{:<10}{verdict}", "verdict"))?;
    }
    Ok(())
}

/// What is asked for, where it is more than what is granted.
fn lessened(plugin: &PluginView, name: &String) -> String {
    match plugin.limits_asked.get(name) {
        Some(asked) if plugin.limits_lessened.contains(name) => format!(", though it asks for {asked}"),
        _ => String::new(),
    }
}

fn list(session: &mut Session<'_>, plugins: &[PluginView]) -> std::io::Result<()> {
    if session.console.json {
        return plugins.iter().try_for_each(|plugin| session.console.object(plugin));
    }
    let mut table = Table::new(&["plugin", "state", "sha256", "subjects", "endpoints"]);
    for plugin in plugins {
        table.row(vec![
            plain(&plugin.name),
            state(plugin),
            maybe(plugin.digest.as_ref().map(|digest| digest.chars().take(DIGEST_LEN_SHOWN).collect::<String>())),
            plain(plugin.subjects.join(" ")),
            plain(plugin.endpoints.join(" ")),
        ]);
    }
    table.print_or("no plugins", session.console)
}

/// Whether it would run, as a cell.
pub(super) fn state(plugin: &PluginView) -> (String, Look) {
    match plugin {
        PluginView { ok: false, .. } => ("refused".to_owned(), Look::Bad),
        PluginView { paused: true, .. } => ("paused".to_owned(), Look::Uneasy),
        _ => ("ok".to_owned(), Look::Good),
    }
}
