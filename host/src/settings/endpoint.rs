//! `[[endpoint]]`: where webhooks go, how they are signed, how often they are tried.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;
use url::Url;

use super::backlog::backlog;
use super::encoded::http_url;
use super::gate::gate;
use super::host::Names;
use super::kinds::{Setting, within};
use super::retry::retry;
use super::section::{Reported, Section};
use super::show::REDACTED;
use super::{
    AccessSettings, AuthSettings, BacklogSettings, EndpointSettings, Order, SignatureScheme, access, signature,
};
use crate::secret::Secret;

/// The default of `timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// The most of `timeout`.
pub const TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// The default of `concurrency`.
pub const CONCURRENCY: u64 = 32;
/// The most of `concurrency`.
pub const CONCURRENCY_MAX: u64 = 1024;
/// The most endpoints.
pub const ENDPOINTS_MAX: usize = 1024;
/// The most secrets of one endpoint.
pub const SECRETS_MAX: usize = 8;
/// The most headers of one endpoint.
pub const HEADERS_MAX: usize = 32;

/// Headers that belong to the connection or to the host; endpoints can't set them.
pub const HEADERS_RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "stripe-signature",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-signature",
    "x-timestamp",
];
/// What reserved headers begin with.
pub const HEADER_PREFIX_RESERVED: &str = "webhook-";

/// Whether an endpoint can't set the header `name`, which is in lower case.
pub(super) fn is_reserved(name: &str) -> bool {
    HEADERS_RESERVED.contains(&name) || name.starts_with(HEADER_PREFIX_RESERVED)
}

/// An endpoint by its name, for those that refer to it.
pub(super) struct NamedEndpoint {
    pub(super) name: Arc<str>,
    pub(super) settings: EndpointSettings,
}

/// Every `[[endpoint]]`.
pub(super) fn all(root: &Section<'_>) -> Result<Vec<NamedEndpoint>, Reported> {
    let sections = root.tables("endpoint")?;
    if let Some(beyond) = sections.get(ENDPOINTS_MAX) {
        let message = format!("there are more than {ENDPOINTS_MAX} [[endpoint]]");
        return Err(root.context.problem(beyond.offset, message, None));
    }
    let mut names = Names::default();
    let endpoints: Vec<_> = sections.iter().map(|section| one(section, &mut names)).collect();
    endpoints.into_iter().collect()
}

fn one(section: &Section<'_>, names: &mut Names) -> Result<NamedEndpoint, Reported> {
    let name = names.read(section);
    let url = section.required::<EndpointUrl>("url");
    let signature = signature::read(section);
    let timeout = section.or_default_if("timeout", TIMEOUT, within(Duration::from_millis(1), TIMEOUT_MAX));
    let concurrency = section.integer("concurrency", CONCURRENCY, 1..=CONCURRENCY_MAX);
    let headers = headers(&section.table("headers"));
    let access = access(section, &url, &headers);
    let retry = retry(section);
    let order = section.or_default("order", Order::None);
    let backlog = backlog(section, &BacklogSettings::default());
    let gate = gate(section);
    section.finish();
    if let (Ok((scheme, _)), Ok(headers)) = (&signature, &headers) {
        refuse_signature_header(section, scheme, headers)?;
    }
    if let Ok(url) = &url {
        url.warn(section, "url");
    }
    let (name, (signature, secrets)) = (name?, signature?);
    let settings = EndpointSettings {
        name: name.clone(),
        url: url?.0,
        secrets,
        signature,
        timeout: timeout?,
        concurrency: usize::try_from(concurrency?).unwrap_or(1),
        headers: headers?,
        access: access?,
        retry: retry?,
        order: order?,
        backlog: backlog?,
        gate: gate?,
    };
    Ok(NamedEndpoint { name, settings })
}

/// What `[endpoint.auth]` says, where nothing else speaks against it.
fn access(
    section: &Section<'_>,
    url: &Result<EndpointUrl, Reported>,
    headers: &Result<Vec<(String, Secret)>, Reported>,
) -> Result<AccessSettings, Reported> {
    let access = access::read(section)?;
    let offset = section.get("auth").map_or(section.offset, |value| value.span().start);
    if access.auth.is_some()
        && headers.as_ref().is_ok_and(|headers| headers.iter().any(|(name, _)| name == "authorization"))
    {
        let message = "sets the header `Authorization`, and so does [endpoint.headers]";
        return Err(section.refuse("auth", offset, message, "remove one of the two"));
    }
    let is_plain = |url: &Url| url.scheme() == "http";
    let (sent, asked) = match (&access.auth, url) {
        (Some(AuthSettings::OAuth2(oauth2)), Ok(url)) => (is_plain(&url.0), is_plain(&oauth2.token_url)),
        (Some(_), Ok(url)) => (is_plain(&url.0), false),
        _ => (false, false),
    };
    if sent || asked {
        let message =
            format!("credentials of {} go over `http`, where whoever is on the way reads them", section.title);
        section.context.warning(offset, message, Some("use https".to_owned()));
    }
    Ok(access)
}

