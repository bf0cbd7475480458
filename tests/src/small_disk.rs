//! A disk that a test can fill: a file system of its own in memory, of a known size.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// What is written at once to fill it.
static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];

/// Mounted until it is dropped. Only root may mount.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// A disk of `mib` MiB. None where this process may not mount one, which is said.
    pub fn mount(mib: u64) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        match mount(folder.path(), mib, 0) {
            Ok(()) => Ok(Some(Self { folder })),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("left out: a disk that is full or read-only, for only root may mount one here");
                Ok(None)
            }
            Err(error) => Err(error).context("mounting a file system in memory"),
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes the room until `free` bytes are left; gives back a part of what was taken where that is too much.
    pub fn fill(&self, free: u64) -> Result<()> {
        self.make_room()?;
        let mut file = File::create(self.ballast())?;
        let mut left = self.free()?.saturating_sub(free);
        while left > 0 {
            let piece = PIECE.len().min(usize::try_from(left)?);
            match file.write(&PIECE[..piece]) {
                Ok(0) => bail!("nothing could be written"),
                Ok(written) => left = left.saturating_sub(written as u64),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives back all that [`Self::fill`] took.
    pub fn make_room(&self) -> Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Lets nobody write to it, or everybody again. Nobody may have a file of it open for writing.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let flags = libc::MS_REMOUNT | if read_only { libc::MS_RDONLY } else { 0 };
        mount(self.path(), 0, flags).context("mounting it again")
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn free(&self) -> Result<u64> {
        let path = CString::new(self.path().as_os_str().as_encoded_bytes())?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the path ends with a zero and `found` is writable; where the call succeeds it has filled it.
        let found = unsafe {
            if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error().into());
            }
            found.assume_init()
        };
        Ok(found.f_bavail * found.f_frsize)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let Ok(path) = CString::new(self.path().as_os_str().as_encoded_bytes()) else { return };
        // SAFETY: the path ends with a zero. What is still open keeps it until it is closed.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mount(path: &Path, mib: u64, flags: libc::c_ulong) -> io::Result<()> {
    let target = CString::new(path.as_os_str().as_encoded_bytes())?;
    let data = CString::new(if mib == 0 { String::new() } else { format!("size={mib}m,mode=0700") })?;
    // SAFETY: every text ends with a zero and outlives the call.
    let mounted = unsafe {
        libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), flags, data.as_ptr().cast::<libc::c_void>())
    };
    if mounted == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_and_emptied_and_made_read_only() {
        let Some(disk) = SmallDisk::mount(4).unwrap() else { return };
        disk.fill(1024 * 1024).unwrap();
        assert_eq!(disk.free().unwrap(), 1024 * 1024);
        disk.fill(0).unwrap();
        let full = std::fs::write(disk.path().join("more"), PIECE).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        disk.make_room().unwrap();
        std::fs::write(disk.path().join("more"), PIECE).unwrap();
        disk.set_read_only(true).unwrap();
        assert_eq!(std::fs::write(disk.path().join("more"), "").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        disk.set_read_only(false).unwrap();
        std::fs::write(disk.path().join("more"), "").unwrap();
    }
}
