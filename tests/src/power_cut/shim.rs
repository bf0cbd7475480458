//! The VFS itself: everything goes through to the machine's own VFS, and what changes the disk is journaled.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::ffi;

use super::{FileId, Shared, Step};

static REGISTERED: AtomicU32 = AtomicU32::new(0);

/// The files whose changes matter after a cut. The `-shm` file does not: SQLite builds it anew.
const JOURNALED: c_int = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;

/// Files whose first sync by their creator also syncs the folder; see `UNIXFILE_DIRSYNC` in SQLite's `os_unix.c`.
const FOLDER_SYNCED: c_int = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;

/// What SQLite is given as our VFS: its own struct first, so that a pointer to one is a pointer to the other.
#[repr(C)]
struct Vfs {
    base: ffi::sqlite3_vfs,
    real: *mut ffi::sqlite3_vfs,
    shared: Arc<Shared>,
}

/// An open file: SQLite's struct first, ours, then the real VFS's file in the memory behind it.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// `None` for files that are not journaled.
    journaled: Option<Box<Journaled>>,
}

struct Journaled {
    shared: Arc<Shared>,
    id: FileId,
    path: PathBuf,
    folder_unsynced: bool,
}

const REAL_OFFSET: usize = size_of::<File>().next_multiple_of(16);

/// Registers a VFS that journals into `shared`, for the rest of the process. Returns its name.
pub(super) fn register(shared: &Arc<Shared>) -> String {
    let name = format!("power-cut-{}", REGISTERED.fetch_add(1, Ordering::SeqCst));
    let c_name = CString::new(name.clone()).unwrap_or_default();
    // SAFETY: a null name asks for the default VFS, which lives for ever; its struct is plain data and may be copied.
    // The name and the new VFS are leaked, since SQLite keeps pointers to both.
    unsafe {
        let real = ffi::sqlite3_vfs_find(std::ptr::null());
        let mut base = *real;
        base.iVersion = 1;
        base.szOsFile += c_int::try_from(REAL_OFFSET).unwrap_or(c_int::MAX);
        base.pNext = std::ptr::null_mut();
        base.zName = c_name.into_raw();
        base.xOpen = Some(open);
        base.xDelete = Some(delete);
        base.xAccess = Some(access);
        base.xFullPathname = Some(full_pathname);
        let vfs = Box::leak(Box::new(Vfs { base, real, shared: Arc::clone(shared) }));
        assert_eq!(ffi::sqlite3_vfs_register(&raw mut vfs.base, 0), ffi::SQLITE_OK);
    }
    name
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe fn vfs<'v>(vfs: *mut ffi::sqlite3_vfs) -> &'v Vfs {
    // SAFETY: SQLite calls with the pointer that was registered, which is the start of a leaked `Vfs`.
    unsafe { &*vfs.cast::<Vfs>() }
}

unsafe fn path_of<'p>(name: *const c_char) -> &'p str {
    // SAFETY: SQLite's names end with a zero and outlive the call; paths of tests are UTF-8.
    unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default()
}

unsafe extern "C" fn open(
    base: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes at `file`, ours and the real VFS's; `name` is null or a string.
    unsafe {
        let vfs = vfs(base);
        let path = if name.is_null() { None } else { Some(path_of(name)) };
        let ours = file.cast::<File>();
        ours.write(File { base: ffi::sqlite3_file { pMethods: std::ptr::null() }, journaled: None });
        if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 && !vfs.shared.open_may_succeed() {
            return ffi::SQLITE_CANTOPEN;
        }
        let existed = path.is_some_and(|path| Path::new(path).exists());
        let real_file = real(file);
        let opened =
            (*vfs.real).xOpen.map_or(ffi::SQLITE_MISUSE, |open| open(vfs.real, name, real_file, flags, out_flags));
        if opened != ffi::SQLITE_OK {
            if !(*real_file).pMethods.is_null()
                && let Some(close) = (*(*real_file).pMethods).xClose
            {
                close(real_file);
            }
            return opened;
        }
        if let Some(path) = path.filter(|_| flags & JOURNALED != 0) {
            let id = identify(&vfs.shared, path, existed);
            let folder_unsynced = !existed && flags & FOLDER_SYNCED != 0;
            let shared = Arc::clone(&vfs.shared);
            (*ours).journaled = Some(Box::new(Journaled { shared, id, path: path.into(), folder_unsynced }));
        }
        (*ours).base.pMethods = &raw const METHODS;
        ffi::SQLITE_OK
    }
}

/// The journal's number of the file at `path`, which it may meet for the first time.
fn identify(shared: &Shared, path: &str, existed: bool) -> FileId {
    let mut journal = shared.journal();
    let path = PathBuf::from(path);
    if existed && let Some(id) = journal.names.get(&path) {
        return *id;
    }
    let inode = std::fs::metadata(&path).map_or(0, |metadata| metadata.ino());
    if existed && let Some(file) = journal.inodes.get(&inode).copied() {
        journal.names.retain(|_, named| *named != file);
        journal.names.insert(path.clone(), file);
        journal.steps.push(Step::Renamed { file, path });
        return file;
    }
    let file = journal.files;
    journal.files += 1;
    journal.names.insert(path.clone(), file);
    journal.inodes.insert(inode, file);
    journal.steps.push(if existed {
        let content = std::fs::read(&path).unwrap_or_default();
        Step::Found { file, path, content }
    } else {
        Step::Created { file, path }
    });
    file
}

unsafe extern "C" fn delete(base: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: as in `open`; the name is never null here.
    unsafe {
        let vfs = vfs(base);
        let deleted = (*vfs.real).xDelete.map_or(ffi::SQLITE_MISUSE, |delete| delete(vfs.real, name, sync_folder));
        let path = PathBuf::from(path_of(name));
        let mut journal = vfs.shared.journal();
        if deleted == ffi::SQLITE_OK
            && let Some(file) = journal.names.remove(&path)
        {
            journal.inodes.retain(|_, known| *known != file);
            journal.steps.push(Step::Removed { path, folder_synced: sync_folder != 0 });
        }
        deleted
    }
}

unsafe extern "C" fn access(base: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: passed through as it came.
    unsafe {
        let vfs = vfs(base);
        (*vfs.real).xAccess.map_or(ffi::SQLITE_MISUSE, |access| access(vfs.real, name, flags, out))
    }
}

unsafe extern "C" fn full_pathname(
    base: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: passed through as it came.
    unsafe {
        let vfs = vfs(base);
        (*vfs.real).xFullPathname.map_or(ffi::SQLITE_MISUSE, |full| full(vfs.real, name, size, out))
    }
}

unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: the real VFS's file stands behind ours, in memory that `szOsFile` asked for.
    unsafe { file.cast::<u8>().add(REAL_OFFSET).cast() }
}

