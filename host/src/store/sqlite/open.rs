//! From a path to a connection that may write: the file, its lock, its schema. Nothing that is not a store is touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::integrity::{self, CHECK_DURATION_MAX};
use super::lock::{LockError, LockFile};
use crate::clock::{Clock, SystemClock};
use crate::metrics::{CommitMetrics, LetterMetrics};
use crate::settings::Synchronous;

/// `PRAGMA application_id` of every store: `WIRE` in ASCII.
const APPLICATION_ID: i32 = 0x5749_5245;

/// One step for each version of the schema, oldest first; `PRAGMA user_version` counts those that were taken.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/0001_initial.sql"),
    include_str!("../../../migrations/0002_source_cursor.sql"),
    include_str!("../../../migrations/0003_plugin_state.sql"),
    include_str!("../../../migrations/0004_endpoint_state.sql"),
    include_str!("../../../migrations/0005_pause.sql"),
    include_str!("../../../migrations/0006_suspect.sql"),
    include_str!("../../../migrations/0007_order.sql"),
    include_str!("../../../migrations/0008_lookup.sql"),
    include_str!("../../../migrations/0009_passed.sql"),
    include_str!("../../../migrations/0010_dead_letter_bytes.sql"),
    include_str!("../../../migrations/0011_deadlines.sql"),
];

/// The default of [`SqliteOptions::checkpoint_bytes`].
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;

/// How long a connection waits for another one, such as an operator's `sqlite3`, before its statement fails.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages the writer keeps in memory, in KiB.
const WRITER_CACHE_KIB: i64 = 32 * 1024;

/// What is left of the write-ahead log's file when it starts from its beginning, in bytes.
const WAL_FILE_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// Where the header of a SQLite file has its application id, and how much of the header that needs.
const HEADER_APPLICATION_ID: std::ops::Range<usize> = 68..72;
const HEADER_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file. Its lock is `{path}.lock`.
    pub path: PathBuf,
    /// How often commits wait for the disk.
    pub synchronous: Synchronous,
    /// Whether a store of an older version is brought up to date, or refused.
    pub migrate: bool,
    /// Whether a missing store is created, or refused.
    pub create: bool,
    /// How much is written to the write-ahead log before a part of it is moved into the database file, in bytes. The
    /// log's own length stays below 32 times this, or the longest single commit.
    pub checkpoint_bytes: u64,
    /// The SQLite VFS under it, where it is not the machine's own; for fault injection.
    pub vfs: Option<String>,
    /// What commits are counted with, where somebody looks.
    pub commits: Option<CommitMetrics>,
    /// Whether this is a host, which takes over what hosts before it had claimed. A command leaves what was under way when a
    /// host ended without stopping as it is, for the next host to find.
    pub takes_over: bool,
    /// What dead letters may keep together, in bytes: beyond it the oldest make room.
    pub dead_bytes_max: u64,
    /// What dead letters are counted with.
    pub letters: Option<LetterMetrics>,
    /// By which things age.
    pub clock: Arc<dyn Clock>,
}

impl SqliteOptions {
    /// A store at `path` that waits for the disk at every commit, is created where missing and migrated where old.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            synchronous: Synchronous::Full,
            migrate: true,
            create: true,
            checkpoint_bytes: CHECKPOINT_BYTES,
            vfs: None,
            commits: None,
            takes_over: true,
            dead_bytes_max: u64::MAX,
            letters: None,
            clock: SystemClock::shared(),
        }
    }
}

