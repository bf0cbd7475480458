//! An HTTP client behind the egress guard: one request is one exchange with an address that was vetted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::egress::{Denied, vet};
use super::lookup::GuardedResolver;
use super::{Network, tls};

/// How long a connection stays open between requests: shorter than most servers keep theirs, so that few requests meet one
/// that is being closed.
const IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(30);

/// The part of a request's timeout that lookup, connection and TLS may take together, shared among the addresses, so that a
/// dead address leaves time to try the next.
const CONNECT_SHARE: f64 = 2.0 / 3.0;

/// Idle connections of one [`Guarded`] to one host.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// A client for requests whose URLs are not known beforehand.
pub struct Guarded {
    client: reqwest::Client,
    allow: Arc<[IpNet]>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No trusted roots on this machine.
    #[error("a URL is https, but {0}; install the system's CA certificates or set SSL_CERT_FILE")]
    Roots(#[from] rustls::Error),
    /// The client could not be built.
    #[error("no client could be built: {0}")]
    Client(#[from] reqwest::Error),
}

impl Guarded {
    /// A client on `network`; the machine's roots are read where it `is_secure`. Its requests take `timeout` at most.
    pub fn new(
        network: &Network,
        is_secure: bool,
        allow: Arc<[IpNet]>,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let tls = match &network.tls {
            Some(given) => given.clone(),
            None if is_secure => tls::trusting_the_machine()?,
            None => tls::trusting_only(RootCertStore::empty()),
        };
        let resolver = GuardedResolver::new(Arc::clone(&network.lookup), Arc::clone(&allow));
        Ok(Self { client: client(resolver, tls, timeout, IDLE_CONNECTIONS_MAX)?, allow })
    }

    /// Whether the address in `url`, if it is one, may be reached; names are vetted when they are looked up.
    pub fn vet(&self, url: &Url) -> Result<(), Denied> {
        literal_address(url).map_or(Ok(()), |address| vet(address, &self.allow))
    }

    /// Sends a request whose URL was vetted, and returns when the answer's head is there.
    pub async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, reqwest::Error> {
        self.client.execute(request).await
    }
}

pub(super) fn client(
    resolver: GuardedResolver,
    tls: ClientConfig,
    timeout: Duration,
    idle_connections_max: usize,
) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(resolver))
        .no_proxy()
        .redirect(Policy::none())
        // A request is one exchange; whether there is another is for its maker to say.
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(timeout.mul_f64(CONNECT_SHARE))
        .pool_max_idle_per_host(idle_connections_max)
        .pool_idle_timeout(IDLE_CONNECTION_AGE_MAX)
        .tcp_nodelay(true)
        .build()
}

/// The address that stands in the URL itself, in whatever notation: the URL's parser has read them all.
pub(super) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}
