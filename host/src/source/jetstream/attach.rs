//! From a connection to a consumer that can be pulled from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{self, AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{self, ErrorCode, stream::Stream};

use super::JetstreamSource;
use super::pull::Pull;
use crate::settings::Start;

/// After which the server delivers again what was not acknowledged, in consumers that Wirehook makes.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// Messages that may be delivered and not acknowledged, over all hosts, in consumers that Wirehook makes.
pub const ACK_PENDING_MAX: i64 = 16 * 1024;
/// Between two looks at the consumer, which also remember how far its acks have come.
const WATCH_INTERVAL: Duration = Duration::from_secs(15);

/// How far the acks had come in a stream, as the server last said: where a consumer begins that takes the place of one
/// that was deleted meanwhile. Everything before it is settled; what is delivered again after it is a duplicate.
#[derive(Clone, Debug, Default)]
pub(super) struct Resume(Arc<Mutex<Option<Floor>>>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Floor {
    stream_created: i128,
    sequence: u64,
}

/// A consumer, ready to be pulled from.
pub(super) struct Attached {
    client: Client,
    context: jetstream::Context,
    consumer: Consumer<pull::Config>,
    stream_created: i128,
    /// `{stream}:{created}:`
    position_prefix: String,
}

impl Attached {
    /// Finds the stream and the consumer; creates the consumer where it is missing, the stream never.
    pub(super) async fn to(source: &JetstreamSource, client: &Client, resume: &Resume) -> Result<Self, String> {
        let context = jetstream::new(client.clone());
        let stream = match context.get_stream(&source.stream).await {
            Ok(stream) => stream,
            Err(error) => return Err(describe_stream(&source.stream, &error)),
        };
        let stream_created = stream.cached_info().created.unix_timestamp_nanos();
        let consumer = match stream.consumer_info(&source.durable).await {
            Ok(_) => existing(source, &stream, resume).await?,
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
                created(source, client, &stream, resume).await?
            }
            Err(error) => return Err(format!("can't look up the consumer `{}`: {error}", source.durable)),
        };
        let position_prefix = format!("{}:{stream_created}:", source.stream);
        let attached = Self { client: client.clone(), context, consumer, stream_created, position_prefix };
        resume.note(stream_created, attached.consumer.cached_info());
        Ok(attached)
    }

    /// A delivered message, its position, which tells it from every other of the source, in streams of the same name
    /// too, and its ack.
    pub(super) fn take(&self, message: async_nats::Message) -> (async_nats::Message, Option<String>, Acker) {
        let message = jetstream::Message { message, context: self.context.clone() };
        let position = message.info().ok().map(|info| format!("{}{}", self.position_prefix, info.stream_sequence));
        let (message, acker) = message.split();
        (message, position, acker)
    }

    pub(super) fn ack_wait(&self) -> Duration {
        let ack_wait = self.consumer.cached_info().config.ack_wait;
        if ack_wait.is_zero() { ACK_WAIT } else { ack_wait }
    }

    /// Begins to pull.
    pub(super) async fn pull(&self) -> Result<Pull, String> {
        Pull::new(&self.client, self.consumer.cached_info()).await
    }

    /// Resolves with the reason when the consumer is not the one it was.
    pub(super) fn watch(&self, resume: Resume) -> impl Future<Output = String> + Send + use<> {
        let (consumer, stream_created) = (self.consumer.clone(), self.stream_created);
        async move {
            loop {
                tokio::time::sleep(WATCH_INTERVAL).await;
                match consumer.get_info().await {
                    Ok(info) if info.created != consumer.cached_info().created => {
                        return format!("the consumer `{}` was replaced", info.name);
                    }
                    Ok(info) => resume.note(stream_created, &info),
                    Err(error) => match error.kind() {
                        ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => {
                            return format!("the consumer `{}` was deleted", consumer.cached_info().name);
                        }
                        // A server that is slow or gone shows by its missing heartbeats.
                        _ => {}
                    },
                }
            }
        }
    }

    pub(super) fn describe(&self, error: &str) -> String {
        format!("the consumer `{}` stopped delivering: {error}", self.consumer.cached_info().name)
    }
}

