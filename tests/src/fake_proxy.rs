//! A proxy that leads, refuses or misbehaves as told, and records where it was asked to lead.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wirehook::settings::{ProxyKind, ProxySettings};

/// What a proxy does when it is asked to lead somewhere.
#[derive(Clone, Debug)]
pub enum Lead {
    /// Connects to the address that it was told.
    There,
    /// Connects here, whatever it was told.
    To(SocketAddr),
    /// Says this and hangs up.
    Say(Bytes),
    /// As [`Lead::Say`] where it was told this target; leads where it was told another.
    SayOf(String, Bytes),
    /// Hangs up.
    HangUp,
    /// Says nothing, for ever.
    Hang,
}

/// What a proxy was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Such as `127.0.0.2:443` or `hooks.example:443`.
    pub target: String,
    /// The credentials: `Proxy-Authorization`, or `user:password` of SOCKS.
    pub credentials: Option<String>,
}

/// A proxy on a port of the loopback; gone when dropped.
pub struct FakeProxy {
    /// Where it listens.
    pub address: SocketAddr,
    kind: ProxyKind,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    kind: ProxyKind,
    wants_login: bool,
    lead: Mutex<Lead>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
}

impl FakeProxy {
    /// On a free port.
    pub async fn start(kind: ProxyKind, lead: Lead) -> Self {
        Self::on("127.0.0.1:0".parse().expect("an address"), kind, lead, false).await
    }

    /// On a free port, for those who log in.
    pub async fn with_login(kind: ProxyKind, lead: Lead) -> Self {
        Self::on("127.0.0.1:0".parse().expect("an address"), kind, lead, true).await
    }

    /// On `address`.
    pub async fn on(address: SocketAddr, kind: ProxyKind, lead: Lead, wants_login: bool) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (lead, asked, connections) = (Mutex::new(lead), Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { kind, wants_login, lead, asked, connections });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, kind, shared, _serving: serving }
    }

    /// The settings that lead to it.
    pub fn settings(&self) -> ProxySettings {
        ProxySettings {
            kind: self.kind,
            host: self.address.ip().to_string(),
            port: self.address.port(),
            user: None,
            password: None,
            resolves_names: false,
        }
    }

    /// What it does from now on.
    pub fn lead(&self, lead: Lead) {
        *self.shared.lead.lock().unwrap_or_else(PoisonError::into_inner) = lead;
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it was asked to lead so far.
    pub fn targets(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.target).collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        serving.spawn(async move {
            // Whoever hangs up on a proxy has their reasons.
            let _ = shared.serve(stream).await;
        });
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let asked = match self.kind {
            ProxyKind::Http => read_connect(&mut stream).await?,
            ProxyKind::Socks5 => self.read_socks(&mut stream).await?,
        };
        let target = asked.target.clone();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let destination = match lead {
            Lead::There => target,
            Lead::To(address) => address.to_string(),
            Lead::Say(answer) => return stream.write_all(&answer).await,
            Lead::SayOf(of, answer) if of == target => return stream.write_all(&answer).await,
            Lead::SayOf(..) => target,
            Lead::HangUp => return Ok(()),
            Lead::Hang => std::future::pending().await,
        };
        let mut led = TcpStream::connect(destination).await?;
        let answer: &[u8] = match self.kind {
            ProxyKind::Http => b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n",
            ProxyKind::Socks5 => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        };
        stream.write_all(answer).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut led).await?;
        Ok(())
    }

    async fn read_socks(&self, stream: &mut TcpStream) -> io::Result<Asked> {
        let methods = usize::from(read::<2>(stream).await?[1]);
        let mut offered = vec![0; methods];
        stream.read_exact(&mut offered).await?;
        let method = if self.wants_login { 2 } else { 0 };
        let chosen = if offered.contains(&method) { method } else { 0xff };
        stream.write_all(&[5, chosen]).await?;
        let mut credentials = None;
        if chosen == 2 {
            stream.read_u8().await?;
            let (user, password) = (counted(stream).await?, counted(stream).await?);
            let refused = u8::from(password != "open sesame");
            credentials = Some(format!("{user}:{password}"));
            stream.write_all(&[1, refused]).await?;
        }
        let [_, _, _, kind] = read(stream).await?;
        let host = match kind {
            1 => std::net::Ipv4Addr::from(read::<4>(stream).await?).to_string(),
            4 => format!("[{}]", std::net::Ipv6Addr::from(read::<16>(stream).await?)),
            _ => counted(stream).await?,
        };
        let port = stream.read_u16().await?;
        Ok(Asked { target: format!("{host}:{port}"), credentials })
    }
}

async fn read_connect(stream: &mut TcpStream) -> io::Result<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let credentials = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: ")).map(str::to_owned);
    Ok(Asked { target: target.unwrap_or(&head).to_owned(), credentials })
}

async fn read<const BYTES: usize>(stream: &mut TcpStream) -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn counted(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
