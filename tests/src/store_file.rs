//! Looking into a store's file from outside, as `sqlite3` would.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use tempfile::TempDir;

/// Opens a copy of the store at `path`, as a crash left it, and lets SQLite check every page and index.
///
/// The copy takes the write-ahead log along: recovery is part of what is checked, and the original stays as it is.
pub fn check_integrity_of_copy(path: &Path) -> Result<()> {
    let (_folder, copy) = copy(path)?;
    check_integrity(&copy)
}

/// Copies the store at `path`, with its write-ahead log, into a folder of its own. Nobody may write to it meanwhile.
pub fn copy(path: &Path) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().context("a folder for the copy")?;
    let copy = folder.path().join("copy.db");
    std::fs::copy(path, &copy).with_context(|| format!("copying {}", path.display()))?;
    let log = with_suffix(path, "-wal");
    if log.exists() {
        std::fs::copy(&log, with_suffix(&copy, "-wal")).with_context(|| format!("copying {}", log.display()))?;
    }
    Ok((folder, copy))
}

fn check_integrity(path: &Path) -> Result<()> {
    let store = Connection::open(path).with_context(|| format!("opening {}", path.display()))?;
    let verdict: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "integrity_check of {} says: {verdict}", path.display());
    let mut statement = store.prepare("PRAGMA foreign_key_check")?;
    ensure!(!statement.exists([])?, "foreign_key_check of {} found rows without their parent", path.display());
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_page_is_found_and_a_whole_store_is_not_blamed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = Connection::open(&path).unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, hex(randomblob(40)) FROM n";
        store
            .execute_batch(&format!("CREATE TABLE t (i INTEGER PRIMARY KEY, x TEXT); CREATE INDEX x ON t (x); {fill}"))
            .unwrap();
        drop(store);
        check_integrity_of_copy(&path).unwrap();

        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        assert!(check_integrity_of_copy(&path).is_err());
    }
}
