//! The outbox in one session: what the catalogue says of it, and the few statements that are asked again and again.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::cursor::TableIdentity;
use super::frontier::LookNumber;
use super::holders::{Holder, LOOKS_MIN, LOOKS_MIN_CACHED};
use super::rows::Rows;
use crate::settings::TableName;
use crate::source::postgres::connection::quoted;
use crate::source::postgres::row::{KEY_COLUMN, RowReader};
use crate::source::postgres::transaction::{row, rows};

/// The table, its key column, and the sequence that its keys are drawn from: the one that its default names, or that
/// belongs to it.
const CATALOGUE: &str = "\
    SELECT c.oid, c.relkind::text, a.atttypid IN ('int8'::regtype, 'int4'::regtype, 'int2'::regtype), \
        EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid \
            AND i.indpred IS NULL), \
        s.seqrelid, s.seqrelid::regclass::text, s.seqincrement, s.seqcache, s.seqcycle, \
        has_sequence_privilege(s.seqrelid, 'SELECT, USAGE'), s.seqstart, \
        (SELECT format('%I.%I', n.nspname, q.relname) FROM pg_catalog.pg_class q \
            JOIN pg_catalog.pg_namespace n ON n.oid = q.relnamespace \
            WHERE q.oid = s.seqrelid AND has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(q.oid, 'SELECT')) \
    FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 \
        LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum \
        LEFT JOIN LATERAL (\
            SELECT s.* FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_sequence s ON s.seqrelid IN (d.objid, d.refobjid) \
            WHERE d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refobjid = s.seqrelid \
                AND d.refclassid = 'pg_class'::regclass \
            OR d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refclassid = 'pg_class'::regclass \
                AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i') \
            ORDER BY d.classid = 'pg_attrdef'::regclass DESC LIMIT 1) AS s ON true \
    WHERE c.oid = to_regclass($1)";

/// What is looked at again and again: `$1` the table, `$2` its sequence. `DRAWN` is the last key drawn, one way or the other.
const CONDITION: &str = "\
    SELECT coalesce(pg_relation_filenode($1::oid), 0)::oid, coalesce(pg_relation_filenode($2::oid), 0)::oid, \
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, DRAWN, row_security_active($1::oid)";
/// Where the role may only use the sequence: nothing tells where one stands that nothing was drawn from.
const DRAWN: &str = "\
    CASE WHEN has_sequence_privilege($2::oid, 'SELECT, USAGE') \
        THEN coalesce(pg_sequence_last_value($2::oid::regclass), (-9223372036854775808)::bigint) END";

/// Who may own keys that were drawn: see [`super::holders`]. A partition is written without a lock on the whole.
const HOLDERS: &str = "\
    SELECT DISTINCT l.virtualtransaction, l.pid IS NULL FROM pg_catalog.pg_locks l \
    WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted \
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()) \
        AND (l.relation IN ($1::oid, $2::oid) OR l.relation IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid))) \
        AND l.pid IS DISTINCT FROM pg_backend_pid()";

/// An outbox that can be read.
pub(super) struct Table {
    pub(super) rows: Rows,
    keys: Keys,
    condition: String,
}

/// What rows are read and keys are drawn from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Keys {
    oid: u32,
    sequence: Option<Sequence>,
}

/// Where keys are drawn from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sequence {
    oid: u32,
    name: String,
    /// The first key that it gave, or will.
    start: i64,
    cache: i64,
    readable: bool,
    /// For `FROM`, where the role may read it so.
    from: Option<String>,
}

/// A table as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    pub(super) identity: TableIdentity,
    /// The first key that its sequence gave, or will.
    pub(super) first_key: Option<i64>,
    pub(super) row_security: bool,
}

impl Table {
    /// Looks at the catalogue, and prepares.
    ///
    /// # Errors
    ///
    /// In words: the table is missing, can't be read by the role, or can't be read in the order of its keys; what to change.
    pub(super) async fn find(client: &Client, name: &TableName, event_bytes_max: usize) -> Result<Self, String> {
        if row(client, "SELECT pg_is_in_recovery()", &[]).await?.get(0) {
            return Err(
                "the server is a standby, which does not show who is about to commit; name the primary in `url`"
                    .to_owned(),
            );
        }
        let reader = RowReader::find(client, name, event_bytes_max).await.map_err(|error| error.to_string())?;
        let keys = found(client, reader.from(), name).await?;
        // A sequence says of itself where it goes on, also where nothing was drawn from it since it was set.
        let drawn = keys.sequence.as_ref().and_then(|sequence| sequence.from.as_ref()).map_or_else(
            || DRAWN.to_owned(),
            |from| format!("(SELECT greatest(last_value, -9223372036854775807) - (NOT is_called)::int FROM {from})"),
        );
        let rows = Rows::new(reader, keys.oid);
        Ok(Self { rows, keys, condition: CONDITION.replace("DRAWN", &drawn) })
    }

    /// How many looks a gap outlives at least.
    pub(super) fn looks_min(&self) -> LookNumber {
        match &self.keys.sequence {
            Some(sequence) if sequence.cache == 1 => LOOKS_MIN,
            _ => LOOKS_MIN_CACHED,
        }
    }

