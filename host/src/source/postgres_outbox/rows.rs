//! Rows by their keys, within bounds of count and bytes, whatever is in them.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::frontier::Range;
use crate::source::postgres::connection::{ANSWER_DEADLINE, STATEMENT_TIMEOUT};
use crate::source::postgres::row::{KEY_COLUMN, READ_BYTES_MAX, RowReader};
use crate::source::postgres::transaction::{Parameter, each, rows};
use crate::source::postgres::words::explain;

/// Most rows looked at one by one where one of them can't be read: each may take [`ANSWER_DEADLINE`].
const ROWS_ALONE_MAX: usize = 4;

/// Reads rows of one table.
pub(super) struct Rows {
    reader: RowReader,
    /// One range, ascending.
    ordered: String,
    /// Several ranges, in any order.
    scattered: String,
    /// What a server says for [`Self::check`] that reads the table that was found.
    found: String,
}

/// Why rows were not read.
enum ReadError {
    Server(Error),
    /// In words: what was read is of another table, or not of the primary.
    Elsewhere(String),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Some rows.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) rows: Vec<(i64, Content)>,
    /// These are all that there are within the ranges asked for.
    pub(super) complete: bool,
    /// Of all rows together.
    pub(super) bytes: usize,
}

/// What is in a row.
#[derive(Debug)]
pub(super) enum Content {
    /// Its JSON; cut off, and still longer than an event may be, where it is longer than that.
    Json(Bytes),
    /// The server can't give it, in its own words: too large to be put into one text, or damaged.
    Unreadable(String),
}

impl Chunk {
    fn add(&mut self, key: i64, content: Content) {
        self.bytes += match &content {
            Content::Json(json) => json.len(),
            Content::Unreadable(error) => error.len(),
        };
        self.rows.push((key, content));
    }

    /// No rows, and none looked for.
    pub(super) fn nothing() -> Self {
        Self { complete: true, ..Self::default() }
    }

    pub(super) fn last_key(&self) -> Option<i64> {
        self.rows.last().map(|(key, _)| *key)
    }

    pub(super) fn keys(&self) -> Vec<i64> {
        self.rows.iter().map(|(key, _)| *key).collect()
    }
}

impl Rows {
    /// `oid` is the table's.
    pub(super) fn new(reader: RowReader, oid: u32) -> Self {
        let (ordered, scattered) = (ordered(&reader, reader.json()), scattered(&reader, reader.json()));
        Self { reader, ordered, scattered, found: format!("{oid} false") }
    }

    /// Which table has the name, and whether this is a standby: asked while the read holds the table locked, so that nobody
    /// takes its name away in between. A pooler may lead each transaction to another server.
    fn check(&self) -> String {
        let from = self.reader.from().replace('\'', "''");
        format!("SELECT coalesce(to_regclass('{from}')::oid, 0) || ' ' || pg_is_in_recovery()")
    }

    pub(super) fn reader(&self) -> &RowReader {
        &self.reader
    }

