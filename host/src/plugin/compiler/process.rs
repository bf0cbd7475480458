//! Starting the process that compiles, and understanding how it ended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::super::limits::detail;
use super::super::loader::LoadError;
use super::child::{REFUSED, UNAVAILABLE};
use super::{COMMAND, Cancel, CompileLimits, Refusal};
use crate::clock::Clock;

/// Bytes of code taken at most.
const CODE_BYTES_MAX: usize = 1 << 30;
/// Bytes kept of what it says on standard error.
const WORDS_BYTES_MAX: usize = 4 << 10;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// What Rust's runtime says when memory is refused, on its way to an abort.
const ALLOCATION_FAILED: &str = "memory allocation of";
/// How long a cancelled compilation goes on at most.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// What the operator can do about a large plugin on a slow machine.
const RAISE_CPU: &str = ", or raise `[plugins] compile_cpu`";

/// What a process left behind.
struct Ended {
    status: ExitStatus,
    /// The most memory that it had at once, in bytes.
    memory_peak_bytes: u64,
    output: Vec<u8>,
    words: String,
}

/// How a conversation with a process ended.
enum Talk {
    /// It closed both its outputs.
    Said(Vec<u8>, String),
    /// It took too long.
    Late,
    /// Nobody wants its answer any more.
    Cancelled,
}

/// A process that is gone when this is.
struct Running(Option<Child>);

impl Running {
    /// Ends it, if it has not ended. Returns how it ended, and the most memory that it had.
    fn end(mut self) -> io::Result<(ExitStatus, u64)> {
        let Some(mut child) = self.0.take() else { return Err(io::Error::other("it was waited for before")) };
        let _already_gone = child.kill();
        wait(&child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _already_gone = child.kill();
            // A process that was killed is gone at once; one that can't be waited for was.
            let _status = child.wait();
        }
    }
}

/// Waits as [`Child::wait`] does, and asks for what the process used.
fn wait(child: &Child) -> io::Result<(ExitStatus, u64)> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: all bits zero is a valid `rusage`: it holds numbers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to values that outlive the call; the process is a child that nobody has waited for.
        if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let peak_kib = u64::try_from(used.ru_maxrss).unwrap_or(0);
    Ok((ExitStatus::from_raw(status), peak_kib.saturating_mul(1024)))
}

/// The code of `wasm`, from a process of `program`.
pub(super) fn compile(
    program: &Path,
    limits: CompileLimits,
    clock: &dyn Clock,
    cancel: &Cancel,
    wasm: &[u8],
) -> Result<Vec<u8>, LoadError> {
    let unavailable = |source| LoadError::CompilerUnavailable { program: program.to_owned(), source };
    let mut child = start(program, limits).map_err(unavailable)?;
    let pipes = Pipes::of(&mut child);
    let running = Running(Some(child));
    let talk = pipes.and_then(|pipes| pipes.converse(limits, clock, cancel, wasm)).map_err(unavailable)?;
    let (status, memory_peak_bytes) = running.end().map_err(unavailable)?;
    match talk {
        Talk::Said(output, words) => understand(program, limits, Ended { status, memory_peak_bytes, output, words }),
        Talk::Late => Err(LoadError::CompilerDeadline { deadline: limits.deadline, of: "", advice: "" }),
        Talk::Cancelled => Err(LoadError::Cancelled),
    }
}

