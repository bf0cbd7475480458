//! `wirehook dev`

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::json;
use url::Url;

use super::console::Look;
use super::failure::{Exit, Failures};
use super::parts::{
    Begun, Called, DevNews, DevOptions, Forwarded, ForwardedOutcome, Rebuilt, Received, SourceArguments, Unrouted,
};
use super::plugin::build;
use super::receive;
use super::scheme::{SchemeArgs, secret_of_variable};
use super::table::{counted, printable};
use super::{Console, Session};
use crate::settings::SignatureScheme;
use crate::settings::encoded::http_url;

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook dev --plugin orders.wasm --source nats://localhost:4222
  wirehook dev --plugin orders.wasm --source http://127.0.0.1:7466 \\
    --forward-to http://localhost:3000
  wirehook dev --plugin orders.wasm --source nats://localhost:4222 --stream FRAISEQL --start all
  wirehook dev --plugin orders.wasm --source redis://localhost:6379 --channel 'fraiseql.*'
  wirehook dev --plugin orders.wasm --source postgres://me:pw@localhost/app \\
    --channel fraiseql_events
  wirehook dev --plugin orders.wasm --source - < events.jsonl
  wirehook dev --watch orders --source http://127.0.0.1:7466

No settings, no store that stays: a folder of its own, gone at the end. It never takes events from \
others: its queue group, consumer or group is new and goes with it. Ctrl-C finishes what is in \
flight and removes all of it; a second one stops at once.";

/// Its own lines tell of every attempt.
pub(super) const LOG_LEVEL_DEFAULT: &str = "info,wirehook::dispatcher=off";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what runs").args(["plugins", "watch"]).required(true).multiple(true))]
pub(super) struct DevArgs {
    /// A plugin's file; its sidecar beside it is used, and every endpoint in that goes to one place
    #[arg(long = "plugin", value_name = "FILE")]
    plugins: Vec<PathBuf>,
    /// A plugin's project: build it, and again whenever its sources change [default: the present folder]
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = ".")]
    watch: Option<PathBuf>,
    /// The bus: nats://…, redis://…, postgres://…, http://127.0.0.1:PORT to post to, or -
    #[arg(long, value_name = "URL")]
    source: String,
    /// Where webhooks go [default: they are received here, verified and printed]
    #[arg(long, value_name = "URL", value_parser = forward_to)]
    forward_to: Option<Url>,
    /// What a plugin with the grant `http` may call: every URL that begins so
    #[arg(long = "allow-http", value_name = "URL", value_parser = forward_to)]
    allow_http: Vec<Url>,
    /// NATS: the subjects [default: fraiseql.>; of a stream, all]
    #[arg(long = "subject", value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// NATS: the stream, for JetStream; Redis: the stream's key
    #[arg(long = "stream", value_name = "NAME")]
    streams: Vec<String>,
    /// Redis: the channels or patterns [default: fraiseql.*]; PostgreSQL: those to listen on [default: fraiseql_events]
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,
    /// PostgreSQL: the outbox to read
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Streams and the outbox: new, all, or a time [default: new]
    #[arg(long, value_name = "START")]
    start: Option<String>,
    #[command(flatten)]
    scheme: SchemeArgs,
    /// The environment variable with the signing secret [default: a new secret, which is printed]
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
}

pub(super) fn forward_to(text: &str) -> Result<Url, String> {
    let url = http_url(text).map_err(|what| format!("it {what}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("its scheme is neither http nor https".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has credentials in it, which would end up in logs".to_owned());
    }
    Ok(url)
}