    /// At most `rows_max` rows of `ranges`, and [`READ_BYTES_MAX`] but for the last of them. Rows of a single range come in
    /// ascending order, from the first on.
    pub(super) async fn read(&self, client: &Client, ranges: &[Range], rows_max: usize) -> Result<Chunk, String> {
        match tokio::time::timeout(ANSWER_DEADLINE, self.read_at_once(client, ranges, rows_max)).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(ReadError::Server(error))) if is_of_a_row(&error) => self.read_one_by_one(client, ranges).await,
            Ok(Err(error)) => Err(error.words()),
            Err(_) => Err(slow(ANSWER_DEADLINE)),
        }
    }

    async fn read_at_once(&self, client: &Client, ranges: &[Range], rows_max: usize) -> Result<Chunk, ReadError> {
        let limit = rows_max as i64;
        let mut chunk = Chunk { complete: true, ..Chunk::default() };
        let take = |row: tokio_postgres::Row| {
            let json: &str = row.try_get(1)?;
            chunk.add(row.try_get(0)?, Content::Json(Bytes::copy_from_slice(json.as_bytes())));
            // What is sent beyond that is thrown away: the caller asks for fewer the next time.
            chunk.complete = chunk.bytes < READ_BYTES_MAX;
            Ok(chunk.complete)
        };
        let check = self.check();
        let checked = match ranges {
            [range] => {
                let parameters = ordered_parameters(range, &limit);
                each(client, STATEMENT_TIMEOUT, &self.ordered, &parameters, Some(&check), take).await?
            }
            ranges => {
                let (firsts, lasts) = bounds(ranges);
                let parameters = scattered_parameters(&firsts, &lasts, &limit);
                each(client, STATEMENT_TIMEOUT, &self.scattered, &parameters, Some(&check), take).await?
            }
        };
        chunk.complete &= chunk.rows.len() < rows_max;
        match checked {
            Some(checked) if checked == self.found => Ok(chunk),
            checked => Err(ReadError::Elsewhere(elsewhere(self.reader.from(), checked.as_deref()))),
        }
    }

    /// The first few rows, each with its own fate.
    async fn read_one_by_one(&self, client: &Client, ranges: &[Range]) -> Result<Chunk, String> {
        let limit = ROWS_ALONE_MAX as i64;
        let keys = match ranges {
            [range] => rows(client, &ordered(&self.reader, "NULL"), &ordered_parameters(range, &limit)).await?,
            ranges => {
                let (firsts, lasts) = bounds(ranges);
                let parameters = scattered_parameters(&firsts, &lasts, &limit);
                rows(client, &scattered(&self.reader, "NULL"), &parameters).await?
            }
        };
        let mut chunk = Chunk::default();
        for row in keys {
            let key: i64 = row.get(0);
            let alone = [Range { first: key, last: key }];
            let read = self.read_at_once(client, &alone, 1);
            match tokio::time::timeout(ANSWER_DEADLINE, read).await {
                Ok(Ok(read)) => read.rows.into_iter().for_each(|(key, content)| chunk.add(key, content)),
                Ok(Err(ReadError::Server(error))) if is_of_a_row(&error) => {
                    chunk.add(key, Content::Unreadable(explain(&error)));
                }
                Ok(Err(error)) => return Err(error.words()),
                Err(_) => return Err(slow(ANSWER_DEADLINE)),
            }
        }
        Ok(chunk)
    }
}

impl ReadError {
    fn words(&self) -> String {
        match self {
            Self::Server(error) => explain(error),
            Self::Elsewhere(words) => words.clone(),
        }
    }
}

/// What it means that a check has not said what it should.
fn elsewhere(table: &str, checked: Option<&str>) -> String {
    if checked.is_some_and(|checked| checked.ends_with(" true")) {
        return "a pooler led a read to a standby, which does not show who is about to commit; have it lead to the primary, \
                or name the primary in `url`"
            .to_owned();
    }
    format!("another table has the name {table} now, or none: it is looked up again, and read from the place kept")
}

fn ordered_parameters<'a>(range: &'a Range, limit: &'a i64) -> [Parameter<'a>; 3] {
    [(&range.first, Type::INT8), (&range.last, Type::INT8), (limit, Type::INT8)]
}

fn scattered_parameters<'a>(
    firsts: &'a (dyn ToSql + Sync),
    lasts: &'a (dyn ToSql + Sync),
    limit: &'a i64,
) -> [Parameter<'a>; 3] {
    [(firsts, Type::INT8_ARRAY), (lasts, Type::INT8_ARRAY), (limit, Type::INT8)]
}

fn slow(deadline: Duration) -> String {
    format!("the server did not answer within {deadline:?}")
}

fn bounds(ranges: &[Range]) -> (Vec<i64>, Vec<i64>) {
    ranges.iter().map(|range| (range.first, range.last)).unzip()
}

fn ordered(reader: &RowReader, json: &str) -> String {
    format!(
        "SELECT o.{KEY_COLUMN}::bigint, {json} FROM {} AS o WHERE o.{KEY_COLUMN} >= $1::bigint \
         AND o.{KEY_COLUMN} <= $2::bigint ORDER BY o.{KEY_COLUMN} LIMIT $3::bigint",
        reader.from()
    )
}

/// Each range is looked up in the index: ORDER BY and LIMIT within leave the planner no other way.
fn scattered(reader: &RowReader, json: &str) -> String {
    format!(
        "SELECT r.key, r.json FROM unnest($1::bigint[], $2::bigint[]) AS gap(first, last) CROSS JOIN LATERAL (\
         SELECT o.{KEY_COLUMN}::bigint AS key, {json} AS json FROM {} AS o WHERE o.{KEY_COLUMN} >= gap.first \
         AND o.{KEY_COLUMN} <= gap.last ORDER BY o.{KEY_COLUMN} LIMIT $3::bigint) AS r LIMIT $3::bigint",
        reader.from()
    )
}

/// Whether one row may be to blame, and the others can be read without it.
fn is_of_a_row(error: &Error) -> bool {
    let Some(code) = error.code() else { return false };
    ["22", "54", "XX"].iter().any(|class| code.code().starts_with(class))
        || *code == SqlState::OUT_OF_MEMORY
        || *code == SqlState::QUERY_CANCELED
}
