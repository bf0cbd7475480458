//! Where a source begins that has never read the table.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::frontier::{Frontier, GAPS_MAX, Range};
use super::rows::Rows;
use crate::settings::Start;
use crate::source::postgres::row::{KEY_COLUMN, RowReader};
use crate::source::postgres::transaction::{Parameter, rows_within};

/// How many keys below the first are searched for rows that are about to be committed. A transaction that has been open
/// while more than that were drawn, and that commits after the source began, is taken as from before.
const KEYS_BEFORE_MAX: i64 = 1_000_000;
/// How long the server may look for the place, which may mean a whole table. The source is not connected meanwhile.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most rows that are counted for the log.
const COUNTED_MAX: i64 = 1_000_000;

/// The first place: nothing above is read, nor the gaps.
///
/// # Errors
///
/// In words, with the server's own.
pub(super) async fn frontier(client: &Client, rows: &Rows, start: Start) -> Result<Frontier, String> {
    let reader = rows.reader();
    let (high, time) = match start {
        Start::All => return Ok(Frontier::start()),
        Start::New => (format!("SELECT max(o.{KEY_COLUMN})::bigint FROM {} AS o", reader.from()), None),
        Start::At(time) => (high_at(reader)?, Some(time.to_string())),
    };
    // One statement is one snapshot: what it does not show is above, or in a gap.
    let sql = format!(
        "WITH high AS MATERIALIZED (SELECT ({high}) AS high, $1::text AS time), \
         tail AS (SELECT o.{KEY_COLUMN}::bigint AS key FROM {table} AS o, high \
             WHERE o.{KEY_COLUMN} <= high AND o.{KEY_COLUMN} > high - $2::bigint UNION ALL SELECT high + 1 FROM high), \
         step AS (SELECT key, lag(key, 1, (SELECT high - $2::bigint FROM high)) OVER (ORDER BY key) AS before FROM tail) \
         SELECT NULL, high FROM high WHERE high IS NOT NULL \
         UNION ALL (SELECT before + 1, key - 1 FROM step WHERE key > before + 1 ORDER BY key DESC LIMIT $3::bigint)",
        table = reader.from()
    );
    let gaps_max = GAPS_MAX as i64;
    let parameters: [Parameter<'_>; 3] = [(&time, Type::TEXT), (&KEYS_BEFORE_MAX, Type::INT8), (&gaps_max, Type::INT8)];
    let found = rows_within(client, TIMEOUT, &sql, &parameters).await?;
    let mut high = i64::MIN;
    let mut gaps = Vec::new();
    for row in found {
        match row.get::<_, Option<i64>>(0) {
            None => high = row.get(1),
            Some(first) => gaps.push((Range { first, last: row.get(1) }, false)),
        }
    }
    Ok(Frontier::new(high, gaps))
}

/// How many rows lie below the first place, in words.
pub(super) async fn skipped(client: &Client, rows: &Rows, high: i64) -> Result<String, String> {
    let sql = format!(
        "SELECT count(*) FROM (SELECT FROM {} AS o WHERE o.{KEY_COLUMN} <= $1::bigint LIMIT $2::bigint) AS counted",
        rows.reader().from()
    );
    let counted_max = COUNTED_MAX + 1;
    let parameters: [Parameter<'_>; 2] = [(&high, Type::INT8), (&counted_max, Type::INT8)];
    let counted = rows_within(client, TIMEOUT, &sql, &parameters).await?;
    let counted: i64 = counted.first().map_or(0, |row| row.get(0));
    Ok(if counted > COUNTED_MAX { format!("more than {COUNTED_MAX}") } else { counted.to_string() })
}

/// The key before the first row of a time; the last key where there is none.
fn high_at(reader: &RowReader) -> Result<String, String> {
    let times: Vec<_> = ["commit_time", "created_at"]
        .iter()
        .filter(|column| reader.has(column))
        .map(|column| format!("o.{column}"))
        .collect();
    if times.is_empty() {
        return Err("the table has neither `commit_time` nor `created_at`, so `start` can't be a time: write \"new\" or \"all\"".to_owned());
    }
    let from = reader.from();
    Ok(format!(
        "SELECT coalesce(min(o.{KEY_COLUMN}) FILTER (WHERE coalesce({}) >= $1::text::timestamptz) - 1, max(o.{KEY_COLUMN}))::bigint FROM {from} AS o",
        times.join(", ")
    ))
}
