//! A bus's URL as people paste it, with a password in it: taken apart at once, so that the password is in a [`Secret`]
//! before anything is printed.

use percent_encoding::percent_decode_str;
use url::Url;

use super::postgres_url::with_one_host;
use crate::secret::Secret;

/// A URL without its credentials, and the credentials.
#[derive(Clone, Debug)]
pub struct BusUrl {
    /// No user and no password in it, unless the scheme is PostgreSQL's, where the user stays.
    pub url: Url,
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
    /// Several servers.
    #[error("names several servers, and wirehook connects to one")]
    Several,
}

impl BusUrl {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// When it is no URL with a host.
    pub fn parse(text: &str) -> Result<Self, BusUrlError> {
        if text.matches("://").count() > 1 {
            return Err(BusUrlError::Several);
        }
        let mut url = Url::parse(&with_one_host(text))?;
        let is_postgres = matches!(url.scheme(), "postgres" | "postgresql");
        // PostgreSQL's may name its host in the query.
        if url.host_str().is_none_or(str::is_empty) && !is_postgres {
            return Err(BusUrlError::NoHost);
        }
        let name = percent_decode_str(url.username()).decode_utf8().map_err(|_| BusUrlError::NotText)?.into_owned();
        let name = Some(name).filter(|name| !name.is_empty());
        let mut password = url.password().map(|part| Secret::new(percent_decode_str(part).collect::<Vec<u8>>()));
        if is_postgres {
            password = password.or(take_password(&mut url));
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
        Ok(Self { url, user, password: password.filter(|password| !password.is_empty()), token })
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
        check("postgres://u@h/db?password=pw&a=b", "postgres://u@h/db?a=b", None, Some("pw"), None);
        check("postgres:///db?host=/run&password=pw", "postgres:///db?host=%2Frun", None, Some("pw"), None);
        check("postgres://u:pw@a:1,b:2/db", "postgres://u@a/db?host=a,b&port=1,2", None, Some("pw"), None);
        check("postgresql://u@h/db?password=pw", "postgresql://u@h/db", None, Some("pw"), None);
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        let check = |text: &str| {
            let said = BusUrl::parse(text).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        };
        check("host=h password=hunter2");
        check("redis:///0?password=hunter2");
        check("nats://u:hunter2@a:1,nats://u:hunter2@b:1");
        check("");
    }
}
