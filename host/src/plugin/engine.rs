//! One engine a process: the compiler, the pool of sandboxes, the ticker and the cache of compiled code.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytesize::ByteSize;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::cache::{CacheError, CompiledCache};
use super::call::CallState;
use super::compiler::Compiler;
use super::gate::{Gate, Permit};
use super::instance::{Slots, kept_max};
use super::limits::MEMORY_BYTES_MAX;
use super::linker;
use super::reservation::{self, Reservation, TooLittle};
use super::swap::{Cleaning, SwapWatch};
use crate::clock::Clock;

/// Core instances of one plugin: a plugin of several libraries, as Python's, is many.
pub(super) const CORE_INSTANCES_PER_PLUGIN_MAX: u32 = 64;
/// Memories of one plugin, over all its core instances.
pub(super) const MEMORIES_PER_PLUGIN_MAX: u32 = 4;
/// Tables of one plugin, over all its core instances.
pub(super) const TABLES_PER_PLUGIN_MAX: u32 = 16;
/// Elements of one table.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Bytes that one of them takes at most.
const TABLE_ELEMENT_BYTES: usize = 16;
/// Bytes of the host's own data about one plugin's instance.
const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a memory that stay resident between calls: what makes a fresh sandbox cheap.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// The same without the page scan, where they are copied at each call whether written or not. All of a small plugin in C;
/// of one in Rust little, as its stack lies below a megabyte and is dropped: copying all of that takes longer.
const COPIED_BYTES: usize = 128 << 10;
/// Calls at once that an engine can be asked for.
pub const WORKERS_MAX: usize = 1_024;

/// What every plugin of a process runs on.
pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Linker<CallState>,
    cache: CompiledCache,
    compiler: Compiler,
    gate: Arc<Gate>,
    slots: Slots,
    ticker: Option<JoinHandle<()>>,
    swap: SwapWatch,
    clock: Arc<dyn Clock>,
}

/// What of an engine needs nothing but the process: the sandboxes' address space, and what they may call.
pub struct Runtime {
    wasmtime: wasmtime::Engine,
    linker: Linker<CallState>,
    workers: usize,
    /// Instances that may be kept.
    kept: u32,
    cleaning: Cleaning,
}

