//! One attempt at a webhook: sign, send, read a bounded response.
//!
//! An endpoint has a client of its own, with its own idle connections, so that none lives off another's. What an attempt
//! comes to is an [`Outcome`]; what follows from it is decided in [`crate::delivery`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore};

use crate::clock::{Clock, Timestamp};
use crate::delivery::{AttemptResult, Outcome};
use crate::settings::{EgressSettings, EndpointSettings};
use crate::store::ClaimedDelivery;

mod client;
pub mod egress;
mod failure;
mod lookup;
mod request;
mod response;
mod test_webhook;
pub mod signature;
pub mod tls;

pub use client::{ClientError, Guarded};
pub use failure::FAILURE_TEXT_BYTES_MAX;
pub(crate) use failure::result_of;
pub use lookup::{LOOKUPS_MAX, Lookup, SystemLookup};
pub use request::{InvalidHeader, WEBHOOK_ID, is_reserved};
pub(crate) use request::{USER_AGENT, parsed as parsed_header};
pub use response::{RESPONSE_EXCERPT_BYTES_MAX, RESPONSE_READ_BYTES_MAX};
pub use test_webhook::{TEST_TIMEOUT, TestReport};

use client::{client, literal_address};
use egress::Denied;
use lookup::GuardedResolver;
use request::RequestTemplate;
use response::Arrived;
use signature::Signer;

/// Every configured endpoint, by name.
#[derive(Debug)]
pub struct Endpoints {
    by_name: HashMap<Arc<str>, Arc<Endpoint>>,
}

/// Where webhooks go.
pub struct Endpoint {
    name: Arc<str>,
    client: reqwest::Client,
    template: RequestTemplate,
    timeout: Duration,
    // An address written into the URL never meets the resolver; it is vetted once, here.
    refused: Option<Denied>,
}

/// What endpoints stand on.
pub struct Network {
    /// Turns names into addresses.
    pub lookup: Arc<dyn Lookup>,
    /// `None` trusts what the machine trusts, which is read only where an endpoint is `https`.
    pub tls: Option<ClientConfig>,
}

impl Default for Network {
    fn default() -> Self {
        Self { lookup: Arc::new(SystemLookup), tls: None }
    }
}

/// Why an endpoint can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The URL is neither `http` nor `https`, or names no host.
    #[error("endpoint `{name}`: a webhook can't be sent to a `{scheme}` URL; use `https` or `http`")]
    Url {
        /// The endpoint.
        name: Arc<str>,
        /// The URL's scheme.
        scheme: String,
    },
    /// A profile that signs has no secret.
    #[error("endpoint `{name}`: {source}")]
    Secret {
        /// The endpoint.
        name: Arc<str>,
        /// What is missing.
        source: signature::NoSecret,
    },
    /// One of its own headers.
    #[error("endpoint `{name}`: {source}; mend it under `[endpoint.headers]`")]
    Header {
        /// The endpoint.
        name: Arc<str>,
        /// Which header.
        source: InvalidHeader,
    },
    /// No trusted roots on this machine.
    #[error("endpoint `{name}` is https, but {source}; install the system's CA certificates or set SSL_CERT_FILE")]
    Roots {
        /// The first endpoint that needs them.
        name: Arc<str>,
        /// What the machine said.
        source: rustls::Error,
    },
    /// The client could not be built.
    #[error("endpoint `{name}`: no client could be built: {source}")]
    Client {
        /// The endpoint.
        name: Arc<str>,
        /// What is wrong.
        source: reqwest::Error,
    },
}

impl Endpoints {
    /// Builds every endpoint on the machine's own network.
    pub fn new(settings: &[EndpointSettings], egress: &EgressSettings) -> Result<Self, EndpointError> {
        Self::on(Network::default(), settings, egress)
    }

    /// Builds every endpoint on `network`.
    pub fn on(network: Network, settings: &[EndpointSettings], egress: &EgressSettings) -> Result<Self, EndpointError> {
        let tls = shared_tls(network.tls, settings)?;
        let allow: Arc<[IpNet]> = egress.allow.as_slice().into();
        let built = settings.iter().map(|settings| {
            let resolver = GuardedResolver::new(Arc::clone(&network.lookup), Arc::clone(&allow));
            let endpoint = Endpoint::new(settings, resolver, tls.clone(), &allow)?;
            Ok((Arc::clone(&settings.name), Arc::new(endpoint)))
        });
        Ok(Self { by_name: built.collect::<Result<_, _>>()? })
    }

