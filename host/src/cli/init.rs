//! `wirehook init`

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use url::Url;

use super::Session;
use super::dev::forward_to;
use super::failure::{Exit, Failure, Failures};
use super::parts::SourceArguments;
use crate::init::{Answers, EVENTS_DEFAULT, SECRET_FILE, SOURCE_DEFAULT, TO_DEFAULT, Written, settings};
use crate::settings::load::FILE_NAME;
use crate::settings::{Environment, SignatureScheme, parse};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook init
  wirehook init --to https://example.com/hooks
  wirehook init --source nats://localhost:4222 --stream EVENTS --events 'invoice.*' \\
    --to https://example.com/hooks

What no option says is asked on a terminal; elsewhere, events come over http, all of them are taken, \
and webhooks go to http://127.0.0.1:8080/hooks, where `wirehook receive` listens. It writes the settings \
file (--config names another) and a signing secret beside it, and never overwrites either.";

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Where events come from: http://127.0.0.1:PORT to post to, nats://…, redis://…, postgres://…, or - for standard input
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// Which events: their types or subjects, * for one token, > for the rest; several times for several
    #[arg(long = "events", value_name = "PATTERN")]
    events: Vec<String>,
    /// Where webhooks go
    #[arg(long, value_name = "URL", value_parser = forward_to)]
    to: Option<Url>,
    /// NATS: the stream, for JetStream; Redis: the stream's key
    #[arg(long = "stream", value_name = "NAME")]
    streams: Vec<String>,
    /// Redis: the channels or patterns; PostgreSQL: those to listen on
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
    /// PostgreSQL: the outbox to read
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
}

pub(super) fn init(session: &mut Session<'_>, args: InitArgs) -> Result<Exit, Failures> {
    let file = session.global.config.clone().unwrap_or_else(|| PathBuf::from(FILE_NAME));
    if file.exists() {
        let failure = Failure::new(format!("{} is there already, and is left as it is", file.display()));
        return Err(failure.help("change it by hand, or name another file with --config FILE").into_usage());
    }
    let answers = answers(session, args)?;
    let written = settings(&answers)
        .map_err(|error| Failure::new(error.to_string()).help("see `wirehook init --help`").into_usage())?;
    let secret = file.with_file_name(SECRET_FILE);
    let made_secret = write_secret(&secret)?;
    let checked = check(&file, &written).and_then(|()| write_new(&file, &written.text, 0o644));
    if let Err(failures) = checked {
        if made_secret {
            // Nothing is left of what was not done.
            let _ = fs::remove_file(&secret);
        }
        return Err(failures);
    }
    tell(session, &file, &secret, &answers, &written)?;
    Ok(Exit::Success)
}

fn answers(session: &mut Session<'_>, args: InitArgs) -> Result<Answers, Failures> {
    let source = match args.source {
        Some(source) => source,
        None => session
            .console
            .ask("Where do events come from (http://…, nats://…, redis://…, postgres://…)?", SOURCE_DEFAULT)?,
    };
    let events = match args.events.is_empty() {
        false => args.events,
        true => {
            let events = session.console.ask("Which events (types such as invoice.*, > for all)?", EVENTS_DEFAULT)?;
            events.split([',', ' ']).filter(|pattern| !pattern.is_empty()).map(str::to_owned).collect()
        }
    };
    let to = match args.to {
        Some(to) => to,
        None => {
            let to = session.console.ask("Where do webhooks go?", TO_DEFAULT)?;
            forward_to(&to).map_err(|what| Failure::new(format!("`{to}` is no endpoint: {what}")).into_usage())?
        }
    };
    let (streams, channels, table) = (args.streams, args.channels, args.table);
    let source = SourceArguments { source, streams, channels, table, ..SourceArguments::default() };
    Ok(Answers { source, events, to })
}

/// What is written would run, but for what variables are to hold.
fn check(file: &Path, written: &Written) -> Result<(), Failures> {
    let variables: Vec<_> = written.variables.iter().map(|(name, _)| (*name, "to be set")).collect();
    let folder = file.parent().unwrap_or(Path::new("."));
    let checked = parse(file, &written.text, &Environment::of(&variables, folder));
    checked.map(drop).map_err(|error| {
        let mut failures = Failures::from(error);
        // The file is not there to be looked at.
        failures.failures.iter_mut().for_each(|failure| failure.at = None);
        failures
    })
}

/// A new secret, where there is none yet. Returns whether it was made.
fn write_secret(file: &Path) -> Result<bool, Failures> {
    if file.exists() {
        return Ok(false);
    }
    let secret = crate::dev::new_secret(&SignatureScheme::StandardWebhooks)?;
    write_new(file, &String::from_utf8_lossy(secret.expose()), 0o600)?;
    Ok(true)
}

fn write_new(file: &Path, text: &str, mode: u32) -> Result<(), Failures> {
    let write = || -> io::Result<()> {
        let mut written = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        written.write_all(text.as_bytes())
    };
    write().map_err(|error| {
        let failure = Failure::new(format!("{} can't be written: {error}", file.display()));
        failure.help("name a file in a folder that this user may write, with --config FILE").into()
    })
}

fn tell(session: &mut Session<'_>, file: &Path, secret: &Path, answers: &Answers, written: &Written) -> io::Result<()> {
    let console = &mut *session.console;
    if console.json {
        let variables: Vec<_> = written.variables.iter().map(|(name, _)| *name).collect();
        return console.object(&json!({ "settings": file, "secret": secret, "variables": variables }));
    }
    console.line(format_args!("wrote {} and {}", file.display(), secret.display()))?;
    for (name, what) in &written.variables {
        console.line(format_args!("set ${name} to {what}"))?;
    }
    let config = if file == Path::new(FILE_NAME) { String::new() } else { format!(" --config {}", file.display()) };
    console.line("next:")?;
    if answers.to.as_str() == TO_DEFAULT {
        let secret = secret.display();
        console.line(format_args!("  wirehook receive --scheme standard-webhooks --secret-file {secret}"))?;
    }
    console.line(format_args!("  wirehook run{config}"))?;
    if answers.source.source == SOURCE_DEFAULT {
        console.line(format_args!(
            "  curl -H 'content-type: application/json' -d '{{\"type\": \"invoice.paid\", \"data\": {{\"total\": 99}}}}' {SOURCE_DEFAULT}/events"
        ))?;
    }
    Ok(())
}
