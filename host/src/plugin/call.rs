//! One call: a fresh sandbox, the event in, webhooks out, and every way it can fail told apart.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::exports::wirehook::plugin::handler;
use super::capability::config::ConfigValues;
use super::capability::log;
use super::capability::wasi::Wasi;
use super::capability::wasi::random::EventRandom;
use super::capability::wasi::time::EventTime;
use super::http::Outgoing;
use super::instance::Instance;
use super::limits::{BODIES_BYTES_MAX, Deadline, Limits, LogBudget, MemoryMeter, NAME_BYTES_MAX, detail};
use super::state::{Broken, Session};
use super::{CallFailure, CallReport, Plugin, Services, Webhook};
use crate::event::{Event, EventKey};

/// Frames of a trap's backtrace that are kept.
const FRAMES_MAX: usize = 8;
/// Bytes of what the plugin printed last that are kept with a trap.
const OUTPUT_TAIL_BYTES_MAX: usize = 512;

/// What the host's functions know during a call.
pub(super) struct CallState {
    pub(super) plugin: Arc<str>,
    pub(super) event_key: EventKey,
    pub(super) limits: Limits,
    pub(super) config: ConfigValues,
    pub(super) deadline: Deadline,
    pub(super) memory: MemoryMeter,
    pub(super) log: LogBudget,
    /// What the plugin's SDK logged last of a panic.
    pub(super) panicked: Option<String>,
    pub(super) time: Arc<EventTime>,
    pub(super) random: EventRandom,
    pub(super) wasi: Option<Box<Wasi>>,
    pub(super) session: Session,
    pub(super) broken_state: Option<Broken>,
    /// What this host could not do for the plugin, for want of resources of its own.
    pub(super) host_failed: Option<String>,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) requests_made: u32,
    /// Memories and tables once the sandbox was made.
    pub(super) instance_bytes: usize,
}

impl Plugin {
    /// Runs the plugin on `event` in a sandbox of its own, the `attempt`-th time (from 1). Where reuse is asked for and
    /// granted, the sandbox may be that of an earlier event.
    ///
    /// Waits for a slot of the engine's pool, then blocks for [`super::limits::WALL_FACTOR`] deadlines at most. For worker
    /// threads; never from a task of an async runtime.
    pub fn call(&self, event: &Event, attempt: u32) -> CallReport {
        self.call_with(event, attempt, &Services::default())
    }

    /// As [`Self::call`], with what a host provides.
    pub fn call_with(&self, event: &Event, attempt: u32, services: &Services) -> CallReport {
        let _permit = self.engine.enter();
        let mut sandbox = self.sandbox(self.state(event, services));
        let returned = self.invoke(&mut sandbox, event, attempt);
        let state = sandbox.state_mut();
        let output = state.wasi.as_ref().map(|wasi| wasi.take_output()).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let result = match returned {
            Ok(Ok(webhooks)) => accept(webhooks, &self.manifest.limits),
            Ok(Err(handler::Failure::Retry(why))) => Err(CallFailure::Retry(detail(&why))),
            Ok(Err(handler::Failure::Reject(why))) => Err(CallFailure::Reject(detail(&why))),
            Err(error) => Err(classify(&error, state, &output)),
        };
        let result = result.map_err(|failure| blamed(failure, state.host_failed.take()));
        log::emit_stdio(state, &output);
        log::report_dropped(state);
        let nothing = Session::new(Arc::clone(&services.state), Arc::clone(&self.name));
        let session = std::mem::replace(&mut state.session, nothing);
        let (memory_peak_bytes, instance_bytes) = (state.memory.bytes_peak(), state.instance_bytes);
        let log_lines_dropped = state.log.lines_dropped();
        let deadline = state.deadline.clone();
        self.settle_sandbox(sandbox, &result);
        CallReport {
            state: if result.is_ok() { session.into_change() } else { None },
            result,
            // Destroying the sandbox is part of what the call costs.
            duration: deadline.wall_used(),
            cpu: deadline.cpu_used(),
            memory_peak_bytes,
            instance_bytes,
            log_lines_dropped,
        }
    }

