//! Core NATS subjects that a stream keeps: whoever reads them as `nats` loses what JetStream would have kept.

use std::fmt;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, context::GetStreamByNameErrorKind};
use tokio::time::timeout;

/// How long the server may take to answer; where the user may not ask, it never does.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// A subject, and a stream that keeps what is published under it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Covered {
    /// As in the settings.
    pub subject: String,
    /// The stream's name.
    pub stream: String,
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, stream } = self;
        write!(
            f,
            "the stream `{stream}` keeps events of `{subject}`, and `kind = \"nats\"` loses what comes while Wirehook is \
             down; write `kind = \"jetstream\"` and `stream = \"{stream}\"` to lose none"
        )
    }
}

/// Those of `subjects` that a stream keeps, one stream for each. None where the server has no JetStream, or does not let
/// the user ask.
pub async fn covered(client: &Client, subjects: &[String]) -> Vec<Covered> {
    let context = jetstream::new(client.clone());
    let mut all = Vec::new();
    for subject in subjects {
        match timeout(ANSWER_DEADLINE, context.stream_by_subject(subject.clone())).await {
            Ok(Ok(stream)) => all.push(Covered { subject: subject.clone(), stream }),
            Ok(Err(error)) if error.kind() == GetStreamByNameErrorKind::NotFound => {}
            // The next subject would fare no better.
            Ok(Err(_)) | Err(_) => break,
        }
    }
    all
}
