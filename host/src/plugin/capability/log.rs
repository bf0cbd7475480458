//! `wirehook:plugin/log`: lines into the host's log, within a budget for each event.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmStr};

use crate::plugin::bindings::wirehook::plugin::log::Level;
use crate::plugin::call::CallState;
use crate::plugin::limits::{LOG_LINES_MAX, detail};

/// The interface's name.
pub(in crate::plugin) const INTERFACE: &str = "wirehook:plugin/log@0.1.0";

/// Offers the interface. The message stays in the guest's memory until the budget has admitted it, so that a flood costs
/// the host a counter a line.
pub(in crate::plugin) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.instance(INTERFACE)?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, CallState>, (level, message): (Level, WasmStr)| {
            if !is_enabled(level) || !store.data_mut().log.admit() {
                return Ok(());
            }
            let mut panic = None;
            let (bytes, bytes_logged) = {
                let line = message.to_str(&store)?;
                let state = store.data();
                let logged = state.log.cut(&line);
                emit(level, state, logged);
                // Rust's and Go's, whose SDKs log what the trap that follows can't say.
                if matches!(level, Level::Error) && line.starts_with("panic") {
                    panic = Some(detail(&line));
                }
                (line.len(), logged.len())
            };
            let state = store.data_mut();
            state.log.spend(bytes, bytes_logged);
            state.panicked = panic.or_else(|| state.panicked.take());
            Ok(())
        },
    )
}

/// Logs what the plugin wrote to stdout and stderr, as info, from the same budget: who prints wants it seen.
pub(in crate::plugin) fn emit_stdio(state: &mut CallState, text: &str) {
    if !is_enabled(Level::Info) {
        return;
    }
    for line in text.lines() {
        if !state.log.admit() {
            continue;
        }
        let logged = state.log.cut(line);
        emit(Level::Info, state, logged);
        let bytes_logged = logged.len();
        state.log.spend(line.len(), bytes_logged);
    }
}

/// Says once for the event that lines were kept back, if any were.
pub(in crate::plugin) fn report_dropped(state: &CallState) {
    if state.log.overspent() {
        let bytes_max = state.limits.log_bytes_max;
        tracing::warn!(
            target: "plugin",
            event_key = %state.event_key,
            plugin = %state.plugin,
            "the plugin logged more than {LOG_LINES_MAX} lines or {bytes_max} bytes for one event; the rest was dropped: {} lines",
            state.log.lines_dropped()
        );
    }
}

fn is_enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: "plugin", tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: "plugin", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "plugin", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "plugin", tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: "plugin", tracing::Level::ERROR),
    }
}

fn emit(level: Level, state: &CallState, line: &str) {
    let (plugin, event_key) = (&*state.plugin, state.event_key.as_str());
    match level {
        Level::Trace => tracing::trace!(target: "plugin", event_key, plugin, "{line}"),
        Level::Debug => tracing::debug!(target: "plugin", event_key, plugin, "{line}"),
        Level::Info => tracing::info!(target: "plugin", event_key, plugin, "{line}"),
        Level::Warn => tracing::warn!(target: "plugin", event_key, plugin, "{line}"),
        Level::Error => tracing::error!(target: "plugin", event_key, plugin, "{line}"),
    }
}
