//! A plugin's output is untrusted: here it becomes deliveries, or is refused whole.

use std::collections::HashSet;
use std::sync::Arc;

use http::header::HeaderName;

use crate::dead_letter::Reason;
use crate::delivery::{DeliveryId, Distinct};
use crate::endpoint::{Endpoints, is_reserved};
use crate::event::EventKey;
use crate::plugin::{Plugin, Webhook};
use crate::store::{Claim, DeliveryTerms, NewDelivery};

/// The content type of a webhook that names none.
const CONTENT_TYPE_DEFAULT: &str = "application/json";

/// The longest `key` of a webhook, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Only a replay starts a new generation.
const GENERATION_FIRST: u32 = 0;

/// Why a plugin's output was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// The plugin may not send there.
    #[error("webhook {index} names the endpoint {endpoint:?}, which {plugin} may not use; it may use: {allowed}")]
    Endpoint {
        /// From 0.
        index: usize,
        /// What it named.
        endpoint: String,
        /// The plugin.
        plugin: Arc<str>,
        /// What it may name.
        allowed: String,
    },
    /// The plugin named no endpoint and has no default.
    #[error("webhook {index} names no endpoint and {plugin} has no default one; name `endpoints` in its sidecar")]
    NoEndpoint {
        /// From 0.
        index: usize,
        /// The plugin.
        plugin: Arc<str>,
    },
    /// The header belongs to the host.
    #[error("webhook {index} sets the header `{header}`, which belongs to the host; leave it out")]
    HeaderReserved {
        /// From 0.
        index: usize,
        /// Its name.
        header: String,
    },
    /// Not a header.
    #[error("webhook {index} sets a header that HTTP does not allow: {what}")]
    HeaderInvalid {
        /// From 0.
        index: usize,
        /// Which part, quoted.
        what: String,
    },
    /// Not the value of one.
    #[error(
        "webhook {index} sets the header `{header}` to a value with other characters than visible ASCII, spaces and tabs; encode them, or put them into the body"
    )]
    HeaderValue {
        /// From 0.
        index: usize,
        /// Its name.
        header: String,
    },
    /// The webhook's key is too long or empty.
    #[error("webhook {index} has a key of {bytes} bytes; 1 to {KEY_BYTES_MAX} are allowed")]
    Key {
        /// From 0.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// Two webhooks would be one delivery.
    #[error("webhook {index} has the same endpoint and key as an earlier one; give each its own key")]
    Twice {
        /// From 0.
        index: usize,
    },
}

impl Refused {
    /// The dead letter's reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Endpoint { .. } | Self::NoEndpoint { .. } => Reason::EndpointUnknown,
            Self::HeaderReserved { .. } => Reason::HeaderReserved,
            Self::HeaderInvalid { .. } | Self::HeaderValue { .. } | Self::Key { .. } | Self::Twice { .. } => {
                Reason::PluginOutput
            }
        }
    }
}

/// Turns a plugin's webhooks for one event into deliveries. One invalid webhook refuses all of them.
pub fn deliveries(
    webhooks: &[Webhook],
    plugin: &Plugin,
    event: &EventKey,
    endpoints: &Endpoints,
) -> Result<Vec<NewDelivery>, Refused> {
    let mut seen = HashSet::new();
    let mut deliveries = Vec::with_capacity(webhooks.len());
    for (index, webhook) in webhooks.iter().enumerate() {
        let delivery = delivery(index, webhook, plugin, event, endpoints)?;
        if webhook.key.is_some() && !seen.insert(delivery.id.clone()) {
            return Err(Refused::Twice { index });
        }
        deliveries.push(delivery);
    }
    Ok(deliveries)
}

fn delivery(
    index: usize,
    webhook: &Webhook,
    plugin: &Plugin,
    event: &EventKey,
    endpoints: &Endpoints,
) -> Result<NewDelivery, Refused> {
    let endpoint = endpoint(index, webhook, plugin)?;
    let content_type = webhook.content_type.clone().unwrap_or_else(|| CONTENT_TYPE_DEFAULT.to_owned());
    check_value(index, "content-type", &content_type)?;
    for (name, value) in &webhook.headers {
        check_header(index, name, value)?;
        if endpoints.get(&endpoint).is_some_and(|endpoint| endpoint.reserves(name)) {
            return Err(Refused::HeaderReserved { index, header: name.clone() });
        }
    }
    let distinct = match &webhook.key {
        Some(key) if key.is_empty() || key.len() > KEY_BYTES_MAX => {
            return Err(Refused::Key { index, bytes: key.len() });
        }
        Some(key) => Distinct::Key(key),
        None => Distinct::Index(u32::try_from(index).unwrap_or(u32::MAX)),
    };
    Ok(NewDelivery {
        id: DeliveryId::derive(event, &plugin.name, &endpoint, distinct, GENERATION_FIRST),
        endpoint,
        content_type,
        headers: webhook.headers.clone(),
        body: webhook.body.clone(),
        claim: Claim::Open,
        terms: DeliveryTerms::default(),
    })
}

fn endpoint(index: usize, webhook: &Webhook, plugin: &Plugin) -> Result<Arc<str>, Refused> {
    let allowed = &plugin.manifest.endpoints;
    match &webhook.endpoint {
        Some(named) => allowed.iter().find(|allowed| ***allowed == **named).cloned().ok_or_else(|| Refused::Endpoint {
            index,
            endpoint: named.clone(),
            plugin: Arc::clone(&plugin.name),
            allowed: if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") },
        }),
        None => allowed.first().cloned().ok_or_else(|| Refused::NoEndpoint { index, plugin: Arc::clone(&plugin.name) }),
    }
}

fn check_header(index: usize, name: &str, value: &str) -> Result<(), Refused> {
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(Refused::HeaderInvalid { index, what: format!("the name {name:?}") });
    };
    if is_reserved(parsed.as_str()) {
        return Err(Refused::HeaderReserved { index, header: parsed.to_string() });
    }
    check_value(index, name, value)
}

fn check_value(index: usize, name: &str, value: &str) -> Result<(), Refused> {
    // What lies beyond ASCII is read by every server as it likes.
    let is_allowed = value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if is_allowed { Ok(()) } else { Err(Refused::HeaderValue { index, header: name.to_owned() }) }
}

#[cfg(test)]
mod tests;
