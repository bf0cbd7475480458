use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::*;
use crate::clock::SystemClock;
use crate::plugin::compiler::Compiler;
use crate::plugin::fixture::{event, load, one_webhook};
use crate::plugin::{Engine, Plugin, Runtime};

const NO_SWAP: Facts = Facts { swap_bytes: Some(0), areas: Some(0), swapped_bytes: Some(0), forbidden_by: None };

fn check(facts: &Facts, expected: &Cleaning) {
    assert_eq!(decide(facts), *expected, "{facts:?}");
}

#[test]
fn the_scan_is_used_only_where_nothing_can_be_swapped_out() {
    let forbidden_by = Some(PathBuf::from("/sys/fs/cgroup/a"));
    let cgroup = Cleaning::Scan(CannotSwap::Cgroup("/sys/fs/cgroup/a".into()));
    let no_area = Cleaning::Scan(CannotSwap::NoArea);
    let area = Cleaning::Full(MaySwap::Area);
    let swapped = Cleaning::Full(MaySwap::Swapped);
    let unknown = Cleaning::Full(MaySwap::Unknown);

    check(&NO_SWAP, &no_area);
    check(&Facts { areas: None, ..NO_SWAP }, &no_area);
    check(&Facts { swap_bytes: Some(1), ..NO_SWAP }, &area);
    check(&Facts { areas: Some(1), ..NO_SWAP }, &area);
    check(&Facts { swap_bytes: None, areas: Some(1), ..NO_SWAP }, &area);
    check(&Facts { swap_bytes: None, ..NO_SWAP }, &unknown);
    check(&Facts::default(), &unknown);
    check(&Facts { swap_bytes: Some(1), areas: Some(1), forbidden_by: forbidden_by.clone(), ..NO_SWAP }, &cgroup);
    check(&Facts { forbidden_by: forbidden_by.clone(), ..Facts::default() }, &cgroup);
    // What is out already is out, whatever forbids more of it.
    check(&Facts { swapped_bytes: Some(4096), forbidden_by, ..NO_SWAP }, &swapped);
    check(&Facts { swapped_bytes: Some(4096), ..NO_SWAP }, &swapped);
}

/// A machine as `/proc` and `/sys` show it.
fn machine(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

#[test]
fn facts_are_read_as_the_kernel_writes_them() {
    let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    let swaps = format!("{heading}/swap.img                               file\t\t65532\t\t0\t\t-2\n");
    let root = machine(&[
        ("proc/swaps", &swaps),
        ("proc/self/status", "Name:\twirehook\nVmSwap:\t      12 kB\nThreads:\t8\n"),
        ("proc/self/cgroup", "0::/system.slice/wirehook.service\n"),
        ("sys/fs/cgroup/system.slice/wirehook.service/memory.swap.max", "max\n"),
        ("sys/fs/cgroup/system.slice/memory.swap.max", "0\n"),
    ]);
    let forbidden_by = Some(PathBuf::from("/sys/fs/cgroup/system.slice"));
    let expected = Facts { swap_bytes: Some(7), areas: Some(1), swapped_bytes: Some(12 << 10), forbidden_by };
    assert_eq!(Facts::read(root.path(), Some(7)), expected);

    let root = machine(&[("proc/swaps", heading), ("proc/self/status", "Name:\twirehook\n")]);
    assert_eq!(Facts::read(root.path(), None), Facts { areas: Some(0), ..Facts::default() });
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Facts::read(empty.path(), None), Facts::default());
}

#[test]
fn a_cgroup_forbids_swap_wherever_its_tree_is_and_one_of_version_1_never_does() {
    let read = |files: &[(&str, &str)]| Facts::read(machine(files).path(), None).forbidden_by;
    // A container sees its own cgroup as the root.
    assert_eq!(
        read(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.swap.max", "0\n")]),
        Some("/sys/fs/cgroup".into())
    );
    let hybrid = ("proc/self/cgroup", "4:memory:/a\n0::/a\n");
    assert_eq!(
        read(&[hybrid, ("sys/fs/cgroup/unified/a/memory.swap.max", "0\n")]),
        Some("/sys/fs/cgroup/unified/a".into())
    );
    assert_eq!(read(&[hybrid, ("sys/fs/cgroup/unified/a/memory.swap.max", "1048576\n")]), None);
    assert_eq!(read(&[hybrid, ("sys/fs/cgroup/memory/a/memory.memsw.limit_in_bytes", "0\n")]), None);
    assert_eq!(read(&[("proc/self/cgroup", "0::/../b\n"), ("sys/fs/b/memory.swap.max", "0\n")]), None);
}

/// A swap area on this machine while it lives.
struct SwapFile(TempDir);

impl SwapFile {
    /// `None` where this process may not make one, which is said.
    fn on() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("swap");
        fs::write(&file, vec![0_u8; 32 << 20]).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        for tool in ["mkswap", "swapon"] {
            let output = Command::new(format!("/usr/sbin/{tool}")).arg(&file).output();
            if !output.as_ref().is_ok_and(|output| output.status.success()) {
                eprintln!(
                    "left out: pages that are swapped out, for this process can't give the machine swap: {output:?}"
                );
                return None;
            }
        }
        Some(Self(folder))
    }
}

