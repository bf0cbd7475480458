//! WASI 0.2, locked: no files, variables, arguments or network; output goes to the log; no wait outlives the deadline.
//!
//! Components of general toolchains import it whether or not they use it. Built only when a plugin first calls into it.
//! Time and randomness are the event's: the same event sees the same.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::io::poll::{Host as _, HostPollable as _};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::plugin::call::CallState;
use crate::plugin::limits::HANDLES_MAX;

pub(in crate::plugin) mod random;
pub(in crate::plugin) mod time;

use time::Timer;

/// The packages offered, all of them at 0.2.
pub(in crate::plugin) const PACKAGES: [&str; 6] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];
// The interfaces with functions of their own here; the version is the one wasmtime-wasi offers, and a test notices a new one.
/// Waits are bounded.
const POLL_INTERFACE: &str = "wasi:io/poll@0.2.12";
/// Time is the event's.
const MONOTONIC_INTERFACE: &str = "wasi:clocks/monotonic-clock@0.2.12";
const WALL_INTERFACE: &str = "wasi:clocks/wall-clock@0.2.12";
/// Randomness is the event's.
const RANDOM_INTERFACE: &str = "wasi:random/random@0.2.12";
const INSECURE_INTERFACE: &str = "wasi:random/insecure@0.2.12";
const INSECURE_SEED_INTERFACE: &str = "wasi:random/insecure-seed@0.2.12";
/// Bytes of randomness in one call.
const RANDOM_BYTES_MAX: usize = 64 << 10;
/// Bytes of output taken in one write.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// WASI's state for one call.
pub(in crate::plugin) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    output: Output,
}

impl Wasi {
    fn locked(log_bytes_max: usize) -> Self {
        let output = Output { kept: Arc::default(), bytes_max: log_bytes_max };
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let ctx = WasiCtxBuilder::new()
            .stdout(output.clone())
            .stderr(output.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self { ctx, table, output }
    }

    /// What the plugin wrote to stdout and stderr.
    pub(in crate::plugin) fn take_output(&self) -> Vec<u8> {
        std::mem::take(&mut *self.output.lock())
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let log_bytes_max = self.limits.log_bytes_max;
        let wasi = self.wasi.get_or_insert_with(|| Box::new(Wasi::locked(log_bytes_max)));
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// Offers the packages. Must be called on threads that are no workers of an async runtime, as waits block them.
pub(in crate::plugin) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    let mut poll = linker.instance(POLL_INTERFACE)?;
    poll.func_wrap(
        "poll",
        |mut store: StoreContextMut<'_, CallState>, (pollables,): (Vec<Resource<DynPollable>>,)| {
            Ok((wait(store.data_mut(), async |table| table.poll(pollables).await)?,))
        },
    )?;
    poll.func_wrap(
        "[method]pollable.block",
        |mut store: StoreContextMut<'_, CallState>, (pollable,): (Resource<DynPollable>,)| {
            wait(store.data_mut(), async |table| table.block(pollable).await)
        },
    )?;
    time_to_linker(linker)?;
    random_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn time_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    let mut wall = linker.instance(WALL_INTERFACE)?;
    wall.func_wrap("now", |store: StoreContextMut<'_, CallState>, (): ()| {
        let now = store.data().time.wall();
        Ok((Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() },))
    })?;
    let mut monotonic = linker.instance(MONOTONIC_INTERFACE)?;
    monotonic.func_wrap("now", |store: StoreContextMut<'_, CallState>, (): ()| Ok((store.data().time.look(),)))?;
    monotonic.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, CallState>, (due,): (u64,)| {
        Ok((timer(store.data_mut(), due)?,))
    })?;
    monotonic.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, CallState>, (wait,): (u64,)| {
        let due = store.data().time.look().saturating_add(wait);
        Ok((timer(store.data_mut(), due)?,))
    })
}

fn timer(state: &mut CallState, due: u64) -> wasmtime::Result<Resource<DynPollable>> {
    let timer = Timer::at(&state.time, due);
    let table = state.ctx().table;
    let timer = table.push(timer)?;
    subscribe(table, timer)
}

fn random_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    for (interface, bytes, number) in [
        (RANDOM_INTERFACE, "get-random-bytes", "get-random-u64"),
        (INSECURE_INTERFACE, "get-insecure-random-bytes", "get-insecure-random-u64"),
    ] {
        let mut random = linker.instance(interface)?;
        random.func_wrap(bytes, |mut store: StoreContextMut<'_, CallState>, (count,): (u64,)| {
            let count = usize::try_from(count).ok().filter(|count| *count <= RANDOM_BYTES_MAX);
            let count = count.ok_or_else(|| {
                wasmtime::format_err!("more than {RANDOM_BYTES_MAX} random bytes were asked for in one call")
            })?;
            Ok((store.data_mut().random.bytes(count),))
        })?;
        random.func_wrap(number, |mut store: StoreContextMut<'_, CallState>, (): ()| {
            Ok((store.data_mut().random.next(),))
        })?;
    }
    let mut seed = linker.instance(INSECURE_SEED_INTERFACE)?;
    seed.func_wrap("insecure-seed", |mut store: StoreContextMut<'_, CallState>, (): ()| {
        let random = &mut store.data_mut().random;
        Ok(((random.next(), random.next()),))
    })
}

/// Waits no longer than the call may last, on either clock: the tick interrupts a guest, but not a host function that
/// blocks; and a plugin that sleeps too long is told so without having slept.
fn wait<R>(
    state: &mut CallState,
    wait: impl AsyncFnOnce(&mut ResourceTable) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    let (left, max) = (state.deadline.wall_left(), state.deadline.wall_max());
    let time = Arc::clone(&state.time);
    let table = state.ctx().table;
    let waited = wasmtime_wasi::runtime::in_tokio(async {
        tokio::time::timeout(left, time::asleep(&time, max, wait(table))).await
    });
    match waited {
        Ok(Ok(waited)) => waited,
        Ok(Err(time::TooLong)) | Err(_) => Err(state.deadline.pass_on_the_wall().into()),
    }
}

/// Stdout and stderr of one call, in the order written; what is over the cap is swallowed, so that a plugin that prints
/// too much still works.
#[derive(Clone)]
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    /// The log's budget.
    bytes_max: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        // One byte over the log's budget shows that there was more.
        let room = (self.bytes_max + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
