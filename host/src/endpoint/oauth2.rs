//! Tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4): fetched once for all who wait, kept until shortly before
//! they expire.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::form_urlencoded;

use crate::clock::Clock;
use crate::delivery::AttemptResult;
use crate::settings::{ClientAuth, OAuth2Settings};

use super::auth::{basic, sensitive};
use super::client::Client;
use super::failure::result_of;
use super::request::USER_AGENT;

/// For one token: lookup, connection, request and answer.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The answer with a token at most.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// How long a token is used that does not say how long it is valid.
const VALID_BY_DEFAULT: Duration = Duration::from_mins(5);
/// A token is renewed this long before it expires, or at nine tenths of its time where that is later.
const RENEWED_BEFORE_EXPIRY: Duration = Duration::from_secs(60);
/// A token this young is not renewed because an endpoint answers 401: another would fare no better.
const YOUNG: Duration = Duration::from_secs(10);
/// How long a failure answers for those that waited for the same token; shorter than any lane waits.
const FAILURE_AGE_MAX: Duration = Duration::from_millis(500);

/// Where the tokens of one endpoint come from.
pub(super) struct TokenSource {
    client: Client,
    uri: Uri,
    authorization: Option<HeaderValue>,
    form: Bytes,
    // Held while a token is fetched: whoever comes meanwhile waits for it, and finds it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    fetched: u64,
    failed: Option<(Duration, String)>,
}

/// A token as it is sent.
#[derive(Clone)]
pub(super) struct Token {
    /// `Bearer …`
    pub(super) header: HeaderValue,
    number: u64,
    fetched_at: Duration,
    renew_at: Duration,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// RFC 6749, section 5.2. Its description is not read: who knows what it repeats.
#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl TokenSource {
    /// `None` where HTTP can't carry the URL or the credentials.
    pub(super) fn new(settings: &OAuth2Settings, client: Client) -> Option<Self> {
        let uri = Uri::try_from(settings.token_url.as_str()).ok()?;
        let (id, secret) = (settings.client_id.as_bytes(), settings.client_secret.expose());
        let authorization = match settings.client_auth {
            // Both are form-encoded first (RFC 6749, section 2.3.1).
            ClientAuth::Basic => Some(sensitive(basic(&encoded(id), &encoded(secret)).as_bytes())?),
            ClientAuth::Post => None,
        };
        Some(Self { client, uri, authorization, form: form(settings), state: Mutex::default() })
    }

    /// The token of the moment, fetched where there is none that is valid. The error says why there is none.
    pub(super) async fn token(&self, clock: &dyn Clock) -> Result<Token, String> {
        let mut state = self.state.lock().await;
        match &state.token {
            Some(token) if clock.monotonic() < token.renew_at => Ok(token.clone()),
            _ => self.fetch(&mut state, clock).await,
        }
    }

    /// Another token than `used`, which the endpoint refused; `None` where that one is too young to be worth it.
    pub(super) async fn renewed(&self, used: &Token, clock: &dyn Clock) -> Result<Option<Token>, String> {
        let mut state = self.state.lock().await;
        let now = clock.monotonic();
        match &state.token {
            // Somebody else has renewed it meanwhile.
            Some(token) if token.number != used.number && now < token.renew_at => return Ok(Some(token.clone())),
            _ if now.saturating_sub(used.fetched_at) < YOUNG => return Ok(None),
            _ => {}
        }
        state.token = None;
        self.fetch(&mut state, clock).await.map(Some)
    }

    async fn fetch(&self, state: &mut State, clock: &dyn Clock) -> Result<Token, String> {
        if let Some((failed_at, why)) = &state.failed
            && clock.monotonic().saturating_sub(*failed_at) < FAILURE_AGE_MAX
        {
            return Err(why.clone());
        }
        let asked_at = clock.monotonic();
        let answered = tokio::time::timeout(TOKEN_TIMEOUT, self.ask()).await;
        let answered =
            answered.unwrap_or_else(|_| Err(format!("it did not answer within {} s", TOKEN_TIMEOUT.as_secs())));
        let host = self.uri.host().unwrap_or_default();
        match answered.and_then(|answer| self.read(&answer)) {
            Ok((header, valid)) => {
                state.fetched += 1;
                let renew_at = asked_at.saturating_add(renew_after(valid));
                let token = Token { header, number: state.fetched, fetched_at: clock.monotonic(), renew_at };
                (state.token, state.failed) = (Some(token.clone()), None);
                Ok(token)
            }
            Err(why) => {
                let why = format!("no token from {host}: {why}");
                (state.token, state.failed) = (None, Some((clock.monotonic(), why.clone())));
                Err(why)
            }
        }
    }

