//! One request of a plugin: checked, given its credentials, made through the egress guard, its answer bounded.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::runtime::Handle;
use url::Url;

use super::allow::lies_within;
use super::{
    REQUEST_BYTES_MAX, REQUEST_HEADER_BYTES_MAX, REQUEST_HEADERS_MAX, RESPONSE_BYTES_MAX, RESPONSE_HEADER_BYTES_MAX,
    RESPONSE_HEADERS_MAX, URL_BYTES_MAX,
};
use crate::delivery::AttemptResult;
use crate::endpoint::{
    ANYTHING, Guarded, InvalidHeader, Network, Redactor, USER_AGENT, is_reserved, of_header, parsed_header, result_of,
};
use crate::plugin::bindings::wirehook::plugin::http::{Error, Request, Response};
use crate::settings::{EgressSettings, HttpSettings, PluginCeiling};

/// What makes plugins' requests: a client for each plugin that may make any.
#[derive(Default)]
pub struct Outgoing {
    runtime: Option<Handle>,
    by_plugin: HashMap<Arc<str>, Caller>,
}

/// Why plugins' requests can't be made as they are configured.
#[derive(Debug, thiserror::Error)]
#[error("[[plugin]] `{plugin}`: {what}")]
pub struct OutgoingError {
    plugin: Arc<str>,
    what: String,
}

struct Caller {
    client: Guarded,
    allowed: Vec<Allowed>,
}

/// One [`HttpSettings`], ready to be used.
struct Allowed {
    url: Url,
    methods: Vec<Method>,
    timeout: Duration,
    own_headers: HeaderMap,
    /// Cuts the values of those out of what an endpoint repeats: the plugin is not to see them.
    redactor: Arc<Redactor>,
}

/// A request as it goes out, its time, and what cuts its credentials out of the answer.
#[derive(Debug)]
struct Admitted {
    request: http::Request<Full<Bytes>>,
    timeout: Duration,
    redactor: Arc<Redactor>,
}

impl Outgoing {
    /// What `listed` plugins may ask for, made on `runtime`. Threads of the runtime itself must not call [`Self::send`].
    pub fn new(
        runtime: Handle,
        network: &Network,
        listed: &[PluginCeiling],
        egress: &EgressSettings,
    ) -> Result<Self, OutgoingError> {
        let mut by_plugin = HashMap::new();
        for ceiling in listed.iter().filter(|ceiling| !ceiling.http.is_empty()) {
            let failed = |what: String| OutgoingError { plugin: Arc::clone(&ceiling.name), what };
            let is_secure = ceiling.http.iter().any(|http| http.url.scheme() == "https");
            let timeout = ceiling.http.iter().map(|http| http.timeout).max().unwrap_or_default();
            let client =
                Guarded::new(network, is_secure, egress, timeout).map_err(|error| failed(error.to_string()))?;
            let allowed = ceiling.http.iter().map(Allowed::new).collect::<Result<_, _>>();
            let allowed = allowed.map_err(|error: InvalidHeader| failed(error.to_string()))?;
            by_plugin.insert(Arc::clone(&ceiling.name), Caller { client, allowed });
        }
        Ok(Self { runtime: Some(runtime), by_plugin })
    }

    /// Makes `request` for `plugin` and waits for its answer, `left` at most.
    pub(in crate::plugin) fn send(&self, plugin: &str, request: Request, left: Duration) -> Result<Response, Error> {
        let (Some(runtime), Some(caller)) = (&self.runtime, self.by_plugin.get(plugin)) else {
            return Err(Error::Denied(
                "no request is made here: the settings list no [[plugin.http]] for it".to_owned(),
            ));
        };
        let Admitted { request, timeout, redactor } = caller.admit(request)?;
        let (method, host) = (request.method().clone(), request.uri().host().unwrap_or_default().to_owned());
        let exchange = async { tokio::time::timeout(timeout.min(left), caller.exchange(request, &redactor)).await };
        let answer = runtime.block_on(exchange).unwrap_or(Err(Error::Timeout));
        match &answer {
            Ok(response) => tracing::debug!(plugin, %method, host, status = response.status, "the plugin's request"),
            Err(error) => tracing::debug!(plugin, %method, host, ?error, "the plugin's request failed"),
        }
        answer
    }
}

