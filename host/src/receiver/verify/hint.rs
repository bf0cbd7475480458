//! Why a signature does not match: what it was made over, or with, instead.

use super::claim::{Claim, joined};
use super::json;
use super::key::VerifyKey;
use crate::secret::Secret;
use crate::settings::SignatureScheme;

/// Of a longer body nobody looks for the reason: it is written again in every way that there is.
pub const HINT_BODY_BYTES_MAX: usize = 256 * 1024;

/// What was signed instead, where one can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// The timestamp was left out, and the id where there is one.
    BodyAlone,
    /// The id was left out.
    WithoutId,
    /// A timestamp was put before the body.
    Timed,
    /// The JSON was parsed and written again between signing and verifying.
    Reserialised,
    /// White space at the end of the body came or went.
    BodyTrimmed,
    /// The ends of lines were changed.
    LineEnds,
    /// White space around the secret, usually the newline at a file's end.
    SecretTrimmed,
    /// The other way round: the sender's secret has a newline.
    SecretNewline,
    /// The whole text of the secret, which is to be decoded.
    SecretVerbatim,
    /// The base64 itself.
    SecretNotDecoded,
    /// What the base64 stands for, where the text is the secret.
    SecretDecoded,
    /// The text without its prefix.
    SecretUnprefixed,
}

impl Hint {
    /// As one word, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::BodyAlone => "body_alone",
            Self::WithoutId => "without_id",
            Self::Timed => "timed",
            Self::Reserialised => "reserialised",
            Self::BodyTrimmed => "body_trimmed",
            Self::LineEnds => "line_ends",
            Self::SecretTrimmed => "secret_trimmed",
            Self::SecretNewline => "secret_newline",
            Self::SecretVerbatim => "secret_verbatim",
            Self::SecretNotDecoded => "secret_not_decoded",
            Self::SecretDecoded => "secret_decoded",
            Self::SecretUnprefixed => "secret_unprefixed",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BodyAlone => {
                "it was made over the body alone, without `{timestamp}.` before it, as the schemes github and hmac do"
            }
            Self::WithoutId => "it was made over `{timestamp}.{body}`, without `{webhook-id}.` before it",
            Self::Timed => "it was made over `{timestamp}.{body}`, as the schemes fraiseql and stripe do",
            Self::Reserialised => {
                "the body was re-serialised: it was made over the same JSON written differently; use the body's bytes as they came"
            }
            Self::BodyTrimmed => {
                "white space at the body's end, such as a newline, came or went; use the body's bytes as they came"
            }
            Self::LineEnds => "the ends of the body's lines were changed; use the body's bytes as they came",
            Self::SecretTrimmed => "it was made with this secret without the white space around it",
            Self::SecretNewline => "it was made with this secret and a newline behind it",
            Self::SecretVerbatim => "it was made with the secret as it is written, `whsec_` included, not decoded",
            Self::SecretNotDecoded => "it was made with what stands behind `whsec_` as it is written, not decoded",
            Self::SecretDecoded => {
                "it was made with what the base64 behind `whsec_` decodes to; this scheme takes the secret as it is written"
            }
            Self::SecretUnprefixed => {
                "it was made with the secret without its `whsec_`; this scheme takes the secret as it is written"
            }
        }
    }
}

/// What is said behind "the signature does not match".
pub(super) fn text(hints: &[Hint]) -> String {
    if hints.is_empty() {
        return ": the secret is another one, or the body is not the one that was signed".to_owned();
    }
    let texts: Vec<_> = hints.iter().map(|hint| hint.text()).collect();
    format!(": {}", texts.join(", and "))
}

/// Looks for what explains the signature: first one thing that is different, then two. Nothing where neither does.
pub(super) fn explain(scheme: &SignatureScheme, claim: &Claim, body: &[u8], secret: &Secret) -> Vec<Hint> {
    if body.len() > HINT_BODY_BYTES_MAX {
        return Vec::new();
    }
    let Ok(right_key) = VerifyKey::new(scheme, secret.expose()) else { return Vec::new() };
    let messages = messages(scheme, claim, body);
    let keys = VerifyKey::misread(scheme, secret.expose());
    let right_message = claim.message(scheme, body);
    if let Some((hint, _)) = messages.iter().find(|(_, message)| claim.is_signed(&right_key, message)) {
        return vec![*hint];
    }
    if let Some((hint, _)) = keys.iter().find(|(_, key)| claim.is_signed(key, &right_message)) {
        return vec![*hint];
    }
    let pairs = keys.iter().flat_map(|key| messages.iter().map(move |message| (key, message)));
    let found = pairs.into_iter().find(|((_, key), (_, message))| claim.is_signed(key, message));
    found.map_or_else(Vec::new, |((with, _), (over, _))| vec![*with, *over])
}

/// What may have been signed instead, and how that is called.
fn messages(scheme: &SignatureScheme, claim: &Claim, body: &[u8]) -> Vec<(Hint, Vec<u8>)> {
    let mut messages = Vec::new();
    let time = claim.timestamp.as_ref().map(|timestamp| timestamp.written.as_bytes());
    match (scheme, time) {
        (SignatureScheme::StandardWebhooks, Some(time)) => {
            messages.push((Hint::WithoutId, joined(&[time, body])));
            messages.push((Hint::BodyAlone, body.to_vec()));
        }
        (_, Some(_)) => messages.push((Hint::BodyAlone, body.to_vec())),
        (_, None) => {
            messages.extend(claim.loose_times.iter().map(|time| (Hint::Timed, joined(&[time.as_bytes(), body]))));
        }
    }
    messages.extend(bodies(body).into_iter().map(|(hint, body)| (hint, claim.message(scheme, &body))));
    messages
}

fn bodies(body: &[u8]) -> Vec<(Hint, Vec<u8>)> {
    let mut bodies = vec![(Hint::BodyTrimmed, [body, b"\n"].concat()), (Hint::BodyTrimmed, [body, b"\r\n"].concat())];
    let trimmed = body.trim_ascii_end();
    if trimmed.len() < body.len() {
        bodies.push((Hint::BodyTrimmed, trimmed.to_vec()));
    }
    if body.contains(&b'\n') {
        let unix = replaced(body, b"\r\n", b"\n");
        bodies.push((Hint::LineEnds, replaced(&unix, b"\n", b"\r\n")));
        bodies.push((Hint::LineEnds, unix));
    }
    bodies.extend(json::rewritings(body).into_iter().map(|body| (Hint::Reserialised, body)));
    bodies
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut left = text;
    let mut written = Vec::with_capacity(text.len());
    while let Some(first) = left.first() {
        match left.strip_prefix(from) {
            Some(rest) => {
                written.extend_from_slice(to);
                left = rest;
            }
            None => {
                written.push(*first);
                left = &left[1..];
            }
        }
    }
    written
}
