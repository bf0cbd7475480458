//! One connection to a PostgreSQL server, shared by the kinds of source that read one.
//!
//! # TLS
//!
//! `sslmode` in the URL: `disable` never encrypts; `prefer`, the default, encrypts where the server can; `require`
//! refuses a server that can't. Whenever there is TLS, the server's certificate and name are verified, against the system's
//! authorities or `tls.ca`: so `verify-ca` and `verify-full` are `require`, and `allow` is `prefer`. Where `tls` is set and
//! `sslmode` isn't, it is `require`.
//!
//! # Unix sockets
//!
//! `postgres://app@localhost/shop?host=/run/postgresql`: `host` in the query stands in place of the URL's own.

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Notification, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::words::{connect_error, explain};
use crate::settings::{PostgresConnection, TlsSettings};

/// How long it may take until the server has let the client in.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the server may work on one statement.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an answer may take, the network included: longer than [`STATEMENT_TIMEOUT`], so that the server's own words
/// come first, and short enough that a connection which a proxy keeps open is given up within 30 s.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(25);
/// Notifications that wait to be taken, of at most 8,000 bytes each.
pub(crate) const NOTIFICATIONS_MAX: usize = 1024;

/// A peer that is gone without a word is noticed after `IDLE + RETRIES × INTERVAL`: 45 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for a peer that leaves bytes unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(45);

/// What happens to notifications when [`NOTIFICATIONS_MAX`] of them wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overflow {
    /// Nothing more is read from the server, which keeps them (8 GB for all who listen). That holds up the answers to
    /// statements too: a session that listens so must be told nothing else.
    Wait,
    /// Further ones are dropped, for those to whom one says as much as many; statements are answered all the while.
    Drop,
}

/// A connection at work. Dropping it lets the server go, once what it was told before is done.
pub(crate) struct Session {
    /// For statements. Wrap their futures in [`answer`].
    pub(crate) client: Client,
    /// What the server notified of; `None` once the connection is gone, [`Session::ended`] says why.
    pub(crate) notifications: mpsc::Receiver<Notification>,
    task: JoinHandle<String>,
}

impl Session {
    /// Connects once, as `application_name`, which is what the server's operator sees.
    ///
    /// # Errors
    ///
    /// In words, with the server's own, and what to change: it is down, or refuses, or the settings are wrong.
    pub(crate) async fn connect(
        connection: &PostgresConnection,
        application_name: &str,
        overflow: Overflow,
    ) -> Result<Self, String> {
        let config = config(connection, application_name)?;
        let connecting = async {
            if config.get_ssl_mode() == SslMode::Disable {
                let (client, connection) = config.connect(NoTls).await.map_err(|error| connect_error(&error))?;
                Ok(Self::spawn(client, connection, overflow))
            } else {
                let tls = crate::tls::client_config(&connection.tls).map_err(|error| error.to_string())?;
                let tls = MakeRustlsConnect::new(tls);
                let (client, connection) = config.connect(tls).await.map_err(|error| connect_error(&error))?;
                Ok(Self::spawn(client, connection, overflow))
            }
        };
        let connected = tokio::time::timeout(CONNECT_DEADLINE, connecting).await;
        connected
            .unwrap_or_else(|_| Err(format!("the server did not answer within {CONNECT_DEADLINE:?}")))
            .map_err(|error| format!("can't connect to {}: {error}", connection.url))
    }

    /// Why the connection is gone, once it is. To be awaited to its end once.
    pub(crate) async fn ended(&mut self) -> String {
        (&mut self.task).await.unwrap_or_else(|error| error.to_string())
    }

    fn spawn<S, T>(client: Client, connection: Connection<S, T>, overflow: Overflow) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, notifications) = mpsc::channel(NOTIFICATIONS_MAX);
        let task = tokio::spawn(drive(connection, sender, overflow));
        Self { client, notifications, task }
    }
}

/// The first value of what a simple query said.
pub(super) fn first(said: &[SimpleQueryMessage]) -> Option<&str> {
    said.iter().find_map(|said| match said {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })
}

/// Waits for an answer, for [`ANSWER_DEADLINE`] at most.
///
/// # Errors
///
/// In words, with the server's own, and what to change.
pub(crate) async fn answer<T>(statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    answer_within(ANSWER_DEADLINE, statement).await
}

