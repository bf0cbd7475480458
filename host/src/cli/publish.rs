//! `wirehook publish`

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::failure::{Exit, Failure, Failures};
use super::parts::{PublishReport, Routed};
use super::pause::SOURCES_NONE;
use super::table::{counted, printable};
use super::{Console, Observers, Session};
use crate::encoding;
use crate::publish::compose::{Happening, OPERATIONS, Said, compose};
use crate::publish::input::{INPUT_BYTES_MAX, MISTAKES_TOLD_MAX, Mistake, Rules, read};
use crate::publish::{Outgoing, bus, route};
use crate::settings::{LoadedSources, SourceKind, SourceSettings, load_sources};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook publish order.created --entity '{\"customer_email\": \"ada@example.com\", \"total\": 129.5}'
  wirehook publish order.updated --entity @order.json --count 1000
  wirehook publish events.jsonl --source bus
  generate-events | wirehook publish -

A file has JSON lines, an array of events, or events over several lines each, and is checked whole \
before anything is sent. Everybody who is subscribed gets the events, not only your host.

Exit code: 0 when the bus has every event, 2 for settings, arguments and mistakes in the input, \
1 otherwise.";

/// The most events of one `--count`.
const COUNT_MAX: u64 = 1_000_000;

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// A file of events, - for standard input, or what happened: order.created
    #[arg(value_name = "FILE|-|EVENT")]
    what: String,
    /// The entity that it happened to, as JSON; @FILE reads it from a file
    #[arg(long, value_name = "JSON")]
    entity: Option<String>,
    /// The entity's id [default: the entity's own `id`, else a new one for each event]
    #[arg(long, value_name = "ID")]
    entity_id: Option<String>,
    /// Whose it is
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// How many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    count: Option<u64>,
    /// The source whose bus is published to [default: the only one]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The NATS subject or the Redis channel [default: fraiseql.{entity_type}.{operation}]
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Send each line as it is, whatever it is
    #[arg(long, conflicts_with_all = ["entity", "entity_id", "tenant", "count"])]
    raw: bool,
    #[command(flatten)]
    observers: Observers,
}

pub(super) async fn publish(session: &mut Session<'_>, args: PublishArgs) -> Result<Exit, Failures> {
    let loaded =
        load_sources(session.global.config.as_deref(), args.observers.observers.as_deref(), session.environment)?;
    let source = chosen(&loaded, args.source.as_deref())?;
    if matches!(source.kind, SourceKind::Stdin) {
        let message = format!("source `{}` reads standard input, which nobody else can publish to", source.name);
        return Err(Failure::new(message)
            .help("pipe the events into the host: wirehook run < events.jsonl")
            .into_usage());
    }
    if args.subject.is_some() && !route::has_subjects(&source.kind) {
        let message = format!("--subject says nothing to source `{}` of kind {}", source.name, source.kind.name());
        return Err(Failure::new(message).help("leave it out").into_usage());
    }
    let events = events(session, &args, source, loaded.limits.event_bytes_max)?;
    let routed = route::route(source, events).map_err(|mistakes| mistaken(&args.what, &mistakes))?;
    if routed.is_empty() {
        return Err(Failure::new(format!("there is no event in {}", named(&args.what))).into_usage());
    }
    let report = send(session, source, routed).await?;
    print(session.console, source, &report)?;
    Ok(Exit::Success)
}

fn chosen<'a>(loaded: &'a LoadedSources, name: Option<&str>) -> Result<&'a SourceSettings, Failures> {
    let names = loaded.sources.iter().map(|source| format!("{} ({})", source.name, source.kind.name()));
    let names: Vec<String> = names.collect();
    let failure = match (name, loaded.sources.as_slice()) {
        (_, []) => Failure {
            at: Some(loaded.file.display().to_string()),
            ..Failure::new("no [[source]] is configured: there is no bus to publish to")
        }
        .help("add one, or take the one of FraiseQL's file with --observers fraiseql.toml"),
        (None, [only]) => return Ok(only),
        (None, _) => Failure::new("there are several sources, and nothing says which is meant")
            .help(format!("name one with --source: {}", names.join(", "))),
        (Some(name), sources) => match sources.iter().find(|source| *source.name == *name) {
            Some(source) => return Ok(source),
            None => Failure::unknown("source", name, &names, SOURCES_NONE),
        },
    };
    Err(failure.into_usage())
}

/// The events that the arguments mean: a file's, standard input's, or new ones.
fn events(
    session: &Session<'_>,
    args: &PublishArgs,
    source: &SourceSettings,
    event_bytes_max: usize,
) -> Result<Vec<Outgoing>, Failures> {
    let rules = Rules { raw: args.raw, fields: &source.fields, event_bytes_max, subject: args.subject.as_deref() };
    let composed = args.entity.is_some() || args.entity_id.is_some() || args.tenant.is_some() || args.count.is_some();
    let is_input = args.what == "-" || Path::new(&args.what).exists();
    if !composed && is_input {
        let input = input(&args.what)?;
        return read(&input, rules).map_err(|mistakes| mistaken(&args.what, &mistakes));
    }
    let Some(happening) = Happening::of(&args.what) else { return Err(neither(&args.what, composed)) };
    let said = Said {
        entity: args.entity.as_deref().map(entity).transpose()?,
        entity_id: args.entity_id.clone(),
        tenant: args.tenant.clone(),
    };
    let now = session.parts.clock().now();
    // As for jitter: nobody needs these to be hard to guess, only to differ.
    let mut rng = fastrand::Rng::with_seed(now.0.unsigned_abs() ^ (u64::from(std::process::id()) << 32));
    let mut events = compose(&happening, &said, args.count.unwrap_or(1), now, &mut rng);
    for event in &mut events {
        if event.payload.len() > event_bytes_max {
            let size = event.payload.len();
            let message = format!("the event has {size} bytes, and the host takes {event_bytes_max} ([limits] event)");
            return Err(Failure::new(message).into_usage());
        }
        event.subject = args.subject.clone().or(event.subject.take());
    }
    Ok(events)
}