/// Why a store can't be opened. Nothing was changed, unless a message says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the path is missing.
    #[error("the folder {folder} of the store {path} does not exist; create it, or mend `[store] path`")]
    NoFolder {
        /// The store's path.
        path: PathBuf,
        /// The missing folder.
        folder: PathBuf,
    },
    /// There is no store, and it was not to be created.
    #[error("there is no store at {path}; `wirehook run` creates it, or mend `[store] path`")]
    Missing {
        /// The store's path.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is not a Wirehook store and was left as it is; mend `[store] path`, or move that file away")]
    NotAStore {
        /// The file's path.
        path: PathBuf,
    },
    /// A later version of Wirehook wrote it.
    #[error(
        "the store {path} has schema version {found}, this program knows versions up to {known}; use a later Wirehook"
    )]
    Newer {
        /// The store's path.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The latest version known here.
        known: usize,
    },
    /// An earlier version of Wirehook wrote it, and it was not to be migrated.
    #[error(
        "the store {path} has schema version {found}, this program needs version {known}; start `wirehook run` once, which brings it up to date"
    )]
    NeedsMigration {
        /// The store's path.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The version needed.
        known: usize,
    },
    /// Another process has it open.
    #[error("the store {path} is in use by {holder}; stop that process first, or choose another `[store] path`", holder = holder(*pid))]
    Locked {
        /// The store's path.
        path: PathBuf,
        /// The process, where its lock file names it.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("can't {action} {path}: {source}; check the path, its permissions and the space on its disk")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its content is damaged.
    #[error(
        "the store {path} is damaged and was left as it is: {damage}; restore it from a backup, or save what can be read with `sqlite3 {path} .recover` (docs/lifecycle.md)"
    )]
    Damaged {
        /// The store's path.
        path: PathBuf,
        /// The first thing found.
        damage: String,
    },
    /// SQLite refused.
    #[error(
        "can't open the store {path}: {source}; Wirehook must be able to write to it, its folder and its disk, which needs room"
    )]
    Sqlite {
        /// The store's path.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}

impl OpenError {
    pub(super) fn of_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        if integrity::is_damage(&source) {
            return Self::Damaged { path: path.to_owned(), damage: source.to_string() };
        }
        Self::Sqlite { path: path.to_owned(), source }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// A store whose lock is held and whose schema is the one known here.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) lock: LockFile,
    /// The options with the path made absolute.
    pub(super) options: SqliteOptions,
}

/// Opens the store, creating or migrating it where the options allow.
pub(super) fn open(mut options: SqliteOptions) -> Result<Opened, OpenError> {
    options.path = absolute(&options.path)?;
    let path = options.path.clone();
    // An open store has a lock file. Its database must not even be read here: closing a second descriptor of it would
    // drop this process's locks on it.
    if !LockFile::path_for(&path).exists() {
        inspect(&path)?.usable(&path, options.create)?;
    }
    let lock = LockFile::acquire(&path).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked { path: path.clone(), pid },
        LockError::Io(source) => OpenError::Io { action: "lock", path: LockFile::path_for(&path), source },
    })?;
    let found = inspect(&path)?;
    found.usable(&path, options.create)?;
    let sqlite = |source| OpenError::of_sqlite(&path, source);
    let was_left_open = integrity::was_left_open(&path);
    if !matches!(found, Found::Store) {
        create(&options)?;
    }
    let connection = connect(&options, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
    if was_left_open && let Some(damage) = integrity::damage(&connection, CHECK_DURATION_MAX).map_err(sqlite)? {
        return Err(OpenError::Damaged { path, damage });
    }
    let version = version_of(&connection, &options)?;
    temporary_files_beside(&connection, &path);
    configure_writer(&connection, options.synchronous).map_err(sqlite)?;
    migrate(&connection, version).map_err(sqlite)?;
    Ok(Opened { connection, lock, options })
}

/// Has SQLite make its temporary files beside the store: that is where there is room for a copy of it, and the system's
/// temporary folder may not be writable. It holds for the process. A folder that SQLite can't write to is passed over for
/// the system's, by SQLite itself.
fn temporary_files_beside(connection: &Connection, path: &Path) {
    let Some(folder) = path.parent().and_then(Path::to_str) else { return };
    if let Err(error) = connection.pragma_update(None, "temp_store_directory", folder) {
        tracing::warn!(dir = folder, %error, "temporary files of the store can't be made beside it; the system's folder is used");
    }
}

/// The writer's connection again, after it was closed for a failed commit. The lock is still held.
///
/// Commits once, which shows that the disk works and overwrites what the failed commit left in the write-ahead log: its
/// frames look committed to whoever recovers the log after a crash, though the disk may never have had them.
pub(super) fn reopen_writer(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let connection = connect(options, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure_writer(&connection, options.synchronous)?;
    // A value that stays the same would write nothing. The position skipped is a harmless gap.
    connection.execute("UPDATE sequence SET last = last + 1 WHERE name = 'event'", ())?;
    Ok(connection)
}

/// A connection that does nothing but stay open. While it is, closing the writer's is not the last closing, which would
/// move the log into the database and remove it, and opening is not the first, which would recover the log: both
/// would take the frames of a failed commit for committed.
pub(super) fn open_anchor(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let connection = open_reader(options)?;
    // A connection meets the log at its first read.
    connection.query_row("SELECT count(*) FROM host", (), |_| Ok(()))?;
    Ok(connection)
}

/// A connection that reads.
pub(super) fn open_reader(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    connect(options, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// A connection that moves the write-ahead log into the database file.
pub(super) fn open_checkpointer(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let connection = connect(options, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "synchronous", synchronous_name(options.synchronous))?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

fn connect(options: &SqliteOptions, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match &options.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(&options.path, flags, vfs.as_str())?,
        None => Connection::open_with_flags(&options.path, flags)?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn configure_writer(connection: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("its disk can't hold a write-ahead log (journal mode {mode}); use a local disk")),
        ));
    }
    connection.pragma_update(None, "synchronous", synchronous_name(synchronous))?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_FILE_BYTES_KEPT, |_| Ok(()))?;
    Ok(())
}