/// As [`answer`], with a deadline of its own.
pub(crate) async fn answer_within<T>(
    deadline: Duration,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(deadline, statement).await {
        Ok(answer) => answer.map_err(|error| explain(&error)),
        Err(_) => Err(format!("the server did not answer within {deadline:?}")),
    }
}

/// A name as SQL has it, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Reads and writes for as long as the client or the connection lives, and says why it ended. The library keeps nothing
/// back: what is not taken here is not read from the socket.
async fn drive<S, T>(
    mut connection: Connection<S, T>,
    notifications: mpsc::Sender<Notification>,
    overflow: Overflow,
) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            // An error of either means that nobody listens any more; statements may still be under way.
            Some(Ok(AsyncMessage::Notification(notification))) => match overflow {
                Overflow::Wait => drop(notifications.send(notification).await),
                Overflow::Drop => drop(notifications.try_send(notification)),
            },
            Some(Ok(AsyncMessage::Notice(notice))) => tracing::debug!(%notice, "the server says"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return explain(&error),
            None => return "the connection was closed".to_owned(),
        }
    }
}

fn config(connection: &PostgresConnection, application_name: &str) -> Result<Config, String> {
    let text = parameters(&connection.url, &connection.tls);
    let mut config: Config = text.parse().map_err(|error| format!("`url`: {}", explain(&error)))?;
    if let Some(password) = &connection.password {
        config.password(password.expose());
    }
    config
        .application_name(application_name)
        .connect_timeout(CONNECT_DEADLINE)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX);
    Ok(config)
}

/// The URL as `key='value'` pairs, which can say all that a URL can, and a `host` in the query in place of the URL's.
fn parameters(url: &Url, tls: &TlsSettings) -> String {
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
    let mut text = String::new();
    for (key, value) in pairs {
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        // Writing to a string can't fail.
        let _ = write!(text, "{key}='{value}' ");
    }
    text
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
    use crate::secret::Secret;

    fn read(url: &str, tls: TlsSettings) -> Result<Config, String> {
        let password = Some(Secret::new("s3cret"));
        config(&PostgresConnection { url: url.parse().unwrap(), password, tls }, "wirehook-bus")
    }

    #[test]
    fn a_url_says_all() {
        let config = read("postgres://a%2Bb+c@[::1]:99/my%20%27shop%5C", TlsSettings::default()).unwrap();
        assert_eq!(config.get_user(), Some("a+b+c"));
        assert_eq!(config.get_hosts(), [Host::Tcp("::1".to_owned())]);
        assert_eq!(config.get_ports(), [99]);
        assert_eq!(config.get_dbname(), Some("my 'shop\\"));
        assert_eq!(config.get_password(), Some(&b"s3cret"[..]));
        assert_eq!(config.get_application_name(), Some("wirehook-bus"));
    }

    #[test]
    fn a_unix_socket_stands_in_place_of_the_host() {
        let config = read("postgres://app@localhost/shop?host=/run/postgresql", TlsSettings::default()).unwrap();
        assert_eq!(config.get_hosts(), [Host::Unix("/run/postgresql".into())]);
    }

    #[test]
    fn a_certificate_that_is_asked_for_is_verified() {
        let with_ca = TlsSettings { ca: Some("ca.pem".into()), ..TlsSettings::default() };
        let check = |query: &str, tls: &TlsSettings, expected| {
            let config = read(&format!("postgres://localhost/shop{query}"), tls.clone());
            assert_eq!(config.unwrap().get_ssl_mode(), expected, "{query}");
        };
        let without = TlsSettings::default();
        check("", &without, SslMode::Prefer);
        check("", &with_ca, SslMode::Require);
        check("?sslmode=disable", &without, SslMode::Disable);
        check("?sslmode=allow", &without, SslMode::Prefer);
        check("?sslmode=prefer", &with_ca, SslMode::Prefer);
        check("?sslmode=require", &without, SslMode::Require);
        check("?sslmode=verify-ca", &without, SslMode::Require);
        check("?sslmode=verify-full", &without, SslMode::Require);
        let error = read("postgres://localhost/?sslmode=maybe", without.clone()).unwrap_err();
        assert_eq!(error, "`url`: invalid connection string: invalid value for option `sslmode`");
        let error = read("postgres://localhost/?nonsense=1", without).unwrap_err();
        assert_eq!(error, "`url`: invalid connection string: unknown option `nonsense`");
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("tb_entity"), "\"tb_entity\"");
        assert_eq!(quoted("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }
}
