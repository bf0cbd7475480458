//! One attempt at a webhook: sign, send, read a bounded response.
//!
//! An endpoint has a client of its own, with its own idle connections, so that none lives off another's. What an attempt
//! comes to is an [`Outcome`]; what follows from it is decided in [`crate::delivery`].

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Uri;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore};

use crate::clock::{Clock, Timestamp};
use crate::delivery::{AttemptResult, Outcome};
use crate::secret::Secret;
use crate::secret_files::SecretFile;
use crate::settings::{AuthSettings, EgressSettings, EndpointSettings, SignatureScheme};
use crate::store::ClaimedDelivery;
use crate::sync::lock;
use crate::tls::TlsError;

mod auth;
mod client;
mod connect;
mod connection;
pub mod egress;
mod failure;
mod lookup;
mod oauth2;
mod proxy;
mod redact;
mod request;
mod response;
mod test_webhook;
pub mod signature;
pub mod tls;

pub use client::{ClientError, Guarded, IDLE_AGE_MAX, REFUSALS_MAX};
pub use connection::RESPONSE_HEAD_BYTES_MAX;
pub use failure::FAILURE_TEXT_BYTES_MAX;
pub(crate) use failure::{SHORTAGE, result_of};
pub use lookup::{LOOKUPS_MAX, Lookup, SystemLookup};
pub use oauth2::{TOKEN_BYTES_MAX, TOKEN_TIMEOUT};
pub(crate) use redact::{Redactor, of_header};
pub(crate) use request::{ANYTHING, USER_AGENT, parsed as parsed_header};
pub use request::{InvalidHeader, WEBHOOK_ID, is_reserved};
pub use response::{LOCATION_BYTES_MAX, RESPONSE_EXCERPT_BYTES_MAX, RESPONSE_READ_BYTES_MAX};
pub use test_webhook::{TEST_TIMEOUT, TestReport};

use auth::{Auth, Authorization};
use client::Client;
use lookup::GuardedResolver;
use oauth2::TokenSource;
use proxy::Proxy;
use redact::Hidden;
use request::RequestTemplate;
use response::Arrived;
use signature::{InvalidSecret, Signer};

/// Every configured endpoint, by name.
pub struct Endpoints {
    by_name: HashMap<Arc<str>, Arc<Endpoint>>,
    proxy: Option<Arc<Proxy>>,
}

/// Where webhooks go.
pub struct Endpoint {
    name: Arc<str>,
    client: Client,
    template: RequestTemplate,
    auth: Auth,
    timeout: Duration,
    /// What is cut out of its answers.
    hidden: Mutex<Hidden>,
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
    /// The URL is neither `http` nor `https`, or has what HTTP can't carry.
    #[error("endpoint `{name}`: a webhook can't be sent to a `{scheme}` URL; use `https` or `http`")]
    Url {
        /// The endpoint.
        name: Arc<str>,
        /// The URL's scheme.
        scheme: String,
    },
    /// Its scheme can't sign with its secrets.
    #[error("endpoint `{name}`: {source}")]
    Secret {
        /// The endpoint.
        name: Arc<str>,
        /// What is missing or wrong.
        source: signature::SignerError,
    },
    /// One of its own headers.
    #[error("endpoint `{name}`: {source}; mend it under `[endpoint.headers]`")]
    Header {
        /// The endpoint.
        name: Arc<str>,
        /// Which header.
        source: InvalidHeader,
    },
    /// A credential of `[endpoint.auth]`. It is never told.
    #[error(
        "endpoint `{name}`: its credentials have characters that HTTP does not allow; mend them under [endpoint.auth]"
    )]
    Auth {
        /// The endpoint.
        name: Arc<str>,
    },
    /// A file of `[endpoint.tls]`.
    #[error("endpoint `{name}`: {source}")]
    Tls {
        /// The endpoint.
        name: Arc<str>,
        /// What is wrong with which.
        source: TlsError,
    },
    /// No trusted roots on this machine.
    #[error("endpoint `{name}` is https, but {source}; install the system's CA certificates or set SSL_CERT_FILE")]
    Roots {
        /// The first endpoint that needs them.
        name: Arc<str>,
        /// What the machine said.
        source: rustls::Error,
    },
}

impl Endpoints {
    /// Builds every endpoint on the machine's own network.
    pub fn new(settings: &[EndpointSettings], egress: &EgressSettings) -> Result<Self, EndpointError> {
        Self::on(Network::default(), settings, egress)
    }

    /// Builds every endpoint on `network`.
    pub fn on(network: Network, settings: &[EndpointSettings], egress: &EgressSettings) -> Result<Self, EndpointError> {
        let ways = Ways {
            tls: shared_tls(network.tls, settings)?,
            proxy: egress.proxy.as_ref().map(|settings| Arc::new(Proxy::new(settings, Arc::clone(&network.lookup)))),
            lookup: network.lookup,
            allow: egress.allow.as_slice().into(),
        };
        let built = settings.iter().map(|settings| {
            let endpoint = Endpoint::new(settings, &ways)?;
            Ok((Arc::clone(&settings.name), Arc::new(endpoint)))
        });
        Ok(Self { by_name: built.collect::<Result<_, _>>()?, proxy: ways.proxy })
    }

