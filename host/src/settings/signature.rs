//! `signature`, `signature_header` and `secret` of an `[[endpoint]]`: how its requests are signed, and with what.

use std::fmt;
use std::path::PathBuf;

use http::HeaderName;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::endpoint::{SECRETS_MAX, is_reserved};
use super::kinds::{Setting, one_of};
use super::section::{Reported, Section};
use super::show::{Origin, REDACTED};
use crate::clock::Timestamp;
use crate::endpoint::signature::check_secret;
use crate::secret::{Secret, standard};

/// How a request is signed. What each scheme sends and over which bytes: `docs/signatures.md`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignatureScheme {
    /// FraiseQL's page: `X-Signature: sha256=<hex>` over `{timestamp}.{body}`, `X-Timestamp`.
    Fraiseql,
    /// Standard Webhooks 1.0.0: `webhook-signature` over `{id}.{timestamp}.{body}`, HMAC or ed25519 by the secret.
    StandardWebhooks,
    /// As Stripe: `t=<timestamp>,v1=<hex>` over `{timestamp}.{body}`.
    Stripe {
        /// Stripe's own is [`Self::STRIPE_HEADER`].
        header: HeaderName,
    },
    /// As GitHub: `X-Hub-Signature-256: sha256=<hex>` over the body.
    Github,
    /// Bare hex over the body.
    Hmac {
        /// Where nothing says, [`Self::HMAC_HEADER`].
        header: HeaderName,
    },
    /// No signature; `webhook-id` is sent all the same.
    None,
}

/// A scheme's name, without what else it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchemeName {
    /// [`SignatureScheme::Fraiseql`]
    Fraiseql,
    /// [`SignatureScheme::StandardWebhooks`]
    StandardWebhooks,
    /// [`SignatureScheme::Stripe`]
    Stripe,
    /// [`SignatureScheme::Github`]
    Github,
    /// [`SignatureScheme::Hmac`]
    Hmac,
    /// [`SignatureScheme::None`]
    None,
}

/// One of an endpoint's secrets.
#[derive(Clone, Debug)]
pub struct SigningSecret {
    /// What signs.
    pub secret: Secret,
    /// From then on it signs no more. The newest has no end, so that there is always one that signs.
    pub expires_at: Option<Timestamp>,
    /// The file it was read from, which is read again while the host runs.
    pub file: Option<PathBuf>,
}

const NAMES: &[(&str, SchemeName)] = &[
    ("fraiseql", SchemeName::Fraiseql),
    ("standard-webhooks", SchemeName::StandardWebhooks),
    ("stripe", SchemeName::Stripe),
    ("github", SchemeName::Github),
    ("hmac", SchemeName::Hmac),
    ("none", SchemeName::None),
];

impl SignatureScheme {
    /// Where Stripe's signature stands.
    pub const STRIPE_HEADER: HeaderName = HeaderName::from_static("stripe-signature");
    /// Where a bare HMAC stands, unless the settings say otherwise: what FraiseQL's own receivers expect.
    pub const HMAC_HEADER: HeaderName = HeaderName::from_static("x-signature");

    /// Its name in the settings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fraiseql => SchemeName::Fraiseql,
            Self::StandardWebhooks => SchemeName::StandardWebhooks,
            Self::Stripe { .. } => SchemeName::Stripe,
            Self::Github => SchemeName::Github,
            Self::Hmac { .. } => SchemeName::Hmac,
            Self::None => SchemeName::None,
        }
        .as_str()
    }

    /// The header that the settings may choose, for the schemes that have one.
    pub fn chosen_header(&self) -> Option<&HeaderName> {
        match self {
            Self::Stripe { header } | Self::Hmac { header } => Some(header),
            _ => None,
        }
    }

    /// Whether a request carries one signature only, which the newest secret makes.
    pub fn carries_one(&self) -> bool {
        matches!(self, Self::Fraiseql | Self::Github | Self::Hmac { .. })
    }
}

