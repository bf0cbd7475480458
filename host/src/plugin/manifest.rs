//! The sidecar: what a plugin asks for (`orders.toml` beside `orders.wasm`), and what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::grant::{Grant, as_toml};
use super::limits::{Limit, Limits, SomeLimits};
use crate::delivery::RetryPolicy;
use crate::settings::PluginCeiling;

/// The largest sidecar, in bytes.
pub(super) const SIDECAR_BYTES_MAX: usize = 64 << 10;
/// Subjects of one plugin.
const SUBJECTS_MAX: usize = 64;
/// Bytes of one subject.
const SUBJECT_BYTES_MAX: usize = 256;
/// Tries a sidecar may ask for.
const ATTEMPTS: RangeInclusive<u32> = 1..=100;
/// Factors a sidecar may ask for.
const MULTIPLIERS: RangeInclusive<f64> = 1.0..=100.0;
/// Waits a sidecar may ask for.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);

/// What a plugin asks for; without a sidecar, the default.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// The subjects it is subscribed to, wildcards as in NATS.
    pub subjects: Vec<String>,
    /// The endpoints it may name, the default first. In a sidecar, none means the one that is configured.
    pub endpoints: Vec<Arc<str>>,
    /// What it may reach besides.
    pub grants: BTreeSet<Grant>,
    /// `[config]`: strings as they are, other values as JSON.
    pub config: BTreeMap<String, String>,
    /// `[limits]`, as far as it is there.
    pub asked: SomeLimits,
    /// The most that it may have of each limit; none until the settings have been asked.
    pub granted: SomeLimits,
    /// The limits in force: of what is asked and granted, the lesser.
    pub limits: Limits,
    /// `[retry]`: when an event is tried again after `failure::retry`.
    pub retry: RetryPolicy,
}

/// What is wrong with a sidecar, or with what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file is wrong.
    #[error("{}:{line}: {message}", file.display())]
    At {
        /// The sidecar.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The file is over [`SIDECAR_BYTES_MAX`].
    #[error("{} is {bytes} bytes; a sidecar may have {SIDECAR_BYTES_MAX} at most", file.display())]
    TooLarge {
        /// The sidecar.
        file: PathBuf,
        /// Its size.
        bytes: usize,
    },
    /// An endpoint that doesn't exist.
    #[error("the sidecar names the endpoint `{endpoint}`, which is not configured; configured: {configured}")]
    EndpointUnknown {
        /// The endpoint.
        endpoint: Arc<str>,
        /// Those that exist.
        configured: String,
    },
    /// An endpoint the operator doesn't grant.
    #[error(
        "the sidecar names the endpoint `{endpoint}`, which its [[plugin]] in the settings does not grant; granted: {granted}"
    )]
    EndpointNotGranted {
        /// The endpoint.
        endpoint: Arc<str>,
        /// Those that are.
        granted: String,
    },
    /// A grant the operator doesn't give.
    #[error(
        "the sidecar asks for the grant `{asked}`, which the settings do not give; if you trust the plugin with it, give its [[plugin]] grants = {wanted}"
    )]
    NotGranted {
        /// The grant.
        asked: Grant,
        /// All that it asks for, as the settings have it.
        wanted: String,
    },
    /// Several endpoints, and nothing says which.
    #[error(
        "the plugin could use several endpoints ({candidates}); name its own in its sidecar, the default first: endpoints = [\"…\"]"
    )]
    EndpointAmbiguous {
        /// Those it could use.
        candidates: String,
    },
    /// No endpoint at all.
    #[error(
        "no endpoint is configured that the plugin could send to; add an [[endpoint]] to the settings, or grant one in its [[plugin]]"
    )]
    NoEndpoint,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            subjects: vec![">".to_owned()],
            endpoints: Vec::new(),
            grants: BTreeSet::new(),
            config: BTreeMap::new(),
            asked: SomeLimits::default(),
            granted: SomeLimits::default(),
            limits: Limits::default(),
            retry: RetryPolicy {
                max_attempts: 5,
                initial_delay: Duration::from_secs(1),
                multiplier: 2.0,
                max_delay: Duration::from_mins(5),
                jitter: 0.1,
                ..RetryPolicy::default()
            },
        }
    }
}

impl Manifest {
    /// Reads the `text` of the sidecar `file`; unknown keys and values out of bounds are refused with their line.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ManifestError> {
        if text.len() > SIDECAR_BYTES_MAX {
            return Err(ManifestError::TooLarge { file: file.to_owned(), bytes: text.len() });
        }
        read(text).map_err(|Wrong { at, message }| ManifestError::At {
            file: file.to_owned(),
            line: 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count(),
            message,
        })
    }

    /// Whether the plugin is subscribed to `subject`.
    pub fn subscribes_to(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| subject_matches(pattern, subject))
    }
}

