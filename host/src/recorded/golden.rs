//! What a plugin made of an event, as a golden file has it: a text that people read and review.

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{JsonError, fits, indented};
use crate::dead_letter::Reason;
use crate::outbox::webhook::Refused;
use crate::plugin::{CallFailure, Webhook};

/// The file itself, its webhooks and the webhook.
const LEVELS_AROUND_A_BODY: usize = 3;

/// How a run would end that had no further try.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With webhooks.
    Produced,
    /// With none: the event is not for the plugin.
    Filtered,
    /// The sidecar's subjects do not have it: the plugin was not called.
    Unsubscribed,
    /// `failure.retry`.
    Retry,
    /// A dead letter.
    Dead,
}

impl Outcome {
    /// Its name in golden files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Produced => "produced",
            Self::Filtered => "filtered",
            Self::Unsubscribed => "unsubscribed",
            Self::Retry => "retry",
            Self::Dead => "dead",
        }
    }
}

/// What came of one event.
#[derive(Debug, Serialize)]
pub struct Golden {
    /// How it ended.
    pub outcome: Outcome,
    /// Why it is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What the plugin or the host said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What would be delivered, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<GoldenWebhook>,
}

/// A webhook as the plugin returned it.
#[derive(Debug, Serialize)]
pub struct GoldenWebhook {
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
    #[serde(flatten)]
    body: Body,
}

/// A body so that it can be read.
#[derive(Debug, Serialize)]
enum Body {
    /// JSON, its digits as they are.
    #[serde(rename = "body")]
    Json(Box<RawValue>),
    /// Other UTF-8.
    #[serde(rename = "body_text")]
    Text(String),
    /// Other bytes.
    #[serde(rename = "body_hex")]
    Hex(String),
}

impl Golden {
    /// Of an event that the plugin would not be given.
    pub fn unsubscribed() -> Self {
        Self { outcome: Outcome::Unsubscribed, reason: None, detail: None, webhooks: Vec::new() }
    }

    /// Of a call, and of what the host says to its webhooks.
    pub fn of(called: Result<Vec<Webhook>, CallFailure>, refused: Option<&Refused>) -> Self {
        let ended = |outcome, reason: Option<Reason>, detail| Self {
            outcome,
            reason: reason.map(Reason::as_str),
            detail: Some(detail),
            webhooks: Vec::new(),
        };
        if let Some(refused) = refused {
            return ended(Outcome::Dead, Some(refused.reason()), refused.to_string());
        }
        let dead = |reason, detail| ended(Outcome::Dead, Some(reason), detail);
        match called {
            Ok(webhooks) => Self {
                outcome: if webhooks.is_empty() { Outcome::Filtered } else { Outcome::Produced },
                reason: None,
                detail: None,
                webhooks: webhooks.into_iter().map(GoldenWebhook::from).collect(),
            },
            Err(CallFailure::Retry(why) | CallFailure::Host(why)) => ended(Outcome::Retry, None, why),
            Err(CallFailure::Reject(why)) => dead(Reason::PluginRejected, why),
            Err(CallFailure::Trap(why)) => dead(Reason::PluginTrap, why),
            // How many milliseconds it was differs from run to run.
            Err(CallFailure::Deadline(_)) => dead(Reason::PluginDeadline, "ran past its deadline".to_owned()),
            Err(CallFailure::Memory(why)) => dead(Reason::PluginMemory, why),
            Err(CallFailure::Output(why)) => dead(Reason::PluginOutput, why),
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// It can't be written as JSON, which no result is known for.
    pub fn text(&self) -> Result<String, JsonError> {
        Ok(indented(&serde_json::to_string(self)?)? + "\n")
    }
}

impl From<Webhook> for GoldenWebhook {
    fn from(webhook: Webhook) -> Self {
        let text = std::str::from_utf8(&webhook.body);
        let body = match text.map(|text| (text, serde_json::from_str::<Box<RawValue>>(text))) {
            Ok((text, Ok(json))) if fits(text, LEVELS_AROUND_A_BODY) => Body::Json(json),
            // Among it JSON that is nested too deeply to be indented.
            Ok((text, _)) => Body::Text(text.to_owned()),
            Err(_) => Body::Hex(hex::encode(&webhook.body)),
        };
        Self {
            endpoint: webhook.endpoint,
            key: webhook.key,
            content_type: webhook.content_type,
            headers: webhook.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
            body,
        }
    }
}