impl SchemeName {
    /// As it stands in the settings.
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(_, name)| *name == self).map_or("", |(text, _)| text)
    }

    /// By its name in the settings, or what is wrong with it, as a predicate.
    pub fn parse(text: &str) -> Result<Self, String> {
        one_of(text, NAMES)
    }

    /// The scheme, with its own header where none was chosen; `None` where one was chosen for a scheme without a choice.
    pub fn with_header(self, header: Option<HeaderName>) -> Option<SignatureScheme> {
        let fixed = |scheme| if header.is_none() { Some(scheme) } else { None };
        match self {
            Self::Fraiseql => fixed(SignatureScheme::Fraiseql),
            Self::StandardWebhooks => fixed(SignatureScheme::StandardWebhooks),
            Self::Github => fixed(SignatureScheme::Github),
            Self::None => fixed(SignatureScheme::None),
            Self::Stripe => Some(SignatureScheme::Stripe { header: header.unwrap_or(SignatureScheme::STRIPE_HEADER) }),
            Self::Hmac => Some(SignatureScheme::Hmac { header: header.unwrap_or(SignatureScheme::HMAC_HEADER) }),
        }
    }
}

impl fmt::Display for SchemeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SigningSecret {
    /// Whether it signs at `now`.
    pub fn signs_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

impl From<Secret> for SigningSecret {
    fn from(secret: Secret) -> Self {
        Self { secret, expires_at: None, file: None }
    }
}

impl Setting for SchemeName {
    const EXPECTED: &'static str = "";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

/// A header that may carry a signature: the connection's own, and those of other signatures' parts, may not.
struct SignatureHeader(HeaderName);

impl Setting for SignatureHeader {
    const EXPECTED: &'static str = "write a header of its own, such as \"X-Shop-Signature\"";

