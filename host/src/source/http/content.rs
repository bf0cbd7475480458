//! A request's body: read within the room that all requests share, or thrown away.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;
use super::{BODY_PART_TIMEOUT, BODY_TIMEOUT, REQUEST_BYTES_IN_FLIGHT_MAX, REQUEST_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use crate::budget::{Account, Permit};
use crate::drain::Drain;

/// Most bytes of memory that an announced body has before it comes.
const AT_ONCE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a refused request's body that are read and thrown away, so that its client gets to read why.
const DISCARDED_BYTES_MAX: usize = 4 * REQUEST_BYTES_MAX;
/// How long a refused request's body is read for.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Room for the requests of one listener. Permits are counted in KiB, since a semaphore's requests are 32 bits wide.
pub(super) struct Rooms {
    requests: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    account: Arc<Account>,
}

/// Room for a body that is being read. Requests are counted once they are whole: clients that send slowly hold up nobody
/// but themselves.
pub(super) struct Reading {
    requests: Arc<Semaphore>,
    kibibytes: OwnedSemaphorePermit,
    /// Its part of the process's budget.
    bytes: Permit,
}

/// Room for one request, given back when it is answered and its events are settled.
pub(super) struct Room {
    _request: OwnedSemaphorePermit,
    _kibibytes: OwnedSemaphorePermit,
    /// Its part of the process's budget.
    _bytes: Permit,
}

impl Rooms {
    pub(super) fn new(request_bytes_max: usize, account: Arc<Account>) -> Self {
        let bytes = REQUEST_BYTES_IN_FLIGHT_MAX.max(request_bytes_max);
        Self {
            requests: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
            kibibytes: Arc::new(Semaphore::new(bytes.div_ceil(1024))),
            account,
        }
    }

    /// Room for one body, none of it for bytes yet. Refused where there is none to be had for its request.
    pub(super) fn enter(&self) -> Result<Reading, Refusal> {
        if self.requests.available_permits() == 0 {
            return Err(Refusal::too_many_requests());
        }
        let kibibytes = Arc::clone(&self.kibibytes).try_acquire_many_owned(0);
        let kibibytes = kibibytes.map_err(|_| Refusal::too_many_requests())?;
        let bytes = Permit::of_taken(Arc::clone(&self.account), 0);
        Ok(Reading { requests: Arc::clone(&self.requests), kibibytes, bytes })
    }

    /// Waits until every room was given back.
    pub(super) async fn emptied(&self) {
        // An error would mean that it was closed, which it never is.
        let _ = self.requests.acquire_many(REQUESTS_IN_FLIGHT_MAX as u32).await;
    }
}

impl Reading {
    /// Room for the request, now that it is whole.
    pub(super) fn begin(self) -> Result<Room, Refusal> {
        let request = self.requests.try_acquire_owned().map_err(|_| Refusal::too_many_requests())?;
        Ok(Room { _request: request, _kibibytes: self.kibibytes, _bytes: self.bytes })
    }

    /// Widens the room to `bytes`.
    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let missing = bytes.div_ceil(1024).saturating_sub(self.kibibytes.num_permits());
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(self.kibibytes.semaphore()).try_acquire_many_owned(missing);
        self.kibibytes.merge(more.map_err(|_| Refusal::too_many_requests())?);
        if !self.bytes.widen(bytes) {
            self.bytes.account().refuse();
            return Err(Refusal::unavailable(
                "the host has no memory left for this request; send it again in a moment",
            ));
        }
        Ok(())
    }
}

/// The whole body. Room for it is taken as it comes: what is announced need never come.
///
/// # Errors
///
/// 413 over `bytes_max`, 429 without room for it among the requests, 503 without room in the process's memory, 408 after
/// [`BODY_TIMEOUT`] or [`BODY_PART_TIMEOUT`], 400 where it breaks off.
pub(super) async fn read(content: &mut Body, bytes_max: usize, room: &mut Reading) -> Result<Bytes, Refusal> {
    let announced = match content.size_hint().exact() {
        Some(length) => usize::try_from(length).unwrap_or(usize::MAX),
        None => 0,
    };
    if announced > bytes_max {
        return Err(Refusal::body_too_large(bytes_max));
    }
    let reading = collect(content, BytesMut::with_capacity(announced.min(AT_ONCE_BYTES_MAX)), bytes_max, room);
    tokio::time::timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(|_| Err(Refusal::timeout()))
}

async fn collect(
    content: &mut Body,
    mut collected: BytesMut,
    bytes_max: usize,
    room: &mut Reading,
) -> Result<Bytes, Refusal> {
    loop {
        let part = tokio::time::timeout(BODY_PART_TIMEOUT, content.frame()).await;
        let Some(frame) = part.map_err(|_| Refusal::timeout())? else { return Ok(collected.freeze()) };
        let frame = frame.map_err(|error| Refusal::bad_request(format!("the body can't be read: {error}")))?;
        // Trailers say nothing that an event needs.
        let Ok(data) = frame.into_data() else { continue };
        let length = collected.len() + data.len();
        if length > bytes_max {
            return Err(Refusal::body_too_large(bytes_max));
        }
        room.hold(length)?;
        collected.extend_from_slice(&data);
    }
}

/// Reads on for a while and throws away what comes, beside the answer: closing the connection on a client that is still
/// sending would reset it, and the client might never read the answer.
pub(super) fn discard(mut content: Body, drain: Drain) {
    if content.is_end_stream() {
        return;
    }
    let reading = async move {
        let mut discarded = 0;
        while let Some(Ok(frame)) = content.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARDED_BYTES_MAX {
                return;
            }
        }
    };
    // One at most for each connection, since the next request is read after this one's body.
    tokio::spawn(async move {
        tokio::select! {
            () = drain.begun() => {}
            _ = tokio::time::timeout(DISCARD_TIMEOUT, reading) => {}
        }
    });
}
