//! Core NATS subjects that a stream keeps: whoever reads them as `nats` loses what JetStream would have kept.

use std::fmt;

use super::api::Api;

/// A subject, and a stream that keeps what is published under it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Covered {
    /// As in the settings.
    subject: String,
    /// The stream's name.
    stream: String,
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
pub(super) async fn covered(api: &Api, subjects: &[String]) -> Vec<Covered> {
    let mut all = Vec::new();
    for subject in subjects {
        match api.stream_of(subject).await {
            Ok(Some(stream)) => all.push(Covered { subject: subject.clone(), stream }),
            Ok(None) => {}
            // The next subject would fare no better.
            Err(_) => break,
        }
    }
    all
}
