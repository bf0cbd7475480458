//! `[[source]]`: the bus and what is taken from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::AdminSettings;
use super::host::Names;
use super::kinds::Setting;
use super::section::{Context, Reported, Section, known, nearest};
use crate::clock::Timestamp;
use crate::event::decode::Fields;
use crate::secret::Secret;

mod address;
mod http;
mod nats;
mod postgres;
mod redis;

pub(super) use self::address::tls as tls_files;
pub use self::http::HTTP_LISTEN;
pub use self::postgres::{OUTBOX_CHANNEL, OUTBOX_TABLE};
pub(super) use self::postgres::{is_parameter as is_postgres_parameter, url as postgres_url};
pub use self::redis::STREAM_FIELD;

/// The most sources.
pub const SOURCES_MAX: usize = 64;

const FIELD_LEN_MAX: usize = 256;

/// `[[source]]`
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Part of every event key: renaming a source makes its events new ones.
    pub name: Arc<str>,
    /// The bus and its own settings.
    pub kind: SourceKind,
    /// Where its messages have what an event needs, where they are in no format that says so itself.
    pub fields: Fields,
    /// Whether events keep the bus's own subject, instead of `fraiseql.{entity_type}.{operation}`, in recognised formats.
    pub raw_subjects: bool,
}

/// The bus and its own settings.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// Core NATS: at most once, a queue group shares the subjects.
    Nats {
        /// The server.
        connection: NatsConnection,
        /// Subjects, wildcards as in NATS.
        subjects: Vec<String>,
        /// The queue group; default `wirehook-{source}`.
        queue_group: String,
    },
    /// JetStream: a durable pull consumer of each stream.
    Jetstream {
        /// The server.
        connection: NatsConnection,
        /// The streams' names, one at least.
        streams: Vec<String>,
        /// Whether a stream that does not exist is created, with `subjects`.
        create_stream: bool,
        /// The consumers' name; default `wirehook-{source}`.
        durable: String,
        /// Filter subjects; empty means the whole stream.
        subjects: Vec<String>,
        /// Where a consumer that doesn't exist yet begins.
        start: Start,
        /// Whether the consumers go when the source ends. Not from a file: for a look at a bus that others share.
        ephemeral: bool,
    },
    /// Redis pub/sub: at most once, and once to every host that subscribes.
    Redis {
        /// The server.
        connection: RedisConnection,
        /// Channels; those with `*`, `?` or `[` in them are patterns as in `PSUBSCRIBE`.
        channels: Vec<String>,
    },
    /// Redis Streams: a consumer group.
    RedisStream {
        /// The server.
        connection: RedisConnection,
        /// The streams' keys, one at least.
        streams: Vec<String>,
        /// The group; default `wirehook-{source}`.
        group: String,
        /// The field of an entry that holds the event; default `payload`.
        field: String,
        /// Where a group that never existed begins.
        start: Start,
        /// Whether the group goes when the source ends. Not from a file: for a look at a bus that others share.
        ephemeral: bool,
    },
    /// `LISTEN`: at most once, and once to every host that listens.
    Postgres {
        /// The server.
        connection: PostgresConnection,
        /// The channels; default `fraiseql_events`.
        channels: Vec<String>,
        /// Where the row is that a payload names by its key; default `core.tb_entity_change_log`.
        table: TableName,
    },
    /// Rows of FraiseQL's outbox: durable.
    PostgresOutbox {
        /// The server.
        connection: PostgresConnection,
        /// The outbox; default `core.tb_entity_change_log`.
        table: TableName,
        /// The channel whose notifications say that there are rows; default `fraiseql_events`. It only saves waiting.
        channel: String,
        /// Where a source begins that has never read the table.
        start: Start,
    },
    /// `POST /events`.
    Http {
        /// Where it listens; default `127.0.0.1:7466`.
        listen: SocketAddr,
        /// Bearer token; required where `listen` is not loopback.
        token: Option<Secret>,
        /// Names that requests without a token may be for, besides addresses and `localhost`; in lower case.
        hosts: Vec<String>,
    },
    /// JSON lines on standard input; its end drains the source.
    Stdin,
}

impl SourceKind {
    /// Whether the bus keeps what this source does not take for a while, within its own limits.
    pub fn keeps(&self) -> bool {
        match self {
            Self::Jetstream { ephemeral, .. } | Self::RedisStream { ephemeral, .. } => !ephemeral,
            Self::PostgresOutbox { .. } => true,
            Self::Nats { .. } | Self::Redis { .. } | Self::Postgres { .. } | Self::Http { .. } | Self::Stdin => false,
        }
    }

