//! What an endpoint repeats of the secrets that it was sent is cut out of all that is kept of its answer: debug pages show the
//! request's headers, and an answer is stored, traced, exported and shown.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use memchr::memmem::Finder;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use url::form_urlencoded;

use crate::secret::standard::{self, Standard};
use crate::settings::show::REDACTED;

/// A secret that is shorter is none: it would be found in every text.
const SECRET_BYTES_MIN: usize = 4;

/// A value of a header of whose name nobody can tell whether it is a secret is taken for one from this length on.
const UNNAMED_BYTES_MIN: usize = 8;

/// How much of the beginning of a secret at the very end of a text is enough to be taken for one that was cut off.
const CUT_OFF_BYTES_MIN: usize = 4;

/// What the name of a header contains that holds a secret.
const NAMES_OF_SECRETS: &[&str] = &["auth", "cookie", "key", "password", "secret", "token"];

/// Secrets of one endpoint that came from files while the host ran: the oldest is forgotten beyond these.
const RENEWED_MAX: usize = 16;

/// Cuts secrets out of texts. What it looks for can't be printed.
#[derive(Default)]
pub(crate) struct Redactor {
    // The longest first, so that nothing is left of one that contains another.
    finders: Vec<Finder<'static>>,
}

impl Redactor {
    /// What cuts these out, in every form in which a text may have them.
    pub(crate) fn new(secrets: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut forms: Vec<_> = secrets.into_iter().flat_map(|secret| forms(&secret)).collect();
        forms.retain(|form| form.len() >= SECRET_BYTES_MIN);
        forms.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self { finders: forms.iter().map(|form| Finder::new(form).into_owned()).collect() }
    }

    /// How long the longest is: a text has to be read this far beyond where it is cut.
    pub(crate) fn longest(&self) -> usize {
        self.finders.first().map_or(0, |finder| finder.needle().len())
    }

    /// The beginning of a text without secrets, nor what stands at its end of one that goes on behind it.
    pub(crate) fn cut(&self, text: Bytes) -> Bytes {
        let text = self.cut_whole(text);
        match self.finders.iter().filter_map(|finder| cut_off(&text, finder.needle())).max() {
            Some(bytes) => [&text[..text.len() - bytes], REDACTED.as_bytes()].concat().into(),
            None => text,
        }
    }

    /// A whole text without secrets.
    pub(crate) fn cut_whole(&self, mut text: Bytes) -> Bytes {
        for finder in &self.finders {
            let Some(first) = finder.find(&text) else { continue };
            let mut cut = text[..first].to_vec();
            let mut rest = &text[first..];
            while let Some(at) = finder.find(rest) {
                cut.extend_from_slice(&rest[..at]);
                cut.extend_from_slice(REDACTED.as_bytes());
                rest = &rest[at + finder.needle().len()..];
            }
            cut.extend_from_slice(rest);
            text = cut.into();
        }
        text
    }

    /// As [`Self::cut_whole`].
    pub(crate) fn cut_text(&self, text: String) -> String {
        if self.finders.is_empty() {
            return text;
        }
        String::from_utf8(self.cut_whole(text.into()).to_vec())
            .unwrap_or_else(|cut| String::from_utf8_lossy(cut.as_bytes()).into_owned())
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The secrets of one endpoint as they change, and what cuts them out.
pub(crate) struct Hidden {
    secrets: Vec<Vec<u8>>,
    /// Of files that were read again, the newest last.
    renewed: VecDeque<Vec<Vec<u8>>>,
    own: Arc<Redactor>,
    /// The token that was used last, and what cuts it out beside all others.
    with_token: Option<(HeaderValue, Arc<Redactor>)>,
}

impl Hidden {
    pub(crate) fn new(secrets: Vec<Vec<u8>>) -> Self {
        let own = Arc::new(Redactor::new(secrets.iter().cloned()));
        Self { secrets, renewed: VecDeque::new(), own, with_token: None }
    }

    /// Cuts out what is in the settings.
    pub(crate) fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.own)
    }

