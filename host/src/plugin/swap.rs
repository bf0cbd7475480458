//! Whether the pages of a sandbox can be swapped out, and what follows from that for how a sandbox is cleaned.
//!
//! The runtime cleans the memory of an instance in one of two ways. The *page scan* asks the kernel which pages were
//! written and copies only those back; it is fast, and it passes over a page that is written but not present, because it
//! was swapped out: the next event in that place would read what the last one left. The *full reset* copies the beginning
//! of each memory and drops the rest, whatever the kernel says. So the scan is used only while nothing of this process
//! can be swapped out, which is decided at the start and again all the time while the host runs: a machine can be given
//! swap at any moment.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use crate::settings::MemoryReset;

/// How long the watch waits for the kernel's word on `/proc/swaps` before it looks again: a cgroup's limit that is lifted is
/// told to nobody.
const WATCH_INTERVAL_MS: libc::c_int = 1_000;
/// Where version 2 of the cgroups' tree is, alone or beside version 1.
const CGROUP_TREES: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
/// Levels of cgroups that are looked at; the kernel's own limit is far below.
const CGROUP_LEVELS_MAX: usize = 64;

/// What the machine says about swap. `None`: it does not say.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// Bytes of all swap areas, from `sysinfo(2)`: that is the kernel's own number, also where `/proc` is another's.
    pub(super) swap_bytes: Option<u64>,
    /// Areas in `/proc/swaps`.
    pub(super) areas: Option<usize>,
    /// Bytes of this process that are swapped out, from `/proc/self/status`.
    pub(super) swapped_bytes: Option<u64>,
    /// The cgroup of this process or above it that is given no swap (version 2: `memory.swap.max` is 0).
    pub(super) forbidden_by: Option<PathBuf>,
}

/// How sandboxes are cleaned, with the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cleaning {
    /// Only written pages: nothing of this process can be swapped out.
    Scan(CannotSwap),
    /// Everything: pages of this process can be swapped out.
    Full(MaySwap),
    /// Everything: the settings ask for it.
    Asked,
}

/// Why nothing can be swapped out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CannotSwap {
    /// The machine has no swap area.
    NoArea,
    /// A cgroup that forbids it.
    Cgroup(PathBuf),
}

/// Why pages may be swapped out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MaySwap {
    /// There is swap, and nothing keeps this process from it.
    Area,
    /// Pages of this process are in it already.
    Swapped,
    /// The machine does not say whether it has swap.
    Unknown,
}

impl Facts {
    /// Reads them from the files below `root`, which is `/` but in tests; `swap_bytes` is of `sysinfo(2)`.
    pub(super) fn read(root: &Path, swap_bytes: Option<u64>) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        Self {
            swap_bytes,
            // The first line is the heading.
            areas: text("proc/swaps").map(|text| text.lines().skip(1).filter(|line| !line.trim().is_empty()).count()),
            swapped_bytes: text("proc/self/status").as_deref().and_then(swapped_bytes),
            forbidden_by: text("proc/self/cgroup").and_then(|text| forbidden_by(root, &text)),
        }
    }

    fn now() -> Self {
        Self::read(Path::new("/"), swap_bytes())
    }
}

impl Cleaning {
    /// How sandboxes of this process have to be cleaned now.
    pub fn now() -> Self {
        decide(&Facts::now())
    }

    /// The same under a setting of the operator's.
    pub fn under(setting: MemoryReset) -> Self {
        match setting {
            MemoryReset::Written => Self::now(),
            MemoryReset::All => Self::Asked,
        }
    }

    pub(super) fn scans(&self) -> bool {
        matches!(self, Self::Scan(_))
    }
}

impl fmt::Display for Cleaning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan(CannotSwap::NoArea) => out.write_str("written pages only, for the machine has no swap"),
            Self::Scan(CannotSwap::Cgroup(path)) => {
                write!(out, "written pages only, for {} is 0", path.join("memory.swap.max").display())
            }
            Self::Asked => out.write_str("all memory, as `memory_reset` in [plugins] says"),
            Self::Full(why) => {
                let why = match why {
                    MaySwap::Area => "the machine has swap and no cgroup forbids it to this process",
                    MaySwap::Swapped => "memory of this process is swapped out",
                    MaySwap::Unknown => "the machine does not say whether it has swap",
                };
                write!(
                    out,
                    "all memory, for {why}; `MemorySwapMax=0` in the service makes calls faster (docs/limits.md)"
                )
            }
        }
    }
}

/// Whether the page scan is safe. A cgroup of version 1 is no reason: its `memory.memsw.limit_in_bytes` bounds what its
/// own shortage swaps out, and not what a shortage of the machine does.
pub(super) fn decide(facts: &Facts) -> Cleaning {
    if facts.swapped_bytes.is_some_and(|bytes| bytes > 0) {
        return Cleaning::Full(MaySwap::Swapped);
    }
    if let Some(cgroup) = &facts.forbidden_by {
        return Cleaning::Scan(CannotSwap::Cgroup(cgroup.clone()));
    }
    match (facts.swap_bytes, facts.areas) {
        (Some(0), Some(0) | None) => Cleaning::Scan(CannotSwap::NoArea),
        (Some(_), _) => Cleaning::Full(MaySwap::Area),
        (None, Some(areas)) if areas > 0 => Cleaning::Full(MaySwap::Area),
        // `/proc/swaps` alone may be a container's view of it.
        (None, _) => Cleaning::Full(MaySwap::Unknown),
    }
}