impl Resume {
    /// Notes the floor of `info`. It only rises: a consumer that has acknowledged nothing yet says 0, wherever it began.
    fn note(&self, stream_created: i128, info: &consumer::Info) {
        // With nothing pending, all that was delivered is settled; in a new consumer, all that it leaves out.
        let delivered = if info.num_ack_pending == 0 { info.delivered.stream_sequence } else { 0 };
        let sequence = info.ack_floor.stream_sequence.max(delivered);
        let mut floor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = floor.filter(|floor| floor.stream_created == stream_created).map_or(0, |floor| floor.sequence);
        *floor = Some(Floor { stream_created, sequence: sequence.max(before) });
    }

    /// Where a consumer begins that doesn't exist yet. `start` counts only for the first one: after that nothing may be
    /// left out, and a stream that was made anew is new from its beginning.
    fn policy(&self, start: Start, stream_created: i128) -> Result<DeliverPolicy, String> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(floor) if floor.stream_created == stream_created => {
                Ok(DeliverPolicy::ByStartSequence { start_sequence: floor.sequence + 1 })
            }
            Some(_) => Ok(DeliverPolicy::All),
            None => match start {
                Start::New => Ok(DeliverPolicy::New),
                Start::All => Ok(DeliverPolicy::All),
                Start::At(at) => {
                    let start_time = async_nats::datetime::from_nanos(i128::from(at.0) * 1_000_000)
                        .map_err(|error| format!("`start` {at} is no time that JetStream knows: {error}"))?;
                    Ok(DeliverPolicy::ByStartTime { start_time })
                }
            },
        }
    }
}

async fn existing(
    source: &JetstreamSource,
    stream: &Stream,
    resume: &Resume,
) -> Result<Consumer<pull::Config>, String> {
    let consumer: Consumer<pull::Config> = stream.get_consumer(&source.durable).await.map_err(|error| {
        format!("the consumer `{}` can't be pulled from: {error}; delete it or name another `durable`", source.durable)
    })?;
    let config = &consumer.cached_info().config;
    if config.ack_policy == AckPolicy::All {
        return Err(format!(
            "the consumer `{}` has the ack policy `all`, by which one ack would settle events that are not durable \
             yet; delete it or name another `durable`",
            source.durable
        ));
    }
    let first = resume.0.lock().unwrap_or_else(PoisonError::into_inner).is_none();
    for danger in first.then(|| dangers(config, &source.subjects)).into_iter().flatten() {
        tracing::warn!(source = %source.name, consumer = source.durable, "{danger}");
    }
    Ok(consumer)
}

/// What in an existing consumer's configuration can lose events, in words.
fn dangers(config: &consumer::Config, subjects: &[String]) -> Vec<String> {
    let mut dangers = Vec::new();
    if config.ack_policy == AckPolicy::None {
        dangers.push("the consumer acknowledges by itself (ack policy `none`): a crash loses events".to_owned());
    }
    if config.max_deliver > 0 {
        dangers.push(format!(
            "the consumer gives a message up after {} deliveries: a store that is down for long loses events; set \
             max_deliver to -1",
            config.max_deliver
        ));
    }
    if config.headers_only {
        dangers.push("the consumer delivers headers only: no event can be decoded".to_owned());
    }
    let mut wanted: Vec<_> = subjects.iter().map(String::as_str).filter(|subject| *subject != ">").collect();
    let mut filters: Vec<_> = config.filter_subjects.iter().map(String::as_str).collect();
    filters.extend(Some(config.filter_subject.as_str()).filter(|filter| !filter.is_empty() && *filter != ">"));
    wanted.sort_unstable();
    filters.sort_unstable();
    if wanted != filters {
        dangers.push(format!(
            "the consumer's filter is {filters:?}, but `subjects` says {wanted:?}; the consumer's holds"
        ));
    }
    dangers
}