unsafe fn journaled<'f>(file: *mut ffi::sqlite3_file) -> Option<&'f mut Journaled> {
    // SAFETY: `open` wrote a `File` there, and SQLite uses one file from one thread at a time.
    unsafe { (*file.cast::<File>()).journaled.as_deref_mut() }
}

/// Calls a method of the real file.
macro_rules! call_real {
    ($file:ident . $method:ident ( $($argument:expr),* )) => {{
        let real_file = real($file);
        (*(*real_file).pMethods).$method.map_or(ffi::SQLITE_MISUSE, |method| method(real_file, $($argument),*))
    }};
}

/// Methods that change nothing on the disk.
macro_rules! pass_through {
    ($($name:ident = $method:ident ( $($argument:ident : $kind:ty),* );)+) => {
        $(unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file, $($argument: $kind),*) -> c_int {
            // SAFETY: passed through as it came, to a file that is open.
            unsafe { call_real!(file.$method($($argument),*)) }
        })+
    };
}

pass_through! {
    read = xRead(buffer: *mut c_void, amount: c_int, offset: i64);
    file_size = xFileSize(size: *mut i64);
    lock = xLock(level: c_int);
    unlock = xUnlock(level: c_int);
    check_reserved_lock = xCheckReservedLock(out: *mut c_int);
    file_control = xFileControl(operation: c_int, argument: *mut c_void);
    sector_size = xSectorSize();
    device_characteristics = xDeviceCharacteristics();
    shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void);
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int);
    shm_unmap = xShmUnmap(delete: c_int);
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: passed through as it came, to a file that is open.
    unsafe {
        let real_file = real(file);
        if let Some(barrier) = (*(*real_file).pMethods).xShmBarrier {
            barrier(real_file);
        }
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the last use of a file that is open; what `open` wrote there is dropped once.
    unsafe {
        let closed = call_real!(file.xClose());
        drop((*file.cast::<File>()).journaled.take());
        closed
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, buffer: *const c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite gives `amount` bytes at `buffer`.
    unsafe {
        let written = call_real!(file.xWrite(buffer, amount, offset));
        if written == ffi::SQLITE_OK
            && let Some(journaled) = journaled(file)
        {
            let length = usize::try_from(amount).unwrap_or(0);
            let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), length).to_vec();
            let offset = usize::try_from(offset).unwrap_or(0);
            journaled.shared.journal().steps.push(Step::Written { file: journaled.id, offset, bytes });
        }
        written
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: passed through as it came, to a file that is open.
    unsafe {
        let truncated = call_real!(file.xTruncate(size));
        if truncated == ffi::SQLITE_OK
            && let Some(journaled) = journaled(file)
        {
            let size = usize::try_from(size).unwrap_or(0);
            journaled.shared.journal().steps.push(Step::Truncated { file: journaled.id, size });
        }
        truncated
    }
}

/// The machine itself need not sync: nothing but the journal decides what survives.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: passed through as it came, to a file that is open.
    unsafe {
        let Some(journaled) = journaled(file) else { return call_real!(file.xSync(flags)) };
        let succeeds = journaled.shared.sync_may_succeed(&journaled.path.to_string_lossy());
        let mut journal = journaled.shared.journal();
        if !succeeds {
            journal.steps.push(Step::SyncFailed { file: journaled.id });
            return ffi::SQLITE_IOERR_FSYNC;
        }
        let folder_too = std::mem::take(&mut journaled.folder_unsynced);
        journal.steps.push(Step::Synced { file: journaled.id, folder_too });
        ffi::SQLITE_OK
    }
}
