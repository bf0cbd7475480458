//! One batch of messages that the server has delivered, and how they are settled.

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
const ACK_DEADLINE: Duration = Duration::from_secs(30);

/// Messages, each with its ack.
pub(super) struct Delivered {
    messages: Vec<Message>,
    ackers: Vec<Acker>,
    ack_wait: Duration,
}

impl Delivered {
    pub(super) fn new(messages: Vec<async_nats::Message>, attached: &Attached) -> Self {
        let settled = messages.into_iter().map(|message| {
            let (message, position, acker) = attached.take(message);
            (crate::source::nats::link::message(message, position), acker)
        });
        let (messages, ackers) = settled.unzip();
        Self { messages, ackers, ack_wait: attached.ack_wait() }
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
            let mut accepted = inbox.accept(&source, self.messages);
            let ended = loop {
                tokio::select! {
                    biased;
                    ended = &mut accepted => break ended,
                    () = tokio::time::sleep(self.ack_wait / 2) => settle(&self.ackers, AckKind::Progress).await,
                }
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
