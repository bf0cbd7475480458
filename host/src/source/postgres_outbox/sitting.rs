//! One session with the server: looking at the table's condition, and reading rows.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_postgres::Client;

use super::frontier::{Frontier, LookNumber, Range};
use super::holders::Holders;
use super::rows::{Chunk, Content};
use super::table::{Condition, Table};
use crate::settings::TableName;
use crate::source::postgres::row::READ_BYTES_MAX;
use crate::source::{BATCH_MESSAGES_MAX, BYTES_IN_FLIGHT_MAX};

/// Between two looks at who may own gaps, and at the table's condition.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most gaps looked into with one read.
const RANGES_READ_MAX: usize = 512;

// Late and new rows, of a batch on its way and of the next.
const _: () = assert!(READ_BYTES_MAX * 4 <= BYTES_IN_FLIGHT_MAX);

/// What one session knows.
pub(super) struct Sitting {
    name: TableName,
    pub(super) table: Table,
    holders: Holders,
    looks: Interval,
    /// For how many rows the next read asks: fewer where rows are large, so that the server sends little in vain.
    rows_max: usize,
    /// Whether the server decides which rows this role sees.
    row_security: bool,
    /// Whether a row has been seen.
    seen: bool,
}

/// What one read has found. Nothing of it is noted yet.
pub(super) struct Found {
    /// The gaps looked into, and the rows there.
    ranges: Vec<Range>,
    late: Chunk,
    /// The wide gap that was read, or the keys above the high one.
    onward: Onward,
    rows: Chunk,
    settled: LookNumber,
}

enum Onward {
    Wide(Range),
    New,
    /// There was no room.
    Nothing,
}

impl Sitting {
    /// Finds the table, and looks whether its rows can be seen.
    pub(super) async fn new(
        client: &Client,
        name: &TableName,
        event_bytes_max: usize,
    ) -> Result<(Self, Condition), String> {
        let table = Table::find(client, name, event_bytes_max).await?;
        let condition = table.condition(client, name).await?;
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let holders = Holders::new(table.looks_min());
        let row_security = table.rows.reader().row_security();
        let name = name.clone();
        let sitting = Self { name, table, holders, looks, rows_max: BATCH_MESSAGES_MAX, row_security, seen: false };
        sitting.expect_visible(client).await?;
        Ok((sitting, condition))
    }

    /// What an operator should know: rows might be missed.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.table.warnings();
        if self.row_security {
            warnings.push("row-level security is on for this role: what no policy shows it is missed".to_owned());
        }
        warnings
    }

    /// Returns when it is time for a look.
    pub(super) async fn look_due(&mut self) {
        self.looks.tick().await;
    }

    /// How the table is now.
    pub(super) async fn condition(&mut self, client: &Client) -> Result<Condition, String> {
        let condition = self.table.condition(client, &self.name).await?;
        self.row_security = condition.row_security;
        self.expect_visible(client).await?;
        Ok(condition)
    }

    /// The keys of `frontier` are others than before: what was learnt of its gaps means nothing.
    pub(super) fn forget_looks(&mut self) {
        self.holders = Holders::new(self.table.looks_min());
    }

    /// Looks who may own gaps, once `drawn` is known: who drew a key up to there holds a lock now, or has ended.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        frontier: &mut Frontier,
        drawn: Option<i64>,
    ) -> Result<(), String> {
        if frontier.has_gaps() {
            let look = self.holders.look(self.table.holders(client).await?);
            frontier.note(look, drawn);
        }
        Ok(())
    }

    /// Reads rows in gaps, and then onwards; a batch at most.
    pub(super) async fn read(&mut self, client: &Client, frontier: &mut Frontier) -> Result<Found, String> {
        let settled = self.holders.settled();
        let ranges = frontier.next_gaps(RANGES_READ_MAX);
        let rows = &self.table.rows;
        let late = match ranges.is_empty() {
            true => Chunk::nothing(),
            false => rows.read(client, &ranges, self.rows_max).await?,
        };
        let room = self.rows_max.saturating_sub(late.rows.len());
        let (onward, rows) = match frontier.wide_to_read(settled) {
            _ if room == 0 => (Onward::Nothing, Chunk::default()),
            Some(range) => (Onward::Wide(range), rows.read(client, &[range], room).await?),
            None => (Onward::New, rows.read(client, &[frontier.above()], room).await?),
        };
        let found = Found { ranges, late, onward, rows, settled };
        self.learn(&found);
        Ok(found)
    }

    /// Asks for as many rows as fit, the next time.
    fn learn(&mut self, found: &Found) {
        let (rows, bytes) = (found.len(), found.late.bytes + found.rows.bytes);
        if let Some(row_bytes) = bytes.checked_div(rows) {
            self.rows_max = (READ_BYTES_MAX / row_bytes.max(1)).clamp(1, BATCH_MESSAGES_MAX);
            self.seen = true;
        }
    }

    async fn expect_visible(&self, client: &Client) -> Result<(), String> {
        if self.row_security && !self.seen && self.table.hides_all(client).await? {
            return Err(self.table.why_hidden());
        }
        Ok(())
    }
}

impl Found {
    /// No rows.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.late.rows.len() + self.rows.rows.len()
    }

    /// Notes all of it: the rows, and whether there is more to be read at once.
    pub(super) fn note(self, frontier: &mut Frontier) -> (Vec<(i64, Content)>, bool) {
        let Self { ranges, late, onward, rows, settled } = self;
        let mut more = !late.complete || !rows.complete;
        for (key, _) in &late.rows {
            frontier.fill(*key);
        }
        if late.complete {
            frontier.forget(&ranges, settled);
        }
        match onward {
            Onward::Wide(range) => {
                more = true;
                let through = if rows.complete { Some(range.last) } else { rows.last_key() };
                through.into_iter().for_each(|through| frontier.wide_read(range, through));
            }
            Onward::New => frontier.advance(&rows.keys()),
            Onward::Nothing => {}
        }
        // What is settled and was not in turn is worth another read.
        more |= frontier.has_settled(settled);
        let mut found = late.rows;
        found.extend(rows.rows);
        (found, more)
    }
}
