//! From the bytes of a file to a plugin that can be called, or to words its author can act on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::Plugin;
use super::capability::config::ConfigValues;
use super::compiler::{Effort, SMALL_BYTES_MAX, is_busy};
use super::encode::encode;
use super::engine::{
    CORE_INSTANCES_PER_PLUGIN_MAX, Engine, MEMORIES_PER_PLUGIN_MAX, TABLE_ELEMENTS_MAX, TABLES_PER_PLUGIN_MAX,
};
use super::grant::Grant;
use super::instance::Kept;
use super::limits::{Limits, MEMORY_BYTES_MAX, detail};
use super::linker::{self, HANDLER, SIGNATURE, offered};
use super::manifest::Manifest;

/// The largest plugin's file, in bytes.
pub const FILE_BYTES_MAX: usize = 64 << 20;
/// Bytes of one page of WebAssembly.
const PAGE_BYTES: u64 = 64 << 10;
/// How to build something that loads.
const BUILD_HINT: &str = "build it with the SDK (`cargo build --target wasm32-unknown-unknown`), or as a component with `--target wasm32-wasip2`";

/// Why a file is not a plugin that can run here. Every message is for the plugin's author.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// More than [`FILE_BYTES_MAX`].
    #[error(
        "the file is {bytes} bytes, a plugin may have {FILE_BYTES_MAX} at most: build it optimised and without debug information (`wasm-tools strip`), or with fewer dependencies"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Something else than WebAssembly.
    #[error("the file is not WebAssembly: it {looks}; {BUILD_HINT}")]
    NotWasm {
        /// What it looks like, after "it".
        looks: &'static str,
    },
    /// WebAssembly of a version that doesn't exist.
    #[error("the file is WebAssembly in an encoding this host does not know ({version:02x?}); {BUILD_HINT}")]
    UnknownEncoding {
        /// Bytes 4 to 8.
        version: [u8; 4],
    },
    /// A core module that says nothing about its interface.
    #[error(
        "the file is a core module without a component type that does not export `{HANDLER}#on-event` either, so it is no plugin; {BUILD_HINT}; for a language without an SDK see wit/abi.md"
    )]
    NoComponentType,
    /// A core module that has a component type but does not fit it.
    #[error(
        "the file is a core module that could not be made a component: {detail}; it must export `{HANDLER}` with `{SIGNATURE}`, and import nothing but {}",
        offered()
    )]
    Encode {
        /// What the encoder said.
        detail: String,
    },
    /// More of it than a sandbox has room for.
    #[error(
        "the plugin does not fit into a sandbox: {detail}. It may have {CORE_INSTANCES_PER_PLUGIN_MAX} core instances, {MEMORIES_PER_PLUGIN_MAX} memories (one of them in each module), {TABLES_PER_PLUGIN_MAX} tables of {TABLE_ELEMENTS_MAX} elements each, and {} MiB of memory, over all that it is composed of: compose it of less, or build it as one component",
        MEMORY_BYTES_MAX >> 20
    )]
    Bounds {
        /// What the runtime said.
        detail: String,
    },
    /// Of WASI 0.3, or with functions that are asynchronous.
    #[error(
        "the plugin uses what is asynchronous in the component model ({detail}), which this host does not serve: build it for WASI 0.2 (`wasm32-wasip2`) with a synchronous `on-event`, not for WASI 0.3"
    )]
    Asynchronous {
        /// What the validator said.
        detail: String,
    },
    /// Broken, or of a proposal that is not enabled.
    #[error("the file is not valid WebAssembly for this host: {detail}; build it again, without experimental features")]
    Invalid {
        /// What the compiler said.
        detail: String,
    },
    /// The compiler gave up on it.
    #[error(
        "the compiler failed on this file: {detail}; report it with the file, and try without optimisation or with smaller functions"
    )]
    CompilerPanicked {
        /// What it said.
        detail: String,
    },
    /// The compiler used more memory than it may.
    #[error(
        "compiling this file took more than {} of memory, which is all that it may: build it with smaller functions, or with fewer dependencies",
        bytesize::ByteSize::b(*bytes_max).display().iec()
    )]
    CompilerMemory {
        /// What it may use, in bytes.
        bytes_max: u64,
    },
    /// The compiler took longer than it may.
    #[error(
        "compiling this file took longer than {} s{of}, which is all that it may: build it with smaller functions, or with fewer dependencies{advice}",
        deadline.as_secs()
    )]
    CompilerDeadline {
        /// How long it may take.
        deadline: Duration,
        /// Of what: nothing is said of the wall clock's.
        of: &'static str,
        /// What else helps.
        advice: &'static str,
    },
    /// No process to compile in.
    #[error(
        "the process that compiles could not be run ({}): {source}; raise the limits on processes and memory of the service",
        program.display()
    )]
    CompilerUnavailable {
        /// What was to be run.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody ended the process that compiles.
    #[error(
        "the process that compiles was ended from outside (signal {signal}), as the kernel does where memory runs out; give the service more memory"
    )]
    CompilerKilled {
        /// The signal.
        signal: i32,
    },
    /// The machine has no room for a thread or for memory just now.
    #[error(
        "the machine has no room for compiling or loading it just now: {detail}; raise the limits on processes and memory of the service"
    )]
    Busy {
        /// What the system said.
        detail: String,
    },
    /// Nobody wants it any more.
    #[error("the compilation was cancelled, because the file has changed or the host stops")]
    Cancelled,
    /// It has to be compiled, and takes long: not now.
    #[error("it waits until it is its turn to be compiled")]
    Postponed,
    /// No handler at all.
    #[error(
        "the plugin lacks the export `{HANDLER}`; it exports {exports}. It must have `{SIGNATURE}`: use the SDK's export macro, or `world subscriber` of wirehook:plugin"
    )]
    HandlerMissing {
        /// What it does export.
        exports: String,
    },
    /// A handler of another version.
    #[error(
        "the plugin exports `wirehook:plugin/handler` in version `{found}`, this host serves `{HANDLER}`: build it with the SDK of this host's version, or use a host that serves `{found}`"
    )]
    HandlerVersion {
        /// Its version; empty where it has none.
        found: String,
    },
    /// A handler with other types.
    #[error(
        "the plugin's `{HANDLER}` is not as it should be: {detail}; expected `{SIGNATURE}` with the types of wirehook:plugin@0.1.0"
    )]
    HandlerMismatch {
        /// What differs.
        detail: String,
    },
    /// An import that nobody provides.
    #[error(
        "the plugin imports {imports}, which this host does not provide: {hint}. A plugin may import {}",
        offered()
    )]
    ImportUnknown {
        /// Which.
        imports: String,
        /// What to do.
        hint: &'static str,
    },
    /// An import with other types than are provided.
    #[error(
        "an import of the plugin is not as this host provides it: {detail}; build it with the SDK of this host's version"
    )]
    ImportMismatch {
        /// Which, and what differs.
        detail: String,
    },
    /// It imports what it is not granted.
    #[error(
        "the plugin imports `{interface}`, which takes the grant `{grant}`: its sidecar must ask for it with grants = [\"{grant}\"], and its [[plugin]] in the settings must give it"
    )]
    GrantMissing {
        /// The grant.
        grant: Grant,
        /// What it imports.
        interface: &'static str,
    },
    /// It could never start within its memory limit.
    #[error(
        "the plugin starts with a memory of {bytes} bytes, its limit is {bytes_max}, the lesser of what its sidecar's [limits] memory asks for and what [plugins.limits] or [plugin.limits] in the settings grants: raise both, or build it with less"
    )]
    Memory {
        /// What it starts with.
        bytes: u64,
        /// Its limit.
        bytes_max: usize,
    },
}

