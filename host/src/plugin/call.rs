//! One call: a fresh sandbox, the event in, webhooks out, and every way it can fail told apart.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::exports::wirehook::plugin::handler;
use super::capability::config::ConfigValues;
use super::capability::log;
use super::capability::wasi::Wasi;
use super::limits::{
    BODIES_BYTES_MAX, BODY_BYTES_MAX, CROSSING_BYTES_MAX, Deadline, HANDLES_MAX, HEADER_BYTES_MAX, HEADERS_MAX,
    LogBudget, MemoryMeter, NAME_BYTES_MAX, WEBHOOKS_MAX, detail,
};
use super::state::{Broken, Session};
use super::{CallFailure, CallReport, Plugin, Services, Webhook};
use crate::event::{Event, EventKey};

/// Ticks of the engine between two looks at the deadline.
const TICKS_BETWEEN_CHECKS: u64 = 1;
/// Frames of a trap's backtrace that are kept.
const FRAMES_MAX: usize = 8;
/// Bytes of what the plugin printed last that are kept with a trap.
const OUTPUT_TAIL_BYTES_MAX: usize = 512;

/// What the host's functions know during a call.
pub(super) struct CallState {
    pub(super) plugin: Arc<str>,
    pub(super) event_key: EventKey,
    pub(super) config: ConfigValues,
    pub(super) deadline: Deadline,
    pub(super) memory: MemoryMeter,
    pub(super) log: LogBudget,
    pub(super) wasi: Option<Box<Wasi>>,
    pub(super) session: Session,
    pub(super) broken_state: Option<Broken>,
    /// Memories and tables once the sandbox was made.
    pub(super) instance_bytes: usize,
}

impl Plugin {
    /// Runs the plugin on `event` in a sandbox of its own, the `attempt`-th time (from 1).
    ///
    /// Waits for a slot of the engine's pool, then blocks for [`super::limits::WALL_FACTOR`] deadlines at most. For worker
    /// threads; never from a task of an async runtime.
    pub fn call(&self, event: &Event, attempt: u32) -> CallReport {
        self.call_with(event, attempt, &Services::default())
    }

    /// As [`Self::call`], with what a host provides.
    pub fn call_with(&self, event: &Event, attempt: u32, services: &Services) -> CallReport {
        let _permit = self.engine.enter();
        let mut store = self.store(event, services);
        let returned = self.invoke(&mut store, event, attempt);
        // Taking the state out drops the sandbox, which is part of what the call costs.
        let mut state = store.into_data();
        let output = state.wasi.as_ref().map(|wasi| wasi.take_output()).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let result = match returned {
            Ok(Ok(webhooks)) => accept(webhooks),
            Ok(Err(handler::Failure::Retry(why))) => Err(CallFailure::Retry(detail(&why))),
            Ok(Err(handler::Failure::Reject(why))) => Err(CallFailure::Reject(detail(&why))),
            Err(error) => Err(classify(&error, &state, &output)),
        };
        let is_good = result.is_ok();
        log::emit_stdio(&mut state, &output);
        log::report_dropped(&state);
        CallReport {
            result,
            duration: state.deadline.wall_used(),
            cpu: state.deadline.cpu_used(),
            memory_peak_bytes: state.memory.bytes_peak(),
            instance_bytes: state.instance_bytes,
            log_lines_dropped: state.log.lines_dropped(),
            state: if is_good { state.session.into_change() } else { None },
        }
    }

    fn store(&self, event: &Event, services: &Services) -> Store<CallState> {
        let limits = self.manifest.limits;
        let state = CallState {
            plugin: self.name.clone(),
            event_key: event.key.clone(),
            config: self.config.clone(),
            deadline: Deadline::start(self.engine.clock().clone(), limits.deadline),
            memory: MemoryMeter::new(limits.memory_bytes_max),
            log: LogBudget::default(),
            wasi: None,
            session: Session::new(Arc::clone(&services.state), Arc::clone(&self.name)),
            broken_state: None,
            instance_bytes: 0,
        };
        let mut store = Store::new(self.engine.wasmtime(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(CROSSING_BYTES_MAX);
        store.set_max_component_handles(HANDLES_MAX);
        store.set_epoch_deadline(TICKS_BETWEEN_CHECKS);
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().deadline.check()?;
            Ok(UpdateDeadline::Continue(TICKS_BETWEEN_CHECKS))
        });
        store
    }