impl Caller {
    /// The request as it goes out, if the operator allows it.
    fn admit(&self, request: Request) -> Result<Admitted, Error> {
        if request.url.len() > URL_BYTES_MAX {
            return Err(Error::Invalid(format!("a URL of {} bytes; {URL_BYTES_MAX} at most", request.url.len())));
        }
        let url =
            Url::parse(&request.url).map_err(|error| Error::Invalid(format!("its URL can't be read: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Invalid("a URL with credentials; the settings give them as headers".to_owned()));
        }
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| Error::Invalid("its method is no word of HTTP".to_owned()))?;
        let within = self.allowed.iter().filter(|allowed| lies_within(&allowed.url, &url)).collect::<Vec<_>>();
        let Some(allowed) = within.iter().find(|allowed| allowed.methods.contains(&method)) else {
            return Err(Error::Denied(denied(&method, &url, !within.is_empty())));
        };
        self.client.vet(&url).map_err(|denied| Error::Denied(denied.to_string()))?;
        let body = request.body.unwrap_or_default();
        if body.len() > REQUEST_BYTES_MAX {
            return Err(Error::Invalid(format!("a body of {} bytes; {REQUEST_BYTES_MAX} at most", body.len())));
        }
        let uri =
            Uri::try_from(url.as_str()).map_err(|error| Error::Invalid(format!("its URL can't be sent: {error}")))?;
        let mut out = http::Request::new(Full::new(body.into()));
        (*out.method_mut(), *out.uri_mut()) = (method, uri);
        *out.headers_mut() = allowed.headers(&request.headers).map_err(Error::Invalid)?;
        Ok(Admitted { request: out, timeout: allowed.timeout, redactor: Arc::clone(&allowed.redactor) })
    }

    async fn exchange(&self, request: http::Request<Full<Bytes>>, redactor: &Redactor) -> Result<Response, Error> {
        let response = self.client.send(request).await.map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        let mut headers = passed_on(response.headers());
        for (_, value) in &mut headers {
            *value = redactor.cut_text(std::mem::take(value));
        }
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(chunk) = frame.map_err(|error| failure(&error))?.into_data() else { continue };
            if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
                return Err(Error::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status, headers, body: redactor.cut_whole(body.into()).into() })
    }
}

impl Allowed {
    fn new(settings: &HttpSettings) -> Result<Self, InvalidHeader> {
        let mut own_headers = HeaderMap::with_capacity(settings.headers.len());
        for (name, secret) in &settings.headers {
            let (name, mut value) = parsed_header(name, secret.expose())?;
            value.set_sensitive(true);
            own_headers.append(name, value);
        }
        let secrets = settings.headers.iter().flat_map(|(name, value)| of_header(name, value.expose()));
        let redactor = Arc::new(Redactor::new(secrets));
        let HttpSettings { url, methods, timeout, .. } = settings;
        Ok(Self { url: url.clone(), methods: methods.clone(), timeout: *timeout, own_headers, redactor })
    }

    /// The plugin's headers, then the operator's, which the plugin can't name.
    fn headers(&self, written: &[(String, String)]) -> Result<HeaderMap, String> {
        let bytes: usize = written.iter().map(|(name, value)| name.len() + value.len()).sum();
        if written.len() > REQUEST_HEADERS_MAX || bytes > REQUEST_HEADER_BYTES_MAX {
            let count = written.len();
            return Err(format!(
                "{count} headers, {bytes} bytes; {REQUEST_HEADERS_MAX} and {REQUEST_HEADER_BYTES_MAX} at most"
            ));
        }
        let mut headers = self.own_headers.clone();
        headers.reserve(written.len() + 2);
        for (name, value) in written {
            let (name, value): (HeaderName, HeaderValue) =
                parsed_header(name, value.as_bytes()).map_err(|error| error.to_string())?;
            if is_reserved(name.as_str()) || self.own_headers.contains_key(&name) {
                return Err(format!("the header `{name}`, which the host keeps for itself"));
            }
            headers.append(name, value);
        }
        headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
        headers.entry(header::ACCEPT).or_insert(ANYTHING);
        Ok(headers)
    }
}

/// What the operator reads when a plugin asks for more than it was given. The query is left out: it may hold a key.
fn denied(method: &Method, url: &Url, other_method: bool) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    let missing = if other_method { "add the method to its" } else { "add the URL as a" };
    format!("{method} {shown} is not allowed; if it is meant, {missing} [[plugin.http]] in the settings")
}

fn failure(error: &(dyn std::error::Error + 'static)) -> Error {
    match result_of(error, None) {
        AttemptResult::EgressDenied(text) => Error::Denied(text),
        AttemptResult::Transport(text) | AttemptResult::Deferred(text) => Error::Failed(text),
        AttemptResult::Status(status) => Error::Failed(format!("status {status}")),
    }
}

fn passed_on(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut bytes = 0;
    headers
        .iter()
        .filter(|(name, _)| *name != header::SET_COOKIE)
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .take_while(|(name, value)| {
            bytes += name.len() + value.len();
            bytes <= RESPONSE_HEADER_BYTES_MAX
        })
        .take(RESPONSE_HEADERS_MAX)
        .collect()
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("plugins", &self.by_plugin.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