    async fn ask(&self) -> Result<Bytes, String> {
        let mut request = Request::new(Full::new(self.form.clone()));
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, self.uri.clone());
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let response = self
            .client
            .send(request.clone(), || Some(request.clone()))
            .await
            .map_err(|error| said(result_of(&error, None)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), TOKEN_BYTES_MAX).collect().await;
        let body =
            body.map_err(|_| format!("its answer broke off, or is longer than {TOKEN_BYTES_MAX} bytes"))?.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        match serde_json::from_slice(&body) {
            Ok(Refused { error }) if is_code(&error) => Err(format!("it answered {status} with `{error}`")),
            _ => Err(format!("it answered {status}")),
        }
    }

    fn read(&self, answer: &[u8]) -> Result<(HeaderValue, Duration), String> {
        // serde's own message may repeat what it read.
        let answer: Answer =
            serde_json::from_slice(answer).map_err(|_| "its answer has no `access_token`".to_owned())?;
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err("its token is of another type than `Bearer`".to_owned());
        }
        let header = Some(answer.access_token.as_bytes()).filter(|token| !token.is_empty());
        let header = header.and_then(|token| sensitive(&[b"Bearer ", token].concat()));
        Ok((header.ok_or("its token is none that HTTP can carry")?, valid_for(answer.expires_in.as_ref())))
    }
}

/// What a failed request came to, as text.
fn said(result: AttemptResult) -> String {
    match result {
        AttemptResult::Transport(text) | AttemptResult::EgressDenied(text) | AttemptResult::Deferred(text) => text,
        AttemptResult::Status(status) => format!("it answered {status}"),
    }
}

/// How long a token is valid: seconds, which some write as text.
fn valid_for(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = match expires_in {
        Some(serde_json::Value::Number(number)) => number.as_f64(),
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let seconds = seconds.filter(|seconds| *seconds > 0.0);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(VALID_BY_DEFAULT)
}

/// How long a token is used that is valid for `valid`.
fn renew_after(valid: Duration) -> Duration {
    valid.saturating_sub(RENEWED_BEFORE_EXPIRY).max(valid.mul_f64(0.9))
}

/// Whether this is a code of RFC 6749 or its like, and no sentence with who knows what in it.
fn is_code(error: &str) -> bool {
    (1..=64).contains(&error.len()) && error.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn encoded(bytes: &[u8]) -> Vec<u8> {
    form_urlencoded::byte_serialize(bytes).collect::<String>().into_bytes()
}

fn form(settings: &OAuth2Settings) -> Bytes {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !settings.scopes.is_empty() {
        form.append_pair("scope", &settings.scopes.join(" "));
    }
    if let Some(audience) = &settings.audience {
        form.append_pair("audience", audience);
    }
    let mut form = form.finish();
    if settings.client_auth == ClientAuth::Post {
        for (name, value) in
            [("client_id", settings.client_id.as_bytes()), ("client_secret", settings.client_secret.expose())]
        {
            form.push_str(&format!("&{name}="));
            form.extend(form_urlencoded::byte_serialize(value));
        }
    }
    form.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn tokens_are_renewed_shortly_before_they_expire() {
        let check = |valid, expected| {
            assert_eq!(renew_after(Duration::from_secs(valid)), Duration::from_secs_f64(expected), "{valid}");
        };
        check(3600, 3540.0);
        check(86_400, 86_340.0);
        check(600, 540.0);
        check(100, 90.0);
        check(10, 9.0);
        check(0, 0.0);
        assert_eq!(renew_after(Duration::MAX), Duration::MAX.saturating_sub(RENEWED_BEFORE_EXPIRY));
    }

    #[test]
    fn validity_as_servers_write_it() {
        let check = |json: &str, expected: Duration| {
            let value = serde_json::from_str(json).unwrap();
            assert_eq!(valid_for(Some(&value)), expected, "{json}");
        };
        check("3600", Duration::from_secs(3600));
        check("\"3600\"", Duration::from_secs(3600));
        check("3599.5", Duration::from_secs_f64(3599.5));
        for nonsense in ["0", "-1", "\"soon\"", "null", "{}", "1e300"] {
            check(nonsense, VALID_BY_DEFAULT);
        }
        assert_eq!(valid_for(None), VALID_BY_DEFAULT);
    }

    #[test]
    fn the_form_is_encoded() {
        let settings = OAuth2Settings {
            token_url: "https://id.example/token".parse().unwrap(),
            client_id: "wire hook".to_owned(),
            client_secret: Secret::new("a&b=c"),
            client_auth: ClientAuth::Post,
            scopes: vec!["read".to_owned(), "write:all".to_owned()],
            audience: Some("https://api.example/".to_owned()),
        };
        let expected = "grant_type=client_credentials&scope=read+write%3Aall&audience=https%3A%2F%2Fapi.example%2F";
        assert_eq!(form(&settings), format!("{expected}&client_id=wire+hook&client_secret=a%26b%3Dc"));
        assert_eq!(form(&OAuth2Settings { client_auth: ClientAuth::Basic, ..settings }), expected);
    }

    #[test]
    fn only_codes_are_repeated() {
        assert!(is_code("invalid_client") && is_code("AADSTS7000215"));
        assert!(!is_code("") && !is_code("the secret `hush` is wrong") && !is_code(&"x".repeat(65)));
    }
}
