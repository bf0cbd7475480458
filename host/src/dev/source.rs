//! A bus as it is named on the command line: a URL and what is taken there, as the text of a `[[source]]`.
//!
//! The consumer is one of its own: a laptop must not take events from a queue group, a durable or a group that others share.

use std::net::{Ipv4Addr, SocketAddr};

use toml::{Table, Value};
use url::{Host, Url};

use crate::secret::Secret;
use crate::settings::bus_url::BusUrl;
use crate::settings::{OUTBOX_CHANNEL, SourceKind};

/// The variable that the generated settings read the bus's password from.
pub(super) const PASSWORD_VARIABLE: &str = "WIREHOOK_DEV_BUS_PASSWORD";
/// The variable that they read the bus's token from.
pub(super) const TOKEN_VARIABLE: &str = "WIREHOOK_DEV_BUS_TOKEN";

/// The bus, as the arguments say it.
#[derive(Clone, Debug, Default)]
pub struct SourceArguments {
    /// A URL, or `-`.
    pub source: String,
    /// `--subject`
    pub subjects: Vec<String>,
    /// `--stream`
    pub streams: Vec<String>,
    /// `--channel`
    pub channels: Vec<String>,
    /// `--table`
    pub table: Option<String>,
    /// `--start`
    pub start: Option<String>,
}

/// The source as settings.
#[derive(Clone, Debug)]
pub(crate) struct DevSource {
    /// The `[[source]]`.
    pub(crate) table: Table,
    /// What it reads from variables.
    pub(super) password: Option<Secret>,
    pub(super) token: Option<Secret>,
}

/// Why the arguments are no source.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceArgumentsError {
    /// Not a URL. The text is not repeated: it may hold a password.
    #[error("--source {0}")]
    Url(String),
    /// Nothing of ours is at such a URL.
    #[error("--source has the scheme `{0}`, which is no bus's")]
    Scheme(String),
    /// An option of another bus.
    #[error("{0} says nothing to {1}")]
    Option(&'static str, String),
    /// Not on this machine.
    #[error("--source http://… listens on this machine, at an address such as http://127.0.0.1:7466")]
    Listen,
}

/// The kinds of bus, told apart by scheme and options.
const HELP: &str = "nats://host:4222 [--subject S], the same with --stream NAME for JetStream, redis://host:6379 [--channel C], \
    the same with --stream KEY, postgres://user@host/database [--channel C], the same with --table T for the outbox, \
    http://127.0.0.1:7466, or - for standard input";

impl SourceArgumentsError {
    /// What to do.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Option(..) => "leave it out, or see `wirehook dev --help`",
            _ => HELP,
        }
    }
}

impl SourceArguments {
    /// The `[[source]]` that the arguments mean, whatever its consumer is called.
    pub(crate) fn source_table(&self) -> Result<DevSource, SourceArgumentsError> {
        self.settings(super::SOURCE)
    }