async fn created(
    source: &JetstreamSource,
    client: &Client,
    stream: &Stream,
    resume: &Resume,
) -> Result<Consumer<pull::Config>, String> {
    if source.subjects.len() > 1 && !client.is_server_compatible(2, 10, 0) {
        return Err(format!(
            "nats-server {} knows one subject for a consumer only; make it one subject, or one source for each",
            client.server_info().version
        ));
    }
    let info = stream.cached_info();
    let deliver_policy = resume.policy(source.start, info.created.unix_timestamp_nanos())?;
    let mut config = pull::Config {
        durable_name: Some(source.durable.clone()),
        description: Some(format!("Wirehook source {}", source.name)),
        deliver_policy,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: ACK_PENDING_MAX,
        ..Default::default()
    };
    match source.subjects.as_slice() {
        [subject] => config.filter_subject.clone_from(subject),
        subjects => config.filter_subjects = subjects.to_vec(),
    }
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| format!("can't create the consumer `{}`: {error}", source.durable))?;
    let skipped = match deliver_policy {
        DeliverPolicy::All => 0,
        _ => info.state.messages.saturating_sub(consumer.cached_info().num_pending),
    };
    tracing::info!(
        source = %source.name, stream = source.stream, consumer = source.durable, ?deliver_policy, skipped,
        "created the consumer; `skipped` are messages of the stream that it leaves out"
    );
    Ok(consumer)
}

fn describe_stream(name: &str, error: &jetstream::context::GetStreamError) -> String {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            format!("the stream `{name}` doesn't exist; Wirehook makes none: `nats stream add {name}`")
        }
        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED => {
            "the server runs without JetStream; start it with `--jetstream`, or use the kind `nats`".to_owned()
        }
        _ => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("can't look up the stream `{name}`: {error}{cause}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_dangerous_consumer_is_told() {
        let sound = consumer::Config { ack_policy: AckPolicy::Explicit, max_deliver: -1, ..Default::default() };
        let check = |config: consumer::Config, subjects: &[&str], expected: &[&str]| {
            let subjects: Vec<_> = subjects.iter().map(ToString::to_string).collect();
            let dangers = dangers(&config, &subjects);
            assert_eq!(dangers.len(), expected.len(), "{dangers:?}");
            assert!(dangers.iter().zip(expected).all(|(danger, word)| danger.contains(word)), "{dangers:?}");
        };
        check(sound.clone(), &[], &[]);
        check(sound.clone(), &[">"], &[]);
        check(consumer::Config { filter_subject: "a.>".into(), ..sound.clone() }, &["a.>"], &[]);
        check(consumer::Config { filter_subjects: vec!["b".into(), "a".into()], ..sound.clone() }, &["a", "b"], &[]);
        check(consumer::Config { filter_subject: "a.>".into(), ..sound.clone() }, &["b.>"], &["filter"]);
        check(consumer::Config { max_deliver: 5, ..sound.clone() }, &[], &["5 deliveries"]);
        check(
            consumer::Config { ack_policy: AckPolicy::None, headers_only: true, ..sound },
            &[],
            &["crash loses", "headers only"],
        );
    }

    #[test]
    fn a_deleted_consumer_is_continued_where_its_acks_were() {
        let check = |floor: Option<Floor>, start: Start, expected: DeliverPolicy| {
            let resume = Resume(Arc::new(Mutex::new(floor)));
            assert_eq!(resume.policy(start, 7).unwrap(), expected);
        };
        let time = async_nats::datetime::from_nanos(1_500_000_000).unwrap();
        check(None, Start::New, DeliverPolicy::New);
        check(None, Start::All, DeliverPolicy::All);
        check(None, Start::At(Timestamp(1500)), DeliverPolicy::ByStartTime { start_time: time });
        let same = Floor { stream_created: 7, sequence: 41 };
        check(Some(same), Start::New, DeliverPolicy::ByStartSequence { start_sequence: 42 });
        check(Some(Floor { stream_created: 6, ..same }), Start::New, DeliverPolicy::All);
    }
}