    /// The name in the settings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nats { .. } => "nats",
            Self::Jetstream { .. } => "jetstream",
            Self::Redis { .. } => "redis",
            Self::RedisStream { .. } => "redis-stream",
            Self::Postgres { .. } => "postgres",
            Self::PostgresOutbox { .. } => "postgres-outbox",
            Self::Http { .. } => "http",
            Self::Stdin => "stdin",
        }
    }
}

/// A NATS server, or several that are one to their clients. At most one way to authenticate, besides a client certificate.
#[derive(Clone, Debug)]
pub struct NatsConnection {
    /// `nats://host:port` or `tls://host:port`; never with a password in it.
    pub url: Url,
    /// More servers, tried in this order where the first can't be had; of the same form.
    pub others: Vec<Url>,
    /// User name, with `password`.
    pub user: Option<String>,
    /// Password, with `user`.
    pub password: Option<Secret>,
    /// Token.
    pub token: Option<Secret>,
    /// The seed of an nkey (`SU…`).
    pub nkey: Option<Secret>,
    /// A credentials file (`.creds`): a JWT and its seed.
    pub credentials: Option<PathBuf>,
    /// How the server is told from others, and the client to the server.
    pub tls: TlsSettings,
}

impl NatsConnection {
    /// All servers, in the order in which they are tried.
    pub fn urls(&self) -> impl Iterator<Item = &Url> {
        std::iter::once(&self.url).chain(&self.others)
    }
}

/// A Redis server.
#[derive(Clone, Debug)]
pub struct RedisConnection {
    /// `redis://host:port/db` or `rediss://…`; never with a password in it.
    pub url: Url,
    /// User name of an ACL, with `password`.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// As for every bus.
    pub tls: TlsSettings,
}

/// A PostgreSQL server.
#[derive(Clone, Debug)]
pub struct PostgresConnection {
    /// `postgres://user@host:port/database?sslmode=…`; never with a password in it.
    pub url: Url,
    /// The user's password.
    pub password: Option<Secret>,
    /// As for every bus.
    pub tls: TlsSettings,
}

/// `tls = { ca = "ca.pem", cert = "client.pem", key = "client.key" }`
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsSettings {
    /// PEM file of the authorities that the server's certificate may come from, instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate and its chain, with `key`.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key, with `cert`.
    pub key: Option<PathBuf>,
}

/// A table, perhaps within a schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableName {
    /// The schema; `None` leaves it to the server's `search_path`.
    pub schema: Option<String>,
    /// The table's own name.
    pub table: String,
}

/// Where a source begins that has not read its bus before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With what is published from now on.
    New,
    /// With the oldest that is kept.
    All,
    /// With what was published since.
    At(Timestamp),
}

/// A source with where it stands in the file.
pub(super) struct LocatedSource {
    pub(super) settings: SourceSettings,
    offset: usize,
}

/// Every `[[source]]`.
pub(super) fn all(root: &Section<'_>) -> Result<Vec<LocatedSource>, Reported> {
    let sections = root.tables("source")?;
    if let Some(beyond) = sections.get(SOURCES_MAX) {
        let message = format!("there are more than {SOURCES_MAX} [[source]]");
        return Err(root.context.problem(beyond.offset, message, None));
    }
    let mut names = Names::default();
    let sources: Vec<_> = sections.iter().map(|section| one(section, &mut names)).collect();
    let sources: Vec<LocatedSource> = sources.into_iter().collect::<Result<_, _>>()?;
    let stdin: Vec<_> = sources.iter().filter(|source| matches!(source.settings.kind, SourceKind::Stdin)).collect();
    if let [first, second, ..] = stdin[..] {
        let message =
            format!("[[source]] `{}` reads standard input, as `{}` does", second.settings.name, first.settings.name);
        return Err(root.context.problem(second.offset, message, Some("keep one source of kind stdin".to_owned())));
    }
    Ok(sources)
}

