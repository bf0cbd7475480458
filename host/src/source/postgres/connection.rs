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
//!
//! # Several servers
//!
//! They are tried in the order in which they stand there, each within [`CONNECT_DEADLINE`], until one is no standby.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Notification, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::pulse::Hearing;
use super::words::{connect_error, explain};
use crate::settings::{PostgresConnection, postgres_url};

/// How long it may take until a server has let the client in.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the server may work on one statement.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(17);
/// How long an answer may take, the network included: longer than [`STATEMENT_TIMEOUT`], so that the server's own words
/// come first, and short enough that a connection which a proxy keeps open is given up within 30 s on a busy machine too.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(22);
/// Notifications that wait to be taken, of at most 8,000 bytes each.
pub(crate) const NOTIFICATIONS_MAX: usize = 1024;

/// A peer that is gone without a word is noticed after `IDLE + RETRIES × INTERVAL`: 25 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for a peer that leaves bytes unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(25);

/// A setting of nobody's, which a server takes from whoever starts a session. A pooler refuses it, or its servers were
/// started by others: then it is not there.
const MARK: &str = "wirehook.session";

/// What happens to notifications when [`NOTIFICATIONS_MAX`] of them wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overflow {
    /// Nothing more is read from the server, which keeps them (8 GB for all who listen). That holds up the answers to
    /// statements too: a session that listens so is told nothing else but what [`super::pulse`] asks.
    Wait,
    /// Further ones are dropped, for those to whom one says as much as many; statements are answered all the while.
    Drop,
}

/// A connection at work. Dropping it lets the server go, once what it was told before is done.
///
/// Nothing is set in it: behind a pooler the next transaction of the same server process is somebody else's. What has to
/// be set is set in a transaction, see [`super::transaction`].
pub(crate) struct Session {
    /// For statements. Wrap their futures in [`answer`].
    pub(crate) client: Client,
    /// What the server notified of; `None` once the connection is gone, [`Ending::why`] says it.
    pub(crate) notifications: mpsc::Receiver<Notification>,
    /// Whether the server started a process for this connection and no other. Else there is a pooler in between.
    pub(crate) direct: bool,
    /// What the driver notes besides.
    pub(crate) hearing: Arc<Hearing>,
    /// Its end.
    pub(crate) end: Ending,
}

/// What becomes of a connection.
pub(crate) struct Ending(JoinHandle<String>);

impl Ending {
    /// Why the connection is gone, once it is. To be awaited to its end once.
    pub(crate) async fn why(&mut self) -> String {
        (&mut self.0).await.unwrap_or_else(|error| error.to_string())
    }
}

/// Why there is no connection.
enum Refused {
    Server(tokio_postgres::Error),
    Words(String),
}

impl Refused {
    /// Whether it may be for [`MARK`]: for no other reason that the server names.
    fn is_for_the_mark(&self) -> bool {
        let Self::Server(error) = self else { return false };
        match error.code() {
            // Authorisation, the database's name, resources, and a server that starts or stops.
            Some(code) => !["28", "3D", "53", "57"].iter().any(|class| code.code().starts_with(class)),
            None => error.is_closed(),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Server(error) => connect_error(error),
            Self::Words(words) => words.clone(),
        }
    }
}

impl Session {
    /// Connects once, as `application_name`, which is what the server's operator sees. Sets nothing.
    ///
    /// # Errors
    ///
    /// In words, with the server's own, and what to change: it is down, or refuses, or the settings are wrong.
    pub(crate) async fn connect(
        connection: &PostgresConnection,
        application_name: &str,
        overflow: Overflow,
    ) -> Result<Self, String> {
        let configs = configs(connection, application_name)?;
        let mut errors = Vec::new();
        for config in &configs {
            match Self::to_one(config, connection, overflow).await {
                // A standby can neither be listened to nor be read from: the primary may be the next.
                Ok(session) if configs.len() > 1 => match session.is_standby().await {
                    Ok(false) => return Ok(session),
                    Ok(true) => errors.push(format!("{} is a standby", server(config))),
                    Err(error) => errors.push(format!("{}: {error}", server(config))),
                },
                Ok(session) => return Ok(session),
                Err(error) if configs.len() > 1 => errors.push(format!("{}: {error}", server(config))),
                Err(error) => errors.push(error),
            }
        }
        Err(format!("can't connect to {}: {}", connection.url, errors.join("; ")))
    }

