//! From an address to a connection on which the server has taken the terms.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use super::greeting::{self, Identity, ServerInfo};
use super::parse::{Operation, Parser, ProtocolError};
use crate::settings::TlsSettings;
use crate::tls::{TlsError, client_config};

/// How long one address may take, from the first packet to the server's answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a server that is to speak TLS may keep silent before it is thought to wait for the handshake
/// (`handshake_first`).
const GREETING_PATIENCE: Duration = Duration::from_secs(1);
const DEFAULT_PORT: u16 = 4222;

/// Why the server did not take the terms. No message has a secret in it.
#[derive(Debug, thiserror::Error)]
pub(in crate::source) enum HandshakeError {
    /// The name has no address.
    #[error("{0}")]
    Lookup(#[source] io::Error),
    /// No TCP connection, or one that broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The TLS handshake failed; the TLS library's error is within.
    #[error("{0}")]
    Tls(#[source] io::Error),
    /// A file of `tls` can't be used.
    #[error(transparent)]
    Settings(#[from] TlsError),
    /// The server did not answer in time.
    #[error("timed out")]
    TimedOut,
    /// The server ended the connection without a word.
    #[error("the server ended the connection")]
    Ended,
    /// What answers there is no NATS server.
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    /// The server's description of itself is not JSON.
    #[error("the server's greeting can't be read: {0}")]
    Greeting(#[source] serde_json::Error),
    /// The server's own words.
    #[error("the server says: {0}")]
    Refused(String),
    /// The key can't sign.
    #[error("{0}")]
    Key(#[from] nkeys::error::Error),
}

/// A stream of bytes, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that the server has taken.
pub(super) struct Taken {
    pub(super) stream: Box<dyn Stream>,
    pub(super) info: ServerInfo,
    /// Bytes that are read already.
    pub(super) buffer: BytesMut,
}

/// What a client needs besides an address.
pub(in crate::source) struct Terms<'a> {
    pub(in crate::source) name: &'a str,
    pub(in crate::source) identity: &'a Identity,
    /// Its files are read where the server speaks TLS.
    pub(in crate::source) tls: &'a TlsSettings,
    /// Whether the server has to speak TLS; where not, it may.
    pub(in crate::source) tls_required: bool,
}

/// Connects to the first address of `url` that takes the terms.
///
/// # Errors
///
/// Those of the last address.
pub(super) async fn connect(url: &Url, terms: &Terms<'_>) -> Result<Taken, HandshakeError> {
    let port = url.port().unwrap_or(DEFAULT_PORT);
    let looked_up = timeout(CONNECT_DEADLINE, tokio::net::lookup_host((host(url), port))).await;
    let addresses = looked_up.map_err(|_| HandshakeError::TimedOut)?.map_err(HandshakeError::Lookup)?;
    let mut last = HandshakeError::Lookup(io::Error::other("the name has no address"));
    for address in addresses {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            greet(url, stream, terms).await
        };
        match timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(taken)) => return Ok(taken),
            // Another address of the same server would say the same.
            Ok(Err(error @ (HandshakeError::Refused(_) | HandshakeError::Key(_)))) => return Err(error),
            Ok(Err(error)) => last = error,
            Err(_) => last = HandshakeError::TimedOut,
        }
    }
    Err(last)
}

/// Without the brackets of IPv6.
fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_matches(['[', ']'])
}

async fn greet(url: &Url, mut stream: TcpStream, terms: &Terms<'_>) -> Result<Taken, HandshakeError> {
    let mut reader = Reader::default();
    if terms.tls_required && timeout(GREETING_PATIENCE, stream.readable()).await.is_err() {
        let mut stream = encrypted(url, stream, terms).await?;
        let info = reader.info(&mut stream).await?;
        return authenticate(Box::new(stream), reader, info, terms, true).await;
    }
    let info = reader.info(&mut stream).await?;
    if terms.tls_required || info.tls_required {
        let stream = encrypted(url, stream, terms).await?;
        return authenticate(Box::new(stream), reader, info, terms, true).await;
    }
    authenticate(Box::new(stream), reader, info, terms, false).await
}

async fn encrypted(url: &Url, stream: TcpStream, terms: &Terms<'_>) -> Result<impl Stream + use<>, HandshakeError> {
    let name = ServerName::try_from(host(url).to_owned());
    let name = name.map_err(|error| HandshakeError::Lookup(io::Error::other(error)))?;
    let connector = TlsConnector::from(Arc::new(client_config(terms.tls)?));
    connector.connect(name, stream).await.map_err(HandshakeError::Tls)
}

async fn authenticate(
    mut stream: Box<dyn Stream>,
    mut reader: Reader,
    mut info: ServerInfo,
    terms: &Terms<'_>,
    is_tls: bool,
) -> Result<Taken, HandshakeError> {
    let connect = greeting::connect(terms.name, &info, terms.identity, is_tls)?;
    stream.write_all(&connect).await.map_err(of_tls)?;
    stream.flush().await.map_err(of_tls)?;
    loop {
        match reader.next(&mut stream).await? {
            Operation::Pong => return Ok(Taken { stream, info, buffer: reader.buffer }),
            Operation::Error(words) => return Err(HandshakeError::Refused(words)),
            Operation::Info(json) => info = serde_json::from_slice(&json).map_err(HandshakeError::Greeting)?,
            Operation::Ping => stream.write_all(b"PONG\r\n").await?,
            Operation::Ok | Operation::Message(..) => {}
        }
    }
}

/// With TLS 1.3 a server refuses the client's certificate only after the client is done.
fn of_tls(error: io::Error) -> HandshakeError {
    let is_tls = error.get_ref().is_some_and(|error| error.is::<rustls::Error>());
    if is_tls { HandshakeError::Tls(error) } else { HandshakeError::Io(error) }
}

#[derive(Default)]
struct Reader {
    parser: Parser,
    buffer: BytesMut,
}

impl Reader {
    async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Operation, HandshakeError> {
        loop {
            if let Some(operation) = self.parser.next(&mut self.buffer)? {
                return Ok(operation);
            }
            if stream.read_buf(&mut self.buffer).await.map_err(of_tls)? == 0 {
                return Err(HandshakeError::Ended);
            }
        }
    }

    async fn info(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<ServerInfo, HandshakeError> {
        match self.next(stream).await? {
            Operation::Info(json) => serde_json::from_slice(&json).map_err(HandshakeError::Greeting),
            Operation::Error(words) => Err(HandshakeError::Refused(words)),
            _ => Err(ProtocolError::Unknown("no INFO".to_owned()).into()),
        }
    }
}
