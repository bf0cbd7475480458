//! The running host's end of the socket.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::protocol::{
    PROTOCOL_VERSION, ProtocolError, REPLY_WRITE_TIMEOUT, REQUEST_LINE_BYTES_MAX, REQUEST_TIMEOUT, ReplyLine,
    RequestLine, read_line, write_line,
};
use super::socket::OpsSocket;
use super::{Operator, Reply};

/// Connections answered at once; more wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 16;
/// How long connections may take to end once the server is told to.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// The wait after a failed accept, which is nearly always too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers operators until `ended` is done; then what is being answered has [`CLOSE_DEADLINE`].
pub async fn serve(socket: OpsSocket, operator: Operator, ended: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::pin!(ended);
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await.ok();
            (permit, socket.listener().accept().await)
        };
        tokio::select! {
            () = &mut ended => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accept => match accepted {
                Ok((stream, _)) => {
                    let operator = operator.clone();
                    connections.spawn(async move {
                        if let Err(error) = connection(stream, operator).await {
                            tracing::debug!(%error, "an operator's command went away");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the operators' socket could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Gone before the last answers: a new command opens the store itself as soon as it is free.
    drop(socket);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_DEADLINE, finish).await.is_err() {
        tracing::warn!("operators' commands were cut off at the end of the drain");
    }
}

async fn connection(stream: UnixStream, operator: Operator) -> Result<(), ProtocolError> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let replies = match read_line::<RequestLine>(&mut reader, REQUEST_LINE_BYTES_MAX, REQUEST_TIMEOUT).await {
        Ok(line) if line.protocol == PROTOCOL_VERSION => operator.handle(line.request).await,
        Ok(line) => vec![Reply::Failed {
            message: format!(
                "the running host speaks version {PROTOCOL_VERSION} of the protocol, this command {}; \
                 use the host's own version of wirehook",
                line.protocol
            ),
        }],
        Err(error @ (ProtocolError::TooLong(_) | ProtocolError::Malformed(_))) => {
            vec![Reply::Failed { message: error.to_string() }]
        }
        Err(error) => return Err(error),
    };
    for reply in replies {
        write_line(&mut writer, &ReplyLine::Reply(reply), REPLY_WRITE_TIMEOUT).await?;
    }
    write_line(&mut writer, &ReplyLine::End, REPLY_WRITE_TIMEOUT).await
}
