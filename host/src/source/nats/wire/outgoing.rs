//! What is to be sent, in one buffer: a writer takes all of it at once.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;

/// Bytes that wait for the socket; who has more waits for room. A batch's acks are some 50 KiB.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// The connection is gone, or goes: what was given to it may not have been sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the connection is closed")]
pub(in crate::source) struct Closed;

/// Bytes on their way to the socket.
#[derive(Debug, Default)]
pub(in crate::source) struct Outgoing {
    waiting: Mutex<Waiting>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: BytesMut,
    is_closed: bool,
}

impl Outgoing {
    /// Has `write` append whole operations, once there is room. Dropped before, it has appended nothing.
    pub(in crate::source) async fn send(&self, write: impl FnOnce(&mut BytesMut)) -> Result<(), Closed> {
        loop {
            let emptied = self.emptied.notified();
            {
                let mut waiting = self.lock();
                if waiting.is_closed {
                    return Err(Closed);
                }
                if waiting.bytes.len() < WAITING_BYTES_MAX {
                    write(&mut waiting.bytes);
                    drop(waiting);
                    self.filled.notify_one();
                    return Ok(());
                }
            }
            emptied.await;
        }
    }

    /// As [`Outgoing::send`] without waiting, for the few bytes that the connection itself has to say.
    pub(super) fn send_now(&self, bytes: &[u8]) {
        let mut waiting = self.lock();
        if !waiting.is_closed {
            waiting.bytes.extend_from_slice(bytes);
            self.filled.notify_one();
        }
    }

    /// All that waits, once something does.
    pub(in crate::source) async fn take(&self) -> BytesMut {
        loop {
            let filled = self.filled.notified();
            let bytes = std::mem::take(&mut self.lock().bytes);
            if !bytes.is_empty() {
                self.emptied.notify_waiters();
                return bytes;
            }
            filled.await;
        }
    }

    /// Nothing is taken any more; whoever waits is told.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        waiting.bytes.clear();
        drop(waiting);
        self.emptied.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends a publication.
pub(in crate::source) fn publish(bytes: &mut BytesMut, subject: &[u8], reply: Option<&[u8]>, body: &[u8]) {
    bytes.extend_from_slice(b"PUB ");
    bytes.extend_from_slice(subject);
    if let Some(reply) = reply {
        bytes.extend_from_slice(b" ");
        bytes.extend_from_slice(reply);
    }
    // Writing to a buffer that grows can't fail.
    let _ = write!(bytes, " {}\r\n", body.len());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_has_more_than_there_is_room_for_waits() {
        let outgoing = Outgoing::default();
        let large = vec![b'x'; WAITING_BYTES_MAX];
        assert_eq!(outgoing.send(|bytes| publish(bytes, b"s", Some(b"r"), &large)).await, Ok(()));
        let mut more = std::pin::pin!(outgoing.send(|bytes| publish(bytes, b"s", None, b"2")));
        assert_eq!((&mut more).now_or_never(), None);
        assert!(outgoing.take().await.starts_with(b"PUB s r 1048576\r\nx"));
        assert_eq!(more.await, Ok(()));
        assert_eq!(&outgoing.take().await[..], b"PUB s 1\r\n2\r\n");
        assert_eq!(outgoing.take().now_or_never(), None);
        outgoing.close();
        assert_eq!(outgoing.send(|_| ()).await, Err(Closed));
    }
}