/// The subjects in a sidecar, whatever else is wrong with it; every subject where they can't be read, for then nobody can tell
/// what the plugin waits for.
pub(super) fn subjects_of(text: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Subjects {
        subjects: Option<Spanned<Vec<Spanned<String>>>>,
    }
    let read = toml::from_str::<Subjects>(text).ok().and_then(|sidecar| read_subjects(sidecar.subjects?).ok());
    read.unwrap_or_else(|| Manifest::default().subjects)
}

/// What a plugin gets: what it asks for, where the operator's `ceiling` allows it and the endpoint is `configured`. A
/// plugin that names no endpoint gets the only one it could use. Of each limit it gets the lesser of what it asks for and
/// what is granted: by the ceiling, else by `default_limits`, else by the limit's own row.
pub fn effective(
    ask: Manifest,
    ceiling: Option<&PluginCeiling>,
    default_limits: &SomeLimits,
    configured: &[Arc<str>],
) -> Result<Manifest, ManifestError> {
    let granted: Vec<Arc<str>> = match ceiling {
        Some(ceiling) if !ceiling.endpoints.is_empty() => {
            ceiling.endpoints.iter().filter(|name| configured.contains(name)).cloned().collect()
        }
        _ => configured.to_vec(),
    };
    for endpoint in &ask.endpoints {
        if !configured.contains(endpoint) {
            return Err(ManifestError::EndpointUnknown { endpoint: endpoint.clone(), configured: listed(configured) });
        }
        if !granted.contains(endpoint) {
            return Err(ManifestError::EndpointNotGranted { endpoint: endpoint.clone(), granted: listed(&granted) });
        }
    }
    let given = |grant: &Grant| ceiling.is_some_and(|ceiling| ceiling.grants.contains(grant));
    if let Some(asked) = ask.grants.iter().find(|grant| !given(grant)) {
        return Err(ManifestError::NotGranted { asked: *asked, wanted: as_toml(&ask.grants) });
    }
    let endpoints = match (ask.endpoints.is_empty(), granted.len()) {
        (false, _) => ask.endpoints,
        (true, 0) => return Err(ManifestError::NoEndpoint),
        (true, 1) => granted,
        (true, _) => return Err(ManifestError::EndpointAmbiguous { candidates: listed(&granted) }),
    };
    let granted = ceiling.map_or(*default_limits, |ceiling| ceiling.limits.or(default_limits));
    Ok(Manifest { endpoints, granted, limits: Limits::lesser(&ask.asked, &granted), ..ask })
}

/// Whether `subject` is one of those `pattern` stands for: `*` is one token, a last `>` is one or more.
pub fn subject_matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// What is wrong, and at which byte.
struct Wrong {
    at: usize,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sidecar {
    subjects: Option<Spanned<Vec<Spanned<String>>>>,
    endpoints: Vec<Spanned<String>>,
    grants: Vec<Spanned<String>>,
    config: toml::Table,
    limits: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    retry: RetryTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetryTable {
    max_attempts: Option<Spanned<u32>>,
    initial_delay: Option<Spanned<String>>,
    multiplier: Option<Spanned<f64>>,
    max_delay: Option<Spanned<String>>,
}

fn read(text: &str) -> Result<Manifest, Wrong> {
    let sidecar: Sidecar = toml::from_str(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        // One line: the parser's own text repeats the source below it.
        message: error.message().lines().collect::<Vec<_>>().join("; "),
    })?;
    let default = Manifest::default();
    let asked = read_limits(&sidecar.limits)?;
    Ok(Manifest {
        subjects: sidecar.subjects.map_or(Ok(default.subjects), read_subjects)?,
        endpoints: read_endpoints(sidecar.endpoints)?,
        grants: read_grants(&sidecar.grants)?,
        config: sidecar.config.into_iter().map(|(name, value)| (name, config_text(value))).collect(),
        asked,
        granted: default.granted,
        // Without settings, as when it is tried, it gets what it asks for.
        limits: Limits::lesser(&asked, &asked),
        retry: read_retry(sidecar.retry, default.retry)?,
    })
}

fn read_subjects(subjects: Spanned<Vec<Spanned<String>>>) -> Result<Vec<String>, Wrong> {
    let count = subjects.get_ref().len();
    if !(1..=SUBJECTS_MAX).contains(&count) {
        return Err(wrong(
            &subjects,
            format!("{count} subjects; name 1 to {SUBJECTS_MAX}, or leave the key out for every subject"),
        ));
    }
    let check = |subject: Spanned<String>| match subject_fault(subject.get_ref()) {
        Some(fault) => Err(wrong(&subject, format!("the subject `{}` {fault}", subject.get_ref()))),
        None => Ok(subject.into_inner()),
    };
    subjects.into_inner().into_iter().map(check).collect()
}

fn subject_fault(subject: &str) -> Option<&'static str> {
    let tokens: Vec<&str> = subject.split('.').collect();
    if subject.len() > SUBJECT_BYTES_MAX {
        Some("is too long: 256 bytes are the most")
    } else if tokens.iter().any(|token| token.is_empty()) {
        Some("has an empty token: put something between, before and after the dots")
    } else if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some("has a space or control character in it")
    } else if tokens.iter().any(|token| token.contains('*') && *token != "*") {
        Some("has a `*` within a token: it can only stand for a whole one")
    } else if tokens.iter().any(|token| token.contains('>') && *token != ">")
        || tokens.iter().rev().skip(1).any(|token| *token == ">")
    {
        Some("has a `>` that is not the whole last token")
    } else {
        None
    }
}

