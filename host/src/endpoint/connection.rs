//! A connection as the HTTP library takes it: bytes, secured or not, and what is known of the exchange that they belong to.
//!
//! The head of an answer in HTTP/1 passes through [`head`], so that the library meets no header that it would refuse. In both
//! versions the bytes that arrive without getting anywhere are bounded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

mod head;

/// What ALPN calls HTTP/2.
pub(super) const HTTP_2: &[u8] = b"h2";

/// The head of an answer at most. In HTTP/1 the informational ones (1xx) before it are part of it.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 256 * 1024;

/// What may arrive over HTTP/2 between two parts of answers: more than the windows of all bodies allow, so that it is reached only
/// by frames that lead to nothing, such as informational responses without an end.
const HTTP_2_IDLE_TALK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What is made room for at once while a head is read.
const HEAD_READ_BYTES: usize = 4 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One end of a connection. Its [`Exchange`] is shared with whoever sends requests over it.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    is_http_2: bool,
    exchange: Arc<Exchange>,
    /// The head that is being read, in HTTP/1.
    head: BytesMut,
    /// What was read and is not yet handed over.
    ready: Bytes,
}

/// What is known of the exchange that a connection is used for.
#[derive(Default, Debug)]
pub(super) struct Exchange {
    awaits_head: AtomicBool,
    read_bytes: AtomicUsize,
}

/// The peer sends and sends, and no answer comes of it.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint sent more than {} KiB before its answer began, informational responses (1xx) included", .0 / 1024)]
struct EndlessHead(usize);

impl Exchange {
    /// A request is about to be sent over HTTP/1.
    pub(super) fn begin(&self) {
        self.read_bytes.store(0, Ordering::Relaxed);
        self.awaits_head.store(true, Ordering::Release);
    }

    /// Something of an answer has arrived and was taken.
    pub(super) fn progressed(&self) {
        self.read_bytes.store(0, Ordering::Relaxed);
    }

    /// Whether not a byte came back since the request began. Of use in HTTP/1 alone, where a connection has one exchange.
    pub(super) fn is_unanswered(&self) -> bool {
        self.read_bytes.load(Ordering::Relaxed) == 0
    }

    /// Counts what was read; an error where it is more than `max` without an answer.
    fn read(&self, bytes: usize, max: usize) -> io::Result<()> {
        let read_bytes = self.read_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if read_bytes > max { Err(io::Error::other(EndlessHead(max))) } else { Ok(()) }
    }
}

impl Connection {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::of(Box::new(stream), false)
    }

    pub(super) fn secure(stream: TlsStream<TcpStream>) -> Self {
        let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        Self::of(Box::new(stream), is_http_2)
    }

    fn of(stream: Box<dyn Stream>, is_http_2: bool) -> Self {
        Self { stream, is_http_2, exchange: Arc::default(), head: BytesMut::new(), ready: Bytes::new() }
    }

    /// Whether both ends agreed on HTTP/2.
    pub(super) fn is_http_2(&self) -> bool {
        self.is_http_2
    }

    /// What is known of its exchange.
    pub(super) fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    /// Reads until a whole head of an answer is ready to be handed over, or the connection ends.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.head.reserve(HEAD_READ_BYTES);
            let searched = self.head.len();
            let count = ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut self.head))?;
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            let counted = self.exchange.read(count, RESPONSE_HEAD_BYTES_MAX);
            if let Some(ready) = head::taken(&mut self.head, searched) {
                self.exchange.awaits_head.store(false, Ordering::Relaxed);
                self.ready = ready;
                return Poll::Ready(Ok(()));
            }
            counted?;
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_http_2 {
            let filled = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            return Poll::Ready(this.exchange.read(buffer.filled().len() - filled, HTTP_2_IDLE_TALK_BYTES_MAX));
        }
        if this.ready.is_empty() {
            if !this.exchange.awaits_head.load(Ordering::Acquire) {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            ready!(this.poll_head(context))?;
        }
        let count = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready[..count]);
        this.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}