    /// Where there is a proxy: what was wrong with it when it was last used, empty where nothing was.
    pub fn proxy_fault(&self) -> Option<String> {
        self.proxy.as_ref().map(|proxy| proxy.fault().unwrap_or_default())
    }

    /// The endpoint of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.by_name.get(name)
    }

    /// The files that secrets came from: what is in them later signs from then on.
    pub fn secret_files(&self, settings: &[EndpointSettings]) -> Vec<SecretFile> {
        let signed = settings.iter().filter(|settings| settings.signature != SignatureScheme::None);
        let endpoints = signed.filter_map(|settings| Some((self.get(&settings.name)?, settings)));
        endpoints.flat_map(|(endpoint, settings)| endpoint.secret_files(settings)).collect()
    }

    /// Every endpoint, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_name.values()
    }
}

/// What all endpoints have in common.
struct Ways {
    lookup: Arc<dyn Lookup>,
    allow: Arc<[IpNet]>,
    proxy: Option<Arc<Proxy>>,
    tls: ClientConfig,
}

impl Ways {
    fn client(&self, tls: &ClientConfig, timeout: Duration, idle_connections_max: usize) -> Client {
        let resolver = GuardedResolver::new(Arc::clone(&self.lookup), Arc::clone(&self.allow));
        Client::new(resolver, self.proxy.clone(), tls.clone(), timeout, idle_connections_max)
    }
}

impl Endpoint {
    fn new(settings: &EndpointSettings, ways: &Ways) -> Result<Self, EndpointError> {
        let name = || Arc::clone(&settings.name);
        let uri = match Uri::try_from(settings.url.as_str()) {
            Ok(uri) if matches!(settings.url.scheme(), "http" | "https") => uri,
            _ => return Err(EndpointError::Url { name: name(), scheme: settings.url.scheme().to_owned() }),
        };
        let signer = Signer::new(settings.signature.clone(), &settings.secrets)
            .map_err(|source| EndpointError::Secret { name: name(), source })?;
        let template = RequestTemplate::new(settings, uri, signer)
            .map_err(|source| EndpointError::Header { name: name(), source })?;
        let tls = tls::of_endpoint(&ways.tls, &settings.access.tls)
            .map_err(|source| EndpointError::Tls { name: name(), source })?;
        let tokens = |oauth2: &_| TokenSource::new(oauth2, ways.client(&tls, TOKEN_TIMEOUT, 1));
        let auth =
            Auth::new(settings.access.auth.as_ref(), tokens).ok_or_else(|| EndpointError::Auth { name: name() })?;
        let client = ways.client(&tls, settings.timeout, settings.concurrency);
        let hidden = Mutex::new(Hidden::new(secrets_of(settings)));
        Ok(Self { name: name(), client, template, auth, timeout: settings.timeout, hidden })
    }

    fn secret_files(self: &Arc<Self>, settings: &EndpointSettings) -> Vec<SecretFile> {
        let secrets = settings.secrets.iter().enumerate();
        let files = secrets.filter_map(|(index, one)| Some((index, &one.secret, one.file.clone()?)));
        let file = |(index, secret, path): (usize, &Secret, PathBuf)| {
            let endpoint = Arc::clone(self);
            let adopt = move |new: &Secret| endpoint.renew_secret(index, new).map_err(|wrong| wrong.to_string());
            SecretFile::new((Arc::clone(&self.name), index + 1), path, secret.clone(), adopt)
        };
        files.map(file).collect()
    }