fn read_endpoints(endpoints: Vec<Spanned<String>>) -> Result<Vec<Arc<str>>, Wrong> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = endpoints.iter().find(|endpoint| !seen.insert(endpoint.get_ref().as_str())) {
        return Err(wrong(twice, format!("the endpoint `{}` is named twice", twice.get_ref())));
    }
    Ok(endpoints.into_iter().map(|endpoint| endpoint.into_inner().into()).collect())
}

fn read_grants(grants: &[Spanned<String>]) -> Result<BTreeSet<Grant>, Wrong> {
    let read = |grant: &Spanned<String>| {
        let unknown = || wrong(grant, format!("unknown grant `{}`; known: {}", grant.get_ref(), Grant::known()));
        Grant::parse(grant.get_ref()).ok_or_else(unknown)
    };
    grants.iter().map(read).collect()
}

fn read_limits(table: &BTreeMap<Spanned<String>, Spanned<toml::Value>>) -> Result<SomeLimits, Wrong> {
    let mut limits = SomeLimits::default();
    for (name, value) in table {
        let Some(row) = Limit::parse(name.get_ref()) else {
            let message = format!("unknown key `{}` in [limits]; known: {}", name.get_ref(), Limit::known());
            return Err(wrong(name, message));
        };
        let read = match value.get_ref() {
            toml::Value::String(text) => row.read_text(text),
            toml::Value::Integer(number) => row.read_integer(*number),
            other => Err(format!("is neither a string nor an integer, but of type {}", other.type_str())),
        };
        let message = |fault: String| wrong(value, format!("{} = {} {fault}", row.name, value.get_ref()));
        limits.set(row.limit, read.map_err(message)?);
    }
    Ok(limits)
}

fn read_retry(table: RetryTable, mut retry: RetryPolicy) -> Result<RetryPolicy, Wrong> {
    if let Some(attempts) = table.max_attempts {
        if !ATTEMPTS.contains(attempts.get_ref()) {
            let (least, most) = (ATTEMPTS.start(), ATTEMPTS.end());
            return Err(wrong(
                &attempts,
                format!("max_attempts = {} is not between {least} and {most}", attempts.get_ref()),
            ));
        }
        retry.max_attempts = attempts.into_inner();
    }
    if let Some(multiplier) = table.multiplier {
        if !MULTIPLIERS.contains(multiplier.get_ref()) {
            let (least, most) = (MULTIPLIERS.start(), MULTIPLIERS.end());
            return Err(wrong(
                &multiplier,
                format!("multiplier = {} is not between {least} and {most}", multiplier.get_ref()),
            ));
        }
        retry.multiplier = multiplier.into_inner();
    }
    if let Some(delay) = &table.initial_delay {
        retry.initial_delay = read_duration("initial_delay", delay, &DELAYS)?;
    }
    if let Some(delay) = &table.max_delay {
        retry.max_delay = read_duration("max_delay", delay, &DELAYS)?;
    }
    if let Some(delay) =
        table.max_delay.as_ref().or(table.initial_delay.as_ref()).filter(|_| retry.max_delay < retry.initial_delay)
    {
        return Err(wrong(delay, "max_delay is shorter than initial_delay".to_owned()));
    }
    Ok(retry)
}

fn read_duration(name: &str, text: &Spanned<String>, bounds: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let duration = humantime::parse_duration(text.get_ref()).ok().filter(|duration| bounds.contains(duration));
    duration.ok_or_else(|| {
        let (least, most) = (humantime::format_duration(*bounds.start()), humantime::format_duration(*bounds.end()));
        wrong(text, format!("{name} = \"{}\" is not between \"{least}\" and \"{most}\"", text.get_ref()))
    })
}

fn config_text(value: toml::Value) -> String {
    fn json(value: toml::Value) -> serde_json::Value {
        match value {
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Float(number) => number.into(),
            toml::Value::Boolean(truth) => truth.into(),
            // JSON has no dates; their text is what every language reads.
            toml::Value::Datetime(date) => date.to_string().into(),
            toml::Value::Array(values) => values.into_iter().map(json).collect(),
            toml::Value::Table(values) => values.into_iter().map(|(name, value)| (name, json(value))).collect(),
        }
    }
    match json(value) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

fn wrong<T>(at: &Spanned<T>, message: String) -> Wrong {
    Wrong { at: at.span().start, message }
}

fn listed(names: &[Arc<str>]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests;