fn start(program: &Path, limits: CompileLimits) -> io::Result<Child> {
    Command::new(program)
        .arg(COMMAND)
        .args([limits.memory_bytes_max, limits.cpu_max.as_secs().max(1)].map(|limit| limit.to_string()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The ends of a process's pipes that are open. One thread serves all three: a conversation needs nothing that a busy
/// machine could refuse once the process is there.
struct Pipes {
    input: Option<File>,
    output: Option<File>,
    words: Option<File>,
}

impl Pipes {
    fn of(child: &mut Child) -> io::Result<Self> {
        let pipe = |end: Option<OwnedFd>| {
            let file = File::from(end.ok_or_else(|| io::Error::other("its pipes are missing"))?);
            unblock(&file)?;
            Ok::<_, io::Error>(Some(file))
        };
        Ok(Self {
            input: pipe(child.stdin.take().map(OwnedFd::from))?,
            output: pipe(child.stdout.take().map(OwnedFd::from))?,
            words: pipe(child.stderr.take().map(OwnedFd::from))?,
        })
    }

    /// Gives it `wasm`, and takes its output and its words until it has closed both.
    fn converse(mut self, limits: CompileLimits, clock: &dyn Clock, cancel: &Cancel, wasm: &[u8]) -> io::Result<Talk> {
        let until = clock.monotonic() + limits.deadline;
        let (mut rest, mut output, mut words) = (wasm, Vec::new(), Vec::new());
        while self.output.is_some() || self.words.is_some() {
            if cancel.is_cancelled() {
                return Ok(Talk::Cancelled);
            }
            let left = until.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return Ok(Talk::Late);
            }
            self.wait(left.min(CANCEL_INTERVAL))?;
            give(&mut self.input, &mut rest);
            take(&mut self.output, &mut output, CODE_BYTES_MAX);
            take(&mut self.words, &mut words, WORDS_BYTES_MAX);
        }
        Ok(Talk::Said(output, String::from_utf8_lossy(&words).into_owned()))
    }

    /// Returns once one of them can be served, or `at_most` has passed.
    fn wait(&self, at_most: Duration) -> io::Result<()> {
        let of = |file: &Option<File>, events| libc::pollfd {
            // One that is below zero is passed over.
            fd: file.as_ref().map_or(-1, File::as_raw_fd),
            events,
            revents: 0,
        };
        let mut pipes = [of(&self.input, libc::POLLOUT), of(&self.output, libc::POLLIN), of(&self.words, libc::POLLIN)];
        let at_most_ms = i32::try_from(at_most.as_millis().max(1)).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to as many entries as are named, which outlive the call.
        let polled = unsafe { libc::poll(pipes.as_mut_ptr(), pipes.len() as libc::nfds_t, at_most_ms) };
        match (polled, io::Error::last_os_error()) {
            (0.., _) => Ok(()),
            (_, error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            (_, error) => Err(error),
        }
    }
}

/// Has reads and writes of `file` return at once.
fn unblock(file: &File) -> io::Result<()> {
    // SAFETY: these take a descriptor that is open and numbers.
    let done = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        flags < 0 || libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) < 0
    };
    if done { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether whoever could not read or write is to try later.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes what the pipe takes of `rest`, and closes it behind the last byte. The process may end before it has read all:
/// how it ended says why.
fn give(pipe: &mut Option<File>, rest: &mut &[u8]) {
    while let Some(file) = pipe {
        match file.write(rest) {
            Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
            Err(error) if is_later(&error) => return,
            Err(_) => *rest = &[],
        }
        if rest.is_empty() {
            *pipe = None;
        }
    }
}

/// Reads what the pipe has. What is over `bytes_max` is read and dropped: a process that can't write would never end. A pipe
/// that breaks is one that ends: how the process ended says why.
fn take(pipe: &mut Option<File>, into: &mut Vec<u8>, bytes_max: usize) {
    let mut buffer = [0; READ_BYTES];
    while let Some(file) = pipe {
        match file.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(read) => {
                let room = bytes_max.saturating_sub(into.len());
                into.extend_from_slice(&buffer[..read.min(room)]);
            }
            Err(error) if is_later(&error) => return,
            Err(_) => *pipe = None,
        }
    }
}

fn understand(program: &Path, limits: CompileLimits, ended: Ended) -> Result<Vec<u8>, LoadError> {
    let Ended { status, memory_peak_bytes, output, words } = ended;
    let unavailable = |why: &str| LoadError::CompilerUnavailable {
        program: program.to_owned(),
        source: io::Error::other(detail(why.trim())),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(output),
        (Some(code), _) if code == i32::from(REFUSED) => Err(serde_json::from_slice::<Refusal>(&output)
            .map_or_else(|error| LoadError::CompilerPanicked { detail: error.to_string() }, LoadError::from)),
        (Some(code), _) if code == i32::from(UNAVAILABLE) => Err(unavailable(&words)),
        (_, Some(libc::SIGXCPU)) => {
            Err(LoadError::CompilerDeadline { deadline: limits.cpu_max, of: " of CPU", advice: RAISE_CPU })
        }
        (_, Some(signal)) if is_from_outside(signal) => Err(LoadError::CompilerKilled { signal }),
        _ if words.contains(ALLOCATION_FAILED) && is_machine_s_lack(limits, memory_peak_bytes, &words) => {
            Err(unavailable(&format!("the machine has no memory for it: {}", words.trim())))
        }
        _ if words.contains(ALLOCATION_FAILED) => Err(LoadError::CompilerMemory { bytes_max: limits.memory_bytes_max }),
        _ => {
            let words = words.trim();
            let how = if words.is_empty() { status.to_string() } else { format!("{words} ({status})") };
            Err(LoadError::CompilerPanicked { detail: detail(&how) })
        }
    }
}

/// Whether somebody else sent the signal: an operator, a supervisor, the kernel where memory runs out. A compiler that
/// crashes sends itself others.
fn is_from_outside(signal: i32) -> bool {
    [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT].contains(&signal)
}

/// Whether memory was refused though the process was far from what it may use.
fn is_machine_s_lack(limits: CompileLimits, memory_peak_bytes: u64, words: &str) -> bool {
    let asked = words.split_once(ALLOCATION_FAILED).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    memory_peak_bytes.saturating_add(asked.unwrap_or(u64::MAX)) < limits.memory_bytes_max / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_compiler_from_outside_passes_and_what_the_file_does_stays() {
        const MIB: u64 = 1 << 20;
        let check = |status: i32, memory_peak_bytes, words: &str, passing: bool, said: &str| {
            let ended = Ended {
                status: ExitStatus::from_raw(status),
                memory_peak_bytes,
                output: Vec::new(),
                words: words.into(),
            };
            let error = understand(Path::new("/wirehook"), CompileLimits::default(), ended).unwrap_err();
            assert_eq!(error.is_passing(), passing, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        };
        check(libc::SIGKILL, MIB, "", true, "was ended from outside");
        check(libc::SIGTERM, MIB, "", true, "signal 15");
        check(libc::SIGXCPU, MIB, "", false, "of CPU");
        check(libc::SIGSEGV, MIB, "", false, "the compiler failed on this file");
        check(libc::SIGABRT, 1_900 * MIB, "memory allocation of 4096 bytes failed", false, "of memory");
        check(libc::SIGABRT, 100 * MIB, "memory allocation of 2000000000 bytes failed", false, "of memory");
        check(libc::SIGABRT, 100 * MIB, "memory allocation of 4096 bytes failed", true, "the machine has no memory");
        check(i32::from(UNAVAILABLE) << 8, MIB, "no thread: try again", true, "no thread: try again");
        check(1 << 8, MIB, "", false, "exit status: 1");
    }
}