    /// Cuts out the token of this header too.
    pub(crate) fn redactor_with(&mut self, token: &HeaderValue) -> Arc<Redactor> {
        match &self.with_token {
            Some((known, redactor)) if known == token => Arc::clone(redactor),
            _ => {
                let all = self.all().chain(of_header("authorization", token.as_bytes()));
                let redactor = Arc::new(Redactor::new(all));
                self.with_token = Some((token.clone(), Arc::clone(&redactor)));
                redactor
            }
        }
    }

    /// A secret that signs has changed. The one before stays secret: its receiver may take it still.
    pub(crate) fn renew(&mut self, signing: &[u8]) {
        if self.renewed.len() == RENEWED_MAX {
            self.renewed.pop_front();
        }
        self.renewed.push_back(of_signing(signing));
        (self.own, self.with_token) = (Arc::new(Redactor::new(self.all())), None);
    }

    fn all(&self) -> impl Iterator<Item = Vec<u8>> {
        self.secrets.iter().chain(self.renewed.iter().flatten()).cloned()
    }
}

/// How much of the beginning of `secret` the text ends with.
fn cut_off(text: &[u8], secret: &[u8]) -> Option<usize> {
    let most = text.len().min(secret.len() - 1);
    (CUT_OFF_BYTES_MIN..=most).rev().find(|bytes| text.ends_with(&secret[..*bytes]))
}

/// The secrets in the value of a header; of a credential what stands behind its scheme's name.
pub(crate) fn of_header(name: &str, value: &[u8]) -> Vec<Vec<u8>> {
    let is_named = NAMES_OF_SECRETS.iter().any(|part| name.contains(part));
    let is_harmless = name.starts_with("accept") || name.starts_with("content-");
    let is_harmless = is_harmless || ["user-agent", "cache-control", "origin", "referer", "from"].contains(&name);
    if is_harmless || !is_named && value.len() < UNNAMED_BYTES_MIN {
        return Vec::new();
    }
    // The name of a scheme is no part of the secret.
    let blank = value.iter().position(|byte| *byte == b' ').filter(|_| name.ends_with("authorization"));
    let (scheme, credential) =
        blank.map_or((&value[..0], value), |blank| (&value[..blank], value[blank..].trim_ascii()));
    let mut secrets = vec![credential.to_vec()];
    if scheme.eq_ignore_ascii_case(b"basic")
        && let Ok(pair) = STANDARD.decode(credential)
    {
        secrets.extend(of_pair(&pair));
    }
    if name == "cookie" {
        let values = value.split(|byte| *byte == b';').filter_map(|one| one.splitn(2, |byte| *byte == b'=').nth(1));
        secrets.extend(values.map(<[u8]>::to_vec));
    }
    secrets
}

/// The secrets in `user:password`: the whole and the password.
pub(crate) fn of_pair(pair: &[u8]) -> Vec<Vec<u8>> {
    let password = pair.splitn(2, |byte| *byte == b':').nth(1).map(<[u8]>::to_vec);
    std::iter::once(pair.to_vec()).chain(password).collect()
}

/// The secrets in a URL: its query, and each value in it.
pub(crate) fn of_query(query: Option<&str>) -> Vec<Vec<u8>> {
    let Some(query) = query else { return Vec::new() };
    let values = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
    let decoded = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned());
    let values = values.chain(decoded).filter(|value| value.len() >= UNNAMED_BYTES_MIN);
    values.chain([query.to_owned()]).map(String::into_bytes).collect()
}

/// The secrets in one that signs: as it is written, what stands behind its prefix, and the key itself.
pub(crate) fn of_signing(written: &[u8]) -> Vec<Vec<u8>> {
    let mut secrets = vec![written.trim_ascii().to_vec()];
    let prefixes: [&[u8]; 4] = [b"v1,", b"v1a,", b"whsec_", b"whsk_"];
    let mut rest = written.trim_ascii();
    for prefix in prefixes {
        if let Some(behind) = rest.strip_prefix(prefix) {
            rest = behind;
            secrets.push(rest.to_vec());
        }
    }
    if let Ok(Standard::Hmac(key) | Standard::Signing(key)) = standard::read(written) {
        secrets.push(key);
    }
    secrets
}

