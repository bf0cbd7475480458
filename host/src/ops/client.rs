//! A command's end of the socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::protocol::{
    PROTOCOL_VERSION, ProtocolError, REPLY_LINE_BYTES_MAX, REPLY_WRITE_TIMEOUT, ReplyLine, RequestLine, read_line,
    write_line,
};
use super::{Reply, Request, socket};

/// A running host, ready for one request.
#[derive(Debug)]
pub struct OpsClient {
    stream: UnixStream,
}

/// Why a running host can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is there and may not be used.
    #[error("the socket {} of the running host can't be used: {source}; run this as the user that wirehook runs as", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The host did not answer as it should.
    #[error("the running host did not answer: {0}")]
    Protocol(#[from] ProtocolError),
}

impl OpsClient {
    /// The running host of the store at `store`; `None` when there is none.
    ///
    /// # Errors
    /// When there is a socket that may not be used.
    pub async fn connect(store: &Path) -> Result<Option<Self>, ClientError> {
        let reached = socket::connect_path(store);
        match UnixStream::connect(&reached.path).await {
            Ok(stream) => Ok(Some(Self { stream })),
            // A path too long for a socket, and no link in its place.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(source) => Err(ClientError::Refused { path: socket::path_beside(store), source }),
        }
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// When the host goes away, takes too long, or answers what this version does not understand.
    pub async fn ask(self, request: Request) -> Result<Vec<Reply>, ClientError> {
        let (reader, mut writer) = self.stream.into_split();
        let mut reader = BufReader::new(reader);
        let patience = request.patience();
        let line = RequestLine { protocol: PROTOCOL_VERSION, request };
        write_line(&mut writer, &line, REPLY_WRITE_TIMEOUT).await?;
        let mut replies = Vec::new();
        loop {
            match read_line(&mut reader, REPLY_LINE_BYTES_MAX, patience).await? {
                ReplyLine::Reply(reply) => replies.push(reply),
                ReplyLine::End => return Ok(replies),
            }
        }
    }
}
