//! `wirehook init`: a settings file from three answers. Pure: nothing is written here.

use std::fmt::Write as _;

use toml::{Table, Value};
use url::{Host, Url};

use crate::dev::{SourceArguments, SourceArgumentsError};

/// The file with the signing secret, beside the settings.
pub const SECRET_FILE: &str = "webhooks.secret";
/// The source, the endpoint, and so the route.
const SOURCE: &str = "bus";
const ENDPOINT: &str = "receiver";
/// Where events come from, where nothing says.
pub const SOURCE_DEFAULT: &str = "http://127.0.0.1:7466";
/// Which events are taken, where nothing says: all.
pub const EVENTS_DEFAULT: &str = ">";
/// Where webhooks go, where nothing says: where `wirehook receive` listens.
pub const TO_DEFAULT: &str = "http://127.0.0.1:8080/hooks";

/// The answers.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Where events come from.
    pub source: SourceArguments,
    /// Which: patterns of subjects.
    pub events: Vec<String>,
    /// Where webhooks go.
    pub to: Url,
}

/// A settings file, and the variables that it reads.
#[derive(Debug)]
pub struct Written {
    /// TOML.
    pub text: String,
    /// Each with what it has to hold.
    pub variables: Vec<(&'static str, &'static str)>,
}

/// The settings that `answers` mean.
///
/// # Errors
/// When the source's arguments name no bus.
pub fn settings(answers: &Answers) -> Result<Written, SourceArgumentsError> {
    let mut arguments = answers.source.clone();
    let is_nats = ["nats://", "tls://"].iter().any(|scheme| arguments.source.starts_with(scheme));
    if is_nats && arguments.subjects.is_empty() && answers.events.iter().all(|pattern| pattern != EVENTS_DEFAULT) {
        arguments.subjects.clone_from(&answers.events);
    }
    let mut source = arguments.source_table()?;
    // Those of a trial; the defaults are a host's.
    for own in ["durable", "queue_group", "group"] {
        source.table.remove(own);
    }
    let mut variables = Vec::new();
    for (key, variable, what) in
        [("password", "BUS_PASSWORD", "the bus's password"), ("token", "BUS_TOKEN", "the bus's token")]
    {
        if source.table.contains_key(key) {
            source.table.insert(key.to_owned(), Table::from_iter([("env".to_owned(), variable.into())]).into());
            variables.push((variable, what));
        }
    }
    source.table.insert("name".to_owned(), SOURCE.into());
    let mut text = String::from(
        "# Made by `wirehook init`. `wirehook check` says whether it is right, `wirehook config show` what is in force.\n\n[[source]]\n",
    );
    write_table(&mut text, &source.table);
    text.push_str(
        "# Where JSON that is neither a CloudEvent nor FraiseQL's says what it is: members, or pointers such as \"/meta/type\".\n\
         type_field = \"type\"\n\
         tenant_field = \"tenant\"\n\
         time_field = \"timestamp\"\n\
         data_field = \"data\"\n\
         # id_field = \"id\"                     # only where it names the event, and not what the event is about\n",
    );
    let events: Vec<Value> = answers.events.iter().map(|pattern| pattern.as_str().into()).collect();
    let _ = write!(
        text,
        "\n# Which events go where, each as {{\"type\": …, \"timestamp\": …, \"data\": …}}. A plugin in `plugins` can do more.\n\
         [[route]]\nsubjects = {}\nto = \"{ENDPOINT}\"\n\
         \n[[endpoint]]\nname = \"{ENDPOINT}\"\nurl = {}\nsignature = \"standard-webhooks\"\nsecret = {{ file = \"{SECRET_FILE}\" }}\n",
        Value::from(events),
        Value::from(answers.to.as_str()),
    );
    if let Some(network) = inside(&answers.to) {
        let _ = write!(
            text,
            "\n# Only because the endpoint is on this machine or in a private network.\n[egress]\nallow = [\"{network}\"]\n"
        );
    }
    Ok(Written { text, variables })
}

