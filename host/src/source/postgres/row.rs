//! Rows of FraiseQL's outbox as JSON that the decoder knows as [`Format::Outbox`](crate::event::decode::Format::Outbox).
//!
//! The text of a row is the same at every reading: only columns that are written with the row are in it, in one order,
//! and those that are null are left out, so that a column which a release adds later changes no older row. Bookkeeping
//! such as `nats_published_at` is never read.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::connection::{STATEMENT_TIMEOUT, answer, quoted};
use super::transaction::{Parameter, each, rows};
use crate::settings::TableName;
use crate::source::BATCH_MESSAGES_MAX;

/// The outbox's key: an integer that grows, though not in the order of commits.
pub(crate) const KEY_COLUMN: &str = "pk_entity_change_log";
/// Most bytes of rows that one [`RowReader::read`] brings; the row that passes it is the last.
pub(crate) const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Every column that the decoder reads, in the order in which they stand in the JSON.
const COLUMNS: [&str; 14] = [
    "id",
    "seq",
    "object_type",
    "modification_type",
    "object_id",
    "tenant_id",
    "actor_type",
    "acting_for",
    "trace_id",
    "trace_context",
    "created_at",
    "commit_time",
    "object_data",
    "object_data_before",
];
/// What no event can be without.
const REQUIRED: [&str; 3] = [KEY_COLUMN, "object_type", "modification_type"];

/// The table, whom it may be read by, and one row a column. The catalogue can be read by everyone.
const CATALOGUE: &str = "\
    SELECT n.nspname::text, c.relname::text, current_user::text, current_database()::text, \
        has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT'), \
        row_security_active(c.oid), a.attname::text, a.atttypid, has_column_privilege(c.oid, a.attnum, 'SELECT') \
    FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
        AND (n.nspname = $2 OR $2 IS NULL AND pg_catalog.pg_table_is_visible(c.oid)) \
    ORDER BY a.attnum";

/// How rows of one outbox are read by one session.
pub(crate) struct RowReader {
    table: String,
    role: String,
    row_security: bool,
    columns: Vec<String>,
    from: String,
    json: String,
    by_key: String,
    /// For how many rows the next read asks: fewer where they were too large to be taken at once, so that the server does
    /// not send what is thrown away.
    rows_asked: AtomicUsize,
}

/// Why rows can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum RowError {
    /// The table is missing, is none of FraiseQL's, or the role may not read it. The words say what to change.
    #[error("{0}")]
    Table(String),
    /// The session failed, in words. Try again with another, and look for the table anew.
    #[error("{0}")]
    Session(String),
}

/// What the catalogue says of a column.
struct Column {
    name: String,
    kind: u32,
    readable: bool,
}

impl RowReader {
    /// Looks at the catalogue. A row whose JSON is longer than `event_bytes_max` comes cut off, and still longer than that.
    ///
    /// # Errors
    ///
    /// There is no such table, it is none of FraiseQL's, or the role may not read it, with what to GRANT; or the session
    /// failed.
    pub(crate) async fn find(client: &Client, table: &TableName, event_bytes_max: usize) -> Result<Self, RowError> {
        let named = [(&table.table as _, Type::TEXT), (&table.schema as _, Type::TEXT)];
        let rows = rows(client, CATALOGUE, &named).await.map_err(RowError::Session)?;
        let Some(first) = rows.first() else {
            return Err(RowError::Table(format!(
                "there is no table `{table}`; set `table`, in upper and lower case as it was made, and the database in `url`"
            )));
        };
        let (schema, name, role): (String, String, String) = (first.get(0), first.get(1), first.get(2));
        let from = format!("{}.{}", quoted(&schema), quoted(&name));
        let columns: Vec<_> =
            rows.iter().map(|row| Column { name: row.get(6), kind: row.get(7), readable: row.get(8) }).collect();
        for required in REQUIRED {
            if columns.iter().all(|column| column.name != required) {
                return Err(RowError::Table(format!(
                    "the table `{table}` has no column `{required}`, so it is no outbox of FraiseQL's; set `table`"
                )));
            }
        }
        let readable = |required: &str| columns.iter().any(|column| column.name == required && column.readable);
        if !first.get::<_, bool>(4) || !REQUIRED.into_iter().all(readable) {
            let (schema, grantee) = (quoted(&schema), quoted(&role));
            return Err(RowError::Table(format!(
                "the role `{role}` may not read the table `{table}`; its owner can allow it: \
                     GRANT USAGE ON SCHEMA {schema} TO {grantee}; GRANT SELECT ON {from} TO {grantee}"
            )));
        }
        let columns: Vec<_> = columns.into_iter().filter(|column| column.readable).collect();
        let json = json(&columns, event_bytes_max);
        // OFFSET keeps the planner from joining: each key is looked up in the index, however many rows it expects.
        let by_key = format!(
            "SELECT r.json FROM unnest($1::bigint[]) WITH ORDINALITY AS k(key, place) LEFT JOIN LATERAL (\
             SELECT {json} AS json FROM {from} AS o WHERE o.{KEY_COLUMN} = k.key OFFSET 0) AS r ON true ORDER BY k.place"
        );
        let columns = columns.into_iter().map(|column| column.name).collect();
        Ok(Self {
            table: table.to_string(),
            role,
            row_security: first.get(5),
            columns,
            from,
            json,
            by_key,
            rows_asked: AtomicUsize::new(BATCH_MESSAGES_MAX),
        })
    }

