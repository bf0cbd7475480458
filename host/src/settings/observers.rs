//! `--observers fraiseql.toml`: one source more, from the `[observers]` that FraiseQL has already. Whatever else is in that
//! file is FraiseQL's.

use std::path::Path;

use serde_json::{Value, json};

use super::bus_url::BusUrl;
use super::error::SettingsError;
use super::load::{Environment, SETTINGS_BYTES_MAX, document, read_text};
use super::section::{Context, Reported, Section, known, nearest};
use super::show::{Origin, REDACTED};
use super::source::{OUTBOX_CHANNEL, SourceKind, SourceSettings, postgres_url};
use super::{NatsConnection, PostgresConnection, Problem, RedisConnection, Shown, TableName, TlsSettings};
use crate::event::decode::Fields;

/// The name of the source.
pub const SOURCE: &str = "fraiseql";
/// The variable that FraiseQL takes its database from.
pub const DATABASE_VARIABLE: &str = "DATABASE_URL";
/// The variable that FraiseQL takes before `nats_url`.
pub const NATS_VARIABLE: &str = "FRAISEQL_NATS_URL";

/// The subjects, channels and channel that FraiseQL publishes to.
const NATS_SUBJECTS: &str = "fraiseql.>";
const REDIS_CHANNELS: &str = "fraiseql.*";

const BACKENDS: [&str; 3] = ["nats", "postgres", "redis"];

/// The source, and what is to be said about it.
pub(super) struct Observed {
    pub(super) source: SourceSettings,
    pub(super) shown: Vec<Shown>,
    pub(super) warnings: Vec<Problem>,
}

/// Reads the `[observers]` of a file of FraiseQL's.
///
/// # Errors
/// When it can't be read, is not TOML, has no `[observers]`, or names no bus that can be read from outside.
pub(super) fn read(path: &Path, environment: &Environment) -> Result<Observed, SettingsError> {
    let text = read_text(path, SETTINGS_BYTES_MAX).map_err(|source| SettingsError::Unreadable {
        path: path.to_owned(),
        named_by: " named by --observers",
        source,
    })?;
    let context = Context::new(path, &text, environment);
    let document = document(&context, &text)?;
    let kind = observers(&context.root(document.get_ref()));
    match (kind, context.take()) {
        (Ok(kind), (problems, warnings, shown)) if problems.is_empty() => {
            let source = SourceSettings { name: SOURCE.into(), kind, fields: Fields::default(), raw_subjects: false };
            Ok(Observed { source, shown, warnings })
        }
        (_, (problems, _, _)) => Err(SettingsError::Refused(problems)),
    }
}

fn observers(root: &Section<'_>) -> Result<SourceKind, Reported> {
    let Some(value) = root.get("observers") else {
        let message = "there is no [observers] in this file, which says where FraiseQL publishes its events";
        let help = "name FraiseQL's own file, or add a [[source]] to wirehook's settings instead";
        return Err(root.context.problem(0, message.to_owned(), Some(help.to_owned())));
    };
    let offset = value.span().start;
    let section = root.table("observers");
    if let Some(enabled) = section.get("enabled").filter(|value| value.get_ref().as_bool() == Some(false)) {
        let message = "`enabled` in [observers] is false: FraiseQL publishes nothing".to_owned();
        root.context.warning(enabled.span().start, message, Some("set it to true there".to_owned()));
    }
    let Some(backend) = section.optional::<String>("backend")? else {
        let message = "`backend` is missing in [observers]".to_owned();
        return Err(root.context.problem(offset, message, Some(format!("known backends: {}", known(&BACKENDS)))));
    };
    match backend.as_str() {
        "nats" => nats(&section),
        "redis" => redis(&section),
        // FraiseQL's page says the one, its compiler the other.
        "postgres" | "postgresql" => postgres(&section),
        other => Err(unknown(&section, other)),
    }
}