    fn invoke(
        &self,
        store: &mut Store<CallState>,
        event: &Event,
        attempt: u32,
    ) -> wasmtime::Result<Result<Vec<handler::Webhook>, handler::Failure>> {
        let attributes: Vec<(&str, &str)> = event.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        let event = handler::Event {
            key: event.key.as_str(),
            subject: &event.subject,
            entity_type: &event.entity_type,
            operation: &event.operation,
            entity_id: event.entity_id.as_deref(),
            tenant_id: event.tenant_id.as_deref(),
            timestamp: event.timestamp.as_deref(),
            entity: event.entity.as_deref(),
            previous: event.previous.as_deref(),
            attributes: &attributes,
            attempt,
        };
        let subscriber = self.handler.instantiate(&mut *store)?;
        let state = store.data_mut();
        state.instance_bytes = state.memory.bytes_peak();
        subscriber.wirehook_plugin_handler().call_on_event(&mut *store, event)
    }
}

/// Takes the plugin's webhooks if they keep every bound; one that does not refuses them all.
fn accept(webhooks: Vec<handler::Webhook>) -> Result<Vec<Webhook>, CallFailure> {
    let over = |what: String, max: usize| Err(CallFailure::Output(format!("{what}; the limit is {max}")));
    if webhooks.len() > WEBHOOKS_MAX {
        return over(format!("{} webhooks for one event", webhooks.len()), WEBHOOKS_MAX);
    }
    let mut bodies_bytes = 0;
    for (index, webhook) in webhooks.iter().enumerate() {
        bodies_bytes += webhook.body.len();
        let header_bytes: usize = webhook.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let name_bytes =
            [&webhook.endpoint, &webhook.key, &webhook.content_type].map(|name| name.as_ref().map_or(0, String::len));
        let name_bytes = name_bytes.into_iter().max().unwrap_or(0);
        if webhook.body.len() > BODY_BYTES_MAX {
            return over(format!("a body of {} bytes in webhook {index}", webhook.body.len()), BODY_BYTES_MAX);
        }
        if webhook.headers.len() > HEADERS_MAX {
            return over(format!("{} headers in webhook {index}", webhook.headers.len()), HEADERS_MAX);
        }
        if header_bytes > HEADER_BYTES_MAX {
            return over(format!("{header_bytes} bytes of headers in webhook {index}"), HEADER_BYTES_MAX);
        }
        if name_bytes > NAME_BYTES_MAX {
            return over(
                format!("an endpoint, key or content type of {name_bytes} bytes in webhook {index}"),
                NAME_BYTES_MAX,
            );
        }
    }
    if bodies_bytes > BODIES_BYTES_MAX {
        return over(format!("bodies of {bodies_bytes} bytes for one event"), BODIES_BYTES_MAX);
    }
    Ok(webhooks.into_iter().map(Webhook::from).collect())
}

impl From<handler::Webhook> for Webhook {
    fn from(webhook: handler::Webhook) -> Self {
        let handler::Webhook { endpoint, key, content_type, headers, body } = webhook;
        Self { endpoint, key, content_type, headers, body: Bytes::from(body) }
    }
}

/// Which limit ended the call, if one did: the limits' own memory decides, as a guest may turn a refusal into any trap.
fn classify(error: &wasmtime::Error, state: &CallState, output: &str) -> CallFailure {
    if let Some(passed) = state.deadline.passed() {
        return CallFailure::Deadline(passed.to_owned());
    }
    if let Some(refused) = state.memory.refused() {
        return CallFailure::Memory(refused.to_owned());
    }
    match &state.broken_state {
        Some(broken @ Broken::Bound { .. }) => return CallFailure::Output(detail(&broken.to_string())),
        Some(broken @ Broken::Store(_)) => return CallFailure::Host(detail(&broken.to_string())),
        None => {}
    }
    // The runtime has no type for this error; a test notices when its words change.
    if error.root_cause().to_string().contains("fuel allocated for hostcalls has been exhausted") {
        return CallFailure::Output(format!("more than {CROSSING_BYTES_MAX} bytes handed to the host at once"));
    }
    let mut text = describe(error);
    if !output.trim().is_empty() {
        // A panic's own words: all that tells a stripped plugin's author anything.
        let tail = output.ceil_char_boundary(output.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX));
        text.push_str("; it printed last: ");
        text.push_str(output[tail..].trim());
    }
    CallFailure::Trap(detail(&text))
}

fn describe(error: &wasmtime::Error) -> String {
    let mut text = if let Some(trap) = error.downcast_ref::<Trap>() {
        trap.to_string()
    } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
        format!("the plugin called exit({}) instead of returning", exit.0)
    } else {
        error.root_cause().to_string()
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    for (depth, frame) in frames.iter().take(FRAMES_MAX).enumerate() {
        text.push_str(if depth == 0 { "; in " } else { " < " });
        match frame.func_name() {
            Some(name) => text.push_str(name),
            None => text.push_str(&format!("function {}", frame.func_index())),
        }
    }
    text
}

#[cfg(test)]
mod tests;
