//! An HTTP client behind the egress guard: one request is one exchange with an address that was vetted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::connect::Connector;
use super::egress::{Denied, vet};
use super::lookup::GuardedResolver;
use super::proxy::Proxy;
use super::{Network, tls};
use crate::settings::EgressSettings;

/// How long a connection stays open between requests: shorter than most servers keep theirs, so that few requests meet one
/// that is being closed.
const IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(30);

/// The part of a request's timeout that lookup, connection and TLS may take together, so that the rest is left for the answer.
const CONNECT_SHARE: f64 = 2.0 / 3.0;

/// Idle connections of one [`Guarded`] to one host.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// The head of a response at most; the buffer that every connection reads into.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// An HTTP/2 connection with requests under way is asked this often whether it is still there.
const HTTP_2_PING_INTERVAL: Duration = Duration::from_secs(10);

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
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, legacy::Error> {
        self.client.send(request).await
    }
}

/// What makes requests, over connections that it keeps.
pub(super) struct Client(legacy::Client<Connector, Full<Bytes>>);

impl Client {
    pub(super) fn new(
        resolver: GuardedResolver,
        proxy: Option<Arc<Proxy>>,
        tls: ClientConfig,
        timeout: Duration,
        idle_connections_max: usize,
    ) -> Self {
        let connector = Connector::new(resolver, proxy, tls, timeout.mul_f64(CONNECT_SHARE));
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_AGE_MAX)
            .pool_max_idle_per_host(idle_connections_max)
            .http1_max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .http2_keep_alive_interval(HTTP_2_PING_INTERVAL)
            .http2_keep_alive_timeout(HTTP_2_PING_INTERVAL)
            .build(connector);
        Self(client)
    }

    /// Sends a request and returns when the answer's head is there. No redirect is followed.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, legacy::Error> {
        self.0.request(request).await
    }
}