fn unknown(section: &Section<'_>, backend: &str) -> Reported {
    let offset = offset_of(section, "backend");
    let hint = match backend {
        "in-memory" | "in_memory" | "mysql" => "; nobody outside FraiseQL can read the events of this one".to_owned(),
        _ => nearest(backend, &BACKENDS).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default(),
    };
    let help = format!("known backends: {}{hint}", known(&BACKENDS));
    section.refuse("backend", offset, format_args!("is `{backend}`, which is unknown"), &help)
}

fn nats(section: &Section<'_>) -> Result<SourceKind, Reported> {
    let bus = bus(section, "nats_url", Some(NATS_VARIABLE), &["nats", "tls"])?;
    if bus.password.is_some() && bus.user.is_none() {
        return Err(section.refuse("nats_url", offset_of(section, "nats_url"), "has a password without a user", ""));
    }
    show(section, "subjects", json!([NATS_SUBJECTS]));
    let queue_group = format!("wirehook-{SOURCE}");
    show(section, "queue_group", queue_group.as_str().into());
    let connection = NatsConnection {
        url: bus.url,
        others: bus.others,
        user: bus.user,
        password: bus.password,
        token: bus.token,
        nkey: None,
        credentials: None,
        tls: TlsSettings::default(),
    };
    Ok(SourceKind::Nats { connection, subjects: vec![NATS_SUBJECTS.to_owned()], queue_group })
}

fn redis(section: &Section<'_>) -> Result<SourceKind, Reported> {
    let bus = bus(section, "redis_url", None, &["redis", "rediss"])?;
    if bus.token.is_some() {
        return Err(section.refuse("redis_url", offset_of(section, "redis_url"), "has a user without a password", ""));
    }
    show(section, "channels", json!([REDIS_CHANNELS]));
    let connection =
        RedisConnection { url: bus.url, user: bus.user, password: bus.password, tls: TlsSettings::default() };
    Ok(SourceKind::Redis { connection, channels: vec![REDIS_CHANNELS.to_owned()] })
}

fn postgres(section: &Section<'_>) -> Result<SourceKind, Reported> {
    let offset = offset_of(section, "backend");
    let Some(url) = variable(section, DATABASE_VARIABLE) else {
        let message = format!("is postgres, and FraiseQL's database is in ${DATABASE_VARIABLE}, which is not set");
        let help = format!("set {DATABASE_VARIABLE} in the environment of wirehook, as in FraiseQL's");
        return Err(section.refuse("backend", offset, message, &help));
    };
    let origin = Origin::Variable(DATABASE_VARIABLE.to_owned());
    let named = format!("${DATABASE_VARIABLE}");
    let bus = taken_apart(section, &named, offset, &url, &["postgres", "postgresql"], &origin)?;
    let url = postgres_url(bus.url.as_str()).map_err(|what| wrong(section, &named, offset, "postgres", &what))?;
    show(section, "channels", json!([OUTBOX_CHANNEL]));
    let table = TableName { schema: Some("core".to_owned()), table: "tb_entity_change_log".to_owned() };
    show(section, "table", table.to_string().into());
    let connection = PostgresConnection { url, password: bus.password, tls: TlsSettings::default() };
    Ok(SourceKind::Postgres { connection, channels: vec![OUTBOX_CHANNEL.to_owned()], table })
}

/// The URL of a key, or of the variable that FraiseQL takes before it.
fn bus(
    section: &Section<'_>,
    key: &'static str,
    before: Option<&'static str>,
    schemes: &[&str],
) -> Result<BusUrl, Reported> {
    let offset = offset_of(section, key);
    if let Some((name, url)) = before.and_then(|name| Some((name, variable(section, name)?))) {
        let origin = Origin::Variable(name.to_owned());
        return taken_apart(section, &format!("${name}"), offset, &url, schemes, &origin);
    }
    let Some(value) = section.get(key) else {
        let or = before.map(|name| format!(", or set {name}")).unwrap_or_default();
        let help = format!("add it there, for example {key} = \"{}://localhost\"{or}", schemes[0]);
        return Err(section.context.problem(
            offset_of(section, "backend"),
            format!("`{key}` is missing in [observers], whose `backend` is {}", schemes[0]),
            Some(help),
        ));
    };
    let found = section.resolve(key, value)?;
    taken_apart(section, &format!("`{key}`"), offset, &found.text, schemes, &found.origin)
}

