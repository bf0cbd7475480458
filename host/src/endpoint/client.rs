//! An HTTP client behind the egress guard: one request is one exchange with an address that was vetted.
//!
//! A request that can't have been processed, or most probably was not, is made again at once ([`fault`]); whoever asked for it does not
//! notice.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Body as _;
use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::connect::{ConnectError, Connector};
use super::egress::{Denied, vet};
use super::lookup::GuardedResolver;
use super::proxy::Proxy;
use super::{Network, tls};
use crate::settings::EgressSettings;
use crate::sync::lock;

mod fault;
mod held;
mod pool;

pub use fault::REFUSALS_MAX;
pub(super) use fault::Refusal;
pub(super) use held::Answer;
pub use pool::IDLE_AGE_MAX;

use fault::{Repeats, Verdict};
use pool::Pool;

/// The part of a request's timeout that lookup, connection and TLS may take together, so that the rest is left for the answer.
const CONNECT_SHARE: f64 = 2.0 / 3.0;

/// Idle connections of one [`Guarded`] to one host.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Origins that one client keeps connections to. The one that was met first gives way.
const ORIGINS_MAX: usize = 64;

/// A client for requests whose URLs are not known beforehand.
pub struct Guarded {
    client: Client,
    allow: Arc<[IpNet]>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No trusted roots on this machine.
    #[error("a URL is https, but {0}; install the system's CA certificates or set SSL_CERT_FILE")]
    Roots(#[from] rustls::Error),
}

impl Guarded {
    /// A client on `network` that goes the way of `egress`; the machine's roots are read where it `is_secure`. Its requests
    /// take `timeout` at most.
    pub fn new(
        network: &Network,
        is_secure: bool,
        egress: &EgressSettings,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let tls = match &network.tls {
            Some(given) => given.clone(),
            None if is_secure => tls::trusting_the_machine()?,
            None => tls::trusting_only(RootCertStore::empty()),
        };
        let allow: Arc<[IpNet]> = egress.allow.as_slice().into();
        let resolver = GuardedResolver::new(Arc::clone(&network.lookup), Arc::clone(&allow));
        let proxy = egress.proxy.as_ref().map(|settings| Arc::new(Proxy::new(settings, Arc::clone(&network.lookup))));
        Ok(Self { client: Client::new(resolver, proxy, tls, timeout, IDLE_CONNECTIONS_MAX), allow })
    }

    /// Whether the address in `url`, if it is one, may be reached; names are vetted when they are looked up.
    pub fn vet(&self, url: &Url) -> Result<(), Denied> {
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        vet(address, &self.allow)
    }

    /// Sends a request and returns when the answer's head is there.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Answer>, SendError> {
        self.client.send(request.clone(), || Some(request.clone())).await
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// There is no connection.
    #[error("no connection")]
    Connect(#[from] ConnectError),
    /// The exchange failed.
    #[error("the exchange failed")]
    Http(#[from] hyper::Error),
    /// The server says each time that it did not process the request.
    #[error("the endpoint {0}, {times} times one after the other", times = REFUSALS_MAX + 1)]
    Refused(Refusal),
    /// The connection was closed.
    #[error("connection closed by the endpoint")]
    Closed,
}

/// What makes requests, over connections that it keeps.
pub(super) struct Client {
    connector: Connector,
    idle_connections_max: usize,
    pools: Mutex<Vec<Arc<Pool>>>,
}

impl Client {
    pub(super) fn new(
        resolver: GuardedResolver,
        proxy: Option<Arc<Proxy>>,
        tls: ClientConfig,
        timeout: Duration,
        idle_connections_max: usize,
    ) -> Self {
        let connector = Connector::new(resolver, proxy, tls, timeout.mul_f64(CONNECT_SHARE));
        Self { connector, idle_connections_max, pools: Mutex::default() }
    }

    /// Sends a request and returns when the answer's head is there. No redirect is followed. `again` makes the same request once
    /// more, for where the first met a connection that was being closed, or a server that says that it did not process it.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        again: impl Fn() -> Option<Request<Full<Bytes>>>,
    ) -> Result<Response<Answer>, SendError> {
        let uri = request.uri().clone();
        let pool = self.pool(&uri)?;
        let mut held = pool.any(&uri).await?;
        let (mut request, mut repeats) = (request, Repeats::default());
        loop {
            let failed = match held.send(with_length(request)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let verdict = failed.verdict();
            request = match again() {
                Some(request) if repeats.allow(verdict) => request,
                _ => return Err(failed.into_error()),
            };
            if let Verdict::LeaveHttp2(why) = verdict
                && pool.leave_http_2()
            {
                tracing::info!(host = uri.host(), reason = %why, "HTTP/1.1 is spoken to this host from now on");
            }
            held = pool.new_connection(&uri).await?;
        }
    }

    fn pool(&self, uri: &Uri) -> Result<Arc<Pool>, ConnectError> {
        let mut pools = lock(&self.pools);
        if let Some(known) = pools.iter().find(|pool| pool.is_of(uri)) {
            return Ok(Arc::clone(known));
        }
        let pool = Pool::new(uri, self.connector.clone(), self.idle_connections_max).ok_or(ConnectError::NoHost)?;
        if pools.len() == ORIGINS_MAX {
            pools.remove(0);
        }
        pools.push(Arc::new(pool));
        Ok(Arc::clone(&pools[pools.len() - 1]))
    }
}

/// A request that may have a body says so where it has none (RFC 9110, section 8.6): some servers answer 411 else.
fn with_length(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    if request.body().is_end_stream() && [Method::POST, Method::PUT, Method::PATCH].contains(request.method()) {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    request
}
