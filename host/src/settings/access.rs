//! `[endpoint.auth]` and `[endpoint.tls]`: who the host is to an endpoint, and whom it trusts there.

use http::HeaderValue;
use toml::Spanned;

use super::endpoint::EndpointUrl;
use super::kinds::{Setting, one_of};
use super::section::{Reported, Section};
use super::source::tls_files;
use super::{AccessSettings, AuthSettings, ClientAuth, OAuth2Settings};
use crate::endpoint::tls;
use crate::secret::Secret;

/// The most of `scopes`.
pub const SCOPES_MAX: usize = 64;

/// The auth and TLS of the endpoint whose `section` this is.
pub(super) fn read(section: &Section<'_>) -> Result<AccessSettings, Reported> {
    let (auth, tls) = (auth(section), tls_of(section));
    Ok(AccessSettings { auth: auth?, tls: tls? })
}

fn tls_of(section: &Section<'_>) -> Result<super::TlsSettings, Reported> {
    let offset = section.get("tls").map_or(section.offset, |value| value.span().start);
    let files = tls_files(section)?;
    // Read here, so that `check` says what is wrong with them; the host reads them again.
    tls::check(&files)
        .map_err(|error| section.context.problem(offset, format!("{error} in {}", section.title), None))?;
    Ok(files)
}

#[derive(Clone, Copy)]
enum Kind {
    Bearer,
    Basic,
    OAuth2,
}

const KINDS: &[(&str, Kind)] = &[("basic", Kind::Basic), ("bearer", Kind::Bearer), ("oauth2", Kind::OAuth2)];

fn auth(endpoint: &Section<'_>) -> Result<Option<AuthSettings>, Reported> {
    if endpoint.get("auth").is_none() {
        return Ok(None);
    }
    let section = endpoint.table("auth");
    let kind = section.required::<Kind>("kind");
    let read = match kind {
        Ok(Kind::Bearer) => bearer(&section),
        Ok(Kind::Basic) => basic(&section),
        Ok(Kind::OAuth2) => oauth2(&section),
        // What else may stand there depends on the kind.
        Err(reported) => return Err(reported),
    };
    section.finish();
    read.map(Some)
}

fn bearer(section: &Section<'_>) -> Result<AuthSettings, Reported> {
    let token = required_secret(section, "token")?;
    if HeaderValue::from_bytes(token.expose()).is_err() {
        let message = "has a value that no header can have: a line break or another control character";
        return Err(section.refuse("token", offset_of(section.get("token"), section), message, ""));
    }
    Ok(AuthSettings::Bearer { token })
}

fn basic(section: &Section<'_>) -> Result<AuthSettings, Reported> {
    // A user name ends at the colon (RFC 7617).
    let without_colon = |user: &String| if user.contains(':') { Err("has a colon in it".to_owned()) } else { Ok(()) };
    let user =
        section.optional_if("user", without_colon).and_then(|user| user.ok_or_else(|| section.missing("user", "")));
    let password = required_secret(section, "password");
    Ok(AuthSettings::Basic { user: user?, password: password? })
}

fn oauth2(section: &Section<'_>) -> Result<AuthSettings, Reported> {
    let missing =
        || section.missing("token_url", "add token_url = \"https://…\", where the endpoint's tokens are given");
    let token_url = section.optional::<EndpointUrl>("token_url").and_then(|url| url.ok_or_else(missing));
    if let Ok(url) = &token_url {
        url.warn(section, "token_url");
    }
    let client_id = section.required::<String>("client_id");
    let client_secret = required_secret(section, "client_secret");
    let client_auth = section.or_default("client_auth", ClientAuth::Basic);
    let scopes = section.list::<Scope>("scopes");
    let audience = section.optional::<String>("audience");
    if scopes.as_ref().is_ok_and(|scopes| scopes.len() > SCOPES_MAX) {
        let offset = offset_of(section.get("scopes"), section);
        return Err(section.refuse("scopes", offset, format_args!("has more than {SCOPES_MAX} elements"), ""));
    }
    Ok(AuthSettings::OAuth2(Box::new(OAuth2Settings {
        token_url: token_url?.0,
        client_id: client_id?,
        client_secret: client_secret?,
        client_auth: client_auth?,
        scopes: scopes?.into_iter().map(|scope| scope.0).collect(),
        audience: audience?,
    })))
}

fn required_secret(section: &Section<'_>, key: &'static str) -> Result<Secret, Reported> {
    let help = format!("add {key} = {{ env = \"NAME\" }} or {{ file = \"path\" }}");
    section.secret(key)?.ok_or_else(|| section.missing(key, &help))
}

fn offset_of<T>(value: Option<&Spanned<T>>, section: &Section<'_>) -> usize {
    value.map_or(section.offset, |value| value.span().start)
}

impl Setting for Kind {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, KINDS)
    }

    fn show(&self) -> String {
        match self {
            Self::Bearer => "bearer".to_owned(),
            Self::Basic => "basic".to_owned(),
            Self::OAuth2 => "oauth2".to_owned(),
        }
    }
}

const CLIENT_AUTHS: &[(&str, ClientAuth)] = &[("basic", ClientAuth::Basic), ("post", ClientAuth::Post)];

impl Setting for ClientAuth {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        one_of(text, CLIENT_AUTHS)
    }

    fn show(&self) -> String {
        match self {
            Self::Basic => "basic".to_owned(),
            Self::Post => "post".to_owned(),
        }
    }
}

struct Scope(String);

impl Setting for Scope {
    const EXPECTED: &'static str = "one scope an element, such as [\"webhooks.write\", \"read\"]";

    fn read(text: &str) -> Result<Self, String> {
        // RFC 6749, section 3.3.
        let fits = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if text.is_empty() || !text.bytes().all(fits) {
            return Err("is not a scope".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}