/// The header that was chosen for the signature is no header of the endpoint besides.
fn refuse_signature_header(
    section: &Section<'_>,
    scheme: &SignatureScheme,
    headers: &[(String, Secret)],
) -> Result<(), Reported> {
    let chosen = scheme.chosen_header().map(HeaderName::as_str);
    if !headers.iter().any(|(name, _)| Some(name.as_str()) == chosen) {
        return Ok(());
    }
    let offset = section.get("headers").map_or(section.offset, |value| value.span().start);
    let message = "has the header that `signature_header` names, which carries the signature";
    Err(section.refuse("headers", offset, message, "remove it there"))
}

/// Headers that the host adds to every request.
pub(super) fn headers(section: &Section<'_>) -> Result<Vec<(String, Secret)>, Reported> {
    let entries = section.entries();
    if entries.len() > HEADERS_MAX {
        let message = format!("{} has more than {HEADERS_MAX} headers", section.title);
        return Err(section.context.problem(section.offset, message, None));
    }
    let mut headers: Vec<(String, Secret)> = Vec::with_capacity(entries.len());
    let mut reported = None;
    for (written, offset, value) in entries {
        match header(section, written, offset, value) {
            Ok((name, _)) if headers.iter().any(|(known, _)| *known == name) => {
                reported = Some(section.refuse(written, offset, "is there twice", "header names ignore case"));
            }
            Ok(header) => headers.push(header),
            Err(error) => reported = Some(error),
        }
    }
    reported.map_or(Ok(headers), Err)
}

fn header<'a>(
    section: &Section<'a>,
    written: &str,
    offset: usize,
    value: &'a Spanned<DeValue<'a>>,
) -> Result<(String, Secret), Reported> {
    let Ok(name) = written.parse::<HeaderName>() else {
        return Err(section.refuse(written, offset, "is not a header name", ""));
    };
    let name = name.as_str();
    if is_reserved(name) {
        return Err(section.refuse(written, offset, "is a reserved header: wirehook sets it by itself", "remove it"));
    }
    let (secret, origin) = if holds_secret(name) || matches!(value.get_ref(), DeValue::Table(_)) {
        section.one_secret(written, value)?
    } else {
        let found = section.resolve(written, value)?;
        (Secret::new(&found.text), found.origin)
    };
    if HeaderValue::from_bytes(secret.expose()).is_err() {
        let message = "has a value that no header can have: a line break or another control character";
        return Err(section.refuse(written, value.span().start, message, ""));
    }
    // A header's value is redacted even where it is written in the settings: who knows what it opens.
    section.show(name, Value::from(REDACTED), origin);
    Ok((name.to_owned(), secret))
}

/// Whether a header's value is a secret by the header's name, so that it can't be written in the settings.
fn holds_secret(name: &str) -> bool {
    matches!(name, "authorization" | "cookie")
        || ["api-key", "apikey", "auth", "password", "secret", "token"].iter().any(|part| name.contains(part))
}

/// A URL without credentials, which would end up in logs.
pub(super) struct EndpointUrl(pub(super) Url, Written);

/// Whether the path of a URL is sent as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    AsSent,
    Otherwise,
}

impl EndpointUrl {
    /// Warns where the path that is sent is another than the one that was written.
    pub(super) fn warn(&self, section: &Section<'_>, key: &'static str) {
        if self.1 == Written::Otherwise {
            let offset = section.get(key).map_or(section.offset, |value| value.span().start);
            let message = format!(
                "the path of `{key}` in {} is not sent as it is written: `.` and `..` are resolved, a backslash becomes a \
                 slash, line breaks and tabs are left out",
                section.title
            );
            section.context.warning(offset, message, Some("write the path as the server is to see it".to_owned()));
        }
    }
}

/// Whether `url`, which was read from `text`, has the path that stands there, but for characters that have to be encoded.
fn written(text: &str, url: &Url) -> Written {
    let behind = text.trim().split_once("//").map_or("", |(_, behind)| behind);
    let end = behind.find(['?', '#']).unwrap_or(behind.len());
    let path = behind[..end].find(['/', '\\']).map_or("/", |start| &behind[start..end]);
    let decoded = |path: &str| percent_encoding::percent_decode_str(path).collect::<Vec<_>>();
    if decoded(path) == decoded(url.path()) { Written::AsSent } else { Written::Otherwise }
}

impl Setting for EndpointUrl {
    const EXPECTED: &'static str =
        "write \"https://host/path\"; credentials go into [endpoint.headers], as Authorization = { env = \"NAME\" }";
    const PRIVATE: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let url = http_url(text)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is not a URL of scheme http or https".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has credentials in it, which would end up in logs".to_owned());
        }
        if url.fragment().is_some() {
            return Err("has a fragment, which no server would see".to_owned());
        }
        let written = written(text, &url);
        Ok(Self(url, written))
    }

    /// Without what a query holds: often a key.
    fn show(&self) -> String {
        let mut url = self.0.clone();
        if url.query().is_some() {
            url.set_query(None);
            return format!("{url}?{REDACTED}");
        }
        url.to_string()
    }
}
