//! Files that are read whole: opened without waiting, and looked at once they are open, so that what was looked at is what
//! is read. Opening a pipe would else wait for its writer, and what stands at a path can be changed between two looks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Why a file of a folder can't be read.
#[derive(Debug, thiserror::Error)]
pub enum WithinError {
    /// It leads out of its folder.
    #[error("it is a link to a file outside its folder")]
    Outside,
    /// The file system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Opens a regular file for reading, by links too.
///
/// # Errors
/// When it can't be opened, or is a folder, a pipe, a socket or a device.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, 0)
}

/// Opens a regular file that lies in its folder: no link, or one to a file within, as some volumes are made of.
///
/// # Errors
/// As [`open`], and when it leads out of the folder.
pub fn open_within(path: &Path) -> Result<File, WithinError> {
    match open_with(path, libc::O_NOFOLLOW) {
        // What is no link lies where its name does.
        Ok(file) => return Ok(file),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (target, folder) = (fs::canonicalize(path)?, fs::canonicalize(folder)?);
    if !target.starts_with(&folder) {
        return Err(WithinError::Outside);
    }
    let file = open_with(&target, libc::O_NOFOLLOW).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => WithinError::Outside,
        _ => error.into(),
    })?;
    // A folder on the way may have become a link meanwhile: the system knows where what is open lies.
    if opened_at(&file).is_some_and(|at| !at.starts_with(&folder)) {
        return Err(WithinError::Outside);
    }
    Ok(file)
}

/// At most `bytes_max` bytes of an open file, and one more where there are more.
///
/// # Errors
/// When it can't be read.
pub fn read(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().min(bytes_max);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open_with(path: &Path, flags: libc::c_int) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        // What opening a socket, or a device that is not there, comes to.
        Some(libc::ENXIO) => not_regular(),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"))
    } else {
        Err(not_regular())
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// Where an open file lies, where the system tells.
fn opened_at(file: &File) -> Option<std::path::PathBuf> {
    use std::os::fd::AsRawFd as _;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn fifo(path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends with a zero byte and lives until the call has returned.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "abc").unwrap();
        fifo(&at("pipe"));
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("pipe", at("link-to-pipe")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(open(&at(name)).unwrap(), 2).unwrap(), b"abc");
        }
        for name in ["pipe", "socket", "link-to-pipe"] {
            assert_eq!(open(&at(name)).unwrap_err().to_string(), "it is not a regular file", "{name}");
            assert!(open_within(&at(name)).is_err(), "{name}");
        }
        assert_eq!(open(Path::new("/dev/zero")).unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(open(folder.path()).unwrap_err().to_string(), "it is a folder");
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        fs::write(other.path().join("secret"), "s").unwrap();
        fs::create_dir(at("..data")).unwrap();
        fs::write(at("..data/file"), "abc").unwrap();
        // As volumes of Kubernetes are made.
        symlink("..data/file", at("inside")).unwrap();
        symlink(other.path().join("secret"), at("outside")).unwrap();
        symlink(other.path(), at("way-out")).unwrap();
        symlink("way-out/secret", at("by-a-folder")).unwrap();
        symlink("loop", at("loop")).unwrap();
        assert_eq!(read(open_within(&at("inside")).unwrap(), 9).unwrap(), b"abc");
        for name in ["outside", "by-a-folder"] {
            assert!(matches!(open_within(&at(name)), Err(WithinError::Outside)), "{name}");
        }
        assert!(open_within(&at("loop")).is_err());
        assert!(
            matches!(open_within(&at("none")), Err(WithinError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn a_link_that_is_changed_while_it_is_opened_leads_nowhere_either() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, draft) = (folder.path().join("plugin"), folder.path().join("draft"));
        let secret = other.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        fs::write(folder.path().join("file"), "file").unwrap();
        symlink("file", &path).unwrap();
        let swapped = std::thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                for round in 0..2_000 {
                    match round % 3 {
                        0 => symlink(&secret, &draft).unwrap(),
                        1 => symlink("file", &draft).unwrap(),
                        _ => fifo(&draft),
                    }
                    fs::rename(&draft, &path).unwrap();
                }
            });
            let mut read_at_all = 0;
            while !swapping.is_finished() {
                if let Ok(file) = open_within(&path) {
                    assert_eq!(read(file, 99).unwrap(), b"file");
                    read_at_all += 1;
                }
            }
            read_at_all
        });
        assert!(swapped > 0);
    }
}