/// A secret as texts have it: as it is, in base64 and hex, in a URL, in JSON and in HTML.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    if secret.len() < SECRET_BYTES_MIN {
        return Vec::new();
    }
    let mut forms = vec![
        secret.to_vec(),
        // Found with its padding and without.
        STANDARD_NO_PAD.encode(secret).into_bytes(),
        STANDARD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
        hex::encode(secret).into_bytes(),
        percent_encode(secret, NON_ALPHANUMERIC).to_string().into_bytes(),
        form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes(),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        let json = serde_json::Value::from(text).to_string();
        let json = &json[1..json.len() - 1];
        let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        forms.push(json.replace('/', "\\/").into_bytes());
        forms.push(json.to_owned().into_bytes());
        forms.push(html.replace('\'', "&#39;").replace('+', "&#43;").into_bytes());
        forms.push(html.replace('\'', "&#x27;").into_bytes());
        forms.push(html.into_bytes());
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secrets: &[&str], text: &str, expected: &str) {
        let redactor = Redactor::new(secrets.iter().map(|secret| secret.as_bytes().to_vec()));
        assert_eq!(String::from_utf8_lossy(&redactor.cut(text.to_owned().into())), expected);
    }

    #[test]
    fn every_form_is_cut_out() {
        check(&["hunter22"], "a hunter22 b hunter22", "a <redacted> b <redacted>");
        check(&["hunter22"], "aHVudGVyMjI= and aHVudGVyMjI", "<redacted> and <redacted>");
        check(&["hunter22"], "68756e7465723232", "<redacted>");
        check(&["a/b c\"d&e"], r#"{"t":"a/b c\"d&e","u":"a\/b c\"d&e"}"#, r#"{"t":"<redacted>","u":"<redacted>"}"#);
        check(
            &["a/b c\"d&e"],
            "a/b c&quot;d&amp;e a%2Fb%20c%22d%26e a%2Fb+c%22d%26e",
            "<redacted> <redacted> <redacted>",
        );
        check(&["abc"], "abc is none", "abc is none");
        check(&["abcdef", "xxabcdefxx"], "xxabcdefxx abcdef", "<redacted> <redacted>");
    }

    #[test]
    fn one_that_is_cut_off_is_cut_out() {
        check(&["hunter22"], "password: hunte", "password: <redacted>");
        check(&["hunter22"], "password: hun", "password: hun");
        check(&["hunter22"], "hunter2", "<redacted>");
    }

    #[test]
    fn what_is_secret_in_a_header() {
        let secrets = |name, value: &str| {
            of_header(name, value.as_bytes()).into_iter().map(|one| String::from_utf8(one).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(secrets("authorization", "Bearer t0ken"), ["t0ken"]);
        let basic = secrets("authorization", "Basic dXNlcjpodXNo");
        assert_eq!(basic, ["dXNlcjpodXNo", "user:hush", "hush"]);
        assert_eq!(secrets("cookie", "a=first; b=second"), ["a=first; b=second", "first", "second"]);
        assert_eq!(secrets("x-api-key", "k3y!"), ["k3y!"]);
        assert!(secrets("x-tenant", "acme").is_empty() && secrets("accept", "application/json").is_empty());
    }

    #[test]
    fn what_is_secret_in_a_url_and_in_a_signing_secret() {
        let query = of_query(Some("tenant=1&key=very%2Fsecret"));
        assert_eq!(query, [&b"very%2Fsecret"[..], b"very/secret", b"tenant=1&key=very%2Fsecret"]);
        let signing = of_signing(b"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        assert!(signing.contains(&b"0123456789abcdef0123456789abcdef".to_vec()));
        assert!(signing.contains(&b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_vec()));
    }
}
