//! Messages that the server has delivered, and how they are settled.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::acks::{Ack, Acks};
use crate::event::Message;
use crate::source::batches::{Ended, weight};
use crate::source::state::SetAside;
use crate::source::{Accept, Backoff};

/// How often, while `ack_wait` passes, the server hears that a message still waits. It may wait in turn for a place and
/// for the commit, and one report may be late.
const PROGRESS_PER_ACK_WAIT: u32 = 3;
/// Between two reports at least, whatever `ack_wait` is.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Messages, each with where its ack goes.
pub(super) struct Delivered {
    messages: Vec<Message>,
    replies: Vec<Bytes>,
    /// For those among the messages that could not be read as they stood.
    set_aside: Vec<Option<SetAside>>,
    acks: Acks,
    progress_interval: Duration,
}

impl Delivered {
    /// No messages yet, of a consumer with this `ack_wait`.
    pub(super) fn new(ack_wait: Duration, acks: &Acks) -> Self {
        let progress_interval = (ack_wait / PROGRESS_PER_ACK_WAIT).max(PROGRESS_INTERVAL_MIN);
        Self::empty(acks.clone(), progress_interval)
    }

    fn empty(acks: Acks, progress_interval: Duration) -> Self {
        Self { messages: Vec::new(), replies: Vec::new(), set_aside: Vec::new(), acks, progress_interval }
    }

    /// Between two reports that they wait.
    pub(super) fn progress_interval(&self) -> Duration {
        self.progress_interval
    }

    /// Adds a message and where its ack goes.
    pub(super) fn push(&mut self, message: Message, reply: Bytes, set_aside: Option<SetAside>) {
        self.messages.push(message);
        self.replies.push(reply);
        self.set_aside.push(set_aside);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes the first, as many as `max`.
    pub(super) fn take_first(&mut self, max: usize) -> Self {
        let rest = Self::empty(self.acks.clone(), self.progress_interval);
        if self.messages.len() <= max {
            return std::mem::replace(self, rest);
        }
        Self {
            messages: self.messages.drain(..max).collect(),
            replies: self.replies.drain(..max).collect(),
            set_aside: self.set_aside.drain(..max).collect(),
            ..rest
        }
    }

    /// Says that they still wait, so that they are not delivered again.
    pub(super) async fn report_progress(&self) {
        self.acks.settle(&self.replies, Ack::Progress).await;
    }

    /// Acknowledges what nobody wants to read, and forgets it.
    pub(super) async fn pass_over(&mut self) {
        if !self.is_empty() {
            self.acks.settle(&self.replies, Ack::Done).await;
            self.take_first(usize::MAX);
        }
    }

    /// Asks for delivery at once, to whoever asks for messages.
    pub(super) async fn hand_back(self) {
        self.acks.settle(&self.replies, Ack::Again(None)).await;
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
            let _set_aside = self.set_aside;
            // The batch goes on while a report waits for its place at the connection.
            let ended = tokio::select! {
                biased;
                ended = inbox.accept(&source, self.messages) => ended,
                never = report_for_ever(&self.acks, &self.replies, self.progress_interval) => match never {},
            };
            match ended {
                Ok(_) => {
                    self.acks.settle(&self.replies, Ack::Done).await;
                    Ok(())
                }
                Err(error) => {
                    self.acks.settle(&self.replies, Ack::Again(Some(refusal.after_failure()))).await;
                    Err(error)
                }
            }
        };
        (bytes, batch)
    }
}

async fn report_for_ever(acks: &Acks, replies: &[Bytes], interval: Duration) -> Infallible {
    loop {
        tokio::time::sleep(interval).await;
        acks.settle(replies, Ack::Progress).await;
    }
}
