//! Pure: what follows from a request that got no answer: whether it is made again at once, and how.
//!
//! A request that a server never began to process costs nothing to make again. One that met a connection which the server was just
//! closing most probably was not processed either; it is made again once, on a new connection. Everything is bounded.

use h2::Reason;

use super::SendError;

/// How often a request is made again that HTTP/2 servers say they never processed.
pub const REFUSALS_MAX: u32 = 3;

/// A request that got no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) way: Way,
    /// Whether it was the first on its connection.
    pub(super) is_new: bool,
}

/// In which way.
#[derive(Debug)]
pub(super) enum Way {
    /// An error of HTTP/1.
    Http1 { is_unsent: bool, is_unanswered: bool, error: hyper::Error },
    /// An error of HTTP/2.
    Http2(hyper::Error),
    /// The answer was to no request, but 408 to an idle connection.
    Farewell,
}

/// What follows.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// Nobody knows whether it was processed, or it was.
    Final,
    /// The connection had been closed.
    Stale,
    /// The server says that it never processed it.
    Refused(Refusal),
    /// HTTP/1.1 is to be spoken.
    LeaveHttp2(Leaving),
}

/// How an HTTP/2 server says that it did not process a request.
#[derive(PartialEq, Eq, Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It shuts the connection down, and the request came after the last that it takes (RFC 9113, section 6.8).
    #[error("shut the HTTP/2 connection down (GOAWAY) without processing the request")]
    GoAway,
    /// It refuses the stream (section 8.7).
    #[error("refused the HTTP/2 request without processing it (REFUSED_STREAM)")]
    Stream,
}

/// Why HTTP/2 is not spoken any more.
#[derive(PartialEq, Eq, Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Leaving {
    /// The server asks for it.
    #[error("it asked for HTTP/1.1 (HTTP_1_1_REQUIRED)")]
    Required,
    /// What it sends breaks the protocol.
    #[error("its HTTP/2 can't be understood")]
    Broken,
}

/// What a request was already made again for.
#[derive(Default, Debug)]
pub(super) struct Repeats {
    refusals: u32,
    left_http_2: bool,
}

impl Failed {
    pub(super) fn verdict(&self) -> Verdict {
        let stale = if self.is_new { Verdict::Final } else { Verdict::Stale };
        match &self.way {
            Way::Farewell => stale,
            Way::Http1 { is_unsent, is_unanswered, .. } if *is_unsent || *is_unanswered => stale,
            Way::Http1 { .. } => Verdict::Final,
            // The library lets go of a request in this way alone: it was held back, and the server shut the connection down.
            Way::Http2(error) if error.is_user() => Verdict::Refused(Refusal::GoAway),
            // What is no error of the protocol is the connection's end, before or after the request was sent.
            Way::Http2(error) => stream_error(error).map_or(stale, of_http_2),
        }
    }

    /// What is told of it, where it is not made again.
    pub(super) fn into_error(self) -> SendError {
        match (self.verdict(), self.way) {
            (Verdict::Refused(refusal), _) => SendError::Refused(refusal),
            (_, Way::Http1 { error, .. } | Way::Http2(error)) => SendError::Http(error),
            (_, Way::Farewell) => SendError::Closed,
        }
    }
}

impl Way {
    /// Whether the connection was gone, so that others as old as it may be too.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Http1 { is_unsent, is_unanswered, .. } => *is_unsent || *is_unanswered,
            Self::Farewell => true,
            Self::Http2(error) => stream_error(error).is_none_or(|said| !said.is_reset()),
        }
    }
}

impl Repeats {
    /// Whether a request that failed like this is made again.
    pub(super) fn allow(&mut self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Final => false,
            // On a new connection there is no second time.
            Verdict::Stale => true,
            Verdict::Refused(_) => {
                self.refusals += 1;
                self.refusals <= REFUSALS_MAX
            }
            Verdict::LeaveHttp2(_) => !std::mem::replace(&mut self.left_http_2, true),
        }
    }
}

fn stream_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn of_http_2(said: &h2::Error) -> Verdict {
    match said.reason() {
        Some(Reason::HTTP_1_1_REQUIRED) if said.is_remote() => Verdict::LeaveHttp2(Leaving::Required),
        Some(Reason::REFUSED_STREAM) if said.is_remote() && said.is_reset() => Verdict::Refused(Refusal::Stream),
        // The library tells it only of those above the last one that the server takes.
        Some(_) if said.is_remote() && said.is_go_away() => Verdict::Refused(Refusal::GoAway),
        Some(Reason::PROTOCOL_ERROR | Reason::COMPRESSION_ERROR | Reason::FRAME_SIZE_ERROR) if said.is_library() => {
            Verdict::LeaveHttp2(Leaving::Broken)
        }
        _ => Verdict::Final,
    }
}