impl Runtime {
    /// For `workers` calls at once, in sandboxes that are cleaned by `cleaning` as long as that is safe.
    ///
    /// # Errors
    /// Too many workers, or too little address space.
    pub fn new(workers: usize, cleaning: Cleaning) -> Result<Self, EngineError> {
        let slots = u32::try_from(workers).ok().filter(|slots| (1..=WORKERS_MAX).contains(&(*slots as usize)));
        let slots = slots.ok_or(EngineError::Workers(workers))?;
        let kept = u32::try_from(kept_max(workers)).map_err(|_| EngineError::Workers(workers))?;
        let reserved = reserve(slots, kept)?;
        let wasmtime = wasmtime::Engine::new(&config(slots + reserved.kept, reserved.memory, cleaning.scans()))
            .map_err(|error| EngineError::Pool { workers, detail: format!("{error:#}") })?;
        let linker = linker::build(&wasmtime).map_err(|error| EngineError::Link(format!("{error:#}")))?;
        Ok(Self { wasmtime, linker, workers, kept: reserved.kept, cleaning })
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Workers out of bounds.
    #[error("{0} plugin workers were asked for; between 1 and {WORKERS_MAX} are possible, set `[plugins] workers`")]
    Workers(usize),
    /// The folder for compiled code can't be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A limit on address space, which the pool would be beyond.
    #[error(
        "the sandboxes of {workers} plugin workers need {needed} of address space, and the process may have {allowed}; lift that limit (`ulimit -v unlimited`, `LimitAS=infinity`), or lower `[plugins] workers`"
    )]
    AddressSpace {
        /// How many were asked for.
        workers: usize,
        /// The limit.
        allowed: ByteSize,
        /// What they need.
        needed: ByteSize,
    },
    /// The pool could not be reserved.
    #[error(
        "the sandboxes of {workers} plugin workers could not be reserved: {detail}; lower `[plugins] workers`, or let the process have more address space (the container's or the system's limit, `vm.overcommit_memory`)"
    )]
    Pool {
        /// How many were asked for.
        workers: usize,
        /// What the runtime said.
        detail: String,
    },
    /// What the host offers to plugins could not be put together.
    #[error("the interfaces offered to plugins could not be linked: {0}; this is a fault of this build")]
    Link(String),
    /// No thread for the ticker.
    #[error("the thread that enforces plugins' deadlines could not be started")]
    Ticker(#[source] std::io::Error),
    /// No thread to notice that the machine is given swap.
    #[error("the thread that watches for swap could not be started; raise the limit on processes of the service")]
    SwapWatch(#[source] std::io::Error),
}

impl Engine {
    /// An engine for `workers` calls at once, which compiles with `compiler` and keeps code in `cache_dir` (created 0700).
    pub fn new(
        workers: usize,
        cache_dir: &Path,
        compiler: Compiler,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, EngineError> {
        Self::of(Runtime::new(workers, Cleaning::now())?, cache_dir, compiler, clock)
    }

    /// The engine of a runtime, as [`Self::new`].
    pub fn of(
        runtime: Runtime,
        cache_dir: &Path,
        compiler: Compiler,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, EngineError> {
        let Runtime { wasmtime, linker, workers, kept, cleaning } = runtime;
        let cache = CompiledCache::open(cache_dir, &wasmtime, clock.clone())?;
        let gate = Arc::new(Gate::new(workers));
        let ticker = thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn({
                let (gate, wasmtime) = (gate.clone(), wasmtime.clone());
                move || gate.tick_until_closed(|| wasmtime.increment_epoch())
            })
            .map_err(EngineError::Ticker)?;
        let swap = SwapWatch::start(cleaning).map_err(EngineError::SwapWatch)?;
        Ok(Arc::new(Self {
            wasmtime,
            linker,
            cache,
            compiler,
            gate,
            slots: Slots::new(kept as usize),
            ticker: Some(ticker),
            swap,
            clock,
        }))
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    pub(super) fn linker(&self) -> &Linker<CallState> {
        &self.linker
    }

    pub(super) fn cache(&self) -> &CompiledCache {
        &self.cache
    }

    pub(super) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Room for instances that are kept.
    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// How the memory of a sandbox is cleaned for the next event.
    pub fn cleaning(&self) -> Cleaning {
        self.swap.cleaning()
    }

    /// Waits for a slot of the pool.
    pub(super) fn enter(&self) -> Permit<'_> {
        self.gate.enter()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.gate.close();
        if let Some(ticker) = self.ticker.take() {
            // A ticker that panicked has nothing more to tell: nothing runs here any longer.
            drop(ticker.join());
        }
    }
}

/// What compiles for every [`Engine`] of this build, whatever its number of slots.
pub(super) fn for_compiling() -> wasmtime::Result<wasmtime::Engine> {
    // The machine code is the same however sandboxes are cleaned.
    wasmtime::Engine::new(&config(1, reservation::memory(reservation::allowed()), false))
}

/// Room for as many instances as the process may have address space for.
fn reserve(workers: u32, kept_max: u32) -> Result<Reservation, EngineError> {
    let tables = u64::from(TABLES_PER_PLUGIN_MAX) * (TABLE_ELEMENTS_MAX * TABLE_ELEMENT_BYTES) as u64;
    let planned = reservation::plan(reservation::allowed(), workers, kept_max, (MEMORIES_PER_PLUGIN_MAX, tables));
    let reserved = planned.map_err(|TooLittle { allowed, needed }| EngineError::AddressSpace {
        workers: workers as usize,
        allowed: ByteSize::b(allowed),
        needed: ByteSize::b(needed),
    })?;
    if reserved.kept < kept_max {
        let (bound, asked) = (reserved.kept, kept_max);
        tracing::warn!(bound, asked, "fewer plugin instances are kept, as the process has a limit on address space");
    }
    Ok(reserved)
}

/// For `slots` instances at once; each memory with `memory` bytes of address space, where not the runtime's default.
fn config(slots: u32, memory: Option<u64>, scans: bool) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES_PER_PLUGIN_MAX)
        .total_memories(slots * MEMORIES_PER_PLUGIN_MAX)
        .total_tables(slots * TABLES_PER_PLUGIN_MAX)
        // Calls are synchronous: no fibre ever needs a stack of its own.
        .total_stacks(1)
        .max_core_instances_per_component(CORE_INSTANCES_PER_PLUGIN_MAX)
        .max_memories_per_component(MEMORIES_PER_PLUGIN_MAX)
        .max_tables_per_component(TABLES_PER_PLUGIN_MAX)
        .max_tables_per_module(TABLES_PER_PLUGIN_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(if scans { KEEP_RESIDENT_BYTES } else { COPIED_BYTES })
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(if scans { Enabled::Auto } else { Enabled::No });

    let mut config = Config::new();
    if let Some(bytes) = memory {
        // The pool never moves a memory.
        config.memory_reservation(bytes).memory_may_move(false);
    }
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .concurrency_support(false)
        // The memory limit is a sum over all memories of a call, so that several are no way around it; components of
        // several modules need adapters with more than one.
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        // A guest's own DWARF is input like any other: it is never parsed in the host.
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    config
}
