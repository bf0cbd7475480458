//! Starting the process that compiles, and understanding how it ended.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use super::super::limits::detail;
use super::super::loader::LoadError;
use super::child::REFUSED;
use super::{COMMAND, CompileLimits, Refusal};

/// Bytes of code taken at most.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// Bytes read of what it says on standard error.
const WORDS_BYTES_MAX: u64 = 4 << 10;
/// What Rust's runtime says when memory is refused, on its way to an abort.
const ALLOCATION_FAILED: &str = "memory allocation of";

/// What the operator can do about a large plugin on a slow machine.
const RAISE_CPU: &str = ", or raise `[plugins] compile_cpu`";

/// What a process left behind.
struct Ended {
    status: ExitStatus,
    output: Vec<u8>,
    words: String,
}

/// The code of `wasm`, from a process of `program`.
pub(super) fn compile(program: &Path, limits: CompileLimits, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    let unavailable = |source| LoadError::CompilerUnavailable { program: program.to_owned(), source };
    let mut child = start(program, limits).map_err(unavailable)?;
    let ended = converse(&mut child, limits, wasm);
    // Whatever came of it, no process is left behind.
    let _already_gone = child.kill();
    let status = child.wait().map_err(unavailable)?;
    match ended.map_err(unavailable)? {
        Some((output, words)) => understand(limits, Ended { status, output, words }),
        None => Err(LoadError::CompilerDeadline { deadline: limits.deadline, of: "", advice: "" }),
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

/// Gives it `wasm`, and takes its output and its words until it has closed both; none where that takes too long.
fn converse(child: &mut Child, limits: CompileLimits, wasm: &[u8]) -> io::Result<Option<(Vec<u8>, String)>> {
    let (Some(mut input), Some(output), Some(words)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("its pipes are missing"));
    };
    let (ended, end) = mpsc::sync_channel(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            // It may end before it has read all: how it ended says why.
            let _closed = input.write_all(wasm);
        });
        scope.spawn(move || {
            let words = scope.spawn(move || read(words, WORDS_BYTES_MAX));
            let output = read(output, CODE_BYTES_MAX);
            let words = words.join().unwrap_or_default();
            // Nobody waits any more where the deadline has passed.
            let _late = ended.send((output, String::from_utf8_lossy(&words).into_owned()));
        });
        match end.recv_timeout(limits.deadline) {
            Ok(said) => Ok(Some(said)),
            Err(RecvTimeoutError::Timeout) => {
                // Its pipes close with it, and that ends the threads.
                child.kill()?;
                Ok(None)
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("what it said could not be read")),
        }
    })
}

/// Until its end. What is over the bound is read and dropped: a process that can't write would never end.
fn read(mut pipe: impl Read, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A pipe that breaks is one that ends: how the process ended says why.
    let _broken = pipe.by_ref().take(bytes_max).read_to_end(&mut bytes);
    let _dropped = io::copy(&mut pipe, &mut io::sink());
    bytes
}

fn understand(limits: CompileLimits, ended: Ended) -> Result<Vec<u8>, LoadError> {
    let Ended { status, output, words } = ended;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(output),
        (Some(code), _) if code == i32::from(REFUSED) => Err(serde_json::from_slice::<Refusal>(&output)
            .map_or_else(|error| LoadError::CompilerPanicked { detail: error.to_string() }, LoadError::from)),
        (_, Some(libc::SIGXCPU)) => {
            Err(LoadError::CompilerDeadline { deadline: limits.cpu_max, of: " of CPU", advice: RAISE_CPU })
        }
        _ if words.contains(ALLOCATION_FAILED) => Err(LoadError::CompilerMemory { bytes_max: limits.memory_bytes_max }),
        _ => {
            let words = words.trim();
            let how = if words.is_empty() { status.to_string() } else { format!("{words} ({status})") };
            Err(LoadError::CompilerPanicked { detail: detail(&how) })
        }
    }
}
