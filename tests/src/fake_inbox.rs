//! An inbox that a test can hold, fail and look into, and a source running into it.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that can't go on fails there")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, interval};
use wirehook::drain::{self, DrainHandle};
use wirehook::event::Message;
use wirehook::settings::{self, Environment};
use wirehook::source::{self, Accept, AcceptError, Source, SourceError, SourceState, SourceStatus};
use wirehook::store::{Acceptance, EventSeq, StoreError};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often [`eventually`] looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Between two batches of [`Mode::Slow`].
const SLOW_INTERVAL: Duration = Duration::from_millis(5);

/// What the inbox does with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Accepts it at once.
    Accept,
    /// Accepts one batch after another, with a pause between: far slower than a bus hands them over.
    Slow,
    /// Keeps it waiting until there is another mode.
    Hold,
    /// Refuses it, as a store does whose commit failed.
    Fail,
    /// Refuses it for good.
    Closed,
}

/// What was handed over and is neither accepted nor refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Batches.
    pub batches: usize,
    /// Their messages.
    pub messages: usize,
    /// The bytes of their bodies.
    pub bytes: usize,
}

/// What the inbox has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Messages handed over, accepted or not.
    pub offered: usize,
    /// Where the messages stand at the bus, in the order in which they were handed over.
    pub positions: Vec<Option<String>>,
    /// Batches handed over, accepted or not.
    pub batches: usize,
    /// Batches refused.
    pub refused: usize,
    /// Messages accepted, in order, each time they came.
    pub accepted: Vec<Message>,
    /// What waits now.
    pub waiting: Waiting,
    /// The most of each that ever waited.
    pub waiting_most: Waiting,
}

impl Seen {
    /// The bodies accepted, each once, as text.
    pub fn bodies(&self) -> HashSet<String> {
        self.accepted.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
    }

    fn offer(&mut self, messages: &[Message]) {
        self.offered += messages.len();
        self.batches += 1;
        self.positions.extend(messages.iter().map(|message| message.position.clone()));
        self.waiting.batches += 1;
        self.waiting.messages += messages.len();
        self.waiting.bytes += bytes(messages);
        self.waiting_most.batches = self.waiting_most.batches.max(self.waiting.batches);
        self.waiting_most.messages = self.waiting_most.messages.max(self.waiting.messages);
        self.waiting_most.bytes = self.waiting_most.bytes.max(self.waiting.bytes);
    }

    fn settle(&mut self, messages: &[Message]) {
        self.waiting.batches -= 1;
        self.waiting.messages -= messages.len();
        self.waiting.bytes -= bytes(messages);
    }
}

fn bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.payload.len()).sum()
}

/// Takes messages from a source, and tells a test.
#[derive(Debug)]
pub struct FakeInbox {
    mode: watch::Sender<Mode>,
    seen: watch::Sender<Seen>,
    keys: Mutex<HashSet<String>>,
    cursor: Mutex<Option<Bytes>>,
    pace: tokio::sync::Mutex<Option<Interval>>,
}

impl FakeInbox {
    /// An inbox in `mode`, without a cursor.
    pub fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self {
            mode: watch::Sender::new(mode),
            seen: watch::Sender::default(),
            keys: Mutex::default(),
            cursor: Mutex::default(),
            pace: tokio::sync::Mutex::default(),
        })
    }

    /// What a host finds that is started again: the cursor, and nothing of what waited.
    pub fn after_a_kill(&self, mode: Mode) -> Arc<Self> {
        let next = Self::new(mode);
        *next.cursor.lock().unwrap() = self.cursor.lock().unwrap().clone();
        next
    }

    /// From now on, for the batches that wait too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what the inbox has seen satisfies `condition`.
    pub async fn until(&self, what: &str, condition: impl FnMut(&Seen) -> bool) -> Seen {
        match tokio::time::timeout(DEADLINE, self.changed(condition)).await {
            Ok(found) => found.unwrap(),
            Err(_) => {
                let seen = self.seen();
                panic!("{what}: not seen; offered {}, accepted {}", seen.offered, seen.accepted.len())
            }
        }
    }

    /// The same for as long as it takes.
    ///
    /// # Errors
    /// None while there is an inbox.
    pub async fn changed(&self, mut condition: impl FnMut(&Seen) -> bool) -> anyhow::Result<Seen> {
        let mut seen = self.seen.subscribe();
        let found = seen.wait_for(|seen| condition(seen)).await?;
        Ok(found.clone())
    }

    async fn pause(&self) {
        let mut pace = self.pace.lock().await;
        pace.get_or_insert_with(|| interval(SLOW_INTERVAL)).tick().await;
    }
}

