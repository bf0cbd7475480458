//! A webhook that an operator sends to see whether an endpoint takes it. Nothing of it is recorded.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Endpoint;
use crate::clock::{Clock, Timestamp};
use crate::delivery::{AttemptResult, DeliveryId, Distinct, Outcome};
use crate::event::EventKey;
use crate::settings::show::REDACTED;
use crate::store::{ClaimedDelivery, DeliverySeq};

/// How long a test may take, whatever the endpoint's own timeout allows: an operator waits for it.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(50);

/// What stands in the place of a plugin's name.
const SENDER: &str = "wirehook";

/// What was sent and what came back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TestReport {
    /// The endpoint's name.
    pub endpoint: String,
    /// Whether it took the webhook.
    pub delivered: bool,
    /// `webhook-id`; no delivery has it.
    pub webhook_id: DeliveryId,
    /// Where it went, without the query, which may hold a key.
    pub url: String,
    /// The request's headers; secrets are redacted.
    pub headers: Vec<(String, String)>,
    /// The request's body.
    pub body: String,
    /// The response's status, where one arrived.
    pub status: Option<u16>,
    /// What went wrong, where none did.
    pub error: Option<String>,
    /// The response's `Retry-After`, as a moment.
    pub retry_after: Option<Timestamp>,
    /// The first bytes of the response, as text where UTF-8, else hex after `hex:`.
    pub response: String,
    /// How long the exchange took, in seconds.
    pub duration_s: f64,
}

impl Endpoint {
    /// Sends one signed webhook the way every other goes: same client, same guard, same headers.
    pub async fn test(&self, clock: &dyn Clock) -> TestReport {
        let now = clock.now();
        let delivery = self.test_delivery(now);
        let (url, headers) = self.preview(&delivery, now);
        let attempt = tokio::time::timeout(TEST_TIMEOUT, self.attempt(&delivery, now, clock));
        let outcome = attempt.await.unwrap_or_else(|_| Outcome {
            result: AttemptResult::Transport(format!("no answer within {} s", TEST_TIMEOUT.as_secs())),
            retry_after: None,
            location: None,
            response: Bytes::new(),
            duration: TEST_TIMEOUT,
        });
        let (status, error) = match outcome.result {
            AttemptResult::Status(status) => (Some(status), None),
            AttemptResult::Transport(error) | AttemptResult::EgressDenied(error) | AttemptResult::Deferred(error) => {
                (None, Some(error))
            }
        };
        TestReport {
            endpoint: self.name.to_string(),
            delivered: status.is_some_and(|status| (200..=299).contains(&status)),
            webhook_id: delivery.id,
            url,
            headers,
            body: String::from_utf8_lossy(&delivery.body).into_owned(),
            status,
            error,
            retry_after: outcome.retry_after,
            response: match String::from_utf8(outcome.response.to_vec()) {
                Ok(text) => text,
                Err(_) => format!("hex:{}", hex::encode(&outcome.response)),
            },
            duration_s: outcome.duration.as_secs_f64(),
        }
    }

    /// In the shape that Standard Webhooks gives a payload. No delivery has its id: no event has its key.
    fn test_delivery(&self, now: Timestamp) -> ClaimedDelivery {
        let event_key = EventKey::new(SENDER, "test", now.0);
        let body = json!({
            "type": "wirehook.test",
            "timestamp": now.to_string(),
            "data": { "endpoint": self.name, "message": "a test webhook, sent by `wirehook endpoints test`" },
        });
        ClaimedDelivery {
            seq: DeliverySeq(0),
            id: DeliveryId::derive(&event_key, SENDER, &self.name, Distinct::Index(0), 0),
            event_key,
            plugin: SENDER.into(),
            endpoint: self.name.clone(),
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body: body.to_string().into(),
            due_at: now,
            attempts_made: 0,
            attempts_before_budget: 0,
        }
    }

    /// The request as it is going to be sent.
    fn preview(&self, delivery: &ClaimedDelivery, now: Timestamp) -> (String, Vec<(String, String)>) {
        let Ok(request) = self.template.request(delivery, now) else { return (String::new(), Vec::new()) };
        let uri = request.uri();
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |it| it.as_str()));
        let url = format!("{scheme}://{authority}{}", uri.path());
        let headers = request.headers().iter().map(|(name, value)| {
            let shown = match value.to_str() {
                _ if value.is_sensitive() => REDACTED.to_owned(),
                Ok(text) => text.to_owned(),
                Err(_) => format!("hex:{}", hex::encode(value.as_bytes())),
            };
            (name.to_string(), shown)
        });
        (url, headers.collect())
    }
}
