//! Where an entity's events and a delivery are, by name. The names of a few thousand rows lie together in one row of
//! `lookup`, written behind the path: an index of random names would cost every event more than all else that is written
//! for it. What came since is looked for in the rows themselves.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension};

use super::group::Group;
use super::state::bytes_at;

/// Names in one row. A larger one is rewritten more often when an entity is purged, a smaller one costs more to find.
pub(super) const SEGMENT_ROWS: usize = 4096;

/// The bytes of a name that are kept; what is longer is told apart by its row.
const NAME_BYTES_MAX: usize = 256;

/// What has names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Names {
    /// Events, by their entity's id.
    Entities,
    /// Deliveries, by their own.
    Deliveries,
}

/// The names of consecutive rows.
pub(super) struct Segment {
    names: Names,
    first_seq: i64,
    last_seq: i64,
    /// How many names that is.
    count: i64,
    lines: Vec<u8>,
}

impl Segment {
    /// Roughly what it holds in memory.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len()
    }
}

impl Names {
    pub(super) const ALL: [Self; 2] = [Self::Entities, Self::Deliveries];

    fn kind(self) -> &'static str {
        match self {
            Self::Entities => "event",
            Self::Deliveries => "delivery",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Entities => "entity_id",
            Self::Deliveries => "id",
        }
    }

    /// The position up to which names are in `lookup`.
    fn indexed_to(self, connection: &Connection) -> rusqlite::Result<i64> {
        let sql = "SELECT coalesce(max(last_seq), 0) FROM lookup WHERE kind = ?1";
        connection.prepare_cached(sql)?.query_row([self.kind()], |row| row.get(0))
    }
}

/// What a name is compared with: only what a line may hold.
fn kept(name: &[u8]) -> Vec<u8> {
    name.iter().take(NAME_BYTES_MAX).map(|byte| if *byte < b' ' { b' ' } else { *byte }).collect()
}

/// The rows from `first_seq` to `last_seq` as a segment.
fn segment(connection: &Connection, names: Names, first_seq: i64, last_seq: i64) -> rusqlite::Result<Segment> {
    let (kind, column) = (names.kind(), names.column());
    let mut select = connection.prepare_cached(&format!(
        "SELECT seq, {column} FROM {kind} WHERE seq BETWEEN ?1 AND ?2 AND {column} IS NOT NULL ORDER BY seq"
    ))?;
    let mut rows = select.query((first_seq, last_seq))?;
    let (mut lines, mut count) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        count += 1;
        let offset = row.get::<_, i64>(0)? - first_seq;
        lines.extend(kept(&bytes_at(row, 1)?.unwrap_or_default()));
        lines.extend(format!("\t{offset}\n").into_bytes());
    }
    Ok(Segment { names, first_seq, last_seq, count, lines })
}

/// The next segment that is to be written, where there are rows enough for one.
pub(super) fn next_segment(connection: &Connection, names: Names) -> rusqlite::Result<Option<Segment>> {
    let indexed_to = names.indexed_to(connection)?;
    let last = connection
        .prepare_cached(&format!("SELECT seq FROM {} WHERE seq > ?1 ORDER BY seq LIMIT 1 OFFSET ?2", names.kind()))?
        .query_row((indexed_to, SEGMENT_ROWS as i64 - 1), |row| row.get(0))
        .optional()?;
    last.map(|last| segment(connection, names, indexed_to + 1, last)).transpose()
}

