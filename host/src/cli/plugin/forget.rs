//! `wirehook plugin forget`

use clap::Args;

use crate::cli::Session;
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::table::{counted, printable};
use crate::ops::{Reply, Request};
use crate::store::{Forgotten, ParkedFate};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook plugin forget orders
  wirehook plugin forget orders --discard --yes

For a plugin that will not come back: remove its file first. Its parked runs become dead letters, with the reason
plugin_forgotten, or are discarded; what it kept is deleted, and no event is accepted for it any more. Should its file come
back, it is a new plugin.";

#[derive(Debug, Args)]
pub(in crate::cli) struct ForgetArgs {
    /// Its name: the file's without .wasm
    name: String,
    /// Discard its parked runs: they are no dead letters then, and can't be redriven
    #[arg(long)]
    discard: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) async fn forget(session: &mut Session<'_>, args: ForgetArgs) -> Result<Exit, Failures> {
    let fate = if args.discard { ParkedFate::Discard } else { ParkedFate::Die };
    let name = printable(&args.name);
    let (plugins, _) = crate::settings::load_plugins(session.global.config.as_deref(), session.environment)?;
    if plugins.dir.join(format!("{}.wasm", args.name)).exists() {
        let failure = Failure::new(format!("the file of plugin `{name}` is in the plugins folder"));
        return Err(failure.help("remove it first: a plugin that is there is not forgotten").into());
    }
    if !args.yes {
        let parked = parked(session, &args.name).await?;
        session.may_ask()?;
        let what = if args.discard { "are discarded" } else { "become dead letters" };
        let runs = counted(parked, "parked run", "parked runs");
        if !session.confirm(&format!("Forget `{name}`, so that {runs} {what} and what it kept is deleted?"))? {
            return Err(Failure::new("not confirmed: nothing was done").into());
        }
    }
    let replies = session.ask(Request::ForgetPlugin { plugin: args.name.as_str().into(), fate }).await?;
    let forgotten = replies.into_iter().find_map(|reply| match reply {
        Reply::Forgotten(forgotten) => Some(forgotten),
        _ => None,
    });
    tell(session, &name, args.discard, forgotten.unwrap_or_default())
}

async fn parked(session: &mut Session<'_>, plugin: &str) -> Result<u64, Failures> {
    let replies = session.ask(Request::Status).await?;
    let runs = replies.iter().filter_map(|reply| match reply {
        Reply::Status(status) => Some(&status.store.runs),
        _ => None,
    });
    let parked = runs.flatten().filter(|row| row.plugin == plugin && row.state == "parked");
    Ok(parked.map(|row| row.count).sum())
}

fn tell(session: &mut Session<'_>, name: &str, discard: bool, forgotten: Forgotten) -> Result<Exit, Failures> {
    if !forgotten.known && forgotten.runs == 0 {
        let failure = Failure::new(format!("there is no plugin `{name}` to forget"));
        return Err(failure.help("`wirehook status` shows those that have runs").into());
    }
    if session.console.json {
        session.console.object(&forgotten)?;
        return Ok(Exit::Success);
    }
    let runs = counted(forgotten.runs, "parked run", "parked runs");
    let what = if discard { "discarded" } else { "made dead letters" };
    session.console.line(format_args!(
        "`{name}` is forgotten: {runs} {what}, {} deleted",
        counted(forgotten.keys, "key that it kept", "keys that it kept")
    ))?;
    if forgotten.in_flight > 0 {
        let runs = counted(forgotten.in_flight, "run is", "runs are");
        session.console.line(format_args!("{runs} still at work, and parked when that ends: forget it again then"))?;
    }
    Ok(Exit::Success)
}
