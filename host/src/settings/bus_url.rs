//! A bus's URL as people paste it, with a password in it: taken apart at once, so that the password is in a [`Secret`]
//! before anything is printed.

use percent_encoding::percent_decode_str;
use url::Url;

use super::encoded::{self, Unencoded};
use super::postgres_url::with_one_host;
use super::servers::{SERVERS_MAX, servers};
use super::source::is_postgres_parameter;
use crate::secret::Secret;

/// A URL without its credentials, and the credentials.
#[derive(Clone, Debug)]
pub struct BusUrl {
    /// No user and no password in it, unless the scheme is PostgreSQL's, where the user stays.
    pub url: Url,
    /// More servers of NATS, which have the same credentials.
    pub others: Vec<Url>,
    /// The user, where one is named besides a password; for PostgreSQL none, as it stays in the URL.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// What stands alone before the `@`: NATS takes it for a token.
    pub token: Option<Secret>,
}

/// Why a text is no bus's URL. Never repeats the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BusUrlError {
    /// It does not parse.
    #[error("is not a URL ({0})")]
    Malformed(#[from] url::ParseError),
    /// Nothing to connect to.
    #[error("is a URL without a host")]
    NoHost,
    /// The credentials are not text.
    #[error("has a user that is not UTF-8 text")]
    NotText,
    /// Nobody can tell where the password ends.
    #[error(transparent)]
    Unencoded(#[from] Unencoded),
    /// What follows a `?` or `#` says nothing to these buses, and may be a password.
    #[error("has a `?` or `#` with something behind it, which is not used; leave it out")]
    MoreThanServer,
    /// As libpq has it, but no parameter of its.
    #[error(
        "has a password in its query, and there a parameter that is not known; write %26 for an `&` in the password"
    )]
    UnknownParameter,
    /// Several servers, where one is all that can be had.
    #[error("names several servers, and wirehook connects to one")]
    Several,
    /// More servers than anybody has.
    #[error("names more than {SERVERS_MAX} servers")]
    TooMany,
    /// One connection has one user.
    #[error("names servers with different credentials; give each the same, or only the first")]
    Differing,
}

impl BusUrl {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// When it is no URL with a host.
    pub fn parse(text: &str) -> Result<Self, BusUrlError> {
        // Before anything splits it: a password may have what stands between servers.
        encoded::check_bus(text)?;
        if !text.trim_start().starts_with("nats://") && !text.trim_start().starts_with("tls://") {
            return Self::parse_one(text);
        }
        let servers = servers(text);
        if servers.len() > SERVERS_MAX {
            return Err(BusUrlError::TooMany);
        }
        let mut all = servers.iter().map(|server| Self::parse_one(server));
        // There is one at least.
        let mut bus = all.next().unwrap_or(Err(BusUrlError::NoHost))?;
        for other in all {
            let other = other?;
            if other.has_credentials() && !other.is_same_client(&bus) {
                return Err(BusUrlError::Differing);
            }
            bus.others.push(other.url);
        }
        Ok(bus)
    }

    /// All servers, as [`BusUrl::parse`] takes them.
    pub fn urls(&self) -> String {
        let all: Vec<&str> = std::iter::once(&self.url).chain(&self.others).map(Url::as_str).collect();
        all.join(",")
    }

    fn has_credentials(&self) -> bool {
        self.user.is_some() || self.password.is_some() || self.token.is_some()
    }

    fn is_same_client(&self, other: &Self) -> bool {
        let exposed = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_vec());
        self.user == other.user
            && exposed(&self.password) == exposed(&other.password)
            && exposed(&self.token) == exposed(&other.token)
    }

    fn parse_one(text: &str) -> Result<Self, BusUrlError> {
        if text.matches("://").count() > 1 {
            return Err(BusUrlError::Several);
        }
        let mut url = Url::parse(&with_one_host(text))?;
        let is_postgres = matches!(url.scheme(), "postgres" | "postgresql");
        // PostgreSQL's may name its host in the query.
        if url.host_str().is_none_or(str::is_empty) && !is_postgres {
            return Err(BusUrlError::NoHost);
        }
        if !is_postgres && url.host_str().is_some_and(|host| host.contains(',')) {
            return Err(BusUrlError::Several);
        }
        let name = percent_decode_str(url.username()).decode_utf8().map_err(|_| BusUrlError::NotText)?.into_owned();
        let name = Some(name).filter(|name| !name.is_empty());
        if url.fragment().is_some() || (url.query().is_some() && !is_postgres && url.scheme() != "http") {
            return Err(BusUrlError::MoreThanServer);
        }
        let mut password = url.password().map(|part| Secret::new(percent_decode_str(part).collect::<Vec<u8>>()));
        if is_postgres {
            let in_query = take_password(&mut url);
            // What is not known is named in an error elsewhere: here, it may be the password's other half.
            if in_query.is_some() && url.query_pairs().any(|(key, _)| !is_postgres_parameter(&key)) {
                return Err(BusUrlError::UnknownParameter);
            }
            password = password.or(in_query);
        }
        // Errors mean that the URL can't have credentials: then there are none to remove.
        let _ = url.set_password(None);
        let (mut user, mut token) = (None, None);
        if !is_postgres {
            let _ = url.set_username("");
            if password.is_some() {
                user = name;
            } else {
                token = name.map(Secret::new);
            }
        }
        Ok(Self { url, others: Vec::new(), user, password: password.filter(|password| !password.is_empty()), token })
    }
}

