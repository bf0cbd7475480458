//! A connection at work: one task reads and writes, and hands each message to the queue of its subscription.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use url::Url;

use super::Delivery;
use super::greeting::ServerInfo;
use super::handshake::{self, HandshakeError, Taken, Terms};
use super::headers;
use super::outgoing::{Closed, Outgoing, publish};
use super::parse::{Operation, Parser};
use crate::source::BATCH_MESSAGES_MAX;
use crate::source::nats::denial::Denial;
use crate::sync::lock;

/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Pings without a byte from the server until the connection is thought to be dead: it may be open all the same, where
/// a proxy or a firewall holds it.
const SILENT_PINGS_MAX: u32 = 3;
/// How long an answer to a ping may take that somebody waits for.
const ROUND_TRIP_DEADLINE: Duration = Duration::from_secs(5);
/// How long the server's last words are waited for where nothing can be written to it any more.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(1);
/// Room for one read.
const READ_BYTES: usize = 64 * 1024;
/// Messages that a queue may hold before what comes is dropped.
const QUEUE_MESSAGES_MAX: usize = 64 * 1024;
/// Their bytes. JetStream sends what was asked for, which is less.
const QUEUE_BYTES_MAX: usize = 192 * 1024 * 1024;
/// Errors of the server that wait to be looked at; more of them say nothing new.
const SERVER_ERRORS_MAX: usize = 16;
/// The subscription of answers to requests.
const ANSWERS_SID: u64 = 1;

/// A connection. Dropping it closes it at once.
pub(in crate::source) struct Wire {
    shared: Arc<Shared>,
    next_sid: AtomicU64,
    next_request: AtomicU64,
    /// Whether the inbox of answers is subscribed to.
    hears_answers: AtomicBool,
    _task: JoinSet<()>,
}

/// Why a request has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::source) enum RequestError {
    #[error("nobody answers")]
    NoResponders,
    #[error("the server did not answer in time")]
    TimedOut,
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Where a subscription's messages go; several may share one.
#[derive(Clone, Debug)]
pub(in crate::source) struct Feed {
    sender: mpsc::Sender<Delivery>,
    bytes: Arc<AtomicUsize>,
}

/// Messages of subscriptions, in the order in which they came.
pub(in crate::source) struct Queue {
    receiver: mpsc::Receiver<Delivery>,
    bytes: Arc<AtomicUsize>,
    changes: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

/// A subscription's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct Subscription(u64);

struct Shared {
    url: Url,
    outgoing: Arc<Outgoing>,
    feeds: Mutex<HashMap<u64, Feed>>,
    /// Who waits for answers to pings, in their order; nobody, for those of the heartbeat.
    pongs: Mutex<VecDeque<Option<oneshot::Sender<()>>>>,
    requests: Mutex<HashMap<u64, oneshot::Sender<Delivery>>>,
    /// The inbox of answers, with the dot at its end.
    inbox: String,
    errors: Mutex<VecDeque<String>>,
    dropped: AtomicUsize,
    info: Mutex<ServerInfo>,
    /// Why it has ended, in words.
    end: OnceLock<String>,
    /// Counts errors and the end.
    changes: watch::Sender<u64>,
}

/// A subject that nobody else has.
pub(in crate::source) fn new_inbox() -> String {
    format!("_INBOX.{:032x}", fastrand::u128(..))
}

impl Wire {
    /// Connects once.
    ///
    /// # Errors
    ///
    /// When the server is down or refuses.
    pub(in crate::source) async fn connect(url: &Url, terms: &Terms<'_>) -> Result<Self, HandshakeError> {
        let Taken { stream, info, buffer } = handshake::connect(url, terms).await?;
        let shared = Arc::new(Shared {
            url: url.clone(),
            outgoing: Arc::default(),
            feeds: Mutex::default(),
            pongs: Mutex::default(),
            requests: Mutex::default(),
            inbox: format!("{}.", new_inbox()),
            errors: Mutex::default(),
            dropped: AtomicUsize::new(0),
            info: Mutex::new(info),
            end: OnceLock::new(),
            changes: watch::Sender::new(0),
        });
        let mut task = JoinSet::new();
        task.spawn(drive(Arc::clone(&shared), stream, buffer));
        Ok(Self {
            shared,
            next_sid: AtomicU64::new(ANSWERS_SID + 1),
            next_request: AtomicU64::new(0),
            hears_answers: AtomicBool::new(false),
            _task: task,
        })
    }

    /// The server it is connected to.
    pub(in crate::source) fn url(&self) -> &Url {
        &self.shared.url
    }

    /// What the server said of itself last.
    pub(in crate::source) fn info(&self) -> ServerInfo {
        lock(&self.shared.info).clone()
    }

    /// What is to be sent.
    pub(in crate::source) fn outgoing(&self) -> &Arc<Outgoing> {
        &self.shared.outgoing
    }

