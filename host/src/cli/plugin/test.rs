//! `wirehook plugin test`

mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;

use crate::cli::console::{Console, Look};
use crate::cli::failure::{Exit, Failure, Failures};
use crate::cli::table::{counted, printable};
use crate::cli::{Session, output};
use crate::recorded::diff::diff;
use crate::recorded::trial::{Trial, Tried};
use crate::recorded::{self, Recorded, RecordedError, indented};

pub(super) const EXAMPLE: &str = "\
Examples:
  wirehook plugin test dist/orders.wasm --events events
  wirehook plugin test dist/orders.wasm --events events --update
  wirehook plugin test dist/orders.wasm --events events --json
  wirehook plugin test dist/orders.wasm --events events --watch

An event is a file that ends in .json: a message in any of FraiseQL's formats, other JSON (its \
subject is the file's name), or what `wirehook dead-letters export` wrote. What is expected of \
orders.json is in orders.webhooks.json, which --update writes. Bodies are compared as JSON: digits \
and the order of members count, white space does not.

Exit code: 0 only when every event came out as expected.";

#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    /// The .wasm file; its sidecar beside it says subjects, config and limits
    file: PathBuf,
    /// The folder with the events
    #[arg(long, value_name = "FOLDER")]
    events: PathBuf,
    /// Write what came out as what is expected from now on
    #[arg(long, conflicts_with = "watch")]
    update: bool,
    /// Test again whenever the plugin's file or an event changes, until Ctrl-C; in the plugin's project, build again
    /// whenever its sources change
    #[arg(long)]
    watch: bool,
}

/// What became of one event, as `--json` prints it.
#[derive(Serialize)]
struct Report<'a> {
    event: &'a str,
    file: &'a Path,
    result: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhooks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    diff: Vec<String>,
}

#[derive(Clone, Copy, Serialize)]
struct Usage {
    duration_s: f64,
    cpu_s: f64,
    memory_peak_bytes: usize,
    instance_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As expected.
    Ok,
    /// Not as expected.
    Different,
    /// Nothing says what is expected.
    New,
    /// What is expected was written.
    Updated,
    /// The file is no event, or what came of it or is expected of it can't be read.
    Unreadable,
}

pub(super) async fn test(session: &mut Session<'_>, args: TestArgs) -> Result<Exit, Failures> {
    if args.watch { watch::watch(session, &args).await } else { once(session, &args).await }
}

async fn once(session: &mut Session<'_>, args: &TestArgs) -> Result<Exit, Failures> {
    let files = recorded::files(&args.events)?;
    let trial = Arc::new(session.parts.trial(&args.file)?);
    let (mut bad, mut new) = (0_u64, 0_u64);
    for file in &files {
        let report = match Recorded::read(file) {
            Ok(event) => tried(&trial, event, args.update).await?,
            Err(error) => unreadable(file, &error),
        };
        bad += u64::from(!matches!(report.0, Verdict::Ok | Verdict::Updated));
        new += u64::from(report.0 == Verdict::New);
        report.1(session.console)?;
    }
    let events = counted(files.len() as u64, "event", "events");
    if bad == 0 {
        if !session.console.json {
            session
                .console
                .line(format_args!("{events}, all {}", if args.update { "written" } else { "as expected" }))?;
        }
        return Ok(Exit::Success);
    }
    let failure = Failure::new(format!("{bad} of {events} did not come out as expected"));
    let help = match new {
        0 => "mend the plugin, or accept what came out with --update",
        _ => "look at what came out, and accept it with --update",
    };
    Err(failure.help(help).into())
}

/// A verdict, and how to print what led to it.
type Judged = (Verdict, Box<dyn FnOnce(&mut Console) -> std::io::Result<()> + Send>);

fn unreadable(file: &Path, error: &(impl std::fmt::Display + ?Sized)) -> Judged {
    let (file, error) = (file.to_owned(), error.to_string());
    let print = move |console: &mut Console| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let report = Report {
            event: &name,
            file: &file,
            result: Verdict::Unreadable,
            error: Some(error),
            outcome: None,
            webhooks: None,
            usage: None,
            diff: Vec::new(),
        };
        print(console, &report)
    };
    (Verdict::Unreadable, Box::new(print))
}