    fn renew_secret(&self, index: usize, new: &Secret) -> Result<(), InvalidSecret> {
        self.template.renew_secret(index, new)?;
        lock(&self.hidden).renew(new.expose());
        Ok(())
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
    /// timeout, which covers everything from the name's lookup to the response's last byte. Where a token has to be fetched
    /// first that takes [`TOKEN_TIMEOUT`] at most, and where the endpoint answers 401 to it, both are done once more.
    ///
    /// A response whose body does not arrive whole is no response, but one that is longer than
    /// [`RESPONSE_READ_BYTES_MAX`] counts by its status. Dropping the future drops the connection.
    pub async fn attempt(&self, delivery: &ClaimedDelivery, now: Timestamp, clock: &dyn Clock) -> Outcome {
        let began = clock.monotonic();
        let mut arrived = Arrived::default();
        let mut redactor = lock(&self.hidden).redactor();
        let result = match self.authorized(delivery, now, clock, &mut arrived, &mut redactor).await {
            Ok(result) => result,
            Err(no_token) => {
                arrived = Arrived::default();
                AttemptResult::Deferred(no_token)
            }
        };
        let duration = clock.monotonic().saturating_sub(began);
        let result = result.map_text(|text| redactor.cut_text(text));
        let (retry_after, location) = (arrived.retry_after, arrived.location.take());
        let location = location.map(|location| redactor.cut_text(location));
        Outcome { result, retry_after, location, response: arrived.into_excerpt(&redactor), duration }
    }

    /// The error says why there is no token.
    async fn authorized(
        &self,
        delivery: &ClaimedDelivery,
        now: Timestamp,
        clock: &dyn Clock,
        arrived: &mut Arrived,
        redactor: &mut Arc<Redactor>,
    ) -> Result<AttemptResult, String> {
        let authorization = self.auth.authorization(clock).await?;
        *redactor = authorization.redactor(&self.hidden);
        let result = self.timed(delivery, now, clock, &authorization, arrived, redactor.longest()).await;
        if result != AttemptResult::Status(401) {
            return Ok(result);
        }
        let Some(renewed) = self.auth.renewed(&authorization, clock).await? else { return Ok(result) };
        *arrived = Arrived::default();
        *redactor = renewed.redactor(&self.hidden);
        Ok(self.timed(delivery, now, clock, &renewed, arrived, redactor.longest()).await)
    }

    async fn timed(
        &self,
        delivery: &ClaimedDelivery,
        now: Timestamp,
        clock: &dyn Clock,
        authorization: &Authorization,
        arrived: &mut Arrived,
        longest_secret: usize,
    ) -> AttemptResult {
        let exchange = self.exchange(delivery, now, clock, authorization, arrived, longest_secret);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => AttemptResult::Transport(self.timed_out(arrived.status)),
        }
    }

    async fn exchange(
        &self,
        delivery: &ClaimedDelivery,
        now: Timestamp,
        clock: &dyn Clock,
        authorization: &Authorization,
        arrived: &mut Arrived,
        longest_secret: usize,
    ) -> AttemptResult {
        let made = || {
            let mut request = self.template.request(delivery, now)?;
            if let Some(header) = authorization.header() {
                request.headers_mut().insert(AUTHORIZATION, header);
            }
            Ok(request)
        };
        let request = match made() {
            Ok(request) => request,
            Err(invalid @ InvalidHeader { .. }) => return AttemptResult::Transport(invalid.to_string()),
        };
        let response = match self.client.send(request, || made().ok()).await {
            Ok(response) => response,
            Err(error) => return result_of(&error, None),
        };
        let status = response.status().as_u16();
        // As far beyond what is kept as a secret may reach that begins there.
        let kept_max = RESPONSE_EXCERPT_BYTES_MAX + longest_secret;
        match arrived.read(response, clock.now(), kept_max).await {
            Ok(()) => AttemptResult::Status(status),
            Err(error) => result_of(&error, Some(status)),
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

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").field("by_name", &self.by_name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a token, the client holds headers.
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an endpoint may repeat that it is not to be kept: all secrets of its settings, and the query of its URL.
fn secrets_of(settings: &EndpointSettings) -> Vec<Vec<u8>> {
    let signing = settings.secrets.iter().flat_map(|one| redact::of_signing(one.secret.expose()));
    let headers = settings.headers.iter().flat_map(|(name, value)| of_header(name, value.expose()));
    let credentials = match &settings.access.auth {
        None => Vec::new(),
        Some(AuthSettings::Bearer { token }) => vec![token.expose().to_vec()],
        Some(AuthSettings::Basic { user, password }) => {
            redact::of_pair(&[user.as_bytes(), b":", password.expose()].concat())
        }
        Some(AuthSettings::OAuth2(oauth2)) => {
            redact::of_pair(&[oauth2.client_id.as_bytes(), b":", oauth2.client_secret.expose()].concat())
        }
    };
    signing.chain(headers).chain(credentials).chain(redact::of_query(settings.url.query())).collect()
}

/// One TLS configuration for all, so that reading the machine's roots happens once, and only where it must.
fn shared_tls(given: Option<ClientConfig>, settings: &[EndpointSettings]) -> Result<ClientConfig, EndpointError> {
    if let Some(given) = given {
        return Ok(given);
    }
    let asks_securely = |settings: &EndpointSettings| match &settings.access.auth {
        Some(AuthSettings::OAuth2(oauth2)) => oauth2.token_url.scheme() == "https",
        _ => false,
    };
    let is_secure = |settings: &&EndpointSettings| settings.url.scheme() == "https" || asks_securely(settings);
    let Some(secure) = settings.iter().find(is_secure) else {
        return Ok(tls::trusting_only(RootCertStore::empty()));
    };
    tls::trusting_the_machine().map_err(|source| EndpointError::Roots { name: Arc::clone(&secure.name), source })
}
