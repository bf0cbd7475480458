//! What arrived.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use hyper::http::request::Parts;
use sha2::Sha256;

/// How far a timestamp may be from now, in seconds, either way: the page's five minutes.
const TOLERANCE_SECONDS: u64 = 300;

/// One request, whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// When its head was there.
    pub arrived_at: Instant,
    /// The same by the wall clock, in whole seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// The method.
    pub method: String,
    /// The path and query.
    pub path: String,
    /// Every header in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: Bytes,
    /// The number of its connection, from 1.
    pub connection: usize,
    /// Whether the page's scheme accepts its signature, and if not, why.
    pub verdict: Result<(), String>,
}

impl Received {
    pub(super) fn new(head: &Parts, body: Bytes, connection: usize, arrived_at: Instant, secret: &str) -> Self {
        let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut received = Self {
            arrived_at,
            unix_seconds: unix_seconds(),
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: head.headers.iter().map(header).collect(),
            body,
            connection,
            verdict: Ok(()),
        };
        received.verdict = verify(&received, secret);
        received
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `webhook-id`; empty where there is none.
    pub fn webhook_id(&self) -> &str {
        self.header("webhook-id").unwrap_or_default()
    }
}

/// Every request, in order of arrival and by its id.
#[derive(Debug, Default)]
pub struct RequestLog {
    requests: Vec<Received>,
    by_id: HashMap<String, Vec<usize>>,
}

impl RequestLog {
    /// Every request, in order of arrival.
    pub fn all(&self) -> &[Received] {
        &self.requests
    }

    /// How many different webhook ids arrived.
    pub fn ids(&self) -> usize {
        self.by_id.len()
    }

    /// The requests with this webhook id, in order of arrival.
    pub fn of(&self, webhook_id: &str) -> Vec<&Received> {
        let positions = self.by_id.get(webhook_id).map_or(&[][..], Vec::as_slice);
        positions.iter().map(|&position| &self.requests[position]).collect()
    }

    /// Keeps a request; returns how many with its id there are now.
    pub(super) fn push(&mut self, request: Received) -> usize {
        let positions = self.by_id.entry(request.webhook_id().to_owned()).or_default();
        positions.push(self.requests.len());
        let number = positions.len();
        self.requests.push(request);
        number
    }
}

/// The page's `verify_webhook`, with the reason of a refusal.
fn verify(request: &Received, secret: &str) -> Result<(), String> {
    let timestamp = request.header("x-timestamp").ok_or("no X-Timestamp")?;
    let seconds: u64 = timestamp.parse().map_err(|_| format!("X-Timestamp {timestamp:?} is not a whole number"))?;
    let now = request.unix_seconds;
    if now.abs_diff(seconds) > TOLERANCE_SECONDS {
        return Err(format!("X-Timestamp {seconds} is over {TOLERANCE_SECONDS} s from {now}"));
    }
    let signature = request.header("x-signature").ok_or("no X-Signature")?;
    if signature == signature_of(secret, timestamp, &request.body) {
        Ok(())
    } else {
        Err(format!("X-Signature {signature} is not this body's"))
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `sha256=` and the hex HMAC-SHA256 of `{timestamp}.{body}`.
pub(crate) fn signature_of(secret: &str, timestamp: &str, body: &[u8]) -> String {
    // HMAC takes a key of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}