pub(super) async fn dev(session: &mut Session<'_>, args: DevArgs) -> Result<Exit, Failures> {
    let secret = args.secret_env.as_deref().map(|name| secret_of_variable(session.environment, name)).transpose()?;
    let source = SourceArguments {
        source: args.source,
        subjects: args.subjects,
        streams: args.streams,
        channels: args.channels,
        table: args.table,
        start: args.start,
    };
    let mut plugins = args.plugins;
    let watch = match args.watch {
        Some(folder) => {
            let (project, built) = build::in_folder(folder, None).await?;
            plugins.push(built.file);
            Some(project)
        }
        None => None,
    };
    let options = DevOptions {
        plugins,
        watch,
        source,
        forward_to: args.forward_to,
        allow_http: args.allow_http,
        scheme: args.scheme.scheme()?,
        secret,
    };
    let console = &mut *session.console;
    let mut unprinted = None;
    let mut number = 0;
    let mut print = |news: &DevNews| {
        if let Err(error) = print(console, &mut number, news) {
            unprinted.get_or_insert(error);
        }
    };
    let report = session.parts.dev(options, &mut print).await?;
    if let Some(error) = unprinted {
        return Err(error.into());
    }
    if session.console.json {
        session.console.object(&json!({ "kind": "ended", "dead_letters": report.dead_letters }))?;
    } else {
        let dead = counted(report.dead_letters, "dead letter", "dead letters");
        session.console.line(format_args!("stopped, with {dead}; what it made is removed"))?;
    }
    Ok(Exit::Success)
}

/// At once: somebody is watching.
fn print(console: &mut Console, number: &mut u64, news: &DevNews) -> io::Result<()> {
    match news {
        DevNews::Begun(begun) => print_begun(console, begun)?,
        DevNews::Ready if console.json => console.object(&json!({ "kind": "ready" }))?,
        DevNews::Ready => console.line(Look::Good.paint("ready for events", console.coloured()))?,
        DevNews::Received(received) => {
            *number += 1;
            let received = Received::view(*number, received);
            if console.json {
                console.object(&json!({ "kind": "webhook", "webhook": received }))?;
            } else {
                receive::print(console, &received)?;
            }
        }
        DevNews::Called(called) => print_called(console, called)?,
        DevNews::Unrouted(unrouted) => print_unrouted(console, unrouted)?,
        DevNews::Rebuilt(rebuilt) => print_rebuilt(console, rebuilt)?,
        DevNews::Attempted(forwarded) => print_forwarded(console, forwarded)?,
    }
    console.flush()
}

fn print_begun(console: &mut Console, begun: &Begun) -> io::Result<()> {
    let secret = begun.secret.as_ref().map(|secret| String::from_utf8_lossy(secret.expose()));
    if console.json {
        return console.object(&json!({
            "kind": "begun", "source": begun.kind, "bus": begun.bus, "plugins": begun.plugins,
            "forward_to": begun.forward_to, "signature": begun.scheme.name(), "secret": secret, "config": begun.config,
        }));
    }
    console.line(format_args!("events    {}", printable(&begun.bus)))?;
    console.line(format_args!("plugins   {}", begun.plugins.join(", ")))?;
    console.line(format_args!("webhooks  {}", begun.forward_to))?;
    match begun.scheme.chosen_header() {
        Some(header) => console.line(format_args!("signed    {} in {header}", begun.scheme.name()))?,
        None => console.line(format_args!("signed    {}", begun.scheme.name()))?,
    }
    match secret {
        Some(secret) => console.line(format_args!("secret    {secret}"))?,
        None if begun.scheme == SignatureScheme::None => {}
        None => console.line("secret    the one of --secret-env")?,
    }
    console.line(format_args!("look      wirehook status --config {}", begun.config.display()))
}

