//! A service inside that must never be reached: it counts who comes and what they bring.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Listens on an address inside, and says nothing; gone when dropped.
pub struct Inside {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    bytes: AtomicUsize,
}

impl Inside {
    /// Listens on `address`; `None` where that is taken.
    pub async fn listen(address: (IpAddr, u16)) -> Option<Self> {
        let listener = TcpListener::bind(address).await.ok()?;
        let address = listener.local_addr().ok()?;
        let counts = Arc::new(Counts::default());
        let mut serving = JoinSet::new();
        serving.spawn(count(listener, Arc::clone(&counts)));
        Some(Self { address, counts, _serving: serving })
    }

    /// Fails where anybody was there, or left a byte.
    pub fn expect_untouched(&self) {
        let connections = self.counts.connections.load(Ordering::SeqCst);
        let bytes = self.counts.bytes.load(Ordering::SeqCst);
        assert_eq!((connections, bytes), (0, 0), "connections and bytes that reached {}", self.address);
    }

    /// Bytes that reached it, to prove that it counts.
    pub fn bytes(&self) -> usize {
        self.counts.bytes.load(Ordering::SeqCst)
    }
}

async fn count(listener: TcpListener, counts: Arc<Counts>) {
    let mut serving = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        counts.connections.fetch_add(1, Ordering::SeqCst);
        let counts = Arc::clone(&counts);
        serving.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                counts.bytes.fetch_add(read, Ordering::SeqCst);
            }
        });
    }
}
