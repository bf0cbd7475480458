//! How large the store's files are, and what the disk has left. Nothing is opened: closing a second descriptor of the
//! database would drop this process's locks on it.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::store::StoreSize;

/// The sizes now; 0 for a file that is not there.
pub(super) fn of(path: &Path) -> StoreSize {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    StoreSize { bytes: bytes(path), wal_bytes: bytes(Path::new(&wal)), free_bytes: free_bytes(path) }
}

/// What a process that is not root may still write.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: the type is plain numbers, for which all zeros are values.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a NUL, and the pointer is to a value that outlives the call.
    let status = unsafe { libc::statvfs(path.as_ptr(), &raw mut answer) };
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "other systems have other widths")]
    let free = (answer.f_bavail as u64).saturating_mul(answer.f_frsize as u64);
    (status == 0).then_some(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_measured_and_missing_ones_are_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        assert_eq!((of(&path).bytes, of(&path).free_bytes), (0, None), "a path that is not there says nothing");
        fs::write(&path, [0; 10]).unwrap();
        fs::write(folder.path().join("x.db-wal"), [0; 20]).unwrap();
        let size = of(&path);
        assert_eq!((size.bytes, size.wal_bytes), (10, 20));
        assert!(size.free_bytes.is_some_and(|free| free > 0));
    }
}
