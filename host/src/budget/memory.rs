//! How much memory the process may use, and what of it the [budget](super::Budget) is where the settings don't say.
//!
//! Linux says so in several places, of which each may be absent: the control group of the process and those above it
//! (version 2: `memory.max` and `memory.high`; version 1: `memory.limit_in_bytes`; both at once in hybrid systems), the
//! process's own limits, and the machine. The least holds. In a container the group's path may be that of the host, which
//! is not visible there: then the root of what is visible is the container's own group.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// What the process may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    /// In bytes.
    pub bytes: u64,
    /// Whether the whole machine is the bound, which the process shares with others.
    pub is_machine: bool,
}

/// Where Linux says it.
#[derive(Clone, Debug)]
pub struct Places {
    /// The root of the control groups, `/sys/fs/cgroup`.
    pub cgroups: PathBuf,
    /// The process's own groups, `/proc/self/cgroup`.
    pub own: PathBuf,
    /// `/proc/meminfo`.
    pub meminfo: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        let [cgroups, own, meminfo] = ["/sys/fs/cgroup", "/proc/self/cgroup", "/proc/meminfo"].map(PathBuf::from);
        Self { cgroups, own, meminfo }
    }
}

/// What is assumed where the system says nothing: that of a small machine.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// The largest file that is read of those that the system provides, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

impl Memory {
    /// What this process may use.
    pub fn of_process() -> Self {
        Self::read(&Places::default(), own_limit())
    }

    /// What `places` say; `own_limit` is the least of the process's own limits, in bytes.
    pub fn read(places: &Places, own_limit: Option<u64>) -> Self {
        let machine = text(&places.meminfo).and_then(|text| total(&text)).unwrap_or(UNKNOWN_BYTES);
        let bound = of_groups(places).into_iter().chain(own_limit).min();
        match bound {
            Some(bytes) if bytes < machine => Self { bytes, is_machine: false },
            _ => Self { bytes: machine, is_machine: true },
        }
    }

    /// The budget where the settings don't say, in bytes, for a host whose plugins may use `guests` bytes at once.
    ///
    /// Half of what is left beside the plugins and the host itself, for what is counted once may be held twice for a
    /// moment: by a socket, by the database's cache, between two allocations. Of a machine that others use, too, a quarter
    /// at most; of a small one an eighth at least.
    pub fn budget(&self, guests: u64) -> u64 {
        let left = self.bytes.saturating_sub(guests).saturating_sub(HOST_BYTES);
        let most = if self.is_machine { self.bytes / 4 } else { self.bytes / 2 };
        (left / 2).min(most).max(self.bytes / 8).max(BUDGET_LEAST)
    }
}

/// What the host itself takes: code, stacks, tables, the database's caches.
const HOST_BYTES: u64 = 64 << 20;

/// The least that a budget is by default: a few events and webhooks of the largest default size.
const BUDGET_LEAST: u64 = 16 << 20;

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().filter(|text| text.len() <= TEXT_BYTES_MAX)
}

/// `MemTotal` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least bound of the process's groups and of those above them.
fn of_groups(places: &Places) -> Option<u64> {
    let own = text(&places.own)?;
    own.lines().filter_map(|line| of_line(line, &places.cgroups)).min()
}

/// `0::/path` in version 2, `7:cpu,memory:/path` in version 1.
fn of_line(line: &str, cgroups: &Path) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (roots, files): (&[&str], &[&str]) = match controllers {
        "" => (&["", "unified"], &["memory.max", "memory.high"]),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            (&["memory"], &["memory.limit_in_bytes"])
        }
        _ => return None,
    };
    let groups = groups(path);
    let bounds = roots.iter().flat_map(|root| {
        let root = cgroups.join(root);
        let folders: Vec<_> = groups.iter().map(|group| root.join(group)).collect();
        folders.into_iter().flat_map(|folder| files.iter().filter_map(move |file| bound(&folder.join(file))))
    });
    bounds.min()
}

/// The group and those above it, relative to the root of what is visible. One beyond that root is not to be found.
fn groups(path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim());
    if path.components().any(|component| component == Component::ParentDir) {
        return vec![PathBuf::new()];
    }
    let path: PathBuf = path.components().filter(|component| matches!(component, Component::Normal(_))).collect();
    path.ancestors().map(Path::to_path_buf).collect()
}

/// `max` is none; version 1 says the same by a number that no machine has.
fn bound(file: &Path) -> Option<u64> {
    text(file)?.trim().parse().ok()
}

