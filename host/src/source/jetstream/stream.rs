//! A source's stream: found, or created where the settings say so; never altered.

use async_nats::jetstream::{ErrorCode, stream};

use super::JetstreamSource;
use crate::source::nats::api::{Api, ApiError};
use crate::source::nats::wire::RequestError;

/// Finds the stream.
///
/// # Errors
///
/// In words: it is missing, or the server can't say.
pub(super) async fn found_or_created(source: &JetstreamSource, api: &Api, name: &str) -> Result<stream::Info, String> {
    match api.stream(name).await {
        Ok(stream) => Ok(stream),
        Err(error) if error.is(ErrorCode::STREAM_NOT_FOUND) => match source.create_stream {
            true => created(source, api, name).await,
            false => Err(format!(
                "the stream `{name}` doesn't exist; the server says: {error}; set `create_stream = true`, or create it: \
                 `nats stream add {name}`"
            )),
        },
        Err(error) if error.is(ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT) => Err(format!(
            "this user's account has no JetStream; the server says: {error}; enable it, or use the kind `nats`"
        )),
        Err(error @ ApiError::Refused(_)) => {
            Err(format!("can't look up the stream `{name}`; the server says: {error}"))
        }
        Err(ApiError::Request(RequestError::NoResponders)) => {
            Err("the server runs without JetStream; start it with `--jetstream`, or use the kind `nats`".to_owned())
        }
        Err(error) => Err(format!("can't look up the stream `{name}`: {error}")),
    }
}

/// Creates a stream kept in files, without limits but the server's own: whoever wants others edits it, and the next
/// start takes it as it is.
async fn created(source: &JetstreamSource, api: &Api, name: &str) -> Result<stream::Info, String> {
    let config = stream::Config {
        name: name.to_owned(),
        description: Some(format!("created by Wirehook for its source {}", source.name)),
        subjects: source.subjects.clone(),
        ..Default::default()
    };
    let stream = api.create_stream(&config).await.map_err(|error| {
        format!("can't create the stream `{name}` with the subjects {:?}: {error}", source.subjects)
    })?;
    tracing::info!(
        source = %source.name, stream = name, subjects = ?source.subjects,
        "created the stream, since it was missing and `create_stream` is set; it keeps everything, `nats stream edit` \
         limits it"
    );
    Ok(stream)
}
