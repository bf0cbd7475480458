//! What single steps of an event's path cost by themselves, without the rest of the host: the store's three commits, a signature, an
//! attempt.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue};
use wirehook::clock::{Clock, SystemClock, Timestamp};
use wirehook::delivery::{AttemptResult, DeliveryId, Distinct};
use wirehook::endpoint::{Endpoint, Endpoints};
use wirehook::event::EventKey;
use wirehook::receiver;
use wirehook::secret::Secret;
use wirehook::settings::{Environment, SignatureScheme, parse};
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook::store::{Claim, ClaimedDelivery, DeliverySeq};

use super::IN_FLIGHT;
use super::receiver::Receiver;
use crate::fake_endpoint::SECRET;
use crate::store_fill::{Batch, Filling};
use crate::{http_client, signature};

/// Events in one commit: what a loaded host's commits have.
const COMMIT_EVENTS: usize = 64;

/// Signatures that are timed together.
const SIGNATURES: usize = 20_000;

/// What is signed, and what a webhook's body has.
const BODY_BYTES: usize = 512;

/// The cost of one event or one request at each step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Micro {
    /// To accept it with one run.
    pub accept: Duration,
    /// To complete its run with one delivery.
    pub complete: Duration,
    /// To record an attempt.
    pub record: Duration,
    /// To compute and compare a signature, as its receiver does.
    pub signature: Duration,
    /// An attempt over a kept connection, one after the other.
    pub attempt: Duration,
    /// The same request by a plain client.
    pub plain_request: Duration,
    /// Of attempts, [`IN_FLIGHT`] at once.
    pub attempts_at_once: Duration,
    /// Of the plain client's requests, as many at once.
    pub plain_at_once: Duration,
}

impl Micro {
    /// Each step's key, what it is, and what it costs.
    pub fn steps(&self) -> [(&'static str, &'static str, Duration); 8] {
        [
            ("accept", "an event accepted, 64 in a commit", self.accept),
            ("complete", "its run completed, 64 in a commit", self.complete),
            ("record", "its attempt recorded, 64 in a commit", self.record),
            ("signature", "a signature checked", self.signature),
            ("attempt", "an attempt, one after the other", self.attempt),
            ("plain_request", "the same by reqwest", self.plain_request),
            ("attempts_at_once", "an attempt, 64 at once", self.attempts_at_once),
            ("plain_at_once", "the same by reqwest", self.plain_at_once),
        ]
    }
}

/// Measures each step with `count` events or requests.
pub async fn measure(folder: &Path, receiver: &Receiver, count: usize) -> Result<Micro> {
    let [accept, complete, record] = store(folder, count).await?;
    let signature = signature_check()?;
    let sender = Sender::new(&receiver.url())?;
    let mut micro = Micro { accept, complete, record, signature, ..Micro::default() };
    for (attempts, plain, at_once) in [
        (&mut micro.attempt, &mut micro.plain_request, 1),
        (&mut micro.attempts_at_once, &mut micro.plain_at_once, IN_FLIGHT),
    ] {
        *attempts = sender.by_host(receiver, count, at_once).await?;
        *plain = sender.by_plain_client(receiver, count, at_once).await?;
    }
    Ok(micro)
}

/// Per event: accept, complete, record, each commit waiting for the disk.
async fn store(folder: &Path, count: usize) -> Result<[Duration; 3]> {
    let folder = tempfile::tempdir_in(folder)?;
    let store = SqliteStore::open(SqliteOptions::new(folder.path().join("store.db")), SystemClock::shared().now())?;
    let filling = Filling { body_bytes: BODY_BYTES, ..Filling::new("orders", "orders") };
    let mut spent = [Duration::ZERO; 3];
    for first in (0..count).step_by(COMMIT_EVENTS) {
        let batch = Batch::new(&filling, first..count.min(first + COMMIT_EVENTS), Claim::Here);
        let started = Instant::now();
        let accepted = batch.accept(&store).await?;
        spent[0] += started.elapsed();
        let started = Instant::now();
        let completed = batch.complete(&store, &accepted).await?;
        spent[1] += started.elapsed();
        let started = Instant::now();
        batch.record(&store, &completed).await?;
        spent[2] += started.elapsed();
    }
    store.close().await;
    Ok(spent.map(|spent| per(spent, count)))
}

