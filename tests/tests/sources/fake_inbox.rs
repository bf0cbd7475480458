//! An inbox that a test can hold, fail and look into, and a source running into it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wirehook::drain::{self, DrainHandle};
use wirehook::event::Message;
use wirehook::source::{Accept, AcceptError, Source, SourceError, SourceState, SourceStatus};
use wirehook::store::{Acceptance, EventSeq, StoreError};

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What the inbox does with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Accept,
    Hold,
    Fail,
    Closed,
}

/// What the inbox has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Messages handed over, accepted or not.
    pub(crate) offered: usize,
    /// Where the messages stand at the bus, in the order in which they were handed over.
    pub(crate) positions: Vec<Option<String>>,
    /// Batches handed over, accepted or not.
    pub(crate) batches: usize,
    /// Batches refused.
    pub(crate) refused: usize,
    /// Messages accepted, in order, each time they came.
    pub(crate) accepted: Vec<Message>,
}

impl Seen {
    /// The bodies accepted, each once, as text.
    pub(crate) fn bodies(&self) -> HashSet<String> {
        self.accepted.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
    }
}

pub(crate) struct FakeInbox {
    mode: watch::Sender<Mode>,
    seen: watch::Sender<Seen>,
    keys: Mutex<HashSet<String>>,
    cursor: Mutex<Option<Bytes>>,
}

impl FakeInbox {
    pub(crate) fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self {
            mode: watch::Sender::new(mode),
            seen: watch::Sender::default(),
            keys: Mutex::default(),
            cursor: Mutex::default(),
        })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what the inbox has seen satisfies `condition`.
    pub(crate) async fn until(&self, what: &str, mut condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        let found = tokio::time::timeout(DEADLINE, seen.wait_for(|seen| condition(seen))).await;
        match found {
            Ok(found) => found.unwrap().clone(),
            Err(_) => {
                let seen = self.seen();
                panic!("{what}: not seen; offered {}, accepted {}", seen.offered, seen.accepted.len())
            }
        }
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
            self.seen.send_modify(|seen| {
                seen.offered += messages.len();
                seen.batches += 1;
                seen.positions.extend(messages.iter().map(|message| message.position.clone()));
            });
            let mut mode = self.mode.subscribe();
            let mode = *mode.wait_for(|mode| *mode != Mode::Hold).await.unwrap();
            if mode != Mode::Accept {
                self.seen.send_modify(|seen| seen.refused += 1);
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
            self.seen.send_modify(|seen| seen.accepted.extend(messages));
            Ok(acceptances)
        })
    }
}

/// A source at work.
pub(crate) struct Running {
    pub(crate) state: SourceState,
    pub(crate) drain: DrainHandle,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    pub(crate) fn start(source: Box<dyn Source>, inbox: &Arc<FakeInbox>) -> Self {
        let state = SourceState::new("bus".into(), "test");
        let (handle, drain) = drain::channel();
        let task = tokio::spawn(source.run(Arc::clone(inbox) as Arc<dyn Accept>, state.clone(), drain));
        Self { state, drain: handle, task }
    }

    /// Waits until the source's status satisfies `condition`.
    pub(crate) async fn until(&self, what: &str, mut condition: impl FnMut(&SourceStatus) -> bool) -> SourceStatus {
        let mut status = self.state.on_change();
        match tokio::time::timeout(DEADLINE, status.wait_for(|status| condition(status))).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("{what}: not seen; the source is {:?}", self.state.status()),
        }
    }

    pub(crate) async fn connected(&self) -> SourceStatus {
        self.until("connected", |status| status.connected).await
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the source's own end.
    pub(crate) async fn ended(self) -> Result<(), SourceError> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the source did not end").unwrap()
    }

    /// Begins the drain and waits for its end.
    pub(crate) async fn drained(self) -> Result<(), SourceError> {
        self.drain.begin();
        self.ended().await
    }
}

/// Looks again and again until `look` finds something, for what gives no signal.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("{what}: not seen"))
}
