//! `kind = "postgres"` and `kind = "postgres-outbox"`

use std::fmt;
use std::sync::Arc;

use url::Url;

use super::{PostgresConnection, SourceKind, Start, TableName, TlsSettings, address};
use crate::settings::encoded;
use crate::settings::kinds::Setting;
use crate::settings::postgres_url::{configs, with_one_host};
use crate::settings::section::{Reported, Section};

/// The default of `table`.
pub const OUTBOX_TABLE: &str = "core.tb_entity_change_log";
/// The default of `channel`.
pub const OUTBOX_CHANNEL: &str = "fraiseql_events";

/// What PostgreSQL takes for a name, in bytes (`NAMEDATALEN` less one).
const NAME_LEN_MAX: usize = 63;

pub(super) fn postgres(section: &Section<'_>, _: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let channels = channels(section);
    let table = table(section);
    Ok(SourceKind::Postgres { connection: connection?, channels: channels?, table: table? })
}

pub(super) fn postgres_outbox(section: &Section<'_>, _: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let table = table(section);
    let channel = section.or_default("channel", Channel(OUTBOX_CHANNEL.to_owned()));
    let start = section.or_default("start", Start::New);
    Ok(SourceKind::PostgresOutbox { connection: connection?, table: table?, channel: channel?.0, start: start? })
}

/// `channel = "…"` or `channels = ["…"]`
fn channels(section: &Section<'_>) -> Result<Vec<String>, Reported> {
    if section.get("channels").is_none() {
        return Ok(vec![section.or_default("channel", Channel(OUTBOX_CHANNEL.to_owned()))?.0]);
    }
    let one = section.optional::<Channel>("channel")?;
    let mut channels: Vec<String> = section.list::<Channel>("channels")?.into_iter().map(|name| name.0).collect();
    channels.extend(one.map(|name| name.0));
    channels.sort();
    channels.dedup();
    if channels.is_empty() { Err(section.missing("channels", "name one channel at least")) } else { Ok(channels) }
}

fn table(section: &Section<'_>) -> Result<TableName, Reported> {
    match section.optional("table")? {
        Some(table) => Ok(table),
        None => {
            let table = TableName { schema: Some("core".to_owned()), table: "tb_entity_change_log".to_owned() };
            section.show("table", OUTBOX_TABLE.into(), crate::settings::Origin::Default);
            Ok(table)
        }
    }
}

/// A URL without a password in it, as every source of PostgreSQL has one.
///
/// # Errors
/// With what is wrong, as a predicate that does not repeat the text.
pub(in crate::settings) fn url(text: &str) -> Result<Url, String> {
    PostgresUrl::read(text).map(|url| url.0)
}

fn connection(section: &Section<'_>) -> Result<PostgresConnection, Reported> {
    let url = section.required::<PostgresUrl>("url");
    let password = section.secret("password");
    let tls = address::tls(section);
    let connection = PostgresConnection { url: url?.0, password: password?, tls: tls? };
    let is_open = connection.url.query_pairs().any(|(key, value)| key == "sslmode" && value == "disable");
    if is_open && connection.tls != TlsSettings::default() {
        let offset = section.get("tls").map_or(section.offset, |value| value.span().start);
        return Err(section.refuse("tls", offset, "stands beside sslmode=disable", "write sslmode=require in `url`"));
    }
    Ok(connection)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_LEN_MAX && !text.chars().any(char::is_control)
}

struct Channel(String);

impl Setting for Channel {
    const EXPECTED: &'static str = "1 to 63 bytes, exactly as in NOTIFY, in lower case where NOTIFY has no quotes";

    fn read(text: &str) -> Result<Self, String> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err("is not a channel".to_owned()) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Setting for TableName {
    const EXPECTED: &'static str = "write \"schema.table\", exactly as the catalogue has them";

    fn read(text: &str) -> Result<Self, String> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text),
        };
        if !is_name(table) || table.contains('.') || schema.is_some_and(|schema| !is_name(schema)) {
            return Err("is not a table".to_owned());
        }
        Ok(Self { schema: schema.map(str::to_owned), table: table.to_owned() })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

struct PostgresUrl(Url);

/// What a URL may ask for behind its `?`, as libpq has it.
const PARAMETERS: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "port",
    "sslmode",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];
/// What is refused with the setting to write instead.
const TLS_PARAMETERS: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

/// Whether libpq knows this key behind the `?`, so that it is no part of a password.
pub(in crate::settings) fn is_parameter(key: &str) -> bool {
    PARAMETERS.contains(&key) || TLS_PARAMETERS.contains(&key)
}