impl LoadError {
    /// Whether it is not the file's fault and may pass by itself.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::CompilerUnavailable { .. } | Self::CompilerKilled { .. } | Self::Busy { .. } => true,
            // The limit on CPU tells how much work a file makes; the wall clock's, how much the machine had to do.
            Self::CompilerDeadline { of, .. } => of.is_empty(),
            _ => false,
        }
    }

    /// Whether it is to be compiled when there is time.
    pub(super) fn is_postponed(&self) -> bool {
        matches!(self, Self::Postponed)
    }

    /// A file that the compiler or the runtime refused as `detail` says. They have one type for all of it, so that their
    /// words decide; tests notice when those change.
    pub(super) fn invalid(detail: String) -> Self {
        let says = |words: &[&str]| words.iter().any(|words| detail.contains(words));
        if says(&["exceeds the configured maximum", "exceeds the limit of", "exceeds the per-instance limit"]) {
            Self::Bounds { detail }
        } else if says(&["component model async", "requires the component model `async`"]) {
            Self::Asynchronous { detail }
        } else {
            Self::Invalid { detail }
        }
    }
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A component.
    Component,
    /// A core module, which must carry a component type or export the handler.
    CoreModule,
}

impl Plugin {
    /// Makes a plugin of a file's bytes. Compiles, or takes compiled code from the engine's cache.
    pub fn load(engine: &Arc<Engine>, name: &str, wasm: &[u8], manifest: Manifest) -> Result<Self, LoadError> {
        Self::load_with(engine, name, wasm, manifest, &Effort::default())
    }