fn print_called(console: &mut Console, called: &Called) -> io::Result<()> {
    let Called { plugin, plugin_digest, event_key, subject, attempt, result, duration, memory_peak_bytes } = called;
    if console.json {
        return console.object(&json!({
            "kind": "called", "plugin": plugin, "plugin_digest": plugin_digest, "event_key": event_key,
            "subject": subject, "attempt": attempt, "webhooks": result.as_ref().ok(), "error": result.as_ref().err(),
            "duration_s": duration.as_secs_f64(), "memory_peak_bytes": memory_peak_bytes,
        }));
    }
    let (outcome, look) = match result {
        Ok(0) => ("filtered".to_owned(), Look::Plain),
        Ok(count) => (counted(*count as u64, "webhook", "webhooks"), Look::Good),
        Err(error) => (printable(error), Look::Bad),
    };
    let outcome = look.paint(&outcome, console.coloured());
    let (subject, millis) = (printable(subject), duration.as_secs_f64() * 1e3);
    let memory = bytesize::ByteSize::b(*memory_peak_bytes as u64).display().iec();
    console.line(format_args!("{subject} → {plugin} attempt {attempt}, {millis:.2} ms, {memory}: {outcome}"))
}

fn print_unrouted(console: &mut Console, unrouted: &Unrouted) -> io::Result<()> {
    let Unrouted { event_key, subject, subscribed } = unrouted;
    if console.json {
        let subscribed: BTreeMap<_, _> = subscribed.iter().map(|(plugin, subjects)| (plugin, subjects)).collect();
        return console.object(&json!({
            "kind": "unrouted", "event_key": event_key, "subject": subject, "subscribed": subscribed,
        }));
    }
    let takes: Vec<_> = subscribed
        .iter()
        .map(|(plugin, subjects)| format!("{plugin} takes {}", printable(&subjects.join(", "))))
        .collect();
    let no_one = Look::Uneasy.paint("no plugin wants it", console.coloured());
    console.line(format_args!("{}: {no_one}; {}", printable(subject), takes.join("; ")))
}

fn print_rebuilt(console: &mut Console, rebuilt: &Rebuilt) -> io::Result<()> {
    let Rebuilt { plugin, duration, error } = rebuilt;
    if console.json {
        return console.object(&json!({
            "kind": "rebuilt", "plugin": plugin, "duration_s": duration.as_secs_f64(), "error": error,
        }));
    }
    let (text, look) = match error {
        None => (format!("built {plugin} again in {:.1} s", duration.as_secs_f64()), Look::Good),
        Some(error) => (format!("{plugin} was not built, the last one serves on: {}", printable(error)), Look::Bad),
    };
    console.line(look.paint(&text, console.coloured()))
}

fn print_forwarded(console: &mut Console, forwarded: &Forwarded) -> io::Result<()> {
    let Forwarded { plugin, endpoint, webhook_id, attempt, status, error, duration, outcome } = forwarded;
    if console.json {
        let (outcome, due_at, reason) = match outcome {
            ForwardedOutcome::Delivered => ("delivered", None, None),
            ForwardedOutcome::Retried { due_at, .. } => ("retrying", Some(due_at), None),
            ForwardedOutcome::Dead(reason) => ("dead", None, Some(reason.as_str())),
        };
        return console.object(&json!({
            "kind": "attempt", "plugin": plugin, "endpoint": endpoint, "webhook_id": webhook_id, "attempt": attempt,
            "status": status, "error": error, "duration_s": duration.as_secs_f64(), "outcome": outcome,
            "due_at": due_at, "reason": reason,
        }));
    }
    let (word, look) = match outcome {
        ForwardedOutcome::Delivered => ("delivered".to_owned(), Look::Good),
        ForwardedOutcome::Retried { after, .. } => {
            (format!("tried again in {}", humantime::format_duration(*after)), Look::Uneasy)
        }
        ForwardedOutcome::Dead(reason) => (format!("dead letter: {reason}"), Look::Bad),
    };
    let answer = match (status, error) {
        (Some(status), _) => status.to_string(),
        (None, Some(error)) => printable(error),
        (None, None) => "no answer".to_owned(),
    };
    let word = look.paint(&word, console.coloured());
    let millis = duration.as_millis();
    console.line(format_args!("{answer} {plugin} → {endpoint} {webhook_id} attempt {attempt}, {millis} ms: {word}"))
}