    /// To one of the servers that the URL names.
    async fn to_one(config: &Config, connection: &PostgresConnection, overflow: Overflow) -> Result<Self, String> {
        let token = format!("{:032x}", fastrand::u128(..));
        let mut marked = config.clone();
        marked.options(format!("{} -c {MARK}={token}", config.get_options().unwrap_or_default()).trim_start());
        let opened = match Self::open(&marked, connection, &token, overflow).await {
            Err(refused) if refused.is_for_the_mark() => Self::open(config, connection, &token, overflow).await,
            opened => opened,
        };
        let mut session = opened.map_err(|refused| refused.words())?;
        let mark = answer(session.client.simple_query(&format!("SELECT current_setting('{MARK}', true)"))).await?;
        session.direct = first(&mark) == Some(&token);
        Ok(session)
    }

    async fn is_standby(&self) -> Result<bool, String> {
        let said = answer(self.client.simple_query("SELECT pg_is_in_recovery()")).await?;
        Ok(first(&said) == Some("t"))
    }

    async fn open(
        config: &Config,
        connection: &PostgresConnection,
        token: &str,
        overflow: Overflow,
    ) -> Result<Self, Refused> {
        let connecting = async {
            if config.get_ssl_mode() == SslMode::Disable {
                let (client, connection) = config.connect(NoTls).await.map_err(Refused::Server)?;
                Ok(Self::spawn(client, connection, token, overflow))
            } else {
                let tls = crate::tls::client_config(&connection.tls);
                let tls = MakeRustlsConnect::new(tls.map_err(|error| Refused::Words(error.to_string()))?);
                let (client, connection) = config.connect(tls).await.map_err(Refused::Server)?;
                Ok(Self::spawn(client, connection, token, overflow))
            }
        };
        let connected = tokio::time::timeout(CONNECT_DEADLINE, connecting).await;
        let silent = || Refused::Words(format!("the server did not answer within {CONNECT_DEADLINE:?}"));
        connected.unwrap_or_else(|_| Err(silent()))
    }

    fn spawn<S, T>(client: Client, connection: Connection<S, T>, token: &str, overflow: Overflow) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, notifications) = mpsc::channel(NOTIFICATIONS_MAX);
        let hearing = Arc::new(Hearing::new(token));
        let task = tokio::spawn(drive(connection, sender, Arc::clone(&hearing), overflow));
        Self { client, notifications, direct: false, hearing, end: Ending(task) }
    }
}

/// The server of a configuration, for its operator.
fn server(config: &Config) -> String {
    let host = match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(host)), _) => host.clone(),
        (Some(Host::Unix(path)), _) => path.display().to_string(),
        (None, address) => address.map(ToString::to_string).unwrap_or_default(),
    };
    let port = config.get_ports().first().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{host}{port}")
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
    hearing: Arc<Hearing>,
    overflow: Overflow,
) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) if notification.channel() == hearing.channel() => {
                hearing.beaten();
            }
            // An error of either means that nobody listens any more; statements may still be under way.
            Some(Ok(AsyncMessage::Notification(notification))) => {
                match (notifications.try_send(notification), overflow) {
                    (Err(TrySendError::Full(notification)), Overflow::Wait) => {
                        hearing.held_up(true);
                        drop(notifications.send(notification).await);
                        hearing.held_up(false);
                    }
                    (sent, _) => drop(sent),
                }
            }
            Some(Ok(AsyncMessage::Notice(notice))) => tracing::debug!(%notice, "the server says"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return explain(&error),
            None => return "the connection was closed".to_owned(),
        }
    }
}

/// How to connect to each server of the URL.
fn configs(connection: &PostgresConnection, application_name: &str) -> Result<Vec<Config>, String> {
    let configs = postgres_url::configs(&connection.url, &connection.tls);
    let mut configs = configs.map_err(|error| format!("`url` {error}"))?;
    for config in &mut configs {
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
    }
    if configs.first().is_some_and(|config| config.get_load_balance_hosts() == LoadBalanceHosts::Random) {
        fastrand::shuffle(&mut configs);
    }
    Ok(configs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::settings::TlsSettings;

    fn read(url: &str, tls: TlsSettings) -> Result<Config, String> {
        let password = Some(Secret::new("s3cret"));
        let configs = configs(&PostgresConnection { url: url.parse().unwrap(), password, tls }, "wirehook-bus");
        configs.map(|mut configs| configs.pop().unwrap())
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
        assert_eq!(error, "`url` can't be used (invalid connection string: invalid value for option `sslmode`)");
        let error = read("postgres://localhost/?nonsense=1", without).unwrap_err();
        assert_eq!(error, "`url` can't be used (invalid connection string: unknown option `nonsense`)");
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("tb_entity"), "\"tb_entity\"");
        assert_eq!(quoted("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }
}
