//! Listening for notifications, only where they save waiting: every one of them costs the server something, which writers
//! would pay for while the table is read all the time anyway.

use std::time::Duration;

use super::pace::PAUSE_MIN;
use crate::source::postgres::connection::{Session, answer, quoted};

/// Whether this session listens.
pub(super) struct Ear {
    channel: String,
    open: bool,
    /// The server can't, for this session; or this is no session of the source's alone, and somebody else would hear.
    deaf: bool,
}

impl Ear {
    /// `direct` tells whether the session is the source's alone. Behind a pooler nothing is listened to, and the table is
    /// read again after the longest pause.
    pub(super) fn new(channel: &str, direct: bool) -> Self {
        Self { channel: quoted(channel), open: false, deaf: !direct }
    }

    /// Listens before a long pause, and not while pauses are short. `true` where it has just begun to listen: what came
    /// before that made no sound, so that another read is due before the pause.
    ///
    /// # Errors
    ///
    /// In words: the session is gone.
    pub(super) async fn turn(&mut self, session: &Session, pause: Duration, source: &str) -> Result<bool, String> {
        let wanted = pause > PAUSE_MIN && !self.deaf;
        if wanted == self.open {
            return Ok(false);
        }
        let verb = if wanted { "LISTEN" } else { "UNLISTEN" };
        match answer(session.client.batch_execute(&format!("{verb} {}", self.channel))).await {
            Ok(()) => self.open = wanted,
            Err(error) if session.client.is_closed() => return Err(error),
            Err(error) => {
                (self.open, self.deaf) = (false, true);
                tracing::warn!(source = %source, %error, "nobody wakes this source: it looks for rows by itself");
            }
        }
        Ok(self.open)
    }
}
