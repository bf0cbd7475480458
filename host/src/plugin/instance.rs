//! One sandbox with the plugin in it: for one event, or where reuse is asked for and granted, for several in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wasmtime::{Store, UpdateDeadline};

use super::bindings::AllCapabilities;
use super::call::CallState;
use super::limits::{HANDLES_MAX, Limits};
use super::{CallFailure, Plugin, Webhook};
use crate::sync::lock;

/// Ticks of the engine between two looks at the deadline.
const TICKS_BETWEEN_CHECKS: u64 = 1;
/// Instances that an engine keeps for later events, of whichever plugins: so many for each of its workers, and never more
/// than [`KEPT_MAX`].
const KEPT_PER_WORKER: usize = 8;
/// Instances that an engine keeps for later events at most.
const KEPT_MAX: usize = 256;

/// A sandbox, and the plugin in it once it was instantiated.
pub(super) struct Instance {
    store: Store<CallState>,
    subscriber: Option<AllCapabilities>,
    events_served: usize,
    /// Held while it is kept; a call holds a slot of its own.
    slot: Option<Slot>,
}

/// Instances that wait for their plugin's next event, the one used last at the end. There are never more than calls of the
/// plugin at once, nor than there are [`Slots`].
#[derive(Default)]
pub(super) struct Kept(Mutex<Vec<Instance>>);

/// Room for kept instances in the engine's pool, besides that of its workers.
pub(super) struct Slots(Arc<AtomicUsize>);

/// Room for one kept instance, given back when dropped.
struct Slot(Arc<AtomicUsize>);

/// Kept instances of an engine of so many workers.
pub(super) fn kept_max(workers: usize) -> usize {
    workers.saturating_mul(KEPT_PER_WORKER).min(KEPT_MAX)
}

/// Whether an instance may serve another event.
///
/// Not where the call did not end as calls should, for who knows what it left behind; nor where it has served its events;
/// nor where it uses more than half of what its memory limit leaves above a fresh instance, as the next event needs room.
pub(super) fn may_be_kept(
    limits: &Limits,
    result: &Result<Vec<Webhook>, CallFailure>,
    events_served: usize,
    fresh_bytes: usize,
    used_bytes: usize,
) -> bool {
    let ended_well = matches!(result, Ok(_) | Err(CallFailure::Retry(_) | CallFailure::Reject(_)));
    let room = limits.memory_bytes_max.saturating_sub(fresh_bytes);
    let grown = used_bytes.saturating_sub(fresh_bytes);
    ended_well && events_served < limits.events_per_instance_max && grown <= room / 2
}

impl Slots {
    pub(super) fn new(kept: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(kept)))
    }

    fn take(&self) -> Option<Slot> {
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.ok().map(|_| Slot(Arc::clone(&self.0)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Plugin {
    /// A sandbox for one more event, of which `state` speaks: a kept one, else a fresh one.
    pub(super) fn sandbox(&self, state: CallState) -> Instance {
        let kept = lock(&self.kept.0).pop();
        let mut instance = match kept {
            Some(mut kept) => {
                let before = std::mem::replace(kept.store.data_mut(), state);
                kept.store.data_mut().go_on_from(before);
                kept
            }
            None => Instance::fresh(self.engine.wasmtime(), state),
        };
        instance.events_served += 1;
        instance.store.set_hostcall_fuel(self.manifest.limits.crossing_bytes_max());
        instance.store.set_epoch_deadline(TICKS_BETWEEN_CHECKS);
        instance
    }

    /// Keeps a sandbox whose call came to `result` for a later event, or destroys it.
    pub(super) fn settle_sandbox(&self, mut instance: Instance, result: &Result<Vec<Webhook>, CallFailure>) {
        let limits = &self.manifest.limits;
        let state = instance.store.data();
        let (fresh_bytes, used_bytes) = (state.instance_bytes, state.memory.bytes_used());
        if !may_be_kept(limits, result, instance.events_served, fresh_bytes, used_bytes) {
            return;
        }
        instance.slot = instance.slot.take().or_else(|| self.engine.slots().take());
        if instance.slot.is_some() {
            lock(&self.kept.0).push(instance);
        }
    }
}

impl Instance {
    fn fresh(engine: &wasmtime::Engine, state: CallState) -> Self {
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().deadline.check()?;
            Ok(UpdateDeadline::Continue(TICKS_BETWEEN_CHECKS))
        });
        Self { store, subscriber: None, events_served: 0, slot: None }
    }

    /// What the call at hand knows and left.
    pub(super) fn state_mut(&mut self) -> &mut CallState {
        self.store.data_mut()
    }

    /// Calls the plugin in it; instantiates it first where that was not done.
    pub(super) fn enter<R>(
        &mut self,
        plugin: &Plugin,
        call: impl FnOnce(&AllCapabilities, &mut Store<CallState>) -> wasmtime::Result<R>,
    ) -> wasmtime::Result<R> {
        let subscriber = match self.subscriber.take() {
            Some(subscriber) => subscriber,
            None => {
                let subscriber = plugin.handler.instantiate(&mut self.store)?;
                let state = self.store.data_mut();
                state.instance_bytes = state.memory.bytes_peak();
                subscriber
            }
        };
        call(self.subscriber.insert(subscriber), &mut self.store)
    }
}

#[cfg(test)]
mod tests;