/// Removes `password=…` from the query.
fn take_password(url: &mut Url) -> Option<Secret> {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let password = pairs.iter().find(|(key, _)| key == "password").map(|(_, value)| Secret::new(value));
    if password.is_some() {
        let rest = pairs.iter().filter(|(key, _)| key != "password");
        url.query_pairs_mut().clear().extend_pairs(rest);
        if url.query() == Some("") {
            url.set_query(None);
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url() {
        let check = |text: &str, url: &str, user: Option<&str>, password: Option<&str>, token: Option<&str>| {
            let parsed = BusUrl::parse(text).unwrap();
            let exposed = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_vec());
            let found =
                (parsed.url.as_str(), parsed.user.as_deref(), exposed(&parsed.password), exposed(&parsed.token));
            let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
            assert_eq!(found, (url, user, bytes(password), bytes(token)), "{text}");
        };
        check("nats://h:4222", "nats://h:4222", None, None, None);
        check("nats://u:p%40w@h", "nats://h", Some("u"), Some("p@w"), None);
        check("nats://tok@h", "nats://h", None, None, Some("tok"));
        check("redis://:pw@h/3", "redis://h/3", None, Some("pw"), None);
        check("rediss://u:pw@h", "rediss://h", Some("u"), Some("pw"), None);
        check("postgres://u:pw@h/db?sslmode=require", "postgres://u@h/db?sslmode=require", None, Some("pw"), None);
        check("postgres://u@h/db?password=pw&dbname=b", "postgres://u@h/db?dbname=b", None, Some("pw"), None);
        check("postgres:///db?host=/run&password=pw", "postgres:///db?host=%2Frun", None, Some("pw"), None);
        check("postgres://u:pw@a:1,b:2/db", "postgres://u@a/db?host=a,b&port=1,2", None, Some("pw"), None);
        check("postgresql://u@h/db?password=pw", "postgresql://u@h/db", None, Some("pw"), None);
    }

    #[test]
    fn several_servers_of_nats_are_one_bus() {
        let check = |text: &str, expected: Result<(&str, bool), BusUrlError>| {
            let parsed = BusUrl::parse(text).map(|bus| (bus.urls(), bus.has_credentials()));
            assert_eq!(
                parsed.as_ref().map(|(urls, has)| (&urls[..], *has)).map_err(|error| *error),
                expected,
                "{text}"
            );
        };
        check("nats://a:1,nats://b:2", Ok(("nats://a:1,nats://b:2", false)));
        check("nats://u:p@a,b", Ok(("nats://a,nats://b", true)));
        check("nats://u:p@a,nats://b", Ok(("nats://a,nats://b", true)));
        check("nats://u:p@a,nats://u:q@b", Err(BusUrlError::Differing));
        check("nats://a,nats://t@b", Err(BusUrlError::Differing));
        check(&vec!["nats://a"; SERVERS_MAX + 1].join(","), Err(BusUrlError::TooMany));
        check("redis://a,b", Err(BusUrlError::Several));
        check("redis://a,redis://b", Err(BusUrlError::Several));
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        let check = |text: &str| {
            let said = BusUrl::parse(text).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        };
        check("host=h password=hunter2");
        check("redis:///0?password=hunter2");
        check("nats://u:hunter2@a:1,nats://u:hunter3@b:1");
        check("");
        for scheme in ["nats", "tls", "redis", "rediss", "postgres", "postgresql", "http", "kafka"] {
            for password in ["12/hunter2", "12?hunter2", "12#hunter2", "12/hunter2@x", "hunter2@x"] {
                check(&format!("{scheme}://u:{password}@h:1/d"));
                check(&format!("{scheme}://:{password}@h:1/d"));
                check(&format!("{scheme}://{password}@h:1/d"));
            }
        }
        check("redis://h/0?password=hunter2");
        check("nats://h#hunter2");
        check("postgres://h/d?password=x&hunter2");
        check("postgres://h/d?password=x&hunter2=y");
        check("postgres://h/d?password=x#hunter2");
    }
}