    fn read(text: &str) -> Result<Self, String> {
        let name: HeaderName = text.parse().map_err(|_| "is not a header name".to_owned())?;
        match name.as_str() {
            "authorization" | "cookie" | "user-agent" | "x-timestamp" => Err("has another meaning".to_owned()),
            other if is_reserved(other) && !crate::endpoint::signature::is_signature_header(other) => {
                Err("is a reserved header".to_owned())
            }
            _ => Ok(Self(name)),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// The scheme and its secrets.
pub(super) fn read(section: &Section<'_>) -> Result<(SignatureScheme, Vec<SigningSecret>), Reported> {
    let scheme = scheme(section);
    let secrets = secrets(section, scheme.as_ref().ok())?;
    Ok((scheme?, secrets))
}

fn scheme(section: &Section<'_>) -> Result<SignatureScheme, Reported> {
    let name = section.or_default("signature", SchemeName::Fraiseql);
    let header = section.optional::<SignatureHeader>("signature_header");
    let (name, header) = (name?, header?.map(|header| header.0));
    let is_default = header.is_none();
    let Some(scheme) = name.with_header(header) else {
        let offset = section.get("signature_header").map_or(section.offset, |value| value.span().start);
        let message = format_args!("is there, and the scheme {name} has headers of its own");
        return Err(section.refuse("signature_header", offset, message, "remove it, or choose stripe or hmac"));
    };
    if let Some(header) = scheme.chosen_header().filter(|_| is_default) {
        section.show("signature_header", Value::from(header.as_str()), Origin::Default);
    }
    Ok(scheme)
}

fn secrets(section: &Section<'_>, scheme: Option<&SignatureScheme>) -> Result<Vec<SigningSecret>, Reported> {
    let Some(value) = section.get("secret") else {
        return match scheme {
            Some(SignatureScheme::None) | None => Ok(Vec::new()),
            Some(_) => Err(section.missing(
                "secret",
                "add secret = { env = \"NAME\" }, or signature = \"none\" to send unsigned webhooks",
            )),
        };
    };
    let elements: Vec<_> = match value.get_ref() {
        DeValue::Array(array) if array.is_empty() || array.len() > SECRETS_MAX => {
            let message = format_args!("has {} elements, which is not within 1 to {SECRETS_MAX}", array.len());
            return Err(section.refuse("secret", value.span().start, message, ""));
        }
        DeValue::Array(array) => array.iter().collect(),
        _ => vec![value],
    };
    let read: Vec<_> =
        elements.iter().enumerate().map(|(index, element)| one(section, scheme, index, element)).collect();
    let read: Vec<(SigningSecret, Origin)> = read.into_iter().collect::<Result<_, _>>()?;
    let (secrets, origins): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    show(section, value, &secrets, origins);
    warn(section, scheme, &secrets);
    Ok(secrets)
}

fn one<'a>(
    section: &Section<'a>,
    scheme: Option<&SignatureScheme>,
    index: usize,
    value: &'a Spanned<DeValue<'a>>,
) -> Result<(SigningSecret, Origin), Reported> {
    let offset = value.span().start;
    let (secret, origin, expires_at) =
        section.one_secret_and("secret", value, |inner| expires_at(section, index, inner))?;
    let expires_at = expires_at?;
    if let Some(Err(wrong)) = scheme.map(|scheme| check_secret(scheme, &secret)) {
        return Err(section.refuse("secret", offset, wrong, wrong.help()));
    }
    let (oddities, consequence) = match scheme {
        Some(SignatureScheme::StandardWebhooks) => {
            (standard::standard_oddities(secret.expose()), "the key that it decodes to is used")
        }
        _ => (standard::oddities(secret.expose()), "every byte of it counts"),
    };
    section.warn_of("secret", offset, oddities, consequence);
    let file = match &origin {
        Origin::File(path) => Some(section.context.path(path)),
        _ => None,
    };
    Ok((SigningSecret { secret, expires_at, file }, origin))
}

fn expires_at(section: &Section<'_>, index: usize, inner: &Section<'_>) -> Result<Option<Timestamp>, Reported> {
    let Some(value) = inner.get("expires") else { return Ok(None) };
    let offset = value.span().start;
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        other => return Err(inner.wrong_type("expires", offset, "a time", other)),
    };
    let Ok(time) = text.parse::<jiff::Timestamp>() else {
        let help = "write a time such as \"2026-12-01T00:00:00Z\"";
        return Err(inner.refuse("expires", offset, format_args!("is not a time: found `{text}`"), help));
    };
    if index == 0 {
        let message = format_args!("of the newest secret in {} would leave nothing that signs", section.title);
        let help = "put the new secret before it, which stays: secret = [{ env = \"NEW\" }, { env = \"OLD\", expires = \"…\" }]";
        return Err(section.context.problem(offset, format!("`expires` {message}"), Some(help.to_owned())));
    }
    Ok(Some(Timestamp(time.as_millisecond())))
}

fn show(section: &Section<'_>, value: &Spanned<DeValue<'_>>, secrets: &[SigningSecret], mut origins: Vec<Origin>) {
    let shown = |secret: &SigningSecret| match secret.expires_at {
        Some(expires_at) => Value::from(format!("{REDACTED} until {expires_at}")),
        None => Value::from(REDACTED),
    };
    if matches!(value.get_ref(), DeValue::Array(_)) {
        section.show("secret", Value::Array(secrets.iter().map(shown).collect()), Origin::Several(origins));
    } else if let (Some(secret), Some(origin)) = (secrets.first(), origins.pop()) {
        section.show("secret", shown(secret), origin);
    }
}

/// What is allowed but hardly meant.
fn warn(section: &Section<'_>, scheme: Option<&SignatureScheme>, secrets: &[SigningSecret]) {
    let warning = |message: String, help: &str| section.context.warning(section.offset, message, Some(help.to_owned()));
    match scheme {
        Some(SignatureScheme::None) => {
            let message = format!("`secret` in {} signs nothing, as `signature` is \"none\"", section.title);
            warning(message, "remove one of the two");
        }
        Some(scheme) if scheme.carries_one() && secrets.len() > 1 => {
            let message = format!(
                "only the first `secret` in {} signs: a request of the scheme {} carries one signature",
                section.title,
                scheme.name()
            );
            warning(
                message,
                "let the receiver take the new secret and the old one, put the new one first, then remove the others",
            );
        }
        _ => {}
    }
}
