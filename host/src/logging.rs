//! Logs go to standard error, as text or one JSON object a line.
//!
//! Fields are named alike everywhere: [`FIELDS`] on the path, [`OTHER_FIELDS`] beside it; `tests/log_fields.rs` looks at
//! every line that the program could write. No field holds a body, a header's value or a secret.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::str::FromStr as _;

use anstyle::{AnsiColor, Style};
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::foreign;

/// The fields of a line on the path of an event: one that names an event or a delivery has no others.
pub const FIELDS: [&str; 16] = [
    "timestamp",
    "level",
    "message",
    "event_key",
    "delivery_id",
    "source",
    "plugin",
    "plugin_digest",
    "endpoint",
    "attempt",
    "outcome",
    "status",
    "reason",
    "error",
    "duration_s",
    "due_at",
];

/// The fields of lines beside the path, in addition.
pub const OTHER_FIELDS: [&str; 50] = [
    "address",
    "asked",
    "at",
    "attempts",
    "back_s",
    "backlog",
    "bound",
    "bytes",
    "bytes_max",
    "commands",
    "consumer",
    "crashes",
    "deadline_s",
    "deliver_policy",
    "detail",
    "dir",
    "drained",
    "entries",
    "event",
    "expired",
    "floor",
    "forward_s",
    "free_bytes",
    "free_bytes_min",
    "granted",
    "group",
    "host",
    "key",
    "keys",
    "kind",
    "last_sequence",
    "limit",
    "looked_s",
    "messages",
    "method",
    "mode",
    "notice",
    "open_s",
    "origin",
    "path",
    "plugin_digest_before",
    "runs",
    "secret_number",
    "since",
    "skipped",
    "state",
    "stream",
    "subjects",
    "table",
    "wait_s",
];

/// The variable that sets the level where `--log-level` does not.
pub const LEVEL_VARIABLE: &str = "WIREHOOK_LOG";
/// The level where nothing says another.
pub const LEVEL_DEFAULT: &str = "info";

/// How logs look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Why logging did not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is not one.
    #[error("`{level}` is not a log level: {because}; write error, warn, info, debug, trace, or target=level,…")]
    Level {
        /// What was written.
        level: String,
        /// Why it is not one.
        because: String,
    },
    /// Something in this process logs already.
    #[error("logging was begun twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Begins logging to standard error for the whole process.
///
/// # Errors
/// When `level` is not a level, or logging was begun before.
pub fn init(format: LogFormat, level: &str) -> Result<(), LoggingError> {
    let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Ok(subscriber(format, level, coloured, io::stderr)?.try_init()?)
}

fn subscriber<W>(
    format: LogFormat,
    level: &str,
    coloured: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let refused = |because: String| LoggingError::Level { level: level.to_owned(), because };
    // A word alone would be a target, of which everything is logged.
    for word in level.split(',').filter(|word| !word.contains(['=', '['])) {
        LevelFilter::from_str(word).map_err(|_| refused(format!("`{word}` is none")))?;
    }
    let filter = EnvFilter::try_new(quietened(level)).map_err(|error| refused(error.to_string()))?;
    let writer = Escaped { inner: writer, format, coloured };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false).with_ansi(false);
    let bodiless = filter_fn(|metadata| !has_body(metadata.target(), *metadata.level()));
    Ok(match format {
        LogFormat::Text => Box::new(builder.finish().with(bodiless)),
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            Box::new(builder.finish().with(bodiless))
        }
    })
}

/// A writer of lines, each given whole, in which whatever others wrote is escaped: a plugin's log text, a server's error.
struct Escaped<W> {
    inner: W,
    format: LogFormat,
    coloured: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaped<W> {
    type Writer = Escaped<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaped { inner: self.inner.make_writer(), format: self.format, coloured: self.coloured }
    }
}