async fn tried(trial: &Arc<Trial>, event: Recorded, update: bool) -> Result<Judged, Failures> {
    let trial = Arc::clone(trial);
    // A plugin may take its deadline, and the runtime's own threads are not to wait for it.
    let tried = tokio::task::spawn_blocking(move || {
        let tried = trial.run(&event);
        (event, tried)
    });
    let (event, tried) = tried.await.map_err(|error| Failure::new(format!("the call did not end: {error}")))?;
    let Tried { golden, duration, cpu, memory_peak_bytes, instance_bytes } = tried;
    // What goes wrong with one event is that event's: the others are tried all the same.
    let found = match golden.text() {
        Ok(found) => found,
        Err(error) => return Ok(unreadable(&event.file, &format_args!("what came of it can't be shown: {error}"))),
    };
    let expected = match recorded::read_golden(&event) {
        Ok(expected) => expected,
        Err(error) => return Ok(unreadable(&event.file, &error)),
    };
    // However somebody's editor has laid it out.
    let expected = expected.map(|text| indented(&text).map_or(text, |text| text + "\n"));
    let mut lines = Vec::new();
    let verdict = match &expected {
        Some(expected) if *expected == found => Verdict::Ok,
        _ if update => {
            output::replace(&event.golden(), found.as_bytes())?;
            Verdict::Updated
        }
        Some(expected) => {
            lines = diff(expected, &found).iter().map(ToString::to_string).collect();
            Verdict::Different
        }
        None => {
            lines = diff("", &found).iter().map(ToString::to_string).collect();
            Verdict::New
        }
    };
    let usage =
        Usage { duration_s: duration.as_secs_f64(), cpu_s: cpu.as_secs_f64(), memory_peak_bytes, instance_bytes };
    let (outcome, webhooks) = (golden.outcome.as_str(), golden.webhooks.len());
    let print = move |console: &mut Console| {
        let report = Report {
            event: &event.name,
            file: &event.file,
            result: verdict,
            error: None,
            outcome: Some(outcome),
            webhooks: Some(webhooks),
            usage: Some(usage),
            diff: lines,
        };
        print(console, &report)
    };
    Ok((verdict, Box::new(print)))
}

fn print(console: &mut Console, report: &Report<'_>) -> std::io::Result<()> {
    if console.json {
        return console.object(report);
    }
    let (word, look) = match report.result {
        Verdict::Ok => ("ok        ", Look::Good),
        Verdict::Updated => ("updated   ", Look::Good),
        Verdict::Different => ("different ", Look::Bad),
        Verdict::New => ("new       ", Look::Uneasy),
        Verdict::Unreadable => ("unreadable", Look::Bad),
    };
    let word = look.paint(word, console.coloured());
    let name = printable(report.event);
    match (&report.usage, &report.error) {
        (Some(usage), _) => {
            let webhooks = counted(report.webhooks.unwrap_or_default() as u64, "webhook", "webhooks");
            let outcome = report.outcome.unwrap_or_default();
            let size = |bytes: usize| ByteSize::b(bytes as u64).display().iec();
            console.line(format_args!(
                "{word} {name}: {outcome}, {webhooks}; {:.2} ms, CPU {:.2} ms, memory {}, fresh {}",
                usage.duration_s * 1e3,
                usage.cpu_s * 1e3,
                size(usage.memory_peak_bytes),
                size(usage.instance_bytes),
            ))?;
        }
        (None, error) => {
            console.line(format_args!("{word} {name}: {}", printable(error.as_deref().unwrap_or_default())))?;
        }
    }
    for line in &report.diff {
        let look = match line.as_bytes().first() {
            Some(b'-') => Look::Bad,
            Some(b'+') => Look::Good,
            _ => Look::Plain,
        };
        let line = look.paint(&printable(line), console.coloured());
        console.line(format_args!("    {line}"))?;
    }
    Ok(())
}

impl From<RecordedError> for Failures {
    fn from(error: RecordedError) -> Self {
        Failure::new(error.to_string()).into_usage()
    }
}