fn synchronous_name(synchronous: Synchronous) -> &'static str {
    match synchronous {
        Synchronous::Full => "full",
        Synchronous::Normal => "normal",
    }
}

/// The folder resolved, and the file too where it exists, so that two ways to one file share one lock.
fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    if let Ok(found) = fs::canonicalize(path) {
        return Ok(found);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| OpenError::NotAStore { path: path.to_owned() })?;
    match fs::canonicalize(folder) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::NoFolder { path: path.to_owned(), folder: folder.to_owned() })
        }
        Err(source) => Err(OpenError::Io { action: "look into", path: folder.to_owned(), source }),
    }
}

enum Found {
    Nothing,
    /// A file of no bytes, such as one that a test or a script made for us.
    Empty,
    Store,
    SomethingElse,
}

impl Found {
    fn usable(&self, path: &Path, create: bool) -> Result<(), OpenError> {
        match self {
            Self::Store => Ok(()),
            Self::Nothing | Self::Empty if create => Ok(()),
            Self::Nothing | Self::Empty => Err(OpenError::Missing { path: path.to_owned() }),
            Self::SomethingElse => Err(OpenError::NotAStore { path: path.to_owned() }),
        }
    }
}

/// Reads the header itself: SQLite would take a foreign database for its own and could roll back its journal.
fn inspect(path: &Path) -> Result<Found, OpenError> {
    let mut header = [0_u8; 100];
    let read = match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| !metadata.is_file()) => return Ok(Found::SomethingElse),
        Ok(file) => read_start(&file, &mut header),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => Err(error),
    };
    let read = read.map_err(|source| OpenError::Io { action: "read", path: path.to_owned(), source })?;
    if read == 0 {
        return Ok(Found::Empty);
    }
    let ours = read == header.len()
        && header.starts_with(HEADER_MAGIC)
        && header[HEADER_APPLICATION_ID] == APPLICATION_ID.to_be_bytes();
    Ok(if ours { Found::Store } else { Found::SomethingElse })
}

fn read_start(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Builds a store beside the path, makes it durable, and gives it its name only then: however that ends, there is a
/// whole store or none. The lock is held, so that whatever stands there is what an earlier try left.
fn create(options: &SqliteOptions) -> Result<(), OpenError> {
    let path = &options.path;
    let building = SqliteOptions { path: beside(path, ".new"), ..options.clone() };
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { action, path, source }
    };
    for leftover in ["", "-journal", "-wal", "-shm"] {
        let leftover = beside(&building.path, leftover);
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &leftover)(error)),
            _ => {}
        }
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&building.path);
    let file = file.map_err(io("create", &building.path))?;
    build(&building).map_err(|source| OpenError::of_sqlite(&building.path, source))?;
    file.sync_all().map_err(io("sync", &building.path))?;
    fs::rename(&building.path, path).map_err(io("create", path))?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync", folder))
}

fn build(options: &SqliteOptions) -> rusqlite::Result<()> {
    let connection = connect(options, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // What is not finished is thrown away whole: there is nothing to roll back.
    connection.pragma_update_and_check(None, "journal_mode", "memory", |_| Ok(()))?;
    migrate(&connection, 0)?;
    configure_writer(&connection, Synchronous::Full)?;
    connection.close().map_err(|(_, error)| error)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The schema's version, where this program can work with it.
fn version_of(connection: &Connection, options: &SqliteOptions) -> Result<usize, OpenError> {
    let path = || options.path.clone();
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| OpenError::of_sqlite(&path(), source))?;
    let known = MIGRATIONS.len();
    match usize::try_from(version) {
        Err(_) => Err(OpenError::NotAStore { path: path() }),
        Ok(found) if found > known => Err(OpenError::Newer { path: path(), found, known }),
        Ok(found) if found < known && !options.migrate => Err(OpenError::NeedsMigration { path: path(), found, known }),
        Ok(found) => Ok(found),
    }
}

/// Takes the steps that are missing, all or none.
fn migrate(connection: &Connection, found: usize) -> rusqlite::Result<()> {
    let missing = &MIGRATIONS[found..];
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
    transaction.commit()
}