impl<W: io::Write> io::Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let escaped = match self.format {
            LogFormat::Json => foreign::escape_json(line),
            LogFormat::Text => foreign::escape(line),
        };
        match (escaped, self.coloured && self.format == LogFormat::Text) {
            (Cow::Borrowed(_), false) => self.inner.write_all(bytes)?,
            (line, false) => self.inner.write_all((line.into_owned() + "\n").as_bytes())?,
            (line, true) => self.inner.write_all((painted(&line) + "\n").as_bytes())?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A line of the text format with its time dimmed and its level coloured. Painted here, behind the escapes: a formatter's
/// own colours could not be told from those in a field.
fn painted(line: &str) -> String {
    let dim = Style::new().dimmed();
    let Some((time, rest)) = line.split_once(' ') else { return line.to_owned() };
    let level = rest.split_whitespace().next().unwrap_or_default();
    let colour = match level {
        "ERROR" => AnsiColor::Red,
        "WARN" => AnsiColor::Yellow,
        "INFO" => AnsiColor::Green,
        "DEBUG" => AnsiColor::Blue,
        "TRACE" => AnsiColor::Magenta,
        _ => return line.to_owned(),
    };
    let colour = colour.on_default();
    format!("{dim}{time}{dim:#} {}", rest.replacen(level, &format!("{colour}{level}{colour:#}"), 1))
}

/// Has a panic's words escaped as well: libraries put into them what they were given.
pub fn escape_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload_as_str().unwrap_or_default();
        match foreign::escape(words) {
            Cow::Borrowed(_) => before(panic),
            Cow::Owned(words) => {
                let at = panic.location().map(ToString::to_string).unwrap_or_default();
                eprintln!("a thread panicked at {at}: {words}");
            }
        }
    }));
}

/// Whether such a line may hold the body of a message, which no log may, whatever level is asked for: the client of NATS
/// traces each operation with its payload.
fn has_body(target: &str, level: Level) -> bool {
    target.split("::").next() == Some("async_nats") && level == Level::TRACE
}

/// The level asked for, with libraries kept to warnings unless they are named.
fn quietened(level: &str) -> String {
    let mut filter = String::new();
    for library in ["cranelift_codegen", "wasmtime", "hyper", "hyper_util", "reqwest", "rustls", "h2", "async_nats"] {
        filter.push_str(library);
        filter.push_str("=warn,");
    }
    // It warns at every event of a scan that the host took back, and said so once (`plugin/swap`).
    filter.push_str("wasmtime::runtime::vm::sys::unix::pagemap=error,");
    // Later directives win over earlier ones of the same target.
    filter + level
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, level, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(event_key = "bus/id/1", attempt = 2, "delivered");
            tracing::debug!("unheard");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_have_the_documented_fields_at_the_top() {
        let text = logged(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "delivered");
        assert_eq!(line["event_key"], "bus/id/1");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn text_says_the_same() {
        let text = logged(LogFormat::Text, "info");
        assert!(text.contains("delivered") && text.contains("event_key=\"bus/id/1\""), "{text}");
        assert!(!text.contains("unheard"));
        assert!(logged(LogFormat::Text, "debug").contains("unheard"));
    }

    #[test]
    fn what_may_hold_a_body_is_not_logged_whoever_asks_for_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let level = "trace,async_nats=trace,async_nats::connection=trace";
        let subscriber = subscriber(LogFormat::Text, level, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "async_nats::connection", "payload");
            tracing::debug!(target: "async_nats::connection", "connected");
            tracing::trace!("ours");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("payload") && text.contains("connected") && text.contains("ours"), "{text}");
    }

    #[test]
    fn a_line_of_others_is_one_line_in_both_formats() {
        const TEXT: &str = "a\n2026-01-01 ERROR forged\r\u{1b}[8m\u{9b}8m\u{202e}\u{2066}\u{200b}\u{2028}é";
        for (format, coloured) in [(LogFormat::Text, false), (LogFormat::Text, true), (LogFormat::Json, false)] {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = subscriber(format, "info", coloured, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!(error = %TEXT, detail = TEXT, path = ?TEXT, "{TEXT}");
            });
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            let (head, rest) = line.split_at(if coloured { line.rfind("\u{1b}[0m").unwrap() + 4 } else { 0 });
            assert!(!rest.contains(foreign::is_hidden) && rest.contains('é'), "{line:?}");
            assert!(!coloured || head.ends_with("\u{1b}[32mINFO\u{1b}[0m"), "{head:?}");
            if format == LogFormat::Json {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                // The library writes escapes of its own for what begins a sequence.
                assert!(line["detail"].as_str().unwrap().starts_with("a\n2026"), "{line}");
                assert!(line["message"].as_str().unwrap().contains('\u{202e}'), "{line}");
            }
        }
    }

    #[test]
    fn an_unknown_level_is_refused() {
        for level in ["wirehook=loud", "loud", "info,loud"] {
            let error = subscriber(LogFormat::Text, level, false, io::sink).err().unwrap().to_string();
            assert!(error.contains(&format!("`{level}` is not a log level")), "{error}");
        }
        assert!(subscriber(LogFormat::Text, "off", false, io::sink).is_ok());
        assert!(subscriber(LogFormat::Text, "warn,wirehook=debug", false, io::sink).is_ok());
    }
}