    /// The table for `FROM`, quoted; name it `o` there.
    pub(crate) fn from(&self) -> &str {
        &self.from
    }

    /// The expression of type `text` that is a row's JSON, where the table is named `o`.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// Whether the table has a column that the role may read.
    pub(crate) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|other| other == column)
    }

    /// The role that reads.
    pub(crate) fn role(&self) -> &str {
        &self.role
    }

    /// Whether row-level security decides which rows the role sees.
    pub(crate) fn row_security(&self) -> bool {
        self.row_security
    }

    /// The rows of `keys`, in their order, each key as often as it is named; `None` where there is no row that the role
    /// can see. Perhaps only those of the first keys, of one at least, so that [`READ_BYTES_MAX`] holds: read the rest anew.
    ///
    /// # Errors
    ///
    /// The session failed.
    pub(crate) async fn read(&self, client: &Client, keys: &[i64]) -> Result<Vec<Option<Bytes>>, RowError> {
        let asked = self.rows_asked.load(Relaxed).min(keys.len());
        let keys = &keys[..asked];
        let (mut read, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        let parameters: [Parameter<'_>; 1] = [(&keys, Type::INT8_ARRAY)];
        let took = each(client, STATEMENT_TIMEOUT, &self.by_key, &parameters, None, |row| {
            let json: Option<&str> = row.try_get(0)?;
            bytes += json.map_or(0, str::len);
            read.push(json.map(|json| Bytes::copy_from_slice(json.as_bytes())));
            Ok(bytes < READ_BYTES_MAX)
        });
        answer(took).await.map_err(RowError::Session)?;
        match read.len() {
            len if len < asked => self.rows_asked.store(len.max(1), Relaxed),
            _ => self.rows_asked.store((self.rows_asked.load(Relaxed) * 2).min(BATCH_MESSAGES_MAX), Relaxed),
        }
        Ok(read)
    }

    /// Why a row that was there is not seen, most likely, and what to change.
    pub(crate) fn why_unseen(&self) -> String {
        let (table, role) = (&self.table, &self.role);
        if self.row_security {
            return format!(
                "row-level security of `{table}` hides them from the role `{role}`, or they were deleted; \
                 ALTER ROLE {} BYPASSRLS shows them, and so does a policy for it",
                quoted(role)
            );
        }
        format!("they are not in `{table}`: deleted meanwhile, or of another table or database; see `table` and `url`")
    }
}

/// `{"id":…,"seq":…}` of those [`COLUMNS`] that the table has. `concat_ws` leaves out nulls. What may be long is cut off
/// before it is joined with others, as is the whole: a text may have 1 GB at the server, and much less here.
fn json(columns: &[Column], event_bytes_max: usize) -> String {
    let members = COLUMNS.iter().filter_map(|name| {
        let column = columns.iter().find(|column| column.name == *name)?;
        let value = match Type::from_oid(column.kind) {
            Some(Type::JSON | Type::JSONB) => cut_off(&format!("o.{name}::text"), event_bytes_max),
            // An instant without its zone would be none: FraiseQL writes UTC.
            Some(Type::TIMESTAMP) => format!("to_json(o.{name} AT TIME ZONE 'UTC')::text"),
            _ => format!("to_json(o.{name})::text"),
        };
        Some(format!("'\"{name}\":' || {value}"))
    });
    let members = members.collect::<Vec<_>>().join(", ");
    cut_off(&format!("'{{' || concat_ws(',', {members}) || '}}'"), event_bytes_max)
}

/// A text as it is up to `bytes_max`, and else so much of it that it is still longer: a character has one byte at least.
/// `left` looks at every character, so that it is kept for those that need it; OFFSET keeps the text from being made twice.
fn cut_off(text: &str, bytes_max: usize) -> String {
    let bytes_max = bytes_max.min(i32::MAX as usize - 1);
    let kept = bytes_max + 1;
    format!(
        "(SELECT CASE WHEN octet_length(c.t) > {bytes_max} THEN left(c.t, {kept}) ELSE c.t END \
         FROM (SELECT {text} AS t OFFSET 0) AS c)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_columns_that_are_there_and_known_are_read() {
        let column = |name: &str, kind: Type| Column { name: name.to_owned(), kind: kind.oid(), readable: true };
        let columns = [
            column("object_type", Type::TEXT),
            column("nats_published_at", Type::TIMESTAMPTZ),
            column("id", Type::UUID),
            column("created_at", Type::TIMESTAMP),
        ];
        let members = "'\"id\":' || to_json(o.id)::text, '\"object_type\":' || to_json(o.object_type)::text, \
            '\"created_at\":' || to_json(o.created_at AT TIME ZONE 'UTC')::text";
        let expected = cut_off(&format!("'{{' || concat_ws(',', {members}) || '}}'"), 100);
        assert_eq!(json(&columns, 100), expected);
    }
}
