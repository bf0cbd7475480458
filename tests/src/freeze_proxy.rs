//! A proxy that can go silent without closing anything, as proxies and firewalls do that outlive what is behind them: the
//! kernel acknowledges every byte, so that TCP keepalive sees nothing.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes forwarded at once.
const CHUNK: usize = 64 * 1024;

/// A TCP proxy on a free loopback port; gone, with its connections, when dropped.
#[derive(Debug)]
pub struct FreezeProxy {
    address: SocketAddr,
    connections: Arc<Mutex<Connections>>,
    _serving: JoinSet<()>,
}

/// Connections by their numbers, which count up.
#[derive(Debug, Default)]
struct Connections {
    opened: usize,
    live: HashSet<usize>,
    frozen: HashSet<usize>,
}

impl FreezeProxy {
    /// Forwards to a port of the loopback. A connection that nobody takes there is closed.
    pub async fn start(target_port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for the proxy")?;
        let address = listener.local_addr()?;
        let connections = Arc::<Mutex<Connections>>::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, target_port, Arc::clone(&connections)));
        Ok(Self { address, connections, _serving: serving })
    }

    /// Where it listens, on the loopback.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every connection that is open now swallows what either side sends, and stays open whatever becomes of the other
    /// side. New ones are forwarded. How many are frozen.
    pub fn freeze(&self) -> usize {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.frozen = connections.live.clone();
        connections.frozen.len()
    }

    /// The same for the connection that was opened as this one, counted from 1.
    pub fn freeze_one(&self, number: usize) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).frozen.insert(number);
    }

    /// Frozen connections forward again; what they swallowed is gone.
    pub fn thaw(&self) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).frozen.clear();
    }

    /// Connections taken so far.
    pub fn opened(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).opened
    }
}

async fn serve(listener: TcpListener, target_port: u16, connections: Arc<Mutex<Connections>>) {
    let mut forwarding = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while forwarding.try_join_next().is_some() {}
        forwarding.spawn(forward(client, target_port, Arc::clone(&connections)));
    }
}

async fn forward(client: TcpStream, target_port: u16, connections: Arc<Mutex<Connections>>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port)).await else { return };
    // Errors leave the connections slower, and nothing else.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let number = {
        let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.opened += 1;
        let number = connections.opened;
        connections.live.insert(number);
        number
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pump(from_client, to_server, number, &connections),
        pump(from_server, to_client, number, &connections)
    );
    connections.lock().unwrap_or_else(PoisonError::into_inner).live.remove(&number);
}

/// Forwards one direction until its end; the end itself too, unless the connection is frozen.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: usize,
    connections: &Mutex<Connections>,
) {
    let is_frozen = || connections.lock().unwrap_or_else(PoisonError::into_inner).frozen.contains(&number);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await.unwrap_or(0);
        match (read, is_frozen()) {
            // Held open until the other side of the proxy gives up.
            (0, true) => std::future::pending().await,
            (0, false) => break,
            (_, true) => {}
            (read, false) => {
                if to.write_all(&chunk[..read]).await.is_err() {
                    break;
                }
            }
        }
    }
    // An error means that it is closed already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_frozen_connection_swallows_and_stays_open_and_a_new_one_is_forwarded() -> Result<()> {
        let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = FreezeProxy::start(target.local_addr()?.port()).await?;
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()));
        let (mut client, (mut server, _)) = tokio::try_join!(connect(), target.accept())?;
        client.write_all(b"a").await?;
        assert_eq!(server.read_u8().await?, b'a');
        assert_eq!(proxy.freeze(), 1);
        client.write_all(b"b").await?;
        server.write_all(b"c").await?;
        let (mut new_client, (mut new_server, _)) = tokio::try_join!(connect(), target.accept())?;
        new_client.write_all(b"d").await?;
        assert_eq!(new_server.read_u8().await?, b'd');
        drop(server);
        let silent = tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await;
        assert!(silent.is_err(), "neither a byte nor an end: {silent:?}");
        assert_eq!(proxy.opened(), 2);
        Ok(())
    }
}