/// Positions of names that are wanted, and that `is` the case for, newest first, `limit` at most. A name is cut to what is kept: ask the row whether
/// it is the one.
pub(super) fn find(
    connection: &Connection,
    names: Names,
    wanted: &Wanted,
    limit: usize,
    mut is: impl FnMut(i64) -> rusqlite::Result<bool>,
) -> rusqlite::Result<Vec<i64>> {
    let mut found = Vec::new();
    let (kind, column) = (names.kind(), names.column());
    let indexed_to = names.indexed_to(connection)?;
    let mut tail =
        connection.prepare_cached(&format!("SELECT seq, {column} FROM {kind} WHERE seq > ?1 ORDER BY seq DESC"))?;
    let mut rows = tail.query([indexed_to])?;
    while let Some(row) = rows.next()? {
        let name = kept(&bytes_at(row, 1)?.unwrap_or_default());
        let seq = row.get(0)?;
        if wanted.fits(&name) && is(seq)? {
            found.push(seq);
            if found.len() == limit {
                return Ok(found);
            }
        }
    }
    let mut segments =
        connection.prepare_cached("SELECT first_seq, names FROM lookup WHERE kind = ?1 ORDER BY last_seq DESC")?;
    let mut rows = segments.query([kind])?;
    while let Some(row) = rows.next()? {
        let first: i64 = row.get(0)?;
        for line in row.get_ref(1)?.as_blob()?.rsplit(|byte| *byte == b'\n') {
            let Some((_, offset)) = name_and_offset(line).filter(|(name, _)| wanted.fits(name)) else { continue };
            let seq = first + offset;
            if is(seq)? {
                found.push(seq);
                if found.len() == limit {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}

/// What a line says.
fn name_and_offset(line: &[u8]) -> Option<(&[u8], i64)> {
    let tab = line.iter().rposition(|byte| *byte == b'\t')?;
    let offset = std::str::from_utf8(&line[tab + 1..]).ok()?.parse().ok()?;
    Some((&line[..tab], offset))
}

/// The lines but for those of positions that `is_gone` names.
fn without(lines: &[u8], is_gone: impl Fn(i64) -> bool) -> Vec<u8> {
    let stays = |line: &&[u8]| name_and_offset(line).is_none_or(|(_, offset)| !is_gone(offset));
    lines
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| stays(&line.trim_ascii_end()))
        .flatten()
        .copied()
        .collect()
}

/// Which names are wanted.
pub(super) enum Wanted {
    /// This one.
    Exactly(Vec<u8>),
    /// Any of these.
    OneOf(HashSet<Vec<u8>>),
    /// Those that begin so.
    Beginning(Vec<u8>),
}

impl Wanted {
    pub(super) fn exactly(name: &str) -> Self {
        Self::Exactly(kept(name.as_bytes()))
    }

    pub(super) fn one_of<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        Self::OneOf(names.map(|name| kept(name.as_bytes())).collect())
    }

    pub(super) fn beginning(name: &str) -> Self {
        Self::Beginning(kept(name.as_bytes()))
    }

    fn fits(&self, name: &[u8]) -> bool {
        match self {
            Self::Exactly(wanted) => name == wanted,
            Self::OneOf(wanted) => wanted.contains(name),
            Self::Beginning(wanted) => name.starts_with(wanted),
        }
    }
}

impl Group<'_> {
    /// Writes a segment, unless somebody else has, and removes those whose rows are gone.
    pub(super) fn write_segment(&mut self, segment: &Segment) -> rusqlite::Result<()> {
        let Segment { names, first_seq, last_seq, count, lines } = segment;
        // A purge since it was read would find its name written anew.
        if self.count_named(segment)? != *count {
            return Ok(());
        }
        self.cached(
            "INSERT INTO lookup (kind, last_seq, first_seq, names) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute((names.kind(), last_seq, first_seq, lines))?;
        self.forget_segments(*names)
    }

    fn count_named(&self, Segment { names, first_seq, last_seq, .. }: &Segment) -> rusqlite::Result<i64> {
        let (kind, column) = (names.kind(), names.column());
        let sql = format!("SELECT count(*) FROM {kind} WHERE seq BETWEEN ?1 AND ?2 AND {column} IS NOT NULL");
        self.cached(&sql)?.query_row((first_seq, last_seq), |row| row.get(0))
    }

    /// Removes segments without a row, so that they go with what they name.
    pub(super) fn forget_segments(&mut self, names: Names) -> rusqlite::Result<()> {
        let kind = names.kind();
        self.cached(&format!(
            "DELETE FROM lookup WHERE kind = ?1 AND NOT EXISTS
               (SELECT 1 FROM {kind} WHERE seq BETWEEN lookup.first_seq AND lookup.last_seq)"
        ))?
        .execute([kind])?;
        Ok(())
    }

    /// Writes anew the segments that have these positions, after their rows went.
    pub(super) fn rewrite_segments(&mut self, names: Names, mut seqs: Vec<i64>) -> rusqlite::Result<()> {
        seqs.sort_unstable();
        let mut done_to = i64::MIN;
        for &seq in &seqs {
            if seq <= done_to {
                continue;
            }
            let bounds: Option<(i64, i64)> = self
                .cached(
                    "SELECT first_seq, last_seq FROM lookup WHERE kind = ?1 AND last_seq >= ?2 ORDER BY last_seq LIMIT 1",
                )?
                .query_row((names.kind(), seq), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            // The rest are in no segment yet.
            let Some((first_seq, last_seq)) = bounds else { break };
            let lines: Vec<u8> = self
                .cached("SELECT names FROM lookup WHERE kind = ?1 AND last_seq = ?2")?
                .query_row((names.kind(), last_seq), |row| row.get(0))?;
            let lines = without(&lines, |offset| seqs.binary_search(&(first_seq + offset)).is_ok());
            self.cached("UPDATE lookup SET names = ?3 WHERE kind = ?1 AND last_seq = ?2")?.execute((
                names.kind(),
                last_seq,
                lines,
            ))?;
            done_to = last_seq;
        }
        Ok(())
    }
}
