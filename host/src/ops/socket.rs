//! Where the socket is: `{store.path}.sock`, for the store's owner alone.
//!
//! A Unix socket's path holds 107 bytes. Where the store's is longer, it is bound and reached by way of an open file of this
//! process, `/proc/self/fd/…`, so that it stands beside the store all the same. Where there is no `/proc`, it stands in a fresh
//! folder of mode 0700 under the system's temporary folder, and `{store.path}.sock` is a symbolic link to it, which may be of any
//! length: whoever finds the store finds the socket, and nobody can stand in for it who can't write beside the store.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UnixListener;

/// The longest path of a Unix socket, in bytes, without the NUL that ends it.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

const FOLDER_PREFIX: &str = ".wirehook-";
const SOCKET_NAME: &str = "sock";
/// Random characters of a temporary folder's name.
const FOLDER_RANDOM_LEN: usize = 6;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("the socket {} can't be made: {source}; wirehook must be able to write beside its store", path.display())]
pub struct SocketError {
    /// Where it should be.
    pub path: PathBuf,
    /// Why it is not.
    pub source: io::Error,
}

/// A bound socket; gone from the file system when dropped.
#[derive(Debug)]
pub struct OpsSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    _folder: Option<TempDir>,
}

/// The socket's path beside the store.
pub fn path_beside(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".sock");
    path.into()
}

/// Where to connect to.
pub(super) struct Reached {
    pub(super) path: PathBuf,
    /// What a path by way of `/proc/self/fd` leads to, open for as long as that is used.
    _open: Option<File>,
}

/// Where to connect to: the path itself, what it links to, or a way to it that is short enough.
pub(super) fn connect_path(store: &Path) -> Reached {
    let path = path_beside(store);
    let path = fs::read_link(&path).unwrap_or(path);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Reached { path, _open: None };
    }
    match opened(&path, libc::O_NOFOLLOW) {
        Ok(open) => Reached { path: by_file(&open), _open: Some(open) },
        Err(_) => Reached { path, _open: None },
    }
}

/// A file, folder or socket, open for nothing but to be named by.
fn opened(path: &Path, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | flags).open(path)
}

/// A short path of what is open, whatever its own.
fn by_file(open: &File) -> PathBuf {
    format!("/proc/self/fd/{}", open.as_raw_fd()).into()
}

impl OpsSocket {
    /// Makes the socket, replacing one that a dead host left. Mode 0600 from the first moment that others could see it:
    /// it is bound in a folder of mode 0700 and moved from there.
    ///
    /// Call it only while holding the store's lock: that is what makes an existing socket a dead host's.
    ///
    /// # Errors
    /// When the folder can't be written to.
    pub fn bind(store: &Path) -> Result<Self, SocketError> {
        let path = path_beside(store);
        Self::bind_at(&path).map_err(|source| SocketError { path, source })
    }

    fn bind_at(path: &Path) -> io::Result<Self> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        remove_dead_folder(path)?;
        let deepest = parent.as_os_str().len() + 1 + FOLDER_PREFIX.len() + FOLDER_RANDOM_LEN + 1 + SOCKET_NAME.len();
        if deepest.max(path.as_os_str().len()) <= SOCKET_PATH_BYTES_MAX {
            let folder = private_folder(parent)?;
            let bound = folder.path().join(SOCKET_NAME);
            let listener = bind_private(&bound)?;
            fs::rename(&bound, path)?;
            return Ok(Self { listener, inode: inode_of(path)?, path: path.to_owned(), _folder: None });
        }
        match Self::bind_by_file(path, parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::bind_elsewhere(path, parent),
            bound => bound,
        }
    }

    /// Beside the store, by way of the open folder.
    fn bind_by_file(path: &Path, parent: &Path) -> io::Result<Self> {
        let folder = private_folder(parent)?;
        let open = opened(folder.path(), libc::O_DIRECTORY)?;
        let listener = bind_private(&by_file(&open).join(SOCKET_NAME))?;
        fs::rename(folder.path().join(SOCKET_NAME), path)?;
        Ok(Self { listener, inode: inode_of(path)?, path: path.to_owned(), _folder: None })
    }

    /// In the system's temporary folder, with a link to it beside the store.
    fn bind_elsewhere(path: &Path, parent: &Path) -> io::Result<Self> {
        let temporary = std::env::temp_dir();
        let unusable = |error: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "its path has {} bytes and a socket's has {SOCKET_PATH_BYTES_MAX} at most, there is no /proc, and the temporary folder {} can't be used: {error}; choose a shorter `[store] path`",
                path.as_os_str().len(),
                temporary.display()
            ))
        };
        let folder = private_folder(&temporary).map_err(|error| unusable(&error))?;
        let bound = folder.path().join(SOCKET_NAME);
        if bound.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
            return Err(unusable(&"its path is too long as well"));
        }
        let listener = bind_private(&bound)?;
        // A link can't replace a file; it is made beside it and moved.
        let linking = private_folder(parent)?;
        let link = linking.path().join(SOCKET_NAME);
        symlink(&bound, &link)?;
        fs::rename(&link, path)?;
        Ok(Self { listener, inode: inode_of(path)?, path: path.to_owned(), _folder: Some(folder) })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for OpsSocket {
    fn drop(&mut self) {
        // Another host may have the store by now, and its socket in this place.
        if inode_of(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn private_folder(parent: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(FOLDER_PREFIX)
        .rand_bytes(FOLDER_RANDOM_LEN)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn inode_of(path: &Path) -> io::Result<u64> {
    fs::symlink_metadata(path).map(|metadata| metadata.ino())
}

/// Removes the folder that a dead host's link points to, where it is surely such a folder.
fn remove_dead_folder(path: &Path) -> io::Result<()> {
    let Ok(target) = fs::read_link(path) else { return Ok(()) };
    let Some(folder) = target.parent() else { return Ok(()) };
    let ours = folder.parent() == Some(&std::env::temp_dir())
        && folder.file_name().is_some_and(|name| name.as_bytes().starts_with(FOLDER_PREFIX.as_bytes()))
        && target.file_name().is_some_and(|name| name == SOCKET_NAME);
    if ours {
        // Only what this program puts there; a folder with anything else in it stays.
        let _ = fs::remove_file(&target);
        let _ = fs::remove_dir(folder);
    }
    fs::remove_file(path)
}