    /// A queue, and what fills it.
    pub(in crate::source) fn queue(&self) -> (Feed, Queue) {
        let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let bytes = Arc::<AtomicUsize>::default();
        let feed = Feed { sender, bytes: Arc::clone(&bytes) };
        let changes = self.shared.changes.subscribe();
        (feed, Queue { receiver, bytes, changes, shared: Arc::clone(&self.shared) })
    }

    /// Subscribes. What the server has against it shows in [`Wire::next_error`].
    pub(in crate::source) async fn subscribe(
        &self,
        subject: &str,
        group: Option<&str>,
        feed: &Feed,
    ) -> Result<Subscription, Closed> {
        let sid = self.next_sid.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.feeds).insert(sid, feed.clone());
        let group = group.map(|group| format!("{group} ")).unwrap_or_default();
        let line = format!("SUB {subject} {group}{sid}\r\n");
        self.shared.outgoing.send(|bytes| bytes.extend_from_slice(line.as_bytes())).await?;
        Ok(Subscription(sid))
    }

    /// Ends a subscription. What comes until the server knows is still taken where it is `kept`.
    pub(in crate::source) fn unsubscribe(&self, Subscription(sid): Subscription, kept: bool) {
        if !kept {
            lock(&self.shared.feeds).remove(&sid);
        }
        self.shared.outgoing.send_now(format!("UNSUB {sid}\r\n").as_bytes());
    }

    /// Waits for the answer to a ping: then the server has done all it was told before, what it has against that is
    /// noted, and what it had sent before is in the queues. `false` where there is none in time.
    pub(in crate::source) async fn round_trip(&self) -> bool {
        let (answered, answer) = oneshot::channel();
        let sent = self.shared.outgoing.send(|bytes| {
            // In one step, so that answers and those who wait for them have one order.
            lock(&self.shared.pongs).push_back(Some(answered));
            bytes.extend_from_slice(b"PING\r\n");
        });
        let trip = async { sent.await.is_ok() && answer.await.is_ok() };
        timeout(ROUND_TRIP_DEADLINE, trip).await.unwrap_or(false)
    }

    /// Asks, and waits for the answer.
    pub(in crate::source) async fn request(
        &self,
        subject: &str,
        body: &[u8],
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        lock(&self.shared.requests).insert(number, answered);
        let _forget = Forget { shared: &self.shared, number };
        let reply = format!("{}{number}", self.shared.inbox);
        let asked = self.shared.outgoing.send(|bytes| {
            if !self.hears_answers.swap(true, Ordering::Relaxed) {
                bytes.extend_from_slice(format!("SUB {}* {ANSWERS_SID}\r\n", self.shared.inbox).as_bytes());
            }
            publish(bytes, subject.as_bytes(), Some(reply.as_bytes()), body);
        });
        let exchange = async {
            asked.await?;
            answer.await.map_err(|_| Closed)
        };
        let answer: Delivery = timeout(deadline, exchange).await.map_err(|_| RequestError::TimedOut)??;
        match answer.headers.as_deref().and_then(headers::status) {
            Some((503, _)) => Err(RequestError::NoResponders),
            _ => Ok(answer.payload),
        }
    }

    /// Tells of errors and of the end.
    pub(in crate::source) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// The oldest of the server's errors that nobody has taken.
    pub(in crate::source) fn next_error(&self) -> Option<String> {
        lock(&self.shared.errors).pop_front()
    }

    /// Messages dropped since the last call, since a queue was full.
    pub(in crate::source) fn take_dropped(&self) -> usize {
        self.shared.dropped.swap(0, Ordering::Relaxed)
    }

    /// Counts messages among those dropped.
    pub(in crate::source) fn dropped(&self, messages: usize) {
        self.shared.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    /// Why it has ended, once it has.
    pub(in crate::source) fn end(&self) -> Option<&str> {
        self.shared.end.get().map(String::as_str)
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("url", &self.shared.url.as_str()).finish_non_exhaustive()
    }
}

/// Forgets a request that is over, answered or not.
struct Forget<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.requests).remove(&self.number);
    }
}

impl Queue {
    /// What is there, waiting for the first; at most [`BATCH_MESSAGES_MAX`]. None once the connection has ended and all
    /// is taken. Dropping the future loses nothing.
    pub(in crate::source) async fn next(&mut self) -> Option<Vec<Delivery>> {
        loop {
            let mut chunk = Vec::new();
            let has_ended = self.shared.end.get().is_some();
            tokio::select! {
                biased;
                taken = self.receiver.recv_many(&mut chunk, BATCH_MESSAGES_MAX), if !has_ended => {
                    if taken == 0 {
                        return None;
                    }
                }
                _ = self.changes.changed(), if !has_ended => continue,
                () = std::future::ready(()), if has_ended => {
                    chunk = self.take_ready();
                    return Some(chunk).filter(|chunk| !chunk.is_empty());
                }
            }
            self.taken(&chunk);
            return Some(chunk);
        }
    }

