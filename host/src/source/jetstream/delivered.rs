//! Messages that the server has delivered, and how they are settled.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::message::Acker;

use super::attach::Attached;
use crate::event::Message;
use crate::source::batches::{Ended, weight};
use crate::source::{Accept, Backoff};

/// How long sending the acks of one batch may take. While the connection is down they wait in the client; what is not
/// sent in time is delivered again, and is a duplicate.
const ACK_DEADLINE: Duration = Duration::from_secs(5);
/// How often, while `ack_wait` passes, the server hears that a message still waits. It may wait in turn for a place and
/// for the commit, and one report may be late.
const PROGRESS_PER_ACK_WAIT: u32 = 3;
/// Between two reports at least, whatever `ack_wait` is.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Messages, each with its ack.
pub(super) struct Delivered {
    messages: Vec<Message>,
    ackers: Vec<Acker>,
    progress_interval: Duration,
}

impl Delivered {
    /// No messages yet, of a consumer with this `ack_wait`.
    pub(super) fn new(ack_wait: Duration) -> Self {
        let progress_interval = (ack_wait / PROGRESS_PER_ACK_WAIT).max(PROGRESS_INTERVAL_MIN);
        Self { messages: Vec::new(), ackers: Vec::new(), progress_interval }
    }

    /// Between two reports that they wait.
    pub(super) fn progress_interval(&self) -> Duration {
        self.progress_interval
    }

    /// Adds a message as it came.
    pub(super) fn push(&mut self, message: async_nats::Message, attached: &Attached) {
        let (message, position, acker) = attached.take(message);
        self.messages.push(crate::source::nats::link::message(message, position));
        self.ackers.push(acker);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes the first, as many as `max`.
    pub(super) fn take_first(&mut self, max: usize) -> Self {
        if self.messages.len() <= max {
            let rest = Self { messages: Vec::new(), ackers: Vec::new(), ..*self };
            return std::mem::replace(self, rest);
        }
        let count = max;
        Self {
            messages: self.messages.drain(..count).collect(),
            ackers: self.ackers.drain(..count).collect(),
            progress_interval: self.progress_interval,
        }
    }

    /// Says that they still wait, so that they are not delivered again.
    pub(super) async fn report_progress(&self) {
        settle(&self.ackers, AckKind::Progress).await;
    }

    /// Acknowledges what nobody wants to read, and forgets it.
    pub(super) async fn pass_over(&mut self) {
        if !self.is_empty() {
            settle(&self.ackers, AckKind::Ack).await;
            self.take_first(usize::MAX);
        }
    }

    /// Asks for delivery at once, to whoever asks for messages.
    pub(super) async fn hand_back(self) {
        settle(&self.ackers, AckKind::Nak(None)).await;
    }

    /// Its weight, and the way into the inbox: acks after the commit, and asks for redelivery after a refusal.
    pub(super) fn keep(
        self,
        source: Arc<str>,
        inbox: Arc<dyn Accept>,
        mut refusal: Backoff,
    ) -> (usize, impl Future<Output = Ended> + Send + 'static) {
        let bytes = weight(&self.messages);
        let batch = async move {
            // The batch goes on while a report waits for its place at the connection.
            let ended = tokio::select! {
                biased;
                ended = inbox.accept(&source, self.messages) => ended,
                never = report_for_ever(&self.ackers, self.progress_interval) => match never {},
            };
            match ended {
                Ok(_) => {
                    settle(&self.ackers, AckKind::Ack).await;
                    Ok(())
                }
                Err(error) => {
                    settle(&self.ackers, AckKind::Nak(Some(refusal.after_failure()))).await;
                    Err(error)
                }
            }
        };
        (bytes, batch)
    }
}

async fn report_for_ever(ackers: &[Acker], interval: Duration) -> Infallible {
    loop {
        tokio::time::sleep(interval).await;
        settle(ackers, AckKind::Progress).await;
    }
}

/// Sends one kind of ack for all, without a round trip. What can't be sent is delivered again.
async fn settle(ackers: &[Acker], kind: AckKind) {
    let all = async {
        for acker in ackers {
            if acker.ack_with(kind).await.is_err() {
                break;
            }
        }
    };
    if tokio::time::timeout(ACK_DEADLINE, all).await.is_err() {
        tracing::debug!(messages = ackers.len(), "acks could not be sent in time");
    }
}
