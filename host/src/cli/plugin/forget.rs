//! `wirehook plugin forget`

use clap::Args;

use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::pause::{PLUGINS_NONE, pauses};
use crate::cli::table::{counted, printable};
use crate::ops::{Reply, Request};
use crate::store::{Forgotten, ParkedFate};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook plugin forget orders --dry-run
  wirehook plugin forget orders
  wirehook plugin forget orders --discard --yes

For a plugin that will not come back: remove its file first. Its parked runs become dead letters, \
with the reason plugin_forgotten, or are discarded; what it kept is deleted, and no event is \
accepted for it any more. Should its file come back, it is a new plugin.";

#[derive(Debug, Args)]
pub(in crate::cli) struct ForgetArgs {
    /// Its name: the file's without .wasm
    name: String,
    /// Discard its parked runs: they are no dead letters then, and can't be redriven
    #[arg(long)]
    discard: bool,
    /// Only say what would become of it
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn forget(session: &mut Session<'_>, args: ForgetArgs) -> Result<Exit, Failures> {
    let name = printable(&args.name);
    let (plugins, _) = crate::settings::load_plugins(session.global.config.as_deref(), session.environment)?;
    if plugins.dir.join(format!("{}.wasm", args.name)).exists() {
        let failure = Failure::new(format!("the file of plugin `{name}` is in the plugins folder"));
        return Err(failure.help("remove it first: a plugin that is there is not forgotten").into());
    }
    let would = ask(session, Request::WouldForget { plugin: args.name.as_str().into() }).await?;
    if !would.is_something() {
        return Err(unknown(session, &args.name).await?.into());
    }
    if args.dry_run {
        tell(session, &format!("`{name}` would be forgotten"), args.discard, &would)?;
        return Ok(Exit::Success);
    }
    if !args.yes {
        session.may_ask(&format!("`{name}` would be forgotten, with {}", all(&would)))?;
        let what = if args.discard { "is discarded" } else { "becomes a dead letter" };
        let question =
            format!("Forget `{name}` with {}, so that each run {what} and each key is deleted?", all(&would));
        if !session.confirm(&question)? {
            return Err(Failure::new("not confirmed: nothing was done").into());
        }
    }
    let fate = if args.discard { ParkedFate::Discard } else { ParkedFate::Die };
    let forgotten = ask(session, Request::ForgetPlugin { plugin: args.name.as_str().into(), fate }).await?;
    if !forgotten.is_something() {
        return Err(unknown(session, &args.name).await?.into());
    }
    tell(session, &format!("`{name}` is forgotten"), args.discard, &forgotten)?;
    if forgotten.in_flight > 0 && !session.console.json {
        let runs = counted(forgotten.in_flight, "run is", "runs are");
        session.console.line(format_args!("{runs} still at work, and parked when that ends: forget it again then"))?;
    }
    Ok(Exit::Success)
}

async fn ask(session: &mut Session<'_>, request: Request) -> Result<Forgotten, Failures> {
    let replies = session.ask(request).await?;
    let forgotten = replies.into_iter().find_map(|reply| match reply {
        Reply::Forgotten(forgotten) => Some(forgotten),
        _ => None,
    });
    Ok(forgotten.unwrap_or_default())
}

async fn unknown(session: &mut Session<'_>, name: &str) -> Result<Failure, Failures> {
    let known = pauses(session).await?.plugins;
    Ok(Failure::unknown("plugin", name, &known, PLUGINS_NONE))
}

fn all(forgotten: &Forgotten) -> String {
    let runs = counted(forgotten.runs, "parked run", "parked runs");
    let keys = counted(forgotten.keys, "key that it kept", "keys that it kept");
    format!("{runs} and {keys}")
}

fn tell(session: &mut Session<'_>, done: &str, discard: bool, forgotten: &Forgotten) -> std::io::Result<()> {
    if session.console.json {
        return session.console.object(forgotten);
    }
    let runs = counted(forgotten.runs, "parked run", "parked runs");
    let what = if discard { "discarded" } else { "made dead letters" };
    let keys = counted(forgotten.keys, "key that it kept", "keys that it kept");
    session.console.line(format_args!("{done}: {runs} {what}, {keys} deleted"))
}
