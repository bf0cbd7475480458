//! What an operator sees of a source: written by the source, read by `/readyz`, `status` and metrics.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::metrics::DoorMetrics;
use crate::sync::lock;

/// A shared view of one source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SourceState {
    name: Arc<str>,
    kind: &'static str,
    status: Arc<watch::Sender<SourceStatus>>,
    /// As many as the source has in flight at most.
    set_aside: Arc<Mutex<VecDeque<Arc<str>>>>,
    door: Option<DoorMetrics>,
}

/// A message that could not be read as it stood. Dropped once it is durable, or is to come again.
#[derive(Debug)]
pub(super) struct SetAside {
    state: SourceState,
    what: Arc<str>,
}

impl Drop for SetAside {
    fn drop(&mut self) {
        let mut all = lock(&self.state.set_aside);
        if let Some(index) = all.iter().position(|what| Arc::ptr_eq(what, &self.what)) {
            all.remove(index);
        }
        self.state.show_first(&all);
    }
}

/// How a source is.
#[derive(Clone, Debug, Default)]
pub struct SourceStatus {
    /// Whether events can come in now.
    pub connected: bool,
    /// Whether its input has ended, so that it is not connected for a good reason.
    pub ended: bool,
    /// Whether an operator has it paused: it has stopped, and is not connected for a good reason.
    pub paused: bool,
    /// What went wrong last; gone once it is connected and accepting again.
    pub last_error: Option<Arc<str>>,
    /// How often it connected again.
    pub reconnects: u64,
    /// How often its connection was lost where the bus keeps nothing: what is published until it is connected again is lost,
    /// and nobody can count it.
    pub interruptions: u64,
    /// Messages that the bus handed over and that were lost, where the bus can't hand them over again. A lower bound.
    pub messages_lost: u64,
    /// Where it listens, for those that listen.
    pub address: Option<SocketAddr>,
    /// A message that could not be read as it stood, until it is durable: as the event that its body is, or as a dead
    /// letter. In words, with its place at the bus.
    pub set_aside: Option<Arc<str>>,
    /// Lines of headers that were none, and were left out.
    pub headers_dropped: u64,
    /// Delete markers, which a server puts in place of messages that are gone; they are acknowledged and no events.
    pub delete_markers: u64,
}

impl SourceStatus {
    /// Whether it is connected, or not for a good reason, and nothing that it could not read waits to be kept.
    pub fn is_ready(&self) -> bool {
        (self.connected && self.set_aside.is_none()) || self.ended || self.paused
    }

    /// What an operator is to know: a message that is set aside, or what went wrong last.
    pub fn trouble(&self) -> Option<&Arc<str>> {
        self.set_aside.as_ref().or(self.last_error.as_ref())
    }

    /// Whether it will bring nothing more by itself.
    pub fn is_done(&self) -> bool {
        self.ended || self.paused
    }

    /// In a word: `connected`, `disconnected`, `paused` or `ended`.
    pub fn word(&self) -> &'static str {
        match self {
            Self { paused: true, .. } => "paused",
            Self { ended: true, .. } => "ended",
            Self { connected: true, .. } => "connected",
            _ => "disconnected",
        }
    }
}

impl SourceState {
    /// The state of a source that has not begun. `kind` is its name in the settings.
    pub fn new(name: Arc<str>, kind: &'static str) -> Self {
        let status = Arc::new(watch::Sender::new(SourceStatus::default()));
        Self { name, kind, status, set_aside: Arc::default(), door: None }
    }

    /// With the metrics of its listener, for those that listen.
    #[must_use]
    pub fn with_door(self, door: DoorMetrics) -> Self {
        Self { door: Some(door), ..self }
    }

    pub(super) fn door(&self) -> Option<&DoorMetrics> {
        self.door.as_ref()
    }

    /// The source's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The source's kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// How it is now.
    pub fn status(&self) -> SourceStatus {
        self.status.borrow().clone()
    }

    /// Whether it is ready: connected, or not for a good reason.
    pub fn is_ready(&self) -> bool {
        self.status.borrow().is_ready()
    }

