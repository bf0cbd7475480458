//! Requests that plugins make: which are allowed, decided by data alone, and how the host makes them.

mod allow;
mod outgoing;

pub use outgoing::{Outgoing, OutgoingError};

/// Requests of one call.
pub const REQUESTS_MAX: u32 = 16;
/// Bytes of a URL.
pub const URL_BYTES_MAX: usize = 2 << 10;
/// Headers of a request.
pub const REQUEST_HEADERS_MAX: usize = 32;
/// Bytes in the names and values of a request's headers together.
pub const REQUEST_HEADER_BYTES_MAX: usize = 8 << 10;
/// Bytes of a request's body.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;
/// Bytes of an answer's body.
pub const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Headers of an answer that are passed on.
pub const RESPONSE_HEADERS_MAX: usize = 64;
/// Bytes of an answer's headers that are passed on.
pub const RESPONSE_HEADER_BYTES_MAX: usize = 16 << 10;
