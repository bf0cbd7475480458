//! A batch on its way into the store, offered until it is there.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::poll;
use tokio::task::JoinHandle;

use crate::budget::Permit;
use crate::drain::Drain;
use crate::event::Message;
use crate::source::batches::weight;
use crate::source::{Accept, AcceptError, Backoff, SourceState};

/// What became of a batch.
pub(super) enum Offered {
    Kept,
    /// The inbox takes nothing any more.
    Closed,
    /// The drain began while the inbox refused: the table keeps the rows.
    GivenUp,
    /// Nobody knows.
    Lost(String),
}

/// A task of its own: it goes on while the next batch is read, and whatever becomes of the session.
pub(super) struct Offer(JoinHandle<Offered>);

impl Offer {
    /// Offers `messages` and the cursor that contains them.
    pub(super) async fn begin(
        source: Arc<str>,
        messages: Vec<Message>,
        cursor: Bytes,
        inbox: Arc<dyn Accept>,
        state: SourceState,
        drain: Drain,
    ) -> Self {
        let mut offer = Box::pin(keep(source, messages, cursor, inbox, state, drain));
        match poll!(&mut offer) {
            Poll::Ready(offered) => Self(tokio::spawn(async move { offered })),
            Poll::Pending => Self(tokio::spawn(offer)),
        }
    }

    /// Waits for its end. To be awaited to its end once; dropping the future loses nothing.
    pub(super) async fn ended(&mut self) -> Offered {
        (&mut self.0).await.unwrap_or_else(|panic| Offered::Lost(panic.to_string()))
    }
}

async fn keep(
    source: Arc<str>,
    messages: Vec<Message>,
    cursor: Bytes,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
) -> Offered {
    // One at a time of a source: it counts, and need not wait for room.
    let (account, bytes) = (inbox.intake(), weight(&messages));
    account.take_anyway(bytes);
    let _room = Permit::of_taken(account, bytes);
    let mut backoff = Backoff::new();
    let mut refused = false;
    loop {
        match inbox.accept_at(&source, messages.clone(), Some(cursor.clone())).await {
            Ok(_) => {
                if refused {
                    state.recovered();
                }
                return Offered::Kept;
            }
            Err(AcceptError::Closed) => return Offered::Closed,
            Err(error) => {
                refused = true;
                state.failed(&error);
                if !backoff.wait(&drain).await {
                    return Offered::GivenUp;
                }
            }
        }
    }
}
