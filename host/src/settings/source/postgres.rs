//! `kind = "postgres"` and `kind = "postgres-outbox"`

use std::fmt;
use std::sync::Arc;

use url::Url;

use super::{PostgresConnection, SourceKind, Start, TableName, address};
use crate::settings::kinds::Setting;
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

fn connection(section: &Section<'_>) -> Result<PostgresConnection, Reported> {
    let url = section.required::<PostgresUrl>("url");
    let password = section.secret("password");
    let tls = address::tls(section);
    Ok(PostgresConnection { url: url?.0, password: password?, tls: tls? })
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

impl Setting for PostgresUrl {
    const EXPECTED: &'static str = "write \"postgres://user@host:5432/database\"; the password is a key of its own";
    const PRIVATE: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let url = address::read(text, &["postgres", "postgresql"], true)?;
        if url.query_pairs().any(|(key, _)| key == "password") {
            return Err("has credentials in it, which would end up in logs".to_owned());
        }
        Ok(Self(url))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}
