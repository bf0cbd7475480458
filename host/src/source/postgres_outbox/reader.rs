//! The source at work: sessions with the server, one after another, each a loop of looking, reading and handing over.

mod ear;
mod offer;
mod pace;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio_postgres::Client;

use self::ear::Ear;
use self::offer::{Offer, Offered};
use self::pace::{PAUSE_MIN, Pace};
use super::cursor::{Cursor, Met, TableIdentity};
use super::frontier::Frontier;
use super::rows::Content;
use super::sitting::Sitting;
use super::table::Condition;
use super::{PostgresOutboxSource, begin};
use crate::drain::Drain;
use crate::event::Message;
use crate::source::postgres::connection::{Overflow, Session};
use crate::source::{Accept, AcceptError, Backoff, SourceError, SourceState};

/// A session begins with a cursor, so that this is never said.
const UNKNOWN_PLACE: &str = "the place in the table is not known; it is looked up again";

/// Why a session ended.
enum SessionEnd {
    Drained,
    InboxClosed,
    Failed(String),
}

impl From<String> for SessionEnd {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

/// A running source.
pub(super) struct Reader {
    source: PostgresOutboxSource,
    inbox: Arc<dyn Accept>,
    state: SourceState,
    drain: Drain,
    backoff: Backoff,
    /// Where everything that has been handed over ends; loaded from the store where it isn't known.
    cursor: Option<Cursor>,
    /// The cursor says what the store has to know, though there may be no rows to go with it.
    unsaved: bool,
    offer: Option<Offer>,
    sessions: usize,
}

impl Reader {
    pub(super) fn new(source: PostgresOutboxSource, inbox: Arc<dyn Accept>, state: SourceState, drain: Drain) -> Self {
        let backoff = Backoff::new();
        Self { source, inbox, state, drain, backoff, cursor: None, unsaved: false, offer: None, sessions: 0 }
    }

    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let drain = self.drain.clone();
        let mut closed = false;
        while !drain.is_draining() && !closed {
            let end = tokio::select! {
                biased;
                () = drain.begun() => SessionEnd::Drained,
                Err(end) = self.session() => end,
            };
            self.state.disconnected();
            match end {
                SessionEnd::Drained => {}
                SessionEnd::InboxClosed => closed = true,
                SessionEnd::Failed(error) => {
                    self.state.failed(&error);
                    self.backoff.wait(&drain).await;
                }
            }
        }
        closed |= matches!(self.offer_ended().await, Err(SessionEnd::InboxClosed));
        if closed && !drain.is_draining() {
            return Err(SourceError::InboxClosed { name: self.source.name });
        }
        Ok(())
    }

    async fn session(&mut self) -> Result<Infallible, SessionEnd> {
        self.load().await?;
        let application = format!("wirehook-{}", self.source.name);
        let mut session = Session::connect(&self.source.connection, &application, Overflow::Drop).await?;
        let mut sitting = self.sit_down(&session.client).await?;
        if self.sessions > 0 {
            self.state.reconnected();
        }
        self.sessions += 1;
        self.state.connected();
        let (mut pace, mut ear) = (Pace::new(), Ear::new(&self.source.channel, session.direct));
        loop {
            if sitting.look_due().now_or_never().is_some() {
                self.look(&mut sitting, &session.client).await?;
            }
            let (found_rows, more) = self.round(&mut sitting, &session.client).await?;
            self.backoff.reset();
            if more {
                continue;
            }
            let pause = pace.after(found_rows);
            if !ear.turn(&session, pause, &self.source.name).await? {
                self.pause(pause, &mut session).await?;
            }
        }
    }

    /// The cursor as the store has it, where it isn't known.
    async fn load(&mut self) -> Result<(), SessionEnd> {
        if self.cursor.is_some() {
            return Ok(());
        }
        match self.inbox.cursor(&self.source.name).await {
            Ok(None) => Ok(()),
            Ok(Some(bytes)) => {
                self.cursor = Some(Cursor::decode(&bytes).map_err(|error| error.to_string())?);
                Ok(())
            }
            Err(AcceptError::Closed) => Err(SessionEnd::InboxClosed),
            Err(error) => Err(SessionEnd::Failed(error.to_string())),
        }
    }

    /// Finds the table and the place in it.
    async fn sit_down(&mut self, client: &Client) -> Result<Sitting, String> {
        let (mut sitting, condition) = Sitting::new(client, &self.source.table, self.source.event_bytes_max).await?;
        let source = &self.source.name;
        for warning in sitting.warnings() {
            tracing::warn!(source = %source, table = %self.source.table, "{warning}");
        }
        match &mut self.cursor {
            Some(cursor) if cursor.name == self.source.table.to_string() => {
                cursor.frontier.forget_looks();
                self.meet(&mut sitting, condition);
            }
            _ => self.begin(&sitting, client, condition.identity).await?,
        }
        Ok(sitting)
    }

