//! Requests to JetStream, over a source's own connection.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::IntoConsumerConfig;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode, consumer, stream};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::wire::{RequestError, Wire};

/// How long the server may take to answer; where the user may not ask, it never does.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// JetStream of the server that a connection is to. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::source) struct Api {
    wire: Arc<Wire>,
}

/// Why a request has not come to anything.
#[derive(Debug, thiserror::Error)]
pub(in crate::source) enum ApiError {
    /// The server's own words.
    #[error("{0}")]
    Refused(#[source] jetstream::Error),
    /// No answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An answer that is none.
    #[error("the server's answer can't be read: {0}")]
    Answer(#[source] serde_json::Error),
}

impl ApiError {
    /// Whether this is what the server says.
    pub(in crate::source) fn is(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Refused(error) if error.error_code() == code)
    }
}

/// The streams that keep a subject.
#[derive(Deserialize)]
struct Names {
    /// Absent or null where there is none.
    streams: Option<Vec<String>>,
}

impl Api {
    pub(in crate::source) fn new(wire: &Arc<Wire>) -> Self {
        Self { wire: Arc::clone(wire) }
    }

    /// The connection.
    pub(in crate::source) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub(in crate::source) async fn stream(&self, name: &str) -> Result<stream::Info, ApiError> {
        self.ask(&format!("STREAM.INFO.{name}"), &json!({})).await
    }

    pub(in crate::source) async fn create_stream(&self, config: &stream::Config) -> Result<stream::Info, ApiError> {
        self.ask(&format!("STREAM.CREATE.{}", config.name), config).await
    }

    pub(in crate::source) async fn consumer(&self, stream: &str, name: &str) -> Result<consumer::Info, ApiError> {
        self.ask(&format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await
    }

    /// `name` is what the configuration has as a durable or as a name.
    pub(in crate::source) async fn create_consumer(
        &self,
        stream: &str,
        name: &str,
        config: consumer::pull::Config,
    ) -> Result<consumer::Info, ApiError> {
        let config = config.into_consumer_config();
        // Where there is one filter, the server wants it in the subject, for permissions.
        let filter = Some(&config.filter_subject).filter(|filter| !filter.is_empty());
        let filter = filter.map(|filter| format!(".{filter}")).unwrap_or_default();
        let request = json!({ "stream_name": stream, "config": config });
        self.ask(&format!("CONSUMER.CREATE.{stream}.{name}{filter}"), &request).await
    }

    pub(in crate::source) async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), ApiError> {
        self.ask::<IgnoredAny>(&format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await.map(drop)
    }

    /// A stream that keeps `subject`, where there is one.
    pub(in crate::source) async fn stream_of(&self, subject: &str) -> Result<Option<String>, ApiError> {
        let names: Names = self.ask("STREAM.NAMES", &json!({ "subject": subject })).await?;
        Ok(names.streams.unwrap_or_default().into_iter().next())
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, request: &impl Serialize) -> Result<T, ApiError> {
        // What is asked has text keys only.
        let body = serde_json::to_vec(request).unwrap_or_default();
        let answer = self.wire.request(&format!("$JS.API.{what}"), &body, ANSWER_DEADLINE).await?;
        match serde_json::from_slice(&answer).map_err(ApiError::Answer)? {
            Response::Ok(answer) => Ok(answer),
            Response::Err { error } => Err(ApiError::Refused(error)),
        }
    }
}