    /// What is there; at most [`BATCH_MESSAGES_MAX`].
    pub(in crate::source) fn take_ready(&mut self) -> Vec<Delivery> {
        let mut chunk = Vec::new();
        while chunk.len() < BATCH_MESSAGES_MAX
            && let Ok(delivery) = self.receiver.try_recv()
        {
            chunk.push(delivery);
        }
        self.taken(&chunk);
        chunk
    }

    fn taken(&self, chunk: &[Delivery]) {
        self.bytes.fetch_sub(chunk.iter().map(Delivery::len).sum(), Ordering::Relaxed);
    }
}

impl Feed {
    /// `false` where it is full.
    fn put(&self, delivery: Delivery) -> bool {
        let len = delivery.len();
        if self.bytes.fetch_add(len, Ordering::Relaxed) < QUEUE_BYTES_MAX && self.sender.try_send(delivery).is_ok() {
            return true;
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        false
    }
}

/// Reads and writes until the connection ends, and tells everybody.
async fn drive(shared: Arc<Shared>, stream: Box<dyn handshake::Stream>, buffer: BytesMut) {
    let (reader, writer) = tokio::io::split(stream);
    let mut reading = std::pin::pin!(read(&shared, reader, buffer));
    let end = tokio::select! {
        end = &mut reading => end,
        // What the server said before it went may wait to be read.
        error = write(&shared.outgoing, writer) => timeout(LAST_WORDS_DEADLINE, reading).await.unwrap_or_else(|_| lost(&error)),
    };
    shared.outgoing.close();
    tracing::debug!(address = %shared.url, reason = end, "the connection has ended");
    let _ = shared.end.set(end);
    lock(&shared.feeds).clear();
    lock(&shared.pongs).clear();
    lock(&shared.requests).clear();
    shared.changed();
}

fn lost(error: &io::Error) -> String {
    tracing::debug!(%error, "the connection broke");
    "the connection was lost".to_owned()
}

async fn write(outgoing: &Outgoing, mut writer: impl AsyncWrite + Unpin) -> io::Error {
    loop {
        let bytes = outgoing.take().await;
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return error;
        }
    }
}

