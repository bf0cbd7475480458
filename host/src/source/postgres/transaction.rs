//! One statement, in a read-only transaction of its own with all that has to be set for it. Nothing is left behind in the
//! session, so that a pooler may give it to anybody between two transactions; and no statement is prepared by name, which
//! the next server process would not know.

use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::connection::{ANSWER_DEADLINE, STATEMENT_TIMEOUT, answer_within, first};

/// What a transaction sets: what it reads has the same text whoever the user is and whatever the database's own settings
/// are, and it ends in time whatever becomes of its client.
const SETTINGS: [(&str, &str); 7] = [
    ("timezone", "UTC"),
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "iso_8601"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "60s"),
];

/// A value with its type, so that the server need not be asked for it before.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// All rows of a statement.
///
/// # Errors
///
/// In words, with the server's own.
pub(crate) async fn rows(client: &Client, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, String> {
    rows_within(client, STATEMENT_TIMEOUT, sql, parameters).await
}

/// The same for a statement that may take the server longer.
pub(crate) async fn rows_within(
    client: &Client,
    timeout: Duration,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let read = each(client, timeout, sql, parameters, None, |row| {
        rows.push(row);
        Ok(true)
    });
    answer_within(timeout + (ANSWER_DEADLINE - STATEMENT_TIMEOUT), read).await?;
    Ok(rows)
}

/// The one row of a statement that always has one.
///
/// # Errors
///
/// As [`rows`] has them.
pub(crate) async fn row(client: &Client, sql: &str, parameters: &[Parameter<'_>]) -> Result<Row, String> {
    let row = rows(client, sql, parameters).await?.into_iter().next();
    row.ok_or_else(|| "the server's answer has no row".to_owned())
}

/// Hands each row to `take`, until that says that there are enough. Returns the value of `check`, a query without
/// parameters that comes behind the statement in the same transaction, and so sees what the statement holds locked.
///
/// All of it is sent at once, and waits for one answer.
///
/// # Errors
///
/// The server's, or that of `take`. Wrap it in a deadline.
pub(crate) async fn each(
    client: &Client,
    timeout: Duration,
    sql: &str,
    parameters: &[Parameter<'_>],
    check: Option<&str>,
    mut take: impl FnMut(Row) -> Result<bool, Error>,
) -> Result<Option<String>, Error> {
    let begin = begin(timeout);
    let parameters = parameters.iter().map(|(value, kind)| (*value, kind.clone()));
    let read = async {
        let mut rows = pin!(client.query_typed_raw(sql, parameters).await?);
        while let Some(row) = rows.try_next().await? {
            if !take(row)? {
                break;
            }
        }
        Ok::<_, Error>(())
    };
    let check = async {
        match check {
            Some(check) => client.simple_query(check).await,
            None => Ok(Vec::new()),
        }
    };
    // Each sends when it is polled first, which is in this order. The end is sent by itself: it has to come whatever fails.
    let (begun, read, checked, ended) =
        futures::join!(client.simple_query(&begin), read, check, client.simple_query("COMMIT"));
    // The first error is the cause of those behind it.
    begun?;
    read?;
    let checked = checked?;
    ended?;
    Ok(first(&checked).map(str::to_owned))
}

fn begin(timeout: Duration) -> String {
    let mut begin = String::from("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SELECT ");
    for (name, value) in SETTINGS {
        // Writing to a string can't fail.
        let _ = write!(begin, "set_config('{name}', '{value}', true), ");
    }
    let _ = write!(begin, "set_config('statement_timeout', '{}', true)", timeout.as_millis());
    begin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_set_for_the_transaction_alone() {
        let begin = begin(Duration::from_secs(20));
        assert!(begin.starts_with(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SELECT set_config('timezone', 'UTC', true), "
        ));
        assert!(begin.ends_with("set_config('statement_timeout', '20000', true)"), "{begin}");
        assert_eq!(begin.matches("set_config").count(), begin.matches(", true)").count());
        assert!(!begin.contains("SET "), "{begin}");
    }
}