/// The least of the process's limits of address space and data, in bytes.
fn own_limit() -> Option<u64> {
    [libc::RLIMIT_AS, libc::RLIMIT_DATA].into_iter().filter_map(limit).min()
}

#[allow(clippy::useless_conversion, reason = "other systems have other widths")]
fn limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a value that outlives the call.
    let status = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (status == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const UNLIMITED_V1: &str = "9223372036854771712\n";

    /// A system of 8 GiB whose files are `files`; `own` is its `/proc/self/cgroup`.
    fn read(own: &str, files: &[(&str, &str)], own_limit: Option<u64>) -> Memory {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        fs::write(place("own"), own).unwrap();
        fs::write(place("meminfo"), "MemFree: 12 kB\nMemTotal:        8388608 kB\nMemAvailable: 5 kB\n").unwrap();
        for (name, text) in files {
            let file = place("cgroups").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let places = Places { cgroups: place("cgroups"), own: place("own"), meminfo: place("meminfo") };
        Memory::read(&places, own_limit)
    }

    fn group(mib: u64) -> Memory {
        Memory { bytes: mib * MIB, is_machine: false }
    }

    fn machine() -> Memory {
        Memory { bytes: 8192 * MIB, is_machine: true }
    }

    #[test]
    fn the_least_bound_of_a_group_and_those_above_it_holds() {
        let own = "0::/system.slice/wirehook.service\n";
        let check =
            |files: &[(&str, &str)], expected: Memory| assert_eq!(read(own, files, None), expected, "{files:?}");
        check(&[], machine());
        check(&[("system.slice/wirehook.service/memory.max", "536870912\n")], group(512));
        check(&[("system.slice/wirehook.service/memory.max", "max\n")], machine());
        check(
            &[
                ("system.slice/wirehook.service/memory.max", "max\n"),
                ("system.slice/memory.max", "268435456\n"),
                ("memory.max", "1073741824\n"),
            ],
            group(256),
        );
        let high = [
            ("system.slice/wirehook.service/memory.max", "536870912\n"),
            ("system.slice/wirehook.service/memory.high", "402653184\n"),
        ];
        check(&high, group(384));
        check(&[("system.slice/wirehook.service/memory.max", "nonsense")], machine());
        check(&[("system.slice/wirehook.service/memory.max", "99999999999999\n")], machine());
    }

    #[test]
    fn version_1_and_hybrid_systems_say_it_elsewhere() {
        let own = "9:name=systemd:/\n7:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n";
        let check =
            |files: &[(&str, &str)], expected: Memory| assert_eq!(read(own, files, None), expected, "{files:?}");
        check(&[("memory/docker/abc/memory.limit_in_bytes", UNLIMITED_V1)], machine());
        check(&[("memory/docker/abc/memory.limit_in_bytes", "536870912\n")], group(512));
        let above = [
            ("memory/docker/abc/memory.limit_in_bytes", UNLIMITED_V1),
            ("memory/docker/memory.limit_in_bytes", "536870912\n"),
            ("cpu/a/memory.limit_in_bytes", "1\n"),
        ];
        check(&above, group(512));
        check(&[("unified/memory.max", "134217728\n")], group(128));
    }

    #[test]
    fn in_a_container_the_root_of_what_is_visible_is_its_own_group() {
        let check = |own: &str, file: &str| assert_eq!(read(own, &[(file, "536870912\n")], None), group(512), "{own}");
        check("0::/kubepods/pod1/abc\n", "memory.max");
        check("0::/../../kubepods/pod1\n", "memory.max");
        check("0::/\n", "memory.max");
        check("4:memory:/docker/of-the-host\n", "memory/memory.limit_in_bytes");
    }

    #[test]
    fn the_processs_own_limits_count_too() {
        let files = [("memory.max", "536870912\n")];
        assert_eq!(read("0::/\n", &files, Some(256 * MIB)), group(256));
        assert_eq!(read("0::/\n", &files, Some(1024 * MIB)), group(512));
        assert_eq!(read("", &[], Some(256 * MIB)), group(256));
    }

    #[test]
    fn what_is_left_beside_the_plugins_is_shared() {
        let check = |memory: Memory, guests: u64, mib: u64| assert_eq!(memory.budget(guests * MIB), mib * MIB);
        check(group(512), 128, 160);
        check(group(4096), 128, 1952);
        check(group(256), 128, 32);
        check(group(64), 128, 16);
        check(machine(), 128, 2048);
        check(machine(), 64 * 1024, 1024);
    }

    #[test]
    fn this_process_may_use_something() {
        let memory = Memory::of_process();
        assert!(memory.bytes > 64 * MIB, "{memory:?}");
    }
}