    /// The source that the arguments mean; `own` names its consumer.
    pub(super) fn settings(&self, own: &str) -> Result<DevSource, SourceArgumentsError> {
        if self.source == "-" {
            self.only(&[], "standard input")?;
            return Ok(plain("stdin", Table::new()));
        }
        let bus = BusUrl::parse(&self.source).map_err(|error| SourceArgumentsError::Url(error.to_string()))?;
        let streamed = !self.streams.is_empty();
        let mut table = Table::new();
        table.insert("url".to_owned(), bus.urls().into());
        let kind = match bus.url.scheme() {
            "nats" | "tls" => {
                let kind = if streamed {
                    self.only(&["--subject", "--stream", "--start"], "JetStream")?;
                    table.insert("streams".to_owned(), list(&self.streams));
                    table.insert("durable".to_owned(), own.into());
                    "jetstream"
                } else {
                    self.only(&["--subject"], "core NATS; a stream is named with --stream")?;
                    table.insert("queue_group".to_owned(), own.into());
                    "nats"
                };
                let default = if streamed { &[][..] } else { &["fraiseql.>"] };
                table.insert("subjects".to_owned(), list_or(&self.subjects, default));
                kind
            }
            "redis" | "rediss" if streamed => {
                self.only(&["--stream", "--start"], "a stream of Redis")?;
                table.insert("streams".to_owned(), list(&self.streams));
                table.insert("group".to_owned(), own.into());
                "redis-stream"
            }
            "redis" | "rediss" => {
                self.only(&["--channel"], "Redis; a stream is named with --stream")?;
                table.insert("channels".to_owned(), list_or(&self.channels, &["fraiseql.*"]));
                "redis"
            }
            "postgres" | "postgresql" => match &self.table {
                Some(name) => {
                    self.only(&["--table", "--start"], "the outbox")?;
                    table.insert("table".to_owned(), name.as_str().into());
                    "postgres-outbox"
                }
                None => {
                    self.only(&["--channel"], "LISTEN; the outbox is named with --table")?;
                    table.insert("channels".to_owned(), list_or(&self.channels, &[OUTBOX_CHANNEL]));
                    "postgres"
                }
            },
            "http" => {
                self.only(&[], "http")?;
                let listen = listen(&bus.url).ok_or(SourceArgumentsError::Listen)?;
                table = Table::from_iter([("listen".to_owned(), listen.to_string().into())]);
                "http"
            }
            other => return Err(SourceArgumentsError::Scheme(other.to_owned())),
        };
        if let Some(start) = &self.start {
            table.insert("start".to_owned(), start.as_str().into());
        }
        if let Some(user) = bus.user {
            table.insert("user".to_owned(), user.into());
        }
        let mut secret = |key: &str, secret: &Option<Secret>, variable: &str| {
            if secret.is_some() {
                let reference = Table::from_iter([("env".to_owned(), Value::from(variable))]);
                table.insert(key.to_owned(), reference.into());
            }
        };
        secret("password", &bus.password, PASSWORD_VARIABLE);
        secret("token", &bus.token, TOKEN_VARIABLE);
        Ok(DevSource { password: bus.password, token: bus.token, ..plain(kind, table) })
    }

    /// Refuses options that are not among `known`.
    fn only(&self, known: &[&str], bus: &str) -> Result<(), SourceArgumentsError> {
        let given = [
            ("--subject", !self.subjects.is_empty()),
            ("--stream", !self.streams.is_empty()),
            ("--channel", !self.channels.is_empty()),
            ("--table", self.table.is_some()),
            ("--start", self.start.is_some()),
        ];
        match given.iter().find(|(option, given)| *given && !known.contains(option)) {
            Some((option, _)) => Err(SourceArgumentsError::Option(option, bus.to_owned())),
            None => Ok(()),
        }
    }
}

/// Makes the consumer go when the source ends.
pub(super) fn make_ephemeral(kind: &mut SourceKind) {
    if let SourceKind::Jetstream { ephemeral, .. } | SourceKind::RedisStream { ephemeral, .. } = kind {
        *ephemeral = true;
    }
}

fn plain(kind: &str, mut table: Table) -> DevSource {
    table.insert("name".to_owned(), super::SOURCE.into());
    table.insert("kind".to_owned(), kind.into());
    DevSource { table, password: None, token: None }
}

fn list(values: &[String]) -> Value {
    Value::Array(values.iter().map(|value| value.as_str().into()).collect())
}

fn list_or(values: &[String], default: &[&str]) -> Value {
    if values.is_empty() { Value::Array(default.iter().map(|value| (*value).into()).collect()) } else { list(values) }
}