    /// The endpoint of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.by_name.get(name)
    }

    /// Every endpoint, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_name.values()
    }
}

impl Endpoint {
    fn new(
        settings: &EndpointSettings,
        resolver: GuardedResolver,
        tls: ClientConfig,
        allow: &[IpNet],
    ) -> Result<Self, EndpointError> {
        let name = || Arc::clone(&settings.name);
        if !matches!(settings.url.scheme(), "http" | "https") {
            return Err(EndpointError::Url { name: name(), scheme: settings.url.scheme().to_owned() });
        }
        let signer = Signer::new(settings.signature, &settings.secrets)
            .map_err(|source| EndpointError::Secret { name: name(), source })?;
        let template =
            RequestTemplate::new(settings, signer).map_err(|source| EndpointError::Header { name: name(), source })?;
        let client = client(resolver, tls, settings.timeout, settings.concurrency)
            .map_err(|source| EndpointError::Client { name: name(), source })?;
        let refused = literal_address(&settings.url).and_then(|address| egress::vet(address, allow).err());
        Ok(Self { name: name(), client, template, timeout: settings.timeout, refused })
    }

    /// What plugins name it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the header `name` is the host's or the endpoint's own, so that a plugin naming it is refused.
    pub fn reserves(&self, name: &str) -> bool {
        self.template.reserves(name)
    }

    /// Makes one attempt at `delivery`, signed for `now`, and returns when it is over: at the latest after the endpoint's
    /// timeout, which covers everything from the name's lookup to the response's last byte.
    ///
    /// A response whose body does not arrive whole is no response, but one that is longer than
    /// [`RESPONSE_READ_BYTES_MAX`] counts by its status. Dropping the future drops the connection.
    pub async fn attempt(&self, delivery: &ClaimedDelivery, now: Timestamp, clock: &dyn Clock) -> Outcome {
        let began = clock.monotonic();
        let mut arrived = Arrived::default();
        let result = if let Some(denied) = &self.refused {
            AttemptResult::EgressDenied(denied.to_string())
        } else {
            let exchange = self.exchange(delivery, now, clock, &mut arrived);
            match tokio::time::timeout(self.timeout, exchange).await {
                Ok(result) => result,
                Err(_) => AttemptResult::Transport(self.timed_out(arrived.status)),
            }
        };
        let duration = clock.monotonic().saturating_sub(began);
        Outcome { result, retry_after: arrived.retry_after, response: arrived.into_excerpt(), duration }
    }

    async fn exchange(
        &self,
        delivery: &ClaimedDelivery,
        now: Timestamp,
        clock: &dyn Clock,
        arrived: &mut Arrived,
    ) -> AttemptResult {
        let request = match self.template.request(delivery, now) {
            Ok(request) => request,
            Err(invalid) => return AttemptResult::Transport(invalid.to_string()),
        };
        let received = match self.client.execute(request).await {
            Ok(response) => arrived.read(response, clock.now()).await,
            Err(error) => Err(error),
        };
        match (received, arrived.status) {
            (Ok(()), Some(status)) => AttemptResult::Status(status),
            (Err(error), status) => result_of(&error, status),
            (Ok(()), None) => AttemptResult::Transport("no response arrived".to_owned()),
        }
    }

    fn timed_out(&self, status: Option<u16>) -> String {
        let after = humantime::format_duration(self.timeout);
        match status {
            None => format!("timed out after {after} waiting for a response"),
            Some(status) => format!("timed out after {after} while reading the response body after status {status}"),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a token, the client holds headers.
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One TLS configuration for all, so that reading the machine's roots happens once, and only where it must.
fn shared_tls(given: Option<ClientConfig>, settings: &[EndpointSettings]) -> Result<ClientConfig, EndpointError> {
    if let Some(given) = given {
        return Ok(given);
    }
    let Some(secure) = settings.iter().find(|settings| settings.url.scheme() == "https") else {
        return Ok(tls::trusting_only(RootCertStore::empty()));
    };
    tls::trusting_the_machine().map_err(|source| EndpointError::Roots { name: Arc::clone(&secure.name), source })
}
