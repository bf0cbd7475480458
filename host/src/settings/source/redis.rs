//! `kind = "redis"` and `kind = "redis-stream"`

use std::sync::Arc;

use url::Url;

use super::{RedisConnection, SourceKind, Start, address, named_after};
use crate::settings::kinds::Setting;
use crate::settings::section::{Reported, Section};

/// The default of a `redis-stream` source's `field`.
pub const STREAM_FIELD: &str = "payload";

const KEY_LEN_MAX: usize = 512;

pub(super) fn redis(section: &Section<'_>, _: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let channels = keys(section, "channels", "fraiseql.*");
    Ok(SourceKind::Redis { connection: connection?, channels: channels? })
}

pub(super) fn redis_stream(section: &Section<'_>, name: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let streams = keys(section, "streams", "fraiseql.events");
    let group = named_after::<Key>(section, "group", name);
    let field = section.or_default("field", Key(STREAM_FIELD.to_owned()));
    let start = section.or_default("start", Start::New);
    Ok(SourceKind::RedisStream {
        connection: connection?,
        streams: streams?,
        group: group?.0,
        field: field?.0,
        start: start?,
        ephemeral: false,
    })
}

fn keys(section: &Section<'_>, key: &'static str, example: &str) -> Result<Vec<String>, Reported> {
    let mut keys: Vec<String> = section.list::<Key>(key)?.into_iter().map(|key| key.0).collect();
    keys.sort();
    keys.dedup();
    if keys.is_empty() { Err(section.missing(key, &format!("for example: {key} = [\"{example}\"]"))) } else { Ok(keys) }
}

fn connection(section: &Section<'_>) -> Result<RedisConnection, Reported> {
    let url = section.required::<RedisUrl>("url");
    let user = section.optional::<String>("user");
    let password = section.secret("password");
    let tls = address::tls(section);
    let connection = RedisConnection { url: url?.0, user: user?, password: password?, tls: tls? };
    if connection.user.is_some() && connection.password.is_none() {
        return Err(section.missing("password", "`user` goes with `password = { env = \"NAME\" }`"));
    }
    if connection.url.scheme() == "redis" && connection.tls != super::TlsSettings::default() {
        let offset = section.get("tls").map_or(section.offset, |value| value.span().start);
        return Err(section.refuse("tls", offset, "stands beside a URL without TLS", "write the URL with rediss://"));
    }
    Ok(connection)
}

/// A channel, pattern, stream, group or field.
struct Key(String);

impl Setting for Key {
    const EXPECTED: &'static str = "1 to 512 bytes without control characters";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > KEY_LEN_MAX || text.chars().any(char::is_control) {
            return Err("is not a name for Redis".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

struct RedisUrl(Url);

impl Setting for RedisUrl {
    const EXPECTED: &'static str =
        "write \"redis://host:6379/0\" or \"rediss://host:6379/0\"; user and password are keys of their own";
    const PRIVATE: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let url = address::read(text, &["redis", "rediss"], false)?;
        let database = url.path().trim_start_matches('/');
        if !database.is_empty() && database.parse::<u32>().is_err() {
            return Err("has a path that is not the number of a database".to_owned());
        }
        Ok(Self(url))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}
