//! What an operator has told to wait.

use rusqlite::{Connection, Row};

use super::group::Group;
use super::state::unknown;
use crate::clock::Timestamp;
use crate::store::{Pause, PauseKind};

pub(super) fn pauses(connection: &Connection) -> rusqlite::Result<Vec<Pause>> {
    connection
        .prepare_cached("SELECT kind, name, since FROM pause ORDER BY kind, name")?
        .query_map((), pause_at)?
        .collect()
}

fn pause_at(row: &Row<'_>) -> rusqlite::Result<Pause> {
    let kind = row.get_ref(0)?.as_str()?;
    let known = [PauseKind::Plugin, PauseKind::Source].into_iter().find(|known| known.as_str() == kind);
    Ok(Pause {
        kind: known.ok_or_else(|| unknown("kind of pause", kind))?,
        name: row.get(1)?,
        since: Timestamp(row.get(2)?),
    })
}

impl Group<'_> {
    pub(super) fn pause(&mut self, Pause { kind, name, since }: &Pause) -> rusqlite::Result<bool> {
        let inserted = self
            .cached("INSERT INTO pause (kind, name, since) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute((kind.as_str(), name, since.0))?;
        Ok(inserted == 1)
    }

    pub(super) fn resume(&mut self, kind: PauseKind, name: &str) -> rusqlite::Result<bool> {
        let deleted = self.cached("DELETE FROM pause WHERE kind = ?1 AND name = ?2")?.execute((kind.as_str(), name))?;
        Ok(deleted == 1)
    }
}