fn taken_apart(
    section: &Section<'_>,
    named: &str,
    offset: usize,
    text: &str,
    schemes: &[&str],
    origin: &Origin,
) -> Result<BusUrl, Reported> {
    let wrong = |what: &dyn std::fmt::Display| wrong(section, named, offset, schemes[0], what);
    let bus = BusUrl::parse(text).map_err(|error| wrong(&error))?;
    if !schemes.contains(&bus.url.scheme()) {
        return Err(wrong(&format_args!("is not a URL of scheme {}", schemes.join(" or "))));
    }
    let put = |key: &str, value: Value| section.context.show(format!("source.{SOURCE}.{key}"), value, origin.clone());
    put("url", bus.urls().into());
    if let Some(user) = &bus.user {
        put("user", user.as_str().into());
    }
    for (key, secret) in [("password", &bus.password), ("token", &bus.token)] {
        if secret.is_some() {
            put(key, REDACTED.into());
        }
    }
    Ok(bus)
}

fn wrong(section: &Section<'_>, named: &str, offset: usize, scheme: &str, what: &dyn std::fmt::Display) -> Reported {
    let help = format!("write {scheme}://host:port");
    section.context.problem(offset, format!("{named} for [observers] {what}"), Some(help))
}

fn variable(section: &Section<'_>, name: &str) -> Option<String> {
    section.context.environment.variable(name)?.into_string().ok().filter(|value| !value.is_empty())
}

fn offset_of(section: &Section<'_>, key: &'static str) -> usize {
    section.get(key).map_or(section.offset, |value| value.span().start)
}