fn signature_check() -> Result<Duration> {
    let (body, now, secret) = (vec![b'-'; BODY_BYTES], Timestamp(1_800_000_000_000), Secret::new(SECRET));
    let time = (now.0 / 1000).to_string();
    let mut headers = HeaderMap::new();
    headers.insert("x-signature", HeaderValue::from_str(&signature::sign(SECRET, &time, &body))?);
    headers.insert("x-timestamp", HeaderValue::from_str(&time)?);
    let secrets = [secret];
    let started = Instant::now();
    for _ in 0..SIGNATURES {
        receiver::verify(&SignatureScheme::Fraiseql, &headers, &body, &secrets, now)?;
    }
    Ok(per(started.elapsed(), SIGNATURES))
}

/// Two ways to send the same webhooks.
struct Sender {
    url: String,
    endpoint: Arc<Endpoint>,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
}

impl Sender {
    fn new(url: &str) -> Result<Self> {
        let settings = format!(
            "[[endpoint]]\nname = \"orders\"\nurl = {url:?}\nsecret = {{ env = \"SECRET\" }}\nconcurrency = {IN_FLIGHT}\n[egress]\nallow = [\"127.0.0.0/8\"]"
        );
        let settings =
            parse(Path::new("wirehook.toml"), &settings, &Environment::of(&[("SECRET", SECRET)], "."))?.settings;
        let endpoints = Endpoints::new(&settings.endpoints, &settings.egress)?;
        let endpoint = endpoints.get("orders").context("the endpoint that was configured")?;
        Ok(Self {
            url: url.to_owned(),
            endpoint: Arc::clone(endpoint),
            client: http_client::new()?,
            clock: SystemClock::shared(),
        })
    }

    async fn by_host(&self, receiver: &Receiver, count: usize, at_once: usize) -> Result<Duration> {
        let deliveries: Vec<_> = (0..count).map(delivery).collect();
        let send = async |delivery: &ClaimedDelivery| {
            let result = self.endpoint.attempt(delivery, self.clock.now(), &*self.clock).await.result;
            ensure!(result == AttemptResult::Status(200), "{result:?}");
            Ok(())
        };
        timed(receiver, deliveries.iter().map(send), count, at_once).await
    }

    async fn by_plain_client(&self, receiver: &Receiver, count: usize, at_once: usize) -> Result<Duration> {
        let deliveries: Vec<_> = (0..count).map(delivery).collect();
        let send = async |delivery: &ClaimedDelivery| {
            let time = (self.clock.now().0 / 1000).to_string();
            let request = self.client.post(&self.url).header("content-type", &delivery.content_type);
            let request = request.header("webhook-id", delivery.id.as_str());
            let request = request.header("x-signature", signature::sign(SECRET, &time, &delivery.body));
            let response = request.header("x-timestamp", time).body(delivery.body.clone()).send().await?;
            ensure!(response.error_for_status()?.bytes().await?.is_empty(), "an answer with a body");
            Ok(())
        };
        timed(receiver, deliveries.iter().map(send), count, at_once).await
    }
}

/// How long each of `count` requests took, `at_once` of them under way.
async fn timed(
    receiver: &Receiver,
    requests: impl Iterator<Item = impl Future<Output = Result<()>>>,
    count: usize,
    at_once: usize,
) -> Result<Duration> {
    receiver.expect(count);
    let started = Instant::now();
    stream::iter(requests).buffer_unordered(at_once).try_collect::<()>().await?;
    Ok(per(started.elapsed(), count))
}

fn delivery(number: usize) -> ClaimedDelivery {
    let event_key = EventKey::new("bench", "position", number);
    ClaimedDelivery {
        seq: DeliverySeq(i64::try_from(number).unwrap_or(i64::MAX)),
        id: DeliveryId::derive(&event_key, "orders", "orders", Distinct::Index(0), 0),
        event_key,
        plugin: "orders".into(),
        endpoint: "orders".into(),
        content_type: "application/json".to_owned(),
        headers: Vec::new(),
        body: Bytes::from(vec![b'-'; BODY_BYTES]),
        due_at: Timestamp(0),
        attempts_made: 0,
        attempts_before_budget: 0,
    }
}

fn per(spent: Duration, count: usize) -> Duration {
    spent / u32::try_from(count).unwrap_or(u32::MAX).max(1)
}
