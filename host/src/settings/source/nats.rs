//! `kind = "nats"` and `kind = "jetstream"`

use std::sync::Arc;

use url::Url;

use super::{NatsConnection, SourceKind, Start, address, named_after};
use crate::settings::kinds::Setting;
use crate::settings::section::{Reported, Section};
use crate::settings::servers::{SERVERS_MAX, servers};

const BUS_NAME_LEN_MAX: usize = 255;
const SUBJECT_LEN_MAX: usize = 1024;

pub(super) fn nats(section: &Section<'_>, name: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let subjects = subjects(section);
    let queue_group = named_after::<BusName>(section, "queue_group", name);
    let subjects = subjects?;
    if subjects.is_empty() {
        return Err(section.missing("subjects", "for example: subjects = [\"fraiseql.>\"]"));
    }
    Ok(SourceKind::Nats { connection: connection?, subjects, queue_group: queue_group?.0 })
}

pub(super) fn jetstream(section: &Section<'_>, name: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let streams = streams(section);
    let create_stream = section.boolean("create_stream", false);
    let durable = named_after::<BusName>(section, "durable", name);
    let subjects = subjects(section);
    let start = section.or_default("start", Start::New);
    let (streams, create_stream, subjects) = (streams?, create_stream?, subjects?);
    if create_stream && subjects.is_empty() {
        let help = "the subjects that the stream is to keep, for example: subjects = [\"fraiseql.>\"]";
        return Err(section.missing("subjects", help));
    }
    if create_stream && streams.len() > 1 {
        let offset = section.get("create_stream").map_or(section.offset, |value| value.span().start);
        let help = "no subject can be kept by two streams: give each a [[source]] of its own";
        return Err(section.refuse("create_stream", offset, "stands beside several streams", help));
    }
    Ok(SourceKind::Jetstream {
        connection: connection?,
        streams,
        create_stream,
        durable: durable?.0,
        subjects,
        start: start?,
        ephemeral: false,
    })
}

/// `stream = "…"` or `streams = ["…"]`
fn streams(section: &Section<'_>) -> Result<Vec<String>, Reported> {
    let one = section.optional::<BusName>("stream")?;
    if section.get("streams").is_none() {
        let one = one.ok_or_else(|| section.missing("stream", BusName::EXPECTED))?;
        return Ok(vec![one.0]);
    }
    let mut streams: Vec<String> = section.list::<BusName>("streams")?.into_iter().map(|name| name.0).collect();
    streams.extend(one.map(|name| name.0));
    let mut seen = std::collections::HashSet::new();
    streams.retain(|stream| seen.insert(stream.clone()));
    if streams.is_empty() { Err(section.missing("streams", "name one stream at least")) } else { Ok(streams) }
}

fn connection(section: &Section<'_>) -> Result<NatsConnection, Reported> {
    let urls = section.required::<NatsUrls>("url");
    let user = section.optional::<String>("user");
    let (password, token, nkey) = (section.secret("password"), section.secret("token"), section.secret("nkey"));
    let credentials = section.optional::<String>("credentials");
    let tls = address::tls(section);
    let NatsUrls(url, others) = urls?;
    let connection = NatsConnection {
        url,
        others,
        user: user?,
        password: password?,
        token: token?,
        nkey: nkey?,
        credentials: credentials?.map(|path| section.context.path(&path)),
        tls: tls?,
    };
    match (&connection.user, &connection.password) {
        (Some(_), None) => return Err(section.missing("password", "`user` goes with `password = { env = \"NAME\" }`")),
        (None, Some(_)) => return Err(section.missing("user", "`password` goes with `user`")),
        _ => {}
    }
    let ways = [
        ("user", connection.user.is_some()),
        ("token", connection.token.is_some()),
        ("nkey", connection.nkey.is_some()),
        ("credentials", connection.credentials.is_some()),
    ];
    let mut ways = ways.iter().filter(|(_, given)| *given).map(|(key, _)| *key);
    match (ways.next(), ways.next()) {
        (Some(first), Some(second)) => {
            let offset = section.get(second).map_or(section.offset, |value| value.span().start);
            let message = format_args!("stands beside `{first}`");
            Err(section.refuse(second, offset, message, "keep one way to authenticate"))
        }
        _ => Ok(connection),
    }
}

fn subjects(section: &Section<'_>) -> Result<Vec<String>, Reported> {
    Ok(section.list::<Subject>("subjects")?.into_iter().map(|subject| subject.0).collect())
}

/// A stream, consumer or queue group.
struct BusName(String);

impl Setting for BusName {
    const EXPECTED: &'static str = "1 to 255 printable characters without space, `.`, `*`, `>`, `/` and `\\`";

    fn read(text: &str) -> Result<Self, String> {
        let valid = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '.' | '*' | '>' | '/' | '\\');
        if text.is_empty() || text.len() > BUS_NAME_LEN_MAX || !text.chars().all(valid) {
            return Err("is not a name that NATS takes".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

struct Subject(String);

impl Setting for Subject {
    const EXPECTED: &'static str = "tokens between dots; `*` stands for one whole token, `>` for all that remain";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > SUBJECT_LEN_MAX {
            return Err(format!("has a subject that is not 1 to {SUBJECT_LEN_MAX} bytes long"));
        }
        let tokens: Vec<&str> = text.split('.').collect();
        for (index, token) in tokens.iter().enumerate() {
            let wild = token.contains(['*', '>']);
            let whole = *token == "*" || (*token == ">" && index + 1 == tokens.len());
            if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) || (wild && !whole) {
                return Err("has a subject that NATS would refuse".to_owned());
            }
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A server, and more of them.
struct NatsUrls(Url, Vec<Url>);

impl Setting for NatsUrls {
    const EXPECTED: &'static str = "write \"nats://host:4222\" or \"tls://host:4222\", several between commas; user, password \
                                    and token are keys of their own";
    const PRIVATE: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let servers = servers(text);
        if servers.len() > SERVERS_MAX {
            return Err(format!("names more than {SERVERS_MAX} servers"));
        }
        let mut urls = servers.iter().map(|url| address::read(url, &["nats", "tls"], false));
        // There is one at least.
        let first = urls.next().unwrap_or_else(|| Err("is empty".to_owned()))?;
        Ok(Self(first, urls.collect::<Result<_, _>>()?))
    }

    fn show(&self) -> String {
        let all: Vec<&str> = std::iter::once(&self.0).chain(&self.1).map(Url::as_str).collect();
        all.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_one_url() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(NatsUrls::read(text).ok().map(|urls| urls.show()).as_deref(), expected, "{text}");
        };
        check("nats://a:4222", Some("nats://a:4222"));
        check("nats://a:4222,nats://b:4222", Some("nats://a:4222,nats://b:4222"));
        check("nats://a,b", Some("nats://a,nats://b"));
        check("nats://a,redis://b", None);
        check("nats://a,nats://u:p@b", None);
        check("nats://a:4222:5,b", None);
        check(&vec!["nats://a"; SERVERS_MAX + 1].join(","), None);
    }

    #[test]
    fn subjects_are_those_that_nats_takes() {
        let check = |subject: &str, expected: bool| assert_eq!(Subject::read(subject).is_ok(), expected, "{subject:?}");
        check("fraiseql.>", true);
        check("fraiseql.*.created", true);
        check(">", true);
        check("a", true);
        check("", false);
        check("a..b", false);
        check("a.", false);
        check(".a", false);
        check("a.>.b", false);
        check("a.b*", false);
        check("a.b>", false);
        check("a b", false);
    }
}
