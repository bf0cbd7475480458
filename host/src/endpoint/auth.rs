//! Who the host is to an endpoint: nothing, a header that never changes, or a token that is fetched and renewed.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::clock::Clock;
use crate::settings::AuthSettings;

use super::oauth2::{Token, TokenSource};
use super::redact::{Hidden, Redactor};
use crate::sync::lock;

/// How requests to one endpoint are authorised.
pub(super) enum Auth {
    /// Not at all, or by `[endpoint.headers]`.
    None,
    /// By the same header each time.
    Fixed(HeaderValue),
    /// By a token of OAuth 2.0.
    Token(Box<TokenSource>),
}

/// What one request is authorised with.
#[derive(Clone)]
pub(super) struct Authorization {
    header: Option<HeaderValue>,
    token: Option<Token>,
}

impl Auth {
    /// `source` makes what fetches tokens, where some are to be fetched. `None` where HTTP can't carry a credential.
    pub(super) fn new(
        settings: Option<&AuthSettings>,
        source: impl FnOnce(&crate::settings::OAuth2Settings) -> Option<TokenSource>,
    ) -> Option<Self> {
        match settings {
            None => Some(Self::None),
            Some(AuthSettings::Bearer { token }) => sensitive(&[b"Bearer ", token.expose()].concat()).map(Self::Fixed),
            Some(AuthSettings::Basic { user, password }) => {
                sensitive(basic(user.as_bytes(), password.expose()).as_bytes()).map(Self::Fixed)
            }
            Some(AuthSettings::OAuth2(settings)) => source(settings).map(|source| Self::Token(Box::new(source))),
        }
    }

    /// What to authorise a request with; the error says why there is no token.
    pub(super) async fn authorization(&self, clock: &dyn Clock) -> Result<Authorization, String> {
        match self {
            Self::None => Ok(Authorization { header: None, token: None }),
            Self::Fixed(header) => Ok(Authorization { header: Some(header.clone()), token: None }),
            Self::Token(source) => source.token(clock).await.map(Authorization::of),
        }
    }

    /// What to authorise the request with once more, after an endpoint answered 401 to one with `used`; `None` where
    /// nothing better is to be had.
    pub(super) async fn renewed(
        &self,
        used: &Authorization,
        clock: &dyn Clock,
    ) -> Result<Option<Authorization>, String> {
        match (self, &used.token) {
            (Self::Token(source), Some(token)) => Ok(source.renewed(token, clock).await?.map(Authorization::of)),
            _ => Ok(None),
        }
    }
}

impl Authorization {
    fn of(token: Token) -> Self {
        Self { header: Some(token.header.clone()), token: Some(token) }
    }

    /// What cuts it out of an answer beside all that is `hidden`.
    pub(super) fn redactor(&self, hidden: &Mutex<Hidden>) -> Arc<Redactor> {
        match &self.token {
            Some(token) => lock(hidden).redactor_with(&token.header),
            None => lock(hidden).redactor(),
        }
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        self.header.clone()
    }
}

/// `Basic …` (RFC 7617).
pub(super) fn basic(user: &[u8], password: &[u8]) -> String {
    format!("Basic {}", STANDARD.encode([user, b":", password].concat()))
}

/// A header's value that no log shows.
pub(super) fn sensitive(value: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
