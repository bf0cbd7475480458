//! Whether a store that was not closed is whole, looked at for a bounded time.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

/// How long the look may take. SQLite reads every page for it: some hundred MB a second.
pub(super) const CHECK_DURATION_MAX: Duration = Duration::from_secs(5);

/// Whether the host before did not close the store: then its write-ahead log is still there.
pub(super) fn was_left_open(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)
}

/// Looks for damage with `PRAGMA quick_check`: pages that are none, rows out of order, values of another type. Returns the
/// first thing found. What it has not come to after `duration_max` is not looked at.
pub(super) fn damage(connection: &Connection, duration_max: Duration) -> rusqlite::Result<Option<String>> {
    let interrupt = connection.get_interrupt_handle();
    let (done, ended) = channel::<()>();
    let found = std::thread::scope(|scope| {
        let timer = std::thread::Builder::new().name("store-check".to_owned()).spawn_scoped(scope, move || {
            if ended.recv_timeout(duration_max) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        // Without its thread the look would have no bound.
        let found = timer.is_ok().then(|| connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)));
        drop(done);
        found
    });
    match found {
        Some(Ok(verdict)) if verdict == "ok" => {
            tracing::info!("the store was not closed; it was looked through and is whole");
            Ok(None)
        }
        Some(Ok(damage)) => Ok(Some(damage)),
        Some(Err(error)) if is_damage(&error) => Ok(Some(error.to_string())),
        Some(Err(error)) if error.sqlite_error_code() != Some(ErrorCode::OperationInterrupted) => Err(error),
        Some(Err(_)) | None => {
            let looked_s = duration_max.as_secs_f64();
            tracing::info!(looked_s, "the store was not closed; what could be looked through of it in time is whole");
            Ok(None)
        }
    }
}

/// Whether SQLite says that what is in the file is no database, or not a whole one.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (i INTEGER PRIMARY KEY, x TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
             INSERT INTO t SELECT i, hex(i) FROM n; CREATE INDEX x ON t (x)",
            )
            .unwrap();
        connection
    }

    #[test]
    fn a_look_ends_with_its_time_and_says_nothing_of_the_rest() {
        let connection = filled();
        assert_eq!(damage(&connection, Duration::ZERO).unwrap(), None);
        assert_eq!(damage(&connection, Duration::from_secs(600)).unwrap(), None);
        // The connection is good for anything afterwards.
        assert_eq!(connection.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0)).unwrap(), 30_000);
    }
}
