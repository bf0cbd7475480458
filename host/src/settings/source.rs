//! `[[source]]`: the bus and what is taken from it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use url::Url;

use super::host::Names;
use super::kinds::Setting;
use super::section::{Context, Reported, Section, known, nearest};
use super::{AdminSettings, NatsConnection, SourceKind, SourceSettings, Start};
use crate::clock::Timestamp;

/// The default of an `http` source's `listen`.
pub const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7466);
/// The most sources.
pub const SOURCES_MAX: usize = 64;

const BUS_NAME_LEN_MAX: usize = 255;
const SUBJECT_LEN_MAX: usize = 1024;
const ID_FIELD_LEN_MAX: usize = 256;

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

const KINDS: &[(&str, ReadKind)] =
    &[("nats", nats), ("jetstream", jetstream), ("http", http), ("stdin", |_, _| Ok(SourceKind::Stdin))];

fn one(section: &Section<'_>, names: &mut Names) -> Result<LocatedSource, Reported> {
    let name = names.read(section);
    let id_field = section.optional::<IdField>("id_field");
    // Without its kind, nobody can tell which of the other keys are right.
    let read_kind = kind(section)?;
    let kind = read_kind(section, name.as_ref().ok());
    section.finish();
    let settings = SourceSettings { name: name?, kind: kind?, id_field: id_field?.map(|field| field.0) };
    Ok(LocatedSource { settings, offset: section.offset })
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

fn nats(section: &Section<'_>, name: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let subjects = subjects(section);
    let queue_group = named_after(section, "queue_group", name);
    let subjects = subjects?;
    if subjects.is_empty() {
        return Err(section.missing("subjects", "for example: subjects = [\"fraiseql.>\"]"));
    }
    Ok(SourceKind::Nats { connection: connection?, subjects, queue_group: queue_group? })
}

fn jetstream(section: &Section<'_>, name: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let connection = connection(section);
    let stream = section.required::<BusName>("stream");
    let durable = named_after(section, "durable", name);
    let subjects = subjects(section);
    let start = section.or_default("start", Start::New);
    Ok(SourceKind::Jetstream {
        connection: connection?,
        stream: stream?.0,
        durable: durable?,
        subjects: subjects?,
        start: start?,
    })
}

fn http(section: &Section<'_>, _: Option<&Arc<str>>) -> Result<SourceKind, Reported> {
    let listen = section.or_default("listen", HTTP_LISTEN);
    let token = section.secret("token");
    let (listen, token) = (listen?, token?);
    if token.is_none() && !listen.ip().is_loopback() {
        let help = format!("anyone who reaches {listen} could send events: add token = {{ env = \"NAME\" }}");
        return Err(section.missing("token", &help));
    }
    Ok(SourceKind::Http { listen, token })
}

fn connection(section: &Section<'_>) -> Result<NatsConnection, Reported> {
    let url = section.required::<NatsUrl>("url");
    let user = section.optional::<String>("user");
    let (password, token) = (section.secret("password"), section.secret("token"));
    let connection = NatsConnection { url: url?.0, user: user?, password: password?, token: token? };
    match (&connection.user, &connection.password, &connection.token) {
        (None, None, _) | (Some(_), Some(_), None) => Ok(connection),
        (Some(_), Some(_), Some(_)) => Err(both(section)),
        (Some(_), None, _) => Err(section.missing("password", "`user` goes with `password = { env = \"NAME\" }`")),
        (None, Some(_), _) => Err(section.missing("user", "`password` goes with `user`")),
    }
}

fn both(section: &Section<'_>) -> Reported {
    let offset = section.get("token").map_or(section.offset, |value| value.span().start);
    section.refuse("token", offset, "stands beside `user` and `password`", "keep one way to authenticate")
}

fn subjects(section: &Section<'_>) -> Result<Vec<String>, Reported> {
    Ok(section.list::<Subject>("subjects")?.into_iter().map(|subject| subject.0).collect())
}

/// A name on the bus; `wirehook-{source}` where the settings do not say.
fn named_after(section: &Section<'_>, key: &'static str, name: Option<&Arc<str>>) -> Result<String, Reported> {
    let default = BusName(format!("wirehook-{}", name.map_or("?", AsRef::as_ref)));
    Ok(section.or_default(key, default)?.0)
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

struct NatsUrl(Url);

impl Setting for NatsUrl {
    const EXPECTED: &'static str =
        "write \"nats://host:4222\" or \"tls://host:4222\"; user, password and token are keys of their own";
    const PRIVATE: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        if !matches!(url.scheme(), "nats" | "tls") {
            return Err("is not a URL of scheme nats or tls".to_owned());
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("is a URL without a host".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has credentials in it, which would end up in logs".to_owned());
        }
        Ok(Self(url))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

struct IdField(String);

impl Setting for IdField {
    const EXPECTED: &'static str =
        "write a top-level member such as \"order_id\" or a JSON pointer such as \"/order/id\"";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > ID_FIELD_LEN_MAX || text.ends_with('/') {
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