/// Refuses two listeners on one address; port 0 is another port each time.
pub(super) fn refuse_shared_addresses(
    context: &Context<'_>,
    admin: &(AdminSettings, usize),
    sources: &[LocatedSource],
) {
    let mut taken = vec![(admin.0.listen, "[admin]".to_owned())];
    for source in sources {
        let SourceKind::Http { listen, .. } = source.settings.kind else { continue };
        let title = format!("[[source]] `{}`", source.settings.name);
        match taken.iter().find(|(address, _)| *address == listen && listen.port() != 0) {
            Some((_, other)) => {
                let message = format!("`listen` in {title} is {listen}, where {other} listens already");
                context.problem(source.offset, message, Some("give each a port of its own".to_owned()));
            }
            None => taken.push((listen, title)),
        }
    }
}

type ReadKind = fn(&Section<'_>, Option<&Arc<str>>) -> Result<SourceKind, Reported>;

const KINDS: &[(&str, ReadKind)] = &[
    ("nats", nats::nats),
    ("jetstream", nats::jetstream),
    ("redis", redis::redis),
    ("redis-stream", redis::redis_stream),
    ("postgres", postgres::postgres),
    ("postgres-outbox", postgres::postgres_outbox),
    ("http", http::http),
    ("stdin", |_, _| Ok(SourceKind::Stdin)),
];

fn one(section: &Section<'_>, names: &mut Names) -> Result<LocatedSource, Reported> {
    let name = names.read(section);
    let fields = fields(section);
    let raw_subjects = section.boolean("raw_subjects", false);
    // Without its kind, nobody can tell which of the other keys are right.
    let read_kind = kind(section)?;
    let kind = read_kind(section, name.as_ref().ok());
    section.finish();
    let settings = SourceSettings { name: name?, kind: kind?, fields: fields?, raw_subjects: raw_subjects? };
    Ok(LocatedSource { settings, offset: section.offset })
}

fn fields(section: &Section<'_>) -> Result<Fields, Reported> {
    let field = |name| section.optional::<FieldPath>(name).map(|field| field.map(|field| field.0));
    let [id, event_type, tenant, time, entity_id, data] =
        ["id_field", "type_field", "tenant_field", "time_field", "entity_id_field", "data_field"].map(field);
    Ok(Fields { id: id?, event_type: event_type?, tenant: tenant?, time: time?, entity_id: entity_id?, data: data? })
}

fn kind(section: &Section<'_>) -> Result<ReadKind, Reported> {
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let kind = match section.optional::<String>("kind")? {
        Some(kind) => kind,
        None => return Err(section.missing("kind", &format!("known kinds: {}", known(&names)))),
    };
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, read)| *read).ok_or_else(|| {
        let offset = section.get("kind").map_or(section.offset, |value| value.span().start);
        let hint = nearest(&kind, &names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let help = format!("known kinds: {}{hint}", known(&names));
        section.refuse("kind", offset, format_args!("is `{kind}`, which is unknown"), &help)
    })
}

/// A name on the bus; `wirehook-{source}` where the settings do not say.
fn named_after<T: Setting>(section: &Section<'_>, key: &'static str, name: Option<&Arc<str>>) -> Result<T, Reported> {
    let default = T::read(&format!("wirehook-{}", name.map_or("unnamed", AsRef::as_ref)));
    match default {
        Ok(default) => section.or_default(key, default),
        Err(_) => section.required(key),
    }
}

struct FieldPath(String);

impl Setting for FieldPath {
    const EXPECTED: &'static str =
        "write a top-level member such as \"order_id\" or a JSON pointer such as \"/order/id\"";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > FIELD_LEN_MAX || text.ends_with('/') {
            return Err("does not name a member".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Setting for Start {
    const EXPECTED: &'static str = "write \"new\", \"all\" or a time such as \"2026-03-02T14:00:00Z\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "new" => Ok(Self::New),
            "all" => Ok(Self::All),
            time => match time.parse::<jiff::Timestamp>() {
                Ok(time) => Ok(Self::At(Timestamp(time.as_millisecond()))),
                Err(_) => Err("is not a place to start".to_owned()),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            Self::New => "new".to_owned(),
            Self::All => "all".to_owned(),
            Self::At(time) => time.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_starts_where_it_is_told() {
        let check = |text: &str, expected: Option<Start>| assert_eq!(Start::read(text).ok(), expected, "{text}");
        check("new", Some(Start::New));
        check("all", Some(Start::All));
        check("1970-01-01T00:00:01Z", Some(Start::At(Timestamp(1000))));
        check("1970-01-01T01:00:01+01:00", Some(Start::At(Timestamp(1000))));
        check("yesterday", None);
    }
}
