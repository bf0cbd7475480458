//! From a connection to a consumer that can be pulled from.

use std::time::Duration;

use async_nats::jetstream::{ErrorCode, consumer, stream};

use super::JetstreamSource;
use super::acks::Address;
use super::consumer::{ACK_WAIT, Found, created, deafness, existing};
use super::pull::Pull;
use super::resume::{Restores, Resume};
use super::stream::found_or_created;
use crate::event::Message;
use crate::event::subject::SubjectPattern;
use crate::source::nats::api::Api;

/// Between two looks at the consumer, which also remember how far its acks have come.
const WATCH_INTERVAL: Duration = Duration::from_secs(15);

/// A consumer, ready to be pulled from.
pub(super) struct Attached {
    api: Api,
    consumer: consumer::Info,
    /// What of it is wanted, where it is not all.
    wanted: Option<Vec<SubjectPattern>>,
    stream_created: i128,
    /// `{stream}:{created}:`
    position_prefix: String,
    /// What tells apart messages that had one sequence.
    restores: Restores,
    lacking: Option<String>,
    /// Whether nothing can come of the stream as it is.
    is_deaf: bool,
}

impl Attached {
    /// Finds the stream and the consumer; creates the consumer where it is missing, the stream only where `source` says
    /// so. `is_first` where this process has not had the consumer before.
    pub(super) async fn to(
        source: &JetstreamSource,
        stream_name: &str,
        api: &Api,
        resume: &Resume,
        is_first: bool,
    ) -> Result<(Self, Pull), String> {
        let stream = found_or_created(source, api, stream_name).await?;
        let stream_created = stream.created.unix_timestamp_nanos();
        let last_sequence = stream.state.last_sequence;
        if let Some(floor) = resume.check(stream_created, last_sequence) {
            tracing::warn!(
                source = %source.name, stream = stream_name, floor, last_sequence,
                "the stream ends before what was accepted of it: it was restored from a backup; where its consumer is gone, \
                 everything in it is read, and what was accepted before is a duplicate"
            );
        }
        let Found { consumer, wanted, lacking } = match api.consumer(stream_name, &source.durable).await {
            Ok(info) => {
                check_place(source, api, &stream, &info).await?;
                existing(source, api, &stream, info, is_first)?
            }
            Err(error) if error.is(ErrorCode::CONSUMER_NOT_FOUND) => created(source, api, &stream, resume).await?,
            Err(error) => {
                return Err(format!(
                    "can't look up the consumer `{}` of the stream `{stream_name}`: {error}",
                    source.durable
                ));
            }
        };
        let deafness = deafness(&consumer, &stream.config);
        let is_deaf = deafness.is_some();
        let lacking = deafness.or(lacking);
        resume.note(stream_created, &consumer);
        let pull = Pull::new(api.wire(), &consumer, source.streams.len()).await?;
        let position_prefix = format!("{stream_name}:{stream_created}:");
        let restores = resume.restores(stream_created);
        Ok((
            Self { api: api.clone(), consumer, wanted, stream_created, position_prefix, restores, lacking, is_deaf },
            pull,
        ))
    }

    /// The position of a message whose ack goes to `reply`: it tells it from every other of the source, in streams of the
    /// same name too.
    pub(super) fn position(&self, reply: &[u8]) -> Option<String> {
        let sequence = Address::read(reply)?.sequence;
        Some(match self.restores.reuses(sequence) {
            0 => format!("{}{sequence}", self.position_prefix),
            reuses => format!("{}{sequence}:{reuses}", self.position_prefix),
        })
    }

    /// A message of which something can't be read, in words.
    pub(super) fn odd(&self, message: &Message, reply: &[u8]) -> String {
        let stream = &self.consumer.stream_name;
        let place = match Address::read(reply) {
            Some(Address { sequence, .. }) => format!("message {sequence}"),
            None => "a message".to_owned(),
        };
        let subject = &message.subject;
        format!("{place} of the stream `{stream}`, subject `{subject}`, has a subject or headers that can't be read")
    }

    /// What of the settings the consumer leaves out, in words.
    pub(super) fn lacking(&self) -> Option<&str> {
        self.lacking.as_deref()
    }

    /// Whether a message is of a subject that the settings name.
    pub(super) fn wants(&self, subject: &str) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|pattern| pattern.matches(subject)))
    }

    /// After which the server delivers again what was not acknowledged.
    pub(super) fn ack_wait(&self) -> Duration {
        let ack_wait = self.consumer.config.ack_wait;
        if ack_wait.is_zero() { ACK_WAIT } else { ack_wait }
    }

    /// Looks at the consumer after [`WATCH_INTERVAL`] and notes its floor. An error, in words, when the consumer is not
    /// the one it was.
    pub(super) fn watch(&self, resume: &Resume) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (api, consumer) = (self.api.clone(), self.consumer.clone());
        let (stream_created, resume, is_deaf) = (self.stream_created, resume.clone(), self.is_deaf);
        async move {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let consumer::Info { stream_name, name, created, .. } = &consumer;
            // Other subjects, which the stream may come to have, are looked for anew.
            if is_deaf
                && let Ok(stream) = api.stream(stream_name).await
                && deafness(&consumer, &stream.config).is_none()
            {
                return Err(format!("the stream `{stream_name}` has other subjects now"));
            }
            match api.consumer(stream_name, name).await {
                Ok(info) if info.created != *created => {
                    Err(format!("the consumer `{name}` of the stream `{stream_name}` was replaced"))
                }
                Ok(info) => {
                    resume.note(stream_created, &info);
                    Ok(())
                }
                Err(error) if error.is(ErrorCode::CONSUMER_NOT_FOUND) || error.is(ErrorCode::STREAM_NOT_FOUND) => {
                    Err(format!("the consumer `{name}` of the stream `{stream_name}` was deleted"))
                }
                // A server that is slow or gone shows by its missing heartbeats.
                Err(_) => Ok(()),
            }
        }
    }

    /// Deletes the consumer.
    ///
    /// # Errors
    ///
    /// In words.
    pub(super) async fn delete(&self) -> Result<(), String> {
        let consumer::Info { stream_name, name, .. } = &self.consumer;
        self.api.delete_consumer(stream_name, name).await.map_err(|error| {
            format!("can't delete the consumer `{name}` of the stream `{stream_name}`, the server will: {error}")
        })
    }

    pub(super) fn describe(&self, error: &str) -> String {
        let consumer::Info { stream_name, name, .. } = &self.consumer;
        format!("the consumer `{name}` of the stream `{stream_name}` stopped delivering: {error}")
    }
}

/// Looks whether the consumer stands behind the end of its stream: the server would never deliver what comes until there.
async fn check_place(
    source: &JetstreamSource,
    api: &Api,
    stream: &stream::Info,
    info: &consumer::Info,
) -> Result<(), String> {
    let place = info.delivered.stream_sequence;
    if place <= stream.state.last_sequence {
        return Ok(());
    }
    // Messages may have come since the stream was looked up.
    let now = api.stream(&stream.config.name).await.map_err(|error| format!("can't look up the stream: {error}"))?;
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
