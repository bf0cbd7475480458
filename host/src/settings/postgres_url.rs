//! A PostgreSQL URL as libpq has it, several servers included, as what the client library takes: one for each server.
//!
//! `postgres://a:1,b:2/db` is written `postgres://a/db?host=a,b&port=1,2`, which libpq takes for the same: then it is a URL
//! as any other.

use std::borrow::Cow;
use std::fmt::Write as _;

use tokio_postgres::Config;
use url::Url;

use super::TlsSettings;

/// Most servers of one URL.
const SERVERS_MAX: usize = 16;
/// What a server has to be, where the URL says: sources read where rows are written, and a standby can't LISTEN.
const SESSION_ATTRIBUTES: [&str; 3] = ["any", "read-write", "primary"];

/// The URL with a single host before its path, and several in the query.
pub(super) fn with_one_host(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return text.into();
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    if !hosts.contains(',') {
        return text.into();
    }
    let (names, ports): (Vec<_>, Vec<_>) = hosts.split(',').map(host_and_port).unzip();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let at = if user.is_empty() { "" } else { "@" };
    let first = names.iter().find(|name| !name.is_empty() && !name.contains([':', '%'])).unwrap_or(&"localhost");
    let ports = match ports.iter().all(|port| port.is_empty()) {
        true => String::new(),
        false => format!("&port={}", ports.join(",")),
    };
    let and = if query.is_empty() { "" } else { "&" };
    format!("{scheme}://{user}{at}{first}{path}?host={}{ports}{and}{query}", names.join(",")).into()
}

fn is_scheme(scheme: &str) -> bool {
    matches!(scheme, "postgres" | "postgresql")
}

/// An address of IPv6 stands in brackets here, and without them in a list.
fn host_and_port(text: &str) -> (&str, &str) {
    match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, port)) => (address, port.trim_start_matches(':')),
        None => text.split_once(':').unwrap_or((text, "")),
    }
}

/// How to connect to each of the servers, in the order in which they stand there. Without a password.
///
/// # Errors
/// With what is wrong, as a predicate that does not repeat the text: then nothing can ever connect.
pub(crate) fn configs(url: &Url, tls: &TlsSettings) -> Result<Vec<Config>, String> {
    let mut pairs = pairs(url, tls);
    let mut take = |key: &str| {
        let found = pairs.iter().position(|(other, _)| other == key).map(|place| pairs.remove(place).1);
        found.map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    let (hosts, addresses, ports) = (take("host"), take("hostaddr"), take("port"));
    let attributes = take("target_session_attrs");
    if attributes.iter().any(|attribute| !SESSION_ATTRIBUTES.contains(&attribute.as_str())) {
        let known = SESSION_ATTRIBUTES.join(", ");
        return Err(format!("has a `target_session_attrs` that is none of {known}; a standby can't be read from"));
    }
    let servers = hosts.len().max(addresses.len());
    if servers > SERVERS_MAX {
        return Err(format!("names {servers} servers, and {SERVERS_MAX} are the most"));
    }
    if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
        return Err(format!("names {} hosts and {} addresses (`hostaddr`)", hosts.len(), addresses.len()));
    }
    if ports.len() > 1 && ports.len() != servers {
        return Err(format!("names {servers} servers and {} ports; name one port, or one for each", ports.len()));
    }
    let port = |server: usize| ports.get(server).or(ports.first().filter(|_| ports.len() == 1));
    let of_server = |server: usize| {
        let own = [("host", hosts.get(server)), ("hostaddr", addresses.get(server)), ("port", port(server))];
        let own = own.into_iter().filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)));
        let mut text = String::new();
        for (key, value) in pairs.iter().map(|(key, value)| (key.as_str(), value)).chain(own) {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            // Writing to a string can't fail.
            let _ = write!(text, "{key}='{value}' ");
        }
        text.parse::<Config>().map_err(|error| refused(&error))
    };
    (0..servers).map(of_server).collect()
}

fn refused(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("can't be used ({error}{cause})")
}