    fn state(&self, event: &Event, services: &Services) -> CallState {
        let limits = self.manifest.limits;
        CallState {
            plugin: self.name.clone(),
            event_key: event.key.clone(),
            limits,
            config: self.config.clone(),
            deadline: Deadline::start(self.engine.clock().clone(), limits.deadline),
            memory: MemoryMeter::new(limits.memory_bytes_max),
            log: LogBudget::new(limits.log_bytes_max),
            panicked: None,
            time: EventTime::of(event),
            random: EventRandom::of(&event.key),
            wasi: None,
            session: Session::new(Arc::clone(&services.state), Arc::clone(&self.name)),
            broken_state: None,
            host_failed: None,
            outgoing: Arc::clone(&services.outgoing),
            requests_made: 0,
            instance_bytes: 0,
        }
    }

    fn invoke(
        &self,
        sandbox: &mut Instance,
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
        sandbox.enter(self, |subscriber, store| subscriber.wirehook_plugin_handler().call_on_event(&mut *store, event))
    }
}

impl CallState {
    /// Takes over what belongs to the sandbox and not to the event, from the call before in the same sandbox.
    pub(super) fn go_on_from(&mut self, before: Self) {
        self.memory = before.memory.next_call();
        self.wasi = before.wasi;
        // Timers of an earlier event go by the same clocks, which begin again.
        before.time.begin_as(&self.time);
        self.time = before.time;
        self.instance_bytes = before.instance_bytes;
    }
}

/// Takes the plugin's webhooks if they keep every bound; one that does not refuses them all.
fn accept(webhooks: Vec<handler::Webhook>, limits: &Limits) -> Result<Vec<Webhook>, CallFailure> {
    let over = |what: String, max: usize| Err(CallFailure::Output(format!("{what}; the limit is {max}")));
    if webhooks.len() > limits.webhooks_max {
        return over(format!("{} webhooks for one event", webhooks.len()), limits.webhooks_max);
    }
    let mut bodies_bytes = 0;
    for (index, webhook) in webhooks.iter().enumerate() {
        bodies_bytes += webhook.body.len();
        let header_bytes: usize = webhook.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let name_bytes =
            [&webhook.endpoint, &webhook.key, &webhook.content_type].map(|name| name.as_ref().map_or(0, String::len));
        let name_bytes = name_bytes.into_iter().max().unwrap_or(0);
        if webhook.body.len() > limits.body_bytes_max {
            return over(format!("a body of {} bytes in webhook {index}", webhook.body.len()), limits.body_bytes_max);
        }
        if webhook.headers.len() > limits.headers_max {
            return over(format!("{} headers in webhook {index}", webhook.headers.len()), limits.headers_max);
        }
        if header_bytes > limits.header_bytes_max {
            return over(format!("{header_bytes} bytes of headers in webhook {index}"), limits.header_bytes_max);
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

/// A plugin that gives up after this host has failed it is not to blame: it spends none of its tries.
fn blamed(failure: CallFailure, host_failed: Option<String>) -> CallFailure {
    match (failure, host_failed) {
        (CallFailure::Retry(_) | CallFailure::Reject(_) | CallFailure::Trap(_), Some(own)) => CallFailure::Host(own),
        (failure, _) => failure,
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
        let crossing_bytes_max = state.limits.crossing_bytes_max();
        return CallFailure::Output(format!("more than {crossing_bytes_max} bytes handed to the host at once"));
    }
    if let Some(refused) = refused_by_system(error) {
        return CallFailure::Host(detail(&refused));
    }
    let mut text = describe(error);
    if let Some(panicked) = &state.panicked {
        // First what the author wrote: that a panic ends in `unreachable` is known.
        text = format!("{panicked} ({text})");
    }
    if !output.trim().is_empty() {
        // A panic's own words: all that tells a stripped plugin's author anything.
        let tail = output.ceil_char_boundary(output.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX));
        text.push_str("; it printed last: ");
        text.push_str(output[tail..].trim());
    }
    CallFailure::Trap(detail(&text))
}

/// What the operating system refused that a call needs, such as memory for the sandbox or a file of the process's own: no
/// plugin's fault, for plugins reach no system call. The runtime gives it in types of its own; what they have in common is
/// how they end.
fn refused_by_system(error: &wasmtime::Error) -> Option<String> {
    let text = error.root_cause().to_string();
    let is_the_guests = error.downcast_ref::<Trap>().is_some() || error.downcast_ref::<I32Exit>().is_some();
    (!is_the_guests && text.contains("(os error ")).then(|| format!("the system refused what a call needs: {text}"))
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