    /// What an operator should know: rows might be missed.
    pub(super) fn warnings(&self) -> Vec<String> {
        match &self.keys.sequence {
            None => vec![format!(
                "`{KEY_COLUMN}` has no sequence: keys that are lower than others and committed more than {LOOKS_MIN_CACHED} s \
                 after them, by a transaction that had not begun to write, are missed"
            )],
            Some(Sequence { name, cache, .. }) if *cache > 1 => vec![format!(
                "the sequence {name} hands {cache} keys at once to a session: those that it keeps for more than \
                 {LOOKS_MIN_CACHED} s before it uses them are missed; ALTER SEQUENCE {name} CACHE 1"
            )],
            Some(Sequence { name, readable: false, .. }) => vec![format!(
                "the sequence {name} can't be read, so that keys which are set by hand or begin anew may go unnoticed; \
                 GRANT SELECT ON SEQUENCE {name} TO {}",
                quoted(self.rows.reader().role())
            )],
            Some(_) => Vec::new(),
        }
    }

    /// How the table is now.
    ///
    /// # Errors
    ///
    /// In words: another table has its name, or its keys come from elsewhere, so that what was found says nothing any more.
    pub(super) async fn condition(&self, client: &Client, name: &TableName) -> Result<Condition, String> {
        if found(client, self.rows.reader().from(), name).await? != self.keys {
            return Err(format!(
                "`{name}` or its sequence was made again: it is looked up again, and read from the place kept"
            ));
        }
        let Keys { oid, sequence } = &self.keys;
        let sequence_oid = sequence.as_ref().map(|sequence| sequence.oid);
        let row = row(client, &self.condition, &[(oid, Type::OID), (&sequence_oid, Type::OID)]).await?;
        let identity = TableIdentity {
            oid: *oid,
            file: row.get(0),
            sequence_file: row.get(1),
            server_start: row.get(2),
            drawn: row.get(3),
        };
        let first_key = sequence.as_ref().map(|sequence| sequence.start);
        Ok(Condition { identity, first_key, row_security: row.get(4) })
    }

    /// All who may own keys that were drawn.
    pub(super) async fn holders(&self, client: &Client) -> Result<Vec<Holder>, String> {
        let sequence = self.keys.sequence.as_ref().map(|sequence| sequence.oid);
        let rows = rows(client, HOLDERS, &[(&self.keys.oid, Type::OID), (&sequence, Type::OID)]).await?;
        Ok(rows.iter().map(|row| Holder { transaction: row.get(0), prepared: row.get(1) }).collect())
    }

    /// Whether row-level security hides every row: the role sees none, and the server has counted some.
    pub(super) async fn hides_all(&self, client: &Client) -> Result<bool, String> {
        let sql = format!(
            "SELECT NOT EXISTS (SELECT FROM {}) AND (pg_stat_get_live_tuples($1::oid) > 0 \
                OR pg_stat_get_tuples_inserted($1::oid) = 0 AND (SELECT reltuples > 0 FROM pg_class WHERE oid = $1::oid))",
            self.rows.reader().from()
        );
        Ok(row(client, &sql, &[(&self.keys.oid, Type::OID)]).await?.get(0))
    }

    /// What to change where [`Self::hides_all`].
    pub(super) fn why_hidden(&self) -> String {
        let (role, from) = (self.rows.reader().role(), self.rows.reader().from());
        format!(
            "row-level security of {from} hides every row from the role `{role}`; ALTER ROLE {grantee} BYPASSRLS, or \
             CREATE POLICY wirehook ON {from} FOR SELECT TO {grantee} USING (true)",
            grantee = quoted(role)
        )
    }
}

/// Looks the table up by its name.
async fn found(client: &Client, from: &str, name: &TableName) -> Result<Keys, String> {
    let found = rows(client, CATALOGUE, &[(&from, Type::TEXT), (&KEY_COLUMN, Type::TEXT)]).await?;
    let Some(found) = found.first() else { return Err(format!("the table `{name}` is gone")) };
    Ok(Keys { oid: found.get(0), sequence: keys(name, found)? })
}

/// Judges the key column; the sequence that it is drawn from.
fn keys(name: &TableName, found: &Row) -> Result<Option<Sequence>, String> {
    let kind: String = found.get(1);
    if !["r", "p"].contains(&kind.as_str()) {
        return Err(format!(
            "`{name}` is a view or a foreign table, which does not show who is about to commit; set `table` to the table itself"
        ));
    }
    if !found.get::<_, bool>(2) {
        return Err(format!(
            "`{KEY_COLUMN}` of `{name}` is no integer, so the table is no outbox of FraiseQL's; set `table`"
        ));
    }
    if !found.get::<_, bool>(3) {
        return Err(format!(
            "`{name}` has no index on `{KEY_COLUMN}`: every look would read the whole table; CREATE UNIQUE INDEX CONCURRENTLY ON {name} ({KEY_COLUMN})"
        ));
    }
    let Some(oid) = found.get::<_, Option<u32>>(4) else { return Ok(None) };
    let sequence: String = found.get(5);
    if found.get::<_, i64>(6) < 0 || found.get(8) {
        return Err(format!(
            "the sequence {sequence} counts down or in a circle, so that its keys say nothing; ALTER SEQUENCE {sequence} INCREMENT 1 NO CYCLE"
        ));
    }
    Ok(Some(Sequence {
        oid,
        name: sequence,
        start: found.get(10),
        cache: found.get(7),
        readable: found.get(9),
        from: found.get(11),
    }))
}