fn input(what: &str) -> Result<Bytes, Failures> {
    let unread = |error: std::io::Error| Failure::new(format!("{} can't be read: {error}", named(what))).into_usage();
    let reader: Box<dyn Read> = match what {
        "-" => Box::new(std::io::stdin().lock()),
        file => Box::new(std::fs::File::open(file).map_err(unread)?),
    };
    let mut input = Vec::new();
    reader.take(INPUT_BYTES_MAX as u64 + 1).read_to_end(&mut input).map_err(unread)?;
    if input.len() > INPUT_BYTES_MAX {
        let message = format!("{} has more than {} MiB", named(what), INPUT_BYTES_MAX >> 20);
        return Err(Failure::new(message).help("publish it in parts, for example with `split --lines`").into_usage());
    }
    Ok(input.into())
}

fn entity(text: &str) -> Result<Value, Failures> {
    let json = match text.strip_prefix('@') {
        Some(file) => {
            let bytes = input(file)?;
            let text = encoding::text(&bytes);
            text.map_err(|error| Failure::new(format!("{file} {error}")).into_usage())?.to_owned()
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&json).map_err(|error| {
        let help = "write it in single quotes: --entity '{\"total\": 129.5}', or in a file: --entity @order.json";
        Failure::new(format!("--entity is not JSON: {error}")).help(help).into_usage()
    })
}

fn neither(what: &str, composed: bool) -> Failures {
    let what = printable(what);
    let help = format!("an event is written as type.operation; the operations are {}", OPERATIONS.join(", "));
    let failure = if composed {
        Failure::new(format!("`{what}` does not say what happened")).help(help)
    } else {
        Failure::new(format!("`{what}` is no file that is there, and no event such as order.created")).help(help)
    };
    failure.into_usage()
}

fn mistaken(what: &str, mistakes: &[Mistake]) -> Failures {
    let told = mistakes.iter().take(MISTAKES_TOLD_MAX).map(|mistake| Failure {
        at: Some(format!("{}:{}", if what == "-" { "standard input" } else { what }, mistake.line)),
        ..Failure::new(mistake.problem.clone())
    });
    let mut failures: Vec<_> = told.collect();
    if mistakes.len() > MISTAKES_TOLD_MAX {
        failures.push(Failure::new(format!("and {} more", mistakes.len() - MISTAKES_TOLD_MAX)));
    }
    if let Some(last) = failures.last_mut() {
        last.help = Some("nothing was published; mend the events, or send lines as they are with --raw".to_owned());
    }
    Failures { failures, exit: Exit::Usage }
}

async fn send(
    session: &mut Session<'_>,
    source: &SourceSettings,
    events: Vec<Routed>,
) -> Result<PublishReport, Failures> {
    let all = events.len() as u64;
    let bar = session.console.progress(all);
    let mut reached = 0;
    let mut progress = |report: &PublishReport| {
        reached = report.published;
        bar.set_position(reached);
    };
    let sent = session.parts.publish(source, events, &mut progress).await;
    bar.finish_and_clear();
    sent.map_err(|mut failures| {
        if let (Some(failure), true) = (failures.failures.first_mut(), reached > 0) {
            let reached = format!("it has {reached} of {all} events for certain");
            failure.help =
                Some(failure.help.take().map_or_else(|| reached.clone(), |help| format!("{help}; {reached}")));
        }
        failures
    })
}

fn print(console: &mut Console, source: &SourceSettings, report: &PublishReport) -> Result<(), Failures> {
    if let Some(unheard) = report.unheard.filter(|unheard| *unheard > 0) {
        let events = counted(unheard, "event", "events");
        let warning = Failure::new(format!("nobody is subscribed: {events} reached nobody, and the bus keeps nothing"));
        console.warning(&warning.help("start the host first: wirehook run"));
    }
    if report.duplicates > 0 {
        let events = counted(report.duplicates, "event was", "events were");
        console.warning(&Failure::new(format!("{events} there already, and taken for the same")));
    }
    if console.json {
        return Ok(console.object(&json!({
            "source": source.name, "kind": source.kind.name(), "published": report.published, "bytes": report.bytes,
            "destinations": report.destinations, "unheard": report.unheard, "duplicates": report.duplicates,
        }))?);
    }
    let destinations = match report.destinations.as_slice() {
        [one] => one.to_string(),
        several => format!("{} destinations", several.len()),
    };
    let events = counted(report.published, "event", "events");
    console.line(format_args!("{events} published to {}, {}", bus(source), printable(&destinations)))?;
    Ok(())
}

fn named(what: &str) -> String {
    if what == "-" { "standard input".to_owned() } else { printable(what) }
}