/// `VmSwap` of `/proc/self/status`, which is what `smaps_rollup` sums up too, without a walk through all mappings.
fn swapped_bytes(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmSwap:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

/// The nearest cgroup of version 2, from that of this process upwards, that is given no swap.
fn forbidden_by(root: &Path, cgroups: &str) -> Option<PathBuf> {
    let own = Path::new(cgroups.lines().find_map(|line| line.strip_prefix("0::"))?);
    // A path out of this cgroup namespace can't be followed.
    if own.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let own = own.strip_prefix("/").unwrap_or(own);
    CGROUP_TREES.iter().find_map(|tree| {
        let above = own.ancestors().take(CGROUP_LEVELS_MAX).map(|path| Path::new(tree).join(path));
        let mut forbidding = above.filter(|path| {
            let limit = fs::read_to_string(root.join(path).join("memory.swap.max"));
            limit.is_ok_and(|limit| limit.trim() == "0")
        });
        forbidding.next().map(|path| Path::new("/").join(path))
    })
}

/// Bytes of all swap areas, used or not.
fn swap_bytes() -> Option<u64> {
    // SAFETY: a structure of integers, for which zeroes are a value.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid and writable for the whole call, which keeps no pointer to it.
    let status = unsafe { libc::sysinfo(&raw mut info) };
    #[allow(clippy::useless_conversion, reason = "other systems have other widths")]
    (status == 0).then(|| u64::from(info.totalswap).saturating_mul(info.mem_unit.into()))
}

/// How the sandboxes of a running engine are cleaned: decided at its start, and taken back once pages may be swapped out.
/// Never given again, for nobody knows what was swapped out meanwhile.
pub(super) struct SwapWatch {
    full_since_start: Arc<AtomicBool>,
    at_start: Cleaning,
    /// The watch ends within [`WATCH_INTERVAL_MS`] once this is gone.
    _alive: Arc<()>,
}

impl SwapWatch {
    /// Watches from now on, where `at_start` is the page scan.
    pub(super) fn start(at_start: Cleaning) -> io::Result<Self> {
        let full_since_start = Arc::new(AtomicBool::new(false));
        let alive = Arc::new(());
        if at_start.scans() {
            let (watched, full) = (Arc::downgrade(&alive), Arc::clone(&full_since_start));
            thread::Builder::new().name("plugin-swap".to_owned()).spawn(move || watch(&watched, &full))?;
        }
        Ok(Self { full_since_start, at_start, _alive: alive })
    }

    /// How sandboxes are cleaned now.
    pub(super) fn cleaning(&self) -> Cleaning {
        if self.at_start.scans() && self.full_since_start.load(Ordering::Acquire) {
            return match Cleaning::now() {
                full @ Cleaning::Full(_) => full,
                Cleaning::Scan(_) | Cleaning::Asked => Cleaning::Full(MaySwap::Area),
            };
        }
        self.at_start.clone()
    }
}

fn watch(alive: &Weak<()>, full: &AtomicBool) {
    let swaps = File::open("/proc/swaps").ok();
    while alive.strong_count() > 0 {
        // While there is no swap at all, nothing else is read: it was a quarter of what an idle host does.
        let cleaning = (swap_bytes() != Some(0)).then(Cleaning::now).filter(|cleaning| !cleaning.scans());
        if let Some(cleaning) = cleaning {
            match stop_scanning() {
                Ok(()) => tracing::warn!(
                    detail = %cleaning,
                    "this process may be swapped out from now on: the memory of each sandbox is cleaned whole, which is slower"
                ),
                Err(error) => tracing::error!(
                    %error,
                    "this process may be swapped out, and sandboxes can't be cleaned whole: restart the host, or take the swap away"
                ),
            }
            full.store(true, Ordering::Release);
            return;
        }
        wait_for_change(swaps.as_ref());
    }
}

/// Waits until the list of swap areas changes, or for [`WATCH_INTERVAL_MS`].
fn wait_for_change(swaps: Option<&File>) {
    let mut change = libc::pollfd { fd: swaps.map_or(-1, AsRawFd::as_raw_fd), events: libc::POLLPRI, revents: 0 };
    // SAFETY: one valid and writable entry, as is said; a file of -1 is passed over, so that the call is a wait.
    let _changed = unsafe { libc::poll(&raw mut change, 1, WATCH_INTERVAL_MS) };
}

/// Ends the page scan of every engine of this process, from the next sandbox that is cleaned on.
///
/// The runtime asks the kernel by one open `/proc/self/pagemap`, and resets all where that fails. So the file in its place
/// is made one that can't answer; the runtime itself puts another into that place after a `fork`.
fn stop_scanning() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let pagemap = Path::new("/proc").join(std::process::id().to_string()).join("pagemap");
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<libc::c_int>().ok()) else {
            continue;
        };
        // One that was closed meanwhile was not the runtime's, which keeps its own.
        if fs::read_link(entry.path()).is_ok_and(|target| target == pagemap) {
            // SAFETY: the number stays open, and belongs to whom it belonged; only the runtime opens this file here, and
            // what it reads of it may fail at any time.
            if unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
