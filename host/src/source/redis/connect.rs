//! One connection to a Redis server: TCP with keepalive, TLS where the URL says so, authenticated.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value, ValueCodec, cmd};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::codec::{Decoder, Framed};
use url::{Host, Url};

use super::failure::Failure;
use crate::settings::RedisConnection;
use crate::tls::client_config;

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

/// As [`connect`], for requests from several tasks at once, each answered within `response_deadline`.
pub(in crate::source) async fn multiplexed(
    source: &str,
    connection: &RedisConnection,
    response_deadline: Duration,
) -> Result<MultiplexedConnection, Failure> {
    let stream = connect(source, connection).await?.into_inner();
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(response_deadline));
    // There is nothing left to set up, so nothing is sent.
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let (multiplexed, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    // Ends with its last handle.
    tokio::spawn(driver);
    Ok(multiplexed)
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
    let database = connection.url.path().trim_start_matches('/');
    if !database.is_empty() {
        ask(&mut wire, cmd("SELECT").arg(database)).await?;
    }
    // It only helps operators, who see it in `CLIENT LIST`.
    match ask(&mut wire, cmd("CLIENT").arg("SETNAME").arg(format!("wirehook-{source}"))).await {
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
    let refused = |error| Failure::Connection(format!("TLS: {error}; `tls` says whom to trust and what to show"));
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