    /// Tells of every change from now on.
    pub fn on_change(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    pub(super) fn connected(&self) {
        self.status.send_modify(|status| {
            status.connected = true;
            status.last_error = None;
        });
    }

    pub(super) fn disconnected(&self) {
        self.status.send_if_modified(|status| std::mem::replace(&mut status.connected, false));
    }

    /// The connection to a bus that keeps nothing is lost, or could not be made.
    pub(super) fn cut_off(&self, error: &dyn fmt::Display) {
        let was_connected = self.status.send_if_modified(|status| {
            let was_connected = std::mem::replace(&mut status.connected, false);
            status.interruptions += u64::from(was_connected);
            was_connected
        });
        self.failed(error);
        if was_connected {
            tracing::error!(
                source = %self.name, kind = self.kind, error = %error,
                "the connection was lost: what was published since the server was heard last is lost, and what is published \
                 until it is connected again, since the bus keeps nothing"
            );
        }
    }

    /// It has stopped because an operator wanted it to, or begins again.
    pub(super) fn paused(&self, paused: bool) {
        let changed = self.status.send_if_modified(|status| {
            let changed = std::mem::replace(&mut status.paused, paused) != paused;
            if changed {
                status.connected = false;
                status.last_error = None;
            }
            changed
        });
        if changed {
            let text = if paused { "the source is paused" } else { "the source is resumed" };
            tracing::info!(source = %self.name, kind = self.kind, "{text}");
        }
    }

    pub(super) fn reconnected(&self) {
        self.status.send_modify(|status| status.reconnects += 1);
    }

    /// Notes and logs a failure that will be tried again; the same failure in a row is logged once.
    pub(super) fn failed(&self, error: &dyn fmt::Display) {
        let error: Arc<str> = error.to_string().into();
        let news = self.status.send_if_modified(|status| {
            let news = status.last_error.as_ref() != Some(&error);
            status.last_error = Some(Arc::clone(&error));
            news
        });
        if news {
            tracing::warn!(source = %self.name, kind = self.kind, error = %error, "the source failed and tries again");
        }
    }

    /// Forgets the last error: what failed works again. While it is not connected the last error is why, which an inbox
    /// that accepts what came before does not change.
    pub(super) fn recovered(&self) {
        let recovered = self.status.send_if_modified(|status| status.connected && status.last_error.take().is_some());
        if recovered {
            tracing::info!(source = %self.name, kind = self.kind, "the source works again");
        }
    }

    pub(super) fn lost(&self, messages: usize, why: &dyn fmt::Display) {
        if messages == 0 {
            return;
        }
        self.status.send_modify(|status| status.messages_lost += messages as u64);
        tracing::error!(source = %self.name, kind = self.kind, messages, error = %why, "messages were lost");
    }

    /// Notes a message that could not be read as it stood, until what is returned is dropped.
    pub(super) fn set_aside(&self, what: String) -> SetAside {
        let what: Arc<str> = what.into();
        let mut all = lock(&self.set_aside);
        // Those that come with it, or before it is kept, say nothing new.
        if all.is_empty() {
            tracing::warn!(source = %self.name, kind = self.kind, "{what}; its body is taken for the event");
        }
        all.push_back(Arc::clone(&what));
        self.show_first(&all);
        SetAside { state: self.clone(), what }
    }

    /// Notes lines of headers that are left out.
    pub(super) fn headers_dropped(&self, lines: usize) {
        if lines > 0 {
            self.status.send_modify(|status| status.headers_dropped += lines as u64);
        }
    }

    /// Notes delete markers that are passed over.
    pub(super) fn delete_markers(&self, markers: usize) {
        if markers > 0 {
            self.status.send_modify(|status| status.delete_markers += markers as u64);
        }
    }

    fn show_first(&self, all: &VecDeque<Arc<str>>) {
        let first = all.front().cloned();
        self.status.send_if_modified(|status| {
            let changed = status.set_aside != first;
            status.set_aside = first;
            changed
        });
    }

    pub(super) fn listening(&self, address: SocketAddr) {
        self.status.send_modify(|status| status.address = Some(address));
        tracing::info!(source = %self.name, kind = self.kind, %address, "listening");
    }

    pub(super) fn ended(&self) {
        self.status.send_modify(|status| {
            status.connected = false;
            status.ended = true;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_and_errors_are_forgotten_when_it_works_again() {
        let state = SourceState::new("bus".into(), "nats");
        let mut changes = state.on_change();
        assert!(!state.is_ready());
        state.failed(&"down");
        assert!(changes.has_changed().unwrap());
        assert_eq!(changes.borrow_and_update().last_error.as_deref(), Some("down"));
        state.failed(&"down");
        assert!(!changes.has_changed().unwrap());
        state.connected();
        assert!(state.is_ready() && state.status().last_error.is_none());
        state.disconnected();
        state.failed(&"down again");
        state.recovered();
        assert_eq!(state.status().last_error.as_deref(), Some("down again"), "an accepted batch brings no bus back");
        state.connected();
        state.failed(&"the disk is full");
        state.recovered();
        assert_eq!(state.status().last_error, None);
        state.cut_off(&"gone");
        state.cut_off(&"still gone");
        assert_eq!((state.status().interruptions, state.is_ready()), (1, false), "it can be lost once");
        state.connected();
        state.lost(0, &"nothing");
        state.lost(3, &"the inbox is closed");
        assert_eq!(state.status().messages_lost, 3);
        state.ended();
        assert!(state.is_ready() && !state.status().connected);
    }

    #[test]
    fn a_message_that_is_set_aside_is_named_until_it_is_kept() {
        let state = SourceState::new("bus".into(), "nats");
        state.connected();
        let (first, second) = (state.set_aside("message 7".to_owned()), state.set_aside("message 8".to_owned()));
        let shown = |expected: Option<&str>| {
            assert_eq!(state.status().trouble().map(|it| &**it), expected);
            assert_eq!(state.is_ready(), expected.is_none());
        };
        shown(Some("message 7"));
        drop(first);
        shown(Some("message 8"));
        drop(second);
        shown(None);
    }

    #[test]
    fn a_paused_source_is_ready_and_forgets_why_it_was_not_connected() {
        let state = SourceState::new("bus".into(), "nats");
        let check = |word, ready| assert_eq!((state.status().word(), state.is_ready()), (word, ready));
        check("disconnected", false);
        state.failed(&"down");
        state.paused(true);
        check("paused", true);
        assert_eq!(state.status().last_error, None);
        let mut changes = state.on_change();
        changes.mark_unchanged();
        state.paused(true);
        assert!(!changes.has_changed().unwrap(), "twice is once");
        state.paused(false);
        check("disconnected", false);
        state.connected();
        check("connected", true);
        state.ended();
        check("ended", true);
    }
}