/// A loopback address with a port.
fn listen(url: &Url) -> Option<SocketAddr> {
    let ip = match url.host()? {
        Host::Ipv4(ip) => ip.into(),
        Host::Ipv6(ip) => ip.into(),
        Host::Domain("localhost") => Ipv4Addr::LOCALHOST.into(),
        Host::Domain(_) => return None,
    };
    Some(SocketAddr::new(ip, url.port_or_known_default()?)).filter(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> SourceArguments {
        let mut arguments = SourceArguments::default();
        let mut words = line.split(' ');
        arguments.source = words.next().unwrap().to_owned();
        while let Some(option) = words.next() {
            let value = words.next().unwrap().to_owned();
            match option {
                "--subject" => arguments.subjects.push(value),
                "--stream" => arguments.streams.push(value),
                "--channel" => arguments.channels.push(value),
                "--table" => arguments.table = Some(value),
                _ => arguments.start = Some(value),
            }
        }
        arguments
    }

    fn check(line: &str, expected: &str) {
        let source = arguments(line).settings("own").unwrap();
        let mut expected: Table = toml::from_str(expected).unwrap();
        expected.insert("name".to_owned(), "dev".into());
        assert_eq!(source.table, expected, "{line}");
    }

    #[test]
    fn a_url_says_which_bus_it_is() {
        check("-", "kind = 'stdin'");
        check("http://localhost:7466", "kind = 'http'\nlisten = '127.0.0.1:7466'");
        check("http://[::1]:7466/", "kind = 'http'\nlisten = '[::1]:7466'");
        let nats = "kind = 'nats'\nurl = 'nats://h:4222'\nqueue_group = 'own'\n";
        check("nats://h:4222", &format!("{nats}subjects = ['fraiseql.>']"));
        check("nats://h:4222 --subject a.> --subject b", &format!("{nats}subjects = ['a.>', 'b']"));
        check(
            "nats://h --stream S --start all",
            "kind = 'jetstream'\nurl = 'nats://h'\ndurable = 'own'\nstreams = ['S']\nsubjects = []\nstart = 'all'",
        );
        check("redis://h", "kind = 'redis'\nurl = 'redis://h'\nchannels = ['fraiseql.*']");
        check("redis://h --stream S", "kind = 'redis-stream'\nurl = 'redis://h'\nstreams = ['S']\ngroup = 'own'");
        check("postgres://u@h/d", "kind = 'postgres'\nurl = 'postgres://u@h/d'\nchannels = ['fraiseql_events']");
        check("postgresql://u@h/d --table o", "kind = 'postgres-outbox'\nurl = 'postgresql://u@h/d'\ntable = 'o'");
    }

    #[test]
    fn passwords_leave_the_url_for_a_variable() {
        let source = arguments("nats://u:hunter2@h").settings("own").unwrap();
        assert_eq!(source.password.unwrap().expose(), b"hunter2");
        assert!(!source.table.to_string().contains("hunter2"), "{}", source.table);
        assert_eq!(source.table["password"]["env"].as_str(), Some(PASSWORD_VARIABLE));
        assert_eq!(source.table["user"].as_str(), Some("u"));
        let source = arguments("nats://hunter2@h").settings("own").unwrap();
        assert_eq!(source.token.unwrap().expose(), b"hunter2");
        assert_eq!(source.table["token"]["env"].as_str(), Some(TOKEN_VARIABLE));
    }

    #[test]
    fn what_fits_no_bus_is_refused() {
        let check = |line: &str, expected: &str| {
            let said = arguments(line).settings("own").unwrap_err().to_string();
            assert!(said.contains(expected) && !said.contains("hunter2"), "{line}: {said}");
        };
        check("kafka://u:hunter2@h", "`kafka`, which is no bus's");
        check("localhost", "is not a URL");
        check("nats://h --channel c", "--channel says nothing to core NATS");
        check("nats://h --start all", "--start says nothing to core NATS; a stream is named with --stream");
        check("redis://h --table t", "--table says nothing to Redis");
        check("postgres://h --table t --channel c", "--channel says nothing to the outbox");
        check("- --subject s", "--subject says nothing to standard input");
        check("http://10.0.0.1:80", "listens on this machine");
        check("http://example.com", "listens on this machine");
    }
}