/// The keys that say what it is first.
fn write_table(text: &mut String, table: &Table) {
    let first = ["name", "kind", "listen", "url"];
    let rest = table.keys().map(String::as_str).filter(|key| !first.contains(key));
    for key in first.into_iter().chain(rest) {
        if let Some(value) = table.get(key) {
            let _ = writeln!(text, "{key} = {}", inline(value));
        }
    }
}

/// A value on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let entries: Vec<_> = table.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        value => value.to_string(),
    }
}

/// The network of an address that webhooks reach only where the settings say so; a name's may be anything.
fn inside(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Ipv4(ip) if ip.is_loopback() => Some("127.0.0.0/8".to_owned()),
        Host::Ipv4(ip) => (ip.is_private() || ip.is_link_local()).then(|| format!("{ip}/32")),
        Host::Ipv6(ip) => {
            (ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()).then(|| format!("{ip}/128"))
        }
        Host::Domain("localhost") => Some("127.0.0.0/8\", \"::1/128".to_owned()),
        Host::Domain(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::{Environment, SourceKind, parse};

    fn answers(source: &str, events: &[&str], to: &str) -> Answers {
        let source = SourceArguments { source: source.to_owned(), ..SourceArguments::default() };
        Answers {
            source,
            events: events.iter().map(|pattern| (*pattern).to_owned()).collect(),
            to: to.parse().unwrap(),
        }
    }

    /// The settings as a host reads them, from a folder with the secret.
    fn read(answers: &Answers) -> crate::settings::Loaded {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SECRET_FILE), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let Written { text, variables } = settings(answers).unwrap();
        let variables: Vec<_> = variables.iter().map(|(name, _)| (*name, "s3cret")).collect();
        let file = folder.path().join("wirehook.toml");
        let loaded = parse(&file, &text, &Environment::of(&variables, Path::new("/")));
        loaded.unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn every_bus_is_right_as_it_is_written() {
        for (source, kind) in [
            (SOURCE_DEFAULT, "http"),
            ("nats://127.0.0.1:4222", "nats"),
            ("nats://me:pw@127.0.0.1:4222", "nats"),
            ("redis://127.0.0.1:6379", "redis"),
            ("postgres://me:pw@127.0.0.1/app", "postgres"),
            ("-", "stdin"),
        ] {
            let loaded = read(&answers(source, &["invoice.*", "order.>"], "https://example.com/hooks"));
            assert_eq!(loaded.warnings, [], "{source}");
            assert_eq!(loaded.settings.sources[0].kind.name(), kind);
            assert_eq!(loaded.settings.plugins.routes[0].subjects, ["invoice.*", "order.>"]);
            assert_eq!(loaded.settings.egress.allow, []);
        }
    }

    #[test]
    fn the_passwords_of_a_bus_are_in_variables() {
        let written = settings(&answers("nats://me:hunter2@127.0.0.1:4222", &[">"], TO_DEFAULT)).unwrap();
        assert!(!written.text.contains("hunter2"), "{}", written.text);
        assert_eq!(written.variables, [("BUS_PASSWORD", "the bus's password")]);
    }

    #[test]
    fn a_nats_source_takes_what_the_route_does() {
        let subjects = |events: &[&str]| {
            let loaded = read(&answers("nats://127.0.0.1:4222", events, TO_DEFAULT));
            let SourceKind::Nats { subjects, .. } = loaded.settings.sources[0].kind.clone() else { panic!() };
            subjects
        };
        assert_eq!(subjects(&["invoice.*"]), ["invoice.*"]);
        assert_eq!(subjects(&[">"]), ["fraiseql.>"]);
    }

    #[test]
    fn an_endpoint_inside_is_allowed_and_no_other() {
        let allowed = |to: &str| {
            let loaded = read(&answers(SOURCE_DEFAULT, &[">"], to));
            loaded.settings.egress.allow.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(allowed(TO_DEFAULT), ["127.0.0.0/8"]);
        assert_eq!(allowed("http://localhost:8080/"), ["127.0.0.0/8", "::1/128"]);
        assert_eq!(allowed("http://[::1]:8080/"), ["::1/128"]);
        assert_eq!(allowed("http://10.1.2.3/"), ["10.1.2.3/32"]);
        assert_eq!(allowed("https://8.8.8.8/"), Vec::<String>::new());
    }
}