fn show(section: &Section<'_>, key: &str, value: Value) {
    section.context.show(format!("source.{SOURCE}.{key}"), value, Origin::Default);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, variables: &[(&str, &str)]) -> Result<Observed, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fraiseql.toml");
        std::fs::write(&file, text).unwrap();
        let said = read(&file, &Environment::of(variables, folder.path())).map_err(|error| error.to_string());
        said.map_err(|said| said.replace(&format!("{}/", folder.path().display()), ""))
    }

    const OTHERS: &str = "[project]\nname = \"app\"\n[fraiseql]\nschema_file = \"schema.json\"\nunknown = [1]\n";

    fn check(observers: &str, variables: &[(&str, &str)], expected: impl FnOnce(SourceKind) -> bool) {
        let observed = read_text(&format!("{OTHERS}[observers]\n{observers}\n[security]\nx = 1"), variables).unwrap();
        assert_eq!((&*observed.source.name, observed.warnings.len()), ("fraiseql", 0));
        assert!(!format!("{:?}{:?}", observed.shown, observed.source).contains("hunter2"));
        assert!(expected(observed.source.kind), "{observers}");
    }

    #[test]
    fn each_backend_is_a_source() {
        check("backend = \"nats\"\nnats_url = \"nats://localhost:4222\"", &[], |kind| match kind {
            SourceKind::Nats { connection, subjects, queue_group } => {
                connection.url.as_str() == "nats://localhost:4222"
                    && subjects == ["fraiseql.>"]
                    && queue_group == "wirehook-fraiseql"
            }
            _ => false,
        });
        check("backend = \"redis\"\nredis_url = \"redis://u:hunter2@h/1\"\nenabled = true", &[], |kind| match kind {
            SourceKind::Redis { connection, channels } => {
                connection.url.as_str() == "redis://h/1"
                    && connection.user.as_deref() == Some("u")
                    && connection.password.is_some_and(|password| password.expose() == b"hunter2")
                    && channels == ["fraiseql.*"]
            }
            _ => false,
        });
        let database = [("DATABASE_URL", "postgresql://app:hunter2@db/shop?sslmode=disable")];
        check("backend = \"postgres\"", &database, |kind| match kind {
            SourceKind::Postgres { connection, channels, table } => {
                connection.url.as_str() == "postgresql://app@db/shop?sslmode=disable"
                    && connection.password.is_some()
                    && channels == ["fraiseql_events"]
                    && table.to_string() == "core.tb_entity_change_log"
            }
            _ => false,
        });
        check("backend = \"postgresql\"", &database, |kind| matches!(kind, SourceKind::Postgres { .. }));
        let several = [("DATABASE_URL", "postgres://app:hunter2@a:1,b:2/shop")];
        check("backend = \"postgres\"", &several, |kind| match kind {
            SourceKind::Postgres { connection, .. } => {
                connection.url.as_str() == "postgres://app@a/shop?host=a,b&port=1,2"
            }
            _ => false,
        });
        let variable = [("FRAISEQL_NATS_URL", "tls://hunter2@bus:4222")];
        check("backend = \"nats\"\nnats_url = \"nats://localhost\"", &variable, |kind| match kind {
            SourceKind::Nats { connection, .. } => {
                connection.url.as_str() == "tls://bus:4222" && connection.token.is_some()
            }
            _ => false,
        });
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let check = |text: &str, expected: &[&str]| {
            let Err(said) = read_text(text, &[]) else { panic!("{text}") };
            for expected in expected {
                assert!(said.contains(expected) && !said.contains("hunter2"), "{text}: {said}");
            }
        };
        check(OTHERS, &["there is no [observers]", "fraiseql.toml:1"]);
        check("\n[observers]\n", &["`backend` is missing", "nats, postgres, redis"]);
        let kafka = "[observers]\nbackend = \"kafka\"";
        check(kafka, &["`kafka`, which is unknown", "fraiseql.toml:2:11", "known backends: nats, postgres, redis"]);
        check("[observers]\nbackend = \"natss\"", &["did you mean `nats`?"]);
        check("[observers]\nbackend = \"in-memory\"", &["nobody outside FraiseQL"]);
        check("[observers]\nbackend = \"nats\"", &["`nats_url` is missing", "FRAISEQL_NATS_URL"]);
        check("[observers]\nbackend = \"redis\"", &["`redis_url` is missing"]);
        check("[observers]\nbackend = \"postgres\"", &["$DATABASE_URL, which is not set", "fraiseql.toml:2:11"]);
        check("[observers]\nbackend = \"nats\"\nnats_url = \"redis://x:hunter2@h\"", &["scheme nats or tls", ":3:12"]);
        check("[observers]\nbackend = \"nats\"\nnats_url = 7", &["`nats_url`", "an integer"]);
        check("observers = 1", &["is an integer, not a table"]);
        check("[observers", &["fraiseql.toml:1"]);
        let several = [("DATABASE_URL", "postgres://u:hunter2@a:1,b:x/shop")];
        let Err(said) = read_text("[observers]\nbackend = \"postgres\"", &several) else { panic!() };
        assert!(said.contains("invalid value for option `port`") && !said.contains("hunter2"), "{said}");
        let database = [("DATABASE_URL", "postgres://u:hunter2@db/shop?sslrootcert=ca.pem")];
        let Err(said) = read_text("[observers]\nbackend = \"postgres\"", &database) else { panic!() };
        assert!(said.contains("$DATABASE_URL for [observers] has `sslrootcert`"), "{said}");
    }

    #[test]
    fn observers_that_are_turned_off_are_warned_of() {
        let text = "[observers]\nenabled = false\nbackend = \"nats\"\nnats_url = \"nats://h\"";
        let observed = read_text(text, &[]).unwrap_or_else(|said| panic!("{said}"));
        assert!(observed.warnings[0].message.contains("publishes nothing"), "{:?}", observed.warnings);
    }
}
