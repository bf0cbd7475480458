//! What the operating system says of this process, under the names that Prometheus' own clients use. Read while it is
//! scraped: a few files of `/proc`, none of which waits for a disk. Elsewhere than on Linux there is nothing.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

/// Standard metrics of a process.
pub(super) struct Process {
    cpu_seconds: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_bytes: Gauge,
    resident_bytes: Gauge,
    start_time: Gauge,
    threads: Gauge,
}

/// What `/proc/self/stat` says.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Process {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| Gauge::with_opts(Opts::new(name, help));
        Ok(Self {
            cpu_seconds: Counter::with_opts(Opts::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            ))?,
            open_fds: gauge("process_open_fds", "Number of open file descriptors.")?,
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            start_time: gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")?,
            threads: gauge("process_threads", "Number of OS threads in the process.")?,
        })
    }

    fn each(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.open_fds,
            &self.max_fds,
            &self.virtual_bytes,
            &self.resident_bytes,
            &self.start_time,
            &self.threads,
        ]
    }

    /// Takes what can be read now; what can't stays as it was.
    fn look(&self) {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::read(&text)) {
            let (ticks, page) = (system(libc::_SC_CLK_TCK), system(libc::_SC_PAGESIZE));
            let cpu_seconds = stat.cpu_ticks as f64 / ticks;
            self.cpu_seconds.inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.virtual_bytes.set(stat.virtual_bytes as f64);
            self.resident_bytes.set(stat.resident_pages as f64 * page);
            self.threads.set(stat.threads as f64);
            let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
            booted.into_iter().for_each(|booted| self.start_time.set(booted as f64 + stat.start_ticks as f64 / ticks));
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the look itself.
            self.open_fds.set(open.count().saturating_sub(1) as f64);
        }
        fds_max().into_iter().for_each(|max| self.max_fds.set(max as f64));
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.each().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.each().into_iter().flat_map(Collector::collect).collect()
    }
}

impl Stat {
    /// The fields of `proc(5)`, counted from after the name, which may hold anything.
    fn read(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The state is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine started, in seconds since the Unix epoch.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// One of the system's constants; both that are asked for are known everywhere and above 0.
fn system(name: libc::c_int) -> f64 {
    // SAFETY: it takes a number and touches no memory of ours.
    let value = unsafe { libc::sysconf(name) };
    value.max(1) as f64
}

fn fds_max() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a value that outlives the call.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    #[allow(clippy::useless_conversion, reason = "other systems have other widths")]
    (status == 0).then_some(limit.rlim_cur.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let text = "42 (wire) hook (1) S 1 2 3 4 5 6 7 8 9 10 110 20 13 14 15 16 7 18 1900 2000 210 22 23";
        let stat = Stat::read(text).unwrap();
        let expected = Stat { cpu_ticks: 130, threads: 7, start_ticks: 1900, virtual_bytes: 2000, resident_pages: 210 };
        assert_eq!(stat, expected);
        assert_eq!(Stat::read("42 (x) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_files_memory_and_a_start() {
        let process = Process::new().unwrap();
        process.look();
        let before = process.open_fds.get();
        let _file = fs::File::open("/proc/self/stat").unwrap();
        process.look();
        assert!(process.open_fds.get() > 2.0 && before > 2.0 && process.max_fds.get() >= process.open_fds.get());
        assert!(process.resident_bytes.get() > 1e6 && process.virtual_bytes.get() > process.resident_bytes.get());
        assert!(process.start_time.get() > 1.6e9 && process.threads.get() >= 1.0);
    }
}
