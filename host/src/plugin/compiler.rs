//! Compiling a plugin: where it can't hurt the host, in a process of its own that is bounded in memory and time.
//!
//! A compiler is no sandbox for its input: what makes it slow, large or crash is no fault that its makers call one. The
//! process runs this program again as [`COMMAND`], takes WebAssembly on its standard input and leaves machine code on its
//! standard output. It inherits no variable and opens no file.

mod child;
mod process;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::component::Component;

use super::limits::detail;
use super::loader::{Kind, LoadError, component_bytes};
use crate::clock::Clock;
use crate::settings::host::COMPILE_CPU;

pub use child::run as run_child;

/// The command that compiles and nothing else.
pub const COMMAND: &str = "compile-plugin";

/// What one compilation may use.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    /// Bytes of memory.
    pub memory_bytes_max: u64,
    /// CPU time of all its threads together, in whole seconds: what a compilation takes, however busy the machine is.
    pub cpu_max: Duration,
    /// Time on the wall clock, for one that waits for a core or for nothing at all.
    pub deadline: Duration,
}

impl Default for CompileLimits {
    /// 2 GiB, [`COMPILE_CPU`] and 10 min: Python's plugins, the largest seen, take eight seconds of a build for use, forty
    /// of one without optimisation, and a quarter of the memory.
    fn default() -> Self {
        Self { memory_bytes_max: 2 << 30, cpu_max: COMPILE_CPU, deadline: Duration::from_mins(10) }
    }
}

/// Ends compilations that nobody wants any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far to go for a plugin's machine code.
#[derive(Clone, Debug, Default)]
pub(super) struct Effort {
    /// Until then.
    pub(super) cancel: Cancel,
    /// Not to compile a file over [`SMALL_BYTES_MAX`]: it would keep the others waiting.
    pub(super) small_only: bool,
}

/// The largest file that is compiled at once, in bytes: a second or two. Python's are ten times as large.
pub(super) const SMALL_BYTES_MAX: usize = 2 << 20;

/// Where plugins are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In a process of the given program's [`COMMAND`].
    Child(PathBuf, CompileLimits),
    /// In this process: for plugins that are trusted, as a test's own are.
    InProcess,
}

/// Machine code that this host's compiler made.
pub(super) struct Code(Vec<u8>);

/// Why there is no code. Crosses from the child.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
enum Refusal {
    NoComponentType,
    Encode(String),
    Invalid(String),
    Panicked(String),
    /// The machine refused what compiling takes.
    Busy(String),
}

/// What the system says where it has no room for a thread or for memory just now.
const BUSY: [&str; 2] = ["Resource temporarily unavailable", "Cannot allocate memory"];

/// Whether that is the machine's word for having no room just now.
pub(super) fn is_busy(words: &str) -> bool {
    BUSY.iter().any(|busy| words.contains(busy))
}

impl Compiler {
    /// A process of this very program for each compilation, which may take `cpu_max` of CPU time.
    pub fn child(cpu_max: Duration) -> Self {
        // The program as it was started: its file may have been replaced by a newer version meanwhile.
        let running = PathBuf::from("/proc/self/exe");
        let program = if running.exists() { running } else { std::env::current_exe().unwrap_or(running) };
        Self::Child(program, CompileLimits { cpu_max, ..CompileLimits::default() })
    }

    /// The code of a plugin's bytes, for `engine`.
    pub(super) fn compile(
        &self,
        engine: &wasmtime::Engine,
        clock: &dyn Clock,
        cancel: &Cancel,
        kind: Kind,
        wasm: &[u8],
    ) -> Result<Code, LoadError> {
        match self {
            Self::Child(program, limits) => process::compile(program, *limits, clock, cancel, wasm).map(Code),
            Self::InProcess => Ok(Code(compile(engine, kind, wasm)?)),
        }
    }
}

impl Code {
    /// Code that was kept.
    ///
    /// # Safety
    /// `bytes` are those of a [`Code`], unchanged.
    pub(super) unsafe fn kept(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The component, ready to be linked.
    pub(super) fn component(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize` trusts its input to be the unmodified output of the compiler. These bytes are: made here,
        // by a process of this program that can't be written to by others, or kept where `kept` promises. They are in
        // memory of this process: nothing changes them after the check.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

impl From<Refusal> for LoadError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoComponentType => Self::NoComponentType,
            Refusal::Encode(detail) => Self::Encode { detail },
            Refusal::Invalid(detail) => Self::invalid(detail),
            Refusal::Panicked(detail) => Self::CompilerPanicked { detail },
            Refusal::Busy(detail) => Self::Busy { detail },
        }
    }
}

/// Encodes and compiles in this process.
fn compile(engine: &wasmtime::Engine, kind: Kind, wasm: &[u8]) -> Result<Vec<u8>, Refusal> {
    // Encoder and compiler have panicked on hostile input before.
    let compiled = catch_unwind(AssertUnwindSafe(|| {
        let component = component_bytes(kind, wasm).map_err(|error| match error {
            LoadError::NoComponentType => Refusal::NoComponentType,
            LoadError::Encode { detail } => Refusal::Encode(detail),
            LoadError::Invalid { detail } => Refusal::Invalid(detail),
            other => Refusal::Invalid(detail(&other.to_string())),
        })?;
        engine.precompile_component(&component).map_err(|error| Refusal::Invalid(detail(&format!("{error:#}"))))
    }));
    compiled.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("it gave no reason");
        let refusal = if is_busy(text) { Refusal::Busy } else { Refusal::Panicked };
        Err(refusal(detail(text)))
    })
}