    /// As [`Self::load`], with no more than some effort.
    pub(super) fn load_with(
        engine: &Arc<Engine>,
        name: &str,
        wasm: &[u8],
        manifest: Manifest,
        effort: &Effort,
    ) -> Result<Self, LoadError> {
        let kind = kind(wasm)?;
        let digest = digest(wasm);
        let component = match engine.cache().load(engine.wasmtime(), &digest) {
            Some(component) => component,
            None if effort.small_only && wasm.len() > SMALL_BYTES_MAX => return Err(LoadError::Postponed),
            None => {
                let clock = engine.clock();
                let code = engine.compiler().compile(engine.wasmtime(), &**clock, &effort.cancel, kind, wasm)?;
                engine.cache().store(&digest, &code);
                code.component(engine.wasmtime()).map_err(|error| {
                    let detail = detail(&format!("{error:#}"));
                    if is_busy(&detail) { LoadError::Busy { detail } } else { LoadError::invalid(detail) }
                })?
            }
        };
        check_memory(&component, manifest.limits)?;
        let handler = linker::link(engine, &component, &manifest.grants)?;
        let config = ConfigValues::new(&manifest.config);
        let digest: Arc<str> = digest.into();
        Ok(Self {
            name: name.into(),
            build: Arc::clone(&digest),
            digest,
            manifest,
            engine: engine.clone(),
            handler,
            config,
            kept: Kept::default(),
        })
    }
}

/// The lower-case hex SHA-256 of a file's bytes.
pub fn digest(wasm: &[u8]) -> String {
    hex::encode(Sha256::digest(wasm))
}

/// Tells components from core modules, and both from what is neither.
pub(super) fn kind(wasm: &[u8]) -> Result<Kind, LoadError> {
    if wasm.len() > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { bytes: wasm.len() });
    }
    let version = match wasm.strip_prefix(b"\0asm") {
        Some(rest) => rest.first_chunk::<4>().ok_or(LoadError::NotWasm { looks: "ends after its first bytes" })?,
        None => return Err(LoadError::NotWasm { looks: looks(wasm) }),
    };
    match *version {
        [0x01, 0x00, 0x00, 0x00] => Ok(Kind::CoreModule),
        [0x0d, 0x00, 0x01, 0x00] => Ok(Kind::Component),
        version => Err(LoadError::UnknownEncoding { version }),
    }
}

/// The component in `wasm`, encoded first where it is a core module.
pub(super) fn component_bytes(kind: Kind, wasm: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, LoadError> {
    if kind == Kind::Component {
        return Ok(wasm.into());
    }
    encode(wasm).map(Into::into)
}

fn check_memory(component: &Component, limits: Limits) -> Result<(), LoadError> {
    let pages = component.resources_required().and_then(|required| required.max_initial_memory_size).unwrap_or(0);
    let bytes = pages.saturating_mul(PAGE_BYTES);
    if bytes > limits.memory_bytes_max as u64 {
        return Err(LoadError::Memory { bytes, bytes_max: limits.memory_bytes_max });
    }
    Ok(())
}

fn looks(bytes: &[u8]) -> &'static str {
    const MAGICS: [(&[u8], &str); 9] = [
        (b"\x7fELF", "looks like a native ELF binary, built for this machine instead of for WebAssembly"),
        (b"\x1f\x8b", "looks gzipped: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "looks compressed with zstd: unpack it first"),
        (b"PK\x03\x04", "looks like a zip archive: unpack it first"),
        (b"MZ", "looks like a Windows binary, built for a machine instead of for WebAssembly"),
        (b"\xcf\xfa\xed\xfe", "looks like a macOS binary, built for a machine instead of for WebAssembly"),
        (b"BC\xc0\xde", "looks like LLVM bitcode: link it for WebAssembly"),
        (b"version https://git-lfs", "is a Git LFS pointer: fetch the file itself with `git lfs pull`"),
        (b"!<arch>", "looks like a static library: link it"),
    ];
    if bytes.is_empty() {
        return "is empty";
    }
    if let Some((_, looks)) = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return looks;
    }
    /// Bytes looked at to tell text from anything else.
    const TEXT_BYTES: usize = 512;
    match std::str::from_utf8(&bytes[..bytes.len().min(TEXT_BYTES)]) {
        Ok(text) if text.trim_start().starts_with('(') => {
            "looks like WebAssembly text: assemble it first (`wasm-tools parse`)"
        }
        Ok(_) => "is text",
        Err(error) if error.error_len().is_none() => "is text",
        Err(_) => "begins with other bytes than `\\0asm`",
    }
}

#[cfg(test)]
mod tests;