    /// Begins with a table that was never read.
    async fn begin(&mut self, sitting: &Sitting, client: &Client, table: TableIdentity) -> Result<(), String> {
        let rows = &sitting.table.rows;
        let frontier = begin::frontier(client, rows, self.source.start).await?;
        let (source, name) = (&self.source.name, self.source.table.to_string());
        match frontier.high() {
            Frontier::NOTHING => tracing::info!(source = %source, table = name, "begins with the first row"),
            high => {
                let skipped = begin::skipped(client, rows, high).await?;
                tracing::info!(source = %source, table = name, key = high, skipped, "begins after this key; the rows up to it are skipped");
            }
        }
        let generation = self.cursor.as_ref().map_or(0, |cursor| cursor.generation + 1);
        self.cursor = Some(Cursor { name, generation, table, frontier });
        self.unsaved = true;
        Ok(())
    }

    /// Meets the table again.
    fn meet(&mut self, sitting: &mut Sitting, table: Condition) {
        let Some(cursor) = &mut self.cursor else { return };
        let met = cursor.meet(table.identity, table.first_key);
        if met == Met::Same {
            return;
        }
        let (source, key) = (&self.source.name, cursor.frontier.high());
        match met {
            Met::Same => {}
            Met::Restored => {
                tracing::warn!(source = %source, table = cursor.name, key, "the table was made again, and its sequence goes on: rows after this key are read");
            }
            Met::SteppedBack => {
                tracing::warn!(source = %source, table = cursor.name, key, "the server has lost its last commits: keys after this one are read again");
            }
            Met::BegunAnew => {
                tracing::warn!(source = %source, table = cursor.name, "the table's keys began anew: it is read from its first row on");
            }
        }
        sitting.forget_looks();
        cursor.frontier.forget_looks();
        self.unsaved = true;
    }

    /// Looks at what may have changed, and at who may own the gaps seen so far.
    async fn look(&mut self, sitting: &mut Sitting, client: &Client) -> Result<(), String> {
        let condition = sitting.condition(client).await?;
        self.meet(sitting, condition);
        if let Some(cursor) = &mut self.cursor {
            sitting.look(client, &mut cursor.frontier, condition.identity.drawn).await?;
        }
        Ok(())
    }

    /// Reads a batch, waits until the one before is in the store, and hands it over. Whether there were rows, and whether
    /// there are more.
    async fn round(&mut self, sitting: &mut Sitting, client: &Client) -> Result<(bool, bool), SessionEnd> {
        let Some(cursor) = &mut self.cursor else { return Err(SessionEnd::Failed(UNKNOWN_PLACE.to_owned())) };
        let found = sitting.read(client, &mut cursor.frontier).await?;
        if !found.is_empty() || self.unsaved {
            self.offer_ended().await?;
        }
        let Some(cursor) = &mut self.cursor else { return Err(SessionEnd::Failed(UNKNOWN_PLACE.to_owned())) };
        // Nothing is awaited between noting the rows and offering them: a drain may end everything at any await.
        let (rows, more) = found.note(&mut cursor.frontier);
        let found_rows = !rows.is_empty();
        if found_rows || self.unsaved {
            let position = format!("{}:{}", cursor.name, cursor.generation);
            let subject: Arc<str> = cursor.name.as_str().into();
            let messages = rows.into_iter().map(|(key, content)| message(&subject, &position, key, content)).collect();
            let (bytes, name) = (cursor.encode().into(), Arc::clone(&self.source.name));
            let (inbox, state, drain) = (Arc::clone(&self.inbox), self.state.clone(), self.drain.clone());
            self.unsaved = false;
            self.offer = Some(Offer::begin(name, messages, bytes, inbox, state, drain).await);
        }
        Ok((found_rows, more))
    }

    /// Waits until the batch on its way is in the store.
    async fn offer_ended(&mut self) -> Result<(), SessionEnd> {
        let Some(offer) = &mut self.offer else { return Ok(()) };
        let offered = offer.ended().await;
        self.offer = None;
        match offered {
            Offered::Kept => Ok(()),
            Offered::Closed => Err(SessionEnd::InboxClosed),
            Offered::GivenUp => Err(SessionEnd::Drained),
            Offered::Lost(panic) => {
                // The store knows how far it got.
                self.cursor = None;
                Err(SessionEnd::Failed(AcceptError::Failed(panic).to_string()))
            }
        }
    }

    /// Waits, until somebody says that there are rows, but for [`PAUSE_MIN`] at least.
    async fn pause(&mut self, pause: Duration, session: &mut Session) -> Result<(), SessionEnd> {
        tokio::time::sleep(PAUSE_MIN).await;
        tokio::select! {
            biased;
            notified = session.notifications.recv() => if notified.is_none() {
                return Err(SessionEnd::Failed(session.end.why().await));
            },
            ended = self.offer_ended(), if self.offer.is_some() => return ended,
            () = tokio::time::sleep(pause.saturating_sub(PAUSE_MIN)) => {}
        }
        // One read serves all who have said so.
        while session.notifications.try_recv().is_ok() {}
        Ok(())
    }
}

/// A row as the inbox takes it.
fn message(subject: &Arc<str>, position: &str, key: i64, content: Content) -> Message {
    let payload = match content {
        Content::Json(json) => json,
        // This is no JSON, and so it becomes a dead letter that says why.
        Content::Unreadable(error) => format!("the row {key} can't be read: {error}").into(),
    };
    Message { subject: Arc::clone(subject), payload, headers: Vec::new(), position: Some(format!("{position}:{key}")) }
}