const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

impl Setting for PostgresUrl {
    const EXPECTED: &'static str = "write \"postgres://user@host:5432/database\", with a comma between several hosts, or \"postgres:///database?host=/run/postgresql\" \
         for a socket; the password is a key of its own";
    const PRIVATE: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        encoded::check_bus(text).map_err(|error| error.to_string())?;
        let names_host = |url: &Url| url.query_pairs().any(|(key, value)| key == "host" && !value.is_empty());
        let is_hostless = |url: &Url| url.host_str().is_none_or(str::is_empty) && names_host(url);
        let text = with_one_host(text);
        let with_host = match Url::parse(&text) {
            Ok(url) if is_hostless(&url) => text.replacen(":///", "://localhost/", 1),
            _ => text.into_owned(),
        };
        let url = address::read(&with_host, &["postgres", "postgresql"], true)?;
        // First, lest the other half of a password with an `&` in it be named as a key that is not known.
        if url.query_pairs().any(|(key, _)| key == "password") {
            return Err("has credentials in it, which would end up in logs".to_owned());
        }
        for (key, value) in url.query_pairs() {
            match &*key {
                "sslrootcert" => return Err("has `sslrootcert`, which is `tls = { ca = \"…\" }` here".to_owned()),
                "sslcert" | "sslkey" => {
                    return Err(format!("has `{key}`; write `tls = {{ cert = \"…\", key = \"…\" }}` instead"));
                }
                "sslmode" if !SSL_MODES.contains(&&*value) => {
                    return Err(format!("has an `sslmode` that is none of {}", SSL_MODES.join(", ")));
                }
                key if !PARAMETERS.contains(&key) => return Err(format!("has `{key}`, which is not known")),
                _ => {}
            }
        }
        // Whatever is refused when it is connected to, is refused here.
        configs(&url, &TlsSettings::default())?;
        Ok(Self(url))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_or_a_socket_and_no_password() {
        let check = |text: &str, expected: Result<&str, &str>| match (PostgresUrl::read(text), expected) {
            (Ok(url), Ok(expected)) => assert_eq!(url.0.as_str(), expected, "{text}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
            (url, expected) => panic!("{text}: {:?}, not {expected:?}", url.map(|url| url.0)),
        };
        let same = |text| check(text, Ok(text));
        same("postgres://app@db.example.com:5433/shop?sslmode=verify-full");
        same("postgresql://localhost/shop?connect_timeout=10&options=-csearch_path%3Dcore");
        check("postgres:///shop?host=/run/postgresql", Ok("postgres://localhost/shop?host=/run/postgresql"));
        let several = "postgres://app@a/shop?host=a,b&port=1,2&target_session_attrs=read-write";
        check("postgres://app@a:1,b:2/shop?target_session_attrs=read-write", Ok(several));
        check("postgres://app@a:1,b:x/shop", Err("invalid value for option `port`"));
        check("postgres://app@a,b/shop?port=1,2,3", Err("names 2 servers and 3 ports"));
        check("postgres://app@a/shop?keepalives=maybe", Err("can't be used"));
        check("postgres://app@a,b/shop?target_session_attrs=standby", Err("none of any, read-write, primary"));
        check("postgres:///shop", Err("without a host"));
        check("mysql://localhost/shop", Err("not a URL of scheme"));
        check("postgres://app:secret@localhost/shop", Err("credentials"));
        check("postgres://localhost/shop?password=secret", Err("credentials"));
        check("postgres://localhost/shop?s=x&password=se&cret", Err("credentials"));
        check("postgres://app:12/secret@localhost/shop", Err("%2F"));
        check("postgres://localhost/shop?sslmode=maybe", Err("none of disable, allow"));
        check("postgres://localhost/shop?sslrootcert=ca.pem", Err("tls = { ca"));
        check("postgres://localhost/shop?pgbouncer=true", Err("`pgbouncer`, which is not known"));
    }

    #[test]
    fn a_table_may_stand_in_a_schema() {
        let check = |text: &str, expected: Option<(Option<&str>, &str)>| {
            let read = TableName::read(text).ok();
            let read = read.as_ref().map(|table| (table.schema.as_deref(), table.table.as_str()));
            assert_eq!(read, expected, "{text:?}");
        };
        check("core.tb_entity_change_log", Some((Some("core"), "tb_entity_change_log")));
        check("Outbox", Some((None, "Outbox")));
        check("a.b.c", None);
        check(".b", None);
        check("a.", None);
        check("", None);
        check(&"x".repeat(64), None);
    }
}
