//! A server that reads requests byte by byte and misbehaves on request, and the endpoint and deliveries to try it with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use wirehook::clock::Timestamp;
use wirehook::delivery::{DeliveryId, RetryPolicy};
use wirehook::dispatcher::gate::GatePolicy;
use wirehook::endpoint::{Endpoint, Endpoints, Network};
use wirehook::event::EventKey;
use wirehook::secret::Secret;
use wirehook::settings::{AccessSettings, BacklogSettings, EgressSettings, EndpointSettings, Order, SignatureScheme};
use wirehook::store::{ClaimedDelivery, DeliverySeq};

/// Longer than anything a test waits for takes; reached only by a test that fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A request as it stood on the wire.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Such as `POST /hooks HTTP/1.1`.
    pub line: String,
    /// Names in lower case, values as bytes, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// By `content-length`.
    pub body: Vec<u8>,
}

impl RawRequest {
    /// The one value of `name` as text; panics where there is none, or more.
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.iter().filter(|(known, _)| known == name).collect();
        assert_eq!(values.len(), 1, "header `{name}` in {self:?}");
        std::str::from_utf8(&values[0].1).expect("a header in UTF-8")
    }
}

/// Answers one request; returns the connection where it stays open.
pub type Answer = Arc<dyn Fn(TcpStream, RawRequest) -> BoxFuture<'static, io::Result<Option<TcpStream>>> + Send + Sync>;

/// A server on a free port of the loopback; gone when dropped.
pub struct RawEndpoint {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Mutex<mpsc::UnboundedReceiver<RawRequest>>,
    _serving: JoinSet<()>,
}

impl RawEndpoint {
    /// Answers every request with these bytes and keeps the connection.
    pub async fn answering(response: impl Into<Bytes>) -> Self {
        Self::answering_on(SocketAddr::from(([127, 0, 0, 1], 0)), response).await
    }

    /// As [`Self::answering`], on `address`.
    pub async fn answering_on(address: SocketAddr, response: impl Into<Bytes>) -> Self {
        let response = response.into();
        Self::start_on(address, move |mut stream| {
            let response = response.clone();
            async move {
                stream.write_all(&response).await?;
                Ok(Some(stream))
            }
        })
        .await
    }

    /// Answers every request with what `judge` makes of it, and keeps the connection.
    pub async fn judging(judge: impl Fn(&RawRequest) -> Bytes + Send + Sync + 'static) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let judge = Arc::new(judge);
        Self::serving(address, move |mut stream, request| {
            let response = judge(&request);
            async move {
                stream.write_all(&response).await?;
                Ok(Some(stream))
            }
        })
        .await
    }

    /// Lets `answer` deal with every connection on which a whole request has arrived.
    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = io::Result<Option<TcpStream>>> + Send + 'static,
    {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), answer).await
    }

    /// As [`Self::start`], on `address`.
    pub async fn start_on<F, A>(address: SocketAddr, answer: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = io::Result<Option<TcpStream>>> + Send + 'static,
    {
        Self::serving(address, move |stream, _| answer(stream)).await
    }

    async fn serving<F, A>(address: SocketAddr, answer: F) -> Self
    where
        F: Fn(TcpStream, RawRequest) -> A + Send + Sync + 'static,
        A: Future<Output = io::Result<Option<TcpStream>>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let (sender, requests) = mpsc::unbounded_channel();
        let answer: Answer = Arc::new(move |stream, request| Box::pin(answer(stream, request)));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, answer, Arc::clone(&connections), sender));
        Self { address, connections, requests: Mutex::new(requests), _serving: serving }
    }

    /// The URL of `path` on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next request.
    pub async fn request(&self) -> RawRequest {
        let next = async { self.requests.lock().await.recv().await.expect("the server is up") };
        tokio::time::timeout(DEADLINE, next).await.expect("a request arrives")
    }
}

async fn accept(
    listener: TcpListener,
    answer: Answer,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedSender<RawRequest>,
) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        serving.spawn(serve(stream, Arc::clone(&answer), requests.clone()));
    }
}

async fn serve(stream: TcpStream, answer: Answer, requests: mpsc::UnboundedSender<RawRequest>) {
    let mut open = Some(stream);
    while let Some(mut stream) = open.take() {
        let Ok(request) = read_request(&mut stream).await else { return };
        let _ = requests.send(request.clone());
        open = answer(stream, request).await.ok().flatten();
    }
}

async fn read_request(stream: &mut TcpStream) -> io::Result<RawRequest> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let mut lines = head[..head.len() - 4].split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let headers: Vec<_> = lines.filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(RawRequest { line, headers, body })
}

fn header(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    Some((name.to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec()))
}

/// An endpoint of that URL, signed with `s`.
pub fn settings(url: &str) -> EndpointSettings {
    EndpointSettings {
        name: "orders".into(),
        url: url.parse().expect("a URL"),
        secrets: vec![Secret::new("s").into()],
        signature: SignatureScheme::Fraiseql,
        timeout: DEADLINE,
        concurrency: 8,
        headers: Vec::new(),
        access: AccessSettings::default(),
        retry: RetryPolicy::default(),
        order: Order::None,
        backlog: BacklogSettings::default(),
        gate: GatePolicy::default(),
    }
}

/// The endpoint of these settings, with the loopback opened.
pub fn endpoint(settings: EndpointSettings) -> Arc<Endpoint> {
    endpoint_on(Network::default(), settings, &["127.0.0.0/8"])
}

/// The endpoint of these settings on a network of its own.
pub fn endpoint_on(network: Network, settings: EndpointSettings, allow: &[&str]) -> Arc<Endpoint> {
    let allow = allow.iter().map(|net| net.parse().expect("a network")).collect();
    endpoint_by(network, settings, &EgressSettings { allow, proxy: None })
}

/// The endpoint of these settings, reached as `egress` says.
pub fn endpoint_by(network: Network, settings: EndpointSettings, egress: &EgressSettings) -> Arc<Endpoint> {
    let endpoints = Endpoints::on(network, &[settings], egress).expect("valid settings");
    Arc::clone(endpoints.iter().next().expect("there is one"))
}

/// A delivery of that body.
pub fn delivery(body: impl Into<Bytes>) -> ClaimedDelivery {
    ClaimedDelivery {
        seq: DeliverySeq(1),
        id: DeliveryId::from_stored("msg_0123456789abcdef0123456789abcdef"),
        event_key: EventKey::from_stored("bus/id/1"),
        plugin: "orders".into(),
        endpoint: "orders".into(),
        content_type: "application/json".to_owned(),
        headers: Vec::new(),
        body: body.into(),
        due_at: Timestamp(0),
        attempts_made: 0,
        attempts_before_budget: 0,
    }
}
