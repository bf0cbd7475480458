//! Reads the rows that notifications name, in a session of its own: the one that listens can't be asked anything while
//! the inbox is slow.

use bytes::Bytes;

use super::connection::{Overflow, Session};
use super::row::{RowError, RowReader};
use crate::drain::Drain;
use crate::settings::{PostgresConnection, TableName};
use crate::source::Backoff;

/// How often rows are asked for until they are lost, each time in a new session; with the delays between, some six seconds.
pub const READ_TRIES_MAX: usize = 7;

/// Where rows are read, from the first key on.
pub(super) struct Lookup<'s> {
    pub(super) connection: &'s PostgresConnection,
    pub(super) application_name: String,
    pub(super) table: &'s TableName,
    pub(super) event_bytes_max: usize,
    opened: Option<(Session, RowReader)>,
}

impl<'s> Lookup<'s> {
    /// Connects only when there is a key to look up.
    pub(super) fn new(
        source: &str,
        connection: &'s PostgresConnection,
        table: &'s TableName,
        event_bytes_max: usize,
    ) -> Self {
        Self { connection, application_name: format!("wirehook-{source}-rows"), table, event_bytes_max, opened: None }
    }

    /// The rows of the first of `keys`, as [`RowReader::read`] has it.
    ///
    /// # Errors
    ///
    /// The table can't be read, or the tries are spent.
    pub(super) async fn read(&mut self, keys: &[i64], drain: &Drain) -> Result<Vec<Option<Bytes>>, RowError> {
        let mut backoff = Backoff::new();
        let mut tries_left = READ_TRIES_MAX;
        loop {
            let error = match self.read_once(keys).await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            self.opened = None;
            tries_left -= 1;
            if tries_left == 0 || matches!(error, RowError::Table(_)) || !backoff.wait(drain).await {
                return Err(error);
            }
        }
    }

    /// Why rows are not seen, most likely, and what to change.
    pub(super) fn why_unseen(&self) -> String {
        self.opened.as_ref().map(|(_, rows)| rows.why_unseen()).unwrap_or_default()
    }

    async fn read_once(&mut self, keys: &[i64]) -> Result<Vec<Option<Bytes>>, RowError> {
        let (session, rows) = match &mut self.opened {
            Some(opened) => opened,
            closed => {
                let session = Session::connect(self.connection, &self.application_name, Overflow::Drop).await;
                let session = session.map_err(RowError::Session)?;
                let rows = RowReader::find(&session.client, self.table, self.event_bytes_max).await?;
                closed.insert((session, rows))
            }
        };
        let read = rows.read(&session.client, keys).await?;
        if read.iter().all(Option::is_some) {
            return Ok(read);
        }
        // Who may see a table's rows is changed while sessions live, and their prepared statements don't notice.
        *rows = RowReader::find(&session.client, self.table, self.event_bytes_max).await?;
        rows.read(&session.client, keys).await
    }
}
