//! From a URL to a connection: its host vetted and pinned, by way of the proxy where there is one, secured for `https`.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::connection::{Connection, HTTP_2};
use super::lookup::{GuardedResolver, LookupError};
use super::proxy::{Proxy, ProxyError, Target};

/// Why no address answers; the client's own type has no name.
pub(crate) type TcpError = Box<dyn Error + Send + Sync>;

/// How long a silent connection is trusted before the peer is asked whether it is still there, and how often.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
const TCP_KEEPALIVE_RETRIES: u32 = 3;

/// Makes connections for one client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector(Arc<Shared>);

struct Shared {
    resolver: GuardedResolver,
    proxy: Option<Arc<Proxy>>,
    tls: TlsConnector,
    /// The same, offering HTTP/1.1 alone.
    http_1_tls: TlsConnector,
    timeout: Duration,
}

/// What a connection may speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocols {
    /// What both ends prefer.
    Any,
    /// HTTP/1.1 alone.
    Http1,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The host gave no address that may be reached.
    #[error("no address")]
    Lookup(#[from] LookupError),
    /// No address answers.
    #[error("no connection")]
    Tcp(#[source] TcpError),
    /// The proxy does not take it there.
    #[error("no way through the proxy")]
    Proxy(#[from] ProxyError),
    /// Whoever answers is not whom the URL names, or speaks no TLS.
    #[error("no TLS")]
    Tls(#[source] io::Error),
    /// It took longer than it may.
    #[error("timed out")]
    TimedOut,
    /// The URL names no host that can be connected to.
    #[error("the URL names no host")]
    NoHost,
}

impl Connector {
    /// Everything from the lookup to the end of the TLS handshake takes `timeout` at most.
    pub(super) fn new(
        resolver: GuardedResolver,
        proxy: Option<Arc<Proxy>>,
        tls: ClientConfig,
        timeout: Duration,
    ) -> Self {
        let mut http_1_tls = tls.clone();
        http_1_tls.alpn_protocols.retain(|protocol| protocol != HTTP_2);
        let (tls, http_1_tls) = (Arc::new(tls).into(), Arc::new(http_1_tls).into());
        Self(Arc::new(Shared { resolver, proxy, tls, http_1_tls, timeout }))
    }

    /// A connection to the host of `uri`.
    pub(super) async fn connect(&self, uri: &Uri, protocols: Protocols) -> Result<Connection, ConnectError> {
        // Boxed, so that a request over an open connection does not carry its state.
        Box::pin(self.0.connect(uri, protocols)).await
    }
}

impl Shared {
    async fn connect(&self, uri: &Uri, protocols: Protocols) -> Result<Connection, ConnectError> {
        // Whose fault it is when time runs out.
        let at_the_proxy = AtomicBool::new(false);
        let connected = self.connected(uri, protocols, &at_the_proxy);
        match (tokio::time::timeout(self.timeout, connected).await, &self.proxy) {
            (Ok(connected), _) => connected,
            (Err(_), Some(proxy)) if at_the_proxy.load(Ordering::Relaxed) => Err(proxy.timed_out().into()),
            (Err(_), _) => Err(ConnectError::TimedOut),
        }
    }

    async fn connected(
        &self,
        uri: &Uri,
        protocols: Protocols,
        at_the_proxy: &AtomicBool,
    ) -> Result<Connection, ConnectError> {
        let host = uri.host().ok_or(ConnectError::NoHost)?;
        let is_secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let stream = match &self.proxy {
            None => {
                let addresses = self.resolver.addresses(host).await?;
                tcp(addresses, port, self.timeout).await.map_err(ConnectError::Tcp)?
            }
            Some(proxy) => {
                let target = self.target(proxy, host).await?;
                at_the_proxy.store(true, Ordering::Relaxed);
                let stream = proxy.connect(&target, port, self.timeout).await?;
                at_the_proxy.store(false, Ordering::Relaxed);
                stream
            }
        };
        let tls = match protocols {
            Protocols::Any => &self.tls,
            Protocols::Http1 => &self.http_1_tls,
        };
        if is_secure { secured(tls, stream, host).await } else { Ok(Connection::plain(stream)) }
    }

    /// What the proxy is told: vetted addresses, or a name that only the proxy can look up.
    async fn target(&self, proxy: &Proxy, host: &str) -> Result<Target, ConnectError> {
        if !proxy.resolves_names() {
            return Ok(Target::Addresses(self.resolver.addresses(host).await?));
        }
        let literal = self.resolver.literal(if is_loopback(host) { "127.0.0.1" } else { host })?;
        Ok(literal.map_or_else(|| Target::Name(host.to_owned()), |address| Target::Addresses(vec![address])))
    }
}

async fn secured(tls: &TlsConnector, stream: TcpStream, host: &str) -> Result<Connection, ConnectError> {
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| ConnectError::NoHost)?;
    let stream = tls.connect(name, stream).await.map_err(ConnectError::Tls)?;
    Ok(Connection::secure(stream))
}

/// Names that mean the loopback wherever they are looked up (RFC 6761).
fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// A connection to the first of `addresses` that answers, and to nothing else: no name is looked up again.
pub(super) async fn tcp(addresses: Vec<IpAddr>, port: u16, timeout: Duration) -> Result<TcpStream, TcpError> {
    let mut connector = HttpConnector::new_with_resolver(Pinned(addresses));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    // Shared among the addresses, so that a dead one leaves time to try the next.
    connector.set_connect_timeout(Some(timeout));
    connector.set_keepalive(Some(TCP_KEEPALIVE));
    connector.set_keepalive_interval(Some(TCP_KEEPALIVE));
    connector.set_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES));
    // The connector wants a URL; its host is never looked at but by `Pinned`, which answers everything alike.
    let uri = Uri::builder().scheme("http").authority(format!("pinned:{port}")).path_and_query("/").build();
    let uri = uri.expect("a name and a port are an authority");
    Ok(connector.call(uri).await?.into_inner())
}

/// Answers with what was vetted before.
#[derive(Clone)]
struct Pinned(Vec<IpAddr>);

impl Service<Name> for Pinned {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        // Port 0 stands for the URL's.
        ready(Ok(self.0.iter().map(|address| SocketAddr::new(*address, 0)).collect::<Vec<_>>().into_iter()))
    }
}