/// What the URL says, with a key in the query in place of what stands before it.
fn pairs(url: &Url, tls: &TlsSettings) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: String| {
        if !value.is_empty() {
            pairs.retain(|(other, _)| other != key);
            pairs.push((key.to_owned(), value));
        }
    };
    set("user", decoded(url.username()));
    set("host", decoded(url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')));
    set("port", url.port().map(|port| port.to_string()).unwrap_or_default());
    set("dbname", decoded(url.path().trim_start_matches('/')));
    if *tls != TlsSettings::default() {
        set("sslmode", "require".to_owned());
    }
    for (key, value) in url.query_pairs() {
        let value = match (&*key, &*value) {
            ("sslmode", "verify-ca" | "verify-full") => "require".to_owned(),
            ("sslmode", "allow") => "prefer".to_owned(),
            _ => value.into_owned(),
        };
        set(&key, value);
    }
    pairs
}

/// Percent-encoding undone.
fn decoded(text: &str) -> String {
    // A form's value decodes the same, but for `+`, which is a space there.
    let form = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn several_hosts_move_into_the_query() {
        let check = |text: &str, expected: &str| {
            assert_eq!(with_one_host(text), expected, "{text}");
            assert!(Url::parse(&with_one_host(text)).is_ok(), "{text}");
        };
        check("postgres://a:1/db", "postgres://a:1/db");
        check("postgres://a:1,b:2/db", "postgres://a/db?host=a,b&port=1,2");
        check("postgres://u@a,b:2/db?sslmode=require", "postgres://u@a/db?host=a,b&port=,2&sslmode=require");
        check("postgresql://a,b", "postgresql://a?host=a,b");
        check("postgres://[::1]:1,[::2]:2/db", "postgres://localhost/db?host=::1,::2&port=1,2");
        check("postgres://u:p%40,w@a,b/db", "postgres://u:p%40,w@a/db?host=a,b");
        check("postgres://u:p,w@a/db", "postgres://u:p,w@a/db");
        check("postgres://%2Frun%2Fpg,b/db", "postgres://b/db?host=%2Frun%2Fpg,b");
    }

    fn servers(text: &str) -> Result<Vec<String>, String> {
        let configs = configs(&Url::parse(&with_one_host(text)).unwrap(), &TlsSettings::default())?;
        let server = |config: &Config| {
            let host = match config.get_hosts() {
                [Host::Tcp(host)] => host.clone(),
                [Host::Unix(path)] => path.display().to_string(),
                other => format!("{other:?}"),
            };
            let addresses = config.get_hostaddrs().iter().map(|address| format!("={address}")).collect::<String>();
            format!("{host}{addresses}:{:?}", config.get_ports())
        };
        Ok(configs.iter().map(server).collect())
    }

    #[test]
    fn each_server_is_connected_to_by_itself() {
        let check = |text: &str, expected: &[&str]| assert_eq!(servers(text).unwrap(), expected, "{text}");
        check("postgres://a/db", &["a:[]"]);
        check("postgres://a:1,b:2/db?target_session_attrs=read-write", &["a:[1]", "b:[2]"]);
        check("postgres://a,b:2/db", &["a:[]", "b:[2]"]);
        check("postgres://a,b/db?port=7", &["a:[7]", "b:[7]"]);
        check("postgres://a/db?host=b,c&port=1,2", &["b:[1]", "c:[2]"]);
        check("postgres://[::1]:1,[::2]:2/db", &["::1:[1]", "::2:[2]"]);
        check("postgres://a,b/db?hostaddr=10.0.0.1,10.0.0.2", &["a=10.0.0.1:[]", "b=10.0.0.2:[]"]);
        check("postgres://%2Frun%2Fpg,b/db", &["/run/pg:[]", "b:[]"]);
    }

    #[test]
    fn what_can_never_connect_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = servers(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("postgres://a:1,b:nine/db", "invalid value for option `port`");
        check("postgres://a:1,b:2/db?port=1,2,3", "names 2 servers and 3 ports");
        check("postgres://a,b/db?hostaddr=10.0.0.1", "names 2 hosts and 1 addresses");
        check("postgres://a/db?hostaddr=nowhere", "invalid value for option `hostaddr`");
        check("postgres://a,b/db?target_session_attrs=standby", "none of any, read-write, primary");
        check("postgres://a/db?connect_timeout=soon", "invalid value for option `connect_timeout`");
        check(&format!("postgres://{}/db", ["a"; 17].join(",")), "names 17 servers, and 16 are the most");
    }
}
