//! The operator's proxy: how a connection goes through it, and whose fault it is when none does.
//!
//! Until the way through stands, whatever goes wrong is the proxy's own fault, unless the proxy says in so many words that
//! the endpoint does not answer. What is the proxy's fault costs no delivery an attempt.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;

use super::connect::tcp;
use super::lookup::{GuardedResolver, Lookup};
use crate::secret::Secret;
use crate::settings::{ProxyKind, ProxySettings};
use crate::sync::lock;

mod http;
mod socks;

/// Addresses of one name that are tried through a proxy, each by a connection of its own.
const ADDRESSES_TRIED_MAX: usize = 4;

/// The proxy of every endpoint, and what is known of it.
pub(super) struct Proxy {
    kind: ProxyKind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
    resolves_names: bool,
    resolver: GuardedResolver,
    fault: Mutex<Option<String>>,
}

/// Who the host is to the proxy.
struct Credentials {
    user: String,
    password: Secret,
}

/// Where a connection is to lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// To the first of these that the proxy reaches.
    Addresses(Vec<IpAddr>),
    /// To wherever the proxy takes this name for.
    Name(String),
}

/// Why the proxy led nowhere.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// For its own sake, as far as anybody can tell.
    #[error("the proxy {0}")]
    Own(String),
    /// It says that the endpoint does not answer.
    #[error("the proxy says: {0}")]
    OfEndpoint(String),
}

/// What the proxy said, or did, instead of leading somewhere.
#[derive(Debug)]
enum Refusal {
    /// Nothing more is to be expected of it, whatever the address.
    Useless(String),
    /// Not to this address. Why is not said, or has to do with the proxy.
    Unled(String),
    /// The endpoint does not answer at this address.
    OfEndpoint(String),
}

/// One destination, as the proxy is told it.
#[derive(Clone, Copy, Debug)]
enum Destination<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl Proxy {
    pub(super) fn new(settings: &ProxySettings, lookup: Arc<dyn Lookup>) -> Self {
        let ProxySettings { kind, host, port, user, password, resolves_names } = settings.clone();
        let credentials = user.zip(password).map(|(user, password)| Credentials { user, password });
        // The proxy is the operator's own and stands inside as a rule.
        let everything: [IpNet; 2] = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
        let resolver = GuardedResolver::new(lookup, everything.as_slice().into());
        Self { kind, host, port, credentials, resolves_names, resolver, fault: Mutex::default() }
    }

    /// Whether names are told to it unresolved, so that they can't be vetted here.
    pub(super) fn resolves_names(&self) -> bool {
        self.resolves_names
    }

    /// What was wrong with it when it was last used; `None` where nothing was.
    pub(super) fn fault(&self) -> Option<String> {
        lock(&self.fault).clone()
    }

    /// A connection to `target` by way of the proxy.
    pub(super) async fn connect(&self, target: &Target, port: u16, timeout: Duration) -> Result<TcpStream, ProxyError> {
        let connected = match target {
            Target::Name(name) => self.tunnel(Destination::Name(name), port, timeout).await,
            Target::Addresses(addresses) => self.first(addresses, port, timeout).await,
        };
        let connected = connected.map_err(|refusal| self.error(refusal));
        self.note(connected.as_ref().err());
        connected
    }

    /// The error of a connection that was given up while the proxy was at it.
    pub(super) fn timed_out(&self) -> ProxyError {
        let error = self.error(Refusal::Useless("took too long".to_owned()));
        self.note(Some(&error));
        error
    }

    async fn first(&self, addresses: &[IpAddr], port: u16, timeout: Duration) -> Result<TcpStream, Refusal> {
        let mut refused = Refusal::Unled("was given no address".to_owned());
        for address in addresses.iter().take(ADDRESSES_TRIED_MAX) {
            match self.tunnel(Destination::Address(*address), port, timeout).await {
                Ok(stream) => return Ok(stream),
                Err(useless @ Refusal::Useless(_)) => return Err(useless),
                Err(refusal) => refused = refusal,
            }
        }
        Err(refused)
    }

    async fn tunnel(&self, destination: Destination<'_>, port: u16, timeout: Duration) -> Result<TcpStream, Refusal> {
        let unreachable = |why: String| Refusal::Useless(format!("can't be reached: {why}"));
        let addresses = self.resolver.addresses(&self.host).await.map_err(|error| unreachable(error.to_string()))?;
        let mut stream = tcp(addresses, self.port, timeout).await.map_err(|error| unreachable(innermost(&*error)))?;
        let answered = match self.kind {
            ProxyKind::Http => http::connect(&mut stream, destination, port, self.credentials.as_ref()).await,
            ProxyKind::Socks5 => socks::connect(&mut stream, destination, port, self.credentials.as_ref()).await,
        };
        match answered {
            Ok(answer) => answer.map(|()| stream),
            Err(broken) => Err(Refusal::Useless(format!("broke the connection: {}", broken.kind()))),
        }
    }

    fn error(&self, refusal: Refusal) -> ProxyError {
        match refusal {
            Refusal::Useless(what) | Refusal::Unled(what) => ProxyError::Own(format!("{self} {what}")),
            Refusal::OfEndpoint(what) => ProxyError::OfEndpoint(what),
        }
    }

    /// Says it once, when it changes.
    fn note(&self, error: Option<&ProxyError>) {
        let fault = match error {
            Some(own @ ProxyError::Own(_)) => Some(own.to_string()),
            Some(ProxyError::OfEndpoint(_)) | None => None,
        };
        let before = std::mem::replace(&mut *lock(&self.fault), fault.clone());
        match (before, fault) {
            (None, Some(fault)) => tracing::warn!(error = fault, "the egress proxy is down; deliveries wait"),
            (Some(_), None) => tracing::info!(address = %self, "the egress proxy works again"),
            _ => {}
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// What a chain of errors begins with, which says the most.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    match innermost.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::Other) | None => innermost.to_string(),
        Some(kind) => kind.to_string(),
    }
}
