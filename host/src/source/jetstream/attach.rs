//! From a connection to a consumer that can be pulled from.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{self, Consumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::message::Acker;
use async_nats::jetstream::stream::Stream;

use super::JetstreamSource;
use super::consumer::{ACK_WAIT, Found, created, existing};
use super::pull::Pull;
use super::resume::{Restores, Resume};
use super::stream::found_or_created;
use crate::event::subject::SubjectPattern;

/// Between two looks at the consumer, which also remember how far its acks have come.
const WATCH_INTERVAL: Duration = Duration::from_secs(15);

/// A consumer, ready to be pulled from.
pub(super) struct Attached {
    context: jetstream::Context,
    consumer: Consumer<pull::Config>,
    /// What of it is wanted, where it is not all.
    wanted: Option<Vec<SubjectPattern>>,
    stream_created: i128,
    /// `{stream}:{created}:`
    position_prefix: String,
    /// What tells apart messages that had one sequence.
    restores: Restores,
    lacking: Option<String>,
}

impl Attached {
    /// Finds the stream and the consumer; creates the consumer where it is missing, the stream only where `source` says
    /// so. `is_first` where this process has not had the consumer before.
    pub(super) async fn to(
        source: &JetstreamSource,
        stream_name: &str,
        client: &Client,
        resume: &Resume,
        is_first: bool,
    ) -> Result<(Self, Pull), String> {
        let context = jetstream::new(client.clone());
        let stream = found_or_created(source, &context, stream_name).await?;
        let stream_created = stream.cached_info().created.unix_timestamp_nanos();
        let last_sequence = stream.cached_info().state.last_sequence;
        if let Some(floor) = resume.check(stream_created, last_sequence) {
            tracing::warn!(
                source = %source.name, stream = stream_name, floor, last_sequence,
                "the stream ends before what was accepted of it: it was restored from a backup; where its consumer is gone, \
                 everything in it is read, and what was accepted before is a duplicate"
            );
        }
        let Found { consumer, wanted, lacking } = match stream.consumer_info(&source.durable).await {
            Ok(info) => {
                check_place(source, &stream, &info).await?;
                existing(source, client, &stream, is_first).await?
            }
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
                created(source, client, &stream, resume).await?
            }
            Err(error) => {
                return Err(format!(
                    "can't look up the consumer `{}` of the stream `{stream_name}`: {error}",
                    source.durable
                ));
            }
        };
        resume.note(stream_created, consumer.cached_info());
        let pull = Pull::new(client, consumer.cached_info(), source.streams.len()).await?;
        let position_prefix = format!("{stream_name}:{stream_created}:");
        let restores = resume.restores(stream_created);
        Ok((Self { context, consumer, wanted, stream_created, position_prefix, restores, lacking }, pull))
    }

    /// A delivered message, its position, which tells it from every other of the source, in streams of the same name
    /// too, and its ack.
    pub(super) fn take(&self, message: async_nats::Message) -> (async_nats::Message, Option<String>, Acker) {
        let message = jetstream::Message { message, context: self.context.clone() };
        let position = message.info().ok().map(|info| self.position(info.stream_sequence));
        let (message, acker) = message.split();
        (message, position, acker)
    }

    /// What of the settings the consumer leaves out, in words.
    pub(super) fn lacking(&self) -> Option<&str> {
        self.lacking.as_deref()
    }

    fn position(&self, sequence: u64) -> String {
        match self.restores.reuses(sequence) {
            0 => format!("{}{sequence}", self.position_prefix),
            reuses => format!("{}{sequence}:{reuses}", self.position_prefix),
        }
    }

    /// Whether a message is of a subject that the settings name.
    pub(super) fn wants(&self, message: &async_nats::Message) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|pattern| pattern.matches(&message.subject)))
    }

    /// After which the server delivers again what was not acknowledged.
    pub(super) fn ack_wait(&self) -> Duration {
        let ack_wait = self.consumer.cached_info().config.ack_wait;
        if ack_wait.is_zero() { ACK_WAIT } else { ack_wait }
    }

    /// Looks at the consumer after [`WATCH_INTERVAL`] and notes its floor. An error, in words, when the consumer is not
    /// the one it was.
    pub(super) fn watch(&self, resume: &Resume) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (consumer, stream_created, resume) = (self.consumer.clone(), self.stream_created, resume.clone());
        async move {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let consumer::Info { stream_name, name, created, .. } = consumer.cached_info();
            match consumer.get_info().await {
                Ok(info) if info.created != *created => {
                    Err(format!("the consumer `{name}` of the stream `{stream_name}` was replaced"))
                }
                Ok(info) => {
                    resume.note(stream_created, &info);
                    Ok(())
                }
                Err(error) => match error.kind() {
                    ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => {
                        Err(format!("the consumer `{name}` of the stream `{stream_name}` was deleted"))
                    }
                    // A server that is slow or gone shows by its missing heartbeats.
                    _ => Ok(()),
                },
            }
        }
    }

    /// Deletes the consumer.
    ///
    /// # Errors
    ///
    /// In words.
    pub(super) async fn delete(&self) -> Result<(), String> {
        let consumer::Info { stream_name, name, .. } = self.consumer.cached_info();
        let deleted = self.context.delete_consumer_from_stream(name, stream_name).await;
        deleted.map(drop).map_err(|error| {
            format!("can't delete the consumer `{name}` of the stream `{stream_name}`, the server will: {error}")
        })
    }

    pub(super) fn describe(&self, error: &str) -> String {
        let consumer::Info { stream_name, name, .. } = self.consumer.cached_info();
        format!("the consumer `{name}` of the stream `{stream_name}` stopped delivering: {error}")
    }
}

/// Looks whether the consumer stands behind the end of its stream: the server would never deliver what comes until there.
async fn check_place(source: &JetstreamSource, stream: &Stream, info: &consumer::Info) -> Result<(), String> {
    let place = info.delivered.stream_sequence;
    if place <= stream.cached_info().state.last_sequence {
        return Ok(());
    }
    // Messages may have come since the stream was looked up.
    let now = stream.get_info().await.map_err(|error| format!("can't look up the stream: {error}"))?;
    let (name, last) = (&now.config.name, now.state.last_sequence);
    if place <= last {
        return Ok(());
    }
    Err(format!(
        "the consumer `{durable}` stands at message {place} of the stream `{name}`, which ends at {last}: the stream was \
         restored from a backup, and the server would leave out what comes until there; delete the consumer, and all that \
         the stream has is read: `nats consumer rm {name} {durable}`",
        durable = source.durable
    ))
}
