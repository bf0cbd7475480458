//! One connection to a Redis server: TCP with keepalive, TLS where the URL says so, authenticated.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value, ValueCodec, cmd};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::codec::{Decoder, Framed};
use url::{Host, Url};

use super::failure::Failure;
use crate::settings::RedisConnection;
use crate::tls::client_config;

/// How long the server may send nothing while it owes an answer, beyond what it was asked to wait.
pub(in crate::source) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The port of a URL that names none.
const PORT: u16 = 6379;
/// How long connecting may take, TLS and authentication included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// After so much silence the system asks whether the peer is alive,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and so many times in vain until the connection is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// What replies are read from, one by one: nothing is read that nobody asks for.
pub(in crate::source) type Wire = Framed<Box<dyn Io>, ValueCodec>;

/// A TCP or TLS stream.
pub(in crate::source) trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// Connects and authenticates, and selects the database of the URL. The connection has the name `wirehook-{source}`
/// where the server allows it to have one.
pub(in crate::source) async fn connect(source: &str, connection: &RedisConnection) -> Result<Wire, Failure> {
    let failed = |error: &str| Failure::Connection(format!("can't connect to {}: {error}", connection.url));
    match tokio::time::timeout(CONNECT_DEADLINE, greeted(source, connection)).await {
        Ok(Ok(wire)) => Ok(wire),
        Ok(Err(Failure::Connection(error))) => Err(failed(&error)),
        Ok(Err(refused)) => Err(refused),
        Err(_) => Err(failed(&format!("no answer within {CONNECT_DEADLINE:?}"))),
    }
}

/// What an ACL has to allow for `rules` over this connection.
pub(in crate::source) fn rules(rules: &str, connection: &RedisConnection) -> String {
    match database(connection) {
        Some(_) => format!("+select {rules}"),
        None => rules.to_owned(),
    }
}

/// The database that the URL names.
fn database(connection: &RedisConnection) -> Option<&str> {
    Some(connection.url.path().trim_start_matches('/')).filter(|database| !database.is_empty())
}

/// As [`connect`], for requests from several tasks at once, each answered within `response_deadline`.
pub(in crate::source) async fn multiplexed(
    source: &str,
    connection: &RedisConnection,
    response_deadline: Duration,
) -> Result<MultiplexedConnection, Failure> {
    Ok(counted(source, connection, response_deadline).await?.0)
}

/// As [`multiplexed`], with a count of the bytes that have come.
pub(in crate::source) async fn counted(
    source: &str,
    connection: &RedisConnection,
    response_deadline: Duration,
) -> Result<(MultiplexedConnection, Progress), Failure> {
    let received = Progress::default();
    let stream = Counted { stream: connect(source, connection).await?.into_inner(), received: received.clone() };
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(response_deadline));
    // There is nothing left to set up, so nothing is sent.
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let (multiplexed, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    // Ends with its last handle.
    tokio::spawn(driver);
    Ok((multiplexed, received))
}

/// Bytes that have come over a connection.
#[derive(Clone, Debug, Default)]
pub(in crate::source) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Waits for an answer of any size for as long as some of it comes, and gives up after `silence` without a byte: the
    /// server is gone then, whatever a proxy in between makes of that.
    pub(in crate::source) async fn patiently<T>(
        &self,
        silence: Duration,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Failure> {
        let mut answer = pin!(answer);
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            if let Ok(answer) = tokio::time::timeout(silence, &mut answer).await {
                return Ok(answer?);
            }
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return Err(Failure::Connection(format!("the server sent nothing for {silence:?}")));
            }
            before = now;
        }
    }
}

struct Counted {
    stream: Box<dyn Io>,
    received: Progress,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received.0.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Sends one command and returns its reply; for connections that nothing else goes over meanwhile.
pub(in crate::source) async fn ask(wire: &mut Wire, command: &Cmd) -> Result<Value, Failure> {
    wire.send(command.get_packed_command()).await?;
    match wire.next().await {
        Some(Ok(Value::ServerError(error))) => Err(Failure::refused(&error)),
        Some(reply) => Ok(reply?),
        None => Err(Failure::Connection("the server closed the connection".to_owned())),
    }
}

async fn greeted(source: &str, connection: &RedisConnection) -> Result<Wire, Failure> {
    let mut wire = ValueCodec::default().framed(stream(connection).await?);
    if let Some(password) = &connection.password {
        let mut auth = cmd("AUTH");
        if let Some(user) = &connection.user {
            auth.arg(user);
        }
        ask(&mut wire, auth.arg(password.expose())).await?;
    }
    if let Some(database) = database(connection) {
        ask(&mut wire, cmd("SELECT").arg(database)).await?;
    }
    // It only helps operators, who see it in `CLIENT LIST`. `HELLO` is no command that an ACL forbids, unlike `CLIENT
    // SETNAME`, which would put an entry into `ACL LOG` at every connection.
    let name = format!("wirehook-{source}");
    match ask(&mut wire, cmd("HELLO").arg(2).arg("SETNAME").arg(name)).await {
        // A server that wants a password says so at the first command.
        Err(refused @ Failure::Refused(_)) if refused.code() == Some("NOAUTH") => Err(refused),
        Ok(_) | Err(Failure::Refused(_)) => Ok(wire),
        Err(error) => Err(error),
    }
}

async fn stream(connection: &RedisConnection) -> Result<Box<dyn Io>, Failure> {
    let host = host(&connection.url);
    let tcp = TcpStream::connect((host.as_str(), connection.url.port().unwrap_or(PORT))).await?;
    tcp.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    if connection.url.scheme() != "rediss" {
        return Ok(Box::new(tcp));
    }
    let config = client_config(&connection.tls).map_err(|error| Failure::Connection(error.to_string()))?;
    let name = ServerName::try_from(host).map_err(|error| Failure::Connection(error.to_string()))?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let refused = |error: io::Error| {
        let advice = crate::tls::cause(&error).and_then(crate::tls::advice);
        let advice = advice.unwrap_or("`tls` says whom to trust and what to show");
        Failure::Connection(format!("TLS: {error}; {advice}"))
    };
    Ok(Box::new(tls.map_err(refused)?))
}

/// The URL's host, without the brackets that an IPv6 address has there.
fn host(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_as_the_resolver_takes_it() {
        let check = |url: &str, expected: &str| assert_eq!(host(&url.parse().unwrap()), expected);
        check("redis://[::1]:6379/0", "::1");
        check("rediss://redis.example.com", "redis.example.com");
        check("redis://127.0.0.1:1", "127.0.0.1");
    }
}
