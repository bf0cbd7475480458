//! Compiled code, kept by digest, so that the second start is fast.
//!
//! Compiled code is trusted like the host itself. It is read from one folder only, which belongs to the host's user and
//! which nobody else may write, and every entry carries a checksum. Nothing in the plugins folder is ever read as code.

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::compiler::Code;
use super::scan::PLUGINS_MAX;
use crate::clock::{Clock, Timestamp};

/// Entries kept, two for each plugin that a folder may have; the least recently used go first.
pub(super) const ENTRIES_MAX: usize = 2 * PLUGINS_MAX;
/// Bytes of all entries together.
pub(super) const ENTRIES_BYTES_MAX: u64 = 1 << 30;
/// What an entry begins with; a new layout takes a new one.
const MAGIC: &[u8; 8] = b"WHCWASM1";
const CHECKSUM_BYTES: usize = 32;
/// What turned a core module into the component that was compiled: another encoder may produce another component.
const ENCODER: &str = "wc254-1";
const EXTENSION: &str = "cwasm";
const TEMPORARY_PREFIX: &str = ".compiling-";
/// A temporary file this old was left by a host that died.
const TEMPORARY_AGE_MAX: Duration = Duration::from_hours(1);

/// The folder of compiled code.
pub(super) struct CompiledCache {
    dir: PathBuf,
    /// What besides the plugin's file decides about the code: the compiler, its settings, this machine.
    compatibility: String,
    clock: Arc<dyn Clock>,
}

/// Why the folder of compiled code can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system refused.
    #[error("the folder for compiled plugins `{}` can't be used; it must be a folder the host may create and write", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Something else stands there.
    #[error("`{}` should be the folder for compiled plugins, but is no folder; remove it or choose another", .0.display())]
    NotAFolder(PathBuf),
    /// It belongs to someone else, who could plant code in it.
    #[error("the folder for compiled plugins `{}` belongs to user {owner}, not to this host's user {user}; remove it or choose another", dir.display())]
    Owner {
        /// The folder.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who the host runs as.
        user: u32,
    },
}

impl CompiledCache {
    /// Creates the folder with mode 0700, or checks the one that is there. Where others could write into it, its mode is
    /// mended and every entry removed: they may not be the host's own.
    pub(super) fn open(dir: &Path, engine: &wasmtime::Engine, clock: Arc<dyn Clock>) -> Result<Self, CacheError> {
        let cache = Self { dir: dir.to_owned(), compatibility: compatibility(engine), clock };
        let failed = |source| CacheError::Io { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).or_else(|error| match error.kind() {
            // Looked at below, where it is told apart from a folder.
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(failed(error)),
        })?;
        let metadata = fs::symlink_metadata(dir).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(CacheError::NotAFolder(dir.to_owned()));
        }
        if metadata.uid() != user() {
            return Err(CacheError::Owner { dir: dir.to_owned(), owner: metadata.uid(), user: user() });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(dir = %dir.display(), mode = format!("{mode:o}"), "others could reach the folder for compiled plugins; its mode is now 700");
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        if mode & 0o022 != 0 {
            for entry in cache.entries().map_err(failed)? {
                fs::remove_file(&entry.path).map_err(failed)?;
            }
        }
        Ok(cache)
    }

    /// The compiled code of the file with `digest`, if there is a sound entry; an unsound one is as good as none.
    pub(super) fn load(&self, engine: &wasmtime::Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        let code = match read_entry(&path) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled plugin can't be used; it is compiled again");
                return None;
            }
        };
        // SAFETY: `store` alone writes entries, into a folder that belongs to this user and that `open` found or made
        // unwritable for everyone else; the entry is a regular file of this user, and its checksum shows that it is whole.
        // Whoever can write as this user can replace the host itself.
        let code = unsafe { Code::kept(code) };
        match code.component(engine) {
            Ok(component) => {
                self.touch(&path);
                Some(component)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), error = format!("{error:#}"), "a compiled plugin can't be used; it is compiled again");
                None
            }
        }
    }

    /// Keeps the code of the file with `digest`; then removes what is over the bounds. A failure costs only the time of
    /// the next compilation, so it is logged and not returned.
    pub(super) fn store(&self, digest: &str, code: &Code) {
        if let Err(error) = self.write(digest, code.bytes()).and_then(|()| self.prune()) {
            tracing::warn!(dir = %self.dir.display(), %error, "a compiled plugin could not be kept; the next start compiles it again");
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{}-{ENCODER}.{EXTENSION}", self.compatibility))
    }

    /// Writes beside and renames. There is no sync: an entry torn by a power cut fails its checksum.
    fn write(&self, digest: &str, code: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.dir)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(code)?;
        file.as_file().set_modified(self.now())?;
        file.persist(self.path(digest))?;
        Ok(())
    }

    /// Marks an entry as used; where that fails, it is only pruned sooner.
    fn touch(&self, path: &Path) {
        let touched = OpenOptions::new().write(true).open(path).and_then(|file| file.set_modified(self.now()));
        if let Err(error) = touched {
            tracing::debug!(path = %path.display(), %error, "a compiled plugin could not be marked as used");
        }
    }

    fn prune(&self) -> io::Result<()> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
        let mut bytes = 0;
        for (index, entry) in entries.iter().enumerate() {
            bytes += entry.bytes;
            // The newest always stays, however large.
            if index > 0 && (index >= ENTRIES_MAX || bytes > ENTRIES_BYTES_MAX) {
                // Another command may have removed it.
                fs::remove_file(&entry.path).or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
            }
        }
        self.remove_stale_temporaries()
    }

    fn remove_stale_temporaries(&self) -> io::Result<()> {
        let oldest = self.now() - TEMPORARY_AGE_MAX;
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) && file.metadata()?.modified()? < oldest
            {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let metadata = fs::symlink_metadata(&path)?;
                entries.push(Entry { path, modified: metadata.modified()?, bytes: metadata.len() });
            }
        }
        Ok(entries)
    }

    fn now(&self) -> SystemTime {
        let Timestamp(milliseconds) = self.clock.now();
        UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
    }
}

struct Entry {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

fn read_entry(path: &Path) -> io::Result<Vec<u8>> {
    let unsound = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != user() || metadata.len() > ENTRIES_BYTES_MAX {
        return Err(unsound("it is not a file of this host's"));
    }
    let mut header = [0; MAGIC.len() + CHECKSUM_BYTES];
    file.read_exact(&mut header)?;
    let (magic, checksum) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(unsound("it does not begin as an entry does"));
    }
    let mut code = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(ENTRIES_BYTES_MAX).read_to_end(&mut code)?;
    if Sha256::digest(&code).as_slice() != checksum {
        return Err(unsound("its checksum is wrong"));
    }
    Ok(code)
}

/// The first 16 hex digits of the SHA-256 of what wasmtime says compiled code depends on; the same in every build.
fn compatibility(engine: &wasmtime::Engine) -> String {
    struct Sha256Hasher(Sha256);
    impl Hasher for Sha256Hasher {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            self.0.clone().finalize().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
        }
    }
    let mut hasher = Sha256Hasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn user() -> u32 {
    // SAFETY: `geteuid` takes nothing, touches no memory and can't fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests;