impl Accept for FakeInbox {
    fn cursor(&self, _: &Arc<str>) -> BoxFuture<'_, Result<Option<Bytes>, AcceptError>> {
        Box::pin(async { Ok(self.cursor.lock().unwrap().clone()) })
    }

    fn accept_at(
        &self,
        _: &Arc<str>,
        messages: Vec<Message>,
        cursor: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Vec<Acceptance>, AcceptError>> {
        Box::pin(async move {
            self.seen.send_modify(|seen| seen.offer(&messages));
            let mut mode = self.mode.subscribe();
            let mode = *mode.wait_for(|mode| *mode != Mode::Hold).await.unwrap();
            if mode == Mode::Slow {
                self.pause().await;
            }
            if !matches!(mode, Mode::Accept | Mode::Slow) {
                self.seen.send_modify(|seen| {
                    seen.refused += 1;
                    seen.settle(&messages);
                });
                let error = AcceptError::Store(StoreError::Commit("the disk is full".to_owned()));
                return Err(if mode == Mode::Fail { error } else { AcceptError::Closed });
            }
            if cursor.is_some() {
                *self.cursor.lock().unwrap() = cursor;
            }
            let mut keys = self.keys.lock().unwrap();
            let fresh = |message: &Message| match &message.position {
                Some(position) if !keys.insert(position.clone()) => Acceptance::Duplicate,
                _ => Acceptance::Fresh(EventSeq(1)),
            };
            let acceptances = messages.iter().map(fresh).collect();
            self.seen.send_modify(|seen| {
                seen.settle(&messages);
                seen.accepted.extend(messages);
            });
            Ok(acceptances)
        })
    }
}

/// The first `[[source]]` of these settings.
pub fn build(settings: &str) -> anyhow::Result<Box<dyn Source>> {
    let loaded = settings::parse(Path::new("wirehook.toml"), settings, &Environment::of(&[], "."))?;
    let source = loaded.settings.sources.first().context("there is no [[source]]")?;
    Ok(source::build(source, &loaded.settings.limits)?)
}

/// A source at work.
#[derive(Debug)]
pub struct Running {
    /// What it says of itself.
    pub state: SourceState,
    /// Tells it to drain.
    pub drain: DrainHandle,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    /// Starts a source that pushes into `inbox`.
    pub fn start(source: Box<dyn Source>, inbox: &Arc<FakeInbox>) -> Self {
        let state = SourceState::new("bus".into(), "test");
        let (handle, drain) = drain::channel();
        let task = tokio::spawn(source.run(Arc::clone(inbox) as Arc<dyn Accept>, state.clone(), drain));
        Self { state, drain: handle, task }
    }

    /// Waits until the source's status satisfies `condition`.
    pub async fn until(&self, what: &str, mut condition: impl FnMut(&SourceStatus) -> bool) -> SourceStatus {
        let mut status = self.state.on_change();
        match tokio::time::timeout(DEADLINE, status.wait_for(|status| condition(status))).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("{what}: not seen; the source is {:?}", self.state.status()),
        }
    }

    /// Waits until it is connected.
    pub async fn connected(&self) -> SourceStatus {
        self.until("connected", |status| status.connected).await
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends it as a killed host ends: in the midst of what it does.
    pub async fn killed(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Waits for the source's own end.
    pub async fn ended(self) -> Result<(), SourceError> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the source did not end").unwrap()
    }

    /// Begins the drain and waits for its end.
    pub async fn drained(self) -> Result<(), SourceError> {
        self.drain.begin();
        self.ended().await
    }
}

/// Looks again and again until `look` finds something, for what gives no signal.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let mut pace = interval(LOOK_INTERVAL);
    let search = async {
        loop {
            pace.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("{what}: not seen"))
}