async fn read(shared: &Shared, mut reader: impl AsyncRead + Unpin, mut buffer: BytesMut) -> String {
    let mut parser = Parser::default();
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut silent_pings = 0;
    // The server's last word, where nothing came after it: then it is why the server went.
    let mut last_words = None;
    loop {
        loop {
            match parser.next(&mut buffer) {
                Ok(Some(operation)) => shared.take(operation, &mut last_words),
                Ok(None) => break,
                Err(error) => {
                    return format!("the connection to {} was given up: {error}", shared.url);
                }
            }
        }
        buffer.reserve(READ_BYTES);
        tokio::select! {
            biased;
            read = reader.read_buf(&mut buffer) => match read {
                Ok(0) => return shared.ended(last_words, &io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => silent_pings = 0,
                Err(error) => return shared.ended(last_words, &error),
            },
            _ = pings.tick() => {
                if silent_pings == SILENT_PINGS_MAX {
                    let silence = PING_INTERVAL * SILENT_PINGS_MAX;
                    return format!("the connection was lost: the server has said nothing for {} s", silence.as_secs());
                }
                silent_pings += 1;
                lock(&shared.pongs).push_back(None);
                shared.outgoing.send_now(b"PING\r\n");
            }
        }
    }
}

impl Shared {
    fn take(&self, operation: Operation, last_words: &mut Option<String>) {
        match operation {
            Operation::Message(ANSWERS_SID, answer) => self.answer(answer),
            Operation::Message(sid, delivery) => {
                let feeds = lock(&self.feeds);
                // None for what was on its way when its subscription ended.
                if feeds.get(&sid).is_some_and(|feed| !feed.put(delivery)) {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Operation::Ping => self.outgoing.send_now(b"PONG\r\n"),
            Operation::Pong => {
                if let Some(Some(answered)) = lock(&self.pongs).pop_front() {
                    // An error means that nobody waits any more.
                    let _ = answered.send(());
                }
            }
            Operation::Error(words) => {
                if Denial::read(&words).is_none() {
                    *last_words = Some(words.clone());
                }
                self.note(words);
                return;
            }
            Operation::Info(json) => match serde_json::from_slice(&json) {
                Ok(info) => *lock(&self.info) = info,
                Err(error) => tracing::debug!(%error, "what the server says of itself can't be read"),
            },
            Operation::Ok => {}
        }
        *last_words = None;
    }

    fn answer(&self, answer: Delivery) {
        let number = answer.subject.strip_prefix(self.inbox.as_bytes());
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        if let Some(asked) = number.and_then(|number: u64| lock(&self.requests).remove(&number)) {
            let _ = asked.send(answer);
        }
    }

    fn note(&self, words: String) {
        let mut errors = lock(&self.errors);
        if errors.len() < SERVER_ERRORS_MAX && !errors.contains(&words) {
            errors.push_back(words);
        }
        drop(errors);
        self.changed();
    }

    fn ended(&self, last_words: Option<String>, error: &io::Error) -> String {
        match last_words {
            Some(words) => format!("the connection to {} has ended; the server says: {words}", self.url),
            None => lost(error),
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::settings::TlsSettings;
    use crate::source::nats::wire::Identity;

    const INFO: &[u8] = b"INFO {\"max_payload\":1024,\"version\":\"2.9.10\",\"headers\":true}\r\n";

    /// A server that takes the client, and its end of the connection.
    async fn taken() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (identity, tls) = (Identity::Anonymous, TlsSettings::default());
        let terms = Terms { name: "test", identity: &identity, tls: &tls, tls_required: false };
        let greeted = async {
            let (mut server, _) = listener.accept().await.unwrap();
            server.write_all(INFO).await.unwrap();
            said(&mut server, "PING\r\n").await;
            server.write_all(b"PONG\r\n").await.unwrap();
            server
        };
        let (wire, server) = tokio::join!(Wire::connect(&url, &terms), greeted);
        (wire.unwrap(), server)
    }

    /// Reads until the client has said this.
    async fn said(server: &mut TcpStream, words: &str) -> String {
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(words) {
            assert!(server.read_buf(&mut bytes).await.unwrap() > 0, "the client has gone");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn a_server_that_talks_nonsense_or_goes_is_told_in_words() {
        let check = async |bytes: &[u8], expected: &str| {
            let (wire, mut server) = taken().await;
            let mut changes = wire.changes();
            server.write_all(bytes).await.unwrap();
            drop(server);
            while wire.end().is_none() {
                changes.changed().await.unwrap();
            }
            let end = wire.end().unwrap();
            assert!(end.contains(expected), "{end}");
            assert!(wire.outgoing().send(|_| ()).await.is_err() && !wire.round_trip().await);
        };
        check(b"", "the connection was lost").await;
        check(b"HTTP/1.1 400 Bad\r\n", "the server says what is not NATS: HTTP/1.1 400 Bad").await;
        check(b"MSG a 2 99999999999\r\n", "larger than NATS allows").await;
        check(b"-ERR 'Slow Consumer'\r\n", "has ended; the server says: Slow Consumer").await;
        check(b"-ERR 'Permissions Violation for Publish to \"a\"'\r\n", "the connection was lost").await;
    }

    #[tokio::test]
    async fn messages_that_were_sent_before_the_end_are_not_lost() {
        let (wire, mut server) = taken().await;
        let (feed, mut queue) = wire.queue();
        wire.subscribe("e.>", Some("q"), &feed).await.unwrap();
        assert!(said(&mut server, "SUB").await.contains("SUB e.> q 2\r\n"));
        server.write_all(b"MSG e.a 2 1\r\n1\r\nMSG e.a 9 1\r\nx\r\nHMSG \xff 2 r 0 1\r\n2\r\n").await.unwrap();
        drop(server);
        let mut bodies = Vec::new();
        while let Some(chunk) = queue.next().await {
            bodies.extend(chunk.into_iter().map(|delivery| delivery.payload));
        }
        assert_eq!(bodies, ["1", "2"]);
    }

    #[tokio::test]
    async fn an_answer_finds_who_asked_and_nobody_is_told_apart_by_its_status() {
        let (wire, mut server) = taken().await;
        let asked = wire.request("a", b"?", Duration::from_secs(60));
        let answered = async {
            let words = said(&mut server, "?\r\n").await;
            let reply =
                words.split_whitespace().find(|word| word.starts_with("_INBOX.") && word.ends_with(".0")).unwrap();
            server.write_all(format!("MSG {reply} 1 1\r\n!\r\n").as_bytes()).await.unwrap();
        };
        assert_eq!(tokio::join!(asked, answered).0, Ok(Bytes::from_static(b"!")));
        let asked = wire.request("a", b"?", Duration::from_secs(60));
        let answered = async {
            let words = said(&mut server, "?\r\n").await;
            let reply = words.split_whitespace().find(|word| word.ends_with(".1")).unwrap();
            let block = "NATS/1.0 503\r\n\r\n";
            let length = block.len();
            server.write_all(format!("HMSG {reply} 1 {length} {length}\r\n{block}\r\n").as_bytes()).await.unwrap();
        };
        assert_eq!(tokio::join!(asked, answered).0, Err(RequestError::NoResponders));
    }
}
