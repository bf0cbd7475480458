//! A source's stream: found, or created where the settings say so; never altered.

use async_nats::jetstream::context::{GetStreamErrorKind, RequestError, RequestErrorKind};
use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{self, ErrorCode};

use super::JetstreamSource;

/// Finds the stream.
///
/// # Errors
///
/// In words: it is missing, or the server can't say.
pub(super) async fn found_or_created(
    source: &JetstreamSource,
    context: &jetstream::Context,
    name: &str,
) -> Result<Stream, String> {
    let error = match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    if let GetStreamErrorKind::JetStream(error) = error.kind() {
        return match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND if source.create_stream => created(source, context, name).await,
            ErrorCode::STREAM_NOT_FOUND => Err(format!(
                "the stream `{name}` doesn't exist; the server says: {error}; set `create_stream = true`, or create it: \
                 `nats stream add {name}`"
            )),
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Err(format!(
                "this user's account has no JetStream; the server says: {error}; enable it, or use the kind `nats`"
            )),
            _ => Err(format!("can't look up the stream `{name}`; the server says: {error}")),
        };
    }
    match std::error::Error::source(&error) {
        Some(cause) if cause.downcast_ref().is_some_and(nobody_answers) => {
            Err("the server runs without JetStream; start it with `--jetstream`, or use the kind `nats`".to_owned())
        }
        Some(cause) => Err(format!("can't look up the stream `{name}`: {cause}")),
        None => Err(format!("can't look up the stream `{name}`: {error}")),
    }
}

fn nobody_answers(error: &RequestError) -> bool {
    error.kind() == RequestErrorKind::NoResponders
}

/// Creates a stream kept in files, without limits but the server's own: whoever wants others edits it, and the next
/// start takes it as it is.
async fn created(source: &JetstreamSource, context: &jetstream::Context, name: &str) -> Result<Stream, String> {
    let config = stream::Config {
        name: name.to_owned(),
        description: Some(format!("created by Wirehook for its source {}", source.name)),
        subjects: source.subjects.clone(),
        ..Default::default()
    };
    let stream = context.create_stream(config).await.map_err(|error| {
        format!("can't create the stream `{name}` with the subjects {:?}: {error}", source.subjects)
    })?;
    tracing::info!(
        source = %source.name, stream = name, subjects = ?source.subjects,
        "created the stream, since it was missing and `create_stream` is set; it keeps everything, `nats stream edit` \
         limits it"
    );
    Ok(stream)
}
