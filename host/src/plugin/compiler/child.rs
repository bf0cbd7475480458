//! The process that compiles: limits on itself first, then one plugin from standard input to standard output.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use super::super::engine;
use super::super::loader::{FILE_BYTES_MAX, kind};
use super::{Refusal, compile};

/// Its standard output is code.
const COMPILED: u8 = 0;
/// Its standard output is a [`Refusal`].
pub(super) const REFUSED: u8 = 3;
/// It could not begin, for a reason that is not the plugin's and is on standard error.
pub(super) const UNAVAILABLE: u8 = 4;

/// Compiles what is on standard input within `memory_bytes_max` bytes and `cpu_seconds_max` seconds of CPU. What it refuses
/// is no failure of its own.
pub fn run(memory_bytes_max: u64, cpu_seconds_max: u64) -> ExitCode {
    let limited = limit(memory_bytes_max, cpu_seconds_max).map_err(|error| {
        format!("its limits could not be set: {error}; a service has to allow it setrlimit and prctl")
    });
    let begun = limited.and_then(|()| end_with_the_reader().map_err(|error| format!("it has no thread: {error}")));
    match begun.and_then(|()| answer().map_err(|error| error.to_string())) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(UNAVAILABLE)
        }
    }
}

/// Has this process end when nobody reads its standard output any more, whatever it does just then. The kernel's own signal
/// at a parent's death comes only where the parent dies after it was asked for.
fn end_with_the_reader() -> io::Result<()> {
    let watch = || {
        // That it may be written to is not asked for: what is told unasked is that the other end is closed.
        let mut output = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
        // SAFETY: the pointer is to one entry, which outlives the call.
        while unsafe { libc::poll(&raw mut output, 1, -1) } <= 0 {}
        std::process::exit(1);
    };
    std::thread::Builder::new().name("reader".to_owned()).spawn(watch).map(drop)
}

fn answer() -> io::Result<u8> {
    let mut wasm = Vec::new();
    io::stdin().lock().take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut wasm)?;
    let compiled = match (kind(&wasm), engine::for_compiling()) {
        (Ok(kind), Ok(engine)) => compile(&engine, kind, &wasm),
        (Err(error), _) => Err(Refusal::Invalid(error.to_string())),
        (_, Err(error)) => return Err(io::Error::other(format!("{error:#}"))),
    };
    let mut output = io::stdout().lock();
    let code = match compiled {
        Ok(code) => {
            output.write_all(&code)?;
            COMPILED
        }
        Err(refusal) => {
            serde_json::to_writer(&mut output, &refusal)?;
            REFUSED
        }
    };
    output.flush()?;
    Ok(code)
}

/// How much a compilation stands behind the events of the plugins at work, in steps of about a fifth. Not the most there is: on
/// a machine that is always busy a compilation must still end.
const NICENESS: libc::c_int = 5;

/// Holds this process, and so whatever the input makes of its compiler, to its bounds.
fn limit(memory_bytes_max: u64, cpu_seconds_max: u64) -> io::Result<()> {
    set(libc::RLIMIT_DATA, memory_bytes_max, memory_bytes_max)?;
    // The signal of the soft limit says what it was for; that of the hard one could be anybody's.
    set(libc::RLIMIT_CPU, cpu_seconds_max, cpu_seconds_max.saturating_add(1))?;
    set(libc::RLIMIT_FSIZE, 0, 0)?;
    set(libc::RLIMIT_CORE, 0, 0)?;
    // A service that forbids it compiles all the same: this is manners, no bound.
    // SAFETY: it takes numbers and touches no memory. Threads that begin later are as this one.
    let _forbidden = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    #[cfg(target_os = "linux")]
    {
        // SAFETY: these take numbers and touch no memory of ours.
        let done = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) | libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_os = "linux"))]
type Resource = libc::c_int;

fn set(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the pointer is to a value that outlives the call, which only reads it.
    if unsafe { libc::setrlimit(resource, &raw const limit) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