impl Drop for SwapFile {
    fn drop(&mut self) {
        let done = Command::new("/usr/sbin/swapoff").arg(self.0.path().join("swap")).status();
        assert!(done.is_ok_and(|status| status.success()), "the swap file is in use until the next start");
    }
}

/// Swaps out the memory of sandboxes whenever a plugin logs.
struct SwapOutAtLog;

impl<S: tracing::Subscriber> Layer<S> for SwapOutAtLog {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "plugin" {
            swap_out();
        }
    }
}

/// Asks the kernel to swap out every mapping without a file and a name, as sandboxes are.
fn swap_out() {
    const MADV_PAGEOUT: libc::c_int = 21;
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields[1] != "rw-p" || fields.len() > 5 && !fields[5].contains("memfd") {
            continue;
        }
        let (start, end) = fields[0].split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
        // SAFETY: where the pages lie changes nothing of what is in them.
        let _refused = unsafe { libc::madvise(start as *mut libc::c_void, end - start, MADV_PAGEOUT) };
    }
}

/// Returns 8 bytes of a page that only an earlier event wrote, writes them and that of a page behind, and logs.
fn leaky(engine: &Arc<Engine>) -> Plugin {
    let body = format!(
        r#"(i64.store (i32.const 3000) (i64.load (i32.const 81920)))
        (i64.store (i32.const 81920) (i64.const 0x7465726373))
        (i32.store8 (i32.const 122880) (i32.const 1))
        (call $log (i32.const 2) (i32.const 600) (i32.const 6))
        {}"#,
        one_webhook("(i32.const 3000)", "(i32.const 8)")
    );
    load(engine, &body)
}

fn seen(plugin: &Plugin) -> Vec<u8> {
    plugin.call(&event("{}"), 1).result.unwrap()[0].body.to_vec()
}

fn engine_of(cleaning: Cleaning) -> (Arc<Engine>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (cache, clock) = (dir.path().join("compiled"), SystemClock::shared());
    let runtime = Runtime::new(1, cleaning).unwrap();
    (Engine::of(runtime, &cache, Compiler::InProcess, clock).unwrap(), dir)
}

fn nothing_is_left(engine: &Arc<Engine>) {
    let plugin = leaky(engine);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(SwapOutAtLog), || {
        for number in 0..20 {
            assert_eq!(seen(&plugin), [0; 8], "event {number} saw what the one before it had left");
        }
    });
    assert!(Facts::now().swapped_bytes > Some(0), "nothing was swapped out, so that nothing was shown");
}

#[test]
fn an_event_sees_nothing_of_one_whose_memory_was_swapped_out() {
    let Some(_swap) = SwapFile::on() else { return };
    let (engine, _dir) = engine_of(Cleaning::now());
    assert_eq!(engine.cleaning(), Cleaning::Full(MaySwap::Area));
    nothing_is_left(&engine);
}

#[test]
fn a_machine_that_is_given_swap_while_the_host_runs_is_noticed() {
    let (engine, _dir) = engine_of(Cleaning::Scan(CannotSwap::NoArea));
    let Some(_swap) = SwapFile::on() else { return };
    // A watch that does not notice is ended by the runner's timeout.
    while engine.cleaning().scans() {
        thread::yield_now();
    }
    nothing_is_left(&engine);
}

#[test]
fn all_is_reset_where_the_settings_ask_for_it() {
    let asked = Cleaning::under(MemoryReset::All);
    assert!(!asked.scans() && asked.to_string().contains("`memory_reset`"), "{asked}");
    assert_ne!(Cleaning::under(MemoryReset::Written), asked);
    let (engine, _dir) = engine_of(asked.clone());
    assert_eq!(engine.cleaning(), asked);
    let Some(_swap) = SwapFile::on() else { return };
    nothing_is_left(&engine);
}
