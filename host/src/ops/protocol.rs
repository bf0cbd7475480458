//! One request a connection, as one line of JSON; the answer is lines of JSON, the last of which says `end`.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Reply, Request};

/// The version that both ends must speak.
pub const PROTOCOL_VERSION: u32 = 1;
/// The longest request line, in bytes: room for 10,000 ids.
pub const REQUEST_LINE_BYTES_MAX: u64 = 256 * 1024;
/// The longest reply line, in bytes: a payload at the most of `[limits] event`, every byte escaped.
pub const REPLY_LINE_BYTES_MAX: u64 = 400 * 1024 * 1024;
/// How long a client may take to send its request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to read one line of the answer.
pub const REPLY_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client waits for the next line of the answer.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// The line a client sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`PROTOCOL_VERSION`] of the client.
    pub protocol: u32,
    /// What is asked.
    pub request: Request,
}

/// A line a host sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyLine {
    /// A part of the answer.
    Reply(Reply),
    /// The answer is whole.
    End,
}

/// Why a line could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The other end is gone or the socket broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// The other end closed the connection early.
    #[error("the connection was closed before the answer was whole")]
    Closed,
    /// The line is over its bound.
    #[error("a line is longer than {0} bytes")]
    TooLong(u64),
    /// The line is not what this version expects.
    #[error("a line is not understood: {0}; are the command and the host of one version?")]
    Malformed(#[from] serde_json::Error),
    /// The other end took too long.
    #[error("nothing came within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// Reads one line within a time.
pub(super) async fn read_line<T: DeserializeOwned>(
    reader: &mut (impl AsyncBufRead + Unpin),
    bytes_max: u64,
    timeout: Duration,
) -> Result<T, ProtocolError> {
    let mut line = Vec::new();
    let mut bounded = reader.take(bytes_max + 1);
    let read = bounded.read_until(b'\n', &mut line);
    tokio::time::timeout(timeout, read).await.map_err(|_| ProtocolError::Timeout(timeout))??;
    if line.last() != Some(&b'\n') {
        return Err(if line.len() as u64 > bytes_max {
            ProtocolError::TooLong(bytes_max)
        } else {
            ProtocolError::Closed
        });
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Writes one line within a time.
pub(super) async fn write_line(
    writer: &mut (impl AsyncWrite + Unpin),
    line: &impl Serialize,
    timeout: Duration,
) -> Result<(), ProtocolError> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    tokio::time::timeout(timeout, writer.write_all(&bytes)).await.map_err(|_| ProtocolError::Timeout(timeout))??;
    Ok(())
}
